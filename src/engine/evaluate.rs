//! A detector over a whole data set, scored by the COCO protocol.

use crate::data::dataset::{Dataset, ImageEntry};
use crate::detect::multiscale::Plan;
use crate::detect::predict::inference_pass;
use crate::detect::{Detector, Prediction, predict};
use crate::eval::coco::{CocoResult, CocoSettings, evaluate};
use crate::eval::mapping::map_classes;
use crate::eval::misses::{MISS_IOU, Misses};
use crate::eval::{ImageResult, ImageTruth};
use crate::geometry::{Detection, Object};
use crate::ops::interrupt;
use crate::trace::missed::why_unmatched;
use std::time::Instant;

/// What came of it.
#[derive(Clone, Debug)]
pub struct Scored {
    pub result: CocoResult,
    pub detections: Vec<ImageResult>,
    /// Images that could not be read, with the reason: they count as having no detections.
    pub skipped: Vec<String>,
    pub seconds: f64,
}

/// Detections in every image of a data set, in its order.
#[derive(Clone, Debug, Default)]
pub struct Detected {
    /// Class indices are the data set's; classes that it does not have are left out.
    pub results: Vec<ImageResult>,
    /// See [`Scored::skipped`].
    pub skipped: Vec<String>,
}

/// Detects as [`detect_all`] and scores the result.
///
/// # Errors
/// Classes of model and data that do not agree, a failing network, or an interruption.
pub fn score(
    detector: &dyn Detector,
    dataset: &Dataset,
    plan: Option<&Plan>,
    misses: Option<&mut Misses>,
    progress: impl FnMut(usize, usize),
) -> Result<Scored, String> {
    let start = Instant::now();
    let Detected { results, skipped } = detect_all(detector, dataset, plan, misses, progress)?;
    let result = score_results(&truth_of(dataset), &results, dataset.classes.len());
    Ok(Scored { result, detections: results, skipped, seconds: start.elapsed().as_secs_f64() })
}

/// Detects in every image of `dataset`, at several sizes where there is a plan. `misses` gathers why objects are missed,
/// for which every pass is probed; tests at several sizes leave no trace to look into. `progress` hears (done, total)
/// after each image.
///
/// # Errors
/// Classes of model and data that do not agree, a failing network, or an interruption.
pub fn detect_all(
    detector: &dyn Detector,
    dataset: &Dataset,
    plan: Option<&Plan>,
    mut misses: Option<&mut Misses>,
    mut progress: impl FnMut(usize, usize),
) -> Result<Detected, String> {
    let mapping = map_classes(detector.classes(), &dataset.classes).map_err(|e| e.to_string())?;
    let total = dataset.images.len();
    let mut detected = Detected::default();
    for (index, entry) in dataset.images.iter().enumerate() {
        interrupt::check().map_err(|e| e.to_string())?;
        let asked = misses.is_some().then(|| Asked::new(entry, &mapping));
        let objects = asked.as_ref().map(|asked| asked.objects.as_slice()).filter(|objects| !objects.is_empty());
        let prediction = match dataset.picture(index) {
            Ok(picture) => {
                let prediction = match plan {
                    Some(plan) => plan.predict(detector, &picture),
                    None => predict(detector, &picture, objects, inference_pass(objects.is_some())),
                };
                prediction.map_err(|e| e.to_string())?
            }
            Err(error) => {
                detected.skipped.push(format!("{}: {error}", entry.name));
                Prediction::default()
            }
        };
        let trace = prediction.trace;
        let mapped = prediction.detections.into_iter().enumerate().filter_map(|(at, d)| {
            let class = mapping.get(d.class as usize).copied().flatten()?;
            Some((at, Detection { class, ..d }))
        });
        // Positions among all detections of the pass, as its trace has them.
        let (places, detections): (Vec<usize>, Vec<Detection>) = mapped.unzip();
        let result = ImageResult { image_id: entry.id, detections };
        if let (Some(misses), Some(asked)) = (misses.as_deref_mut(), &asked) {
            let score = misses.score;
            misses.add(index, &asked.truth, &result, |object, taken| {
                let taken: Vec<usize> = taken.iter().filter_map(|&at| places.get(at).copied()).collect();
                let (object, class) = asked.traced(object)?;
                why_unmatched(trace.as_ref()?, object, class, score, MISS_IOU, &taken)
            });
        }
        detected.results.push(result);
        progress(index + 1, total);
    }
    Ok(detected)
}

/// The objects of an image, as they are scored and as a probed pass is told of them.
struct Asked {
    truth: ImageTruth,
    /// Those that count, in the model's classes.
    objects: Vec<Object>,
    /// Where each of those stands in the truth.
    places: Vec<usize>,
}

impl Asked {
    /// `mapping` has the data set's class of each class of the model.
    fn new(entry: &ImageEntry, mapping: &[Option<u32>]) -> Self {
        let truth = truth_of_image(entry);
        let counting = truth.objects.iter().enumerate().filter(|(_, object)| !object.crowd);
        let known = counting.filter_map(|(place, object)| {
            let class = mapping.iter().position(|class| *class == Some(object.class))? as u32;
            Some((place, Object { class, mask: None, ..object.clone() }))
        });
        let (places, objects) = known.unzip();
        Self { truth, objects, places }
    }

    /// The index among the trace's objects, and the model's class, of object `place` of the truth.
    fn traced(&self, place: usize) -> Option<(usize, u32)> {
        let object = self.places.iter().position(|own| *own == place)?;
        Some((object, self.objects.get(object)?.class))
    }
}

/// The data set's objects as they are scored.
pub fn truth_of(dataset: &Dataset) -> Vec<ImageTruth> {
    dataset.images.iter().map(truth_of_image).collect()
}

fn truth_of_image(entry: &ImageEntry) -> ImageTruth {
    ImageTruth { image_id: entry.id, objects: entry.objects.iter().map(scored_object).collect() }
}

/// COCO's scores of boxes.
pub fn score_results(truth: &[ImageTruth], results: &[ImageResult], classes: usize) -> CocoResult {
    evaluate(truth, results, classes, &CocoSettings::default())
}

/// `difficult` objects are neither asked for nor counted against a detection that finds them.
fn scored_object(object: &Object) -> Object {
    Object { crowd: object.crowd || object.difficult, ..object.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data;
    use crate::engine::command::ModelChoice;
    use crate::engine::details::tallies;
    use crate::engine::model;
    use candle_core::Device;

    /// With one-stage, refined, two-stage and cascaded networks: every missed object has one cause, and what a pass
    /// finds does not depend on whether it is looked into.
    #[test]
    fn causes_of_misses_add_up_for_every_family() {
        let dataset = data::open::open("shapes:train=1,val=1,test=3", Some("test")).unwrap();
        for name in ["ssd-nano", "fcos-nano", "refinedet-nano", "faster-nano", "cascade-nano"] {
            let choice = ModelChoice::Named(name.into());
            let model = model::load(&choice, None, false, &Device::Cpu).unwrap();
            let plain = detect_all(&*model.detector, &dataset, None, None, |_, _| {}).unwrap();
            // at half the scores some are missed; above 1 nothing is found
            for score in [0.5, 0.9, 1.1] {
                let mut misses = Misses::new(score, dataset.classes.len());
                let probed = detect_all(&*model.detector, &dataset, None, Some(&mut misses), |_, _| {}).unwrap();
                assert_eq!(probed.results, plain.results, "{name}");
                let tallies = tallies(&truth_of(&dataset), &probed.results, dataset.classes.len());
                let missed: usize = tallies.iter().map(|tally| tally.at(score).missed).sum();
                let objects: usize = tallies.iter().map(|tally| tally.objects).sum();
                assert_eq!((misses.count(None, None), misses.objects()), (missed, objects), "{name} at {score}");
                let kinds: Vec<&str> = misses.kinds().into_iter().map(Misses::name).collect();
                assert!(!kinds.contains(&"found") && !kinds.contains(&"not looked into"), "{name}: {kinds:?}");
                if score > 1.0 {
                    assert_eq!(missed, objects, "{name}");
                    assert!(kinds.contains(&"below the threshold"), "{name}: {kinds:?}");
                }
            }
        }
    }

    #[test]
    fn an_image_that_cannot_be_read_is_missed_without_a_look() {
        let mut dataset = data::open::open("shapes:train=1,val=1,test=1", Some("test")).unwrap();
        dataset.images[0].source = data::dataset::Source::File("no/such/file.png".into());
        let model = model::load(&ModelChoice::Named("ssd-nano".into()), None, false, &Device::Cpu).unwrap();
        let mut misses = Misses::new(0.4, dataset.classes.len());
        let found = detect_all(&*model.detector, &dataset, None, Some(&mut misses), |_, _| {}).unwrap();
        assert_eq!(found.skipped.len(), 1);
        assert_eq!(misses.kinds().into_iter().map(Misses::name).collect::<Vec<_>>(), ["not looked into"]);
        assert_eq!(misses.count(None, None), misses.objects());
    }
}
