//! Scale-wise feature aggregation (SFAM): maps of one size of all modules side by side, then, where it is on, each
//! channel weighed by what the whole map holds. Zhao et al., "M2Det" (AAAI 2019), §3.3.

use crate::nn::{Conv, Init, Pass, Scope};
use crate::ops::activation::sigmoid;
use crate::ops::conv::{Activation, ConvSpec};
use crate::ops::maps::cat;
use crate::ops::pool::global_avg_pool;
use candle_core::{Result, Tensor};

/// Puts the modules' maps (coarsest first) side by side: one map `[N, modules · C, H, W]` a scale, finest first.
pub(super) fn aggregate(modules: &[Vec<Tensor>]) -> Result<Vec<Tensor>> {
    let scales = modules.iter().map(Vec::len).min().unwrap_or(0);
    let mut sources = Vec::with_capacity(scales);
    for scale in (0..scales).rev() {
        let maps: Vec<Tensor> = modules.iter().filter_map(|maps| maps.get(scale).cloned()).collect();
        sources.push(cat(&maps, 1)?);
    }
    Ok(sources)
}

/// Channel attention. Keys: `fc1.{i}.*`, `fc2.{i}.*`; shared layers are `fc1.0` and `fc2.0`.
#[derive(Debug)]
pub(super) struct Attention {
    layers: Vec<(Conv, Conv)>,
}

impl Attention {
    /// For maps of `channels`, with `channels / reduction` between the two layers.
    pub(super) fn new(scope: &Scope, channels: usize, reduction: usize, scales: usize, separate: bool) -> Result<Self> {
        let between = (channels / reduction.max(1)).max(1);
        let count = if separate { scales } else { 1 };
        let mut layers = Vec::with_capacity(count);
        for index in 0..count {
            let squeeze = ConvSpec::new().activation(Activation::Relu);
            let first = scope.enter("fc1").enter(index);
            let second = scope.enter("fc2").enter(index);
            layers.push((
                Conv::new(&first, (channels, between, 1), squeeze, Init::Kaiming)?,
                Conv::new(&second, (between, channels, 1), ConvSpec::new(), Init::XavierUniform)?,
            ));
        }
        Ok(Self { layers })
    }

    /// The weights `[N, C, 1, 1]` in (0, 1) of scale `scale`.
    fn weights(&self, scale: usize, source: &Tensor, pass: &Pass) -> Result<Tensor> {
        let Some((first, second)) = self.layers.get(scale).or(self.layers.first()) else {
            candle_core::bail!("an attention without layers");
        };
        sigmoid(&second.forward(&first.forward(&global_avg_pool(source)?, pass)?, pass)?)
    }

    /// Every map times its channel weights; a probe sees the weights as `sfam.attention.{scale}`, finest 0.
    pub(super) fn forward(&self, sources: &[Tensor], pass: &Pass) -> Result<Vec<Tensor>> {
        let mut weighed = Vec::with_capacity(sources.len());
        for (scale, source) in sources.iter().enumerate() {
            let weights = self.weights(scale, source, pass)?;
            pass.tap(&format!("sfam.attention.{scale}"), scale, &weights)?;
            weighed.push(source.broadcast_mul(&weights)?);
        }
        Ok(weighed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Mode, Params};
    use candle_core::{DType, Device};

    #[test]
    fn the_finest_scale_comes_first_and_modules_keep_their_order() -> Result<()> {
        let map = |value: f32, side: usize| Tensor::full(value, (1, 1, side, side), &Device::Cpu);
        let modules = [vec![map(1.0, 1)?, map(2.0, 2)?], vec![map(3.0, 1)?, map(4.0, 2)?]];
        let sources = aggregate(&modules)?;
        assert_eq!(sources[0].dims(), [1, 2, 2, 2]);
        assert_eq!(sources[0].flatten_all()?.to_vec1::<f32>()?, [2.0, 2.0, 2.0, 2.0, 4.0, 4.0, 4.0, 4.0]);
        assert_eq!(sources[1].flatten_all()?.to_vec1::<f32>()?, [1.0, 3.0]);
        Ok(())
    }

    #[test]
    fn weights_lie_between_0_and_1_and_multiply_whole_channels() -> Result<()> {
        for (separate, tensors) in [(false, 4), (true, 8)] {
            let params = Params::new(&Device::Cpu, 5);
            let attention = Attention::new(&params.root().enter("sfam_module"), 6, 2, 2, separate)?;
            assert_eq!(params.all().len(), tensors);
            assert_eq!(params.get("sfam_module.fc1.0.weight").map(|p| p.var.dims().to_vec()), Some(vec![3, 6, 1, 1]));
            let sources = [
                Tensor::arange(0f32, 48.0, &Device::Cpu)?.affine(0.02, 0.0)?.reshape((2, 6, 2, 2))?,
                Tensor::ones((2, 6, 1, 1), DType::F32, &Device::Cpu)?,
            ];
            let pass = Pass::probed(Mode::Infer, 2);
            let weighed = attention.forward(&sources, &pass)?;
            let traces = pass.into_traces();
            let weights = &traces[1].maps[0];
            assert_eq!((weights.name.as_str(), weights.channels, weights.height), ("sfam.attention.0", 6, 1));
            assert!(weights.data.iter().all(|w| *w > 0.0 && *w < 1.0), "{:?}", weights.data);
            let (before, after) = (sources[0].get(1)?.flatten_all()?, weighed[0].get(1)?.flatten_all()?);
            let (before, after): (Vec<f32>, Vec<f32>) = (before.to_vec1()?, after.to_vec1()?);
            for (i, (before, after)) in before.iter().zip(&after).enumerate() {
                assert!((before * weights.data[i / 4] - after).abs() < 1e-4);
            }
        }
        Ok(())
    }
}
