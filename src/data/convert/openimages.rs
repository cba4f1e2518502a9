//! Writes OpenImages: `{split}-annotations-bbox.csv`, corners as fractions, and `class-descriptions-boxable.csv`.

use super::decimals::decimal;
use super::files::write_text;
use super::part::{Part, stem};
use crate::data::csv_text::field;
use crate::data::error::DataError;
use crate::data::openimages::SUFFIX;
use std::path::Path;

/// What the sample sets have; whether it is a depiction or seen from inside is not known: −1.
const HEADER: &str = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,\
                      IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n";

pub(super) fn write(parts: &[Part<'_>], out: &Path) -> Result<(), DataError> {
    for part in parts {
        write_text(&out.join(format!("{}{SUFFIX}.csv", part.split)), "the OpenImages file", &table(part))?;
    }
    let classes = parts.first().map(|part| part.dataset.classes.as_slice()).unwrap_or_default();
    let list: String = classes.iter().map(|name| format!("{0},{0}\n", field(name))).collect();
    write_text(&out.join("class-descriptions-boxable.csv"), "the class descriptions", &list)
}

fn table(part: &Part<'_>) -> String {
    let mut text = HEADER.to_owned();
    for (image, name) in part.images() {
        let (width, height) = (f64::from(image.width.max(1)), f64::from(image.height.max(1)));
        for written in part.objects(image) {
            let b = written.object.bbox;
            let [x0, x1] = [b.x0, b.x1].map(|x| decimal(x) / width);
            let [y0, y1] = [b.y0, b.y1].map(|y| decimal(y) / height);
            let o = written.object;
            let [occluded, truncated, group] = [o.occluded, o.truncated, o.crowd].map(u8::from);
            let (id, class) = (field(stem(name)), field(written.class));
            text.push_str(&format!("{id},,{class},1,{x0},{x1},{y0},{y1},{occluded},{truncated},{group},-1,-1\n"));
        }
    }
    text
}
