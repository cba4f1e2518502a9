//! Writes COCO: `annotations/instances_{split}.json` with masks as compressed run lengths.

use super::decimals::{decimal, extent};
use super::files::write_json;
use super::part::Part;
use crate::data::coco_results::WrittenMask;
use crate::data::error::DataError;
use serde::Serialize;
use std::collections::HashSet;
use std::path::Path;

#[derive(Serialize)]
struct CocoFile<'a> {
    images: Vec<CocoImage<'a>>,
    annotations: Vec<CocoAnnotation>,
    categories: Vec<CocoCategory<'a>>,
}

#[derive(Serialize)]
struct CocoImage<'a> {
    id: u64,
    file_name: &'a str,
    width: u32,
    height: u32,
}

#[derive(Serialize)]
struct CocoAnnotation {
    id: u64,
    image_id: u64,
    category_id: u64,
    /// Left, top, width, height.
    bbox: [f64; 4],
    area: f64,
    iscrowd: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    segmentation: Option<WrittenMask>,
}

#[derive(Serialize)]
struct CocoCategory<'a> {
    id: u64,
    name: &'a str,
}

pub(super) fn write(parts: &[Part<'_>], out: &Path) -> Result<(), DataError> {
    for part in parts {
        let path = out.join("annotations").join(format!("instances_{}.json", part.split));
        write_json(&path, "the COCO file", &file(part))?;
    }
    Ok(())
}

fn file<'a>(part: &'a Part<'_>) -> CocoFile<'a> {
    let dataset = part.dataset;
    // Ids stay where they tell apart what they are for.
    let keep_images = all_differ(dataset.images.iter().map(|image| image.id));
    let objects = || part.images().flat_map(move |(image, _)| part.objects(image));
    let keep_objects = all_differ(objects().map(|object| object.object.id));
    let keep_categories =
        dataset.category_ids.len() == dataset.classes.len() && all_differ(dataset.category_ids.iter().copied());
    let category = |class: usize| {
        let id = dataset.category_ids.get(class).copied();
        id.filter(|_| keep_categories).unwrap_or(class as u64 + 1)
    };
    let mut images = Vec::with_capacity(dataset.images.len());
    let mut annotations = Vec::new();
    for (rank, (image, name)) in part.images().enumerate() {
        let image_id = if keep_images { image.id } else { rank as u64 + 1 };
        images.push(CocoImage { id: image_id, file_name: name, width: image.width, height: image.height });
        for written in part.objects(image) {
            let (object, b) = (written.object, written.object.bbox);
            let own = object.area.map(decimal).or(written.mask.map(|mask| mask.area() as f64));
            annotations.push(CocoAnnotation {
                id: if keep_objects { object.id } else { annotations.len() as u64 + 1 },
                image_id,
                category_id: category(object.class as usize),
                bbox: [decimal(b.x0), decimal(b.y0), extent(b.x0, b.x1), extent(b.y0, b.y1)],
                area: own.filter(|area| area.is_finite()).unwrap_or_else(|| f64::from(b.area())),
                iscrowd: u8::from(object.crowd),
                segmentation: written.mask.map(WrittenMask::of),
            });
        }
    }
    let categories =
        dataset.classes.iter().enumerate().map(|(class, name)| CocoCategory { id: category(class), name }).collect();
    CocoFile { images, annotations, categories }
}

/// Whether no id stands twice and none is 0, which stands for none.
fn all_differ(mut ids: impl Iterator<Item = u64>) -> bool {
    let mut seen = HashSet::new();
    ids.all(|id| id != 0 && seen.insert(id))
}
