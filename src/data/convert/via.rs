//! Writes VIA: `{split}.json`, a project of version 2 with the class as region attribute.

use super::decimals::{decimal, extent};
use super::files::write_json;
use super::outline::outline;
use super::part::{Part, Written};
use crate::data::error::DataError;
use crate::data::via::{CROWD, DIFFICULT};
use serde_json::{Map, Value, json};
use std::path::Path;

/// The region attribute that holds the class.
const CLASS: &str = "class";

pub(super) fn write(parts: &[Part<'_>], out: &Path) -> Result<(), DataError> {
    for part in parts {
        write_json(&out.join(format!("{}.json", part.split)), "the VIA file", &project(part))?;
    }
    Ok(())
}

fn project(part: &Part<'_>) -> Value {
    let mut metadata = Map::new();
    let mut order = Vec::new();
    for (image, name) in part.images() {
        let regions: Vec<Value> = part.objects(image).map(|written| region(&written)).collect();
        // VIA's key is the name and the file's size, or −1 for a size that is not told.
        let key = format!("{name}-1");
        let entry = json!({ "filename": name, "size": -1, "regions": regions, "file_attributes": {} });
        metadata.insert(key.clone(), entry);
        order.push(Value::from(key));
    }
    // The number of each class tells their order, for the options of a map have none.
    let options: Map<String, Value> =
        part.dataset.classes.iter().enumerate().map(|(k, name)| (name.clone(), k.to_string().into())).collect();
    let text = |description: &str| json!({ "type": "text", "description": description, "default_value": "" });
    json!({
        "_via_settings": {
            "core": { "default_filepath": format!("{}/", part.image_folder()), "filepath": {} },
            "project": { "name": part.dataset.name },
        },
        "_via_img_metadata": metadata,
        "_via_attributes": {
            "region": {
                CLASS: { "type": "dropdown", "description": "", "options": options, "default_options": {} },
                CROWD: text("1 for a group of objects"),
                DIFFICULT: text("1 for an object that is hard to make out"),
            },
            "file": {},
        },
        "_via_data_format_version": "2.0.10",
        "_via_image_id_list": order,
    })
}

fn region(written: &Written<'_>) -> Value {
    let b = written.object.bbox;
    let shape = match written.mask {
        Some(mask) => {
            let (xs, ys): (Vec<u32>, Vec<u32>) = outline(mask).iter().map(|[x, y]| (*x, *y)).unzip();
            json!({ "name": "polygon", "all_points_x": xs, "all_points_y": ys })
        }
        None => json!({
            "name": "rect", "x": decimal(b.x0), "y": decimal(b.y0),
            "width": extent(b.x0, b.x1), "height": extent(b.y0, b.y1),
        }),
    };
    let mut attributes = Map::new();
    attributes.insert(CLASS.to_owned(), written.class.into());
    for (name, set) in [(CROWD, written.object.crowd), (DIFFICULT, written.object.difficult)] {
        if set {
            attributes.insert(name.to_owned(), "1".into());
        }
    }
    json!({ "shape_attributes": shape, "region_attributes": attributes })
}
