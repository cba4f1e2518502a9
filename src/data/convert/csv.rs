//! Writes CSV: `{split}.csv` with `filename,width,height,class,xmin,ymin,xmax,ymax`, and `classes.csv` (`name,number`).

use super::decimals::decimal;
use super::files::write_text;
use super::part::Part;
use crate::data::csv::CLASS_FILE;
use crate::data::csv_text::field;
use crate::data::error::DataError;
use std::path::Path;

pub(super) fn write(parts: &[Part<'_>], out: &Path) -> Result<(), DataError> {
    for part in parts {
        // A split of that name would be taken for the list of classes.
        let name = if part.split == "classes" { "classes_" } else { part.split.as_str() };
        write_text(&out.join(format!("{name}.csv")), "the CSV file", &table(part))?;
    }
    let classes = parts.first().map(|part| part.dataset.classes.as_slice()).unwrap_or_default();
    let list: String = classes.iter().enumerate().map(|(class, name)| format!("{},{class}\n", field(name))).collect();
    write_text(&out.join(CLASS_FILE), "the list of classes", &list)
}

fn table(part: &Part<'_>) -> String {
    let mut text = "filename,width,height,class,xmin,ymin,xmax,ymax\n".to_owned();
    for (image, name) in part.images() {
        let start = format!("{},{},{}", field(name), image.width, image.height);
        let mut written = 0;
        for object in part.objects(image) {
            let b = object.object.bbox;
            let [x0, y0, x1, y1] = [b.x0, b.y0, b.x1, b.y1].map(decimal);
            text.push_str(&format!("{start},{},{x0},{y0},{x1},{y1}\n", field(object.class)));
            written += 1;
        }
        if written == 0 {
            text.push_str(&format!("{start},,,,,\n"));
        }
    }
    text
}
