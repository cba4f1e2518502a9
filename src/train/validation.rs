//! Validation during a run: the loss and the average precision of the averaged weights on the validation split.

use super::TrainError;
use super::config::{BestBy, TrainConfig};
use super::loading::{loader_settings, next_batch};
use crate::data::dataset::Dataset;
use crate::data::loader::{Loader, Position};
use crate::data::{self, LoaderSettings};
use crate::detect::predict::inference_pass;
use crate::detect::{Detector, predict};
use crate::eval::coco::{CocoSettings, evaluate};
use crate::eval::{ImageResult, ImageTruth};
use crate::geometry::Object;
use crate::imaging::Augmentation;
use crate::nn::{Mode, Pass};
use crate::ops::interrupt;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Instant;

/// What one validation found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Validation {
    /// Iterations done before it.
    pub iteration: u64,
    /// Mean over the batches.
    pub loss: f32,
    pub parts: Vec<(String, f32)>,
    /// COCO AP over IoU 0.5 … 0.95, in 0..1; −1 where the split has no objects.
    pub ap: f64,
    /// AP at IoU 0.5.
    pub ap50: f64,
    pub images: usize,
    pub seconds: f64,
    /// Better than every validation before it.
    pub improved: bool,
}

impl Validation {
    fn measure(&self, by: BestBy) -> f64 {
        match by {
            BestBy::Ap => self.ap,
            BestBy::Ap50 => self.ap50,
            BestBy::Loss => -f64::from(self.loss),
        }
    }
}

/// The best validation so far, as a checkpoint keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// What the best is chosen by, higher better (a loss with its sign changed); none before the first validation.
    pub measure: Option<f64>,
    /// AP of the best, in 0..1.
    pub ap: Option<f64>,
    /// Iterations done when it was found.
    pub iteration: u64,
    /// Validations since.
    pub without: u64,
    /// Iterations done at the last validation.
    pub validated: u64,
}

impl Best {
    /// Takes a validation in; true when it is the best so far.
    pub fn take(&mut self, validation: &Validation, by: BestBy) -> bool {
        let measure = validation.measure(by);
        self.validated = validation.iteration;
        let improved = measure.is_finite() && self.measure.is_none_or(|best| measure > best);
        if improved {
            let ap = Some(validation.ap).filter(|ap| *ap >= 0.0);
            (self.measure, self.ap, self.iteration, self.without) = (Some(measure), ap, validation.iteration, 0);
        } else {
            self.without += 1;
        }
        improved
    }
}

/// The split of `path` that validates: the one called val, valid or validation, with or without a year.
///
/// # Errors
/// A data set without such a split or images in it, or one that does not open.
pub fn validation_data(path: &str, classes: &[String]) -> Result<Arc<Dataset>, TrainError> {
    let names = data::splits(path);
    let validates = |name: &&String| {
        let word = name.trim_end_matches(|c: char| c.is_ascii_digit());
        ["val", "valid", "validation"].contains(&word)
    };
    let Some(split) = names.iter().find(validates) else {
        return Err(TrainError::Settings(format!(
            "there is no split to validate on; there are: {}. Set validate_every=0, or add one called val: {path}",
            names.join(", ")
        )));
    };
    let dataset = data::open(path, Some(split.as_str()))?;
    if dataset.classes != classes {
        return Err(TrainError::Settings(format!(
            "the split {split} has other classes ({}) than the model ({}): {path}",
            dataset.classes.join(", "),
            classes.join(", ")
        )));
    }
    if dataset.images.is_empty() {
        return Err(TrainError::Settings(format!(
            "the split {split} has no images to validate on; set validate_every=0, or fill it: {path}"
        )));
    }
    Ok(Arc::new(dataset))
}

/// Scores `detector` as it is on `dataset`.
///
/// # Errors
/// A failing network, data of which nothing can be read, or an interruption.
pub fn validate(
    detector: &dyn Detector,
    dataset: &Arc<Dataset>,
    config: &TrainConfig,
    iteration: u64,
) -> Result<Validation, TrainError> {
    let start = Instant::now();
    let ((loss, parts), (ap, ap50)) = config.precision.within(|| -> Result<_, TrainError> {
        Ok((mean_loss(detector, dataset, config)?, average_precision(detector, dataset)?))
    })?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(Validation { iteration, loss, parts, ap, ap50, images: dataset.images.len(), seconds, improved: false })
}

type Parts = Vec<(String, f32)>;

/// Mean loss over the batches in the order of the data, nothing augmented, norms with running statistics.
fn mean_loss(
    detector: &dyn Detector,
    dataset: &Arc<Dataset>,
    config: &TrainConfig,
) -> Result<(f32, Parts), TrainError> {
    let settings = LoaderSettings {
        shuffle: false,
        augmentation: Augmentation::none(),
        ..loader_settings(config, detector.config())
    };
    let mut loader = Loader::new(dataset.clone(), settings, Position::default())?;
    let batches = loader.batches_per_epoch().max(1);
    let mut sums: Vec<(String, f64)> = Vec::new();
    for _ in 0..batches {
        interrupt::check()?;
        let batch = next_batch(&mut loader)?;
        let pass = Pass::new(Mode::Frozen);
        let images = Tensor::from_slice(&batch.images, &batch.shape, detector.params().device())?;
        let outputs = detector.forward(&images, &pass)?;
        for (name, value) in detector.losses(&outputs, &batch.objects, &pass)?.parts {
            let value = f64::from(value.to_vec0::<f32>()?);
            match sums.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += value,
                None => sums.push((name, value)),
            }
        }
    }
    let share = 1.0 / batches as f64;
    let loss = sums.iter().map(|(_, sum)| sum * share).sum::<f64>() as f32;
    Ok((loss, sums.into_iter().map(|(name, sum)| (name, (sum * share) as f32)).collect()))
}

/// AP and AP at IoU 0.5 by the COCO protocol. An image that cannot be read counts as one without detections.
fn average_precision(detector: &dyn Detector, dataset: &Dataset) -> Result<(f64, f64), TrainError> {
    let (mut truth, mut results) = (Vec::new(), Vec::new());
    for (index, entry) in dataset.images.iter().enumerate() {
        interrupt::check()?;
        let detections = match dataset.picture(index) {
            Ok(picture) => predict(detector, &picture, None, inference_pass(false))?.detections,
            Err(_) => Vec::new(),
        };
        // Difficult objects are neither asked for nor counted against a detection that finds them.
        let objects = entry.objects.iter().map(|o| Object { crowd: o.crowd || o.difficult, ..o.clone() });
        results.push(ImageResult { image_id: entry.id, detections });
        truth.push(ImageTruth { image_id: entry.id, objects: objects.collect() });
    }
    let result = evaluate(&truth, &results, dataset.classes.len(), &CocoSettings::default());
    let [ap, ap50, ..] = result.stats;
    Ok((ap, ap50))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_kept_and_what_is_not_better_is_counted() {
        let at = |iteration, ap| Validation { iteration, ap, ..Validation::default() };
        let mut best = Best::default();
        assert!(best.take(&at(10, 0.2), BestBy::Ap));
        assert!(!best.take(&at(20, 0.2), BestBy::Ap));
        assert!(!best.take(&at(30, f64::NAN), BestBy::Ap));
        assert_eq!((best.iteration, best.without, best.validated, best.ap), (10, 2, 30, Some(0.2)));
        assert!(best.take(&at(40, 0.3), BestBy::Ap));
        assert_eq!((best.iteration, best.without), (40, 0));
        let text = serde_json::to_string(&best).unwrap();
        assert_eq!(serde_json::from_str::<Best>(&text).unwrap(), best);
        let mut lower = Best::default();
        let loss = |loss| Validation { loss, ap: -1.0, ..Validation::default() };
        assert!(lower.take(&loss(2.0), BestBy::Loss) && !lower.take(&loss(3.0), BestBy::Loss));
        assert!(lower.take(&loss(1.0), BestBy::Loss) && lower.ap.is_none());
    }

    #[test]
    fn shapes_validate_on_val_and_a_folder_without_splits_says_so() {
        let classes: Vec<String> = data::CLASSES.iter().map(|c| (*c).to_string()).collect();
        let dataset = validation_data("shapes:train=2,val=3,test=1", &classes).unwrap();
        assert_eq!((dataset.split.as_str(), dataset.images.len()), ("val", 3));
        assert!(validation_data("shapes:train=2,val=3,test=1", &[]).is_err());
        assert!(validation_data("no/such/data", &classes).unwrap_err().to_string().contains("validate_every"));
    }
}
