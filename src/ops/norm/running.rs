//! Running statistics of batch norm: how they follow the batches, and the factors and shifts that they make.

use super::{inverse_deviation, per_channel};
use crate::ops::cuda;
use candle_core::{Device, Result, Tensor};

/// What [`super::batch_norm`] multiplies each channel by and what it adds then: `[C]` each, no part of a graph.
///
/// # Errors
/// Vectors that are not f32 and of one length.
pub fn factor_and_shift([gamma, beta, running_mean, running_var]: [&Tensor; 4], eps: f32) -> Result<(Tensor, Tensor)> {
    let channels = gamma.elem_count();
    for vector in [gamma, beta, running_mean, running_var] {
        per_channel(vector.shape(), channels, "factor_and_shift")?;
    }
    if !gamma.device().is_cpu() {
        return cuda::norm::factor_and_shift([gamma, beta, running_mean, running_var], eps);
    }
    let [gamma, beta, mean, var] = [gamma, beta, running_mean, running_var].map(Tensor::to_vec1::<f32>);
    // Folded into filters of a single 1, the norm leaves its factors.
    let ones = vec![1.0f32; channels];
    let (factor, shift) = fold_batch_norm(&ones, None, channels, &gamma?, &beta?, &mean?, &var?, eps);
    Ok((Tensor::from_vec(factor, channels, &Device::Cpu)?, Tensor::from_vec(shift, channels, &Device::Cpu)?))
}

/// A convolution's weight `[out_channels, …]` and bias with the batch norm that follows it folded in: the same
/// function as convolution, then [`super::batch_norm`]. All vectors hold `out_channels` numbers.
pub fn fold_batch_norm(
    weight: &[f32],
    bias: Option<&[f32]>,
    out_channels: usize,
    gamma: &[f32],
    beta: &[f32],
    mean: &[f32],
    var: &[f32],
    eps: f32,
) -> (Vec<f32>, Vec<f32>) {
    let scales: Vec<f64> =
        gamma.iter().zip(var).map(|(&g, &v)| f64::from(g) * inverse_deviation(f64::from(v), eps)).collect();
    let size = weight.len() / out_channels.max(1);
    let folded = weight
        .chunks(size.max(1))
        .zip(&scales)
        .flat_map(|(filter, &scale)| filter.iter().map(move |&w| (f64::from(w) * scale) as f32))
        .collect();
    let shifted = scales.iter().zip(beta).zip(mean).enumerate().map(|(channel, ((&scale, &beta), &mean))| {
        let before = bias.and_then(|b| b.get(channel)).copied().unwrap_or(0.0);
        (f64::from(beta) + (f64::from(before) - f64::from(mean)) * scale) as f32
    });
    (folded, shifted.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_statistics_become_factors() -> Result<()> {
        let vector = |values: &[f32]| Tensor::from_slice(values, values.len(), &Device::Cpu);
        let running = vector(&[1.0, -2.0])?;
        // 2 / √4 and 3 / √1; what is added is beta − mean · factor.
        let (gamma, beta, var) = (vector(&[2.0, 3.0])?, vector(&[0.5, -0.5])?, vector(&[4.0, 1.0])?);
        let (factor, shift) = factor_and_shift([&gamma, &beta, &running, &var], 0.0)?;
        assert_eq!((factor.to_vec1::<f32>()?, shift.to_vec1::<f32>()?), (vec![1.0, 3.0], vec![-0.5, 5.5]));
        assert!(factor_and_shift([&gamma, &beta, &running, &vector(&[1.0])?], 0.0).is_err());
        Ok(())
    }

    #[test]
    fn folding_scales_filters_and_shifts_biases() {
        // scale = gamma / √var = 2 / 2 and 3 / 1
        let (weight, bias) = fold_batch_norm(
            &[1.0, 2.0, 3.0, 4.0],
            Some(&[1.0, 1.0]),
            2,
            &[2.0, 3.0],
            &[0.5, -0.5],
            &[3.0, 0.0],
            &[4.0, 1.0],
            0.0,
        );
        assert_eq!(weight, [1.0, 2.0, 9.0, 12.0]);
        assert_eq!(bias, [0.5 + (1.0 - 3.0), -0.5 + 3.0]);
        assert_eq!(fold_batch_norm(&[], None, 0, &[], &[], &[], &[], 1e-5), (vec![], vec![]));
    }
}
