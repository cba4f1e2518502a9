//! SSD's photometric distortion: brightness, contrast, saturation, hue and channel order, each with probability ½.
//!
//! Amounts and orders are those of the reference training code of SSD (amdegroot's `SSDAugmentation`): one float pass
//! per pixel. Values are clamped to 0..255 before the HSV part, whose formulas need it, and rounded once at the end.

use super::resize::to_level;
use crate::random::Random;

const PERMUTATIONS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// What was drawn; `None` leaves that property alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Photometric {
    /// Added to every channel: −32..32.
    pub brightness: Option<f32>,
    /// Factor of every channel: 0.5..1.5.
    pub contrast: Option<f32>,
    /// Contrast before saturation and hue, or after them.
    pub contrast_first: bool,
    /// Factor of the HSV saturation: 0.5..1.5.
    pub saturation: Option<f32>,
    /// Degrees added to the hue: −18..18.
    pub hue: Option<f32>,
    /// Source channel of each channel.
    pub permutation: Option<[usize; 3]>,
}

impl Photometric {
    /// Draws all of it. The number of draws depends on their outcomes, as in the reference.
    pub fn draw(rng: &mut Random) -> Self {
        let mut maybe = |low: f32, high: f32| rng.chance(0.5).then(|| rng.range(low, high));
        let brightness = maybe(-32.0, 32.0);
        let contrast = maybe(0.5, 1.5);
        let saturation = maybe(0.5, 1.5);
        let hue = maybe(-18.0, 18.0);
        let contrast_first = rng.chance(0.5);
        let permutation = rng.chance(0.5).then(|| PERMUTATIONS[rng.below(PERMUTATIONS.len())]);
        Self { brightness, contrast, contrast_first, saturation, hue, permutation }
    }

    /// Whether it leaves every pixel alone.
    pub fn is_none(&self) -> bool {
        *self == Self { contrast_first: self.contrast_first, ..Self::default() }
    }

    /// Ready to be applied to many pixels.
    pub fn prepare(&self) -> Distortion<'_> {
        let by_channel = self.saturation.is_none() && self.hue.is_none();
        let alone = Self { permutation: None, ..self.clone() };
        let level = |v: usize| to_level(alone.distort([v as f32; 3])[0]);
        Distortion { settings: self, levels: by_channel.then(|| std::array::from_fn(level)) }
    }

    /// Names and amounts of what is done, for the record; a permutation as the number of its entry in lexical order.
    pub fn parameters(&self) -> Vec<(String, f32)> {
        let amounts = [
            ("brightness", self.brightness),
            ("contrast", self.contrast),
            ("saturation", self.saturation),
            ("hue", self.hue),
            ("contrast first", self.contrast.map(|_| f32::from(u8::from(self.contrast_first)))),
            ("permutation", self.permutation.and_then(|p| PERMUTATIONS.iter().position(|q| *q == p)).map(|i| i as f32)),
        ];
        amounts.into_iter().filter_map(|(name, amount)| amount.map(|a| (name.to_string(), a))).collect()
    }

    fn distort(&self, mut rgb: [f32; 3]) -> [f32; 3] {
        if let Some(amount) = self.brightness {
            rgb = rgb.map(|v| v + amount);
        }
        if self.contrast_first {
            rgb = self.with_contrast(rgb);
        }
        if self.saturation.is_some() || self.hue.is_some() {
            let [hue, saturation, value] = to_hsv(rgb.map(|v| v.clamp(0.0, 255.0)));
            let saturation = (saturation * self.saturation.unwrap_or(1.0)).min(1.0);
            rgb = to_rgb([hue + self.hue.unwrap_or(0.0), saturation, value]);
        }
        if !self.contrast_first {
            rgb = self.with_contrast(rgb);
        }
        match self.permutation {
            Some([first, second, third]) => [rgb[first], rgb[second], rgb[third]],
            None => rgb,
        }
    }

    fn with_contrast(&self, rgb: [f32; 3]) -> [f32; 3] {
        let factor = self.contrast.unwrap_or(1.0);
        rgb.map(|v| v * factor)
    }
}

/// A photometric distortion with what its pixels have in common worked out.
pub struct Distortion<'a> {
    settings: &'a Photometric,
    /// What becomes of each level, where the channels do not depend on each other.
    levels: Option<[u8; 256]>,
}

impl Distortion<'_> {
    /// Distorts interleaved pixels in place, each on its own.
    pub fn apply(&self, rgb: &mut [u8]) {
        if self.settings.is_none() {
            return;
        }
        for pixel in rgb.chunks_exact_mut(3) {
            let given = [pixel[0], pixel[1], pixel[2]];
            let made = match (&self.levels, self.settings.permutation) {
                (Some(levels), order) => {
                    let order = order.unwrap_or([0, 1, 2]);
                    order.map(|channel| levels[usize::from(given[channel])])
                }
                (None, _) => self.settings.distort(given.map(f32::from)).map(to_level),
            };
            pixel.copy_from_slice(&made);
        }
    }
}

/// Hue in degrees `[0, 360)`, saturation in `[0, 1]`, value in the units of the input.
fn to_hsv([red, green, blue]: [f32; 3]) -> [f32; 3] {
    let value = red.max(green).max(blue);
    let range = value - red.min(green).min(blue);
    if range <= 0.0 {
        return [0.0, 0.0, value];
    }
    let hue = if value == red {
        60.0 * (green - blue) / range
    } else if value == green {
        120.0 + 60.0 * (blue - red) / range
    } else {
        240.0 + 60.0 * (red - green) / range
    };
    [if hue < 0.0 { hue + 360.0 } else { hue }, range / value, value]
}

/// The inverse of [`to_hsv`]; any hue is wrapped.
fn to_rgb([hue, saturation, value]: [f32; 3]) -> [f32; 3] {
    // Distance on the circle from each primary: full within 60°, none beyond 120°.
    let channel = |primary: f32| -> f32 {
        let around = wrapped(hue - primary);
        let distance = around.min(360.0 - around);
        let share = ((120.0 - distance) / 60.0).clamp(0.0, 1.0);
        value * (1.0 - saturation * (1.0 - share))
    };
    [channel(0.0), channel(120.0), channel(240.0)]
}

/// The angle in `[0, 360)`. The remainder is a slow library call, which one turn to either side does without.
fn wrapped(angle: f32) -> f32 {
    match angle {
        a if (0.0..360.0).contains(&a) => a,
        a if (-360.0..0.0).contains(&a) => a + 360.0,
        a if (360.0..720.0).contains(&a) => a - 360.0,
        a => a.rem_euclid(360.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hsv_meets_known_colours_and_inverts() {
        assert_eq!(to_hsv([255.0, 0.0, 0.0]), [0.0, 1.0, 255.0]);
        assert_eq!(to_hsv([0.0, 0.0, 200.0]), [240.0, 1.0, 200.0]);
        // (128, 64, 96): range 64, hue 60 · (64 − 96)/64 = −30.
        assert_eq!(to_hsv([128.0, 64.0, 96.0]), [330.0, 0.5, 128.0]);
        assert_eq!(to_hsv([7.0, 7.0, 7.0]), [0.0, 0.0, 7.0]);
        for red in (0..=255).step_by(15) {
            for green in (0..=255).step_by(17) {
                for blue in (0..=255).step_by(51) {
                    let rgb = [red as f32, green as f32, blue as f32];
                    let back = to_rgb(to_hsv(rgb));
                    // Hue in f32 up to 360 degrees: an error of 3e-5 degrees moves a channel by at most 2e-4.
                    assert!(rgb.iter().zip(&back).all(|(a, b)| (a - b).abs() < 1e-3), "{rgb:?} {back:?}");
                }
            }
        }
    }

    #[test]
    fn each_property_does_what_it_says() {
        let with = |settings: Photometric, color: [u8; 3]| -> [u8; 3] {
            let mut pixel = color;
            settings.prepare().apply(&mut pixel);
            pixel
        };
        let none = Photometric::default();
        assert_eq!(with(none.clone(), [1, 2, 3]), [1, 2, 3]);
        assert_eq!(with(Photometric { brightness: Some(-20.0), ..none.clone() }, [10, 30, 255]), [0, 10, 235]);
        assert_eq!(with(Photometric { contrast: Some(1.5), ..none.clone() }, [10, 100, 200]), [15, 150, 255]);
        // Half the saturation: the lower channels go half way up to the value.
        assert_eq!(with(Photometric { saturation: Some(0.5), ..none.clone() }, [200, 100, 0]), [200, 150, 100]);
        // Red turned by 18 degrees: 0.3 of green.
        assert_eq!(with(Photometric { hue: Some(18.0), ..none.clone() }, [200, 0, 0]), [200, 60, 0]);
        assert_eq!(with(Photometric { hue: Some(-18.0), ..none.clone() }, [200, 0, 0]), [200, 0, 60]);
        assert_eq!(with(Photometric { permutation: Some([2, 0, 1]), ..none.clone() }, [1, 2, 3]), [3, 1, 2]);
        // The order matters where contrast saturates: 200 · 1.5 is cut to 255 before the HSV part, not after it.
        let both = Photometric { contrast: Some(1.5), saturation: Some(0.5), ..none };
        assert_eq!(with(Photometric { contrast_first: true, ..both.clone() }, [200, 101, 0]), [255, 203, 128]);
        assert_eq!(with(both, [200, 101, 0]), [255, 226, 150]);
    }

    #[test]
    fn the_table_of_levels_and_the_wrapped_angle_change_no_bit() {
        for seed in 0..60 {
            let drawn = Photometric { saturation: None, hue: None, ..Photometric::draw(&mut Random::new(seed)) };
            for level in 0..=255u8 {
                let given = [level, 255 - level, level / 2];
                let mut found = given;
                drawn.prepare().apply(&mut found);
                assert_eq!(found, drawn.distort(given.map(f32::from)).map(to_level), "{drawn:?}");
            }
        }
        for k in -9000..9000 {
            let angle = k as f32 * 0.1001;
            assert_eq!(wrapped(angle).to_bits(), angle.rem_euclid(360.0).to_bits(), "{angle}");
        }
    }

    #[test]
    fn draws_stay_in_range_repeat_and_are_recorded() {
        let mut seen = [0usize; 5];
        for seed in 0..200 {
            let drawn = Photometric::draw(&mut Random::new(seed));
            assert_eq!(drawn, Photometric::draw(&mut Random::new(seed)));
            assert!(drawn.brightness.is_none_or(|v| (-32.0..32.0).contains(&v)));
            assert!(drawn.contrast.is_none_or(|v| (0.5..1.5).contains(&v)));
            assert!(drawn.hue.is_none_or(|v| (-18.0..18.0).contains(&v)));
            let present = [
                drawn.brightness.is_some(),
                drawn.contrast.is_some(),
                drawn.saturation.is_some(),
                drawn.hue.is_some(),
                drawn.permutation.is_some(),
            ];
            let count = present.iter().filter(|p| **p).count() + usize::from(drawn.contrast.is_some());
            assert_eq!(drawn.parameters().len(), count);
            for (total, one) in seen.iter_mut().zip(present) {
                *total += usize::from(one);
            }
        }
        // Binomial(200, ½) has deviation 7.
        assert!(seen.iter().all(|n| (65..135).contains(n)), "{seen:?}");
    }
}
