//! The plan of one Shapes picture: what stands where, in which colours, under which light. Nothing is drawn here.
//!
//! Difficulty on purpose: three size ranges, rotation, textures, clutter of no class, occlusion, groups of tiny shapes.
//! Decidable on purpose: the colours of every object keep a distance from the background, and clutter stays near it.

use super::shapes_outline::{self, REACH};
use crate::random::Random;

/// Squared RGB distance that every colour of an object keeps from the background.
const BACKGROUND_CONTRAST: i32 = 100 * 100;
/// Squared RGB distance wished for between objects; given up where colours run out.
const OBJECT_CONTRAST: i32 = 80 * 80;
/// Share of the pictures that hold a group annotated as one crowd object.
const CROWD_CHANCE: f32 = 0.03;
/// Separates the generator of the plan from that of the pixels.
const LAYOUT_STREAM: u64 = 1;

pub(super) type Color = [u8; 3];

/// One drawn shape of an item: where, how large, turned how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) center: [f64; 2],
    /// Pixels; the outline reaches up to `REACH` times as far.
    pub(super) radius: f64,
    pub(super) cosine: f64,
    pub(super) sine: f64,
}

/// How the inside of an object looks. `period` in pixels.
#[derive(Clone, Copy, Debug)]
pub(super) enum Texture {
    Flat,
    Gradient,
    Stripes { period: f64 },
    Dots { period: f64 },
}

/// One future annotation: a single shape, or the many of a crowd.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) class: u32,
    pub(super) crowd: bool,
    pub(super) parts: Vec<Part>,
    pub(super) texture: Texture,
    pub(super) colors: [Color; 2],
}

impl Part {
    /// The outline of `class` in image pixels.
    pub(super) fn place(&self, class: u32) -> Vec<Vec<[f64; 2]>> {
        let polygons = shapes_outline::outline(class);
        polygons.iter().map(|polygon| polygon.iter().map(|p| self.to_image(*p)).collect()).collect()
    }

    fn to_image(self, p: [f64; 2]) -> [f64; 2] {
        [
            self.center[0] + self.radius * (self.cosine * p[0] - self.sine * p[1]),
            self.center[1] + self.radius * (self.sine * p[0] + self.cosine * p[1]),
        ]
    }
}

/// A polygon of no class, in image pixels.
#[derive(Clone, Debug)]
pub(super) struct Clutter {
    pub(super) polygon: Vec<[f64; 2]>,
    pub(super) color: Color,
}

/// Low-contrast pattern of the background.
#[derive(Clone, Copy, Debug)]
pub(super) enum Grain {
    Plain,
    /// Smooth random lightness between lattice points `cell` pixels apart.
    Clouds {
        cell: u32,
    },
    /// Light and dark bands across a direction.
    Bands {
        cosine: f64,
        sine: f64,
        period: f64,
    },
}

/// What lies behind everything: a gradient between two near colours, with grain.
#[derive(Clone, Debug)]
pub(super) struct Backdrop {
    pub(super) colors: [Color; 2],
    pub(super) cosine: f64,
    pub(super) sine: f64,
    pub(super) grain: Grain,
    /// Largest change of lightness by the grain, of 255.
    pub(super) amplitude: i32,
}

/// Illumination in 1/256: in the middle of the picture, and how much is added at its right and bottom edge.
#[derive(Clone, Copy, Debug)]
pub(super) struct Light {
    pub(super) middle: i32,
    pub(super) right: i32,
    pub(super) bottom: i32,
}

/// Everything that decides a picture but its noise.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) backdrop: Backdrop,
    pub(super) clutter: Vec<Clutter>,
    /// Back to front.
    pub(super) items: Vec<Item>,
    /// A thin line over the objects.
    pub(super) line: Option<Clutter>,
    pub(super) light: Light,
    /// Peak of the sensor noise, of 255.
    pub(super) noise: i32,
}

/// The plan of picture `index` under `seed`.
pub(super) fn layout(seed: u64, index: u64, width: u32, height: u32) -> Layout {
    let mut random = Random::keyed(seed, &[LAYOUT_STREAM, index]);
    let backdrop = backdrop(&mut random);
    let clutter = clutter(&mut random, &backdrop, width, height);
    let mut items: Vec<Item> = Vec::new();
    for _ in 0..1 + random.below(8) {
        let item = single(&mut random, &backdrop, &items, width, height);
        items.push(item);
    }
    if random.chance(CROWD_CHANCE) {
        let item = crowd(&mut random, &backdrop, &items, width, height);
        items.push(item);
    }
    // Large shapes tend to the back, or they would hide most of the small ones.
    let mut ordered: Vec<(f64, Item)> = items
        .into_iter()
        .map(|item| (item.parts.first().map_or(0.0, |p| p.radius) * f64::from(random.range(0.5, 1.5)), item))
        .collect();
    ordered.sort_by(|a, b| b.0.total_cmp(&a.0));
    let line = random.chance(0.25).then(|| line(&mut random, &backdrop, width, height, 2.5));
    Layout {
        width,
        height,
        backdrop,
        clutter,
        items: ordered.into_iter().map(|(_, item)| item).collect(),
        line,
        light: Light {
            middle: between(&mut random, 218, 282),
            right: between(&mut random, -28, 28),
            bottom: between(&mut random, -28, 28),
        },
        noise: between(&mut random, 2, 20),
    }
}

/// Uniform integer in `low..=high`.
fn between(random: &mut Random, low: i32, high: i32) -> i32 {
    low + random.below((high - low + 1) as usize) as i32
}

fn uniform(random: &mut Random, low: f64, high: f64) -> f64 {
    low + (high - low) * f64::from(random.unit())
}

/// Any direction of the full turn, as cosine and sine.
fn any_direction(random: &mut Random) -> (f64, f64) {
    let quarter = random.below(4);
    shapes_outline::direction(f64::from(random.unit()), quarter)
}

fn backdrop(random: &mut Random) -> Backdrop {
    let first = [0; 3].map(|_: i32| between(random, 40, 215) as u8);
    let second = first.map(|v| (i32::from(v) + between(random, -30, 30)) as u8);
    let (cosine, sine) = any_direction(random);
    let grain = match random.below(4) {
        0 => Grain::Plain,
        1 => {
            let (cosine, sine) = any_direction(random);
            Grain::Bands { cosine, sine, period: uniform(random, 6.0, 40.0) }
        }
        _ => Grain::Clouds { cell: between(random, 4, 48) as u32 },
    };
    Backdrop { colors: [first, second], cosine, sine, grain, amplitude: between(random, 4, 14) }
}

fn clutter(random: &mut Random, backdrop: &Backdrop, width: u32, height: u32) -> Vec<Clutter> {
    let mut list = Vec::new();
    for _ in 0..random.below(5) {
        let thickness = uniform(random, 1.0, 4.0);
        list.push(line(random, backdrop, width, height, thickness));
    }
    for _ in 0..random.below(6) {
        list.push(blob(random, backdrop, width, height));
    }
    list
}

/// Near the background, so that clutter can be told from objects.
fn clutter_color(random: &mut Random, backdrop: &Backdrop) -> Color {
    backdrop.colors[random.below(2)].map(|v| (i32::from(v) + between(random, -36, 36)).clamp(0, 255) as u8)
}

fn anywhere(random: &mut Random, width: u32, height: u32) -> [f64; 2] {
    [uniform(random, 0.0, f64::from(width)), uniform(random, 0.0, f64::from(height))]
}

/// A straight stroke between two random points.
fn line(random: &mut Random, backdrop: &Backdrop, width: u32, height: u32, thickness: f64) -> Clutter {
    let a = anywhere(random, width, height);
    let b = anywhere(random, width, height);
    let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
    let length = (dx * dx + dy * dy).sqrt().max(1e-6);
    let (nx, ny) = (-dy / length * thickness / 2.0, dx / length * thickness / 2.0);
    Clutter {
        polygon: vec![[a[0] + nx, a[1] + ny], [b[0] + nx, b[1] + ny], [b[0] - nx, b[1] - ny], [a[0] - nx, a[1] - ny]],
        color: clutter_color(random, backdrop),
    }
}

/// A long, bumpy patch that resembles no class.
fn blob(random: &mut Random, backdrop: &Backdrop, width: u32, height: u32) -> Clutter {
    let part = Part {
        center: anywhere(random, width, height),
        radius: uniform(random, 6.0, 0.2 * f64::from(width.min(height)) + 6.0),
        cosine: 1.0,
        sine: 0.0,
    };
    let (cosine, sine) = any_direction(random);
    let part = Part { cosine, sine, ..part };
    let circle = shapes_outline::unit_circle();
    let corners = 7 + random.below(5);
    let polygon = (0..corners)
        .map(|k| {
            let p = circle[k * circle.len() / corners];
            let bump = uniform(random, 0.5, 1.0);
            part.to_image([p[0] * bump, p[1] * bump * 0.45])
        })
        .collect();
    Clutter { polygon, color: clutter_color(random, backdrop) }
}

/// Half the size of a shape in pixels: small (10 to 32 across), medium (to 96) or large (to 0.8 of the shorter side).
fn radius(random: &mut Random, width: u32, height: u32) -> f64 {
    let longest = 0.8 * f64::from(width.min(height));
    let range = random.unit();
    let (low, high) = match range {
        r if r < 0.4 => (10.0, 32.0),
        r if r < 0.78 => (32.0, 96.0),
        _ => (96.0, longest),
    };
    let high = longest.min(high);
    uniform(random, high.min(low).min(0.6 * longest), high) / 2.0
}

/// A centre such that at least half of the shape lies in the picture.
fn inner_center(random: &mut Random, radius: f64, width: u32, height: u32) -> [f64; 2] {
    let margin = 0.6 * radius;
    [uniform(random, margin, f64::from(width) - margin), uniform(random, margin, f64::from(height) - margin)]
}

fn single(random: &mut Random, backdrop: &Backdrop, items: &[Item], width: u32, height: u32) -> Item {
    let class = random.below(super::shapes::CLASSES.len()) as u32;
    let radius = radius(random, width, height);
    let mut center = inner_center(random, radius, width, height);
    // Some overlap is wanted, a heap is not: a few tries to stand apart, then anywhere.
    for _ in 0..random.below(8) {
        let crowded = items.iter().flat_map(|item| &item.parts).any(|other| {
            let (dx, dy) = (other.center[0] - center[0], other.center[1] - center[1]);
            let apart = 0.85 * (other.radius + radius);
            dx * dx + dy * dy < apart * apart
        });
        if !crowded {
            break;
        }
        center = inner_center(random, radius, width, height);
    }
    let (cosine, sine) = any_direction(random);
    let texture = texture(random, radius);
    let colors = colors(random, backdrop, items, texture);
    Item { class, crowd: false, parts: vec![Part { center, radius, cosine, sine }], texture, colors }
}

/// Eight to fourteen tiny shapes of one class on a shaken grid, apart from each other.
fn crowd(random: &mut Random, backdrop: &Backdrop, items: &[Item], width: u32, height: u32) -> Item {
    let class = random.below(super::shapes::CLASSES.len()) as u32;
    let members = 8 + random.below(7);
    // The grid of four columns and up to four rows must fit the shorter side.
    let shorter = f64::from(width.min(height));
    let radius = uniform(random, 3.5, 5.5).min(shorter / (8.0 * REACH + 4.0));
    let cell = 2.0 * REACH * radius + 1.0;
    let left = uniform(random, 0.0, (f64::from(width) - 4.0 * cell).max(0.0));
    let top = uniform(random, 0.0, (f64::from(height) - 4.0 * cell).max(0.0));
    let parts = (0..members)
        .map(|k| {
            let (cosine, sine) = any_direction(random);
            let x = left + ((k % 4) as f64 + 0.5) * cell + uniform(random, -0.5, 0.5);
            let y = top + ((k / 4) as f64 + 0.5) * cell + uniform(random, -0.5, 0.5);
            Part { center: [x, y], radius, cosine, sine }
        })
        .collect();
    let colors = colors(random, backdrop, items, Texture::Flat);
    Item { class, crowd: true, parts, texture: Texture::Flat, colors }
}

/// Patterns only where there is room for them.
fn texture(random: &mut Random, radius: f64) -> Texture {
    let kinds = if radius < 10.0 { 2 } else { 5 };
    let period = (radius * uniform(random, 0.25, 0.6)).max(4.0);
    match random.below(kinds) {
        0 => Texture::Flat,
        1 => Texture::Gradient,
        2 => Texture::Stripes { period },
        3 => Texture::Dots { period },
        _ => Texture::Flat,
    }
}

fn squared_distance(a: Color, b: Color) -> i32 {
    (0..3).map(|k| (i32::from(a[k]) - i32::from(b[k])).pow(2)).sum()
}

/// Two colours apart from the background and, where possible, from the other objects.
fn colors(random: &mut Random, backdrop: &Backdrop, items: &[Item], texture: Texture) -> [Color; 2] {
    let others: Vec<Color> = items.iter().map(|item| item.colors[0]).collect();
    let first = contrasting(random, backdrop, &others);
    let second = match texture {
        // Halfway between two contrasting colours the background may lie; away from it a gradient never meets it.
        Texture::Gradient => away(backdrop, first),
        _ => contrasting(random, backdrop, &[first]),
    };
    [first, second]
}

fn middle(backdrop: &Backdrop) -> Color {
    let [first, second] = backdrop.colors;
    [0, 1, 2].map(|k: usize| first[k].midpoint(second[k]))
}

/// `color` moved on from the background's middle by 0.6 of their difference.
fn away(backdrop: &Backdrop, color: Color) -> Color {
    let middle = middle(backdrop);
    [0, 1, 2].map(|k: usize| {
        let (from, to) = (i32::from(middle[k]), i32::from(color[k]));
        (to + (to - from) * 3 / 5).clamp(0, 255) as u8
    })
}

fn contrasting(random: &mut Random, backdrop: &Backdrop, others: &[Color]) -> Color {
    let [first, second] = backdrop.colors;
    let middle = middle(backdrop);
    // Each channel at its far end: the colours of the background are 30 apart at most, so this one always contrasts.
    let mut best = first.map(|v| if v < 128 { 255 } else { 0 });
    let mut best_distance = -1;
    for _ in 0..40 {
        let candidate = [0; 3].map(|_: i32| between(random, 0, 255) as u8);
        if [first, middle, second].iter().any(|&b| squared_distance(b, candidate) < BACKGROUND_CONTRAST) {
            continue;
        }
        let distance = others.iter().map(|&o| squared_distance(o, candidate)).min().unwrap_or(i32::MAX);
        if distance >= OBJECT_CONTRAST {
            return candidate;
        }
        if distance > best_distance {
            best = candidate;
            best_distance = distance;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_colour_contrasts_with_the_background() {
        for index in 0..400 {
            let layout = layout(5, index, 320, 240);
            for (item, back) in layout.items.iter().flat_map(|item| layout.backdrop.colors.map(|back| (item, back))) {
                assert!(squared_distance(item.colors[0], back) >= BACKGROUND_CONTRAST, "picture {index}");
                // the far end of a gradient may lose a few levels against one end of the background's gradient
                assert!(squared_distance(item.colors[1], back) >= 90 * 90, "picture {index}");
            }
        }
    }

    #[test]
    fn counts_sizes_and_crowds_are_as_designed() {
        let (mut small, mut medium, mut large, mut crowds) = (0, 0, 0, 0);
        for index in 0..1000 {
            let layout = layout(8, index, 320, 240);
            let singles = layout.items.iter().filter(|item| !item.crowd).count();
            assert!((1..=8).contains(&singles));
            for item in &layout.items {
                if item.crowd {
                    crowds += 1;
                    assert!(item.parts.len() >= 8);
                    continue;
                }
                let across = 2.0 * item.parts[0].radius;
                assert!((10.0..=192.0).contains(&across), "{across}");
                match across {
                    a if a < 32.0 => small += 1,
                    a if a < 96.0 => medium += 1,
                    _ => large += 1,
                }
            }
        }
        // about 4500 objects; the shares are 40, 38 and 22 %
        assert!(small > 1500 && medium > 1400 && large > 700, "{small} {medium} {large}");
        // 3 % of 1000, deviation 5.4
        assert!((10..55).contains(&crowds), "{crowds}");
    }

    #[test]
    fn small_pictures_still_hold_their_shapes() {
        for index in 0..200 {
            for item in layout(3, index, 32, 40).items {
                for part in item.parts {
                    assert!(part.radius * 2.0 <= 0.8 * 32.0 + 1e-9 && part.radius > 0.5, "{part:?}");
                    assert!(part.center[0] > 0.0 && part.center[0] < 32.0);
                }
            }
        }
    }
}
