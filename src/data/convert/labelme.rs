//! Writes LabelMe: `{split}/` with a JSON file beside each image, and `labels.txt`.

use super::decimals::decimal;
use super::files::{write_json, write_text};
use super::outline::outline;
use super::part::{Part, Written, stem};
use crate::data::dataset::ImageEntry;
use crate::data::error::DataError;
use crate::data::labelme::{CROWD, DIFFICULT, LABEL_FILE};
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use std::path::Path;

pub(super) fn write(parts: &[Part<'_>], out: &Path) -> Result<(), DataError> {
    for part in parts {
        let folder = out.join(part.image_folder());
        let images: Vec<(&ImageEntry, &str)> = part.images().collect();
        images.par_iter().try_for_each(|(image, name)| {
            let path = folder.join(format!("{}.json", stem(name)));
            write_json(&path, "the annotation", &annotation(part, image, name))
        })?;
    }
    let classes = parts.first().map(|part| part.dataset.classes.as_slice()).unwrap_or_default();
    // A name over two lines would be two names; such a class is found by its objects instead.
    let names = classes.iter().filter(|name| !name.contains(['\n', '\r']));
    let list: String = names.map(|name| format!("{name}\n")).collect();
    write_text(&out.join(LABEL_FILE), "the list of labels", &list)
}

fn annotation(part: &Part<'_>, image: &ImageEntry, name: &str) -> Value {
    let shapes: Vec<Value> = part.objects(image).map(|written| shape(&written)).collect();
    json!({
        "version": "5.0.0",
        "flags": {},
        "shapes": shapes,
        // Relative to the annotation, which lies beside the image.
        "imagePath": name.rsplit('/').next().unwrap_or(name),
        "imageData": null,
        "imageHeight": image.height,
        "imageWidth": image.width,
    })
}

fn shape(written: &Written<'_>) -> Value {
    let (kind, points): (&str, Vec<[f64; 2]>) = match written.mask {
        Some(mask) => ("polygon", outline(mask).iter().map(|corner| corner.map(f64::from)).collect()),
        None => {
            let b = written.object.bbox;
            ("rectangle", vec![[decimal(b.x0), decimal(b.y0)], [decimal(b.x1), decimal(b.y1)]])
        }
    };
    let mut flags = Map::new();
    for (name, set) in [(CROWD, written.object.crowd), (DIFFICULT, written.object.difficult)] {
        if set {
            flags.insert(name.to_owned(), Value::Bool(true));
        }
    }
    json!({
        "label": written.class, "points": points, "group_id": null, "shape_type": kind, "flags": flags,
    })
}
