//! Views of a whole data set: scores, curves, confusion, mistakes and misses of a model, up to four models side by
//! side, statistics.

use super::{Arguments, CliError, View, asked, write};
use crate::app::export::{records, views};
use crate::cli::detect;
use crate::data;
use crate::engine::command::ModelChoice;
use crate::engine::compare::{SLOTS, SlotSource};
use crate::engine::details::{EvalDetails, MaskScores};
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
    let masks = MaskScores::new(&truth, &results, classes).map(Arc::new);
    if arguments.masks && masks.is_none() {
        return Err(CliError(format!(
            "no masks to score: the model finds none, or there are none in {}",
            dataset.name
        )));
    }
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
        masks,
    };
    let figure = match arguments.view {
        View::Pr => views::precision_recall(&evaluation, CURVES, None, arguments.masks),
        View::ByScore => views::by_score(&evaluation, CURVES, None, arguments.masks),
        View::Confusion => views::confusion(&evaluation),
        View::Errors => views::mistakes(&evaluation),
        View::Misses => views::misses(&evaluation),
        View::Worst => views::images(&evaluation, arguments.score),
        _ => views::numbers(&evaluation, arguments.masks),
    };
    write(arguments, &figure)
}

pub(super) fn statistics(arguments: &Arguments) -> Result<(), CliError> {
    let dataset = data::open::open(&arguments.data, arguments.split.as_deref())?;
    write(arguments, &records::statistics(&data::statistics::statistics(&dataset)))
}

/// Two to four sides on one image, or on the whole data set.
pub(super) fn compare(arguments: &Arguments) -> Result<(), CliError> {
    let sides = sides(arguments)?;
    if arguments.view == View::CompareData {
        return write(arguments, &asked::scores(arguments, sides)?);
    }
    let names: Vec<String> = sides.iter().map(label).collect();
    let dataset = data::open::open(&arguments.data, arguments.split.as_deref())?;
    let picture = dataset.picture(arguments.index)?;
    let compared = asked::sides(arguments, sides)?;
    let entry = dataset.images.get(arguments.index).ok_or_else(|| format!("there is no image {}", arguments.index))?;
    let (objects, classes) = (entry.objects.clone(), dataset.classes.clone());
    let shown = Shown::undetected(arguments.index, entry.name.clone(), Arc::new(picture), objects, classes);
    write(arguments, &views::sides(&shown, &compared, &names, arguments.score, arguments.labels))
}

/// The model, and what it is set against: files in their order, then architectures that belong to no weights.
fn sides(arguments: &Arguments) -> Result<Vec<SlotSource>, CliError> {
    let mut names = arguments.against_model.iter().map(String::as_str);
    let mut sides = vec![source(arguments.weights.as_deref(), arguments.model.as_deref())?];
    for file in &arguments.against {
        let name = if is_results(file) { None } else { names.next() };
        sides.push(source(Some(file.as_path()), name)?);
    }
    for name in names {
        sides.push(source(None, Some(name))?);
    }
    match sides.len() {
        1 => Err(CliError("name what to compare with: --against FILE, or --against-model NAME".into())),
        count if count > SLOTS => {
            Err(CliError(format!("{count} sides, the model among them; {SLOTS} can be compared")))
        }
        _ => Ok(sides),
    }
}

fn is_results(file: &Path) -> bool {
    file.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"))
}

/// COCO results by their ending, else a model.
fn source(weights: Option<&Path>, name: Option<&str>) -> Result<SlotSource, CliError> {
    match weights.filter(|path| is_results(path)) {
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
