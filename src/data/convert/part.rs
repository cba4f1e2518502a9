//! One split on its way into another format: its objects as that format can say them, its images by their new names.

use super::Format;
use super::decimals::decimal;
use super::names::{Names, split_name};
use crate::data::dataset::{Dataset, ImageEntry};
use crate::geometry::{Mask, Object};

/// One split with the format that it is written in.
pub(super) struct Part<'a> {
    pub(super) dataset: &'a Dataset,
    /// A name that files can have.
    pub(super) split: String,
    /// File name of each image within [`Part::image_folder`], `/` between folders; unique without its ending.
    pub(super) names: Vec<String>,
    pub(super) format: Format,
}

/// An object as it is written.
pub(super) struct Written<'a> {
    pub(super) object: &'a Object,
    pub(super) class: &'a str,
    /// Where the format keeps masks and the object has one that fits its image.
    pub(super) mask: Option<&'a Mask>,
}

/// Why an object is not written at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Excluded {
    Class,
    NoArea,
    Crowd,
    /// VOC's corners are pixels, counted from 1 and both inside: less than one pixel cannot be said.
    Thin,
}

/// The splits, named for `format`.
pub(super) fn parts(splits: &[Dataset], format: Format) -> Vec<Part<'_>> {
    // VOC has one folder of images for all splits; else each has its own.
    let mut names = Names::new(format);
    let mut parts = Vec::new();
    for dataset in splits {
        if format != Format::Voc {
            names = Names::new(format);
        }
        let list = dataset.images.iter().enumerate().map(|(rank, image)| names.of(image, rank)).collect();
        parts.push(Part { dataset, split: split_name(&dataset.split), names: list, format });
    }
    parts
}

impl<'a> Part<'a> {
    /// Each image with its new name.
    pub(super) fn images(&self) -> impl Iterator<Item = (&'a ImageEntry, &str)> {
        self.dataset.images.iter().zip(self.names.iter().map(String::as_str))
    }

    /// The objects of one of the images that are written.
    pub(super) fn objects<'s>(&'s self, image: &'s ImageEntry) -> impl Iterator<Item = Written<'s>> {
        image.objects.iter().filter(move |object| self.excluded(object).is_none()).filter_map(move |object| {
            let class = self.dataset.classes.get(object.class as usize)?;
            let mask = if self.format.keeps().masks { usable_mask(object, image) } else { None };
            Some(Written { object, class, mask })
        })
    }

    pub(super) fn excluded(&self, object: &Object) -> Option<Excluded> {
        let b = object.bbox;
        let thin = |low: f32, high: f32| decimal(high) <= decimal(low) + 1.0;
        if object.class as usize >= self.dataset.classes.len() {
            Some(Excluded::Class)
        } else if !b.is_proper() {
            Some(Excluded::NoArea)
        } else if object.crowd && !self.format.keeps().crowds {
            Some(Excluded::Crowd)
        } else if self.format == Format::Voc && (thin(b.x0, b.x1) || thin(b.y0, b.y1)) {
            Some(Excluded::Thin)
        } else {
            None
        }
    }

    /// Folder of the images within the data set's, `/` between folders.
    pub(super) fn image_folder(&self) -> String {
        self.format.image_folder(&self.split)
    }
}

/// A mask that fits its image and is not empty.
pub(super) fn usable_mask<'a>(object: &'a Object, image: &ImageEntry) -> Option<&'a Mask> {
    let fits = |mask: &&Mask| {
        (mask.width, mask.height) == (image.width, image.height) && mask.check().is_ok() && mask.area() > 0
    };
    object.mask.as_ref().filter(fits)
}

/// A name without its ending: `sub/a.b.png` is `sub/a.b`.
pub(super) fn stem(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((stem, ending)) if !stem.is_empty() && !ending.contains('/') => stem,
        _ => name,
    }
}
