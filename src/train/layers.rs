//! What one update did to every trained parameter: norms, ratio of update to weight, dead units, histograms.
//!
//! Computed only for a probed step. Healthy updates are about a thousandth of the weights; a unit whose gradient is
//! exactly zero everywhere gave nothing to the loss of this batch (a ReLU that never opened).

use super::optimizer::{Gradients, Optimizer};
use crate::stats::Histogram;
use candle_core::{Result, Tensor};
use serde::Serialize;

/// Bins of a histogram.
const BINS: usize = 32;

/// One trained parameter in one step.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LayerReport {
    pub name: String,
    pub elements: usize,
    /// L2 norms before the update; the gradient's before clipping.
    pub weight_norm: f64,
    pub gradient_norm: f64,
    /// ‖Δw‖ / ‖w‖; 0 for weights that are all 0.
    pub update_ratio: f64,
    /// Output units: rows of a weight, one per element of a vector.
    pub units: usize,
    /// Units whose gradient is 0 in every element.
    pub dead: usize,
    pub weights: Spread,
    pub gradients: Spread,
}

/// Counts over equal bins between the lowest and the highest value.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    pub low: f32,
    pub high: f32,
    pub counts: Vec<u64>,
    pub sum: f64,
    pub sum_of_squares: f64,
}

impl Spread {
    /// Values that are no number are left out.
    pub fn new(values: &[f32]) -> Self {
        let mut numbers = values.iter().copied().filter(|v| v.is_finite());
        let Some(first) = numbers.next() else {
            return Self::default();
        };
        let (mut low, mut high) = (first, first);
        let (mut sum, mut sum_of_squares) = (0.0, 0.0);
        for value in values.iter().copied().filter(|v| v.is_finite()) {
            (low, high) = (low.min(value), high.max(value));
            sum += f64::from(value);
            sum_of_squares += f64::from(value) * f64::from(value);
        }
        if low == high {
            let count = values.iter().filter(|v| v.is_finite()).count() as u64;
            return Self { low, high, counts: vec![count], sum, sum_of_squares };
        }
        let mut histogram = Histogram::new(low, high, BINS);
        histogram.add_all(values);
        Self { low, high, counts: histogram.counts().to_vec(), sum, sum_of_squares }
    }

    /// Upper edge of bin `bin`.
    pub fn edge(&self, bin: usize) -> f64 {
        let share = (bin + 1) as f64 / self.counts.len().max(1) as f64;
        f64::from(self.low) + share * (f64::from(self.high) - f64::from(self.low))
    }
}

/// Copies of the trained weights that have a gradient, before they move.
pub(super) fn weights_before(optimizer: &Optimizer, gradients: &Gradients) -> Result<Vec<Vec<f32>>> {
    optimizer.trained(gradients).filter(|t| t.gradient.is_some()).map(|t| values(t.weight)).collect()
}

/// Compares the weights with what they were before the update.
pub(super) fn explain(optimizer: &Optimizer, gradients: &Gradients, before: &[Vec<f32>]) -> Result<Vec<LayerReport>> {
    let trained = optimizer.trained(gradients).filter_map(|t| Some((t.name, t.weight, t.gradient?)));
    let reports = trained.zip(before).map(|((name, weight, gradient), before)| {
        let (after, gradient) = (values(weight)?, values(gradient)?);
        let moved: f64 = after.iter().zip(before).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
        let weight_norm = norm(before);
        let units = weight.dims().first().copied().unwrap_or(1).max(1);
        let row = (gradient.len() / units).max(1);
        let dead = gradient.chunks(row).filter(|row| row.iter().all(|g| *g == 0.0)).count();
        Ok(LayerReport {
            name: name.to_string(),
            elements: after.len(),
            weight_norm,
            gradient_norm: norm(&gradient),
            update_ratio: if weight_norm > 0.0 { moved.sqrt() / weight_norm } else { 0.0 },
            units,
            dead,
            weights: Spread::new(before),
            gradients: Spread::new(&gradient),
        })
    });
    reports.collect()
}

fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1()
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Arch;
    use crate::nn::{Init, Params, Role};
    use crate::ops::tape::Tape;
    use crate::train::TrainConfig;
    use crate::train::config::Method;
    use candle_core::Device;

    #[test]
    fn norms_ratio_and_dead_rows_are_those_by_hand() -> Result<()> {
        let params = Params::new(&Device::Cpu, 0);
        let w = params.root().param("w", &[2, 2], Init::Constant(1.0), Role::Weight)?;
        let config = TrainConfig {
            method: Method::Sgd,
            weight_decay: 0.0,
            ema: 0.0,
            clip_norm: 0.0,
            ..TrainConfig::new(Arch::SsdNano)
        };
        let mut optimizer = Optimizer::new(&params, &config);
        // Only the first row enters the loss: 3·w00 + 4·w01.
        let factor = Tensor::from_slice(&[3f32, 4.0, 0.0, 0.0], (2, 2), &Device::Cpu)?;
        let mut store = Tape::default().backward(&(w.as_tensor() * factor)?.sum_all()?)?;
        let gradients = optimizer.collect(&mut store);
        let before = weights_before(&optimizer, &gradients)?;
        optimizer.update(&gradients, 0.1, gradients.norm()?, 0)?;
        let reports = explain(&optimizer, &gradients, &before)?;
        assert_eq!(reports.len(), 1);
        let report = &reports[0];
        assert_eq!((report.units, report.dead, report.elements), (2, 1, 4));
        assert!((report.gradient_norm - 5.0).abs() < 1e-6 && (report.weight_norm - 2.0).abs() < 1e-6);
        assert!((report.update_ratio - 0.25).abs() < 1e-6);
        assert_eq!((report.weights.low, report.weights.counts.as_slice()), (1.0, &[4u64][..]));
        assert_eq!(report.gradients.counts.iter().sum::<u64>(), 4);
        assert_eq!((report.gradients.low, report.gradients.high, report.gradients.sum), (0.0, 4.0, 7.0));
        Ok(())
    }

    #[test]
    fn a_spread_leaves_out_what_is_no_number() {
        assert_eq!(Spread::new(&[f32::NAN]).counts.len(), 0);
        let spread = Spread::new(&[1.0, f32::INFINITY, 3.0]);
        assert_eq!((spread.low, spread.high), (1.0, 3.0));
        assert_eq!(spread.counts.iter().sum::<u64>(), 2);
        assert_eq!(spread.edge(BINS - 1), 3.0);
    }
}
