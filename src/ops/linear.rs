//! The product of rows with a matrix, as a fully connected layer has it.

use super::tape::with_gradient;
use candle_core::{Result, Tensor};

/// x `[M, in]` times the transpose of weight `[out, in]`, plus bias `[out]`: `[M, out]`, differentiable in all three.
///
/// # Errors
/// Shapes that do not fit.
pub fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let y = x.matmul(&weight.t()?)?.broadcast_add(bias)?;
    let gradient = |inputs: &[Tensor], _: &Tensor, g: &Tensor| {
        let [x, weight, bias] = inputs else { candle_core::bail!("linear lost an operand") };
        let g = g.contiguous()?;
        Ok(vec![
            x.track_op().then(|| g.matmul(&weight.detach())).transpose()?,
            weight.track_op().then(|| g.t()?.matmul(&x.detach())).transpose()?,
            bias.track_op().then(|| g.sum(0)).transpose()?,
        ])
    };
    Ok(with_gradient(&[x, weight, bias], y, gradient))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tape::Tape;
    use candle_core::{Device, Var};

    #[test]
    fn gradients_are_candles() -> Result<()> {
        let numbers = |shape: &[usize], step: f32| {
            let values: Vec<f32> = (0..shape.iter().product()).map(|i: usize| (i as f32 * step).cos()).collect();
            Var::from_vec(values, shape, &Device::Cpu)
        };
        let (x, weight, bias) = (numbers(&[4, 3], 0.3)?, numbers(&[2, 3], 0.7)?, numbers(&[2], 0.9)?);
        let mut tape = Tape::default();
        let loss = || linear(&x, &weight, &bias)?.sqr()?.sum_all();
        let (recorded, known) = (tape.record(loss)?, loss()?.backward()?);
        let found = tape.backward(&recorded)?;
        for var in [&x, &weight, &bias] {
            let (Some(found), Some(known)) = (found.get(var), known.get(var)) else { panic!("no gradient") };
            let apart = (found - known)?.abs()?.max_all()?.to_vec0::<f32>()?;
            assert!(found.dims() == known.dims() && apart < 1e-5, "{apart}");
        }
        Ok(())
    }
}
