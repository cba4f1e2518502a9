//! The runs that `boxwright train` makes: one, or the phases that embedded weights are made in.

use super::{Arguments, CliError};
use crate::data;
use crate::detect::{Arch, config};
use crate::engine::command::InitialWeights;
use crate::imaging::Augmentation;
use crate::train::checkpoint::{last, saved_best, saved_config, saved_iteration};
use crate::train::embedding::{EmbeddingPhase, Start, recipe};
use crate::train::{Preset, RunConfig, TrainConfig};
use std::path::{Path, PathBuf};

/// The built-in data set without settings: a recipe chooses its scenes.
const SCENES: &str = "shapes";

/// One run.
#[derive(Debug)]
pub(super) struct Job {
    pub config: RunConfig,
    pub folder: PathBuf,
    pub begin: Begin,
    /// Stop after this iteration.
    pub until: Option<u64>,
    /// Also write the averaged weights as float16 to this file when done.
    pub half: Option<PathBuf>,
}

/// How a run begins.
#[derive(Debug, PartialEq)]
pub(super) enum Begin {
    /// From the last checkpoint in its folder.
    Resume,
    Fresh(InitialWeights),
    /// From all weights of a file.
    Weights(PathBuf),
}

impl Job {
    /// The averaged weights that the run in `folder` ends with.
    pub fn weights(folder: &Path) -> PathBuf {
        folder.join("weights").join("weights.safetensors")
    }
}

/// What is to be run in `folder`, in order.
///
/// # Errors
/// Settings that make no run.
pub(super) fn plan(arguments: &Arguments, folder: &Path) -> Result<Vec<Job>, CliError> {
    if arguments.preset == Some(Preset::Embed) && arguments.data == SCENES {
        let arch: Arch = arguments.model.parse()?;
        let phases = recipe(arch);
        if !phases.is_empty() {
            return embedding(arguments, arch, &phases, folder);
        }
    }
    if arguments.resume && arguments.preset.is_some() {
        let text = "--preset says how a run begins; leave it out to go on with the settings that the run has";
        return Err(CliError(text.into()));
    }
    let config = overridden(arguments, one_config(arguments, folder)?)?;
    let begin = if arguments.resume || arguments.fork.is_some() {
        Begin::Resume
    } else {
        chosen_start(arguments).unwrap_or(Begin::Fresh(InitialWeights::Random))
    };
    let (until, half) = (arguments.until, arguments.embed.clone());
    Ok(vec![Job { config, folder: folder.to_path_buf(), begin, until, half }])
}

/// The weights that the command names.
fn chosen_start(arguments: &Arguments) -> Option<Begin> {
    let weights = arguments.weights.clone().map(Begin::Weights);
    weights.or(arguments.backbone.clone().map(|file| Begin::Fresh(InitialWeights::File(file))))
}

/// The phases of a recipe: in `folder`, or in folders of their own below it where there are more than one.
fn embedding(
    arguments: &Arguments,
    arch: Arch,
    phases: &[EmbeddingPhase],
    folder: &Path,
) -> Result<Vec<Job>, CliError> {
    if let (Some(until), true) = (arguments.until, phases.len() > 1) {
        let text = format!("--until {until} ends one run, and {arch} is made in {}: leave it out", phases.len());
        return Err(CliError(text));
    }
    let place = |number: usize| if phases.len() > 1 { phase_folder(folder, number + 1) } else { folder.to_path_buf() };
    let half = |number: usize| place(number).join("weights").join("half.safetensors");
    let mut jobs = Vec::with_capacity(phases.len());
    // A phase is gone on with once those before it are done: what its folder holds otherwise is of an earlier attempt.
    let mut resume = arguments.resume;
    for (number, phase) in phases.iter().enumerate() {
        let own = place(number);
        resume &= last(&own).is_file();
        let base = if resume { saved_config(&own)? } else { phase.config(arch)? };
        if base.model.arch() != arch {
            let found = base.model.arch();
            return Err(CliError(format!("this is a run of {found}; say --model {found}: {}", own.display())));
        }
        let mut config = overridden(arguments, base)?;
        if let Some(split) = &arguments.split {
            config.split = Some(split.clone());
        }
        let begin = match (phase.start, number.checked_sub(1)) {
            _ if resume => Begin::Resume,
            (Start::Last, Some(before)) => Begin::Weights(Job::weights(&place(before))),
            (Start::LastHalf, Some(before)) => Begin::Weights(half(before)),
            (Start::Body(relative), _) => first_or(arguments, number, InitialWeights::Embedded(relative)),
            (Start::Random | Start::Last | Start::LastHalf, _) => first_or(arguments, number, InitialWeights::Random),
        };
        let end = phase.end(&config.train);
        let early = resume && ended_early(&last(&own), config.train.patience);
        resume &= early || saved_iteration(&last(&own)).is_some_and(|done| done >= end);
        let half = match phases.get(number + 1) {
            Some(next) => (next.start == Start::LastHalf).then(|| half(number)),
            None => arguments.embed.clone(),
        };
        let until = phase.until.filter(|_| !early).map(|_| end).or(arguments.until);
        jobs.push(Job { config, folder: own, begin, until, half });
    }
    Ok(jobs)
}

/// Whether the run of `checkpoint` was ended by `patience`.
fn ended_early(checkpoint: &Path, patience: u64) -> bool {
    patience > 0 && saved_best(checkpoint).is_some_and(|best| best.without >= patience)
}

/// A start of the recipe's, or the command's own for the first phase.
fn first_or(arguments: &Arguments, number: usize, start: InitialWeights) -> Begin {
    chosen_start(arguments).filter(|_| number == 0).unwrap_or(Begin::Fresh(start))
}

fn phase_folder(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("phase-{number}"))
}

/// The settings of a single run, before what the command changes.
fn one_config(arguments: &Arguments, folder: &Path) -> Result<RunConfig, CliError> {
    if let Some(source) = &arguments.fork {
        return Ok(saved_config(source)?);
    }
    if arguments.resume {
        let phase = phase_folder(folder, 1);
        if !last(folder).is_file() && phase.is_dir() {
            return Err(CliError(format!(
                "these are the phases of embedded weights: add --preset embed --model NAME to go on with them, or go on \
                 with one of them alone, as {}",
                phase.display()
            )));
        }
        return Ok(saved_config(folder)?);
    }
    if let Some(path) = &arguments.config {
        let text = std::fs::read_to_string(path)
            .map_err(|e| format!("cannot read the configuration ({e}): {}", path.display()))?;
        let config = toml::from_str(&text);
        return Ok(config.map_err(|e| format!("the configuration does not read ({e}): {}", path.display()))?);
    }
    let arch: Arch = arguments.model.parse()?;
    let split = arguments.split.clone().or_else(|| data::open::training_split(&arguments.data));
    let dataset = data::open::open(&arguments.data, split.as_deref())?;
    let config = RunConfig::new(arch, &arguments.data, &dataset);
    Ok(match arguments.preset {
        Some(preset) => RunConfig { train: TrainConfig::preset(arch, preset)?, ..config },
        None => config,
    })
}

/// `base` with what the command changes.
fn overridden(arguments: &Arguments, mut base: RunConfig) -> Result<RunConfig, CliError> {
    if arguments.no_augmentation {
        base.train.augmentation = Augmentation::none();
    }
    arguments.set.iter().try_fold(base, |config, setting| {
        let Some((key, value)) = setting.split_once('=') else {
            return Err(CliError(format!("--set {setting}: write it as key=value")));
        };
        Ok(config::set(&config, key.trim(), value.trim())?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::checkpoint::{BEST, CONFIG, ITERATION};
    use crate::train::validation::Best;
    use crate::weights::{TensorData, write_safetensors};
    use clap::Parser;
    use std::collections::BTreeMap;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        train: Arguments,
    }

    fn planned(words: &[&str], folder: &Path) -> Result<Vec<Job>, String> {
        let line = Line::try_parse_from([&["train"][..], words].concat()).map_err(|e| e.to_string())?;
        plan(&line.train, folder).map_err(|CliError(text)| text)
    }

    #[test]
    fn the_preset_embed_runs_the_phases_of_the_recipe_and_settings_reach_each() {
        let root = Path::new("none");
        let words = ["--preset", "embed", "--model", "cascade-nano", "--set", "batch=3", "--embed", "file"];
        let jobs = planned(&words, root).unwrap();
        assert_eq!(jobs.len(), recipe(Arch::CascadeNano).len());
        assert!(jobs.iter().all(|job| job.config.train.batch == 3 && job.config.data.starts_with("shapes:train=")));
        assert_eq!((&jobs[0].begin, &jobs[0].folder), (&Begin::Fresh(InitialWeights::Random), &root.join("phase-1")));
        // The second begins where the first one ends.
        assert_eq!(Some(&jobs[1].begin), jobs[0].half.clone().map(Begin::Weights).as_ref());
        assert_eq!(jobs[jobs.len() - 1].half, Some(PathBuf::from("file")));
        let jobs = planned(&["--preset", "embed", "--model", "faster-nano"], root).unwrap();
        let [job] = jobs.as_slice() else { panic!("one phase") };
        assert_eq!(job.begin, Begin::Fresh(InitialWeights::Embedded(Arch::CascadeNano)));
        assert_eq!(job.folder, root);
    }

    /// What a run under `config` leaves after `iteration` iterations, its last validations `without` a better one.
    fn leave(folder: &Path, config: &RunConfig, iteration: u64, without: u64) {
        let metadata = BTreeMap::from([
            (CONFIG.to_string(), toml::to_string(config).unwrap()),
            (ITERATION.to_string(), iteration.to_string()),
            (BEST.to_string(), serde_json::to_string(&Best { without, ..Best::default() }).unwrap()),
        ]);
        let file = last(folder);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        write_safetensors(&file, &[("w".to_string(), vec![1], TensorData::F32(vec![0.0]))], &metadata).unwrap();
    }

    #[test]
    fn phases_are_gone_on_with_up_to_the_first_one_that_is_not_over() {
        let root = tempfile::tempdir().unwrap();
        let place = |number: usize| phase_folder(root.path(), number);
        let phases = recipe(Arch::SsdNano);
        let config = |number: usize| phases[number - 1].config(Arch::SsdNano).unwrap();
        let jobs = || planned(&["--resume", "--preset", "embed"], root.path()).unwrap();
        let resumed = |jobs: &[Job]| jobs.iter().map(|job| job.begin == Begin::Resume).collect::<Vec<bool>>();
        // The first is over before its schedule is; the third is what an earlier attempt left.
        leave(&place(1), &config(1), 2600, 0);
        leave(&place(2), &config(2), 700, 0);
        leave(&place(3), &config(3), 1300, 0);
        let found = jobs();
        assert_eq!(resumed(&found), [true, true, false, false]);
        assert_eq!(found[2].begin, Begin::Weights(Job::weights(&place(2))));
        assert_eq!((found[0].until, found[1].until), (Some(2600), None));
        leave(&place(1), &config(1), 1000, 3);
        assert_eq!(resumed(&jobs()), [true, false, false, false]);
        // The same, but ended by itself: no iteration is asked for.
        let mut patient = config(1);
        patient.train.patience = 3;
        leave(&place(1), &patient, 1000, 3);
        let found = jobs();
        assert_eq!((resumed(&found), found[0].until), (vec![true, true, false, false], None));
    }

    #[test]
    fn other_data_keep_the_settings_alone_and_what_makes_no_sense_is_said() {
        let data = "shapes:train=2,val=1,test=1";
        let words = ["--preset", "embed", "--model", "cascade-nano", "--data", data];
        let jobs = planned(&words, Path::new("none")).unwrap();
        let [job] = jobs.as_slice() else { panic!("one run") };
        assert_eq!((&job.config.train, job.config.data.as_str()), (&TrainConfig::new(Arch::CascadeNano), data));
        let cases: [(&[&str], &str); 4] = [
            (&["--preset", "embed", "--until", "5"], "--until 5"),
            (&["--preset", "embed", "--model", "ssd300"], "nano"),
            (&["--preset", "1x", "--resume"], "--preset"),
            (&["--set", "batch", "--data", data], "key=value"),
        ];
        for (words, part) in cases {
            let error = planned(words, Path::new("none")).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("phase-1")).unwrap();
        assert!(planned(&["--resume"], root.path()).unwrap_err().contains("--preset embed"));
        // Nothing to go on with yet: it begins.
        let jobs = planned(&["--resume", "--preset", "embed"], root.path()).unwrap();
        assert_eq!(jobs[0].begin, Begin::Fresh(InitialWeights::Random));
    }
}
