//! The recorder: copies of the last states of a run, to step back to bit for bit.

use super::blackbox::LossWindow;
use super::optimizer::OptimizerState;
use super::scaling::LossScale;
use super::validation::Best;
use crate::data::loader::Position;
use std::collections::VecDeque;

/// Everything that an iteration changes. Augmentation follows from seed and place, so the place is the generator's
/// state.
#[derive(Debug)]
pub struct State {
    /// Iterations done.
    pub iteration: u64,
    /// Where the next batch starts.
    pub position: Position,
    pub best: Best,
    pub losses: LossWindow,
    pub loss_scale: Option<LossScale>,
    pub optimizer: OptimizerState,
}

/// The states before the last iterations, newest last.
#[derive(Debug, Default)]
pub struct Recorder {
    states: VecDeque<State>,
    bytes: usize,
}

impl Recorder {
    /// Keeps `state`, dropping the oldest beyond `most` states or `most_bytes` bytes; the newest always stays unless
    /// `most` is 0.
    pub fn push(&mut self, state: State, most: usize, most_bytes: usize) {
        self.bytes += state.optimizer.bytes();
        self.states.push_back(state);
        while self.states.len() > most || (self.states.len() > 1 && self.bytes > most_bytes) {
            let Some(oldest) = self.states.pop_front() else { break };
            self.bytes -= oldest.optimizer.bytes();
        }
    }

    /// The newest state, which is then no longer kept.
    pub fn pop(&mut self) -> Option<State> {
        let state = self.states.pop_back()?;
        self.bytes -= state.optimizer.bytes();
        Some(state)
    }

    /// How many steps back are possible.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// Memory of all copies.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn clear(&mut self) {
        self.states.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Arch;
    use crate::nn::{Init, Params, Role};
    use crate::train::TrainConfig;
    use crate::train::optimizer::Optimizer;
    use candle_core::{Device, Result};

    #[test]
    fn count_and_bytes_bound_what_is_kept() -> Result<()> {
        let params = Params::new(&Device::Cpu, 0);
        params.root().param("w", &[256], Init::Constant(1.0), Role::Weight)?;
        let optimizer = Optimizer::new(&params, &TrainConfig::new(Arch::SsdNano));
        let state = |iteration| -> Result<State> {
            Ok(State {
                iteration,
                position: Position::default(),
                best: Best::default(),
                losses: LossWindow::default(),
                loss_scale: None,
                optimizer: optimizer.snapshot()?,
            })
        };
        let mut recorder = Recorder::default();
        for iteration in 0..5 {
            recorder.push(state(iteration)?, 3, usize::MAX);
        }
        assert_eq!((recorder.len(), recorder.bytes()), (3, 3 * 1024));
        recorder.push(state(5)?, 3, 2048);
        assert_eq!((recorder.len(), recorder.bytes()), (2, 2048));
        assert_eq!(recorder.pop().map(|s| s.iteration), Some(5));
        recorder.push(state(6)?, 3, 10);
        assert_eq!((recorder.len(), recorder.pop().map(|s| s.iteration)), (1, Some(6)));
        recorder.push(state(7)?, 0, usize::MAX);
        assert!(recorder.is_empty() && recorder.bytes() == 0);
        Ok(())
    }
}
