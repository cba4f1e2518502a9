//! Reduced maps for drawing, made on a thread of their own so that a large map never holds up a frame.

use super::table::Cut;
use crate::app::bridge::Shaders;
use crate::trace::reduce::Reduction;
use crate::trace::{FeatureMap, Trace};
use crossbeam_channel::{Receiver, Sender, bounded};
use egui::Context;
use std::sync::Arc;

/// More bytes than this of the maps on show stay on the CPU.
const MOST_BYTES: u64 = 128 << 20;

/// What channels become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    Reduced(Reduction),
    /// Principal components as red, green, blue.
    Principal,
}

impl Channels {
    /// How channels become one number, where that is wanted: colours of components have none, and become their mean.
    pub fn reduction(self) -> Reduction {
        match self {
            Self::Reduced(reduction) => reduction,
            Self::Principal => Reduction::Mean,
        }
    }
}

/// What tiles are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Number of the image's change.
    pub shown: u64,
    pub family: String,
    pub cut: Cut,
    pub channels: Channels,
    /// The device reduces the channels: tiles are the same for all reductions, with the range of each.
    pub on_device: bool,
    /// Positions in the trace.
    pub maps: Vec<usize>,
}

/// One map ready to be drawn.
#[derive(Clone, Debug, Default)]
pub(super) struct Tile {
    /// Position in the trace.
    pub map: usize,
    pub width: u32,
    pub height: u32,
    /// `[height, width]`; empty for colours.
    pub values: Arc<Vec<f32>>,
    /// `[height, width, 4]`; empty for values.
    pub pixels: Arc<Vec<u8>>,
    /// Lowest and highest value.
    pub range: Option<(f32, f32)>,
    /// Those of all reductions, where the device reduces: then there are no values here.
    pub ranges: Option<Arc<Ranges>>,
}

/// Lowest and highest value of a map's reductions; nothing where there is no number.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ranges {
    mean: Option<(f32, f32)>,
    max: Option<(f32, f32)>,
    channels: Vec<Option<(f32, f32)>>,
}

impl Ranges {
    /// `map` has a whole channel at least.
    fn new(map: &FeatureMap) -> Self {
        let reduced = |how: Reduction| range(&map.reduced(how));
        let channels = map.data.chunks_exact(map.width * map.height).map(range).collect();
        Self { mean: reduced(Reduction::Mean), max: reduced(Reduction::Max), channels }
    }

    pub fn of(&self, how: Reduction) -> Option<(f32, f32)> {
        match how {
            Reduction::Mean => self.mean,
            Reduction::Max => self.max,
            Reduction::Channel(index) => self.channels.get(index).or(self.channels.last()).copied().flatten(),
        }
    }
}

/// Whether the device reduces the channels of all these maps.
pub(super) fn fit_device(shaders: Shaders, trace: &Trace, maps: &[usize]) -> bool {
    let bytes = maps.iter().filter_map(|&map| trace.maps.get(map)).map(|map| 4 * map.data.len() as u64);
    let (largest, all) = bytes.fold((0, 0), |(largest, all), bytes| (bytes.max(largest), all + bytes));
    shaders.map_bytes > 0 && largest <= shaders.map_bytes && all <= MOST_BYTES
}

/// The tiles of a request.
#[derive(Debug)]
pub(super) struct Tiles {
    pub request: Request,
    pub tiles: Vec<Tile>,
}

/// The thread's mailbox.
#[derive(Debug)]
pub(super) struct Maker {
    sender: Sender<Tiles>,
    made: Receiver<Tiles>,
    busy: bool,
}

impl Default for Maker {
    fn default() -> Self {
        let (sender, made) = bounded(1);
        Self { sender, made, busy: false }
    }
}

impl Maker {
    /// Starts on `request` unless an earlier one is being worked on; it is asked again in every frame.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn ask(&mut self, ctx: &Context, trace: &Arc<Trace>, request: Request) -> std::io::Result<()> {
        if self.busy {
            return Ok(());
        }
        let (sender, trace, ctx) = (self.sender.clone(), trace.clone(), ctx.clone());
        std::thread::Builder::new().name("boxwright-features".into()).spawn(move || {
            let made = |&map: &usize| {
                if request.on_device { device_tile(&trace, map) } else { tile(&trace, map, request.channels) }
            };
            let tiles = request.maps.iter().map(made).collect();
            // There is room: one request is worked on at a time. Without a reader nobody misses it.
            _ = sender.try_send(Tiles { request, tiles });
            ctx.request_repaint();
        })?;
        self.busy = true;
        Ok(())
    }

    /// What has been made since the last call.
    pub fn take(&mut self) -> Option<Tiles> {
        let made = self.made.try_recv().ok()?;
        self.busy = false;
        Some(made)
    }
}

/// A map whose channels the device reduces; one that is no stack of planes is made here.
fn device_tile(trace: &Trace, position: usize) -> Tile {
    let stack = trace.maps.get(position).filter(|map| {
        let plane = map.width * map.height;
        plane > 0 && map.data.len() >= plane && (plane > 1 || map.channels <= 1)
    });
    let Some(map) = stack else { return tile(trace, position, Channels::Reduced(Reduction::Mean)) };
    let (width, height) = (map.width as u32, map.height as u32);
    Tile { map: position, width, height, ranges: Some(Arc::new(Ranges::new(map))), ..Tile::default() }
}

pub(super) fn tile(trace: &Trace, position: usize, channels: Channels) -> Tile {
    let Some(map) = trace.maps.get(position) else { return Tile { map: position, ..Tile::default() } };
    if map.width * map.height == 1 && map.channels > 1 {
        return strip(position, &map.data);
    }
    let (width, height) = (map.width as u32, map.height as u32);
    match channels {
        Channels::Principal => {
            Tile { map: position, width, height, pixels: Arc::new(map.principal_rgb()), ..Tile::default() }
        }
        Channels::Reduced(how) => {
            let values = map.reduced(how);
            let range = range(&values);
            Tile { map: position, width, height, values: Arc::new(values), range, ..Tile::default() }
        }
    }
}

/// One number a channel (attention weights): a near-square of all channels in order, with holes at the end.
fn strip(map: usize, data: &[f32]) -> Tile {
    let width = (data.len() as f64).sqrt().ceil().max(1.0) as usize;
    let height = data.len().div_ceil(width).max(1);
    let mut values = data.to_vec();
    values.resize(width * height, f32::NAN);
    let range = range(&values);
    Tile { map, width: width as u32, height: height as u32, values: Arc::new(values), range, ..Tile::default() }
}

/// Lowest and highest finite value.
fn range(values: &[f32]) -> Option<(f32, f32)> {
    let finite = values.iter().copied().filter(|v| v.is_finite());
    let (low, high) = finite.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    (low <= high).then_some((low, high))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::FeatureMap;

    #[test]
    fn attention_becomes_a_square_of_channels_and_other_maps_are_reduced() {
        let map = |channels: usize, side: usize| FeatureMap {
            channels,
            height: side,
            width: side,
            data: (0..channels * side * side).map(|v| v as f32).collect(),
            ..FeatureMap::default()
        };
        let trace = Trace { maps: vec![map(5, 1), map(2, 2)], ..Trace::default() };
        let attention = tile(&trace, 0, Channels::Principal);
        assert_eq!((attention.width, attention.height, attention.range), (3, 2, Some((0.0, 4.0))));
        assert!(attention.values[5].is_nan());
        let mean = tile(&trace, 1, Channels::Reduced(Reduction::Mean));
        assert_eq!((*mean.values).clone(), [2.0, 3.0, 4.0, 5.0]);
        assert_eq!(tile(&trace, 1, Channels::Principal).pixels.len(), 16);
        assert_eq!(Channels::Reduced(Reduction::Max).reduction(), Reduction::Max);
        assert!(tile(&trace, 9, Channels::Principal).values.is_empty());
    }

    #[test]
    fn a_tile_of_the_device_knows_the_ranges_of_all_reductions() {
        let map = |data: Vec<f32>| FeatureMap { channels: 2, height: 1, width: 2, data, ..FeatureMap::default() };
        let attention = FeatureMap { channels: 3, height: 1, width: 1, data: vec![1.0; 3], ..FeatureMap::default() };
        let trace =
            Trace { maps: vec![map(vec![0.0, 2.0, 4.0, f32::NAN]), attention, map(vec![1.0])], ..Trace::default() };
        let ranges = device_tile(&trace, 0).ranges.unwrap();
        assert_eq!(ranges.of(Reduction::Mean), Some((2.0, 2.0)));
        assert_eq!(ranges.of(Reduction::Max), Some((2.0, 4.0)));
        assert_eq!([0, 1, 9].map(|c| ranges.of(Reduction::Channel(c)).unwrap()), [(0.0, 2.0), (4.0, 4.0), (4.0, 4.0)]);
        // What is no stack of planes has its values here.
        let strip = device_tile(&trace, 1);
        assert!(strip.ranges.is_none() && strip.values.len() == 4);
        assert!(device_tile(&trace, 2).ranges.is_none() && device_tile(&trace, 9).ranges.is_none());
    }

    #[test]
    fn maps_beyond_the_device_are_reduced_here() {
        let map = FeatureMap { data: vec![0.0; 100], ..FeatureMap::default() };
        let trace = Trace { maps: vec![map.clone(), map], ..Trace::default() };
        let fits = |map_bytes: u64| fit_device(Shaders { map_bytes, ..Shaders::default() }, &trace, &[0, 1]);
        assert_eq!([0, 399, 400].map(fits), [false, false, true]);
    }
}
