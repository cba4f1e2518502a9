//! A picture as a network takes it: made on the CPU for a network there, and on the GPU for a network there.

use crate::imaging::picture::Picture;
use crate::imaging::preprocess::{Placement, Preprocess, Recipe};
use crate::imaging::resize::Pair;
use crate::ops::picture::{Mixed, Plane, Samples, input};
use candle_core::{Device, Result, Tensor};

/// The input that one picture becomes.
#[derive(Clone, Debug)]
pub struct NetworkInput {
    /// `[1, 3, H, W]` on the network's device.
    pub images: Tensor,
    pub placement: Placement,
}

impl NetworkInput {
    /// Resizes, pads and normalises `picture` by the rule of `preprocess`, with the same arithmetic on every device.
    ///
    /// # Errors
    /// A device without room for the input.
    pub fn new(preprocess: &Preprocess, picture: &Picture, device: &Device) -> Result<Self> {
        if device.is_cpu() {
            let input = preprocess.apply(picture);
            let shape = (1, 3, input.height, input.width);
            return Ok(Self { images: Tensor::from_vec(input.planes, shape, device)?, placement: input.placement });
        }
        let recipe = preprocess.recipe(picture);
        Ok(Self { images: input(&samples(preprocess, &recipe), device)?, placement: recipe.placement })
    }
}

fn samples<'a>(preprocess: &Preprocess, recipe: &'a Recipe<'_>) -> Samples<'a> {
    let mixed = |axis: &[Pair]| -> Vec<Mixed> { axis.iter().map(|pair| (pair.low, pair.high, pair.weight)).collect() };
    let (channels, factors, paddings) = (preprocess.order.channels(), preprocess.factor(), preprocess.padding());
    let plane = |plane: usize| Plane {
        channel: channels[plane],
        mean: preprocess.mean[plane],
        factor: factors[plane],
        padding: paddings[plane],
    };
    Samples {
        pixels: &recipe.picture.rgb,
        width: recipe.picture.width as usize,
        columns: mixed(&recipe.columns),
        rows: mixed(&recipe.rows),
        size: recipe.size,
        offset: recipe.offset,
        planes: [0, 1, 2].map(plane),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::preprocess::{ChannelOrder, Fit};
    use crate::random::Random;

    /// The planes as the kernel makes them, pixel by pixel.
    fn planes(samples: &Samples<'_>) -> Vec<f32> {
        let (width, height) = samples.size;
        let mut planes = Vec::new();
        for plane in samples.planes {
            let at = |x: usize, y: usize| f32::from(samples.pixels[3 * (y * samples.width + x) + plane.channel]);
            let mix = |a: f32, b: f32, weight: f32| a + (b - a) * weight;
            for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                let row = y.checked_sub(samples.offset.1).and_then(|row| samples.rows.get(row));
                let column = x.checked_sub(samples.offset.0).and_then(|column| samples.columns.get(column));
                planes.push(match (row, column) {
                    (Some(&(up, down, below)), Some(&(left, right, beside))) => {
                        let (low, high) =
                            (mix(at(left, up), at(left, down), below), mix(at(right, up), at(right, down), below));
                        (mix(low, high, beside) - plane.mean) * plane.factor
                    }
                    _ => plane.padding,
                });
            }
        }
        planes
    }

    #[test]
    fn what_a_gpu_is_given_makes_the_input_of_the_cpu() -> Result<()> {
        let fits = [
            Fit::Stretch { width: 30, height: 20 },
            Fit::ShortestEdge { short: 40, long: 60, divisor: 32 },
            Fit::ShortestEdgeRounded { short: 40, long: 60, divisor: 8 },
            Fit::ShortestEdgeAntialias { short: 9, long: 17, divisor: 4 },
            Fit::Letterbox { width: 48, height: 40, fill: 127.5 },
        ];
        for (case, fit) in fits.into_iter().enumerate() {
            let order = if case % 2 == 0 { ChannelOrder::Rgb } else { ChannelOrder::Bgr };
            let preprocess = Preprocess { fit, order, mean: [123.0, 117.5, 104.0], std: [58.4, 57.1, 57.4] };
            for (width, height) in [(33, 21), (21, 33), (1, 1), (64, 7), (0, 5)] {
                let mut random = Random::new(u64::from(width));
                let rgb = (0..3 * width * height).map(|_| random.below(256) as u8).collect();
                let Ok(picture) = Picture::from_rgb(width, height, rgb) else { panic!("a picture") };
                let on_cpu = NetworkInput::new(&preprocess, &picture, &Device::Cpu)?;
                let recipe = preprocess.recipe(&picture);
                let given = samples(&preprocess, &recipe);
                assert_eq!(on_cpu.images.dims(), [1, 3, given.size.1, given.size.0]);
                assert_eq!(on_cpu.placement, recipe.placement);
                let expected: Vec<f32> = on_cpu.images.flatten_all()?.to_vec1()?;
                assert_eq!(planes(&given), expected, "{fit:?} of {width} x {height}");
            }
        }
        Ok(())
    }
}
