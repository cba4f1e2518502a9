//! Reduced maps for drawing, made on a thread of their own so that a large map never holds up a frame.

use super::table::Cut;
use crate::trace::Trace;
use crate::trace::reduce::Reduction;
use crossbeam_channel::{Receiver, Sender, bounded};
use egui::Context;
use std::sync::Arc;

/// What channels become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    Reduced(Reduction),
    /// Principal components as red, green, blue.
    Principal,
}

/// What tiles are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Number of the image's change.
    pub shown: u64,
    pub family: String,
    pub cut: Cut,
    pub channels: Channels,
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
            let tiles = request.maps.iter().map(|&map| tile(&trace, map, request.channels)).collect();
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
        assert!(tile(&trace, 9, Channels::Principal).values.is_empty());
    }
}
