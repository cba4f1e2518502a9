//! Feature fusion: the base feature of two backbone maps (FFMv1), and each module's input from it and the module
//! before (FFMv2). Zhao et al., "M2Det" (AAAI 2019), §3.1.

use super::basic::{BasicConv, MOMENTUM};
use crate::nn::{Pass, Scope};
use crate::ops::conv::ConvSpec;
use crate::ops::maps::cat;
use crate::ops::resize::upsample_nearest;
use candle_core::{Result, Tensor};

/// FFMv1: the shallow map reduced, the deep map reduced and enlarged, side by side. Keys: `reduce.*`, `up_reduce.*`.
#[derive(Debug)]
pub(super) struct BaseFusion {
    reduce: BasicConv,
    up_reduce: BasicConv,
}

impl BaseFusion {
    /// `(input, output)` channels of the shallow and of the deep map.
    pub(super) fn new(root: &Scope, shallow: (usize, usize), deep: (usize, usize)) -> Result<Self> {
        Ok(Self {
            reduce: BasicConv::new(&root.enter("reduce"), (shallow.0, shallow.1, 3), ConvSpec::new().padding(1))?,
            up_reduce: BasicConv::new(&root.enter("up_reduce"), (deep.0, deep.1, 1), ConvSpec::new())?,
        })
    }

    /// Both maps → `[N, shallow + deep, H, W]` at the shallow map's size.
    pub(super) fn forward(&self, shallow: &Tensor, deep: &Tensor, pass: &Pass) -> Result<Tensor> {
        let (_, _, height, width) = shallow.dims4()?;
        let shallow = self.reduce.forward(shallow, pass)?;
        let deep = upsample_nearest(&self.up_reduce.forward(deep, pass)?, (height, width))?;
        cat(&[shallow, deep], 1)
    }
}

/// The 1×1 convolutions of the base feature that the modules read. Keys: `leach.{i}.*`; a shared one is `leach.0.*`.
#[derive(Debug)]
pub(super) struct Leach {
    convs: Vec<BasicConv>,
    modules: usize,
}

impl Leach {
    pub(super) fn new(root: &Scope, (input, output): (usize, usize), modules: usize, separate: bool) -> Result<Self> {
        // the reference runs its shared convolution once for each module, and its statistics move each time
        let momentum = if separate { MOMENTUM } else { 1.0 - (1.0 - MOMENTUM).powi(modules as i32) };
        let count = if separate { modules } else { 1 };
        let mut convs = Vec::with_capacity(count);
        for index in 0..count {
            let scope = root.enter("leach").enter(index);
            convs.push(BasicConv::with_momentum(&scope, (input, output, 1), ConvSpec::new(), momentum)?);
        }
        Ok(Self { convs, modules })
    }

    /// What each module takes from the base feature.
    pub(super) fn forward(&self, base: &Tensor, pass: &Pass) -> Result<Vec<Tensor>> {
        let mut leached = Vec::with_capacity(self.modules);
        for conv in &self.convs {
            leached.push(conv.forward(base, pass)?);
        }
        if let [shared] = &leached[..] {
            return Ok(vec![shared.clone(); self.modules]);
        }
        Ok(leached)
    }
}

/// FFMv2: the leached base feature, with the largest output of the module before at its side.
pub(super) fn fuse(leached: &Tensor, previous: Option<&Tensor>) -> Result<Tensor> {
    match previous {
        Some(previous) => cat(&[leached.clone(), previous.clone()], 1),
        None => Ok(leached.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Mode, Params};
    use candle_core::{DType, Device};

    #[test]
    fn the_base_feature_has_the_shallow_size_and_all_channels() -> Result<()> {
        let params = Params::new(&Device::Cpu, 0);
        let fusion = BaseFusion::new(&params.root(), (3, 2), (5, 4))?;
        let shallow = Tensor::ones((2, 3, 5, 4), DType::F32, &Device::Cpu)?;
        let deep = Tensor::ones((2, 5, 3, 2), DType::F32, &Device::Cpu)?;
        let base = fusion.forward(&shallow, &deep, &Pass::new(Mode::Infer))?;
        assert_eq!(base.dims(), [2, 6, 5, 4]);
        assert!(params.get("reduce.conv.weight").is_some() && params.get("up_reduce.bn.running_var").is_some());
        Ok(())
    }

    #[test]
    fn a_shared_leach_has_one_set_of_weights_and_moves_as_often_as_it_is_used() -> Result<()> {
        let base = Tensor::from_slice(&[1.0_f32, 3.0], (1, 1, 1, 2), &Device::Cpu)?;
        for (separate, tensors, expected) in [(false, 5, 0.059_402), (true, 15, 0.02)] {
            let params = Params::new(&Device::Cpu, 0);
            let leach = Leach::new(&params.root(), (1, 1), 3, separate)?;
            assert_eq!(params.all().len(), tensors);
            params.set("leach.0.conv.weight", &[1.0])?;
            let pass = Pass::new(Mode::Train);
            assert_eq!(leach.forward(&base, &pass)?.len(), 3);
            pass.commit()?;
            // mean 2: 2 · (1 − 0.99³) after three looks, 2 · 0.01 after one
            let found = params.values()?["leach.0.bn.running_mean"].1[0];
            assert!((found - expected).abs() < 1e-5, "{found}");
        }
        Ok(())
    }
}
