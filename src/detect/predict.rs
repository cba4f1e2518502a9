//! One picture through a detector: preprocess, forward, decode, suppress, back to the picture's own pixels.

use super::Detector;
use super::input::NetworkInput;
use super::rcnn::mask_in_picture;
use crate::geometry::{Detection, Object};
use crate::imaging::picture::Picture;
use crate::imaging::preprocess::Placement;
use crate::nn::{Mode, Pass};
use crate::trace::{FeatureMap, Preprocessing, StageTime, Trace};
use candle_core::Result;

/// What came out for one picture.
#[derive(Clone, Debug, Default)]
pub struct Prediction {
    /// Original pixels, clipped to the picture, best first.
    pub detections: Vec<Detection>,
    pub timings: Vec<StageTime>,
    /// Filled when the pass was probed.
    pub trace: Option<Trace>,
}

/// Detects in `picture`. With `objects` (original pixels) and a probed pass, the trace also holds assignment and losses.
///
/// # Errors
/// Those of the network, or "stopped on request".
pub fn predict(
    detector: &dyn Detector,
    picture: &Picture,
    objects: Option<&[Object]>,
    pass: Pass,
) -> Result<Prediction> {
    let device = detector.params().device();
    let input = pass.stage("preprocess", || NetworkInput::new(detector.preprocess(), picture, device))?;
    let outputs = detector.forward(&input.images, &pass)?;
    if pass.is_probed() {
        record_input(detector, &input, objects, &pass)?;
        if let Some(objects) = objects {
            let inside: Vec<Object> = in_input_pixels(objects, &input.placement);
            detector.losses(&outputs, &[inside], &pass)?;
        }
    }
    let found = detector.detect(&outputs, &pass)?.pop().unwrap_or_default();
    let (width, height) = (picture.width as f32, picture.height as f32);
    let detections: Vec<Detection> = found
        .into_iter()
        .map(|d| Detection {
            bbox: input.placement.to_original(d.bbox).clip(width, height),
            mask: d.mask.as_ref().and_then(|mask| mask_in_picture(mask, &input.placement)),
            ..d
        })
        .collect();
    pass.trace(0, |t| t.detections.clone_from(&detections));
    let timings = pass.timings();
    let trace = pass.into_traces().pop();
    Ok(Prediction { detections, timings, trace })
}

/// A pass for looking: no graph, probe as asked.
pub fn inference_pass(probe: bool) -> Pass {
    if probe { Pass::probed(Mode::Infer, 1) } else { Pass::new(Mode::Infer) }
}

fn in_input_pixels(objects: &[Object], place: &Placement) -> Vec<Object> {
    let kept = objects.iter().filter(|o| !o.crowd);
    kept.map(|o| Object { bbox: place.to_input(o.bbox), mask: None, ..o.clone() }).collect()
}

fn record_input(detector: &dyn Detector, input: &NetworkInput, objects: Option<&[Object]>, pass: &Pass) -> Result<()> {
    let place = &input.placement;
    let (_, channels, height, width) = input.images.dims4()?;
    let data = input.images.flatten_all()?.to_vec1()?;
    let preprocessing = Preprocessing {
        original_width: place.original.0,
        original_height: place.original.1,
        input_width: width as u32,
        input_height: height as u32,
        scale_x: place.scale_x,
        scale_y: place.scale_y,
        offset_x: place.offset_x,
        offset_y: place.offset_y,
        description: detector.preprocess().describe(),
    };
    pass.trace(0, |t| {
        t.preprocessing = Some(preprocessing);
        t.objects = objects.map(|o| in_input_pixels(o, place)).unwrap_or_default();
        t.input = Some(FeatureMap { name: "input".into(), level: 0, channels, height, width, data });
    });
    Ok(())
}
