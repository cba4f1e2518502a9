//! Views that the engine works for as it does for the window: images and health of a data set, a load report, an image
//! augmented, one training step, two to four sides on one image and on a whole data set.

use super::{Arguments, CliError, View, write};
use crate::app::export::{Figure, records, views};
use crate::cli::detect;
use crate::engine::command::{Command, InitialWeights};
use crate::engine::compare::{ComparedImage, SlotSource};
use crate::engine::event::ModelSummary;
use crate::engine::model::Permit;
use crate::engine::{DeviceChoice, Engine, Event, Severity};
use crate::train::{RunConfig, TrainConfig};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A task that takes longer than this has died.
const PATIENCE: Duration = Duration::from_secs(1800);

pub(super) fn draw(arguments: &Arguments) -> Result<(), CliError> {
    let figure = match arguments.view {
        View::Images => ask(vec![open_data(arguments)], |_, event| match event {
            Event::DataOpened(data) => Some(records::images(&data, &(0..data.images.len()).collect::<Vec<_>>())),
            _ => None,
        })?,
        View::Model => ask(vec![load_model(arguments)?], |_, event| match event {
            Event::ModelLoaded(model) => Some(records::model(&model)),
            _ => None,
        })?,
        View::Augmentation => augmentation(arguments)?,
        View::Step => step(arguments, Command::Step { iterations: 1 })?,
        View::RangeTest => step(arguments, Command::FindRate)?,
        _ => health(arguments)?,
    };
    write(arguments, &figure)
}

/// What is tiny is judged by the network's input, where one is named.
fn health(arguments: &Arguments) -> Result<Figure, CliError> {
    let mut commands = vec![open_data(arguments), Command::CheckData { pixels: false }];
    if arguments.model.is_some() || arguments.weights.is_some() {
        commands.insert(1, load_model(arguments)?);
    }
    ask(commands, |_, event| match event {
        Event::Checked(findings) => Some(records::findings(&findings)),
        _ => None,
    })
}

fn augmentation(arguments: &Arguments) -> Result<Figure, CliError> {
    let (index, epoch) = (arguments.index, arguments.epoch);
    ask(vec![open_data(arguments), load_model(arguments)?], |engine, event| match event {
        Event::ModelLoaded(model) => {
            let train = Box::new(TrainConfig::new(model.config.arch()));
            engine.send(Command::Augment { index, epoch, train });
            None
        }
        Event::Augmented { .. } => engine.slots.augmented.get().map(|augmented| views::augmented(&augmented)),
        _ => None,
    })
}

/// What a run from the loaded weights, or from random ones where those are of other classes, answers first of all to
/// `command`: a step's samples, or the losses of a range test.
fn step(arguments: &Arguments, command: Command) -> Result<Figure, CliError> {
    let (mut data, mut command) = (None, Some(command));
    ask(vec![open_data(arguments), load_model(arguments)?], |engine, event| match event {
        Event::DataOpened(opened) => {
            data = Some(opened);
            None
        }
        // Once: the run's weights become the loaded model when it ends.
        Event::ModelLoaded(model) => {
            let data = data.take()?;
            let (config, start) = run_of(arguments, &model, &data.classes);
            engine.send(Command::StartTraining { config: Box::new(config), folder: None, start });
            engine.send(command.take()?);
            None
        }
        Event::Stepped(_) => engine.slots.stepped.get().map(|stepped| records::step(&stepped)),
        Event::RateFound(test) => Some(records::range_test(&test)),
        _ => None,
    })
}

fn run_of(arguments: &Arguments, model: &ModelSummary, classes: &[String]) -> (RunConfig, InitialWeights) {
    let arch = model.config.arch();
    let (config, start) = if model.config.classes() == classes {
        (model.config.clone(), InitialWeights::Loaded)
    } else {
        (crate::detect::Config::new(arch, classes), InitialWeights::Random)
    };
    let (data, split) = (arguments.data.clone(), arguments.split.clone());
    (RunConfig { data, split, train: TrainConfig::new(arch), model: config }, start)
}

/// All sides on one image.
pub(super) fn sides(arguments: &Arguments, sources: Vec<SlotSource>) -> Result<Arc<ComparedImage>, CliError> {
    let mut commands = fill(arguments, sources);
    commands.push(Command::CompareImage { index: arguments.index });
    ask(commands, |engine, event| match event {
        Event::ImageCompared { .. } => engine.slots.compared.get(),
        _ => None,
    })
}

/// All sides on the whole data set.
pub(super) fn scores(arguments: &Arguments, sources: Vec<SlotSource>) -> Result<Figure, CliError> {
    let mut commands = fill(arguments, sources);
    commands.push(Command::CompareData);
    ask(commands, |_, event| match event {
        Event::DataCompared(comparison) => Some(views::side_scores(&comparison)),
        _ => None,
    })
}

fn fill(arguments: &Arguments, sources: Vec<SlotSource>) -> Vec<Command> {
    let slots = sources.into_iter().enumerate().map(|(slot, source)| Command::SetSlot { slot, source });
    std::iter::once(open_data(arguments)).chain(slots).collect()
}

fn open_data(arguments: &Arguments) -> Command {
    Command::OpenData { path: arguments.data.clone(), split: arguments.split.clone() }
}

fn load_model(arguments: &Arguments) -> Result<Command, CliError> {
    let choice = detect::choice(arguments.model.as_deref(), arguments.weights.as_deref())?;
    let permit = Permit { partial: arguments.allow_partial, ..Permit::default() };
    Ok(Command::LoadModel { choice, weights: arguments.weights.clone(), permit })
}

/// Has an engine do the commands, until `answer` makes something of what it tells.
fn ask<T>(commands: Vec<Command>, mut answer: impl FnMut(&Engine, Event) -> Option<T>) -> Result<T, CliError> {
    let engine = Engine::start(DeviceChoice::Auto, Arc::new(|| {}))?;
    for command in commands {
        if !engine.send(command) {
            return Err(CliError("the engine takes no command".into()));
        }
    }
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        match engine.wait(Duration::from_millis(200)) {
            Some(Event::Log { severity: Severity::Error, message, .. }) => return Err(CliError(message)),
            Some(event) => {
                if let Some(found) = answer(&engine, event) {
                    return Ok(found);
                }
            }
            None => {}
        }
    }
    Err(CliError("the engine did not come to an end".into()))
}
