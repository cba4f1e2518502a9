//! From a picture to a network's input: fit, channel order, normalisation; and boxes back. Belongs to the weights.

use super::picture::Picture;
use super::resize::{Kernel, Pair, mix, pairs, resize_picture, resize_planes_with};
use crate::geometry::BBox;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// How a picture of any size becomes an input. Each rule is that of the reference implementation it names, with its
/// own kernel and rounding.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "kebab-case")]
pub enum Fit {
    /// To exactly this size, each axis by its own factor; plain bilinear. SSD, RefineDet, M2Det.
    Stretch { width: usize, height: usize },
    /// The shorter side to `short` unless the longer would pass `long`; sides rounded down, plain bilinear, then padded
    /// on the right and below to multiples of `divisor` with zeros (after normalisation). torchvision.
    ShortestEdge { short: usize, long: usize, divisor: usize },
    /// As [`Fit::ShortestEdge`] with sides rounded half up. MMDetection.
    ShortestEdgeRounded { short: usize, long: usize, divisor: usize },
    /// As [`Fit::ShortestEdgeRounded`] with Pillow's antialiased kernel on 8-bit pixels. detectron2.
    ShortestEdgeAntialias { short: usize, long: usize, divisor: usize },
    /// Whole picture in the middle of a frame of the colour `fill` (0..255, before normalisation), sides rounded down;
    /// bilinear with fixed corners. darknet, whose fill is 127.5.
    Letterbox { width: usize, height: usize, fill: f32 },
}

/// Order of the input's planes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChannelOrder {
    #[default]
    Rgb,
    Bgr,
}

impl ChannelOrder {
    /// For each plane, the channel of an RGB pixel.
    pub fn channels(self) -> [usize; 3] {
        match self {
            Self::Rgb => [0, 1, 2],
            Self::Bgr => [2, 1, 0],
        }
    }
}

/// What a checkpoint expects: `(value − mean) / std` of values 0..255.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preprocess {
    pub fit: Fit,
    pub order: ChannelOrder,
    /// By plane, so in the order of `order`; in units of 0..255.
    pub mean: [f32; 3],
    /// By plane; in units of 0..255.
    pub std: [f32; 3],
}

/// A network's input and how it lies over the picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Pixels, padding included.
    pub width: usize,
    pub height: usize,
    /// `[3, height, width]`.
    pub planes: Vec<f32>,
    pub placement: Placement,
}

/// The map between a picture's pixels and an input's: `input = original · scale + offset`, each axis on its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    pub scale_x: f32,
    pub scale_y: f32,
    /// Input pixels.
    pub offset_x: f32,
    pub offset_y: f32,
    /// Width and height of the picture.
    pub original: (u32, u32),
    /// Width and height of the resized picture within the input.
    pub content: (u32, u32),
}

impl Placement {
    /// A box of the picture, in pixels of the input. Not clipped.
    pub fn to_input(&self, bbox: BBox) -> BBox {
        bbox.scale(self.scale_x, self.scale_y).shift(self.offset_x, self.offset_y)
    }

    /// A box of the input, in pixels of the picture. Not clipped.
    pub fn to_original(&self, bbox: BBox) -> BBox {
        let inverse = |scale: f32| if scale > 0.0 { 1.0 / scale } else { 0.0 };
        bbox.shift(-self.offset_x, -self.offset_y).scale(inverse(self.scale_x), inverse(self.scale_y))
    }
}

/// Where each pixel of an input comes from: what [`Preprocess::apply`] computes with.
#[derive(Clone, Debug)]
pub struct Recipe<'a> {
    /// Already resized where the kernel rounds on its way.
    pub picture: Cow<'a, Picture>,
    /// What each column of the content reads; nothing for an empty picture.
    pub columns: Vec<Pair>,
    /// What each row of the content reads; nothing for an empty picture.
    pub rows: Vec<Pair>,
    /// Width and height of the input, padding included.
    pub size: (usize, usize),
    /// Column and row of the input where the content starts.
    pub offset: (usize, usize),
    pub placement: Placement,
}

/// Sizes (width, height) in pixels that follow from the picture's size.
struct Plan {
    content: (usize, usize),
    input: (usize, usize),
    offset: (usize, usize),
}

impl Plan {
    fn placement(&self, width: usize, height: usize) -> Placement {
        Placement {
            scale_x: self.content.0 as f32 / width.max(1) as f32,
            scale_y: self.content.1 as f32 / height.max(1) as f32,
            offset_x: self.offset.0 as f32,
            offset_y: self.offset.1 as f32,
            original: (width as u32, height as u32),
            content: (self.content.0 as u32, self.content.1 as u32),
        }
    }
}

impl Preprocess {
    /// Width and height of the input for a picture of `width × height`, padding included.
    pub fn input_size(&self, width: usize, height: usize) -> (usize, usize) {
        self.plan(width, height).input
    }

    /// The kernel that goes with the fit.
    pub fn kernel(&self) -> Kernel {
        match self.fit {
            Fit::Stretch { .. } | Fit::ShortestEdge { .. } | Fit::ShortestEdgeRounded { .. } => {
                Kernel::BilinearHalfPixel
            }
            Fit::ShortestEdgeAntialias { .. } => Kernel::BilinearAntialias,
            Fit::Letterbox { .. } => Kernel::BilinearCorners,
        }
    }

    /// One pass over 8-bit pixels: resize and normalise together, rows in parallel. Equal to normalising first (which
    /// the references do) up to rounding, because a kernel's weights sum to 1.
    pub fn apply(&self, picture: &Picture) -> Input {
        let recipe = self.recipe(picture);
        let mut input = self.blank(recipe.size, recipe.placement);
        self.fill(&recipe, &mut input.planes);
        input
    }

    /// What [`Self::apply`] does with `picture`, for who computes it elsewhere: columns and rows are mixed, then
    /// normalised as `(value − mean) · factor`.
    pub fn recipe<'a>(&self, picture: &'a Picture) -> Recipe<'a> {
        let (width, height) = (picture.width as usize, picture.height as usize);
        let plan = self.plan(width, height);
        let (content_width, content_height) = plan.content;
        let kernel = self.kernel();
        let whole = (pairs(kernel, width, content_width), pairs(kernel, height, content_height));
        let (picture, columns, rows) = match whole {
            _ if picture.rgb.is_empty() => (Cow::Borrowed(picture), Vec::new(), Vec::new()),
            (Some(columns), Some(rows)) => (Cow::Borrowed(picture), columns, rows),
            _ => {
                let resized = resize_picture(picture, content_width as u32, content_height as u32, kernel);
                let same =
                    |size: usize| -> Vec<Pair> { (0..size).map(|i| Pair { low: i, high: i, weight: 0.0 }).collect() };
                (Cow::Owned(resized), same(content_width), same(content_height))
            }
        };
        let placement = plan.placement(width, height);
        Recipe { picture, columns, rows, size: plan.input, offset: plan.offset, placement }
    }

    /// What each plane is multiplied by once its mean is taken off.
    pub fn factor(&self) -> [f32; 3] {
        self.std.map(|s| 1.0 / s)
    }

    /// What stands around the content in each plane.
    pub fn padding(&self) -> [f32; 3] {
        match self.fit {
            Fit::Letterbox { fill, .. } => [0, 1, 2].map(|plane| (fill - self.mean[plane]) / self.std[plane]),
            _ => [0.0; 3],
        }
    }

    /// The same for a float picture `[3, height, width]`, RGB in `[0, 1]`, in torchvision's order of operations:
    /// normalise with mean and deviation divided by 255, resize, pad. Slower than [`Self::apply`]; for comparison with
    /// reference implementations to the last digits.
    pub fn apply_planes(&self, chw_01: &[f32], width: usize, height: usize) -> Input {
        let plan = self.plan(width, height);
        let mut input = self.blank(plan.input, plan.placement(width, height));
        let area = width * height;
        let (input_width, input_height) = plan.input;
        let (content_width, content_height) = plan.content;
        for (plane, channel) in self.order.channels().into_iter().enumerate() {
            let (mean, std) = (self.mean[plane] / 255.0, self.std[plane] / 255.0);
            let Some(source) = chw_01.get(channel * area..(channel + 1) * area) else {
                continue;
            };
            let normalised: Vec<f32> = source.iter().map(|v| (v - mean) / std).collect();
            let resized = resize_planes_with(self.kernel(), &normalised, (width, height), plan.content);
            if resized.len() != content_width * content_height {
                continue;
            }
            for y in 0..content_height {
                let start = (plane * input_height + plan.offset.1 + y) * input_width + plan.offset.0;
                input.planes[start..start + content_width]
                    .copy_from_slice(&resized[y * content_width..(y + 1) * content_width]);
            }
        }
        input
    }

    /// For people: "stretch 300×300, RGB − (123, 117, 104)".
    pub fn describe(&self) -> String {
        let padded = |divisor: usize| match divisor {
            0 | 1 => String::new(),
            n => format!(", padded to multiples of {n}"),
        };
        let fit = match self.fit {
            Fit::Stretch { width, height } => format!("stretch {width}×{height}"),
            Fit::ShortestEdge { short, long, divisor } => {
                format!("shorter side {short}, longer at most {long}, rounded down{}", padded(divisor))
            }
            Fit::ShortestEdgeRounded { short, long, divisor } | Fit::ShortestEdgeAntialias { short, long, divisor } => {
                format!("shorter side {short}, longer at most {long}, rounded{}", padded(divisor))
            }
            Fit::Letterbox { width, height, fill } => format!("letterbox {width}×{height} on {fill}"),
        };
        let kernel = match self.kernel() {
            Kernel::BilinearHalfPixel => String::new(),
            other => format!(", {}", other.name()),
        };
        let order = match self.order {
            ChannelOrder::Rgb => "RGB",
            ChannelOrder::Bgr => "BGR",
        };
        // One decimal is enough to recognise the published constants.
        let rounded = |v: f32| ((v * 10.0).round() / 10.0).to_string();
        let triple = |v: [f32; 3]| match v[0] == v[1] && v[1] == v[2] {
            true => rounded(v[0]),
            false => format!("({}, {}, {})", rounded(v[0]), rounded(v[1]), rounded(v[2])),
        };
        let mean = if self.mean == [0.0; 3] { String::new() } else { format!(" − {}", triple(self.mean)) };
        let std = if self.std == [1.0; 3] { String::new() } else { format!(" ÷ {}", triple(self.std)) };
        let values = match mean.is_empty() || std.is_empty() {
            true => format!("{order}{mean}{std}"),
            false => format!("({order}{mean}){std}"),
        };
        format!("{fit}{kernel}, {values}")
    }

    fn plan(&self, width: usize, height: usize) -> Plan {
        let edges = |short: usize, long: usize, divisor: usize, rounding: f64| -> Plan {
            // In f64, as the references compute it: the product may miss a whole number, and rounding down shows it.
            let (shorter, longer) = (width.min(height).max(1) as f64, width.max(height).max(1) as f64);
            let scale = (short as f64 / shorter).min(long as f64 / longer);
            let side = |length: usize| ((length as f64 * scale + rounding).floor() as usize).max(1);
            let content = (side(width), side(height));
            let up = |length: usize| length.div_ceil(divisor.max(1)) * divisor.max(1);
            Plan { content, input: (up(content.0), up(content.1)), offset: (0, 0) }
        };
        match self.fit {
            Fit::Stretch { width, height } => Plan { content: (width, height), input: (width, height), offset: (0, 0) },
            Fit::ShortestEdge { short, long, divisor } => edges(short, long, divisor, 0.0),
            Fit::ShortestEdgeRounded { short, long, divisor } | Fit::ShortestEdgeAntialias { short, long, divisor } => {
                edges(short, long, divisor, 0.5)
            }
            Fit::Letterbox { width: frame_width, height: frame_height, .. } => {
                let (width, height) = (width.max(1), height.max(1));
                let content = if frame_width * height < frame_height * width {
                    (frame_width, (height * frame_width / width).clamp(1, frame_height.max(1)))
                } else {
                    ((width * frame_height / height).clamp(1, frame_width.max(1)), frame_height)
                };
                let offset = (frame_width.saturating_sub(content.0) / 2, frame_height.saturating_sub(content.1) / 2);
                Plan { content, input: (frame_width, frame_height), offset }
            }
        }
    }

    /// An input of padding alone.
    fn blank(&self, (width, height): (usize, usize), placement: Placement) -> Input {
        let area = width * height;
        let mut planes = vec![0.0f32; 3 * area];
        if matches!(self.fit, Fit::Letterbox { .. }) {
            for (plane, padding) in self.padding().into_iter().enumerate() {
                planes[plane * area..(plane + 1) * area].fill(padding);
            }
        }
        Input { width, height, planes, placement }
    }

    /// Writes the content: rows blended first (contiguous), then columns, then normalised into the three planes.
    fn fill(&self, recipe: &Recipe<'_>, planes: &mut [f32]) {
        let Recipe { picture, columns, rows, size: (width, height), offset, .. } = recipe;
        let (width, height) = (*width, *height);
        if width == 0 || height == 0 || columns.is_empty() {
            return;
        }
        let [red, green, blue] = self.order.channels();
        let mean = self.mean;
        let factor = self.factor();
        let left = offset.0;
        let right = left + columns.len();
        let lines = offset.1 * width..(offset.1 + rows.len()) * width;
        let (first, rest) = planes.split_at_mut(width * height);
        let (second, third) = rest.split_at_mut(width * height);
        first[lines.clone()]
            .par_chunks_mut(width)
            .zip(second[lines.clone()].par_chunks_mut(width))
            .zip(third[lines].par_chunks_mut(width))
            .zip(rows.par_iter())
            .with_min_len(4)
            .for_each_init(
                || vec![0.0f32; 3 * picture.width as usize],
                |blended, (((first, second), third), row)| {
                    blend_rows(picture.row(row.low), picture.row(row.high), row.weight, blended);
                    let targets = first[left..right].iter_mut().zip(&mut second[left..right]);
                    let targets = targets.zip(&mut third[left..right]);
                    for (((a, b), c), column) in targets.zip(columns) {
                        let low = &blended[3 * column.low..3 * column.low + 3];
                        let high = &blended[3 * column.high..3 * column.high + 3];
                        *a = (mix(low[red], high[red], column.weight) - mean[0]) * factor[0];
                        *b = (mix(low[green], high[green], column.weight) - mean[1]) * factor[1];
                        *c = (mix(low[blue], high[blue], column.weight) - mean[2]) * factor[2];
                    }
                },
            );
    }
}

/// `upper · (1 − weight) + lower · weight`, byte by byte.
fn blend_rows(upper: &[u8], lower: &[u8], weight: f32, blended: &mut [f32]) {
    if weight == 0.0 {
        for (value, &u) in blended.iter_mut().zip(upper) {
            *value = f32::from(u);
        }
        return;
    }
    for ((value, &u), &l) in blended.iter_mut().zip(upper).zip(lower) {
        *value = mix(f32::from(u), f32::from(l), weight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn noise(width: u32, height: u32) -> Picture {
        let mut rng = Random::new(u64::from(width * 1000 + height));
        let rgb = (0..3 * width * height).map(|_| rng.below(256) as u8).collect();
        Picture::from_rgb(width, height, rgb).unwrap()
    }

    fn planes_01(picture: &Picture) -> Vec<f32> {
        (0..3).flat_map(|c| picture.rgb.iter().skip(c).step_by(3).map(|&v| f32::from(v) / 255.0)).collect()
    }

    /// Values as they are.
    fn plain(fit: Fit) -> Preprocess {
        Preprocess { fit, order: ChannelOrder::Rgb, mean: [0.0; 3], std: [1.0; 3] }
    }

    fn every_fit() -> [Fit; 5] {
        [
            Fit::Stretch { width: 30, height: 20 },
            Fit::ShortestEdge { short: 40, long: 60, divisor: 32 },
            Fit::ShortestEdgeRounded { short: 40, long: 60, divisor: 8 },
            Fit::ShortestEdgeAntialias { short: 9, long: 17, divisor: 1 },
            Fit::Letterbox { width: 48, height: 40, fill: 127.5 },
        ]
    }

    #[test]
    fn the_fast_pass_equals_normalise_then_resize() {
        for fit in every_fit() {
            for (order, mean) in
                [(ChannelOrder::Rgb, [123.0, 117.0, 104.0]), (ChannelOrder::Bgr, [103.53, 116.28, 123.675])]
            {
                let preprocess = Preprocess { fit, order, mean, std: [58.395, 57.12, 57.375] };
                for (width, height) in [(33, 21), (21, 33), (1, 1), (64, 7)] {
                    let picture = noise(width, height);
                    let fast = preprocess.apply(&picture);
                    let exact = preprocess.apply_planes(&planes_01(&picture), width as usize, height as usize);
                    assert_eq!((fast.width, fast.height), (exact.width, exact.height));
                    assert_eq!(fast.placement, exact.placement);
                    assert_eq!(fast.planes.len(), 3 * fast.width * fast.height);
                    // The antialiased kernel rounds to 8 bits on each axis: one level and a bit over the deviation.
                    let rounds = matches!(fit, Fit::ShortestEdgeAntialias { .. });
                    let tolerance = if rounds { 1.1 / 57.0 } else { 2e-5 };
                    for (a, b) in fast.planes.iter().zip(&exact.planes) {
                        assert!((a - b).abs() <= tolerance, "{fit:?} {width}×{height}: {a} and {b}");
                    }
                }
            }
        }
    }

    #[test]
    fn sizes_are_those_of_the_references() {
        let size = |fit: Fit, width: usize, height: usize| -> ((u32, u32), (usize, usize)) {
            let preprocess = plain(fit);
            let plan = preprocess.plan(width, height);
            (plan.placement(width, height).content, preprocess.input_size(width, height))
        };
        let edge = Fit::ShortestEdge { short: 800, long: 1333, divisor: 32 };
        // 1333 / 2000 = 0.6665: 666.5 is rounded down here and up by the other rule.
        assert_eq!(size(edge, 2000, 1000), ((1333, 666), (1344, 672)));
        let rounded = Fit::ShortestEdgeRounded { short: 800, long: 1333, divisor: 32 };
        assert_eq!(size(rounded, 2000, 1000), ((1333, 667), (1344, 672)));
        assert_eq!(size(rounded, 640, 480), ((1067, 800), (1088, 800)));
        let letterbox = Fit::Letterbox { width: 416, height: 416, fill: 127.5 };
        // int(427 · 416 / 640) = 277.
        assert_eq!(size(letterbox, 640, 427), ((416, 277), (416, 416)));
        assert_eq!(size(letterbox, 427, 640), ((277, 416), (416, 416)));
        assert_eq!(size(letterbox, 5000, 1), ((416, 1), (416, 416)));
    }

    #[test]
    fn boxes_go_there_and_back_and_corners_meet_corners() {
        for fit in every_fit() {
            let preprocess = plain(fit);
            let input = preprocess.apply(&noise(37, 23));
            let place = input.placement;
            let whole = place.to_input(BBox::new(0.0, 0.0, 37.0, 23.0));
            assert_eq!((whole.x0, whole.y0), (place.offset_x, place.offset_y));
            assert!((whole.x1 - place.offset_x - place.content.0 as f32).abs() < 1e-4, "{fit:?}");
            assert!((whole.y1 - place.offset_y - place.content.1 as f32).abs() < 1e-4, "{fit:?}");
            let bbox = BBox::new(-3.0, 4.5, 12.25, 99.0);
            let back = place.to_original(place.to_input(bbox));
            for (a, b) in [(back.x0, bbox.x0), (back.y0, bbox.y0), (back.x1, bbox.x1), (back.y1, bbox.y1)] {
                assert!((a - b).abs() < 1e-4, "{fit:?}: {back:?}");
            }
        }
    }

    #[test]
    fn padding_is_zero_after_normalisation_and_the_letterbox_has_its_fill() {
        let edge = Fit::ShortestEdge { short: 4, long: 100, divisor: 8 };
        let mut preprocess = Preprocess { fit: edge, order: ChannelOrder::Bgr, mean: [1.0, 2.0, 3.0], std: [2.0; 3] };
        let input = preprocess.apply(&Picture::new(6, 4, [30, 20, 10]));
        assert_eq!((input.width, input.height), (8, 8));
        // Blue, green, red of the first pixel; then the padding beside and below it.
        assert_eq!([input.planes[0], input.planes[64], input.planes[128]], [4.5, 9.0, 13.5]);
        assert_eq!([input.planes[6], input.planes[64 + 7], input.planes[4 * 8]], [0.0; 3]);
        preprocess.fit = Fit::Letterbox { width: 6, height: 8, fill: 9.0 };
        let input = preprocess.apply(&Picture::new(6, 4, [30, 20, 10]));
        assert_eq!(input.placement.offset_y, 2.0);
        assert_eq!([input.planes[0], input.planes[48], input.planes[96]], [4.0, 3.5, 3.0]);
        assert_eq!(input.planes[2 * 6], 4.5);
    }

    #[test]
    fn descriptions_and_files_say_all_of_it() {
        let ssd = Preprocess {
            fit: Fit::Stretch { width: 300, height: 300 },
            order: ChannelOrder::Rgb,
            mean: [123.0, 117.0, 104.0],
            std: [1.0; 3],
        };
        assert_eq!(ssd.describe(), "stretch 300×300, RGB − (123, 117, 104)");
        let yolo = Preprocess {
            fit: Fit::Letterbox { width: 416, height: 416, fill: 127.5 },
            order: ChannelOrder::Rgb,
            mean: [0.0; 3],
            std: [255.0; 3],
        };
        assert_eq!(yolo.describe(), "letterbox 416×416 on 127.5, bilinear with fixed corners, RGB ÷ 255");
        for preprocess in [ssd, yolo] {
            let text = toml::to_string(&preprocess).unwrap();
            assert_eq!(toml::from_str::<Preprocess>(&text).unwrap(), preprocess, "{text}");
        }
    }

    #[test]
    fn an_empty_picture_gives_padding() {
        for fit in every_fit() {
            let preprocess = plain(fit);
            let input = preprocess.apply(&Picture::new(0, 5, [0; 3]));
            assert_eq!(input.planes.len(), 3 * input.width * input.height);
            assert_eq!(preprocess.apply_planes(&[], 0, 5).planes, input.planes);
        }
    }
}
