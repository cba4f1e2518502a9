//! What the window knows of a run's single steps: the phase it waits before, its black box, what paused it, and how
//! often the same patches came back as hard negatives.

use super::state::State;
use crate::engine::{Event, Severity, Stepped};
use crate::geometry::BBox;
use crate::train::blackbox::Record;
use crate::train::{Incident, Phase, RangeTest, Replay};
use std::collections::HashMap;
use std::sync::Arc;

/// Places that are counted; beyond it counting begins anew.
const MOST_PLACES: usize = 200_000;

/// Beside the numbers of the last iteration.
#[derive(Debug, Default)]
pub struct Stepping {
    /// The phase that the iteration in progress waits before.
    pub next: Option<Phase>,
    /// How many times more the run can go back, where it has just done so.
    pub left: Option<usize>,
    /// What the black box remembers, oldest first.
    pub remembered: Arc<Vec<Record>>,
    pub incident: Option<Arc<Incident>>,
    pub replay: Option<Arc<Replay>>,
    pub rate: Option<Arc<RangeTest>>,
    pub hard: HardNegatives,
}

/// How often a patch of an image was mined as a hard negative, over the probed iterations.
#[derive(Debug, Default)]
pub struct HardNegatives {
    /// Probed iterations that an image was in.
    images: HashMap<String, u32>,
    places: HashMap<(String, Place), u32>,
}

/// Where a box lies: its centre on a grid of 16×16 over the input, and its area in octaves.
type Place = [i16; 3];

impl HardNegatives {
    /// Counts the mined negatives of a whole iteration; each place once an image.
    pub fn count(&mut self, stepped: &Stepped) {
        if self.places.len() > MOST_PLACES {
            *self = Self::default();
        }
        for (trace, image) in stepped.report.traces.iter().zip(&stepped.report.images) {
            let Some(input) = &trace.input else { continue };
            *self.images.entry(image.clone()).or_default() += 1;
            let mined = trace.sampling.iter().filter(|sample| !sample.positive);
            let boxes = mined.filter_map(|sample| trace.anchors.boxes.get(sample.anchor as usize));
            let mut places: Vec<Place> = boxes.map(|b| place(*b, input.width, input.height)).collect();
            places.sort_unstable();
            places.dedup();
            for place in places {
                *self.places.entry((image.clone(), place)).or_default() += 1;
            }
        }
    }

    /// How often the place of `bbox` (input pixels) was mined in `image`, and in how many probed iterations.
    pub fn times(&self, image: &str, bbox: BBox, width: usize, height: usize) -> (u32, u32) {
        let key = (image.to_string(), place(bbox, width, height));
        let mined = self.places.get(&key).copied().unwrap_or(0);
        (mined, self.images.get(image).copied().unwrap_or(0))
    }
}

fn place(b: BBox, width: usize, height: usize) -> Place {
    let (x, y) = b.center();
    let cell = |at: f32, side: usize| (16.0 * at / side.max(1) as f32) as i16;
    [cell(x, width), cell(y, height), b.area().max(1.0).log2().round() as i16]
}

impl State {
    /// Takes in an event about single steps.
    pub(super) fn fold_step(&mut self, event: Event) {
        match event {
            Event::Phase { next, .. } => self.stepping.next = next,
            Event::WentBack { iteration, left } => {
                self.stepping.next = None;
                self.stepping.left = Some(left);
                self.curves.keep(iteration);
                if let Some(training) = &mut self.training {
                    training.iteration = iteration;
                }
                if self.last_step.as_ref().is_some_and(|report| report.iteration > iteration) {
                    self.last_step = None;
                }
                if self.stepped.as_ref().is_some_and(|s| s.next.is_some() || s.report.iteration > iteration) {
                    self.stepped = None;
                    self.stepped_version += 1;
                }
            }
            Event::Remembered(records) => self.stepping.remembered = records,
            Event::Incident(incident) => {
                self.stepping.next = None;
                self.stepping.incident = Some(incident);
            }
            Event::Replayed(replay) => {
                let text = match replay.differences.first() {
                    None => "the step repeats bit for bit".to_string(),
                    Some(first) => format!("the step does not repeat: {first}"),
                };
                self.note(Severity::Info, "black box", text);
                self.stepping.replay = Some(replay);
            }
            Event::RateFound(test) => {
                let text = match test.suggestion {
                    Some(rate) => format!("the loss falls fastest at a learning rate of {rate:.2e}"),
                    None => "the loss fell at no rate; look at the data, or at what is frozen".to_string(),
                };
                self.note(Severity::Info, "range test", text);
                self.stepping.rate = Some(test);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{FeatureMap, Sample, Trace};
    use crate::train::StepReport;

    fn stepped(iteration: u64, next: Option<Phase>) -> Stepped {
        let sample = |anchor, positive| Sample { anchor, positive, rank: 0, loss: 1.0 };
        let mut trace = Trace {
            input: Some(FeatureMap { width: 160, height: 160, ..FeatureMap::default() }),
            sampling: vec![sample(0, true), sample(1, false), sample(2, false)],
            ..Trace::default()
        };
        let far = BBox::new(100.0, 100.0, 120.0, 120.0);
        trace.anchors.boxes = vec![BBox::new(0.0, 0.0, 8.0, 8.0), far, far.shift(1.0, 0.0)];
        let report = StepReport { iteration, traces: vec![trace], images: vec!["a".into()], ..StepReport::default() };
        Stepped { report, next, mean: [0.0; 3], std: [1.0; 3], bgr: false, classes: Vec::new(), coder: None }
    }

    #[test]
    fn a_patch_that_comes_back_is_counted_once_an_iteration_and_positives_are_not() {
        let mut hard = HardNegatives::default();
        hard.count(&stepped(1, None));
        hard.count(&stepped(2, None));
        assert_eq!(hard.times("a", BBox::new(100.0, 100.0, 120.0, 120.0), 160, 160), (2, 2));
        assert_eq!(hard.times("a", BBox::new(0.0, 0.0, 8.0, 8.0), 160, 160), (0, 2));
        assert_eq!(hard.times("b", BBox::new(0.0, 0.0, 8.0, 8.0), 160, 160), (0, 0));
    }

    #[test]
    fn going_back_forgets_what_came_after() {
        let mut state = State::default();
        for iteration in 1..=3 {
            let report = StepReport { iteration, seconds: 0.1, ..StepReport::default() };
            state.fold(Event::Stepped(Arc::new(report)));
        }
        state.stepped = Some(Arc::new(stepped(3, None)));
        state.fold(Event::WentBack { iteration: 2, left: 1 });
        assert_eq!((state.curves.len, state.stepping.left), (2, Some(1)));
        assert!(state.last_step.is_none() && state.stepped.is_none());
        state.stepped = Some(Arc::new(stepped(3, Some(Phase::Loss))));
        state.fold(Event::Phase { done: Phase::Sample, next: Some(Phase::Loss) });
        assert_eq!(state.stepping.next, Some(Phase::Loss));
        state.fold(Event::WentBack { iteration: 2, left: 1 });
        assert!(state.stepping.next.is_none() && state.stepped.is_none());
    }
}
