//! Options of multi-scale testing, for every command that detects.

use crate::detect::multiscale::Plan;
use crate::detect::{Config, ConfigError};

/// How the detections of all tests are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Merging {
    Vote,
    SoftNms,
}

#[derive(Debug, Default, clap::Args)]
pub struct MultiScaleArguments {
    /// Detect at several sizes, each also mirrored, and merge the results
    #[arg(long)]
    multi_scale: bool,
    /// Lengths of the input's shorter side; the detector's own tests when left out
    #[arg(long, value_delimiter = ',', requires = "multi_scale", value_name = "PIXELS")]
    scales: Vec<usize>,
    /// Leave the mirrored pictures out
    #[arg(long, requires = "multi_scale")]
    no_flip: bool,
    /// How the results are merged; the detector's own way when left out
    #[arg(long, value_enum, requires = "multi_scale")]
    merge: Option<Merging>,
}

impl MultiScaleArguments {
    /// The tests that were asked for; none without `--multi-scale`.
    ///
    /// # Errors
    /// A detector or a size that cannot be tested so.
    pub fn plan(&self, config: &Config) -> Result<Option<Plan>, ConfigError> {
        if !self.multi_scale {
            return Ok(None);
        }
        let plan =
            if self.scales.is_empty() { Plan::published(config)? } else { Plan::of_sides(config, &self.scales)? };
        let plan = if self.no_flip { plan.without_flip() } else { plan };
        Ok(Some(match self.merge {
            Some(Merging::Vote) => plan.with_voting(config),
            Some(Merging::SoftNms) => plan.with_soft_nms(config),
            None => plan,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Arch;
    use crate::detect::multiscale::Merge;

    #[test]
    fn options_become_a_plan() {
        let config = Config::new(Arch::Yolov3Nano, &["a".to_string()]);
        assert_eq!(MultiScaleArguments::default().plan(&config).unwrap(), None);
        let asked = MultiScaleArguments {
            multi_scale: true,
            scales: vec![192, 256],
            no_flip: true,
            merge: Some(Merging::SoftNms),
        };
        let plan = asked.plan(&config).unwrap().unwrap();
        assert_eq!(plan.scales.len(), 2);
        assert!(plan.scales.iter().all(|scale| !scale.flip) && matches!(plan.merge, Merge::Soft(_)));
        assert!(MultiScaleArguments { scales: vec![100], ..asked }.plan(&config).is_err());
    }
}
