//! Loading a model: which network, which weights, and whether what loaded is enough to detect with.

use super::command::ModelChoice;
use super::device::device_name;
use super::event::ModelSummary;
use crate::detect::class_order::{ClassOrder, ordered, softmax_logits};
use crate::detect::implied::{classes_of, implied_arch, implied_in_order};
use crate::detect::yolov3::Yolov3Config;
use crate::detect::{Arch, Config, ConfigError, Detector, build, darknet, names};
use crate::nn::{Mode, Params, Pass};
use crate::train::checkpoint::described_model;
use crate::weights::{self, Checkpoint, DarknetWeights, Format, Layout, LoadReport, WeightsError};
use candle_core::{DType, Device, Tensor};
use std::path::{Path, PathBuf};

pub use crate::detect::implied::implied_config;

/// Why there is no model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Weights(#[from] WeightsError),
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    #[error(
        "these weights do not say which architecture they are for; name one with --model ({known}, or a darknet .cfg): \
         {path}"
    )]
    Undescribed { known: String, path: PathBuf },
    #[error("the weights are for {found}, not {asked}; leave out --model or choose other weights: {path}")]
    OtherArch { found: Arch, asked: Arch, path: PathBuf },
    #[error("a head of {arch} cannot have its background there: {order}")]
    ClassOrder { arch: Arch, order: ClassOrder },
    #[error(
        "the names in this file do not tell whether the class logits of {arch} have their background first, last or not \
         at all; say it with --background: {path}"
    )]
    OrderUnknown { arch: Arch, path: PathBuf },
    #[error("{arch} has no embedded weights; give a file with --weights, or --allow-partial for random ones")]
    NoWeights { arch: Arch },
    #[error("{path}: no tensor of it has a name and shape of {arch}'s; `boxwright weights` lists what is in it")]
    NothingFits { arch: Arch, path: PathBuf },
    #[error(
        "{path}: only {coverage:.1} % of {arch} is in this file ({loaded} tensors fit, {missing} are missing, {mismatched} \
         have another shape); it may be of another architecture. See `boxwright weights`, or use --allow-partial"
    )]
    Partial { arch: Arch, coverage: f64, loaded: usize, missing: usize, mismatched: usize, path: PathBuf },
}

impl ModelError {
    /// Whether the same file may load once somebody says, or says otherwise, where its background is.
    pub fn asks_for_the_order(&self) -> bool {
        matches!(self, Self::ClassOrder { .. } | Self::OrderUnknown { .. })
    }
}

/// How the source of weights ends that are in memory alone.
pub const NOT_SAVED: &str = "not saved";

/// What a model may lack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permit {
    /// Anything: without weights it is random.
    pub partial: bool,
    /// A head of another number of classes stays as it was built.
    pub reinitialise_head: bool,
    /// Where the class logits of a file have their background; what its names tell where nothing is said.
    pub class_order: Option<ClassOrder>,
}

/// A network with its weights.
pub struct Model {
    pub detector: Box<dyn Detector>,
    pub report: Option<LoadReport>,
    /// "embedded", the file, or "random".
    pub source: String,
}

impl Model {
    pub fn summary(&self) -> ModelSummary {
        ModelSummary {
            config: self.detector.config().clone(),
            weights: self.source.clone(),
            report: self.report.clone(),
            parameters: self.detector.params().trained_elements(),
            device: device_name(self.detector.params().device()),
            layouts: self.detector.layouts().to_vec(),
            flops: 0.0,
        }
    }
}

/// Builds the chosen network and loads `file`, or the embedded weights, or (only with `allow_partial`) random ones.
///
/// # Errors
/// An unknown name, a file that does not read or does not fit. See [`ModelError`].
pub fn load(
    choice: &ModelChoice,
    file: Option<&Path>,
    allow_partial: bool,
    device: &Device,
) -> Result<Model, ModelError> {
    load_permitting(choice, file, Permit { partial: allow_partial, ..Permit::default() }, device)
}

/// As [`load`], with a say in what may be lacking.
///
/// # Errors
/// As [`load`].
pub fn load_permitting(
    choice: &ModelChoice,
    file: Option<&Path>,
    permit: Permit,
    device: &Device,
) -> Result<Model, ModelError> {
    let asked = match choice {
        ModelChoice::Named(name) => Some(name.parse::<Arch>()?),
        ModelChoice::Configured(config) => Some(config.arch()),
        ModelChoice::FromWeights => None,
    };
    let Some(path) = file else {
        return without_file(choice, asked.unwrap_or(Arch::SsdNano), permit, device);
    };
    let mut checkpoint = weights::open(path)?;
    let described = described_model(checkpoint.metadata());
    if let (Some(found), Some(asked)) = (described.as_ref().map(Config::arch), asked)
        && found != asked
    {
        return Err(ModelError::OtherArch { found, asked, path: path.into() });
    }
    let layout = translate(&mut checkpoint);
    let config = match (described, choice, asked.or_else(|| implied_arch(&checkpoint))) {
        (_, ModelChoice::Configured(config), _) => with_order((**config).clone(), permit.class_order)?,
        (Some(config), _, _) => with_order(config, permit.class_order)?,
        (None, _, Some(arch)) => match permit.class_order {
            None if !permit.partial && !tells_the_order(arch, &checkpoint) => {
                return Err(ModelError::OrderUnknown { arch, path: path.into() });
            }
            None => implied_config(arch, &checkpoint),
            Some(order) => implied_in_order(arch, &checkpoint, order).ok_or(ModelError::ClassOrder { arch, order })?,
        },
        (None, _, None) => {
            let known = Arch::ALL.map(Arch::name).join(", ");
            return Err(ModelError::Undescribed { known, path: path.into() });
        }
    };
    let detector = match choice {
        ModelChoice::Named(_) => build_for(&config, &checkpoint, device)?,
        _ => build(&config, device, 0)?,
    };
    let report = fill(&*detector, checkpoint, permit.class_order.or(own_order(layout)))?;
    let report = permitted(report, &config, permit, path)?;
    Ok(Model { detector, report: Some(report), source: path.display().to_string() })
}

/// The report, where all that it leaves unfilled is permitted.
fn permitted(mut report: LoadReport, config: &Config, permit: Permit, path: &Path) -> Result<LoadReport, ModelError> {
    let backbone = backbone_prefix(config);
    if let (true, Some(backbone)) = (permit.reinitialise_head, backbone) {
        report.reinitialise(backbone);
    }
    if !permit.partial && !report.suffices(backbone) {
        return Err(ModelError::Partial {
            arch: config.arch(),
            coverage: report.coverage * 100.0,
            loaded: report.loaded.len(),
            missing: report.missing.len(),
            mismatched: report.mismatched.len(),
            path: path.into(),
        });
    }
    Ok(report)
}

/// Whether the order of a (translated) checkpoint's class logits is known without being said: its code base has one,
/// the head can have no other, or the file has no head.
fn tells_the_order(arch: Arch, checkpoint: &Checkpoint) -> bool {
    let config = Config::new(arch, &names::names_for(80));
    let possible = ClassOrder::ALL.into_iter().filter(|order| ordered(config.clone(), *order).is_some()).count();
    checkpoint.layout().is_some() || possible < 2 || classes_of(&config, checkpoint).is_none()
}

/// The settings for weights of that order, where one is said.
fn with_order(config: Config, order: Option<ClassOrder>) -> Result<Config, ModelError> {
    let Some(order) = order else { return Ok(config) };
    let arch = config.arch();
    ordered(config, order).ok_or(ModelError::ClassOrder { arch, order })
}

/// The order of class logits of a softmax, where the code base has another than this program.
fn own_order(layout: Option<Layout>) -> Option<ClassOrder> {
    (layout == Some(Layout::MmdetSsd)).then_some(ClassOrder::BackgroundLast)
}

/// Loads what fits of a (translated) checkpoint.
fn fill(detector: &dyn Detector, checkpoint: Checkpoint, order: Option<ClassOrder>) -> Result<LoadReport, ModelError> {
    let params = detector.params();
    let report = params.load(&named(params, checkpoint)?)?;
    if let (Some(ClassOrder::BackgroundLast), Some((head, logits))) = (order, softmax_logits(detector.config())) {
        background_first(params, head, logits, &report)?;
    }
    Ok(report)
}

/// Darknet's floats under the names of the parameters that they belong to; other checkpoints as they are.
fn named(params: &Params, checkpoint: Checkpoint) -> Result<Checkpoint, WeightsError> {
    match checkpoint.format() {
        Format::Darknet => darknet::weights::checkpoint(params, &DarknetWeights::from_checkpoint(&checkpoint)?),
        _ => Ok(checkpoint),
    }
}

/// Gives `detector` whatever of the file at `path` fits it, and leaves the rest as it is: the backbone of a classification
/// network, the body that another detector shares with it.
///
/// # Errors
/// A file that does not read, or of which nothing fits.
pub fn initialise(detector: &dyn Detector, path: &Path) -> Result<LoadReport, ModelError> {
    let mut checkpoint = weights::open(path)?;
    let layout = translate(&mut checkpoint);
    fill_some(detector, checkpoint, own_order(layout), path)
}

/// As [`initialise`], from the weights that are embedded for `relative`.
///
/// # Errors
/// A network without embedded weights, or with some of which nothing fits.
pub fn initialise_from_embedded(detector: &dyn Detector, relative: Arch) -> Result<LoadReport, ModelError> {
    let bytes = relative.embedded_weights().ok_or(ModelError::NoWeights { arch: relative })?;
    fill_some(detector, weights::from_bytes(bytes)?, None, Path::new(relative.name()))
}

/// [`fill`], where loading nothing is an error.
fn fill_some(
    detector: &dyn Detector,
    checkpoint: Checkpoint,
    order: Option<ClassOrder>,
    path: &Path,
) -> Result<LoadReport, ModelError> {
    let report = fill(detector, checkpoint, order)?;
    if report.loaded.is_empty() {
        return Err(ModelError::NothingFits { arch: detector.config().arch(), path: path.into() });
    }
    Ok(report)
}

/// What the names of a detector's backbone start with, where a file may lack a little of it.
fn backbone_prefix(config: &Config) -> Option<&'static str> {
    Some(match config {
        Config::Ssd(_) => "backbone.features.",
        Config::Retinanet(_) | Config::Fcos(_) | Config::Rcnn(_) => "backbone.body.",
        Config::Refinedet(refinedet) if refinedet.resnet.is_some() => "base.",
        Config::Refinedet(_) => "vgg.",
        Config::M2det(_) => "base.",
        Config::Yolov3(_) => "backbone.",
        Config::Darknet(_) => return None,
    })
}

/// Builds the network, a YOLOv3 for as many classes as darknet weights have.
fn build_for(config: &Config, checkpoint: &Checkpoint, device: &Device) -> Result<Box<dyn Detector>, ModelError> {
    let detector = build(config, device, 0)?;
    if let (Config::Yolov3(yolov3), Format::Darknet) = (config, checkpoint.format()) {
        let floats = DarknetWeights::from_checkpoint(checkpoint)?.floats.len();
        if let Some(fitting) = of_as_many_classes(yolov3, detector.params().elements(), floats) {
            return Ok(build(&Config::Yolov3(fitting), device, 0)?);
        }
    }
    Ok(detector)
}

/// The same YOLOv3 for the number of classes that darknet weights of `found` floats have, where it is another one than
/// that of the network of `own`: each class is one filter for every prior of a level.
fn of_as_many_classes(config: &Yolov3Config, own: usize, found: usize) -> Option<Yolov3Config> {
    let filters = config.anchors.iter().zip(config.stages.iter().rev());
    let per_class: usize = filters.map(|(priors, channels)| priors.len() * (channels + 1)).sum();
    let head = config.classes.len() * per_class;
    let rest = own.checked_sub(head)?;
    let classes = found.checked_sub(rest)?;
    let whole = per_class > 0 && classes.is_multiple_of(per_class) && classes > 0 && found != own;
    let count = whole.then(|| classes / per_class).filter(|&count| count <= MOST_DARKNET_CLASSES)?;
    Some(Yolov3Config { classes: names::names_for(count), ..config.clone() })
}

/// YOLO9000 has 9418; a file that implies more is of another network.
const MOST_DARKNET_CLASSES: usize = 10_000;

fn without_file(choice: &ModelChoice, arch: Arch, permit: Permit, device: &Device) -> Result<Model, ModelError> {
    let embedded = match arch.embedded_weights() {
        Some(bytes) => Some(weights::from_bytes(bytes)?),
        None => None,
    };
    match embedded {
        Some(checkpoint) => {
            let config = match (choice, described_model(checkpoint.metadata())) {
                (ModelChoice::Configured(config), _) => (**config).clone(),
                (_, Some(config)) => config,
                (_, None) => implied_config(arch, &checkpoint),
            };
            let detector = build(&config, device, 0)?;
            let report = permitted(detector.params().load(&checkpoint)?, &config, permit, Path::new(arch.name()))?;
            Ok(Model { detector, report: Some(report), source: "embedded".into() })
        }
        None if permit.partial => {
            let config = match choice {
                ModelChoice::Configured(config) => (**config).clone(),
                _ => Config::new(arch, &names::names_for(80)),
            };
            Ok(Model { detector: build(&config, device, 0)?, report: None, source: "random".into() })
        }
        None => Err(ModelError::NoWeights { arch }),
    }
}

/// Builds `arch` for 80 classes under random weights and counts its operations in one forward pass.
///
/// # Errors
/// A device that cannot hold the network.
pub fn survey(arch: Arch, device: &Device) -> Result<ModelSummary, ModelError> {
    let config = Config::new(arch, &names::names_for(80));
    let model = Model { detector: build(&config, device, 0)?, report: None, source: "random".into() };
    Ok(ModelSummary { flops: flops(&*model.detector)?, ..model.summary() })
}

/// Operations of one pass over an empty image of the network's own size, a multiply–add counting two.
///
/// # Errors
/// Those of the network.
pub fn flops(detector: &dyn Detector) -> candle_core::Result<f64> {
    let (height, width) = detector.config().input();
    let pass = Pass::new(Mode::Infer);
    let image = Tensor::zeros((1, 3, height, width), DType::F32, detector.params().device())?;
    detector.forward(&image, &pass)?;
    Ok(pass.flops())
}

/// The (translated) checkpoint by the names of the network that `config` describes, which alone knows the layers of
/// darknet's floats, and what of it fits.
///
/// # Errors
/// A configuration that makes no network, or darknet weights of another one.
pub fn fit(config: &Config, checkpoint: Checkpoint) -> Result<(Checkpoint, LoadReport), ModelError> {
    let detector = build_for(config, &checkpoint, &Device::Cpu)?;
    let checkpoint = named(detector.params(), checkpoint)?;
    let report = weights::compare(&detector.params().expected(), &checkpoint);
    Ok((checkpoint, report))
}

/// Background counted last comes to the front: every anchor's group of class rows that was loaded is turned by one.
fn background_first(params: &Params, head: &str, logits: usize, report: &LoadReport) -> candle_core::Result<()> {
    for (name, (_, mut values)) in params.values()? {
        if !name.starts_with(head) || !report.loaded.contains(&name) {
            continue;
        }
        let rows = params.get(&name).and_then(|p| p.var.dims().first().copied()).unwrap_or(1).max(1);
        let row = values.len() / rows;
        for anchor in values.chunks_exact_mut(logits * row) {
            anchor.rotate_right(row);
        }
        params.set(&name, &values)?;
    }
    Ok(())
}

/// Renames the keys of a known layout to this program's own.
pub fn translate(checkpoint: &mut Checkpoint) -> Option<Layout> {
    checkpoint.translate()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_background_that_is_last_comes_to_the_front() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.safetensors");
        // 4 priors with two logits each, and with three in a head of another class count
        let name = "head.classification_head.module_list.0.bias".to_string();
        let write = |count: usize| {
            let values = (0..count).map(|k| k as f32).collect();
            let tensor = (name.clone(), vec![count], weights::TensorData::F32(values));
            weights::write_safetensors(&path, &[tensor], &std::collections::BTreeMap::new()).unwrap();
        };
        let filled = |order: Option<ClassOrder>| {
            let detector = build(&Config::new(Arch::SsdNano, &["a".to_string()]), &Device::Cpu, 0).unwrap();
            fill(&*detector, weights::open(&path).unwrap(), order).unwrap();
            detector.params().values().unwrap()[&name].1.clone()
        };
        write(8);
        assert_eq!(filled(None), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        assert_eq!(filled(Some(ClassOrder::BackgroundLast)), [1.0, 0.0, 3.0, 2.0, 5.0, 4.0, 7.0, 6.0]);
        assert_eq!(own_order(Some(Layout::MmdetSsd)), Some(ClassOrder::BackgroundLast));
        // what was not loaded stays as it was built
        write(12);
        assert_eq!(filled(Some(ClassOrder::BackgroundLast)), filled(None));
    }

    #[test]
    fn an_order_that_no_name_tells_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.safetensors");
        let values = weights::TensorData::F32(vec![0.0; 5]);
        let head = ("head.classification_head.cls_logits.weight".to_string(), vec![5, 1, 1, 1], values);
        weights::write_safetensors(&path, &[head], &std::collections::BTreeMap::new()).unwrap();
        let failure = |class_order| {
            let permit = Permit { class_order, ..Permit::default() };
            let loaded = load_permitting(&ModelChoice::Named("fcos-nano".into()), Some(&path), permit, &Device::Cpu);
            loaded.err().expect("nothing but a part of the head is in the file")
        };
        assert!(matches!(failure(None), ModelError::OrderUnknown { arch: Arch::FcosNano, .. }));
        assert!(matches!(failure(Some(ClassOrder::BackgroundLast)), ModelError::ClassOrder { .. }));
        let said = failure(Some(ClassOrder::NoBackground));
        assert!(matches!(said, ModelError::Partial { .. }) && !said.asks_for_the_order());
    }

    #[test]
    fn a_head_for_other_classes_is_fresh_only_where_that_is_asked_for() {
        let described = load(&ModelChoice::Named("ssd-nano".into()), None, false, &Device::Cpu).unwrap();
        let classes = ["a".to_string(), "b".to_string()];
        let config = described.detector.config().with_classes(&classes).unwrap();
        let choice = ModelChoice::Configured(Box::new(config));
        let asset = Path::new("assets/ssd-nano.safetensors");
        for file in [None, Some(asset)] {
            let refused = load(&choice, file, false, &Device::Cpu);
            assert!(matches!(refused.err(), Some(ModelError::Partial { .. })));
            let permit = Permit { reinitialise_head: true, ..Permit::default() };
            let model = load_permitting(&choice, file, permit, &Device::Cpu).unwrap();
            let fresh = model.report.unwrap().reinitialised;
            assert!(!fresh.is_empty() && fresh.iter().all(|name| name.starts_with("head.classification_head.")));
            assert_eq!(model.detector.classes(), classes);
        }
    }

    #[test]
    fn weights_that_say_what_they_are_take_another_order_or_refuse_it() {
        let config = |arch| Config::new(arch, &["a".to_string()]);
        let last = Some(ClassOrder::BackgroundLast);
        assert_eq!(with_order(config(Arch::FcosNano), None).unwrap(), config(Arch::FcosNano));
        assert_eq!(with_order(config(Arch::SsdNano), last).unwrap(), config(Arch::SsdNano));
        let Config::Rcnn(changed) = with_order(config(Arch::FasterR50), last).unwrap() else {
            panic!("another family")
        };
        assert_eq!(changed.background, crate::detect::rcnn::Background::Last);
        let text = with_order(config(Arch::FcosNano), last).unwrap_err().to_string();
        assert!(text.contains("fcos-nano") && text.contains("last"), "{text}");
    }

    #[test]
    fn darknets_floats_tell_the_number_of_classes() {
        let config = Yolov3Config::yolov3(&names::names_for(80));
        // the published files: COCO's 80 classes, VOC's 20, and a backbone alone
        let (coco, voc, backbone) = (62_001_757, 61_678_657, 40_620_640);
        let fitting = of_as_many_classes(&config, coco, voc).map(|config| config.classes.len());
        assert_eq!(fitting, Some(20));
        assert_eq!(of_as_many_classes(&config, coco, coco), None);
        assert_eq!(of_as_many_classes(&config, coco, backbone), None);
        assert_eq!(of_as_many_classes(&config, coco, voc + 1), None);
    }
}
