//! Regions of interest: which level of the pyramid each one reads, and its features brought to one size.

use super::config::{Pooling, RcnnConfig};
use crate::geometry::BBox;
use crate::ops::gather::select_rows;
use crate::ops::maps::cat;
use crate::ops::roi::{PoolRule, Regions, pool_levels, regions, roi_align, roi_pool};
use candle_core::{Result, Tensor};
use std::sync::Arc;

/// An image of the batch and a box in input pixels.
pub(super) type Roi = (u32, BBox);

/// Features of RoIs; on the CPU they are grouped by level.
#[derive(Debug)]
pub(super) struct Pooled {
    /// `[R, C, side, side]`
    pub(super) features: Tensor,
    /// For each RoI, in the order asked for, its row among the features.
    pub(super) rows: Vec<u32>,
}

impl Pooled {
    /// What a head made of the features, `[R, …]`, in the order of the RoIs.
    pub(super) fn in_order(&self, answers: &Tensor) -> Result<Tensor> {
        let sorted = self.rows.iter().enumerate().all(|(index, &row)| index == row as usize);
        if sorted { Ok(answers.clone()) } else { select_rows(answers, &self.rows) }
    }
}

/// Cuts `rois` out of `levels` (`[N, C, H, W]`, finest first) and brings them to `side` × `side` cells.
///
/// # Errors
/// No RoI at all, one that is not finite or in no image, or fewer levels than the settings speak of.
pub(super) fn pool(config: &RcnnConfig, levels: &[Tensor], rois: &[Roi], side: usize) -> Result<Pooled> {
    let rule = config.levels_of_rois();
    if let Some(finest) = levels.first().filter(|map| map.device().is_cuda() && !rois.is_empty()) {
        return pool_regions(config, levels, &regions(finest, rois, |bbox| rule.level_of(bbox))?, side);
    }
    let level_of_roi: Vec<usize> = rois.iter().map(|&(_, bbox)| rule.level_of(bbox)).collect();
    let mut rows = vec![0u32; rois.len()];
    let mut next = 0u32;
    let mut parts = Vec::new();
    for level in 0..config.roi_levels {
        let mut chosen: Vec<Roi> = Vec::new();
        for ((row, roi), &own) in rows.iter_mut().zip(rois).zip(&level_of_roi) {
            if own == level {
                *row = next;
                next += 1;
                chosen.push(*roi);
            }
        }
        if chosen.is_empty() {
            continue;
        }
        let (Some(map), Some(stride)) = (levels.get(level), config.rpn.strides.get(level)) else {
            candle_core::bail!("RoIs read {} levels, but there are {}", config.roi_levels, levels.len());
        };
        let (scale, size, ratio) = (1.0 / stride, (side, side), config.sampling_ratio);
        parts.push(match config.pooling {
            Pooling::Align => roi_align(map, &chosen, scale, size, ratio, false)?,
            Pooling::AlignShifted => roi_align(map, &chosen, scale, size, ratio, true)?,
            Pooling::Max => roi_pool(map, &chosen, scale, size)?,
        });
    }
    if parts.is_empty() {
        candle_core::bail!("there is no RoI to pool");
    }
    Ok(Pooled { features: with_share(config, cat(&parts, 0)?)?, rows })
}

/// [`pool`] for RoIs that are on a CUDA device.
///
/// # Errors
/// Fewer levels than the settings speak of, or those of the device.
pub(super) fn pool_regions(
    config: &RcnnConfig,
    levels: &[Tensor],
    regions: &Arc<Regions>,
    side: usize,
) -> Result<Pooled> {
    let rule = match config.pooling {
        Pooling::Align => PoolRule::Align { sampling_ratio: config.sampling_ratio, shifted: false },
        Pooling::AlignShifted => PoolRule::Align { sampling_ratio: config.sampling_ratio, shifted: true },
        Pooling::Max => PoolRule::Max,
    };
    let (maps, scales): (Vec<Tensor>, Vec<f32>) = levels
        .iter()
        .zip(&config.rpn.strides)
        .take(config.roi_levels)
        .map(|(map, stride)| (map.clone(), 1.0 / stride))
        .unzip();
    let features = pool_levels(&maps, &scales, regions, (side, side), rule)?;
    let rows = (0..features.dim(0)? as u32).collect();
    Ok(Pooled { features: with_share(config, features)?, rows })
}

/// The same values; their gradient is multiplied as the settings say.
fn with_share(config: &RcnnConfig, features: Tensor) -> Result<Tensor> {
    let share = f64::from(config.pooled_gradient);
    if share == 1.0 {
        return Ok(features);
    }
    // the gradient comes through the first summand alone
    features.affine(share, 0.0)?.add(&features.detach().affine(1.0 - share, 0.0)?)
}

#[cfg(test)]
mod tests {
    use super::super::config::LevelRule;
    use super::*;
    use candle_core::{DType, Device, Var};

    fn config() -> RcnnConfig {
        RcnnConfig::faster(&["a".to_string()])
    }

    fn square(x: f32, side: f32) -> BBox {
        BBox::new(x, 0.0, x + side, side)
    }

    /// ⌊4 + log₂(side / 224)⌋ between 2 and 5, by hand: 224 reads P4, 112 P3, 448 P5.
    #[test]
    fn a_rois_side_decides_its_level() {
        let cases =
            [(0.0, 0), (1.0, 0), (111.0, 0), (112.0, 1), (223.0, 1), (224.0, 2), (447.0, 2), (448.0, 3), (9e3, 3)];
        let level_of = |config: &RcnnConfig, bbox: BBox| config.levels_of_rois().level_of(bbox);
        for rule in [LevelRule::AfterLogarithm, LevelRule::BeforeLogarithm] {
            let config = RcnnConfig { level_rule: rule, ..config() };
            for (side, level) in cases {
                assert_eq!(level_of(&config, square(5.0, side)), level, "{side} {rule:?}");
            }
            // 56 × 896 has the area of 224 × 224
            assert_eq!(level_of(&config, BBox::new(0.0, 0.0, 56.0, 896.0)), 2);
            assert_eq!(level_of(&config, BBox::new(0.0, 0.0, f32::NAN, 8.0)), 0);
        }
        let two = RcnnConfig { roi_levels: 2, canonical_size: 56.0, ..config() };
        assert_eq!([27.0, 28.0, 500.0].map(|side| level_of(&two, square(0.0, side))), [0, 1, 1]);
    }

    /// Constant levels 0, 1, 2, 3: every RoI brings its level's number, in the order asked for.
    #[test]
    fn rois_read_their_own_level_and_come_back_in_order() -> Result<()> {
        for pooling in [Pooling::Align, Pooling::AlignShifted, Pooling::Max] {
            let config = RcnnConfig { pooling, ..config() };
            let mut levels = Vec::new();
            for (value, side) in [(0f32, 128usize), (1.0, 64), (2.0, 32), (3.0, 16)] {
                levels.push(Tensor::full(value, (2, 3, side, side), &Device::Cpu)?);
            }
            let rois =
                [(1, square(10.0, 300.0)), (0, square(8.0, 20.0)), (0, square(4.0, 450.0)), (1, square(3.0, 150.0))];
            let pooled = pool(&config, &levels, &rois, 7)?;
            assert_eq!(pooled.features.dims(), [4, 3, 7, 7]);
            assert_eq!(pooled.rows, [2, 0, 3, 1]);
            let means = pooled.features.mean((1, 2, 3))?;
            let means: Vec<f32> = pooled.in_order(&means)?.to_vec1()?;
            for (mean, level) in means.iter().zip([2.0, 0.0, 3.0, 1.0]) {
                assert!((mean - level).abs() < 1e-5, "{pooling:?} {means:?}");
            }
            assert!(pool(&config, &levels, &[], 7).is_err());
            assert!(pool(&config, &levels[..1], &rois, 7).is_err());
            assert!(pool(&config, &levels, &[(2, square(0.0, 9.0))], 7).is_err());
        }
        Ok(())
    }

    #[test]
    fn the_gradient_to_the_pyramid_is_scaled_and_the_values_are_not() -> Result<()> {
        let map = Var::ones((1, 1, 32, 32), DType::F32, &Device::Cpu)?;
        let gradient = |pooled_gradient: f32| -> Result<(f32, f32)> {
            let config = RcnnConfig { pooled_gradient, roi_levels: 1, ..config() };
            let pooled = pool(&config, &[map.as_tensor().clone()], &[(0, square(16.0, 40.0))], 2)?;
            let sum = pooled.features.sum_all()?;
            let gradients = sum.backward()?;
            let total = match gradients.get(map.as_tensor()) {
                Some(gradient) => gradient.sum_all()?.to_vec0::<f32>()?,
                None => 0.0,
            };
            Ok((sum.to_vec0::<f32>()?, total))
        };
        let (whole, third) = (gradient(1.0)?, gradient(1.0 / 3.0)?);
        assert!((whole.0 - 4.0).abs() < 1e-5 && (third.0 - 4.0).abs() < 1e-5);
        assert!((whole.1 - 4.0).abs() < 1e-5 && (third.1 - 4.0 / 3.0).abs() < 1e-5);
        Ok(())
    }
}
