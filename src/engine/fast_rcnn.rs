//! A two-stage detector on a file of proposals instead of its RPN's (Fast R-CNN).
//!
//! The file is a JSON list like COCO results: `image_id`, `bbox` (left, top, width, height in pixels of the picture) and,
//! where there is one, `score`. Everything else in an entry is passed over.

use crate::data::dataset::Dataset;
use crate::detect::rcnn::GivenProposals;
use crate::detect::{Detector, Prediction, predict};
use crate::geometry::{BBox, Object};
use crate::imaging::Picture;
use crate::nn::Pass;
use serde::Deserialize;
use std::collections::HashMap;
use std::path::Path;

/// Largest file that is read, bytes.
const MAX_FILE: u64 = 1 << 30;

#[derive(Deserialize)]
struct Entry {
    image_id: u64,
    bbox: [f32; 4],
    score: Option<f32>,
}

/// A detector with the proposals of every image of a data set.
pub struct FastRcnn {
    detector: GivenProposals,
    /// Of each image: box in its pixels and score, 1 where the file has none.
    proposals: Vec<Vec<(BBox, f32)>>,
}

impl FastRcnn {
    /// Reads the proposals in `file` for the images of `dataset`.
    ///
    /// # Errors
    /// A file that does not read, an image that the data set does not have, or a detector of one stage.
    pub fn open(detector: Box<dyn Detector>, file: &Path, dataset: &Dataset) -> Result<Self, String> {
        let detector = GivenProposals::new(detector).map_err(|e| e.to_string())?;
        Ok(Self { detector, proposals: read(file, dataset)? })
    }

    /// Detects in image `index` of the data set, whose picture is `picture`. As [`predict`].
    ///
    /// # Errors
    /// Those of the network, or "stopped on request".
    pub fn predict(
        &self,
        index: usize,
        picture: &Picture,
        objects: Option<&[Object]>,
        pass: Pass,
    ) -> Result<Prediction, String> {
        let placement = self.detector.preprocess().recipe(picture).placement;
        let own = self.proposals.get(index).map(Vec::as_slice).unwrap_or_default();
        self.detector.set(vec![own.iter().map(|&(bbox, score)| (placement.to_input(bbox), score)).collect()]);
        predict(&self.detector, picture, objects, pass).map_err(|e| e.to_string())
    }
}

fn read(file: &Path, dataset: &Dataset) -> Result<Vec<Vec<(BBox, f32)>>, String> {
    let fault = |what: String| format!("{what}: {}", file.display());
    let unread = |e: std::io::Error| fault(format!("cannot read the proposals ({e})"));
    if std::fs::metadata(file).map_err(unread)?.len() > MAX_FILE {
        return Err(fault(format!("the proposals have more than {MAX_FILE} bytes")));
    }
    let text = std::fs::read_to_string(file).map_err(unread)?;
    let entries: Vec<Entry> = serde_json::from_str(&text)
        .map_err(|e| fault(format!("proposals are a JSON list of image_id, bbox and maybe score ({e})")))?;
    let places: HashMap<u64, usize> =
        dataset.images.iter().enumerate().map(|(index, image)| (image.id, index)).collect();
    let mut proposals = vec![Vec::new(); dataset.images.len()];
    for entry in entries {
        let place = places.get(&entry.image_id).and_then(|&index| proposals.get_mut(index));
        let Some(of_image) = place else {
            return Err(fault(format!("{} has no image {}", dataset.name, entry.image_id)));
        };
        let [x, y, w, h] = entry.bbox;
        of_image.push((BBox::from_xywh(x, y, w, h), entry.score.unwrap_or(1.0)));
    }
    Ok(proposals)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::shapes::{ShapesSpec, Split, shapes};
    use crate::detect::{Arch, Config, build};
    use crate::nn::Mode;
    use candle_core::Device;

    #[test]
    fn detections_come_from_the_files_proposals_and_the_loss_has_no_rpn() {
        let dataset = shapes(&ShapesSpec { test: 2, size: (64, 48), ..ShapesSpec::default() }, Split::Test);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("proposals.json");
        let text = format!(
            r#"[{{"image_id": {}, "bbox": [4, 4, 20, 20], "category_id": 7}},
                {{"image_id": {}, "bbox": [30.5, 8, 16, 24], "score": 0.25}}]"#,
            dataset.images[1].id, dataset.images[1].id
        );
        std::fs::write(&file, text).unwrap();
        let build = |arch: Arch| build(&Config::new(arch, &dataset.classes), &Device::Cpu, 1).unwrap();
        let fast = FastRcnn::open(build(Arch::FasterNano), &file, &dataset).unwrap();
        let look = |index: usize| {
            let objects = dataset.images[index].objects.as_slice();
            fast.predict(index, &dataset.picture(index).unwrap(), Some(objects), Pass::probed(Mode::Infer, 1)).unwrap()
        };
        let trace = look(1).trace.unwrap();
        assert_eq!((trace.proposals[0].name.as_str(), trace.proposals[0].boxes.len()), ("given", 2));
        assert_eq!(trace.proposals[0].scores, [1.0, 0.25]);
        // 64 × 48 is enlarged four times
        assert_eq!(trace.proposals[0].boxes[0], BBox::new(16.0, 16.0, 96.0, 96.0));
        assert!(trace.losses.iter().all(|part| !part.name.contains("rpn") && part.name != "loss_objectness"));
        assert!(look(0).detections.is_empty());
        let error = FastRcnn::open(build(Arch::SsdNano), &file, &dataset).err().unwrap();
        assert!(error.contains("ssd-nano"), "{error}");
        std::fs::write(&file, r#"[{"image_id": 77, "bbox": [0, 0, 1, 1]}]"#).unwrap();
        let error = FastRcnn::open(build(Arch::FasterNano), &file, &dataset).err().unwrap();
        assert!(error.contains("no image 77") && error.contains("proposals.json"), "{error}");
    }
}
