//! A feature map of many channels as one picture: mean, maximum, one channel, or its principal components as colours.

use super::FeatureMap;

/// Positions that the principal components are found from; more change them little.
const SAMPLES: usize = 4096;
/// Rounds of power iteration for each component.
const ROUNDS: usize = 24;

/// How channels become one number a position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduction {
    #[default]
    Mean,
    Max,
    /// One channel; the last one when there are fewer.
    Channel(usize),
}

impl FeatureMap {
    /// Values a channel; 0 for an empty map.
    fn plane(&self) -> usize {
        self.width.saturating_mul(self.height)
    }

    /// `[height, width]`: the channels reduced. A map whose data falls short of its shape counts what is there.
    pub fn reduced(&self, how: Reduction) -> Vec<f32> {
        let plane = self.plane();
        if plane == 0 || self.data.len() < plane {
            return Vec::new();
        }
        let channels = self.data.chunks_exact(plane);
        let count = channels.len();
        match how {
            Reduction::Mean => {
                let mut sum = vec![0.0_f32; plane];
                for channel in channels {
                    for (sum, value) in sum.iter_mut().zip(channel) {
                        *sum += value;
                    }
                }
                sum.iter().map(|v| v / count as f32).collect()
            }
            Reduction::Max => {
                let mut most = vec![f32::NEG_INFINITY; plane];
                for channel in channels {
                    for (most, value) in most.iter_mut().zip(channel) {
                        *most = most.max(*value);
                    }
                }
                most
            }
            Reduction::Channel(index) => {
                let chosen = self.data.chunks_exact(plane).nth(index.min(count - 1));
                chosen.map(<[f32]>::to_vec).unwrap_or_default()
            }
        }
    }

    /// `[height, width, 4]` bytes: the three directions in which positions differ most (principal components of the
    /// channels, mean taken off) as red, green and blue, two and a half standard deviations either way; opaque.
    pub fn principal_rgb(&self) -> Vec<u8> {
        let plane = self.plane();
        if plane == 0 || self.data.len() < plane {
            return Vec::new();
        }
        let channels: Vec<&[f32]> = self.data.chunks_exact(plane).collect();
        let stride = plane.div_ceil(SAMPLES).max(1);
        let finite = |v: f32| if v.is_finite() { v } else { 0.0 };
        let means: Vec<f32> = channels
            .iter()
            .map(|channel| {
                let taken = channel.iter().step_by(stride);
                let count = taken.len() as f32;
                taken.map(|v| finite(*v)).sum::<f32>() / count
            })
            .collect();
        // One row a sampled position, so that a product with a vector reads memory in order.
        let rows: Vec<Vec<f32>> = (0..plane)
            .step_by(stride)
            .map(|at| channels.iter().zip(&means).map(|(channel, mean)| finite(channel[at]) - mean).collect())
            .collect();
        let mut directions: Vec<Vec<f32>> = Vec::new();
        for component in 0..channels.len().min(3) {
            directions.push(direction(&rows, &directions, component));
        }
        let mut pixels = vec![0_u8; plane * 4];
        for pixel in pixels.chunks_exact_mut(4) {
            pixel.copy_from_slice(&[128, 128, 128, 255]);
        }
        for (color, direction) in directions.iter().enumerate() {
            let mut projected = vec![0.0_f32; plane];
            for ((channel, mean), weight) in channels.iter().zip(&means).zip(direction) {
                for (sum, value) in projected.iter_mut().zip(*channel) {
                    *sum += weight * (finite(*value) - mean);
                }
            }
            let variance = projected.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>() / plane as f64;
            let reach = 2.5 * variance.sqrt() as f32;
            if reach > 0.0 && reach.is_finite() {
                for (pixel, value) in pixels.chunks_exact_mut(4).zip(&projected) {
                    pixel[color] = ((value / reach * 0.5 + 0.5) * 255.0).round().clamp(0.0, 255.0) as u8;
                }
            }
        }
        pixels
    }
}

/// The direction of most variance that is square to `earlier`, of length 1; its largest entry is positive. Power
/// iteration from a fixed start, so the same map gives the same colours.
fn direction(rows: &[Vec<f32>], earlier: &[Vec<f32>], component: usize) -> Vec<f32> {
    let width = rows.first().map_or(0, Vec::len);
    let variance: f32 = rows.iter().flatten().map(|v| v * v).sum();
    let mut vector: Vec<f32> = (0..width).map(|i| 1.0 + ((i * (component + 2)) % 7) as f32).collect();
    for _ in 0..ROUNDS {
        let mut next = vec![0.0_f32; width];
        for row in rows {
            let dot: f32 = row.iter().zip(&vector).map(|(a, b)| a * b).sum();
            for (sum, value) in next.iter_mut().zip(row) {
                *sum += dot * value;
            }
        }
        for other in earlier {
            let dot: f32 = next.iter().zip(other).map(|(a, b)| a * b).sum();
            for (value, part) in next.iter_mut().zip(other) {
                *value -= dot * part;
            }
        }
        let length = next.iter().map(|v| v * v).sum::<f32>().sqrt();
        // What is left is rounding, not a pattern.
        let is_pattern = length > 1e-6 * variance && length.is_finite();
        if !is_pattern {
            return vec![0.0; width];
        }
        vector = next.iter().map(|v| v / length).collect();
    }
    let largest = vector.iter().copied().fold(0.0_f32, |most, v| if v.abs() > most.abs() { v } else { most });
    if largest < 0.0 {
        vector.iter_mut().for_each(|v| *v = -*v);
    }
    vector
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(channels: usize, height: usize, width: usize, data: Vec<f32>) -> FeatureMap {
        FeatureMap { name: "map".into(), level: 0, channels, height, width, data }
    }

    #[test]
    fn reductions_go_over_channels() {
        let map = map(2, 1, 3, vec![1.0, 2.0, 3.0, 5.0, -2.0, 3.0]);
        assert_eq!(map.reduced(Reduction::Mean), [3.0, 0.0, 3.0]);
        assert_eq!(map.reduced(Reduction::Max), [5.0, 2.0, 3.0]);
        assert_eq!(map.reduced(Reduction::Channel(1)), [5.0, -2.0, 3.0]);
        assert_eq!(map.reduced(Reduction::Channel(9)), [5.0, -2.0, 3.0]);
    }

    #[test]
    fn broken_maps_give_what_is_there_or_nothing() {
        assert!(map(2, 0, 3, Vec::new()).reduced(Reduction::Mean).is_empty());
        assert!(map(2, 4, 3, vec![1.0]).principal_rgb().is_empty());
        assert_eq!(map(2, 1, 2, vec![1.0, 2.0, 3.0]).reduced(Reduction::Mean), [1.0, 2.0]);
        assert_eq!(map(1, 1, 1, vec![f32::NAN]).principal_rgb(), [128, 128, 128, 255]);
    }

    #[test]
    fn the_first_component_is_the_strongest_pattern() {
        // Channels 0 and 1 rise together from left to right, channel 2 a little from top to bottom.
        let (height, width) = (8, 8);
        let mut data = Vec::new();
        for (x_part, y_part) in [(10.0, 0.0), (5.0, 0.0), (0.0, 1.0)] {
            for y in 0..height {
                data.extend((0..width).map(|x| x_part * x as f32 + y_part * y as f32));
            }
        }
        let map = map(3, height, width, data);
        let pixels = map.principal_rgb();
        let at = |x: usize, y: usize| &pixels[4 * (y * width + x)..4 * (y * width + x) + 4];
        assert!(at(7, 0)[0] > at(0, 0)[0] + 100, "red follows x: {:?} {:?}", at(0, 0), at(7, 0));
        assert!(at(0, 0)[0].abs_diff(at(0, 7)[0]) < 3, "and not y");
        assert!(at(0, 7)[1] > at(0, 0)[1] + 100, "green follows y");
        assert_eq!(pixels, map.principal_rgb());
    }
}
