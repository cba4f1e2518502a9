//! The built-in Shapes set: endless labelled pictures from a seed, for trying everything without a download.
//!
//! What is annotated: the box of the whole shape, hidden parts included, cut at the picture's edge (amodal), and the
//! mask and area of its visible part. A shape of which less than 40 % would be seen is not drawn at all, so every shape
//! in a picture is annotated. The same seed gives the same pixels on every machine.

use super::dataset::{Dataset, ImageEntry, Source};
use super::error::DataError;
use super::shapes_coverage::{FULL, SAMPLES, SampleSet, Span, count, spans};
use super::shapes_draw::{self, Placed};
use super::shapes_layout::{self, Clutter, Layout};
use crate::geometry::{BBox, Mask, Object};
use crate::imaging::Picture;
use crate::random::Random;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Class names by index.
pub const CLASSES: [&str; 8] = ["circle", "square", "triangle", "ring", "cross", "star", "diamond", "crescent"];

/// Sides of a picture that can be asked for, pixels.
const SIDES: std::ops::RangeInclusive<u32> = 32..=2048;
/// Most pictures of one split.
const MAX_IMAGES: usize = 1_000_000;
/// A shape is drawn when at least this much of it is seen.
const VISIBLE_PERCENT: u64 = 40;
/// Separates the generator of grain and noise from that of the plan.
const PIXEL_STREAM: u64 = 2;

/// Part of the built-in set; each is drawn from its own seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    Train,
    Val,
    Test,
}

impl Split {
    pub const ALL: [Self; 3] = [Self::Train, Self::Val, Self::Test];

    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        }
    }

    /// The split of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|split| split.name() == name)
    }
}

/// How much of the built-in set, and which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShapesSpec {
    /// Width and height in pixels, 32 to 2048 each.
    pub size: (u32, u32),
    /// Number of pictures by split, up to a million.
    pub train: usize,
    pub val: usize,
    pub test: usize,
    pub seed: u64,
}

impl Default for ShapesSpec {
    fn default() -> Self {
        Self { size: (320, 240), train: 2000, val: 400, test: 400, seed: 1 }
    }
}

impl ShapesSpec {
    /// From `shapes` or `shapes:train=4000,val=200,test=200,seed=3,size=320x240`; what is not named keeps its default.
    ///
    /// # Errors
    /// [`DataError::Shapes`] names the part that is not understood or out of range.
    pub fn parse(text: &str) -> Result<Self, DataError> {
        let mut spec = Self::default();
        let settings = match text.strip_prefix("shapes") {
            Some("") => return Ok(spec),
            Some(rest) => rest.strip_prefix(':'),
            None => None,
        };
        let Some(settings) = settings else {
            return Err(bad(format!("{text:?} is not of the form shapes:train=2000,seed=1")));
        };
        for setting in settings.split(',').map(str::trim).filter(|setting| !setting.is_empty()) {
            let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
            match key.trim() {
                "train" => spec.train = image_count(key, value)?,
                "val" => spec.val = image_count(key, value)?,
                "test" => spec.test = image_count(key, value)?,
                "seed" => {
                    let seed = value.trim().parse::<u64>();
                    spec.seed = seed.map_err(|_| bad(format!("seed={value} is not a whole number")))?;
                }
                "size" => spec.size = size(value)?,
                _ => {
                    return Err(bad(format!("no setting {key:?}; there are train, val, test, seed, size")));
                }
            }
        }
        Ok(spec)
    }

    /// Number of pictures in a split.
    pub fn count(&self, split: Split) -> usize {
        let count = match split {
            Split::Train => self.train,
            Split::Val => self.val,
            Split::Test => self.test,
        };
        count.min(MAX_IMAGES)
    }
}

fn bad(message: String) -> DataError {
    DataError::Shapes { message }
}

fn image_count(key: &str, value: &str) -> Result<usize, DataError> {
    match value.trim().parse::<usize>() {
        Ok(count) if count <= MAX_IMAGES => Ok(count),
        _ => Err(bad(format!("{key}={value} is not a number of images from 0 to {MAX_IMAGES}"))),
    }
}

fn size(value: &str) -> Result<(u32, u32), DataError> {
    let sides = value.split_once('x').and_then(|(w, h)| Some((w.trim().parse().ok()?, h.trim().parse().ok()?)));
    match sides {
        Some((width, height)) if SIDES.contains(&width) && SIDES.contains(&height) => Ok((width, height)),
        _ => {
            Err(bad(format!("size={value} is not width x height with sides from {} to {}", SIDES.start(), SIDES.end())))
        }
    }
}

/// The sides that are drawn for a size asked for.
fn bounded(size: (u32, u32)) -> (u32, u32) {
    (size.0.clamp(*SIDES.start(), *SIDES.end()), size.1.clamp(*SIDES.start(), *SIDES.end()))
}

/// A split with all its annotations; pixels are drawn when asked for. Sides out of range are brought into it.
pub fn shapes(spec: &ShapesSpec, split: Split) -> Dataset {
    let seed = Random::keyed(spec.seed, &[split as u64]).next_u64();
    let (width, height) = bounded(spec.size);
    let images: Vec<ImageEntry> = (0..spec.count(split))
        .into_par_iter()
        .map(|index| {
            let number = index as u64;
            ImageEntry {
                id: number + 1,
                name: format!("shapes-{}-{index:06}", split.name()),
                source: Source::Shapes { seed, index: number },
                width,
                height,
                objects: Scene::new(seed, number, (width, height), true).into_objects(),
            }
        })
        .collect();
    Dataset {
        name: "shapes".to_owned(),
        split: split.name().to_owned(),
        classes: CLASSES.iter().map(|&name| name.to_owned()).collect(),
        category_ids: (1..=CLASSES.len() as u64).collect(),
        images,
        warnings: Vec::new(),
    }
}

/// Picture `index` under `seed`, `size` as width and height (brought into 32 to 2048), with its objects back to front.
pub fn scene(seed: u64, index: u64, size: (u32, u32)) -> (Picture, Vec<Object>) {
    let scene = Scene::new(seed, index, size, true);
    (scene.draw(seed, index), scene.into_objects())
}

/// The pixels alone.
pub(super) fn picture(seed: u64, index: u64, size: (u32, u32)) -> Picture {
    Scene::new(seed, index, size, false).draw(seed, index)
}

/// An item of the layout that is seen well enough to be drawn.
struct Kept {
    /// Index into the layout's items.
    item: usize,
    parts: Vec<Vec<Span>>,
    object: Object,
}

/// A layout without the items that would be hidden.
struct Scene {
    layout: Layout,
    /// Whether the thin line in front is drawn.
    line: bool,
    /// Back to front.
    kept: Vec<Kept>,
}

impl Scene {
    fn new(seed: u64, index: u64, size: (u32, u32), masks: bool) -> Self {
        let (width, height) = bounded(size);
        let layout = shapes_layout::layout(seed, index, width, height);
        let mut line = layout.line.is_some();
        let mut kept = visible_items(&layout, layout.line.as_ref(), masks);
        if kept.is_empty() && line {
            // The line crosses the only object where it is small; without it the front object is always seen.
            line = false;
            kept = visible_items(&layout, None, masks);
        }
        for (k, item) in kept.iter_mut().enumerate() {
            // At most nine objects a picture; COCO's evaluation takes id 0 for "none".
            item.object.id = index.wrapping_mul(16).wrapping_add(k as u64 + 1);
        }
        Self { layout, line, kept }
    }

    fn draw(&self, seed: u64, index: u64) -> Picture {
        let placed: Vec<Placed<'_>> =
            self.kept.iter().map(|kept| Placed { item: &self.layout.items[kept.item], parts: &kept.parts }).collect();
        let line: Option<&Clutter> = if self.line { self.layout.line.as_ref() } else { None };
        shapes_draw::draw(&self.layout, &placed, line, &mut Random::keyed(seed, &[PIXEL_STREAM, index]))
    }

    fn into_objects(self) -> Vec<Object> {
        self.kept.into_iter().map(|kept| kept.object).collect()
    }
}

/// Front to back: an item that is hidden too far by the picture's edge and by what is kept before it is left out.
fn visible_items(layout: &Layout, line: Option<&Clutter>, masks: bool) -> Vec<Kept> {
    let mut hidden = SampleSet::new(layout.width, layout.height);
    if let Some(line) = line {
        hidden.insert(&spans(std::slice::from_ref(&line.polygon)));
    }
    let mut kept: Vec<Kept> = Vec::new();
    for (index, item) in layout.items.iter().enumerate().rev() {
        let parts: Vec<Vec<Span>> = item.parts.iter().map(|part| spans(&part.place(item.class))).collect();
        let all: Vec<Span> = parts.concat();
        let total = count(&all);
        if total == 0 || hidden.count_missing(&all) * 100 < total * VISIBLE_PERCENT {
            continue;
        }
        let Some([x0, y0, x1, y1]) = hidden.bounds(&all) else {
            continue;
        };
        let pixels = |samples: usize| samples as f32 / SAMPLES as f32;
        let mut object = Object {
            id: 0,
            bbox: BBox::new(pixels(x0), pixels(y0), pixels(x1), pixels(y1)),
            class: item.class,
            crowd: item.crowd,
            difficult: false,
            truncated: false,
            occluded: false,
            area: None,
            mask: None,
        };
        if masks && let Some((mask, area)) = visible_mask(layout, &hidden, &all) {
            object.mask = Some(mask);
            object.area = Some(area);
        }
        hidden.insert(&all);
        kept.push(Kept { item: index, parts, object });
    }
    kept.reverse();
    kept
}

/// Pixels of which at least half is seen, and how many they are.
///
/// Written as run lengths at once, from the places where a column goes in or out: a bitmap of the whole picture for
/// each object would take most of the time that a data set takes to open.
fn visible_mask(layout: &Layout, hidden: &SampleSet, all: &[Span]) -> Option<(Mask, f32)> {
    let area = hidden.pixel_area(all)?;
    let counts = hidden.missing_by_pixel(all, &area);
    let height = layout.height as usize;
    let place = |column: usize, row: usize| ((area.x0 + column) * height + row) as u32;
    let mut borders: Vec<u32> = Vec::new();
    let mut above = vec![false; area.width()];
    let mut covered = 0u32;
    for (row, line) in counts.chunks_exact(area.width()).enumerate() {
        for (column, (above, &samples)) in above.iter_mut().zip(line).enumerate() {
            let inside = samples >= FULL / 2;
            covered += u32::from(inside);
            if inside != *above {
                borders.push(place(column, area.y0 + row));
                *above = inside;
            }
        }
    }
    let reaching = above.iter().enumerate().filter(|(_, inside)| **inside);
    borders.extend(reaching.map(|(column, _)| place(column, area.y1)));
    borders.sort_unstable();
    let mut runs: Vec<u32> = Vec::new();
    let mut at = 0;
    let mut borders = borders.into_iter().peekable();
    while let Some(border) = borders.next() {
        // Out at the bottom of a column and in at the top of the next is one place, and no border.
        if borders.next_if_eq(&border).is_none() {
            runs.push(border - at);
            at = border;
        }
    }
    let pixels = layout.width * layout.height;
    if at < pixels || runs.is_empty() {
        runs.push(pixels - at);
    }
    Some((Mask::from_counts(layout.height, layout.width, runs).ok()?, covered as f32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_scene_repeats_and_depends_on_seed_and_index() {
        let (picture, objects) = scene(4, 7, (160, 120));
        assert_eq!(scene(4, 7, (160, 120)), (picture.clone(), objects.clone()));
        assert_eq!(super::picture(4, 7, (160, 120)), picture, "with and without masks the pixels agree");
        assert_ne!(scene(4, 8, (160, 120)).0, picture);
        assert_ne!(scene(5, 7, (160, 120)).0, picture);
        assert_eq!((picture.width, picture.height, picture.rgb.len()), (160, 120, 160 * 120 * 3));
    }

    #[test]
    fn every_picture_has_objects_inside_it_with_their_own_ids() {
        let spec = ShapesSpec { train: 300, size: (160, 120), ..ShapesSpec::default() };
        let set = shapes(&spec, Split::Train);
        let mut ids = HashSet::new();
        for image in &set.images {
            assert!((1..=9).contains(&image.objects.len()), "{}", image.name);
            for object in &image.objects {
                let b = object.bbox;
                assert!(b.is_proper() && b.clip(160.0, 120.0) == b, "{}: {b:?}", image.name);
                assert!(ids.insert(object.id) && object.id > 0);
                let area = object.area.unwrap();
                assert!(area > 0.0 && area <= (b.width() + 2.0) * (b.height() + 2.0));
            }
        }
        assert!(set.class_counts().iter().all(|&n| n > 50), "{:?}", set.class_counts());
        assert_ne!(set.digest(), shapes(&ShapesSpec { val: 300, ..spec }, Split::Val).digest());
    }

    #[test]
    fn masks_written_as_runs_are_those_of_a_bitmap() {
        for index in 0..40 {
            let layout = shapes_layout::layout(2, index, 48, 32);
            let mut hidden = SampleSet::new(48, 32);
            for item in layout.items.iter().rev() {
                let all: Vec<Span> = item.parts.iter().flat_map(|part| spans(&part.place(item.class))).collect();
                let Some(area) = hidden.pixel_area(&all) else { continue };
                let counts = hidden.missing_by_pixel(&all, &area);
                let mut bitmap = vec![0u8; 48 * 32];
                for (k, samples) in counts.iter().enumerate() {
                    let (x, y) = (area.x0 + k % area.width(), area.y0 + k / area.width());
                    bitmap[y * 48 + x] = u8::from(*samples >= FULL / 2);
                }
                let expected = Mask::from_bitmap(32, 48, &bitmap).unwrap();
                let area = expected.area() as f32;
                assert_eq!(visible_mask(&layout, &hidden, &all), Some((expected, area)), "picture {index}");
                hidden.insert(&all);
            }
        }
        let whole = spans(&[vec![[-9.0, -9.0], [60.0, -9.0], [60.0, 40.0], [-9.0, 40.0]]]);
        let layout = shapes_layout::layout(2, 0, 48, 32);
        let (mask, area) = visible_mask(&layout, &SampleSet::new(48, 32), &whole).unwrap();
        assert_eq!((mask.counts, area), (vec![0, 48 * 32], 1536.0));
    }

    #[test]
    fn objects_behind_others_are_seen_enough() {
        for index in 0..60 {
            let scene = Scene::new(11, index, (160, 120), true);
            for (k, kept) in scene.kept.iter().enumerate() {
                let whole: f32 = kept.parts.iter().map(|p| count(p) as f32 / 16.0).sum();
                let seen = kept.object.area.unwrap();
                // half-covered pixels along the outline make up the slack
                assert!(seen >= 0.4 * whole - whole.sqrt(), "picture {index} object {k}: {seen} of {whole}");
            }
        }
    }

    #[test]
    fn settings_are_parsed_and_refused_by_name() {
        let spec = ShapesSpec::parse("shapes:train=40, seed=3,size=64x48").unwrap();
        assert_eq!(spec, ShapesSpec { train: 40, seed: 3, size: (64, 48), ..ShapesSpec::default() });
        assert_eq!(ShapesSpec::parse("shapes").unwrap(), ShapesSpec::default());
        for wrong in ["shapes:train=-1", "shapes:size=8x8", "shapes:size=64", "shapes:colour=red", "shapesx", "cats"] {
            let message = ShapesSpec::parse(wrong).unwrap_err().to_string();
            assert!(message.starts_with("built-in Shapes: "), "{message}");
        }
    }
}
