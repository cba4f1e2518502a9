//! The settings of training augmentation, and the recipes of the papers.

use crate::random::Random;
use serde::{Deserialize, Serialize};

/// What may happen to a sample, in the order of the fields. Probabilities are in `[0, 1]`; 0 turns a part off and draws
/// nothing for it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Augmentation {
    /// Probability of a mosaic with three other images (YOLOv4, 2020).
    pub mosaic: f32,
    /// Smallest factor that a mosaic is scaled by.
    pub mosaic_scale_min: f32,
    /// Largest factor that a mosaic is scaled by.
    pub mosaic_scale_max: f32,
    /// Probability of blending another image in, boxes of both kept (mixup, 2018; Bag of Freebies, 2019).
    pub mixup: f32,
    /// The first image's share is drawn from Beta(b, b) with this whole b: 1 is uniform, 32 stays near one half.
    pub mixup_beta: u32,
    /// SSD's photometric distortion, whose parts have their own probabilities of ½.
    pub photometric: bool,
    /// Probability of placing the picture on a larger canvas (SSD, 2016).
    pub zoom_out: f32,
    /// Largest side of that canvas over the picture's: ratios are uniform in `1..zoom_max`.
    pub zoom_max: f32,
    /// Probability of the IoU-constrained crop, which keeps the whole picture in one of its seven modes (SSD, 2016).
    pub iou_crop: f32,
    /// Probability of mirroring left to right.
    pub flip: f32,
    /// Probability of mirroring top to bottom.
    pub vertical_flip: f32,
    /// Random scale for preprocessing that keeps the aspect: smallest shorter side in pixels.
    pub scale_low: u32,
    /// Largest shorter side; 0 leaves the scale to the preprocessing.
    pub scale_high: u32,
    /// Steps between the sides that are drawn (value mode); 0 draws any side between the two (range mode).
    pub scale_step: u32,
    /// Landscape and portrait images go into batches of their own, so that preprocessing that keeps the aspect pads
    /// less (Faster R-CNN's reference code; detectron2, MMDetection). For shuffled epochs.
    pub group_by_aspect: bool,
}

/// Other images that a sample is made with: their numbers, or what was read of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Partners<T> {
    /// None or three.
    pub mosaic: Vec<T>,
    pub mixup: Option<T>,
}

impl<T> Partners<T> {
    /// A sample of its own.
    pub const fn none() -> Self {
        Self { mosaic: Vec::new(), mixup: None }
    }
}

impl Augmentation {
    /// The sample as it is.
    pub const fn none() -> Self {
        Self {
            mosaic: 0.0,
            mosaic_scale_min: 0.5,
            mosaic_scale_max: 1.5,
            mixup: 0.0,
            mixup_beta: 32,
            photometric: false,
            zoom_out: 0.0,
            zoom_max: 4.0,
            iou_crop: 0.0,
            flip: 0.0,
            vertical_flip: 0.0,
            scale_low: 0,
            scale_high: 0,
            scale_step: 0,
            group_by_aspect: false,
        }
    }

    /// Mirroring with probability ½: RetinaNet, Faster R-CNN and their kin.
    pub const fn flip_only() -> Self {
        Self { flip: 0.5, ..Self::none() }
    }

    /// The full recipe of SSD and RefineDet.
    pub const fn ssd() -> Self {
        Self { photometric: true, zoom_out: 0.5, iou_crop: 1.0, ..Self::flip_only() }
    }

    /// Draws which of `count` images mosaic and mixup take. The first draws of a sample, since they decide what is read.
    pub fn partners(&self, count: usize, rng: &mut Random) -> Partners<usize> {
        let mosaic = if happens(self.mosaic, rng) { (0..3).map(|_| rng.below(count)).collect() } else { Vec::new() };
        let mixup = happens(self.mixup, rng).then(|| rng.below(count));
        Partners { mosaic, mixup }
    }
}

impl Default for Augmentation {
    fn default() -> Self {
        Self::none()
    }
}

/// A draw only where there is something to decide, so that turning a part off leaves the other parts' draws alone.
pub(super) fn happens(probability: f32, rng: &mut Random) -> bool {
    probability > 0.0 && rng.chance(probability)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_file_keeps_the_other_defaults() {
        let read: Augmentation = toml::from_str("flip = 0.5").unwrap();
        assert_eq!(read, Augmentation::flip_only());
        let full = Augmentation { mosaic: 1.0, mixup: 0.15, scale_high: 800, ..Augmentation::ssd() };
        let text = toml::to_string(&full).unwrap();
        assert_eq!(toml::from_str::<Augmentation>(&text).unwrap(), full);
    }

    #[test]
    fn partners_are_drawn_where_there_are_any() {
        let mut rng = Random::new(5);
        assert_eq!(Augmentation::ssd().partners(9, &mut rng), Partners::none());
        assert_eq!(rng, Random::new(5), "nothing to decide, nothing drawn");
        let settings = Augmentation { mosaic: 0.5, mixup: 0.5, ..Augmentation::none() };
        let drawn: Vec<Partners<usize>> = (0..200).map(|_| settings.partners(9, &mut rng)).collect();
        let mosaics = drawn.iter().filter(|p| p.mosaic.len() == 3).count();
        let mixups = drawn.iter().filter(|p| p.mixup.is_some()).count();
        // Binomial(200, ½) has deviation 7.
        assert!((65..135).contains(&mosaics) && (65..135).contains(&mixups), "{mosaics}, {mixups}");
        assert!(drawn.iter().all(|p| p.mosaic.iter().chain(&p.mixup).all(|number| *number < 9)));
        assert!(drawn.iter().all(|p| p.mosaic.is_empty() || p.mosaic.len() == 3));
    }
}
