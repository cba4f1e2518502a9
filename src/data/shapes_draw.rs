//! Pixels of a Shapes picture from its plan: background, clutter, objects back to front, then light and noise.
//!
//! Arithmetic is integer, or plain `f64` + − × ÷ and floor, all of which are exactly defined: the same everywhere.

use super::shapes_coverage::{FULL, SampleSet, Span, spans};
use super::shapes_layout::{Backdrop, Clutter, Color, Grain, Item, Layout, Part, Texture};
use super::shapes_outline::REACH;
use crate::imaging::Picture;
use crate::random::Random;

/// An item with the samples of each of its parts.
pub(super) struct Placed<'a> {
    pub(super) item: &'a Item,
    pub(super) parts: &'a [Vec<Span>],
}

/// Draws `placed` (back to front) and, in front of them, `line`. `random` feeds grain and noise.
pub(super) fn draw(layout: &Layout, placed: &[Placed<'_>], line: Option<&Clutter>, random: &mut Random) -> Picture {
    let mut picture = Picture::new(layout.width, layout.height, [0, 0, 0]);
    let samples = SampleSet::new(layout.width, layout.height);
    paint_backdrop(&mut picture, &layout.backdrop, random);
    for patch in &layout.clutter {
        paint_clutter(&mut picture, &samples, patch);
    }
    for Placed { item, parts } in placed {
        for (part, covered) in item.parts.iter().zip(parts.iter()) {
            paint(&mut picture, &samples, covered, |x, y| texture_color(item, part, x, y));
        }
    }
    if let Some(line) = line {
        paint_clutter(&mut picture, &samples, line);
    }
    expose(&mut picture, layout, random);
    picture
}

fn paint_clutter(picture: &mut Picture, samples: &SampleSet, patch: &Clutter) {
    let covered = spans(std::slice::from_ref(&patch.polygon));
    paint(picture, samples, &covered, |_, _| patch.color);
}

/// Blends `color` of each pixel in by the share of its samples that are covered. `samples`: the empty set.
fn paint(picture: &mut Picture, samples: &SampleSet, covered: &[Span], color: impl Fn(usize, usize) -> Color) {
    let Some(area) = samples.pixel_area(covered) else {
        return;
    };
    let counts = samples.missing_by_pixel(covered, &area);
    let width = picture.width as usize;
    for (row, line) in counts.chunks_exact(area.width()).enumerate() {
        let y = area.y0 + row;
        for (column, &count) in line.iter().enumerate() {
            if count == 0 {
                continue;
            }
            let x = area.x0 + column;
            let new = color(x, y);
            let pixel = &mut picture.rgb[(y * width + x) * 3..][..3];
            for (old, new) in pixel.iter_mut().zip(new) {
                let (cover, full) = (u32::from(count), u32::from(FULL));
                *old = ((u32::from(*old) * (full - cover) + u32::from(new) * cover + full / 2) / full) as u8;
            }
        }
    }
}

/// Between two colours: `position` 0 to 256.
fn mix(a: Color, b: Color, position: i32) -> Color {
    [0, 1, 2].map(|k: usize| ((i32::from(a[k]) * (256 - position) + i32::from(b[k]) * position) >> 8) as u8)
}

/// The object's colour at the centre of pixel `(x, y)`, in a frame that turns with the shape.
fn texture_color(item: &Item, part: &Part, x: usize, y: usize) -> Color {
    let [first, second] = item.colors;
    if matches!(item.texture, Texture::Flat) {
        return first;
    }
    let (dx, dy) = (x as f64 + 0.5 - part.center[0], y as f64 + 0.5 - part.center[1]);
    let u = dx * part.cosine + dy * part.sine;
    let v = dy * part.cosine - dx * part.sine;
    match item.texture {
        Texture::Flat => first,
        Texture::Gradient => {
            let position = (u / (REACH * part.radius) + 1.0) * 128.0;
            mix(first, second, (position as i32).clamp(0, 256))
        }
        Texture::Stripes { period } => {
            if (u / period).floor() as i64 % 2 == 0 {
                first
            } else {
                second
            }
        }
        Texture::Dots { period } => {
            let (p, q) = (u / period, v / period);
            let (p, q) = (p - p.floor() - 0.5, q - q.floor() - 0.5);
            if p * p + q * q < 0.09 { second } else { first }
        }
    }
}

fn paint_backdrop(picture: &mut Picture, backdrop: &Backdrop, random: &mut Random) {
    let (width, height) = (picture.width as usize, picture.height as usize);
    let lattice = Lattice::new(backdrop, width, height, random);
    let (half_width, half_height) = (width as f64 / 2.0, height as f64 / 2.0);
    let reach = backdrop.cosine.abs() * half_width + backdrop.sine.abs() * half_height;
    for y in 0..height {
        for x in 0..width {
            let (dx, dy) = (x as f64 + 0.5 - half_width, y as f64 + 0.5 - half_height);
            let along = (dx * backdrop.cosine + dy * backdrop.sine) / reach;
            let position = (((along + 1.0) * 128.0) as i32).clamp(0, 256);
            let color = mix(backdrop.colors[0], backdrop.colors[1], position);
            let grain = match backdrop.grain {
                Grain::Plain => 0,
                Grain::Clouds { .. } => lattice.at(x, y),
                Grain::Bands { cosine, sine, period } => {
                    let band = ((dx * cosine + dy * sine) / period).floor() as i64;
                    if band % 2 == 0 { backdrop.amplitude / 2 } else { -backdrop.amplitude / 2 }
                }
            };
            let pixel = &mut picture.rgb[(y * width + x) * 3..][..3];
            for (value, color) in pixel.iter_mut().zip(color) {
                *value = (i32::from(color) + grain).clamp(0, 255) as u8;
            }
        }
    }
}

/// Random lightness at lattice points, bilinear between them.
struct Lattice {
    cell: usize,
    columns: usize,
    values: Vec<i32>,
}

impl Lattice {
    fn new(backdrop: &Backdrop, width: usize, height: usize, random: &mut Random) -> Self {
        let Grain::Clouds { cell } = backdrop.grain else {
            return Self { cell: 1, columns: 0, values: Vec::new() };
        };
        let cell = (cell as usize).max(1);
        let (columns, rows) = (width / cell + 2, height / cell + 2);
        let levels = (2 * backdrop.amplitude + 1).max(1);
        let values = (0..columns * rows).map(|_| random.below(levels as usize) as i32 - backdrop.amplitude).collect();
        Self { cell, columns, values }
    }

    fn at(&self, x: usize, y: usize) -> i32 {
        let (column, row) = (x / self.cell, y / self.cell);
        let (fx, fy) = ((x % self.cell) as i32, (y % self.cell) as i32);
        let cell = self.cell as i32;
        let corner = row * self.columns + column;
        let top = self.values[corner] * (cell - fx) + self.values[corner + 1] * fx;
        let below = corner + self.columns;
        let bottom = self.values[below] * (cell - fx) + self.values[below + 1] * fx;
        (top * (cell - fy) + bottom * fy) / (cell * cell)
    }
}

/// Uneven light, then noise with a triangular distribution, a separate draw for each channel.
fn expose(picture: &mut Picture, layout: &Layout, random: &mut Random) {
    let (width, height) = (layout.width as i32, layout.height as i32);
    let light = layout.light;
    for (y, line) in picture.rgb.chunks_exact_mut(layout.width as usize * 3).enumerate() {
        let row_light = light.middle + light.bottom * (2 * y as i32 - height) / height;
        for (x, pixel) in line.chunks_exact_mut(3).enumerate() {
            let gain = row_light + light.right * (2 * x as i32 - width) / width;
            let bytes = random.next_u64().to_le_bytes();
            for (k, value) in pixel.iter_mut().enumerate() {
                let noise = i32::from(bytes[2 * k]) + i32::from(bytes[2 * k + 1]) - 255;
                *value = (((i32::from(*value) * gain) >> 8) + noise * layout.noise / 256).clamp(0, 255) as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::shapes_coverage::count;
    use super::super::shapes_layout::Light;
    use super::*;

    /// A layout with plain grey ground, even light and no noise.
    fn plain(width: u32, height: u32) -> Layout {
        Layout {
            width,
            height,
            backdrop: Backdrop { colors: [[100; 3]; 2], cosine: 1.0, sine: 0.0, grain: Grain::Plain, amplitude: 0 },
            clutter: Vec::new(),
            items: Vec::new(),
            line: None,
            light: Light { middle: 256, right: 0, bottom: 0 },
            noise: 0,
        }
    }

    #[test]
    fn every_class_is_drawn_where_its_samples_are() {
        for class in 0..8 {
            let layout = plain(64, 48);
            let part = Part { center: [30.3, 22.7], radius: 14.0, cosine: 0.8, sine: 0.6 };
            let colors = [[250, 10, 10], [0; 3]];
            let item = Item { class, crowd: false, parts: vec![part], texture: Texture::Flat, colors };
            let parts = vec![spans(&part.place(class))];
            let placed = [Placed { item: &item, parts: &parts }];
            let picture = draw(&layout, &placed, None, &mut Random::new(1));
            let mut painted = 0.0;
            let mut bounds = [usize::MAX, usize::MAX, 0, 0];
            for (k, pixel) in picture.rgb.chunks_exact(3).enumerate() {
                if pixel != [100, 100, 100] {
                    let (x, y) = (k % 64, k / 64);
                    bounds = [bounds[0].min(x), bounds[1].min(y), bounds[2].max(x + 1), bounds[3].max(y + 1)];
                    painted += f64::from(pixel[0] - 100) / 150.0;
                }
            }
            let samples = SampleSet::new(64, 48).bounds(&parts[0]).unwrap();
            let expected = [samples[0] / 4, samples[1] / 4, samples[2].div_ceil(4), samples[3].div_ceil(4)];
            assert_eq!(bounds, expected, "class {class}");
            let area = count(&parts[0]) as f64 / 16.0;
            assert!((painted - area).abs() < 0.01 * area + 1.0, "class {class}: {painted} against {area}");
        }
    }

    #[test]
    fn light_and_noise_change_pixels_and_stay_in_range() {
        let mut layout = plain(40, 30);
        layout.light = Light { middle: 282, right: 28, bottom: -28 };
        layout.noise = 20;
        let picture = draw(&layout, &[], None, &mut Random::new(3));
        let mean = |x0: usize, x1: usize| -> f64 {
            let pixels = picture.rgb.chunks_exact(3).enumerate().filter(|(k, _)| (x0..x1).contains(&(k % 40)));
            let values: Vec<f64> = pixels.map(|(_, p)| f64::from(p[0])).collect();
            values.iter().sum::<f64>() / values.len() as f64
        };
        // 100 · 282/256 = 110 in the middle; ±28/256 of 100 at the sides, so halves differ by about 11
        assert!((mean(0, 40) - 110.0).abs() < 2.0, "{}", mean(0, 40));
        assert!((mean(20, 40) - mean(0, 20) - 11.0).abs() < 3.0);
    }
}
