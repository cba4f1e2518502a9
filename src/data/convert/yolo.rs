//! Writes YOLO: `images/{split}`, `labels/{split}` with a text file an image, and `data.yaml`.

use super::decimals::decimal;
use super::files::write_text;
use super::outline::outline;
use super::part::Part;
use crate::data::dataset::ImageEntry;
use crate::data::error::DataError;
use crate::data::yolo::label_of;
use crate::data::yolo_yaml::quoted;
use rayon::prelude::*;
use std::fmt::Write;
use std::path::Path;

/// Name of the description.
const DESCRIPTION: &str = "data.yaml";

pub(super) fn write(parts: &[Part<'_>], out: &Path) -> Result<(), DataError> {
    for part in parts {
        let folder = out.join(part.image_folder());
        let images: Vec<(&ImageEntry, &str)> = part.images().collect();
        images.par_iter().try_for_each(|(image, name)| {
            write_text(&label_of(out, &folder.join(name)), "the label file", &labels(part, image))
        })?;
    }
    write_text(&out.join(DESCRIPTION), "the description", &description(parts))
}

/// The splits by the names that YOLO gives them, and the classes by number.
fn description(parts: &[Part<'_>]) -> String {
    let mut text = String::new();
    for key in ["train", "val", "test"] {
        let mut folders: Vec<String> =
            parts.iter().filter(|part| part.split.starts_with(key)).map(Part::image_folder).collect();
        if folders.is_empty() && key != "test" {
            // Programs that train want both; what there is stands in.
            folders.extend(parts.first().map(Part::image_folder));
        }
        let folders: Vec<String> = folders.iter().map(|folder| quoted(folder)).collect();
        match folders.as_slice() {
            [] => {}
            [only] => text.push_str(&format!("{key}: {only}\n")),
            several => text.push_str(&format!("{key}: [{}]\n", several.join(", "))),
        }
    }
    text.push_str("names:\n");
    let classes = parts.first().map(|part| part.dataset.classes.as_slice()).unwrap_or_default();
    for (class, name) in classes.iter().enumerate() {
        text.push_str(&format!("  {class}: {}\n", quoted(name)));
    }
    text
}

/// One line an object; all numbers but the class are fractions of width and height.
fn labels(part: &Part<'_>, image: &ImageEntry) -> String {
    let (width, height) = (f64::from(image.width.max(1)), f64::from(image.height.max(1)));
    let mut text = String::new();
    for written in part.objects(image) {
        text.push_str(&written.object.class.to_string());
        let numbers: Vec<f64> = match written.mask {
            Some(mask) => {
                outline(mask).iter().flat_map(|[x, y]| [f64::from(*x) / width, f64::from(*y) / height]).collect()
            }
            None => {
                let b = written.object.bbox;
                let [x0, y0, x1, y1] = [b.x0, b.y0, b.x1, b.y1].map(decimal);
                vec![(x0 + x1) / 2.0 / width, (y0 + y1) / 2.0 / height, (x1 - x0) / width, (y1 - y0) / height]
            }
        };
        for number in numbers {
            // Writing to a string cannot fail.
            let _ = write!(text, " {number}");
        }
        text.push('\n');
    }
    text
}
