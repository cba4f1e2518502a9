//! Whole networks on one picture: the stages from the file's bytes to detections, and what the probe costs.

use super::{Measurement, StageTimes, Times, measure, measure_in_turns, random_tensor};
use crate::detect::names::names_for;
use crate::detect::predict::inference_pass;
use crate::detect::{Arch, Config, ConfigError, Detector, build, predict};
use crate::engine::device::DeviceChoice;
use crate::imaging::decode::decode;
use crate::imaging::picture::Picture;
use crate::imaging::preprocess::{Fit, Preprocess};
use crate::nn::backbone::resnet::{Norm, ResNetConfig};
use crate::random::Random;
use candle_core::{Error, Result};
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use std::hint::black_box;

/// JPEG quality of the picture, as cameras and data sets have it.
const QUALITY: u8 = 90;

/// A network under random weights at one input size.
#[derive(Clone, Debug)]
pub struct Subject {
    pub config: Config,
    /// Of the picture, pixels. The network's input is as large, padded where the network needs it.
    pub width: usize,
    pub height: usize,
    /// Where the network is timed; the CPU unless [`Self::on`] says otherwise.
    device: DeviceChoice,
}

impl Subject {
    /// `arch` at its own size, or for a square input of `side` pixels. Where torchvision has the same network it has
    /// torchvision's 90 classes, otherwise COCO's 80; nothing is frozen, as in torchvision's networks without weights.
    ///
    /// # Errors
    /// A size that the network does not take.
    pub fn new(arch: Arch, side: Option<usize>) -> std::result::Result<Self, ConfigError> {
        let classes = if torchvision_name(arch).is_some() { 90 } else { 80 };
        let mut config = Config::new(arch, &names_for(classes));
        unfreeze(&mut config);
        if let Some(side) = side {
            config = sized(config, side)?;
        }
        let (width, height) = match config.preprocess().fit {
            Fit::Stretch { width, height } | Fit::Letterbox { width, height, .. } => (width, height),
            Fit::ShortestEdge { short, .. }
            | Fit::ShortestEdgeRounded { short, .. }
            | Fit::ShortestEdgeAntialias { short, .. } => (short, short),
        };
        Ok(Self { config, width, height, device: DeviceChoice::Cpu })
    }

    /// The same on another device.
    pub fn on(self, device: DeviceChoice) -> Self {
        Self { device, ..self }
    }

    /// An architecture's name, or one with the side of the input behind it: `yolov3-416` is `yolov3` with 416.
    ///
    /// # Errors
    /// No such architecture, two different sides, or one that the network does not take.
    pub fn named(name: &str, side: Option<usize>) -> std::result::Result<Self, ConfigError> {
        let unknown = match name.parse::<Arch>() {
            Ok(arch) => return Self::new(arch, side),
            Err(unknown) => unknown,
        };
        let parts = name.rsplit_once('-').map(|(arch, own)| (arch.parse::<Arch>(), own.parse::<usize>()));
        let Some((Ok(arch), Ok(own))) = parts else { return Err(unknown) };
        match side {
            Some(side) if side != own => {
                let reason = format!("{name} names its side");
                Err(ConfigError::BadValue { key: "--size".into(), value: side.to_string(), reason })
            }
            _ => Self::new(arch, Some(own)),
        }
    }

    /// `retinanet@800`, `yolov3@416`, `retinanet-nano@256x192`.
    pub fn label(&self) -> String {
        let arch = self.config.arch();
        let name = torchvision_name(arch).unwrap_or(arch.name());
        if self.width == self.height {
            format!("{name}@{}", self.width)
        } else {
            format!("{name}@{}x{}", self.width, self.height)
        }
    }

    /// Width and height of the network's input, pixels.
    pub fn input(&self) -> (usize, usize) {
        self.config.preprocess().input_size(self.width, self.height)
    }

    /// The network, its weights always the same random ones.
    ///
    /// # Errors
    /// A configuration that makes no network, or a device that does not open.
    pub fn build(&self) -> Result<Box<dyn Detector>> {
        match self.device.open() {
            Ok(device) => build(&self.config, &device, 1),
            Err(reason) => candle_core::bail!("{reason}"),
        }
    }

    /// From a picture's pixels to detections; and the network alone, on `batch` images, between an input tensor and raw
    /// head outputs. The first has the stages, with the decoding of the picture's JPEG before them, which its own time
    /// leaves out as the peers do.
    ///
    /// # Errors
    /// Those of the network.
    pub fn forward(&self, batch: usize, repeat: usize) -> Result<Vec<Measurement>> {
        let detector = self.build()?;
        let picture = photograph(self.width, self.height)?;
        let bytes = jpeg(&picture)?;
        let decoding =
            measure(repeat, || decode(&bytes).map(|picture| drop(black_box(picture)))).map_err(Error::wrap)?;
        let mut stages = StageTimes::default();
        let whole = measure(repeat, || {
            let prediction = predict(&*detector, &picture, None, inference_pass(false))?;
            stages.add(prediction.timings.iter().map(|time| (time.stage.as_str(), time.seconds * 1e3)));
            Ok::<(), Error>(())
        })?;
        let mut whole = Measurement::new(format!("{} forward", self.label()), whole);
        whole.stages = vec![("decode picture".to_string(), decoding.median)];
        whole.stages.extend(stages.medians());

        let (width, height) = self.input();
        let device = detector.params().device();
        let images = random_tensor(&[batch, 3, height, width], &mut Random::new(2))?.to_device(device)?;
        let mut flops = 0.0;
        let alone = measure(repeat, || {
            let pass = inference_pass(false);
            black_box(detector.forward(&images, &pass)?);
            flops = pass.flops();
            device.synchronize()
        })?;
        let name = format!("{} network{}", self.label(), of_batch(batch));
        Ok(vec![whole, Measurement { flops, ..Measurement::new(name, alone) }])
    }

    /// From pixels to detections without and with the probe, in turns.
    ///
    /// # Errors
    /// Those of the network.
    pub fn probed(&self, repeat: usize) -> Result<Vec<Measurement>> {
        let detector = self.build()?;
        let picture = photograph(self.width, self.height)?;
        let run = |probe: bool| predict(&*detector, &picture, None, inference_pass(probe)).map(|p| drop(black_box(p)));
        let (off, on) = measure_in_turns(repeat, || run(false), || run(true))?;
        Ok(with_and_without(&format!("{} forward", self.label()), off, on))
    }
}

/// The same work without and with the probe; the second knows the factor between them.
pub(super) fn with_and_without(name: &str, off: Times, on: Times) -> Vec<Measurement> {
    let mut with = Measurement::new(format!("{name}, probe on"), on);
    with.numbers.push(("times_without_probe", on.median / off.median));
    vec![Measurement::new(format!("{name}, probe off"), off), with]
}

/// ` batch 8`, and nothing for one image.
pub(super) fn of_batch(batch: usize) -> String {
    if batch == 1 { String::new() } else { format!(" batch {batch}") }
}

/// The builder's short name where torchvision has this very network.
pub fn torchvision_name(arch: Arch) -> Option<&'static str> {
    match arch {
        Arch::Ssd300 => Some("ssd300"),
        Arch::RetinanetR50 => Some("retinanet"),
        Arch::FcosR50 => Some("fcos"),
        Arch::FasterR50 => Some("fasterrcnn"),
        Arch::MaskR50 => Some("maskrcnn"),
        _ => None,
    }
}

/// Lets the whole backbone learn, batch norms included.
fn unfreeze(config: &mut Config) {
    let backbone = |backbone: &mut ResNetConfig| {
        backbone.frozen_stages = 0;
        backbone.norm = Norm::Trained;
    };
    match config {
        Config::Retinanet(config) => backbone(&mut config.backbone),
        Config::Fcos(config) => backbone(&mut config.backbone),
        Config::Rcnn(config) => backbone(&mut config.backbone),
        Config::Refinedet(config) => config.resnet.iter_mut().for_each(backbone),
        Config::M2det(config) => config.resnet.iter_mut().for_each(backbone),
        Config::Yolov3(config) => config.still_backbone = false,
        Config::Ssd(_) | Config::Darknet(_) => {}
    }
}

/// The same network for pictures of `side`² pixels.
fn sized(config: Config, side: usize) -> std::result::Result<Config, ConfigError> {
    let arch = config.arch();
    let bad = |reason: String| ConfigError::BadValue { key: "--size".into(), value: side.to_string(), reason };
    if !(32..=4096).contains(&side) {
        return Err(bad("inputs have sides of 32 to 4096 pixels".into()));
    }
    let input = (side, side);
    let multiple_of = |step: usize| {
        if side.is_multiple_of(step) { Ok(()) } else { Err(bad(format!("{arch} takes multiples of {step} pixels"))) }
    };
    let at_side = |preprocess: &Preprocess| Preprocess { fit: resized(preprocess.fit, side), ..preprocess.clone() };
    Ok(match config {
        Config::Ssd(own) if own.input == input => Config::Ssd(own),
        Config::M2det(own) if own.input == input => Config::M2det(own),
        Config::Ssd(_) | Config::M2det(_) => {
            let (height, width) = config.input();
            return Err(bad(format!("the priors of {arch} belong to its input of {width}×{height} pixels")));
        }
        Config::Refinedet(mut own) => {
            multiple_of(own.coarsest_stride())?;
            (own.input, own.preprocess) = (input, at_side(&own.preprocess));
            Config::Refinedet(own)
        }
        Config::Retinanet(mut own) => {
            (own.input, own.preprocess) = (input, at_side(&own.preprocess));
            Config::Retinanet(own)
        }
        Config::Fcos(mut own) => {
            (own.input, own.preprocess) = (input, at_side(&own.preprocess));
            Config::Fcos(own)
        }
        Config::Rcnn(mut own) => {
            (own.input, own.preprocess) = (input, at_side(&own.preprocess));
            Config::Rcnn(own)
        }
        Config::Yolov3(own) => {
            multiple_of(32)?;
            Config::Yolov3(own.sized(side, side, true))
        }
        Config::Darknet(own) => {
            multiple_of(32)?;
            Config::Darknet(own.sized(side, side, true))
        }
    })
}

/// The same rule for a square of `side` pixels; the bound on the longer side grows and shrinks with the shorter one.
fn resized(fit: Fit, side: usize) -> Fit {
    let bound = |short: usize, long: usize| (long * side).div_ceil(short.max(1));
    match fit {
        Fit::Stretch { .. } => Fit::Stretch { width: side, height: side },
        Fit::Letterbox { fill, .. } => Fit::Letterbox { width: side, height: side, fill },
        Fit::ShortestEdge { short, long, divisor } => {
            Fit::ShortestEdge { short: side, long: bound(short, long), divisor }
        }
        Fit::ShortestEdgeRounded { short, long, divisor } => {
            Fit::ShortestEdgeRounded { short: side, long: bound(short, long), divisor }
        }
        Fit::ShortestEdgeAntialias { short, long, divisor } => {
            Fit::ShortestEdgeAntialias { short: side, long: bound(short, long), divisor }
        }
    }
}

/// Soft colours with a little noise: noise alone would compress, and so decode, like no photograph.
fn photograph(width: usize, height: usize) -> Result<Picture> {
    let mut rng = Random::new(5);
    let mut bytes = Vec::with_capacity(3 * width * height);
    for y in 0..height {
        for x in 0..width {
            let (across, down) = (x as f32 / width as f32, y as f32 / height as f32);
            let waves = [(6.0 * across).sin(), (9.0 * down).sin(), (7.0 * (across + down)).cos()];
            bytes.extend(waves.map(|wave| (128.0 + 100.0 * wave + rng.range(-8.0, 8.0)) as u8));
        }
    }
    Picture::from_rgb(width as u32, height as u32, bytes).map_err(Error::wrap)
}

fn jpeg(picture: &Picture) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, QUALITY);
    encoder.encode(&picture.rgb, picture.width, picture.height, ExtendedColorType::Rgb8).map_err(Error::wrap)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(arch: Arch, side: Option<usize>) -> String {
        Subject::new(arch, side).unwrap().label()
    }

    #[test]
    fn labels_are_the_peers_where_they_have_the_network() {
        assert_eq!(label(Arch::Ssd300, None), "ssd300@300");
        assert_eq!(label(Arch::RetinanetR50, None), "retinanet@800");
        assert_eq!(label(Arch::FasterR50, Some(416)), "fasterrcnn@416");
        assert_eq!(label(Arch::RetinanetR18, None), "retinanet-r18@800");
        assert_eq!(label(Arch::RetinanetNano, None), "retinanet-nano@256x192");
        assert_eq!((of_batch(1), of_batch(8)), (String::new(), " batch 8".to_string()));
    }

    #[test]
    fn a_size_reaches_the_input_or_is_refused() {
        for arch in [Arch::RetinanetR50, Arch::FcosR50, Arch::MaskR50, Arch::Refinedet320, Arch::Yolov3] {
            let subject = Subject::new(arch, Some(448)).unwrap();
            assert_eq!((subject.width, subject.height), (448, 448), "{arch}");
            assert_eq!(subject.input(), (448, 448), "{arch}");
        }
        assert_eq!(Subject::new(Arch::RetinanetR50, Some(300)).unwrap().input(), (320, 320));
        assert!(Subject::new(Arch::Ssd300, Some(300)).is_ok());
        let text = Subject::new(Arch::Ssd300, Some(512)).unwrap_err().to_string();
        assert!(text.contains("ssd300") && text.contains("300×300"), "{text}");
        assert!(Subject::new(Arch::Yolov3, Some(400)).is_err());
        assert!(Subject::new(Arch::RetinanetR50, Some(8)).is_err());
    }

    #[test]
    fn a_name_may_end_with_the_side() {
        let label = |name: &str, side| Subject::named(name, side).map(|s| s.label()).map_err(|e| e.to_string());
        assert_eq!(label("yolov3-416", None), label("yolov3", Some(416)));
        assert_eq!(label("yolov3-608", Some(608)), Ok("yolov3@608".to_string()));
        assert_eq!(label("retinanet-r50-v2-640", None), Ok("retinanet-r50-v2@640".to_string()));
        assert_eq!(label("m2det320-vgg", None), Ok("m2det320-vgg@320".to_string()));
        for (name, side, part) in [
            ("yolov3-416", Some(608), "--size"),
            ("yolov3-400", None, "multiples of 32"),
            ("ssd300-512", None, "300×300"),
            ("ssd-huge", None, "\"ssd-huge\""),
            ("ssd-huge-300", None, "\"ssd-huge-300\""),
        ] {
            let error = label(name, side).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn nothing_of_a_backbone_is_frozen() {
        let Config::Retinanet(config) = Subject::new(Arch::RetinanetR50, None).unwrap().config else {
            panic!("another family")
        };
        assert_eq!((config.backbone.frozen_stages, config.backbone.norm), (0, Norm::Trained));
    }

    #[test]
    fn the_picture_survives_its_jpeg() {
        let picture = photograph(40, 30).unwrap();
        let again = decode(&jpeg(&picture).unwrap()).unwrap();
        assert_eq!((again.width, again.height), (40, 30));
        let differences = picture.rgb.iter().zip(&again.rgb).map(|(a, b)| f64::from(a.abs_diff(*b)));
        assert!(differences.sum::<f64>() / (picture.rgb.len() as f64) < 10.0);
    }
}
