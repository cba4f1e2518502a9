//! The runs that `boxwright train` makes: one, or the phases that embedded weights are made in.

use super::{Arguments, CliError};
use crate::cli::detect;
use crate::data;
use crate::data::statistics::fit_anchors;
use crate::detect::{Arch, Config, config};
use crate::engine::command::{InitialWeights, ModelChoice};
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
    if arguments.preset == Some(Preset::Embed) && arguments.data() == SCENES && !arguments.anchors {
        let arch: Arch = arguments.model().parse()?;
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
    let config = if arguments.anchors { with_fitted_priors(config)? } else { config };
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
        let over = |done: &u64| *done >= end || ended_early(&last(&own), config.train.patience);
        let over = saved_iteration(&last(&own)).filter(|done| resume && over(done));
        resume &= over.is_some();
        let half = match phases.get(number + 1) {
            Some(next) => (next.start == Start::LastHalf).then(|| half(number)),
            None => arguments.embed.clone(),
        };
        // Of a phase that is over no iteration is asked for.
        let until = over.or(phase.until.map(|_| end)).or(arguments.until);
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
        return taken_up(arguments, saved_config(source)?);
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
        return taken_up(arguments, saved_config(folder)?);
    }
    if let Some(path) = &arguments.config {
        return taken_up(arguments, read(path)?);
    }
    let own = match detect::choice(Some(arguments.model()), None)? {
        ModelChoice::Configured(config) => Some(*config),
        _ => None,
    };
    let arch = match &own {
        Some(config) => config.arch(),
        None => arguments.model().parse()?,
    };
    let split = arguments.split.clone().or_else(|| data::open::training_split(arguments.data()));
    let dataset = data::open::open(arguments.data(), split.as_deref())?;
    let mut config = RunConfig::new(arch, arguments.data(), &dataset);
    if let Some(Config::Darknet(cfg)) = own {
        config.model = Config::Darknet(cfg.with_classes(&dataset.classes)?);
    }
    Ok(match arguments.preset {
        Some(preset) => RunConfig { train: TrainConfig::preset(arch, preset)?, ..config },
        None => config,
    })
}

/// The settings in a TOML file.
fn read(path: &Path) -> Result<RunConfig, CliError> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| format!("cannot read the configuration ({e}): {}", path.display()))?;
    let config = toml::from_str(&text);
    Ok(config.map_err(|e| format!("the configuration does not read ({e}): {}", path.display()))?)
}

/// Where a run goes that is given no folder.
///
/// # Errors
/// Settings that do not read.
pub(super) fn own_folder(arguments: &Arguments) -> Result<PathBuf, CliError> {
    let runs = Path::new("runs");
    Ok(match (&arguments.config, &arguments.model) {
        (Some(path), None) => runs.join(read(path)?.model.arch().name()),
        _ => runs.join(Path::new(arguments.model()).file_stem().unwrap_or_default()),
    })
}

/// The run with priors for the boxes that it learns from, as its network's input shows them.
fn with_fitted_priors(config: RunConfig) -> Result<RunConfig, CliError> {
    let Some(count) = config.model.shape_priors() else {
        return Err(CliError(format!("--anchors: {} has no priors to fit; YOLO's networks have", config.model.arch())));
    };
    let dataset = data::open::open(&config.data, config.split.as_deref())?;
    let fit = fit_anchors(&dataset, config.model.preprocess(), count, config.train.seed);
    let model = config.model.with_shape_priors(&fit.anchors)?;
    println!("{count} anchors for {} boxes, average IoU {:.3}", fit.objects, fit.average_iou);
    Ok(RunConfig { model, ..config })
}

/// Settings that were read, on the data that the command names. A network cannot be exchanged under them.
fn taken_up(arguments: &Arguments, mut base: RunConfig) -> Result<RunConfig, CliError> {
    if let Some(name) = &arguments.model {
        let wanted: Arch = match detect::choice(Some(name), None)? {
            ModelChoice::Configured(config) => config.arch(),
            _ => name.parse()?,
        };
        let found = base.model.arch();
        if wanted != found {
            let text =
                format!("these are the settings of {found}, not {wanted}: leave --model out, or begin a new run");
            return Err(CliError(text));
        }
    }
    if let Some(data) = arguments.data.as_ref().filter(|data| **data != base.data) {
        base.split = data::open::training_split(data);
        base.data.clone_from(data);
    }
    if arguments.split.is_some() {
        base.split.clone_from(&arguments.split);
    }
    Ok(base)
}

/// `base` with what the command changes.
fn overridden(arguments: &Arguments, mut base: RunConfig) -> Result<RunConfig, CliError> {
    if arguments.no_augmentation {
        base.train.augmentation = Augmentation::none();
    }
    if let Some(precision) = arguments.precision {
        base.train.precision = precision;
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
        let jobs = planned(&[&words[..], &["--precision", "bf16"]].concat(), root).unwrap();
        assert!(jobs.iter().all(|job| job.config.train.precision.name() == "bf16"));
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
        // The same, but ended by itself: no further iteration is asked for.
        let mut patient = config(1);
        patient.train.patience = 3;
        leave(&place(1), &patient, 1000, 3);
        let found = jobs();
        assert_eq!((resumed(&found), found[0].until), (vec![true, true, false, false], Some(1000)));
        // The second came to the end of its schedule.
        leave(&place(2), &config(2), 1900, 0);
        assert_eq!(jobs()[1].until, Some(1900));
    }

    #[test]
    fn settings_that_are_read_take_the_data_of_the_command_and_no_other_network() {
        let root = tempfile::tempdir().unwrap();
        let kept = recipe(Arch::SsdNano)[0].config(Arch::SsdNano).unwrap();
        leave(root.path(), &kept, 5, 0);
        let file = root.path().join("config.toml");
        std::fs::write(&file, toml::to_string(&kept).unwrap()).unwrap();
        let (file, run) = (file.to_str().unwrap(), root.path().to_str().unwrap());
        let other = "shapes:train=2,val=1,test=1";
        let ways = [&["--resume"][..], &["--config", file][..], &["--fork", run, "--at", "5"][..]];
        for way in ways {
            let config =
                |words: &[&str]| planned(&[way, words].concat(), root.path()).map(|jobs| jobs[0].config.clone());
            assert_eq!(config(&["--model", "ssd-nano"]).unwrap(), kept);
            let moved = config(&["--data", other]).unwrap();
            assert_eq!((moved.data.as_str(), moved.split.as_deref()), (other, Some("train")));
            let split = config(&["--data", other, "--split", "val"]).unwrap().split;
            assert_eq!(split.as_deref(), Some("val"));
            let error = config(&["--model", "fcos-nano"]).unwrap_err();
            assert!(error.contains("ssd-nano") && error.contains("fcos-nano"), "{error}");
        }
    }

    #[test]
    fn a_run_that_is_given_no_folder_goes_where_its_network_is_named() {
        let root = tempfile::tempdir().unwrap();
        let (file, kept) = (root.path().join("config.toml"), recipe(Arch::FcosNano)[0].config(Arch::FcosNano));
        std::fs::write(&file, toml::to_string(&kept.unwrap()).unwrap()).unwrap();
        let file = file.to_str().unwrap();
        let folder = |words: &[&str]| {
            let line = Line::try_parse_from([&["train"][..], words].concat()).unwrap();
            own_folder(&line.train).map_err(|CliError(text)| text).unwrap()
        };
        assert_eq!(folder(&[]), Path::new("runs/ssd-nano"));
        assert_eq!(folder(&["--model", "cfgs/yolov3-tiny.cfg"]), Path::new("runs/yolov3-tiny"));
        assert_eq!(folder(&["--config", file]), Path::new("runs/fcos-nano"));
        let refused = |words: &[&str]| planned(&[&["--config", file][..], words].concat(), root.path()).unwrap_err();
        assert!(refused(&["--resume"]).contains("--resume"));
        assert!(refused(&["--fork", "run", "--at", "5"]).contains("--fork"));
    }

    #[test]
    fn yolo_learns_with_the_priors_of_its_data_and_a_cfg_with_its_classes() {
        let data = ["--data", "shapes:train=12,val=1,test=1"];
        let run = |words: &[&str]| planned(&[words, &data[..]].concat(), Path::new("none"));
        let model = |words: &[&str]| run(words).unwrap().remove(0).config.model;
        let (published, fitted) = (model(&["--model", "yolov3-nano"]), model(&["--model", "yolov3-nano", "--anchors"]));
        assert_eq!((fitted.shape_priors(), fitted.classes()), (Some(9), published.classes()));
        assert_ne!(fitted, published);
        assert!(run(&["--model", "ssd-nano", "--anchors"]).unwrap_err().contains("ssd-nano"));
        let root = tempfile::tempdir().unwrap();
        let cfg = root.path().join("net.cfg");
        let text = "[net]\nwidth=64\nheight=64\n[convolutional]\nfilters=12\nactivation=linear\n\
                    [yolo]\nanchors=8,8, 20,20\nclasses=1\n";
        std::fs::write(&cfg, text).unwrap();
        let own = model(&["--model", cfg.to_str().unwrap(), "--anchors"]);
        let Config::Darknet(darknet) = &own else { panic!("{}", own.arch()) };
        assert_eq!((darknet.classes.as_slice(), own.shape_priors()), (published.classes(), Some(2)));
        assert!(!darknet.cfg.contains("anchors=8,8"), "{}", darknet.cfg);
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
