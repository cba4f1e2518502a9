//! Views of a whole data set: scores, curves, confusion, mistakes and misses of a model, two models side by side,
//! statistics.

use super::{Arguments, CliError, View, asked, write};
use crate::app::export::{records, views};
use crate::cli::detect;
use crate::data;
use crate::engine::command::ModelChoice;
use crate::engine::compare::SlotSource;
use crate::engine::details::EvalDetails;
use crate::engine::evaluate::{Detected, detect_all, score_results, truth_of};
use crate::engine::event::EvalSummary;
use crate::engine::{DeviceChoice, Shown, model};
use crate::eval::misses::Misses;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Curves are drawn at the first of the thresholds that they are computed for, IoU .5.
const CURVES: usize = 0;

pub(super) fn evaluation(arguments: &Arguments) -> Result<(), CliError> {
    let start = Instant::now();
    let device = DeviceChoice::Auto.open()?;
    let choice = detect::choice(arguments.model.as_deref(), arguments.weights.as_deref())?;
    let model = model::load(&choice, arguments.weights.as_deref(), arguments.allow_partial, &device)?;
    let dataset = data::open::open(&arguments.data, arguments.split.as_deref())?;
    let asked = arguments.view == View::Misses;
    let mut misses = asked.then(|| Misses::new(arguments.score, dataset.classes.len()));
    let Detected { results, skipped } =
        detect_all(&*model.detector, &dataset, None, misses.as_mut(), |done, total| {
            if done.is_multiple_of(50) || done == total {
                eprintln!("{done} of {total} images");
            }
        })?;
    for image in skipped {
        eprintln!("counted as without detections: {image}");
    }
    let classes = dataset.classes.len();
    let truth = truth_of(&dataset);
    let result = score_results(&truth, &results, classes);
    let details = Arc::new(EvalDetails::new(truth, results, classes));
    let confusion = Arc::new(details.confusion(classes, details.best_score()));
    let evaluation = EvalSummary {
        model: format!("{} ({})", model.detector.config().arch(), model.source),
        data: format!("{} {}", dataset.name, dataset.split),
        images: dataset.images.len(),
        seconds: start.elapsed().as_secs_f64(),
        classes: dataset.classes,
        result,
        details,
        confusion,
        misses: misses.map(Arc::new),
    };
    let figure = match arguments.view {
        View::Pr => views::precision_recall(&evaluation, CURVES, None),
        View::ByScore => views::by_score(&evaluation, CURVES, None),
        View::Confusion => views::confusion(&evaluation),
        View::Errors => views::mistakes(&evaluation),
        View::Misses => views::misses(&evaluation),
        _ => views::numbers(&evaluation),
    };
    write(arguments, &figure)
}

pub(super) fn statistics(arguments: &Arguments) -> Result<(), CliError> {
    let dataset = data::open::open(&arguments.data, arguments.split.as_deref())?;
    write(arguments, &records::statistics(&data::statistics::statistics(&dataset)))
}

/// Two sides on one image, or on the whole data set.
pub(super) fn compare(arguments: &Arguments) -> Result<(), CliError> {
    if arguments.against.is_none() && arguments.against_model.is_none() {
        return Err(CliError("name what to compare with: --against FILE, or --against-model NAME".into()));
    }
    let first = source(arguments.weights.as_deref(), arguments.model.as_deref())?;
    let second = source(arguments.against.as_deref(), arguments.against_model.as_deref())?;
    if arguments.view == View::CompareData {
        return write(arguments, &asked::scores(arguments, [first, second])?);
    }
    let names = [label(&first), label(&second)];
    let dataset = data::open::open(&arguments.data, arguments.split.as_deref())?;
    let picture = dataset.picture(arguments.index)?;
    let compared = asked::sides(arguments, [first, second])?;
    let entry = dataset.images.get(arguments.index).ok_or_else(|| format!("there is no image {}", arguments.index))?;
    let (objects, classes) = (entry.objects.clone(), dataset.classes.clone());
    let shown = Shown::undetected(arguments.index, entry.name.clone(), Arc::new(picture), objects, classes);
    write(arguments, &views::sides(&shown, &compared, &names, arguments.score))
}

/// COCO results by their ending, else a model.
fn source(weights: Option<&Path>, name: Option<&str>) -> Result<SlotSource, CliError> {
    match weights.filter(|path| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"))) {
        Some(results) => Ok(SlotSource::Results(results.to_path_buf())),
        None => {
            let choice = detect::choice(name, weights)?;
            Ok(SlotSource::Model { choice, weights: weights.map(Path::to_path_buf) })
        }
    }
}

fn label(source: &SlotSource) -> String {
    let file = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match source {
        SlotSource::Loaded => "the loaded model".into(),
        SlotSource::Results(path) => file(path),
        SlotSource::Model { weights: Some(path), .. } => file(path),
        SlotSource::Model { choice: ModelChoice::Named(name), .. } => name.clone(),
        SlotSource::Model { choice: ModelChoice::Configured(config), .. } => config.arch().to_string(),
        SlotSource::Model { choice: ModelChoice::FromWeights, .. } => "embedded".into(),
    }
}
