//! Views of one image that passes through a detector.

use super::{Arguments, CliError, Reduce, View, write};
use crate::app::export::views::{self, Channels};
use crate::app::scene::{Choice, Prepared};
use crate::cli::detect;
use crate::data;
use crate::detect::predict::inference_pass;
use crate::detect::{Config, predict};
use crate::engine::{DeviceChoice, Shown, model};
use crate::render::ColorMap;
use crate::stats::Histogram;
use crate::trace::Trace;
use crate::trace::reduce::Reduction;
use std::sync::Arc;

pub(super) fn draw(arguments: &Arguments) -> Result<(), CliError> {
    let (shown, config) = look(arguments)?;
    let Some(trace) = shown.trace.clone() else {
        return Err(CliError("the pass left no trace".into()));
    };
    let mut prepared = Prepared::new(&shown, 1);
    let none = |what: &str| CliError(format!("{} has no {what}", config.arch()));
    let figure = match arguments.view {
        View::Scores => {
            let scores = trace.suppression.iter().flat_map(|s| &s.candidates).map(|c| c.score);
            views::histogram("Scores of candidates", "score", &counted(scores), arguments.score)
        }
        View::AnchorIou => {
            let Some(assignment) = &trace.assignment else {
                return Err(CliError(
                    "anchors have an IoU only with objects: choose data that is annotated in the model's classes"
                        .into(),
                ));
            };
            let overlaps = assignment.iou.iter().copied().filter(|v| *v > 0.0);
            views::histogram("Best IoU of anchors", "IoU", &counted(overlaps), 0.5)
        }
        View::Anchors => views::assigned(&config, &shown, prepared.picture()).ok_or_else(|| none("anchors"))?,
        View::Suppression => {
            views::before_and_after(&config, &shown, prepared.picture()).ok_or_else(|| none("suppression"))?
        }
        View::Proposals => {
            views::by_stage(&shown, &prepared.picture(), arguments.best).ok_or_else(|| none("proposals"))?
        }
        View::Levels => {
            views::by_level(&config, &shown, arguments.score).ok_or_else(|| none("levels that detections come from"))?
        }
        View::Features => {
            let maps = positions(&trace, &arguments.maps)?;
            let channels = match arguments.reduce {
                Reduce::Mean => Channels::Reduced(Reduction::Mean),
                Reduce::Max => Channels::Reduced(Reduction::Max),
                Reduce::Pca => Channels::Principal,
            };
            views::map_grid(&trace, &maps, channels, ColorMap::Viridis, false)
        }
        _ => {
            positions(&trace, arguments.heat.as_slice())?;
            let choice = Choice {
                truth: arguments.truth,
                anchors: arguments.anchors,
                heat: arguments.heat.clone(),
                reduction: if arguments.reduce == Reduce::Max { Reduction::Max } else { Reduction::Mean },
                score: arguments.score,
                coloring: arguments.color,
                outcomes: arguments.only,
                ..Choice::default()
            };
            views::image(&shown, &mut prepared, &choice, arguments.labels)
        }
    };
    write(arguments, &figure)
}

/// One image with everything that happened to it.
fn look(arguments: &Arguments) -> Result<(Shown, Config), CliError> {
    let device = DeviceChoice::Auto.open()?;
    let choice = detect::choice(arguments.model.as_deref(), arguments.weights.as_deref())?;
    let model = model::load(&choice, arguments.weights.as_deref(), arguments.allow_partial, &device)?;
    let dataset = data::open::open(&arguments.data, arguments.split.as_deref())?;
    let Some(entry) = dataset.images.get(arguments.index) else {
        let (name, count) = (&dataset.name, dataset.images.len());
        return Err(CliError(format!("{name} has {count} images, none numbered {}", arguments.index)));
    };
    let picture = dataset.picture(arguments.index)?;
    let same = dataset.classes == model.detector.classes();
    let objects = (same && !entry.objects.is_empty()).then_some(entry.objects.as_slice());
    let prediction = predict(&*model.detector, &picture, objects, inference_pass(true))?;
    let (objects, classes) = (entry.objects.clone(), dataset.classes.clone());
    let shown = Shown::undetected(arguments.index, entry.name.clone(), Arc::new(picture), objects, classes);
    Ok((shown.with(prediction, model.detector.classes()), model.detector.config().clone()))
}

/// Positions of the maps of these names; of all without names.
fn positions(trace: &Trace, names: &[String]) -> Result<Vec<usize>, CliError> {
    if names.is_empty() {
        return Ok((0..trace.maps.len()).collect());
    }
    let found = names.iter().map(|name| {
        let known = trace.maps.iter().position(|map| map.name == *name);
        known.ok_or_else(|| {
            let all: Vec<&str> = trace.maps.iter().map(|map| map.name.as_str()).collect();
            CliError(format!("there is no map {name:?}; there are: {}", all.join(", ")))
        })
    });
    found.collect()
}

fn counted(values: impl Iterator<Item = f32>) -> Histogram {
    let mut histogram = Histogram::new(0.0, 1.0, 50);
    values.for_each(|value| histogram.add(value));
    histogram
}
