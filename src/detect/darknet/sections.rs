//! From one section to one layer: which settings it may have, what they mean, and the shape that comes out.
//!
//! Sources: `parser.c` and the layers' `make_` functions of pjreddie/darknet and AlexeyAB/darknet.

use super::cfg::{CfgError, Section};
use super::layers::{Convolution, Layer, Nonlinearity, Placed, Shape, Yolo};

/// Most of whatever a section counts: filters, groups, classes.
const MAX_COUNT: usize = 1 << 20;
/// Largest kernel, stride, padding, dilation.
const MAX_SIZE: usize = 1024;

/// ⌊(length + padding − size) / stride⌋ + 1, where a window fits.
fn windows(length: usize, padding: usize, size: usize, stride: usize) -> Option<usize> {
    length.checked_add(padding)?.checked_sub(size)?.checked_div(stride)?.checked_add(1)
}

/// The layer of a section and its output, `before` being the output of the layer before it.
///
/// # Errors
/// An unknown section or setting, a value that cannot be used, or shapes that do not fit each other.
pub(super) fn place(section: &Section, before: Shape, earlier: &[Placed]) -> Result<(Layer, Shape), CfgError> {
    // a detection layer is an end: only a route may follow it
    let after_yolo = matches!(earlier.last(), Some(Placed { layer: Layer::Yolo(_), .. }));
    if after_yolo && section.name != "route" {
        return Err(section.fault("reads a [yolo] layer; only a [route] to an earlier layer can follow one".to_owned()));
    }
    match section.name.as_str() {
        "convolutional" => convolutional(section, before),
        "maxpool" => max_pool(section, before),
        "avgpool" => {
            section.known(&[], &[], &[])?;
            Ok((Layer::AveragePool, Shape { channels: before.channels, height: 1, width: 1 }))
        }
        "route" => route(section, earlier),
        "shortcut" => shortcut(section, before, earlier),
        "upsample" => {
            let fixed: [(&str, &[&str]); 1] = [("scale", &["1", "1.0"])];
            section.known(&["stride"], &fixed, &[])?;
            section.fixed(&fixed)?;
            let stride = section.whole("stride", Some(2), 1..=MAX_SIZE)?;
            // both factors are bounded, so the products cannot overflow; the map's own size is checked by the caller
            let output = Shape { height: before.height * stride, width: before.width * stride, ..before };
            Ok((Layer::Upsample { stride }, output))
        }
        "dropout" => {
            let known = ["probability", "dropblock", "dropblock_size_rel", "dropblock_size_abs"];
            section.known(&known, &[], &[])?;
            Ok((Layer::Dropout, before))
        }
        "scale_channels" => scale_channels(section, before, earlier),
        "sam" => {
            section.known(&["from", "activation"], &[], &[])?;
            let (from, source) = one_source(section, earlier)?;
            if source != before {
                return Err(section.fault(format!("cannot multiply {before:?} by {source:?}")));
            }
            Ok((Layer::Sam { from, activation: nonlinearity(section)? }, before))
        }
        "yolo" => yolo(section, before),
        other => Err(section.fault(format!(
            "unknown section {other:?}; known are convolutional, maxpool, avgpool, route, shortcut, upsample, dropout, \
             scale_channels, sam, yolo"
        ))),
    }
}

/// The activation of a section, linear where it says nothing; darknet's own default for a convolution is logistic.
fn nonlinearity(section: &Section) -> Result<Nonlinearity, CfgError> {
    let Some(entry) = section.get("activation") else {
        let convolution = section.name == "convolutional";
        return Ok(if convolution { Nonlinearity::Logistic } else { Nonlinearity::Linear });
    };
    match entry.value.as_str() {
        "linear" => Ok(Nonlinearity::Linear),
        "leaky" => Ok(Nonlinearity::Leaky),
        "relu" => Ok(Nonlinearity::Relu),
        "relu6" => Ok(Nonlinearity::Relu6),
        "mish" => Ok(Nonlinearity::Mish),
        "swish" => Ok(Nonlinearity::Swish),
        "logistic" => Ok(Nonlinearity::Logistic),
        "tanh" => Ok(Nonlinearity::Tanh),
        "elu" => Ok(Nonlinearity::Elu),
        "selu" => Ok(Nonlinearity::Selu),
        "gelu" => Ok(Nonlinearity::Gelu),
        "hard_mish" => Ok(Nonlinearity::HardMish),
        _ => {
            let known = "linear, leaky, relu, relu6, mish, swish, logistic, tanh, elu, selu, gelu, hard_mish";
            Err(section.fault_at(entry, &format!("not supported, only {known}")))
        }
    }
}

/// `stride`, or `stride_x` and `stride_y`.
fn strides(section: &Section) -> Result<(usize, usize), CfgError> {
    let both = section.whole("stride", Some(1), 1..=MAX_SIZE)?;
    let vertical = section.whole("stride_y", Some(both), 1..=MAX_SIZE)?;
    Ok((vertical, section.whole("stride_x", Some(both), 1..=MAX_SIZE)?))
}

fn convolutional(section: &Section, before: Shape) -> Result<(Layer, Shape), CfgError> {
    let used = [
        "filters",
        "size",
        "stride",
        "stride_x",
        "stride_y",
        "pad",
        "padding",
        "dilation",
        "groups",
        "batch_normalize",
        "activation",
    ];
    let zero: &[&str] = &["0"];
    let fixed: [(&str, &[&str]); 10] = [
        ("binary", zero),
        ("xnor", zero),
        ("flipped", zero),
        ("antialiasing", zero),
        ("deform", zero),
        ("sway", zero),
        ("rotate", zero),
        ("stretch", zero),
        ("stretch_sway", zero),
        ("assisted_excitation", zero),
    ];
    section.known(&used, &fixed, &["stopbackward", "dontload", "learning_rate", "train_only_bn", "dont_update"])?;
    section.fixed(&fixed)?;
    let size = section.whole("size", Some(1), 1..=MAX_SIZE)?;
    let padded = section.whole("pad", Some(0), 0..=1)? == 1;
    let padding = if padded { size / 2 } else { section.whole("padding", Some(0), 0..=MAX_SIZE)? };
    let dilation = section.whole("dilation", Some(1), 1..=MAX_SIZE)?;
    if dilation > 1 && (size.is_multiple_of(2) || padding != size / 2) {
        // elsewhere darknet's size of the output does not follow from what it computes
        return Err(section.fault("a dilated convolution needs an odd size and pad=1".to_owned()));
    }
    let convolution = Convolution {
        filters: section.whole("filters", Some(1), 1..=MAX_COUNT)?,
        size,
        stride: strides(section)?,
        padding: padding * dilation,
        dilation,
        groups: section.whole("groups", Some(1), 1..=MAX_COUNT)?,
        // 2 normalises across batches in training and is the same function afterwards
        batch_normalize: section.whole("batch_normalize", Some(0), 0..=2)? > 0,
        activation: nonlinearity(section)?,
    };
    let groups = convolution.groups;
    if !before.channels.is_multiple_of(groups) || !convolution.filters.is_multiple_of(groups) {
        let counts = format!("{} channels and {} filters", before.channels, convolution.filters);
        return Err(section.fault(format!("{groups} groups do not divide {counts}")));
    }
    let reach = (size - 1) * dilation + 1;
    let side = |length: usize, stride: usize| windows(length, 2 * convolution.padding, reach, stride);
    match (side(before.height, convolution.stride.0), side(before.width, convolution.stride.1)) {
        (Some(height), Some(width)) => {
            let output = Shape { channels: convolution.filters, height, width };
            Ok((Layer::Convolutional(convolution), output))
        }
        _ => Err(section.fault(format!("a kernel of {size} does not fit a map of {before:?}"))),
    }
}

fn max_pool(section: &Section, before: Shape) -> Result<(Layer, Shape), CfgError> {
    let fixed: [(&str, &[&str]); 2] = [("maxpool_depth", &["0"]), ("antialiasing", &["0"])];
    section.known(&["size", "stride", "stride_x", "stride_y", "padding"], &fixed, &["stopbackward"])?;
    section.fixed(&fixed)?;
    let stride = strides(section)?;
    let size = section.whole("size", Some(stride.0), 1..=MAX_SIZE)?;
    let padding = section.whole("padding", Some(size - 1), 0..=2 * MAX_SIZE)?;
    if padding.div_ceil(2) >= size {
        return Err(section.fault(format!("padding of {padding} leaves windows of size {size} without a pixel")));
    }
    match (windows(before.height, padding, size, stride.0), windows(before.width, padding, size, stride.1)) {
        (Some(height), Some(width)) => {
            Ok((Layer::MaxPool { size, stride, padding }, Shape { channels: before.channels, height, width }))
        }
        _ => Err(section.fault(format!("a window of {size} does not fit a map of {before:?}"))),
    }
}

/// Index and output of the layer that `number` means: counted back from this one when negative.
fn source(section: &Section, number: i64, earlier: &[Placed]) -> Result<(usize, Shape), CfgError> {
    let here = earlier.len();
    let index = if number < 0 {
        usize::try_from(number.unsigned_abs()).ok().and_then(|back| here.checked_sub(back))
    } else {
        usize::try_from(number).ok()
    };
    match index.and_then(|index| earlier.get(index).map(|placed| (index, placed))) {
        Some((_, Placed { layer: Layer::Yolo(_), .. })) => {
            Err(section.fault(format!("layer {number} is a [yolo] layer, which nothing can read")))
        }
        Some((index, placed)) => Ok((index, placed.output)),
        None => Err(section.fault(format!("layer {number} is none of the {here} layers before this one"))),
    }
}

/// All sources that `key` lists.
fn sources(section: &Section, key: &str, earlier: &[Placed]) -> Result<Vec<(usize, Shape)>, CfgError> {
    let Some(numbers) = section.list::<i64>(key)? else {
        return Err(section.fault(format!("{key} is missing")));
    };
    numbers.into_iter().map(|number| source(section, number, earlier)).collect()
}

/// The one source of `from`.
fn one_source(section: &Section, earlier: &[Placed]) -> Result<(usize, Shape), CfgError> {
    match sources(section, "from", earlier)?[..] {
        [one] => Ok(one),
        _ => Err(section.fault("needs exactly one layer in from".to_owned())),
    }
}

fn route(section: &Section, earlier: &[Placed]) -> Result<(Layer, Shape), CfgError> {
    section.known(&["layers", "groups", "group_id"], &[], &["stopbackward"])?;
    let sources = sources(section, "layers", earlier)?;
    let groups = section.whole("groups", Some(1), 1..=MAX_COUNT)?;
    let group = section.whole("group_id", Some(0), 0..=groups - 1)?;
    let mut output: Option<Shape> = None;
    for (index, shape) in &sources {
        if !shape.channels.is_multiple_of(groups) {
            let channels = shape.channels;
            return Err(
                section.fault(format!("{groups} groups do not divide the {channels} channels of layer {index}"))
            );
        }
        let part = shape.channels / groups;
        output = Some(match output {
            None => Shape { channels: part, ..*shape },
            Some(sum) if (sum.height, sum.width) == (shape.height, shape.width) => {
                Shape { channels: sum.channels.saturating_add(part), ..sum }
            }
            Some(sum) => {
                return Err(section.fault(format!("layer {index} of {shape:?} does not fit beside {sum:?}")));
            }
        });
    }
    let from = sources.iter().map(|(index, _)| *index).collect();
    match output {
        Some(output) => Ok((Layer::Route { from, groups, group }, output)),
        None => Err(section.fault("layers is empty".to_owned())),
    }
}

fn shortcut(section: &Section, before: Shape, earlier: &[Placed]) -> Result<(Layer, Shape), CfgError> {
    let fixed: [(&str, &[&str]); 1] = [("weights_type", &["none"])];
    section.known(&["from", "activation"], &fixed, &["weights_normalization", "stopbackward"])?;
    section.fixed(&fixed)?;
    let sources = sources(section, "from", earlier)?;
    if let Some((index, shape)) = sources.iter().find(|(_, shape)| *shape != before) {
        return Err(section.fault(format!("cannot add layer {index} of {shape:?} to {before:?}")));
    }
    let from = sources.iter().map(|(index, _)| *index).collect();
    Ok((Layer::Shortcut { from, activation: nonlinearity(section)? }, before))
}

fn scale_channels(section: &Section, before: Shape, earlier: &[Placed]) -> Result<(Layer, Shape), CfgError> {
    let fixed: [(&str, &[&str]); 1] = [("scale_wh", &["0"])];
    section.known(&["from", "activation"], &fixed, &[])?;
    section.fixed(&fixed)?;
    let (from, output) = one_source(section, earlier)?;
    if before != (Shape { channels: output.channels, height: 1, width: 1 }) {
        return Err(
            section.fault(format!("needs one number for each plane of {output:?}, the layer before has {before:?}"))
        );
    }
    Ok((Layer::ScaleChannels { from, activation: nonlinearity(section)? }, output))
}

fn yolo(section: &Section, before: Shape) -> Result<(Layer, Shape), CfgError> {
    let used = [
        "mask",
        "anchors",
        "classes",
        "num",
        "ignore_thresh",
        "truth_thresh",
        "scale_x_y",
        "iou_thresh",
        "iou_loss",
        "iou_normalizer",
        "obj_normalizer",
        "cls_normalizer",
        "nms_kind",
    ];
    let off: &[&str] = &["0", "0.0"];
    let fixed: [(&str, &[&str]); 7] = [
        ("truth_thresh", &["1", "1.0"]),
        ("nms_kind", &["default", "greedynms"]),
        ("new_coords", off),
        ("focal_loss", off),
        ("objectness_smooth", off),
        ("label_smooth_eps", off),
        ("counters_per_class", &[]),
    ];
    let training = ["jitter", "resize", "random", "max", "max_delta", "beta_nms", "uc_normalizer", "iou_thresh_kind"];
    section.known(&used, &fixed, &training)?;
    section.fixed(&fixed)?;
    let Some(numbers) = section.list::<f32>("anchors")? else {
        return Err(section.fault("anchors is missing".to_owned()));
    };
    let positive = numbers.iter().all(|side| side.is_finite() && *side > 0.0);
    let (pairs, rest) = numbers.as_chunks::<2>();
    let anchors = pairs.to_vec();
    let count = section.whole("num", Some(anchors.len()), 1..=MAX_COUNT)?;
    if !positive || !rest.is_empty() || anchors.len() != count {
        let reason =
            format!("anchors needs {count} pairs of widths and heights above 0, not {} numbers", numbers.len());
        return Err(section.fault(reason));
    }
    let mask = section.list::<usize>("mask")?.unwrap_or_else(|| (0..count).collect());
    if let Some(outside) = mask.iter().find(|index| **index >= count) {
        return Err(section.fault(format!("mask names anchor {outside}, there are {count} from 0 on")));
    }
    let classes = section.whole("classes", Some(20), 1..=MAX_COUNT)?;
    let expected = (classes + 5).checked_mul(mask.len());
    if expected != Some(before.channels) {
        let anchors = mask.len();
        let reason = format!(
            "{anchors} anchors with {classes} classes need {anchors}·(5 + {classes}) channels, not {}",
            before.channels
        );
        return Err(section.fault(reason));
    }
    let iou_loss = section.get("iou_loss").map_or("mse", |entry| entry.value.as_str());
    if !["mse", "iou", "giou", "diou", "ciou"].contains(&iou_loss) {
        return Err(section.fault(format!("iou_loss={iou_loss} is none of mse, iou, giou, diou, ciou")));
    }
    let scale_xy = section.real("scale_x_y", 1.0)?;
    if scale_xy < 1.0 {
        return Err(section.fault(format!("scale_x_y={scale_xy} leaves part of a cell out of reach; 1 is the least")));
    }
    let layer = Yolo {
        anchors,
        mask,
        classes,
        scale_xy,
        ignore_threshold: section.real("ignore_thresh", 0.5)?,
        iou_threshold: section.real("iou_thresh", 1.0)?,
        iou_loss: iou_loss.to_owned(),
        iou_weight: section.real("iou_normalizer", if iou_loss == "mse" { 1.0 } else { 0.75 })?,
        objectness_weight: section.real("obj_normalizer", 1.0)?,
        class_weight: section.real("cls_normalizer", 1.0)?,
    };
    Ok((Layer::Yolo(layer), before))
}

#[cfg(test)]
mod tests {
    use super::super::cfg::parse;
    use super::super::layers::plan;
    use super::*;

    /// Height and width of a pool's output.
    fn pooled(settings: &str, input: (usize, usize)) -> Result<(usize, usize), CfgError> {
        let head = "[convolutional]\nfilters=6\n[yolo]\nanchors=4,5\nclasses=1\n";
        let plan = plan(&parse(&format!("[net]\nwidth=8\nheight=8\n[maxpool]\n{settings}{head}"))?, input)?;
        Ok((plan.layers[0].output.height, plan.layers[0].output.width))
    }

    #[test]
    fn max_pools_follow_darknets_rule_for_sizes() {
        // ⌊(length + p − size) / stride⌋ + 1 with p = size − 1
        for (settings, input, by_hand) in [
            ("size=2\nstride=2\n", (32, 64), (16, 32)),
            ("size=2\nstride=2\n", (5, 7), (3, 4)),
            ("size=2\nstride=1\n", (13, 13), (13, 13)),
            ("size=13\nstride=1\n", (10, 19), (10, 19)),
            ("size=3\nstride=2\n", (8, 9), (4, 5)),
            ("size=2\nstride=2\npadding=0\n", (5, 7), (2, 3)),
        ] {
            assert_eq!(pooled(settings, input).unwrap(), by_hand, "{settings:?} {input:?}");
        }
        assert!(pooled("size=2\nstride=2\npadding=4\n", (8, 8)).unwrap_err().reason.contains("without a pixel"));
        assert!(pooled("size=4\npadding=0\n", (3, 8)).unwrap_err().reason.contains("does not fit"));
    }

    #[test]
    fn detection_layers_are_checked_against_what_feeds_them() {
        let net = "[net]\nwidth=32\nheight=32\n[convolutional]\nfilters=14\nactivation=linear\n";
        let with = |yolo: &str| plan(&parse(&format!("{net}{yolo}")).unwrap(), (32, 32));
        let good =
            with("[yolo]\nmask=1,2\nanchors=1,2, 3,4, 5,6\nnum=3\nclasses=2\nscale_x_y=1.05\nrandom=1\n").unwrap();
        let yolo = good.yolos().next().unwrap();
        assert_eq!((yolo.mask.as_slice(), yolo.anchors[2], yolo.scale_xy), ([1usize, 2].as_slice(), [5.0, 6.0], 1.05));
        for (yolo, word) in [
            ("", "detects nothing"),
            ("[yolo]\nclasses=2\n", "anchors is missing"),
            ("[yolo]\nanchors=1,2,3\nclasses=2\n", "pairs"),
            ("[yolo]\nanchors=1,0\nclasses=2\n", "above 0"),
            ("[yolo]\nanchors=1,2\nmask=1\nclasses=2\n", "mask names anchor 1"),
            ("[yolo]\nanchors=1,2,3,4\nclasses=3\n", "need 2·(5 + 3) channels"),
            ("[yolo]\nanchors=1,2,3,4\nclasses=2\nnew_coords=1\n", "not supported"),
            ("[yolo]\nanchors=1,2,3,4\nclasses=2\niou_loss=odd\n", "none of mse"),
            ("[yolo]\nanchors=1,2,3,4\nclasses=2\ntruth_thresh=.9\n", "not supported"),
            ("[yolo]\nanchors=1,2,3,4\nclasses=2\n[upsample]\n", "only a [route]"),
            ("[yolo]\nanchors=1,2,3,4\nclasses=2\n[route]\nlayers=-1\n", "nothing can read"),
        ] {
            let error = with(yolo).unwrap_err();
            assert!(error.reason.contains(word), "{yolo:?}: {error}");
        }
    }
}
