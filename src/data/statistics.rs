//! What a data set holds, in numbers: classes, sizes, shapes, places, objects per image, and the anchors that would fit.

use super::dataset::{Dataset, ImageEntry};
use super::kmeans::{best_overlaps, kmeans_anchors};
use super::placements::Placements;
use crate::geometry::{BBox, Object};
use crate::imaging::Preprocess;
use crate::random::Random;
use crate::stats::{Histogram, mean, quantile};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Quantiles that are given of every distribution.
pub const QUANTILES: [f32; 7] = [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0];
/// Rows and columns of the map of positions.
pub const CELLS: usize = 16;
/// Picture sizes that are listed, the most frequent first.
const LISTED_SIZES: usize = 16;
/// Bars of the histogram of objects per image.
const COUNT_BINS: usize = 16;
/// Anchors fit an object from this IoU of shapes on, as most one-stage detectors match.
const FITTING: f32 = 0.5;

/// COCO's ranges of object areas, in pixels of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SizeRange {
    /// Below 32².
    Small,
    /// From 32² to below 96².
    Medium,
    /// From 96² on.
    Large,
}

impl SizeRange {
    pub const ALL: [Self; 3] = [Self::Small, Self::Medium, Self::Large];

    /// The range of an object: of its annotated area, or else of its box's.
    pub fn of(object: &Object) -> Self {
        let area = object.area.unwrap_or_else(|| object.bbox.area());
        if area < 32.0 * 32.0 {
            Self::Small
        } else if area < 96.0 * 96.0 {
            Self::Medium
        } else {
            Self::Large
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
        }
    }
}

/// One bar of a histogram: values from `low` up to `high`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bin {
    pub low: f32,
    pub high: f32,
    pub count: u64,
}

/// How a quantity is spread.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Distribution {
    pub count: usize,
    pub mean: Option<f32>,
    /// At [`QUANTILES`]; empty without values.
    pub quantiles: Vec<f32>,
    /// From the lowest bar to the highest, without gaps.
    pub histogram: Vec<Bin>,
}

/// One class.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ClassStatistics {
    pub name: String,
    pub category_id: u64,
    /// Groups (crowd) left out.
    pub objects: usize,
    /// Images with at least one of those objects.
    pub images: usize,
    pub crowds: usize,
    /// Median of √(box area), pixels of the picture.
    pub median_side: Option<f32>,
}

/// Objects in one of COCO's size ranges.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SizeCount {
    pub range: SizeRange,
    pub objects: usize,
}

/// Pictures of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PictureSize {
    pub width: u32,
    pub height: u32,
    pub images: usize,
}

/// Where the centres of boxes lie, as counts over equal cells of the picture.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PositionMap {
    pub rows: usize,
    pub columns: usize,
    /// Row-major, top row first.
    pub counts: Vec<u64>,
}

/// Everything about one split of a data set. Boxes are measured as annotated; objects are those without groups (crowd)
/// and without boxes that have no area.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Statistics {
    pub name: String,
    pub split: String,
    /// [`Dataset::digest`] in hexadecimal.
    pub digest: String,
    pub images: usize,
    pub images_without_objects: usize,
    pub objects: usize,
    pub crowds: usize,
    pub difficult: usize,
    pub masks: usize,
    pub classes: Vec<ClassStatistics>,
    pub sizes: Vec<SizeCount>,
    /// √(box area), pixels of the picture.
    pub side: Distribution,
    /// Pixels of the picture.
    pub width: Distribution,
    /// Pixels of the picture.
    pub height: Distribution,
    /// Width over height.
    pub aspect: Distribution,
    /// √(box area / picture area).
    pub relative_side: Distribution,
    pub per_image: Distribution,
    pub positions: PositionMap,
    /// The most frequent, and how many there are in all.
    pub picture_sizes: Vec<PictureSize>,
    pub distinct_picture_sizes: usize,
}

/// Anchors found by k-means for one network input.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AnchorFit {
    /// How pictures become the input, for people.
    pub preprocessing: String,
    /// Boxes that took part.
    pub objects: usize,
    /// Width and height in pixels of the input, by rising area.
    pub anchors: Vec<[f32; 2]>,
    /// Mean IoU of each box's shape with its best anchor's.
    pub average_iou: f32,
    /// Share of the boxes whose best anchor has an IoU of shapes of at least 0.5.
    pub fitting: f32,
}

/// Whether an object is counted.
fn counts(object: &Object) -> bool {
    !object.crowd && object.bbox.is_proper()
}

/// Measures a data set. No picture is read.
pub fn statistics(dataset: &Dataset) -> Statistics {
    let mut gathered = Gathered::new(dataset.classes.len());
    for entry in &dataset.images {
        gathered.add(entry);
    }
    let classes = dataset.classes.iter().enumerate().map(|(index, name)| {
        let own = gathered.classes.get_mut(index).map(std::mem::take).unwrap_or_default();
        let mut sides = own.sides;
        ClassStatistics {
            name: name.clone(),
            category_id: dataset.category_ids.get(index).copied().unwrap_or_default(),
            objects: sides.len(),
            images: own.images,
            crowds: own.crowds,
            median_side: quantile(&mut sides, 0.5),
        }
    });
    let classes: Vec<ClassStatistics> = classes.collect();
    let mut picture_sizes: Vec<PictureSize> =
        gathered.pictures.iter().map(|(&(width, height), &images)| PictureSize { width, height, images }).collect();
    picture_sizes.sort_by_key(|size| std::cmp::Reverse(size.images));
    let distinct_picture_sizes = picture_sizes.len();
    picture_sizes.truncate(LISTED_SIZES);
    let aspect_bins = log_bins(&gathered.aspects, 2, (1.0 / 16.0, 16.0));
    let relative_bins = log_bins(&gathered.relative, 2, (1.0 / 256.0, 1.0));
    let pixel_bins = |values: &[f32]| log_bins(values, 1, (1.0, 32_768.0));
    let per_image_bins = count_bins(&gathered.per_image);
    Statistics {
        name: dataset.name.clone(),
        split: dataset.split.clone(),
        digest: format!("{:016x}", dataset.digest()),
        images: dataset.images.len(),
        images_without_objects: dataset.images.iter().filter(|image| image.objects.is_empty()).count(),
        objects: gathered.sides.len(),
        crowds: gathered.crowds,
        difficult: gathered.difficult,
        masks: gathered.masks,
        classes,
        sizes: SizeRange::ALL
            .into_iter()
            .zip(gathered.ranges)
            .map(|(range, objects)| SizeCount { range, objects })
            .collect(),
        side: distribution(&gathered.sides, pixel_bins(&gathered.sides)),
        width: distribution(&gathered.widths, pixel_bins(&gathered.widths)),
        height: distribution(&gathered.heights, pixel_bins(&gathered.heights)),
        aspect: distribution(&gathered.aspects, aspect_bins),
        relative_side: distribution(&gathered.relative, relative_bins),
        per_image: distribution(&gathered.per_image, per_image_bins),
        positions: PositionMap { rows: CELLS, columns: CELLS, counts: gathered.positions },
        picture_sizes,
        distinct_picture_sizes,
    }
}

/// `count` anchors for the boxes of `dataset` as `preprocess` scales them, cut at the picture's edge as in training.
pub fn fit_anchors(dataset: &Dataset, preprocess: &Preprocess, count: usize, seed: u64) -> AnchorFit {
    let placements = Placements::new(preprocess, dataset);
    let mut sides: Vec<[f32; 2]> = Vec::new();
    for entry in &dataset.images {
        let Some(fitted) = placements.of(entry) else { continue };
        for object in entry.objects.iter().filter(|object| counts(object)) {
            let cut = object.bbox.clip(entry.width as f32, entry.height as f32);
            let bbox = fitted.placement.to_input(cut);
            if bbox.is_proper() {
                sides.push([bbox.width(), bbox.height()]);
            }
        }
    }
    let (anchors, average_iou) = kmeans_anchors(&sides, count, &mut Random::new(seed));
    let fitting = best_overlaps(&sides, &anchors).iter().filter(|overlap| **overlap >= FITTING).count();
    AnchorFit {
        preprocessing: preprocess.describe(),
        objects: sides.len(),
        anchors,
        average_iou,
        fitting: fitting as f32 / sides.len().max(1) as f32,
    }
}

/// Numbers of one class while they are gathered.
#[derive(Clone, Debug, Default)]
struct OfClass {
    sides: Vec<f32>,
    images: usize,
    crowds: usize,
}

/// Numbers of a data set while they are gathered.
struct Gathered {
    classes: Vec<OfClass>,
    sides: Vec<f32>,
    widths: Vec<f32>,
    heights: Vec<f32>,
    aspects: Vec<f32>,
    relative: Vec<f32>,
    per_image: Vec<f32>,
    ranges: [usize; 3],
    positions: Vec<u64>,
    pictures: BTreeMap<(u32, u32), usize>,
    crowds: usize,
    difficult: usize,
    masks: usize,
}

impl Gathered {
    fn new(classes: usize) -> Self {
        Self {
            classes: vec![OfClass::default(); classes],
            sides: Vec::new(),
            widths: Vec::new(),
            heights: Vec::new(),
            aspects: Vec::new(),
            relative: Vec::new(),
            per_image: Vec::new(),
            ranges: [0; 3],
            positions: vec![0; CELLS * CELLS],
            pictures: BTreeMap::new(),
            crowds: 0,
            difficult: 0,
            masks: 0,
        }
    }

    fn add(&mut self, entry: &ImageEntry) {
        *self.pictures.entry((entry.width, entry.height)).or_insert(0) += 1;
        let mut seen: BTreeSet<u32> = BTreeSet::new();
        let before = self.sides.len();
        for object in &entry.objects {
            self.crowds += usize::from(object.crowd);
            self.difficult += usize::from(object.difficult);
            self.masks += usize::from(object.mask.is_some());
            let class = self.classes.get_mut(object.class as usize);
            if !counts(object) {
                if let Some(class) = class {
                    class.crowds += usize::from(object.crowd);
                }
                continue;
            }
            // the product of two far ends overflows in single precision
            let side = (f64::from(object.bbox.width()) * f64::from(object.bbox.height())).sqrt() as f32;
            if let Some(class) = class {
                class.sides.push(side);
                class.images += usize::from(seen.insert(object.class));
            }
            self.ranges[SizeRange::of(object) as usize] += 1;
            self.measure(object.bbox, side, (entry.width as f32, entry.height as f32));
        }
        self.per_image.push((self.sides.len() - before) as f32);
    }

    fn measure(&mut self, bbox: BBox, side: f32, (width, height): (f32, f32)) {
        self.sides.push(side);
        self.widths.push(bbox.width());
        self.heights.push(bbox.height());
        self.aspects.push(bbox.width() / bbox.height());
        self.relative.push(side / (width * height).max(1.0).sqrt());
        // the cast takes what lies left of or above the picture to its first cell
        let cell = |position: f32, length: f32| ((position / length.max(1.0) * CELLS as f32) as usize).min(CELLS - 1);
        let (x, y) = bbox.center();
        if let Some(count) = self.positions.get_mut(cell(y, height) * CELLS + cell(x, width)) {
            *count += 1;
        }
    }
}

fn distribution(values: &[f32], histogram: Vec<Bin>) -> Distribution {
    let mut reordered = values.to_vec();
    let quantiles = QUANTILES.iter().filter_map(|&q| quantile(&mut reordered, q)).collect();
    Distribution { count: values.len(), mean: mean(values), quantiles, histogram }
}

/// Bars whose edges are powers of two (`per_octave` bars a doubling) from the lowest value to the highest, both held
/// within `limits`, which are powers of two.
fn log_bins(values: &[f32], per_octave: usize, (low, high): (f32, f32)) -> Vec<Bin> {
    let logs: Vec<f32> = values.iter().filter(|v| v.is_finite()).map(|v| v.clamp(low, high).log2()).collect();
    let Some(first) = logs.iter().copied().reduce(f32::min) else { return Vec::new() };
    let last = logs.iter().copied().fold(first, f32::max);
    let from = first.floor();
    let to = last.ceil().max(from + 1.0);
    let mut histogram = Histogram::new(from, to, (to - from) as usize * per_octave);
    histogram.add_all(&logs);
    bins(&histogram, f32::exp2)
}

/// Bars of whole numbers from 0 on, each as wide as needed to have no more than [`COUNT_BINS`].
fn count_bins(values: &[f32]) -> Vec<Bin> {
    let Some(most) = values.iter().copied().reduce(f32::max) else { return Vec::new() };
    let width = ((most + 1.0) / COUNT_BINS as f32).ceil().max(1.0);
    let count = (most / width).floor() as usize + 1;
    let mut histogram = Histogram::new(0.0, width * count as f32, count);
    histogram.add_all(values);
    bins(&histogram, |edge| edge)
}

fn bins(histogram: &Histogram, edge: impl Fn(f32) -> f32) -> Vec<Bin> {
    let bars = histogram.counts().iter().enumerate().map(|(index, &count)| {
        let (low, high) = histogram.edges(index);
        Bin { low: edge(low), high: edge(high), count }
    });
    bars.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::dataset::Source;
    use crate::imaging::{ChannelOrder, Fit};

    fn object(class: u32, x0: f32, y0: f32, x1: f32, y1: f32) -> Object {
        Object { class, bbox: BBox::new(x0, y0, x1, y1), ..Object::default() }
    }

    fn set(images: Vec<Vec<Object>>) -> Dataset {
        let entry = |(index, objects): (usize, Vec<Object>)| ImageEntry {
            id: index as u64 + 1,
            name: index.to_string(),
            source: Source::Shapes { seed: 1, index: index as u64 },
            width: 160,
            height: 80,
            objects,
        };
        Dataset {
            name: "set".to_owned(),
            split: "all".to_owned(),
            classes: ["cat", "dog"].map(str::to_owned).to_vec(),
            category_ids: vec![3, 7],
            images: images.into_iter().enumerate().map(entry).collect(),
            warnings: Vec::new(),
        }
    }

    #[test]
    fn numbers_by_hand() {
        let crowd = Object { crowd: true, ..object(1, 0.0, 0.0, 80.0, 80.0) };
        let flat = object(1, 5.0, 5.0, 5.0, 9.0);
        let set = set(vec![
            vec![object(0, 0.0, 0.0, 16.0, 4.0), object(0, 100.0, 40.0, 140.0, 80.0), crowd],
            vec![flat, object(1, 150.0, 70.0, 154.0, 74.0)],
            Vec::new(),
        ]);
        let found = statistics(&set);
        assert_eq!((found.images, found.images_without_objects, found.objects, found.crowds), (3, 1, 3, 1));
        let [cat, dog] = found.classes.as_slice() else { panic!("{:?}", found.classes) };
        assert_eq!((cat.objects, cat.images, cat.crowds, cat.category_id), (2, 1, 0, 3));
        assert_eq!((dog.objects, dog.images, dog.crowds, dog.median_side), (1, 1, 1, Some(4.0)));
        // √64, √1600 and √16
        assert_eq!(found.side.quantiles, [4.0, 4.4, 6.0, 8.0, 24.0, 36.8, 40.0]);
        let ranges: Vec<usize> = found.sizes.iter().map(|size| size.objects).collect();
        assert_eq!(ranges, [2, 1, 0]);
        assert_eq!(found.aspect.quantiles[6], 4.0);
        assert_eq!(found.per_image.mean, Some(1.0));
        let bars: Vec<(f32, u64)> = found.per_image.histogram.iter().map(|bin| (bin.low, bin.count)).collect();
        assert_eq!(bars, [(0.0, 1), (1.0, 1), (2.0, 1)]);
        // sides 4, 8 and 40 in [4, 8), [8, 16), [16, 32), [32, 64)
        let bars: Vec<(f32, u64)> = found.side.histogram.iter().map(|bin| (bin.low, bin.count)).collect();
        assert_eq!(bars, [(4.0, 1), (8.0, 1), (16.0, 0), (32.0, 1)]);
        // centres (8, 2), (120, 60) and (152, 72) in cells of 10 × 5 pixels
        let filled: Vec<usize> = (0..CELLS * CELLS).filter(|&cell| found.positions.counts[cell] > 0).collect();
        assert_eq!(filled, [0, 12 * CELLS + 12, 14 * CELLS + 15]);
        assert_eq!(found.picture_sizes, [PictureSize { width: 160, height: 80, images: 3 }]);
    }

    #[test]
    fn an_empty_set_has_no_numbers_and_odd_boxes_do_no_harm() {
        let empty = statistics(&Dataset::default());
        assert_eq!((empty.objects, empty.side.mean, empty.side.quantiles.len()), (0, None, 0));
        assert!(empty.side.histogram.is_empty() && empty.per_image.histogram.is_empty());
        let odd = set(vec![vec![
            object(9, -1e30, -1e30, 1e30, 1e30),
            object(0, f32::NAN, 0.0, 1.0, 1.0),
            object(0, 5.0, 5.0, 5.1, 5.1),
        ]]);
        let found = statistics(&odd);
        assert_eq!((found.objects, found.classes[0].objects), (2, 1));
        assert!(found.side.histogram.len() <= 16, "{:?}", found.side.histogram);
        assert_eq!(found.side.histogram.iter().map(|bin| bin.count).sum::<u64>(), 2);
    }

    #[test]
    fn anchors_are_in_pixels_of_the_input() {
        let set = set(vec![vec![object(0, 0.0, 0.0, 16.0, 8.0), object(0, 40.0, 20.0, 56.0, 28.0)]]);
        let preprocess = |fit: Fit| Preprocess { fit, order: ChannelOrder::Rgb, mean: [0.0; 3], std: [1.0; 3] };
        // 160 × 80 stretched to 320 × 320: twice and four times
        let fit = fit_anchors(&set, &preprocess(Fit::Stretch { width: 320, height: 320 }), 1, 1);
        assert_eq!((fit.anchors, fit.average_iou, fit.fitting), (vec![[32.0, 32.0]], 1.0, 1.0));
        let fit = fit_anchors(&set, &preprocess(Fit::Letterbox { width: 320, height: 320, fill: 127.5 }), 1, 1);
        assert_eq!((fit.anchors, fit.objects), (vec![[32.0, 16.0]], 2));
        let none = fit_anchors(&Dataset::default(), &preprocess(Fit::Stretch { width: 9, height: 9 }), 3, 1);
        assert_eq!((none.anchors.len(), none.fitting), (0, 0.0));
    }
}
