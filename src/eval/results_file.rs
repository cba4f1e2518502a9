//! A results file brought onto the images of its ground truth, in the file's order.
//!
//! Large files are read and placed in parts at the same time; parts come together in their order, so that the number of
//! threads changes nothing.

use super::coco_json::{JsonResult, Segmentation, four, parse, to_mask};
use super::files::{Collected, EvalError};
use super::json_scan::{Scanned, scan, split};
use super::{IouType, ResultBox};
use rayon::prelude::*;
use std::path::Path;

/// Bytes of a part: enough to be worth a task, few enough to share out evenly.
const PART: usize = 1 << 20;

/// The results of a file, not yet judged.
pub enum ResultList<'a> {
    /// By the fast reader, in parts.
    Scanned(Vec<Vec<Scanned<'a>>>),
    /// By the general reader.
    Read(Vec<JsonResult>),
}

/// What masks a result has.
enum Outlined<'a> {
    Text(&'a [u8]),
    Read(&'a Segmentation),
}

/// One result.
struct Listed<'a> {
    /// In the list, from 1.
    position: usize,
    image_id: u64,
    category_id: u64,
    bbox: Option<[f64; 4]>,
    score: f64,
    segmentation: Option<Outlined<'a>>,
}

/// A result and the position of its image.
type Placed = (u32, ResultBox);

impl<'a> ResultList<'a> {
    /// Reads the text of a file; `path` is for messages.
    ///
    /// # Errors
    /// [`EvalError::Json`].
    pub fn read(path: &Path, text: &'a [u8]) -> Result<Self, EvalError> {
        let scanned: Option<Vec<Vec<Scanned<'a>>>> =
            split(text, PART).and_then(|parts| parts.into_par_iter().map(scan).collect());
        match scanned {
            Some(parts) => Ok(Self::Scanned(parts)),
            None => parse("results", path, text).map(Self::Read),
        }
    }

    /// Whether the first result has a box. As in pycocotools, all of them are then taken to have one.
    fn has_boxes(&self) -> bool {
        match self {
            Self::Scanned(parts) => parts.iter().flatten().next().is_some_and(|first| first.bbox.is_some()),
            Self::Read(list) => list.first().and_then(|first| first.bbox.as_ref()).is_some_and(|bbox| !bbox.is_empty()),
        }
    }
}

impl Collected {
    /// Adds results to their images.
    ///
    /// # Errors
    /// The first result that cannot be scored.
    pub fn add_results(&mut self, list: ResultList<'_>, iou_type: IouType, path: &Path) -> Result<(), EvalError> {
        let boxes = list.has_boxes();
        let parts: Vec<Result<Vec<Placed>, EvalError>> = match &list {
            ResultList::Scanned(parts) => {
                let starts: Vec<usize> = parts
                    .iter()
                    .scan(1, |next, part| {
                        let start = *next;
                        *next += part.len();
                        Some(start)
                    })
                    .collect();
                let together = parts.par_iter().zip(&starts);
                together
                    .map(|(part, &start)| {
                        let listed = (start..).zip(part).map(|(position, result)| Listed {
                            position,
                            image_id: result.image_id,
                            category_id: result.category_id,
                            bbox: result.bbox,
                            score: result.score,
                            segmentation: result.segmentation.map(Outlined::Text),
                        });
                        self.place(listed, boxes, iou_type, path)
                    })
                    .collect()
            }
            ResultList::Read(results) => {
                let listed = (1..).zip(results).map(|(position, result)| Listed {
                    position,
                    image_id: result.image_id.0,
                    category_id: result.category_id.0,
                    bbox: four(result.bbox.as_deref()),
                    score: result.score,
                    segmentation: result.segmentation.as_ref().map(Outlined::Read),
                });
                vec![self.place(listed, boxes, iou_type, path)]
            }
        };
        drop(list);
        let parts = parts.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut counts = vec![0_usize; self.images.len()];
        for &(image, _) in parts.iter().flatten() {
            counts[image as usize] += 1;
        }
        for (image, &count) in self.images.iter_mut().zip(&counts) {
            image.results.reserve_exact(count);
        }
        for (image, result) in parts.into_iter().flatten() {
            self.images[image as usize].results.push(result);
        }
        if boxes && iou_type == IouType::Segm {
            self.notes.push("results carry bbox, so their sizes are those of the boxes, as in pycocotools".to_owned());
        }
        Ok(())
    }

    /// Finds image and class of each result, and its mask where one is needed.
    fn place<'b>(
        &self,
        list: impl Iterator<Item = Listed<'b>>,
        boxes: bool,
        iou_type: IouType,
        path: &Path,
    ) -> Result<Vec<Placed>, EvalError> {
        let mut placed = Vec::with_capacity(list.size_hint().0);
        // results of one image mostly stand together
        let mut last: Option<(u64, usize)> = None;
        for result in list {
            let Listed { position, image_id, category_id, bbox, score, segmentation } = result;
            let index = match last {
                Some((id, index)) if id == image_id => Some(index),
                _ => self.image_index.get(&image_id).copied(),
            };
            let Some(index) = index else {
                let known = self.images.len();
                return Err(EvalError::UnknownImage { position, image_id, known, path: path.to_path_buf() });
            };
            last = Some((image_id, index));
            let Some(&(class, _)) = self.categories.get(&category_id) else {
                let known = self.known_categories();
                return Err(EvalError::UnknownCategory { position, category_id, known, path: path.to_path_buf() });
            };
            let fault = |fault: String| EvalError::Entry {
                entry: format!("result {position} (image {image_id})"),
                fault,
                path: path.to_path_buf(),
            };
            let mask = if iou_type == IouType::Segm || !boxes {
                let missing = if boxes { "it has no segmentation" } else { "it has neither bbox nor segmentation" };
                let size = &self.sizes[index];
                Some(
                    match segmentation.ok_or_else(|| fault(missing.to_owned()))? {
                        Outlined::Read(outline) => to_mask(outline, size),
                        Outlined::Text(text) => serde_json::from_slice::<Segmentation>(text)
                            .map_err(|error| format!("its segmentation cannot be read ({error})"))
                            .and_then(|outline| to_mask(&outline, size)),
                    }
                    .map_err(fault)?,
                )
            } else {
                None
            };
            let xywh = match (bbox, &mask) {
                (Some(xywh), _) => xywh,
                (None, Some(mask)) if !boxes => mask.bbox().to_xywh().map(f64::from),
                _ => return Err(fault("it has no bbox of four numbers, as the first result does".to_owned())),
            };
            let area = match &mask {
                Some(mask) if !boxes => mask.area() as f64,
                _ => xywh[2] * xywh[3],
            };
            let mask = mask.filter(|_| iou_type == IouType::Segm);
            placed.push((index as u32, ResultBox { class, xywh, score, area, mask }));
        }
        Ok(placed)
    }

    /// The first category ids, for a message.
    fn known_categories(&self) -> String {
        let mut ids: Vec<String> = self.categories.keys().take(8).map(u64::to_string).collect();
        if self.categories.len() > ids.len() {
            ids.push("…".to_owned());
        }
        format!("{} categories: {}", self.categories.len(), ids.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fast_and_the_general_reader_take_the_same_list() {
        let plain = r#"[{"image_id": 9, "category_id": 44, "bbox": [0.3, 0.25, 2, 4], "score": 0.1}]"#;
        // a name with an escape is read by the general reader alone
        let unusual = plain.replace("category_id", r"categor\u0079_id");
        let path = Path::new("x.json");
        let ResultList::Scanned(parts) = ResultList::read(path, plain.as_bytes()).unwrap() else {
            panic!("the plain list was not scanned");
        };
        let ResultList::Read(list) = ResultList::read(path, unusual.as_bytes()).unwrap() else {
            panic!("the unusual list was scanned");
        };
        let (fast, general) = (&parts[0][0], &list[0]);
        assert_eq!((fast.image_id, fast.category_id), (general.image_id.0, general.category_id.0));
        assert_eq!((fast.bbox, fast.score), (four(general.bbox.as_deref()), general.score));
        let message = ResultList::read(path, b"[{]").err().unwrap().to_string();
        assert!(message.starts_with("not COCO results in JSON"), "{message}");
    }
}
