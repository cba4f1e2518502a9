//! Parameter groups: what learns at which share of the rate, what decays, what is frozen.

use super::TrainConfig;
use crate::nn::Role;
use crate::nn::params::Param;

/// First parts of the names that backbones have in the layouts of this program.
const BACKBONES: [&str; 3] = ["backbone.", "vgg.", "base."];

/// How one parameter is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Group {
    pub trained: bool,
    /// Factor of the learning rate.
    pub rate: f32,
    /// Weight decay, absolute.
    pub decay: f32,
}

/// The group of each parameter, in their order.
pub fn groups(params: &[Param], config: &TrainConfig) -> Vec<Group> {
    let norms: Vec<&str> = params.iter().filter_map(|p| p.name.strip_suffix("running_mean")).collect();
    let group = |param: &Param| {
        let name = param.name.as_str();
        let frozen = config.frozen_prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()));
        let still = config.freeze_batch_norm
            && param.role == Role::Norm
            && norms.iter().any(|norm| name.strip_prefix(norm).is_some_and(|rest| !rest.contains('.')));
        let backbone =
            if BACKBONES.iter().any(|prefix| name.starts_with(prefix)) { config.backbone_factor } else { 1.0 };
        let (rate, decay) = match param.role {
            Role::Bias => (config.bias_factor, config.weight_decay * config.bias_decay),
            Role::Norm => (1.0, 0.0),
            Role::Weight | Role::Buffer => (1.0, config.weight_decay),
        };
        Group { trained: param.role != Role::Buffer && !frozen && !still, rate: rate * backbone, decay }
    };
    params.iter().map(group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Arch;
    use crate::nn::{Init, Params};
    use candle_core::{Device, Result};

    #[test]
    fn prefixes_freeze_the_backbone_learns_slower_and_a_scale_is_no_batch_norm() -> Result<()> {
        let params = Params::new(&Device::Cpu, 0);
        let body = params.root().enter("backbone").enter("bn");
        for (name, role) in [("weight", Role::Norm), ("bias", Role::Norm), ("running_mean", Role::Buffer)] {
            body.param(name, &[1], Init::Constant(1.0), role)?;
        }
        params.root().enter("backbone").param("scale", &[1], Init::Constant(1.0), Role::Norm)?;
        params.root().enter("head").param("weight", &[1], Init::Constant(1.0), Role::Weight)?;
        params.root().enter("head").param("bias", &[1], Init::Constant(1.0), Role::Bias)?;
        let config = TrainConfig {
            frozen_prefixes: vec!["head.w".into()],
            freeze_batch_norm: true,
            backbone_factor: 0.5,
            bias_factor: 2.0,
            bias_decay: 0.5,
            weight_decay: 0.5,
            ..TrainConfig::new(Arch::SsdNano)
        };
        let found = groups(&params.all(), &config);
        let trained: Vec<bool> = found.iter().map(|g| g.trained).collect();
        assert_eq!(trained, [false, false, false, true, false, true]);
        assert_eq!(found[3], Group { trained: true, rate: 0.5, decay: 0.0 });
        assert_eq!(found[5], Group { trained: true, rate: 2.0, decay: 0.25 });
        Ok(())
    }
}
