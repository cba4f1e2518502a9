//! Which column of a CSV file says what: by a known header, by a known form without one, or as somebody tells.

use super::csv_text::Record;
use super::text::number;
use std::fmt;
use std::str::FromStr;

/// What a column can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Path,
    X0,
    Y0,
    X1,
    Y1,
    BoxWidth,
    BoxHeight,
    Class,
    Width,
    Height,
}

/// Every field with the key of `--columns` and the header names that mean it, small letters.
static FIELDS: [(Field, &str, &[&str]); 10] = [
    (Field::Path, "path", &["filename", "file_name", "path", "image", "image_path", "img_path", "file", "image_name"]),
    (Field::X0, "x0", &["xmin", "x_min", "x0", "left", "bbox_x", "x"]),
    (Field::Y0, "y0", &["ymin", "y_min", "y0", "top", "bbox_y", "y"]),
    (Field::X1, "x1", &["xmax", "x_max", "right", "x2"]),
    (Field::Y1, "y1", &["ymax", "y_max", "bottom", "y2"]),
    (Field::BoxWidth, "w", &["w", "bbox_width", "box_width", "bbox_w"]),
    (Field::BoxHeight, "h", &["h", "bbox_height", "box_height", "bbox_h"]),
    (Field::Class, "class", &["class", "label", "class_name", "label_name", "name", "category"]),
    (Field::Width, "width", &["width", "image_width", "img_width"]),
    (Field::Height, "height", &["height", "image_height", "img_height"]),
];
/// Columns beyond this one are a slip of the pen.
const MAX_COLUMN: usize = 1023;

/// A column by its place, counted from 0, or by its name in the header.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Column {
    Index(usize),
    Name(String),
}

/// A mapping of columns: `path=0,x0=1,y0=2,x1=3,y1=4,class=5`, with header names in place of numbers where there is a
/// header, and `w`, `h` in place of `x1`, `y1` for boxes given by their size. `class`, `width` and `height` (of the
/// image) may be left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvColumns {
    columns: Vec<(Field, Column)>,
}

/// Why a mapping of columns is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("columns: {0}; write them as path=0,x0=1,y0=2,x1=3,y1=4,class=5 (or w, h for x1, y1; or names of the header)")]
pub struct ColumnsError(String);

impl FromStr for CsvColumns {
    type Err = ColumnsError;

    fn from_str(text: &str) -> Result<Self, ColumnsError> {
        let mut columns: Vec<(Field, Column)> = Vec::new();
        for pair in text.split(',') {
            let Some((key, value)) = pair.split_once('=').map(|(key, value)| (key.trim(), value.trim())) else {
                return Err(ColumnsError(format!("{pair:?} is no pair")));
            };
            let known = FIELDS.iter().find(|(_, known, _)| *known == key);
            let Some(field) = known.map(|(field, ..)| *field) else {
                let keys: Vec<&str> = FIELDS.iter().map(|(_, key, _)| *key).collect();
                return Err(ColumnsError(format!("{key:?} is none of {}", keys.join(", "))));
            };
            if columns.iter().any(|(other, _)| *other == field) {
                return Err(ColumnsError(format!("{key} is given twice")));
            }
            let column = match value.parse::<usize>() {
                Ok(index) if index <= MAX_COLUMN => Column::Index(index),
                Ok(_) => return Err(ColumnsError(format!("{key} is beyond column {MAX_COLUMN}"))),
                Err(_) if value.is_empty() => return Err(ColumnsError(format!("{key} has no column"))),
                Err(_) => Column::Name(value.to_owned()),
            };
            columns.push((field, column));
        }
        let columns = Self { columns };
        let has = |field: Field| columns.columns.iter().any(|(known, _)| *known == field);
        let ends = has(Field::X1) && has(Field::Y1) || has(Field::BoxWidth) && has(Field::BoxHeight);
        if !(has(Field::Path) && has(Field::X0) && has(Field::Y0)) {
            return Err(ColumnsError("path, x0 and y0 are needed".to_owned()));
        }
        if !ends {
            return Err(ColumnsError("x1 and y1, or w and h, are needed".to_owned()));
        }
        Ok(columns)
    }
}

impl fmt::Display for CsvColumns {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (field, column)) in self.columns.iter().enumerate() {
            let key = FIELDS.iter().find(|(known, ..)| known == field).map_or("", |(_, key, _)| *key);
            let comma = if at == 0 { "" } else { "," };
            match column {
                Column::Index(index) => write!(formatter, "{comma}{key}={index}")?,
                Column::Name(name) => write!(formatter, "{comma}{key}={name}")?,
            }
        }
        Ok(())
    }
}

/// The columns of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    columns: Vec<(Field, usize)>,
    /// The first record names the columns.
    pub(super) header: bool,
}

impl Layout {
    /// What the file's first record tells; none when it is neither a known header nor a known form. `given` overrides
    /// both.
    ///
    /// # Errors
    /// A name that is not in the header.
    pub(super) fn of(first: &Record<'_>, given: Option<&CsvColumns>) -> Result<Option<Self>, String> {
        match given {
            Some(given) => Self::given(first, given).map(Some),
            None => Ok(Self::of_header(first).or_else(|| Self::without_header(first))),
        }
    }

    fn given(first: &Record<'_>, given: &CsvColumns) -> Result<Self, String> {
        let mut columns = Vec::new();
        let mut named = false;
        for (field, column) in &given.columns {
            let index = match column {
                Column::Index(index) => *index,
                Column::Name(name) => {
                    named = true;
                    let at = first.fields.iter().position(|field| field.eq_ignore_ascii_case(name));
                    at.ok_or_else(|| format!("no column {name:?}; the columns are {}", first.fields.join(", ")))?
                }
            };
            columns.push((*field, index));
        }
        let mut layout = Self { columns, header: named };
        if !named {
            // A header is a first record whose corner is a word.
            let corner = layout.text(first, Field::X0);
            layout.header = !corner.is_empty() && number(corner).is_none();
        }
        Ok(layout)
    }

    fn of_header(first: &Record<'_>) -> Option<Self> {
        let names: Vec<String> = first.fields.iter().map(|field| field.to_ascii_lowercase()).collect();
        let position = |wanted: &[&str]| wanted.iter().find_map(|name| names.iter().position(|known| known == name));
        let mut columns: Vec<(Field, usize)> = Vec::new();
        for (field, _, spellings) in FIELDS {
            // Where corners are numbered 1 and 2, x1 is the left one, else the right one.
            let numbered_from_1 = names.iter().any(|name| name == "x2");
            let found = match field {
                Field::X0 if numbered_from_1 => position(&["x1"]),
                Field::Y0 if numbered_from_1 => position(&["y1"]),
                Field::X1 if !numbered_from_1 => position(spellings).or_else(|| position(&["x1"])),
                Field::Y1 if !numbered_from_1 => position(spellings).or_else(|| position(&["y1"])),
                _ => position(spellings),
            };
            columns.extend(found.map(|index| (field, index)));
        }
        let layout = Self { columns, header: true };
        let has = |field: Field| layout.index(field).is_some();
        let size = has(Field::BoxWidth) && has(Field::BoxHeight);
        let corner = has(Field::X1) && has(Field::Y1);
        let usable = has(Field::Path) && has(Field::X0) && has(Field::Y0) && (corner || size) && has(Field::Class);
        usable.then_some(layout)
    }

    /// `path,x1,y1,x2,y2,class`; the last five are empty for an image without objects.
    fn without_header(first: &Record<'_>) -> Option<Self> {
        let [path, corners @ .., class] = first.fields.as_slice() else { return None };
        let empty = class.is_empty() && corners.iter().all(|corner| corner.is_empty());
        let boxed = !class.is_empty() && corners.iter().all(|corner| number(corner).is_some());
        if path.is_empty() || corners.len() != 4 || !(empty || boxed) {
            return None;
        }
        let order = [Field::Path, Field::X0, Field::Y0, Field::X1, Field::Y1, Field::Class];
        Some(Self { columns: order.into_iter().zip(0..).collect(), header: false })
    }

    fn index(&self, wanted: Field) -> Option<usize> {
        self.columns.iter().find(|(field, _)| *field == wanted).map(|(_, index)| *index)
    }

    /// The text of a field; empty where the file has no such column.
    pub(super) fn text<'r>(&self, record: &'r Record<'_>, wanted: Field) -> &'r str {
        self.index(wanted).map_or("", |index| record.field(index))
    }

    /// Whether the file has a column of that kind.
    pub(super) fn has(&self, wanted: Field) -> bool {
        self.index(wanted).is_some()
    }

    /// The box of a record: nothing for an image without objects, an error for anything but four numbers.
    pub(super) fn corners(&self, record: &Record<'_>) -> Result<Option<[f64; 4]>, &'static str> {
        let by_size = self.index(Field::X1).is_none();
        let last = if by_size { [Field::BoxWidth, Field::BoxHeight] } else { [Field::X1, Field::Y1] };
        let texts = [Field::X0, Field::Y0, last[0], last[1]].map(|field| self.text(record, field));
        if texts.iter().all(|text| text.is_empty()) {
            return Ok(None);
        }
        let [Some(x0), Some(y0), Some(x1), Some(y1)] = texts.map(number) else {
            return Err("has a box without its four numbers");
        };
        Ok(Some(if by_size { [x0, y0, x0 + x1, y0 + y1] } else { [x0, y0, x1, y1] }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::csv_text::Records;
    use super::*;

    fn first(text: &str) -> Record<'_> {
        Records::new(text).next().unwrap().unwrap()
    }

    fn known(text: &str) -> Option<Layout> {
        Layout::of(&first(text), None).unwrap()
    }

    #[test]
    fn known_forms_are_recognised() {
        let header = known("filename,width,height,class,xmin,ymin,xmax,ymax").unwrap();
        let record = first("a.png,20,10,dog,1,2.5,3,4");
        assert_eq!(header.corners(&record), Ok(Some([1.0, 2.5, 3.0, 4.0])));
        assert_eq!(
            [Field::Path, Field::Class, Field::Width].map(|field| header.text(&record, field)),
            ["a.png", "dog", "20"]
        );
        assert_eq!(header.corners(&first("a.png,20,10,,,,,")), Ok(None));
        assert!(header.corners(&first("a.png,20,10,dog,1,2,x,4")).is_err());
        let numbered = known("Image,x1,y1,x2,y2,Label").unwrap();
        assert_eq!(numbered.corners(&first("a,1,2,3,4,dog")), Ok(Some([1.0, 2.0, 3.0, 4.0])));
        let sized =
            known("label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height").unwrap();
        assert_eq!(sized.corners(&first("dog,1,2,3,4,a.png,20,10")), Ok(Some([1.0, 2.0, 4.0, 6.0])));
        let bare = known("a b.png,1,2,3,4,dog").unwrap();
        assert!(!bare.header && bare.corners(&first("a.png,,,,,")) == Ok(None));
        assert!(known("a.png,,,,,").is_some());
        for text in ["a,b", "a.png,1,2,3,four,dog", "id,name,age,x,y,z", ",1,2,3,4,dog", "a.png,1,2,3,4,"] {
            assert_eq!(known(text), None, "{text}");
        }
    }

    #[test]
    fn columns_are_told_by_number_or_by_name() {
        let columns: CsvColumns = "path=5,x0=1,y0=2,w=3,h=4".parse().unwrap();
        assert_eq!(columns.to_string(), "path=5,x0=1,y0=2,w=3,h=4");
        let layout = Layout::of(&first("7,1,2,3,4,a.png"), Some(&columns)).unwrap().unwrap();
        assert_eq!((layout.header, layout.corners(&first("7,1,2,3,4,a.png"))), (false, Ok(Some([1.0, 2.0, 4.0, 6.0]))));
        assert!(Layout::of(&first("id,left,top,wide,high,file"), Some(&columns)).unwrap().unwrap().header);
        let named: CsvColumns = "path=file,x0=left,y0=top,x1=right,y1=bottom,class=kind".parse().unwrap();
        let layout = Layout::of(&first("kind,Left,top,right,bottom,file"), Some(&named)).unwrap().unwrap();
        assert_eq!(layout.text(&first("dog,1,2,3,4,a.png"), Field::Path), "a.png");
        let error = Layout::of(&first("a,b,c"), Some(&named)).unwrap_err();
        assert!(error.contains("a, b, c"), "{error}");
        for text in ["", "path", "path=0", "path=0,x0=1,y0=2,x1=3", "path=0,path=1", "where=0", "path=99999", "path="] {
            assert!(text.parse::<CsvColumns>().is_err(), "{text}");
        }
    }
}
