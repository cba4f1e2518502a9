//! The thinned U-shape module: down by strided convolutions, up by nearest-neighbour sums, one map at every scale.
//!
//! Zhao et al., "M2Det" (AAAI 2019), §3.2; the layers and their names are those of the reference implementation.

use super::basic::BasicConv;
use crate::nn::{Pass, Scope};
use crate::ops::conv::{Activation, ConvSpec};
use crate::ops::maps::add;
use crate::ops::resize::upsample_nearest;
use candle_core::{Result, Tensor};

/// One module. Keys: `layers.{i}`, `toplayer.0`, `latlayer.{i}`, `smooth.{i}`, each with `conv.*` and `bn.*`.
#[derive(Debug)]
pub(super) struct Tum {
    /// Halving convolutions; the last one has stride 1 and no padding instead.
    layers: Vec<BasicConv>,
    top: BasicConv,
    /// On the encoder's inputs, coarsest first.
    lateral: Vec<BasicConv>,
    /// On the sums, coarsest first; empty without smoothing.
    smooth: Vec<BasicConv>,
}

impl Tum {
    /// From `input` channels to `scales` maps of `planes`.
    ///
    /// # Errors
    /// Fewer than three scales.
    pub(super) fn new(scope: &Scope, input: usize, planes: usize, scales: usize, smooth: bool) -> Result<Self> {
        if scales < 3 {
            candle_core::bail!("a U-shape module needs at least 3 scales, not {scales}");
        }
        let steps = scales - 1;
        let halving = ConvSpec::new().stride(2).padding(1);
        let channels = |first: bool| if first { input } else { planes };
        let list = |name: &str, conv: &dyn Fn(usize) -> (usize, usize, ConvSpec)| -> Result<Vec<BasicConv>> {
            let scope = scope.enter(name);
            let mut convs = Vec::with_capacity(steps);
            for index in 0..steps {
                let (from, kernel, spec) = conv(index);
                convs.push(BasicConv::new(&scope.enter(index), (from, planes, kernel), spec)?);
            }
            Ok(convs)
        };
        Ok(Self {
            layers: list("layers", &|i| (channels(i == 0), 3, if i + 1 < steps { halving } else { ConvSpec::new() }))?,
            top: BasicConv::new(&scope.enter("toplayer").enter(0), (planes, planes, 1), ConvSpec::new())?,
            lateral: list("latlayer", &|i| (channels(i + 1 == steps), 3, ConvSpec::new().padding(1)))?,
            smooth: if smooth { list("smooth", &|_| (planes, 1, ConvSpec::new()))? } else { Vec::new() },
        })
    }

    /// `[N, input, H, W]` → maps `[N, planes, h, w]`, the coarsest first and the last at the input's size.
    ///
    /// # Errors
    /// An input too small for the encoder.
    pub(super) fn forward(&self, x: &Tensor, pass: &Pass) -> Result<Vec<Tensor>> {
        let mut inputs = Vec::with_capacity(self.layers.len());
        let mut x = x.clone();
        for layer in &self.layers {
            inputs.push(x.clone());
            x = layer.forward(&x, pass)?;
        }
        let mut sums = vec![self.top.forward(&x, pass)?];
        for (lateral, encoded) in self.lateral.iter().zip(inputs.iter().rev()) {
            let (_, _, height, width) = encoded.dims4()?;
            if let Some(coarser) = sums.last() {
                let enlarged = upsample_nearest(coarser, (height, width))?;
                sums.push(add(&enlarged, &lateral.forward(encoded, pass)?, Activation::None)?);
            }
        }
        // the coarsest map stays as it is
        for (smooth, sum) in self.smooth.iter().zip(sums.iter_mut().skip(1)) {
            *sum = smooth.forward(sum, pass)?;
        }
        Ok(sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Mode, Params};
    use candle_core::{DType, Device};

    #[test]
    fn scales_of_the_published_module() -> Result<()> {
        let params = Params::new(&Device::Cpu, 0);
        let tum = Tum::new(&params.root().enter("unet2"), 5, 4, 6, true)?;
        let x = Tensor::ones((1, 5, 40, 40), DType::F32, &Device::Cpu)?;
        let maps = tum.forward(&x, &Pass::new(Mode::Infer))?;
        let sides: Vec<usize> = maps.iter().map(|m| m.dim(3)).collect::<Result<_>>()?;
        assert_eq!(sides, [1, 3, 5, 10, 20, 40]);
        assert!(maps.iter().all(|m| m.dims()[1] == 4));
        // 5 + 1 + 5 + 5 units of five tensors
        assert_eq!(params.all().len(), 16 * 5);
        let shape = |name: &str| params.get(&format!("unet2.{name}.conv.weight")).map(|p| p.var.dims().to_vec());
        assert_eq!(shape("layers.0"), Some(vec![4, 5, 3, 3]));
        assert_eq!(shape("layers.4"), Some(vec![4, 4, 3, 3]));
        assert_eq!(shape("latlayer.3"), Some(vec![4, 4, 3, 3]));
        assert_eq!(shape("latlayer.4"), Some(vec![4, 5, 3, 3]));
        assert_eq!(shape("smooth.4"), Some(vec![4, 4, 1, 1]));
        Ok(())
    }

    #[test]
    fn sums_run_from_the_coarsest_up() -> Result<()> {
        // one channel, three scales on 8 × 8: halved to 4 × 4, then 2 × 2 without padding
        let params = Params::new(&Device::Cpu, 0);
        let tum = Tum::new(&params.root(), 1, 1, 3, false)?;
        for param in params.all() {
            if param.name.ends_with("conv.weight") {
                // only the middle tap: every convolution passes its input on
                let count = param.var.elem_count();
                let values: Vec<f32> = (0..count).map(|i| if i == count / 2 { 1.0 } else { 0.0 }).collect();
                params.set(&param.name, &values)?;
            }
        }
        let x = Tensor::ones((1, 1, 8, 8), DType::F32, &Device::Cpu)?;
        let maps = tum.forward(&x, &Pass::new(Mode::Infer))?;
        let tops: Vec<f32> = maps.iter().map(|m| m.flatten_all()?.get(0)?.to_vec0()).collect::<Result<_>>()?;
        // 1, then 1 + 1, then 1 + 1 + 1, up to the norm's ε
        for (found, expected) in tops.iter().zip([1.0_f32, 2.0, 3.0]) {
            assert!((found - expected).abs() < 1e-3, "{tops:?}");
        }
        assert!(Tum::new(&params.root().enter("b"), 1, 1, 2, false).is_err());
        Ok(())
    }
}
