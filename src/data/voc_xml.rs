//! One Pascal VOC annotation file: what it says about an image, numbers as written (1-based, inclusive).
//!
//! The reader looks at nothing but the paths it knows, so `part` boxes inside an object and foreign elements do no harm.
//! External entities are never resolved.

use super::error::DataError;
use super::text::{number, pixels};
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::Event;
use quick_xml::reader::Reader;
use std::path::Path;

/// Deeper nesting is no annotation.
const MAX_DEPTH: usize = 32;
/// Longest text of one element that is read, bytes.
const MAX_TEXT: usize = 4096;

/// One `<object>` as written; what is absent or no number is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct VocObject {
    pub(super) name: String,
    pub(super) difficult: bool,
    pub(super) truncated: bool,
    pub(super) occluded: bool,
    /// xmin, ymin, xmax, ymax.
    pub(super) corners: [Option<f64>; 4],
}

/// One annotation file as written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct VocAnnotation {
    pub(super) filename: String,
    /// 0 where absent or no number.
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) objects: Vec<VocObject>,
}

/// Reads the text of an annotation file; `path` is for errors.
///
/// # Errors
/// [`DataError::Xml`] with the byte where the text stops being well-formed, or when it is no `<annotation>`.
pub(super) fn parse(text: &str, path: &Path) -> Result<VocAnnotation, DataError> {
    let fail = |position: u64, message: String| DataError::Xml { path: path.to_path_buf(), position, message };
    let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}'));
    let mut annotation = VocAnnotation::default();
    let mut open: Vec<String> = Vec::new();
    let mut content = String::new();
    let mut seen_root = false;
    loop {
        let event = reader.read_event().map_err(|error| fail(reader.error_position(), error.to_string()))?;
        let position = reader.buffer_position();
        match event {
            Event::Start(element) => {
                let name = element.name().0.to_owned();
                start(&name, &open, &mut annotation, &mut seen_root).map_err(|message| fail(position, message))?;
                if open.len() >= MAX_DEPTH {
                    return Err(fail(position, format!("elements are nested deeper than {MAX_DEPTH}")));
                }
                open.push(name);
                content.clear();
            }
            Event::Empty(element) => {
                let name = element.name().0.to_owned();
                start(&name, &open, &mut annotation, &mut seen_root).map_err(|message| fail(position, message))?;
            }
            Event::Text(part) => append(&mut content, &part.xml10_content()),
            Event::CData(part) => append(&mut content, &part.xml10_content()),
            Event::GeneralRef(reference) => {
                let character = reference.resolve_char_ref().map_err(|error| fail(position, error.to_string()))?;
                match (character, resolve_xml_entity(&reference)) {
                    (Some(character), _) => append(&mut content, character.encode_utf8(&mut [0; 4])),
                    (None, Some(text)) => append(&mut content, text),
                    (None, None) => return Err(fail(position, format!("unknown entity &{};", &*reference))),
                }
            }
            Event::End(_) => {
                finish(&open, content.trim(), &mut annotation);
                open.pop();
                content.clear();
            }
            Event::Eof => break,
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
    let end = reader.buffer_position();
    match open.last() {
        Some(name) => Err(fail(end, format!("the file ends inside <{name}>"))),
        None if !seen_root => Err(fail(end, "there is no <annotation> element".to_owned())),
        None => Ok(annotation),
    }
}

fn append(content: &mut String, text: &str) {
    if content.len() + text.len() <= MAX_TEXT {
        content.push_str(text);
    }
}

/// An element begins below `open`.
fn start(name: &str, open: &[String], annotation: &mut VocAnnotation, seen_root: &mut bool) -> Result<(), String> {
    if open.is_empty() {
        if name != "annotation" {
            return Err(format!("the outermost element is <{name}>, not <annotation>"));
        }
        *seen_root = true;
    } else if open.len() == 1 && name == "object" {
        annotation.objects.push(VocObject::default());
    }
    Ok(())
}

/// The innermost element of `open` ends; `text` is its content.
fn finish(open: &[String], text: &str, annotation: &mut VocAnnotation) {
    let path: Vec<&str> = open.iter().skip(1).map(String::as_str).collect();
    match path.as_slice() {
        ["filename"] => annotation.filename = text.to_owned(),
        ["size", "width"] => annotation.width = pixels(text),
        ["size", "height"] => annotation.height = pixels(text),
        ["object", field @ ..] => {
            if let Some(object) = annotation.objects.last_mut() {
                set(object, field, text);
            }
        }
        _ => {}
    }
}

/// A flag as it is found in the wild.
fn is_set(text: &str) -> bool {
    !matches!(text, "" | "0" | "false" | "False")
}

fn set(object: &mut VocObject, field: &[&str], text: &str) {
    match field {
        ["name"] => object.name = text.to_owned(),
        ["difficult"] => object.difficult = is_set(text),
        ["truncated"] => object.truncated = is_set(text),
        ["occluded"] => object.occluded = is_set(text),
        ["bndbox", "xmin"] => object.corners[0] = number(text),
        ["bndbox", "ymin"] => object.corners[1] = number(text),
        ["bndbox", "xmax"] => object.corners[2] = number(text),
        ["bndbox", "ymax"] => object.corners[3] = number(text),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<VocAnnotation, DataError> {
        parse(text, Path::new("a.xml"))
    }

    #[test]
    fn a_person_with_parts_keeps_its_own_box() {
        let annotation = read(
            "\u{feff}<?xml version=\"1.0\"?><!-- made by hand -->
            <annotation><filename>a &amp; b.jpg</filename><size><width>500.0</width><height>333</height></size>
            <object><name>person</name><difficult>1</difficult>
              <bndbox><xmin>1</xmin><ymin>2.5</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>
              <part><name>head</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>10</xmax><ymax>10</ymax></bndbox></part>
            </object>
            <object><name><![CDATA[d&g]]></name><difficult/><bndbox><xmin>x</xmin><xmax>nan</xmax></bndbox></object>
            </annotation>",
        )
        .unwrap();
        assert_eq!((annotation.width, annotation.height), (500, 333));
        assert_eq!(annotation.filename, "a & b.jpg");
        assert_eq!(annotation.objects.len(), 2);
        assert_eq!(annotation.objects[0].corners, [Some(1.0), Some(2.5), Some(30.0), Some(40.0)]);
        assert!(annotation.objects[0].difficult && annotation.objects[0].name == "person");
        assert_eq!(annotation.objects[1].corners, [None; 4]);
        assert!(!annotation.objects[1].difficult && annotation.objects[1].name == "d&g");
    }

    #[test]
    fn broken_files_are_errors_with_a_place() {
        let cases = [
            ("", "no <annotation>"),
            ("<annotation><object>", "ends inside <object>"),
            ("<annotation></object></annotation>", "object"),
            ("<annotation><a></annotation></a>", "a"),
            ("<html></html>", "outermost element is <html>"),
            ("<annotation>&unknown;</annotation>", "unknown entity &unknown;"),
            ("<annotation><object", ""),
        ];
        for (text, part) in cases {
            let error = read(text).expect_err(text);
            assert!(matches!(error, DataError::Xml { .. }), "{text}");
            assert!(error.to_string().contains(part) && error.to_string().ends_with(": a.xml"), "{error}");
        }
        let deep = "<annotation>".repeat(100);
        assert!(read(&deep).unwrap_err().to_string().contains("nested deeper"));
    }

    #[test]
    fn huge_numbers_are_no_sizes() {
        for side in ["-5", "0", "1e99", "inf", "many", ""] {
            let text = format!("<annotation><size><width>{side}</width></size></annotation>");
            assert_eq!(read(&text).unwrap().width, 0, "{side}");
        }
    }
}
