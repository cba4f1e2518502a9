//! Writes Pascal VOC: `Annotations/*.xml`, corners counted from 1 and inclusive, and `ImageSets/Main/{split}.txt`.

use super::decimals::decimal;
use super::files::write_text;
use super::part::{Part, stem};
use crate::data::dataset::ImageEntry;
use crate::data::error::DataError;
use quick_xml::escape::partial_escape;
use rayon::prelude::*;
use std::fmt::Write;
use std::path::Path;

pub(super) fn write(parts: &[Part<'_>], out: &Path) -> Result<(), DataError> {
    for part in parts {
        let images: Vec<(&ImageEntry, &str)> = part.images().collect();
        images.par_iter().try_for_each(|(image, name)| {
            let path = out.join("Annotations").join(format!("{}.xml", stem(name)));
            write_text(&path, "the annotation", &annotation(part, image, name))
        })?;
        let list: String = images.iter().map(|(_, name)| format!("{}\n", stem(name))).collect();
        let path = out.join("ImageSets").join("Main").join(format!("{}.txt", part.split));
        write_text(&path, "the split list", &list)?;
    }
    Ok(())
}

fn annotation(part: &Part<'_>, image: &ImageEntry, name: &str) -> String {
    let mut text = format!(
        "<annotation>\n  <folder>JPEGImages</folder>\n  <filename>{}</filename>\n  <size><width>{}</width>\
         <height>{}</height><depth>3</depth></size>\n  <segmented>0</segmented>\n",
        partial_escape(name),
        image.width,
        image.height
    );
    for written in part.objects(image) {
        let b = written.object.bbox;
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "  <object>\n    <name>{}</name>\n    <truncated>{}</truncated>\n    \
             <occluded>{}</occluded>\n    <difficult>{}</difficult>\n    <bndbox><xmin>{}</xmin>\
             <ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>\n  </object>\n",
            partial_escape(written.class),
            u8::from(written.object.truncated),
            u8::from(written.object.occluded),
            u8::from(written.object.difficult),
            decimal(b.x0) + 1.0,
            decimal(b.y0) + 1.0,
            decimal(b.x1),
            decimal(b.y1)
        );
    }
    text.push_str("</annotation>\n");
    text
}
