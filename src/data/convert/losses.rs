//! What a format cannot keep of a data set, counted and named.

use super::part::{Excluded, Part, usable_mask};
use super::{Format, Keeps};
use crate::data::dataset::{Dataset, ImageEntry};
use crate::geometry::Object;
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};

/// Something that is not in the written data set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dropped {
    pub what: &'static str,
    pub count: usize,
    /// What became of it.
    pub how: &'static str,
}

/// What can be lost, in the order in which it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Loss {
    Excluded(Excluded),
    Mask,
    BrokenMask,
    BoxOfMask,
    Area,
    Difficult,
    Cut,
    EmptyImage,
    ImageName,
    UnusedClass,
    ClassOrder,
    RepeatedClass,
    CategoryId,
    ImageId,
    ObjectId,
}

impl Loss {
    fn told(self) -> (&'static str, &'static str) {
        match self {
            Self::Excluded(Excluded::Class) => ("objects of an unknown class", "left out"),
            Self::Excluded(Excluded::NoArea) => ("boxes without area", "left out"),
            Self::Excluded(Excluded::Crowd) => ("crowds", "left out: as single objects they would be wrong"),
            Self::Excluded(Excluded::Thin) => ("boxes thinner than a pixel", "left out: corners are whole pixels here"),
            Self::Mask => ("masks", "boxes alone are written"),
            Self::BrokenMask => ("masks that are empty or of another size than their image", "their boxes are written"),
            Self::BoxOfMask => ("boxes of objects with a mask", "read back as the box around the mask"),
            Self::Area => ("areas as annotated", "read back as the mask's, or the box's"),
            Self::Difficult => ("difficult flags", "written as ordinary objects"),
            Self::Cut => ("truncated and occluded flags", "not written"),
            Self::EmptyImage => ("images without objects", "not named in the annotations"),
            Self::ImageName => ("image names", "changed to file names that can be"),
            Self::UnusedClass => ("classes without objects", "not named anywhere"),
            Self::ClassOrder => ("order of the classes", "read back sorted by name"),
            Self::RepeatedClass => ("classes that share a name", "read back as one class"),
            Self::CategoryId => ("category ids", "read back as 1, 2, 3, …"),
            Self::ImageId => ("image ids", "read back as 1, 2, 3, …"),
            Self::ObjectId => ("object ids", "not written"),
        }
    }
}

/// Counts of what is lost, by kind.
#[derive(Default)]
struct Counts(BTreeMap<Loss, usize>);

impl Counts {
    fn add(&mut self, loss: Loss, count: usize) {
        if count > 0 {
            *self.0.entry(loss).or_insert(0) += count;
        }
    }
}

/// What is not in the data set as written.
pub(super) fn losses(parts: &[Part<'_>], format: Format) -> Vec<Dropped> {
    let keeps = format.keeps();
    let mut counts = Counts::default();
    for part in parts {
        for (rank, (image, name)) in part.images().enumerate() {
            counts.add(Loss::ImageName, usize::from(image.name != name));
            counts.add(Loss::ImageId, usize::from(!keeps.ids && image.id != rank as u64 + 1));
            let mut written = 0;
            for object in &image.objects {
                match part.excluded(object) {
                    Some(excluded) => counts.add(Loss::Excluded(excluded), 1),
                    None => {
                        written += 1;
                        object_losses(object, image, keeps, &mut counts);
                    }
                }
            }
            counts.add(Loss::EmptyImage, usize::from(!keeps.empty_images && written == 0));
        }
    }
    if let Some(part) = parts.first() {
        class_losses(part.dataset, parts, keeps, format, &mut counts);
    }
    let told = |(loss, count): (Loss, usize)| {
        let (what, how) = loss.told();
        Dropped { what, count, how }
    };
    counts.0.into_iter().map(told).collect()
}

fn object_losses(object: &Object, image: &ImageEntry, keeps: Keeps, counts: &mut Counts) {
    counts.add(Loss::Difficult, usize::from(object.difficult && !keeps.difficult));
    counts.add(Loss::Cut, usize::from((object.truncated || object.occluded) && !keeps.cut));
    counts.add(Loss::ObjectId, usize::from(object.id != 0 && !keeps.ids));
    let usable = usable_mask(object, image);
    counts.add(Loss::BrokenMask, usize::from(object.mask.is_some() && usable.is_none()));
    counts.add(Loss::Mask, usize::from(usable.is_some() && !keeps.masks));
    let mask = usable.filter(|_| keeps.masks);
    let moved = mask.is_some_and(|mask| !keeps.box_of_mask && mask.bbox() != object.bbox);
    counts.add(Loss::BoxOfMask, usize::from(moved));
    let area = mask.map(|mask| mask.area() as f32);
    counts.add(Loss::Area, usize::from(!keeps.ids && object.area.is_some() && object.area != area));
}

fn class_losses(dataset: &Dataset, parts: &[Part<'_>], keeps: Keeps, format: Format, counts: &mut Counts) {
    let classes = &dataset.classes;
    if !keeps.ids {
        let expected = dataset.category_ids.iter().zip(1u64..).filter(|(id, rank)| **id != *rank).count();
        counts.add(Loss::CategoryId, expected);
    }
    // YOLO and COCO number their classes; the others know them by name.
    if !matches!(format, Format::Coco | Format::Yolo | Format::YoloSeg) {
        let names: HashSet<&String> = classes.iter().collect();
        counts.add(Loss::RepeatedClass, classes.len() - names.len());
    }
    if keeps.classes {
        return;
    }
    let written = |part: &Part<'_>| -> Vec<u32> {
        let objects = part.dataset.images.iter().flat_map(|image| part.objects(image));
        objects.map(|object| object.object.class).collect()
    };
    let used: HashSet<u32> = parts.iter().flat_map(written).collect();
    let used: Vec<&String> =
        classes.iter().zip(0u32..).filter(|(_, class)| used.contains(class)).map(|(name, _)| name).collect();
    counts.add(Loss::UnusedClass, classes.len() - used.len());
    counts.add(Loss::ClassOrder, usize::from(!used.is_sorted()));
}
