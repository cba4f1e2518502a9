//! A data set in memory: classes, images with their objects, and where the pixels come from. Pixels stay on disk.

pub use super::findings::{Finding, Severity};

use super::error::DataError;
use super::shapes;
use crate::geometry::Object;
use crate::imaging::{self, Picture};
use std::path::PathBuf;

/// Where the pixels of an image come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    File(PathBuf),
    /// Drawn on demand: picture `index` of the built-in set under `seed`.
    Shapes {
        seed: u64,
        index: u64,
    },
}

/// One image and what is annotated in it.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageEntry {
    /// COCO image id, or the rank in the data set counted from 1 where the format has none.
    pub id: u64,
    /// For people.
    pub name: String,
    pub source: Source,
    /// Pixels, as the annotation (or else the file's header) says.
    pub width: u32,
    /// Pixels, as the annotation (or else the file's header) says.
    pub height: u32,
    /// Image pixels, continuous coordinates; as annotated, so a box may stick out of the image.
    pub objects: Vec<Object>,
}

/// One split of a data set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dataset {
    /// For people, say the folder's name.
    pub name: String,
    pub split: String,
    /// Background excluded.
    pub classes: Vec<String>,
    /// COCO category id of each class; 1, 2, 3 … where the format has none.
    pub category_ids: Vec<u64>,
    pub images: Vec<ImageEntry>,
    /// What the reader found wrong.
    pub warnings: Vec<Finding>,
}

impl Dataset {
    /// Decodes or draws image `index`.
    ///
    /// # Errors
    /// [`DataError::NoSuchImage`], or [`DataError::Image`] when its file cannot be read.
    pub fn picture(&self, index: usize) -> Result<Picture, DataError> {
        let missing = DataError::NoSuchImage { index, count: self.images.len() };
        let entry = self.images.get(index).ok_or(missing)?;
        match &entry.source {
            Source::File(path) => Ok(imaging::load(path)?),
            Source::Shapes { seed, index } => Ok(shapes::picture(*seed, *index, (entry.width, entry.height))),
        }
    }

    /// Annotated objects by class, groups (crowd) left out.
    pub fn class_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes.len()];
        for object in self.images.iter().flat_map(|image| &image.objects).filter(|object| !object.crowd) {
            if let Some(count) = counts.get_mut(object.class as usize) {
                *count += 1;
            }
        }
        counts
    }

    /// All annotated objects, groups included.
    pub fn object_count(&self) -> usize {
        self.images.iter().map(|image| image.objects.len()).sum()
    }

    /// A number that changes with classes, image names and sizes, boxes, labels and flags; not with the folder, the
    /// pixels or the machine (FNV-1a, 64 bits).
    pub fn digest(&self) -> u64 {
        let mut digest = Fnv::new();
        digest.number(self.classes.len() as u64);
        for (class, id) in self.classes.iter().zip(&self.category_ids) {
            digest.text(class);
            digest.number(*id);
        }
        digest.number(self.images.len() as u64);
        for image in &self.images {
            digest.text(&image.name);
            digest.number(u64::from(image.width));
            digest.number(u64::from(image.height));
            digest.number(image.objects.len() as u64);
            for object in &image.objects {
                let b = object.bbox;
                for side in [b.x0, b.y0, b.x1, b.y1] {
                    // + 0.0 turns −0 into 0
                    digest.number(u64::from((side + 0.0).to_bits()));
                }
                digest.number(u64::from(object.class));
                digest.number(u64::from(object.crowd) * 2 + u64::from(object.difficult));
            }
        }
        digest.state
    }
}

/// FNV-1a: tiny, and the same on every machine and in every version, which `std`'s hasher does not promise.
struct Fnv {
    state: u64,
}

impl Fnv {
    fn new() -> Self {
        Self { state: 0xcbf2_9ce4_8422_2325 }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.state = (self.state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn number(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    /// The length goes first, so that "ab", "c" differs from "a", "bc".
    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.bytes(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::BBox;

    fn one_image(objects: Vec<Object>) -> Dataset {
        Dataset {
            name: "set".to_owned(),
            split: "all".to_owned(),
            classes: vec!["cat".to_owned(), "dog".to_owned()],
            category_ids: vec![1, 2],
            images: vec![ImageEntry {
                id: 1,
                name: "a.png".to_owned(),
                source: Source::File(PathBuf::from("nowhere/a.png")),
                width: 10,
                height: 8,
                objects,
            }],
            warnings: Vec::new(),
        }
    }

    #[test]
    fn fnv_gives_its_published_values() {
        // from the FNV reference test vectors: "" and "a"
        let mut hash = Fnv::new();
        assert_eq!(hash.state, 0xcbf2_9ce4_8422_2325);
        hash.bytes(b"a");
        assert_eq!(hash.state, 0xaf63_dc4c_8601_ec8c);
    }

    #[test]
    fn the_digest_follows_boxes_and_names_but_not_the_folder() {
        let object = Object { bbox: BBox::new(1.0, 2.0, 3.0, 4.0), class: 1, ..Object::default() };
        let set = one_image(vec![object.clone()]);
        let mut moved = set.clone();
        moved.images[0].source = Source::File(PathBuf::from("elsewhere/a.png"));
        moved.name = "other".to_owned();
        assert_eq!(set.digest(), moved.digest());
        moved.images[0].objects[0].bbox.x1 = 3.5;
        assert_ne!(set.digest(), moved.digest());
        assert_ne!(set.digest(), one_image(vec![object.clone(), object]).digest());
    }

    #[test]
    fn class_counts_leave_groups_out_and_unknown_images_are_errors() {
        let dog = Object { class: 1, ..Object::default() };
        let group = Object { class: 1, crowd: true, ..Object::default() };
        let stray = Object { class: 9, ..Object::default() };
        let set = one_image(vec![dog, group, stray]);
        assert_eq!(set.class_counts(), [0, 1]);
        assert_eq!(set.object_count(), 3);
        assert!(matches!(set.picture(1), Err(DataError::NoSuchImage { index: 1, count: 1 })));
        assert!(matches!(set.picture(0), Err(DataError::Image(_))));
    }
}
