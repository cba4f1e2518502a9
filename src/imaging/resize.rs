//! Resampling with a named kernel: separable, computed in `f32`, planes or pictures.

use super::picture::Picture;
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How one output sample is made from input samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kernel {
    /// The sample at `floor(i · in / out)`: torch `nearest`, OpenCV `INTER_NEAREST`.
    Nearest,
    /// Two samples around `(i + ½) · in / out − ½`: torch `bilinear` with `align_corners=False` and no antialias,
    /// OpenCV `INTER_LINEAR`. Shrinking by more than two skips samples, as these do.
    #[default]
    BilinearHalfPixel,
    /// Two samples around `i · (in − 1) / (out − 1)`: the corners stay where they are; darknet's resize.
    BilinearCorners,
    /// A triangle as wide as the shrinking factor: Pillow `BILINEAR`, torch `bilinear` with `antialias=True`.
    BilinearAntialias,
    /// Mean over the covered area, partial samples by their share: OpenCV `INTER_AREA` when shrinking. Enlarging an
    /// axis falls back to [`Kernel::BilinearHalfPixel`] for that axis.
    Area,
}

impl Kernel {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::BilinearHalfPixel => "bilinear",
            Self::BilinearCorners => "bilinear with fixed corners",
            Self::BilinearAntialias => "bilinear with antialias",
            Self::Area => "area",
        }
    }
}

/// What one output sample of a two-sample kernel reads: `low · (1 − weight) + high · weight`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    pub low: usize,
    pub high: usize,
    pub weight: f32,
}

/// One [`Pair`] for each of `output` samples, from `input` samples; `None` for a kernel that reads more than two.
pub(super) fn pairs(kernel: Kernel, input: usize, output: usize) -> Option<Vec<Pair>> {
    if input == 0 {
        return Some(Vec::new());
    }
    let last = input - 1;
    let around = |source: f32| -> Pair {
        let low = (source as usize).min(last);
        Pair { low, high: (low + 1).min(last), weight: (source - low as f32).clamp(0.0, 1.0) }
    };
    match kernel {
        Kernel::Nearest => {
            let scale = input as f32 / output as f32;
            let at = |i: usize| ((i as f32 * scale) as usize).min(last);
            Some((0..output).map(|i| Pair { low: at(i), high: at(i), weight: 0.0 }).collect())
        }
        Kernel::BilinearHalfPixel => {
            let scale = input as f32 / output as f32;
            Some((0..output).map(|i| around((scale * (i as f32 + 0.5) - 0.5).max(0.0))).collect())
        }
        Kernel::BilinearCorners => {
            let scale = if output > 1 { last as f32 / (output - 1) as f32 } else { 0.0 };
            let at = |i: usize| {
                if output > 1 && i + 1 == output { last as f32 } else { i as f32 * scale }
            };
            Some((0..output).map(|i| around(at(i))).collect())
        }
        Kernel::BilinearAntialias | Kernel::Area => None,
    }
}

/// What one output sample of a wide kernel reads: samples from `start` on, weights with sum 1.
#[derive(Clone, Debug, PartialEq)]
struct Taps {
    start: usize,
    weights: Vec<f32>,
}

fn taps(kernel: Kernel, input: usize, output: usize) -> Vec<Taps> {
    let scale = input as f64 / output as f64;
    let enlarged = if scale < 1.0 { Kernel::BilinearHalfPixel } else { Kernel::Area };
    let two = match kernel {
        Kernel::Area => pairs(enlarged, input, output),
        _ => pairs(kernel, input, output),
    };
    if let Some(two) = two {
        let one = |p: Pair| match p.high > p.low {
            true => Taps { start: p.low, weights: vec![1.0 - p.weight, p.weight] },
            false => Taps { start: p.low, weights: vec![1.0] },
        };
        return two.into_iter().map(one).collect();
    }
    let wide = |i: usize| -> Taps {
        let (from, to) = match kernel {
            Kernel::Area => (i as f64 * scale, (i + 1) as f64 * scale),
            _ => {
                let (center, support) = ((i as f64 + 0.5) * scale, scale.max(1.0));
                ((center - support + 0.5).floor(), (center + support + 0.5).floor())
            }
        };
        let start = (from.max(0.0).floor() as usize).min(input - 1);
        let end = (to.ceil() as usize).clamp(start + 1, input);
        let raw = |j: usize| -> f64 {
            match kernel {
                Kernel::Area => ((j + 1) as f64).min(to) - (j as f64).max(from),
                _ => 1.0 - ((j as f64 + 0.5 - (i as f64 + 0.5) * scale) / scale.max(1.0)).abs(),
            }
        };
        let raw: Vec<f64> = (start..end).map(|j| raw(j).max(0.0)).collect();
        let sum: f64 = raw.iter().sum();
        let weights = match sum > 0.0 {
            true => raw.iter().map(|w| (w / sum) as f32).collect(),
            false => vec![1.0 / raw.len() as f32; raw.len()],
        };
        Taps { start, weights }
    };
    (0..output).map(wide).collect()
}

/// Resizes planes `[C, h, w]` to `[C, h2, w2]` as torch does with `mode="bilinear"`, `align_corners=False`, no
/// antialias: source position and weights in `f32`, columns blended before rows. `C` follows from the length.
pub fn resize_planes(data: &[f32], from: (usize, usize), to: (usize, usize)) -> Vec<f32> {
    resize_planes_with(Kernel::BilinearHalfPixel, data, from, to)
}

/// Resizes planes `[C, h, w]` to `[C, h2, w2]`; sizes are (width, height). A size of 0 gives no samples.
pub fn resize_planes_with(
    kernel: Kernel,
    data: &[f32],
    (width, height): (usize, usize),
    (new_width, new_height): (usize, usize),
) -> Vec<f32> {
    let (area, new_area) = (width * height, new_width * new_height);
    if area == 0 || new_area == 0 {
        return Vec::new();
    }
    if (width, height) == (new_width, new_height) {
        return data.to_vec();
    }
    let mut out = vec![0.0f32; data.len() / area * new_area];
    if let (Some(columns), Some(rows)) = (pairs(kernel, width, new_width), pairs(kernel, height, new_height)) {
        out.par_chunks_mut(new_width).enumerate().for_each(|(line, target)| {
            let plane = &data[line / new_height * area..][..area];
            let row = rows[line % new_height];
            let upper = &plane[row.low * width..][..width];
            let lower = &plane[row.high * width..][..width];
            for (value, column) in target.iter_mut().zip(&columns) {
                let (right, left) = (column.weight, 1.0 - column.weight);
                let above = upper[column.low] * left + upper[column.high] * right;
                let below = lower[column.low] * left + lower[column.high] * right;
                *value = above * (1.0 - row.weight) + below * row.weight;
            }
        });
        return out;
    }
    let (columns, rows) = (taps(kernel, width, new_width), taps(kernel, height, new_height));
    let mut narrow = vec![0.0f32; data.len() / area * height * new_width];
    narrow.par_chunks_mut(new_width).zip(data.par_chunks(width)).for_each(|(target, source)| {
        for (value, tap) in target.iter_mut().zip(&columns) {
            *value = source[tap.start..].iter().zip(&tap.weights).map(|(s, w)| s * w).sum();
        }
    });
    out.par_chunks_mut(new_width).enumerate().for_each(|(line, target)| {
        let tap = &rows[line % new_height];
        let first = line / new_height * height + tap.start;
        for (step, &weight) in tap.weights.iter().enumerate() {
            let source = &narrow[(first + step) * new_width..][..new_width];
            for (value, s) in target.iter_mut().zip(source) {
                *value += s * weight;
            }
        }
    });
    out
}

/// Resizes a picture. A size of 0 on either side gives a black picture of the size asked for.
///
/// [`Kernel::BilinearAntialias`] uses fixed-point weights and rounds to 8 bits after each axis, as Pillow does. The
/// other kernels compute in `f32` and round half up once; OpenCV's 8-bit bilinear has weights of 11 bits and can
/// differ from it by one level.
pub fn resize_picture(picture: &Picture, width: u32, height: u32, kernel: Kernel) -> Picture {
    if (picture.width, picture.height) == (width, height) {
        return picture.clone();
    }
    if picture.rgb.is_empty() || width == 0 || height == 0 {
        return Picture::new(width, height, [0; 3]);
    }
    if kernel == Kernel::BilinearAntialias
        && let Some(resized) = antialias(picture, width, height)
    {
        return resized;
    }
    let from = (picture.width as usize, picture.height as usize);
    let to = (width as usize, height as usize);
    let mut resized = Picture::new(width, height, [0; 3]);
    if let (Some(columns), Some(rows)) = (pairs(kernel, from.0, to.0), pairs(kernel, from.1, to.1)) {
        resized.rgb.par_chunks_mut(3 * to.0).zip(rows.par_iter()).for_each(|(target, row)| {
            let (upper, lower) = (picture.row(row.low), picture.row(row.high));
            for (pixel, column) in target.chunks_exact_mut(3).zip(&columns) {
                for channel in 0..3 {
                    let (low, high) = (3 * column.low + channel, 3 * column.high + channel);
                    let above = mix(f32::from(upper[low]), f32::from(upper[high]), column.weight);
                    let below = mix(f32::from(lower[low]), f32::from(lower[high]), column.weight);
                    pixel[channel] = to_level(mix(above, below, row.weight));
                }
            }
        });
        return resized;
    }
    for channel in 0..3 {
        let plane: Vec<f32> = picture.rgb.iter().skip(channel).step_by(3).map(|&v| f32::from(v)).collect();
        let plane = resize_planes_with(kernel, &plane, from, to);
        for (pixel, value) in resized.rgb.chunks_exact_mut(3).zip(plane) {
            pixel[channel] = to_level(value);
        }
    }
    resized
}

/// Pillow's convolution by the SIMD crate; `None` if it refuses the buffers.
fn antialias(picture: &Picture, width: u32, height: u32) -> Option<Picture> {
    let source = ImageRef::new(picture.width, picture.height, &picture.rgb, PixelType::U8x3).ok()?;
    let mut target = Image::new(width, height, PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).use_alpha(false);
    Resizer::new().resize(&source, &mut target, &options).ok()?;
    Picture::from_rgb(width, height, target.into_vec()).ok()
}

/// `a` at weight 0, `b` at weight 1.
pub(super) fn mix(a: f32, b: f32, weight: f32) -> f32 {
    a + (b - a) * weight
}

/// Nearest of 0..=255, halves up.
pub(super) fn to_level(value: f32) -> u8 {
    // The cast saturates, and makes 0 of NaN.
    (value + 0.5) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Straight from the definition, in `f64`: both axes at once, every sample weighed.
    fn naive(
        data: &[f32],
        (w, h): (usize, usize),
        (w2, h2): (usize, usize),
        weight: impl Fn(f64, f64, usize, usize) -> f64,
    ) -> Vec<f32> {
        let axis = |input: usize, output: usize, i: usize| -> Vec<f64> {
            let scale = input as f64 / output as f64;
            let raw: Vec<f64> = (0..input).map(|j| weight(i as f64, scale, j, input)).collect();
            let sum: f64 = raw.iter().sum();
            raw.iter().map(|r| r / sum).collect()
        };
        let mut out = Vec::new();
        for plane in data.chunks(w * h) {
            for y in 0..h2 {
                let rows = axis(h, h2, y);
                for x in 0..w2 {
                    let columns = axis(w, w2, x);
                    let mut sum = 0.0;
                    for (j, wy) in rows.iter().enumerate() {
                        for (i, wx) in columns.iter().enumerate() {
                            sum += wy * wx * f64::from(plane[j * w + i]);
                        }
                    }
                    out.push(sum as f32);
                }
            }
        }
        out
    }

    /// A tent of radius 1 around the clamped source position.
    fn half_pixel(i: f64, scale: f64, j: usize, input: usize) -> f64 {
        let source = ((i + 0.5) * scale - 0.5).clamp(0.0, (input - 1) as f64);
        (1.0 - (source - j as f64).abs()).max(0.0)
    }

    fn triangle(i: f64, scale: f64, j: usize, _: usize) -> f64 {
        (1.0 - ((j as f64 + 0.5 - (i + 0.5) * scale) / scale.max(1.0)).abs()).max(0.0)
    }

    fn coverage(i: f64, scale: f64, j: usize, _: usize) -> f64 {
        ((j + 1) as f64).min((i + 1.0) * scale) - (j as f64).max(i * scale)
    }

    fn noise(count: usize) -> Vec<f32> {
        let mut rng = Random::new(5);
        (0..count).map(|_| rng.range(-1.0, 1.0)).collect()
    }

    const SIZES: [((usize, usize), (usize, usize)); 7] = [
        ((5, 3), (7, 4)),
        ((7, 5), (3, 2)),
        ((1, 1), (3, 2)),
        ((4, 6), (4, 3)),
        ((9, 2), (1, 1)),
        ((2, 3), (9, 8)),
        ((13, 11), (5, 7)),
    ];

    fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, case: &str) {
        assert_eq!(found.len(), expected.len(), "{case}");
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() <= tolerance, "{case}: {a} and {b}");
        }
    }

    #[test]
    fn bilinear_meets_values_computed_by_hand() {
        // in 2, out 4: positions (i + ½)/2 − ½ = −¼ (→ 0), ¼, ¾, 1¼ (weight ¼ of the clamped last sample).
        assert_eq!(resize_planes(&[0.0, 8.0], (2, 1), (4, 1)), [0.0, 2.0, 6.0, 8.0]);
        // in 3, out 2: scale 1.5, positions ¼ and 1¾.
        assert_eq!(resize_planes(&[0.0, 4.0, 8.0], (1, 3), (1, 2)), [1.0, 7.0]);
        // Fixed corners, in 3, out 5: every half step.
        let stretched = resize_planes_with(Kernel::BilinearCorners, &[0.0, 4.0, 8.0], (3, 1), (5, 1));
        assert_eq!(stretched, [0.0, 2.0, 4.0, 6.0, 8.0]);
        // Nearest, in 3, out 5: floor(0, 0.6, 1.2, 1.8, 2.4).
        assert_eq!(resize_planes_with(Kernel::Nearest, &[1.0, 2.0, 3.0], (3, 1), (5, 1)), [1.0, 1.0, 2.0, 2.0, 3.0]);
        // Area, in 3, out 2: (1 + ½·2)/1.5 and (½·2 + 4)/1.5.
        assert_close(
            &resize_planes_with(Kernel::Area, &[1.0, 2.0, 4.0], (3, 1), (2, 1)),
            &[4.0 / 3.0, 10.0 / 3.0],
            1e-6,
            "area",
        );
    }

    #[test]
    fn kernels_agree_with_their_definitions_on_odd_sizes() {
        for (from, to) in SIZES {
            let data = noise(2 * from.0 * from.1);
            let case = format!("{from:?} to {to:?}");
            // f32 positions up to 13 with 24 bits: errors of 1e-6 in a weight.
            assert_close(&resize_planes(&data, from, to), &naive(&data, from, to, half_pixel), 5e-6, &case);
            let smooth = resize_planes_with(Kernel::BilinearAntialias, &data, from, to);
            assert_close(&smooth, &naive(&data, from, to, triangle), 5e-6, &format!("antialias {case}"));
            if to.0 <= from.0 && to.1 <= from.1 {
                let mean = resize_planes_with(Kernel::Area, &data, from, to);
                let expected = naive(&data, from, to, |i, s, j, n| coverage(i, s, j, n).max(0.0));
                assert_close(&mean, &expected, 5e-6, &format!("area {case}"));
            }
        }
    }

    #[test]
    fn pictures_follow_the_planes_within_rounding() {
        let mut rng = Random::new(8);
        for (from, to) in SIZES {
            let rgb: Vec<u8> = (0..3 * from.0 * from.1).map(|_| rng.below(256) as u8).collect();
            let picture = Picture::from_rgb(from.0 as u32, from.1 as u32, rgb).unwrap();
            for (kernel, levels) in [
                (Kernel::Nearest, 0.0),
                (Kernel::BilinearHalfPixel, 0.51),
                (Kernel::BilinearCorners, 0.51),
                // Rounded after each axis.
                (Kernel::BilinearAntialias, 1.1),
                (Kernel::Area, 0.51),
            ] {
                let resized = resize_picture(&picture, to.0 as u32, to.1 as u32, kernel);
                assert_eq!((resized.width as usize, resized.height as usize), to);
                for channel in 0..3 {
                    let plane = |p: &Picture| -> Vec<f32> {
                        p.rgb.iter().skip(channel).step_by(3).map(|&v| f32::from(v)).collect()
                    };
                    let expected = resize_planes_with(kernel, &plane(&picture), from, to);
                    assert_close(&plane(&resized), &expected, levels, &format!("{kernel:?} {from:?} to {to:?}"));
                }
            }
        }
    }

    #[test]
    fn empty_and_equal_sizes_are_handled() {
        assert!(resize_planes(&[], (0, 4), (3, 3)).is_empty());
        assert!(resize_planes(&[1.0], (1, 1), (0, 3)).is_empty());
        let picture = Picture::new(4, 3, [1, 2, 3]);
        assert_eq!(resize_picture(&picture, 4, 3, Kernel::Area), picture);
        assert_eq!(resize_picture(&picture, 0, 3, Kernel::Nearest), Picture::new(0, 3, [0; 3]));
        assert_eq!(resize_picture(&Picture::new(0, 0, [0; 3]), 2, 1, Kernel::Area), Picture::new(2, 1, [0; 3]));
        // One colour stays that colour, whatever the kernel.
        assert_eq!(resize_picture(&picture, 9, 2, Kernel::BilinearAntialias), Picture::new(9, 2, [1, 2, 3]));
    }
}
