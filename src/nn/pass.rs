//! One pass through a network: training or inference, watched by a probe or not.

use crate::ops::interrupt;
use crate::ops::update::blend_all;
use crate::trace::{FeatureMap, StageTime, Trace};
use candle_core::{Result, Tensor, Var};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::time::Instant;

/// Whether gradients are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Parameters are followed by autograd; batch norm uses batch statistics.
    Train,
    /// Autograd follows, but norms use running statistics and do not change them (as a frozen or evaluated network).
    Frozen,
    /// No graph is kept; batch norm is folded into the convolution before it.
    Infer,
}

/// State of one pass: its mode, the probe's traces (one an image) when it is on, and the stage clock.
#[derive(Debug)]
pub struct Pass {
    pub mode: Mode,
    traces: Option<RefCell<Vec<Trace>>>,
    timings: RefCell<Vec<StageTime>>,
    /// Running statistics, those of the batch, and how far they move.
    pending: RefCell<Vec<(Var, Tensor, f32)>>,
    flops: Cell<f64>,
}

impl Pass {
    pub fn new(mode: Mode) -> Self {
        Self { mode, traces: None, timings: RefCell::default(), pending: RefCell::default(), flops: Cell::new(0.0) }
    }

    /// A pass that fills one trace for each of `images` images.
    pub fn probed(mode: Mode, images: usize) -> Self {
        Self { traces: Some(RefCell::new(vec![Trace::default(); images])), ..Self::new(mode) }
    }

    pub fn is_probed(&self) -> bool {
        self.traces.is_some()
    }

    /// Changes the trace of image `index`; nothing happens without a probe.
    pub fn trace(&self, index: usize, change: impl FnOnce(&mut Trace)) {
        if let Some(traces) = &self.traces
            && let Some(trace) = traces.borrow_mut().get_mut(index)
        {
            change(trace);
        }
    }

    /// Records the map `[N, C, H, W]` of every image under `name`; nothing happens without a probe.
    ///
    /// # Errors
    /// When the tensor has not four dimensions or cannot be read back.
    pub fn tap(&self, name: &str, level: usize, map: &Tensor) -> Result<()> {
        if !self.is_probed() {
            return Ok(());
        }
        let (images, channels, height, width) = map.dims4()?;
        for index in 0..images {
            let data = map.get(index)?.flatten_all()?.to_vec1()?;
            let name = name.to_string();
            self.trace(index, |t| t.maps.push(FeatureMap { name, level, channels, height, width, data }));
        }
        Ok(())
    }

    /// Runs one stage, adding its wall time to the clock. Looks for an interruption first.
    ///
    /// # Errors
    /// Those of the stage, or [`interrupt::INTERRUPTED`].
    pub fn stage<T>(&self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        interrupt::check()?;
        let start = Instant::now();
        let result = work()?;
        let seconds = start.elapsed().as_secs_f64();
        self.timings.borrow_mut().push(StageTime { stage: name.to_string(), seconds });
        Ok(result)
    }

    /// Notes that a running statistic moves towards that of the `batch` by this share of the way, once the iteration has
    /// succeeded.
    pub fn defer(&self, statistic: &Var, batch: Tensor, share: f32) {
        self.pending.borrow_mut().push((statistic.clone(), batch, share));
    }

    /// Applies what was deferred, in order: an iteration that failed or was interrupted leaves no trace in the network.
    ///
    /// # Errors
    /// A statistic of another shape than the batch's.
    pub fn commit(&self) -> Result<()> {
        let mut pending = std::mem::take(&mut *self.pending.borrow_mut());
        while !pending.is_empty() {
            // All at once, but one that moves several times.
            let mut met = HashSet::new();
            let (now, later): (Vec<_>, Vec<_>) = pending.into_iter().partition(|(s, ..)| met.insert(s.id()));
            let moves: Vec<_> =
                now.iter().map(|(s, batch, share)| (s.as_tensor(), batch, (1.0 - share, *share))).collect();
            blend_all(&moves)?;
            pending = later;
        }
        Ok(())
    }

    /// Adds to the pass's count of floating-point operations.
    pub fn count_flops(&self, flops: f64) {
        self.flops.set(self.flops.get() + flops);
    }

    /// Floating-point operations of the convolutions so far, a multiply–add counting two.
    pub fn flops(&self) -> f64 {
        self.flops.get()
    }

    /// Time of each stage so far.
    pub fn timings(&self) -> Vec<StageTime> {
        self.timings.borrow().clone()
    }

    /// The filled traces with the stage times; empty without a probe.
    pub fn into_traces(self) -> Vec<Trace> {
        let timings = self.timings.into_inner();
        let mut traces = self.traces.map(RefCell::into_inner).unwrap_or_default();
        for trace in &mut traces {
            trace.timings.clone_from(&timings);
        }
        traces
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn taps_cost_nothing_without_a_probe_and_fill_each_image_with_one() -> Result<()> {
        let map = Tensor::arange(0f32, 24.0, &Device::Cpu)?.reshape((2, 3, 2, 2))?;
        let quiet = Pass::new(Mode::Infer);
        quiet.tap("map", 0, &map)?;
        assert!(quiet.into_traces().is_empty());
        let probed = Pass::probed(Mode::Infer, 2);
        probed.tap("map", 1, &map)?;
        let traces = probed.into_traces();
        assert_eq!(traces[1].maps[0].data[0], 12.0);
        assert_eq!((traces[0].maps[0].channels, traces[0].maps[0].level), (3, 1));
        Ok(())
    }

    #[test]
    fn deferred_statistics_change_only_on_commit() -> Result<()> {
        let mean = Var::zeros(2, candle_core::DType::F32, &Device::Cpu)?;
        let pass = Pass::new(Mode::Train);
        let var = Var::ones(1, candle_core::DType::F32, &Device::Cpu)?;
        pass.defer(&mean, Tensor::from_slice(&[1f32, 2.0], 2, &Device::Cpu)?, 0.5);
        pass.defer(&var, Tensor::from_slice(&[5f32], 1, &Device::Cpu)?, 0.25);
        pass.defer(&mean, Tensor::from_slice(&[2.5f32, -1.0], 2, &Device::Cpu)?, 0.5);
        assert_eq!(mean.to_vec1::<f32>()?, vec![0.0, 0.0]);
        pass.commit()?;
        assert_eq!((mean.to_vec1::<f32>()?, var.to_vec1::<f32>()?), (vec![1.5, 0.0], vec![2.0]));
        pass.commit()?;
        assert_eq!(mean.to_vec1::<f32>()?, vec![1.5, 0.0]);
        Ok(())
    }
}
