//! Mixup: two pictures blended, with the boxes of both.
//!
//! H. Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2018); for detection Z. Zhang et al., "Bag of Freebies
//! for Training Object Detection Neural Networks" (2019), section 3.1, which keeps the boxes of both at full weight. As
//! in YOLOX's `MixUp` the partner is fitted into the first picture's frame, at its top left.

use super::augment::{Applied, Frame, Partner};
use super::crop::Window;
use super::picture::Picture;
use super::resize::{mix, to_level};
use super::tile::{fitted, paste, place};
use crate::geometry::Object;
use crate::random::Random;

/// Largest parameter of the Beta distribution.
const MAX_BETA: u32 = 64;

/// Blends `partner` into `picture`; the first picture's share is drawn from Beta(`beta`, `beta`): 1 is uniform in 0..1,
/// 32 stays near one half.
pub(super) fn mixup(
    picture: &mut Picture,
    objects: &mut Vec<Object>,
    partner: &Partner<'_>,
    frame: &Frame,
    beta: u32,
    rng: &mut Random,
) -> Applied {
    let share = draw_beta(beta, rng);
    let other = partner.sample.picture;
    let from = (other.width, other.height);
    let size = (picture.width, picture.height);
    let (width, height) = fitted(from, size);
    let tile = Window::whole(width, height);
    let mut canvas = Picture::new(size.0, size.1, frame.fill);
    paste(&mut canvas, other, &tile);
    for (own, other) in picture.rgb.iter_mut().zip(&canvas.rgb) {
        *own = to_level(mix(f32::from(*other), f32::from(*own), share));
    }
    objects.extend(partner.sample.objects.iter().filter_map(|object| place(object, from, &tile, size)));
    Applied::new("mixup", &[("partner", partner.index as f32), ("share", share)])
}

/// A draw from Beta(k, k) for a whole k: the median of 2k − 1 uniform draws has that distribution, and needs no
/// logarithm whose last bit depends on the machine.
fn draw_beta(k: u32, rng: &mut Random) -> f32 {
    let k = k.clamp(1, MAX_BETA) as usize;
    let mut draws: Vec<f32> = (0..2 * k - 1).map(|_| rng.unit()).collect();
    draws.sort_unstable_by(f32::total_cmp);
    draws.get(k - 1).copied().unwrap_or(0.5)
}

#[cfg(test)]
mod tests {
    use super::super::augment::SampleRef;
    use super::*;
    use crate::geometry::BBox;

    #[test]
    fn both_pictures_are_seen_with_their_boxes() {
        let bbox = BBox::new(0.0, 0.0, 10.0, 20.0);
        let other = Picture::new(10, 20, [200, 0, 0]);
        let others = [Object { bbox, class: 3, area: Some(200.0), ..Object::default() }];
        let partner = Partner { index: 5, sample: SampleRef { picture: &other, objects: &others } };
        let frame = Frame { fill: [0, 0, 100], size: (8, 8) };
        let own = Object { bbox: BBox::new(1.0, 1.0, 4.0, 4.0), ..Object::default() };
        let (mut picture, mut objects) = (Picture::new(30, 10, [0, 100, 0]), vec![own.clone()]);
        let applied = mixup(&mut picture, &mut objects, &partner, &frame, 32, &mut Random::new(4));
        let share = applied.parameters[1].1;
        assert_eq!((applied.parameters[1].0.as_str(), applied.parameters[0].1), ("share", 5.0));
        // Half the size: 5 × 10 pixels at the left.
        let (near, far) = (picture.pixel(4, 9), picture.pixel(5, 9));
        let level = |value: f32| (value + 0.5) as u8;
        assert_eq!(near, [level(200.0 * (1.0 - share)), level(100.0 * share), 0]);
        assert_eq!(far, [0, level(100.0 * share), level(100.0 * (1.0 - share))]);
        assert_eq!(objects[0], own);
        assert_eq!((objects[1].bbox, objects[1].class), (BBox::new(0.0, 0.0, 5.0, 10.0), 3));
        assert_eq!(objects[1].area, Some(50.0));
    }

    #[test]
    fn shares_have_the_moments_of_their_distribution() {
        // Beta(k, k) has mean ½ and variance 1 / (4 (2k + 1)).
        for k in [1u32, 2, 32] {
            let mut rng = Random::new(u64::from(k));
            let draws: Vec<f32> = (0..4000).map(|_| draw_beta(k, &mut rng)).collect();
            let mean = draws.iter().sum::<f32>() / 4000.0;
            let variance = draws.iter().map(|d| (d - mean).powi(2)).sum::<f32>() / 4000.0;
            let expected = 1.0 / (4.0 * (2.0 * k as f32 + 1.0));
            // Standard errors: 0.0046 of the mean at k = 1, and about 2 % of the variance.
            assert!((mean - 0.5).abs() < 0.02, "{k}: {mean}");
            assert!((variance / expected - 1.0).abs() < 0.12, "{k}: {variance} against {expected}");
        }
        assert!((0.0..1.0).contains(&draw_beta(0, &mut Random::new(1))));
        assert!((0.0..1.0).contains(&draw_beta(u32::MAX, &mut Random::new(1))));
    }
}
