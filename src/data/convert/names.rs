//! File names for images that every system takes, unique within a folder also without their endings.

use super::Format;
use super::part::stem;
use crate::data::dataset::{ImageEntry, Source};
use crate::data::paths::inside;
use crate::imaging::is_image_path;
use std::collections::HashMap;
use std::path::Path;

/// Folders in folders that are kept; readers do not look much deeper.
const MAX_PARTS: usize = 4;
/// Characters that some system forbids in file names.
const FORBIDDEN: [char; 8] = ['<', '>', ':', '"', '|', '?', '*', '\\'];

/// Names given so far.
pub(super) struct Names {
    /// Formats that know images by a bare name.
    flat: bool,
    /// Stems that are taken, with how many namesakes they have; small letters, for some systems do not tell them apart.
    taken: HashMap<String, usize>,
    /// Names by where the pixels come from: an image in two splits is one file.
    of_source: HashMap<String, String>,
}

impl Names {
    pub(super) fn new(format: Format) -> Self {
        let flat = matches!(format, Format::Voc | Format::Openimages);
        Self { flat, taken: HashMap::new(), of_source: HashMap::new() }
    }

    /// The name of `image`, number `rank` of its split: its own where that can be.
    pub(super) fn of(&mut self, image: &ImageEntry, rank: usize) -> String {
        let source = match &image.source {
            Source::File(path) => path.to_string_lossy().into_owned(),
            Source::Shapes { seed, index } => format!("\0{seed} {index} {} {}", image.width, image.height),
        };
        if let Some(name) = self.of_source.get(&source) {
            return name.clone();
        }
        let wanted = file_name(image, rank, self.flat);
        let (first, ending) = wanted.split_at(stem(&wanted).len());
        let mut name = wanted.clone();
        while self.taken.contains_key(&stem(&name).to_lowercase()) {
            // The first of the name counts, so that a thousand namesakes are not tried a thousand times each.
            let number = self.taken.entry(first.to_lowercase()).or_insert(1);
            *number += 1;
            name = format!("{first}-{number}{ending}");
        }
        self.taken.insert(stem(&name).to_lowercase(), 1);
        self.of_source.insert(source, name.clone());
        name
    }
}

fn file_name(image: &ImageEntry, rank: usize, flat: bool) -> String {
    let safe = inside(Path::new(""), &image.name);
    let mut parts: Vec<String> =
        safe.iter().flat_map(|path| path.iter()).map(|part| clean(&part.to_string_lossy())).collect();
    if parts.is_empty() {
        parts.push(format!("image-{:06}", rank + 1));
    }
    let name = parts.join(if flat || parts.len() > MAX_PARTS { "_" } else { "/" });
    if is_image_path(Path::new(&name)) {
        return name;
    }
    let ending = match &image.source {
        Source::File(path) if is_image_path(path) => path.extension().map(|e| e.to_string_lossy().into_owned()),
        _ => None,
    };
    format!("{name}.{}", ending.unwrap_or_else(|| "png".to_owned()))
}

/// One part of a path as every system takes it; not hidden, for hidden files are passed over.
fn clean(part: &str) -> String {
    let allowed = |c: char| if c.is_control() || FORBIDDEN.contains(&c) { '_' } else { c };
    let name: String = part.trim().chars().map(allowed).collect();
    match name.strip_prefix('.') {
        Some(rest) => format!("_{rest}"),
        None if name.is_empty() => "_".to_owned(),
        None => name,
    }
}

/// A split's name that files can have.
pub(super) fn split_name(split: &str) -> String {
    let name = clean(&split.replace('/', "_"));
    if split.trim().is_empty() { "all".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn image(name: &str) -> ImageEntry {
        let source = Source::File(PathBuf::from(format!("set/{name}.jpeg")));
        ImageEntry { id: 1, name: name.to_owned(), source, width: 1, height: 1, objects: Vec::new() }
    }

    #[test]
    fn names_stay_where_they_can() {
        let mut names = Names::new(Format::Coco);
        let wanted =
            ["a b.png", "sub/猫.jpg", "A B.jpg", "a b-2.png", "a b.gif", "../x.png", "..\\x.png", "c:d?.png", "plain"];
        let given: Vec<String> = wanted.iter().enumerate().map(|(rank, name)| names.of(&image(name), rank)).collect();
        assert_eq!(given[..3], ["a b.png", "sub/猫.jpg", "A B-2.jpg"]);
        assert_eq!(given[5..], ["image-000006.jpeg", "image-000007.jpeg", "c_d_.png", "plain.jpeg"].map(str::to_owned));
        let mut stems: Vec<String> = given.iter().map(|name| stem(name).to_lowercase()).collect();
        stems.sort();
        stems.dedup();
        assert_eq!(stems.len(), wanted.len(), "{given:?}");
        assert_eq!(names.of(&image("a b.png"), 9), "a b.png", "the same file again");
        let mut flat = Names::new(Format::Voc);
        assert_eq!(flat.of(&image("sub/.a.png"), 0), "sub__a.png");
        assert_eq!([split_name("train/1"), split_name(""), split_name(".x")], ["train_1", "all", "_x"]);
    }

    #[test]
    fn a_thousand_namesakes_are_quick() {
        let mut names = Names::new(Format::Yolo);
        let namesake = |k: usize| ImageEntry { source: Source::Shapes { seed: 1, index: k as u64 }, ..image("a.png") };
        let mut given: Vec<String> = (0..5000).map(|k| names.of(&namesake(k), k)).collect();
        given.sort();
        given.dedup();
        assert_eq!(given.len(), 5000);
    }
}
