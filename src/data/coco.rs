//! COCO annotation files: images, boxes `left, top, width, height`, groups (`iscrowd`), segmentations as run lengths.
//!
//! Category ids have gaps; a class is the rank of its id, and `Dataset::category_ids` keeps the ids. Boxes stay as
//! annotated, also where they stick out of the image.

pub use super::coco_results::{read_results, write_results};

use super::coco_json::{self, CocoFile, RawAnnotation, RawImage, Segmentation};
use super::coco_places::{dataset_name, folders_around, image_folder, split_of};
use super::dataset::{Dataset, Finding, ImageEntry, Severity, Source};
use super::error::DataError;
use super::findings::Findings;
use super::judge::judge_box;
use super::paths::{file_name, inside};
use crate::geometry::{Mask, Object};
use crate::imaging;
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Largest JSON file that is read, bytes. COCO's own training file has 450 MB.
pub(super) const MAX_JSON: u64 = 4 << 30;
/// `read_coco` keeps masks in files of up to so many segmentations: COCO's validation set, not its training set.
pub const MASK_LIMIT: usize = 60_000;

/// Which segmentations become masks; each costs decoding time and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Masks {
    Skip,
    /// All of them when the file has at most so many, none otherwise.
    UpTo(usize),
}

/// Reads a COCO annotation file with masks for up to [`MASK_LIMIT`] segmentations. `images` is the folder of the image
/// files; without it the usual places around `json` are tried.
///
/// Missing images and bad annotations are findings; images whose file is missing stay listed, because scoring somebody's
/// results needs no pixels.
///
/// # Errors
/// [`DataError::Read`], [`DataError::Json`] with line and column, [`DataError::Invalid`] for JSON of another kind,
/// [`DataError::Empty`].
pub fn read_coco(json: &Path, images: Option<&Path>) -> Result<Dataset, DataError> {
    read_coco_with(json, images, Masks::UpTo(MASK_LIMIT))
}

/// [`read_coco`] with a choice about masks.
///
/// # Errors
/// Those of [`read_coco`].
pub fn read_coco_with(json: &Path, images: Option<&Path>, masks: Masks) -> Result<Dataset, DataError> {
    let bytes = read_json(json, "the COCO file")?;
    let limit = match masks {
        Masks::Skip => 0,
        Masks::UpTo(limit) => limit,
    };
    let parsed = coco_json::parse(&bytes, limit);
    drop(bytes);
    let file = parsed.map_err(|source| DataError::Json { what: "COCO data set", path: json.to_path_buf(), source })?;
    if !file.has_images || !file.has_annotations {
        let message = "a COCO data set has the lists images, annotations and categories; not all are here".to_owned();
        return Err(DataError::Invalid { path: json.to_path_buf(), message });
    }
    if file.images.is_empty() {
        return Err(DataError::Empty {
            path: json.to_path_buf(),
            message: "the list of images has no entry".to_owned(),
        });
    }
    let mut reading = Reading { file: file_name(json), findings: Findings::default() };
    if file.segmentations_dropped && masks != Masks::Skip {
        let message = format!("more than {limit} segmentations; masks are left out, boxes are not");
        reading.remark(Severity::Info, "masks-left-out", message);
    }
    let (classes, category_ids) = reading.categories(&file);
    let class_of: HashMap<u64, u32> = category_ids.iter().copied().zip(0u32..).collect();
    let folder = reading.image_folder(json, images, &file.images);
    let (mut entries, index_of) = reading.images(&file.images, &folder);
    if entries.is_empty() {
        let message = format!("none of the {} images can be used", file.images.len());
        return Err(DataError::Empty { path: json.to_path_buf(), message });
    }
    let segmentations = reading.annotations(file.annotations, &mut entries, &index_of, &class_of);
    reading.masks(segmentations, &mut entries);
    let name = dataset_name(json);
    Ok(Dataset {
        split: split_of(json),
        classes,
        category_ids,
        images: entries,
        warnings: reading.findings.finish(&name),
        name,
    })
}

/// Bytes of a JSON file of bounded size.
pub(super) fn read_json(path: &Path, what: &'static str) -> Result<Vec<u8>, DataError> {
    let failed = |source: std::io::Error| DataError::Read { what, path: path.to_path_buf(), source };
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > MAX_JSON {
        let message = format!("{what} has {size} bytes; up to {MAX_JSON} are read");
        return Err(DataError::Invalid { path: path.to_path_buf(), message });
    }
    fs::read(path).map_err(failed)
}

/// A segmentation on its way to the mask of object `object` of image `image`.
struct PendingMask {
    image: usize,
    object: usize,
    id: u64,
    segmentation: Segmentation,
}

/// State while a file is judged.
struct Reading {
    /// The JSON file's name.
    file: String,
    findings: Findings,
}

impl Reading {
    fn remark(&mut self, severity: Severity, rule: &str, message: String) {
        self.findings.push(Finding::new(severity, rule, &self.file, message));
    }

    /// Class names and category ids in the order of the ids.
    fn categories(&mut self, file: &CocoFile) -> (Vec<String>, Vec<u64>) {
        let mut known: Vec<(u64, String)> = Vec::new();
        let mut seen: HashSet<u64> = HashSet::new();
        for category in &file.categories {
            match category.id {
                Some(id) if seen.insert(id) => {
                    let name = if category.name.is_empty() { format!("category {id}") } else { category.name.clone() };
                    known.push((id, name));
                }
                Some(id) => {
                    self.remark(
                        Severity::Warning,
                        "repeated-category",
                        format!("category id {id} stands twice; the first counts"),
                    );
                }
                None => {
                    let message = format!("category {:?} has no whole-number id; left out", category.name);
                    self.remark(Severity::Error, "broken-category", message);
                }
            }
        }
        known.sort();
        known.into_iter().map(|(id, name)| (name, id)).unzip()
    }

    /// The image folder, and whether any image was found in it.
    fn image_folder(&mut self, json: &Path, given: Option<&Path>, images: &[RawImage]) -> (PathBuf, bool) {
        let candidates = given.map_or_else(|| folders_around(json), |folder| vec![folder.to_path_buf()]);
        let names = images.iter().map(|image| image.file_name.as_str());
        if let Some(folder) = image_folder(&candidates, names) {
            return (folder, true);
        }
        let places: Vec<String> = candidates.iter().map(|folder| folder.display().to_string()).collect();
        let message = format!("the images are not found; looked in {}", places.join(", "));
        self.remark(Severity::Error, "no-image-folder", message);
        (candidates.into_iter().next().unwrap_or_default(), false)
    }

    /// Usable images, and the index of each image id; ids of refused images have none.
    fn images(
        &mut self,
        images: &[RawImage],
        folder: &(PathBuf, bool),
    ) -> (Vec<ImageEntry>, HashMap<u64, Option<usize>>) {
        let (folder, found) = folder;
        let present: Vec<bool> = images
            .par_iter()
            .map(|image| !found || inside(folder, &image.file_name).is_some_and(|path| path.is_file()))
            .collect();
        let mut entries = Vec::new();
        let mut index_of: HashMap<u64, Option<usize>> = HashMap::new();
        for (image, present) in images.iter().zip(present) {
            let Some(id) = image.id else {
                let message = format!("image {:?} has no whole-number id; left out", image.file_name);
                self.remark(Severity::Error, "broken-image", message);
                continue;
            };
            if index_of.contains_key(&id) {
                let message = format!("image id {id} stands twice; {:?} is left out", image.file_name);
                self.remark(Severity::Error, "repeated-image", message);
                continue;
            }
            let entry = self.image(id, image, folder, present);
            index_of.insert(id, entry.is_some().then_some(entries.len()));
            entries.extend(entry);
        }
        (entries, index_of)
    }

    fn image(&mut self, id: u64, image: &RawImage, folder: &Path, present: bool) -> Option<ImageEntry> {
        let name = &image.file_name;
        let Some(path) = inside(folder, name) else {
            let message = format!("image {id} has the file name {name:?}, which would leave its folder; left out");
            self.remark(Severity::Error, "path-escape", message);
            return None;
        };
        if !present {
            let message = format!("the file of image {id} is missing; training takes another image in its place");
            self.findings.push(Finding::new(Severity::Error, "missing-image", name, message));
        }
        let sides = 1..=imaging::decode::MAX_SIDE;
        let (mut width, mut height) = (image.width, image.height);
        if !sides.contains(&width) || !sides.contains(&height) {
            match imaging::size_of(&path) {
                Ok(size) => {
                    (width, height) = size;
                    let message = format!("image {id} has no usable size; {width} × {height} is taken from the file");
                    self.findings.push(Finding::new(Severity::Info, "missing-size", name, message));
                }
                Err(error) => {
                    let message = format!("image {id} has no usable size, nor has its file; left out: {error}");
                    self.findings.push(Finding::new(Severity::Error, "missing-size", name, message));
                    return None;
                }
            }
        }
        Some(ImageEntry { id, name: name.clone(), source: Source::File(path), width, height, objects: Vec::new() })
    }

    /// Gives each annotation to its image; returns the segmentations of those kept.
    fn annotations(
        &mut self,
        annotations: Vec<RawAnnotation>,
        entries: &mut [ImageEntry],
        index_of: &HashMap<u64, Option<usize>>,
        class_of: &HashMap<u64, u32>,
    ) -> Vec<PendingMask> {
        let mut pending = Vec::new();
        let mut ids: HashSet<u64> = HashSet::new();
        for (position, annotation) in annotations.into_iter().enumerate() {
            let id = annotation.id;
            let who = || match id {
                0 => format!("annotation without id, number {} of the list,", position + 1),
                id => format!("annotation {id}"),
            };
            if annotation.id != 0 && !ids.insert(annotation.id) {
                self.remark(
                    Severity::Warning,
                    "repeated-annotation",
                    format!("{} stands more than once; all are kept", who()),
                );
            }
            let image = match annotation.image_id.and_then(|id| index_of.get(&id)) {
                Some(Some(image)) => *image,
                // The image was refused, which is on the list already.
                Some(None) => continue,
                None => {
                    let message = format!("{} belongs to no image of the list; left out", who());
                    self.remark(Severity::Error, "unknown-image", message);
                    continue;
                }
            };
            let Some(&class) = annotation.category_id.and_then(|id| class_of.get(&id)) else {
                let message = format!("{} has a category that is not on the list; left out", who());
                self.remark(Severity::Error, "unknown-category", message);
                continue;
            };
            let Some(entry) = entries.get_mut(image) else { continue };
            match judge_box(annotation.bbox, entry.width, entry.height) {
                Ok((bbox, beyond)) => {
                    let index = entry.objects.len();
                    if beyond {
                        let message = format!("{} leaves the image; training cuts its box at the image's edge", who());
                        let finding = Finding::new(Severity::Warning, "outside-box", &entry.name, message);
                        self.findings.push(finding.of_object(index));
                    }
                    entry.objects.push(Object {
                        id: annotation.id,
                        bbox,
                        class,
                        crowd: annotation.crowd,
                        difficult: false,
                        truncated: false,
                        occluded: false,
                        area: annotation.area.map(|area| area as f32),
                        mask: None,
                    });
                    if let Some(segmentation) = annotation.segmentation {
                        pending.push(PendingMask { image, object: index, id: annotation.id, segmentation });
                    }
                }
                Err((rule, fault)) => {
                    let message = format!("{} {fault}; left out of training and evaluation", who());
                    self.findings.push(Finding::new(Severity::Warning, rule, &entry.name, message));
                }
            }
        }
        pending
    }

    /// Turns segmentations into masks, in parallel.
    fn masks(&mut self, pending: Vec<PendingMask>, entries: &mut [ImageEntry]) {
        let sizes: Vec<(u32, u32)> = entries.iter().map(|entry| (entry.height, entry.width)).collect();
        let made: Vec<Result<Mask, String>> = pending
            .par_iter()
            .map(|item| match sizes.get(item.image) {
                Some(&(height, width)) => to_mask(&item.segmentation, height, width),
                None => Err("its image is missing".to_owned()),
            })
            .collect();
        for (item, made) in pending.iter().zip(made) {
            let Some(entry) = entries.get_mut(item.image) else {
                continue;
            };
            match made {
                Ok(mask) => {
                    if let Some(object) = entry.objects.get_mut(item.object) {
                        object.mask = Some(mask);
                    }
                }
                Err(fault) => {
                    let message = format!("annotation {}: no mask, its box is kept: {fault}", item.id);
                    let finding = Finding::new(Severity::Warning, "broken-mask", &entry.name, message);
                    self.findings.push(finding.of_object(item.object));
                }
            }
        }
    }
}

/// A mask of `height × width` pixels, which every form must agree with.
pub(super) fn to_mask(segmentation: &Segmentation, height: u32, width: u32) -> Result<Mask, String> {
    let same_size = |h: u32, w: u32| -> Result<(), String> {
        if (h, w) == (height, width) {
            return Ok(());
        }
        Err(format!("the mask is for {w} × {h} pixels, the image has {width} × {height}"))
    };
    let mask = match segmentation {
        Segmentation::Broken => return Err("the segmentation is not understood".to_owned()),
        Segmentation::Polygons(polygons) => Mask::from_polygons(polygons, height, width),
        Segmentation::Compressed { height: h, width: w, counts } => {
            same_size(*h, *w)?;
            Mask::from_coco_string(counts, height, width)
        }
        Segmentation::Runs { height: h, width: w, counts } => {
            same_size(*h, *w)?;
            Mask::from_counts(height, width, counts.clone())
        }
    };
    mask.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_must_fit_their_image() {
        let square = Segmentation::Polygons(vec![vec![1.0, 1.0, 4.0, 1.0, 4.0, 3.0, 1.0, 3.0]]);
        let mask = to_mask(&square, 5, 8).unwrap();
        assert_eq!((mask.height, mask.width, mask.area()), (5, 8, 6));
        let far = Segmentation::Polygons(vec![vec![0.0, 0.0, 1e9, 0.0, 0.0, 3.0]]);
        assert!(to_mask(&far, 5, 8).is_err());
        let runs = |counts: Vec<u32>| Segmentation::Runs { height: 2, width: 3, counts };
        assert_eq!(to_mask(&runs(vec![1, 2, 3]), 2, 3).unwrap().counts, [1, 2, 3]);
        assert!(to_mask(&runs(vec![1, 2, 4]), 2, 3).is_err(), "7 pixels in a mask of 6");
        assert!(to_mask(&runs(vec![6]), 3, 2).unwrap_err().contains("2 × 3"));
        let long = Segmentation::Compressed { height: 2, width: 3, counts: "~~~~~~~~~~~~~~~~~~".to_owned() };
        assert!(to_mask(&long, 2, 3).is_err());
    }
}
