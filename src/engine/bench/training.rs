//! Training steps on random images, update included: whole, by phase, and with the probe.

use super::network::{Subject, of_batch, with_and_without};
use super::{Measurement, StageTimes, measure, measure_in_turns};
use crate::data::{Batch, Position};
use crate::detect::Detector;
use crate::geometry::{BBox, Mask, MaskError, Object};
use crate::nn::{Mode, Pass};
use crate::ops::precision;
use crate::ops::tape::Tape;
use crate::random::Random;
use crate::train::optimizer::Optimizer;
use crate::train::scaling::LossScale;
use crate::train::step::{StepInProgress, StepSettings};
use crate::train::{TrainConfig, TrainError};
use candle_core::Tensor;
use std::time::Instant;

/// Objects of each image.
const OBJECTS: usize = 4;
/// Small enough that the loss on noise neither grows nor falls.
const RATE: f32 = 1e-6;

/// A network, its optimiser and a batch.
struct Trainer {
    detector: Box<dyn Detector>,
    optimizer: Optimizer,
    /// None only while a step has it.
    batch: Option<Batch>,
    loss_scale: Option<LossScale>,
    iteration: u64,
}

impl Trainer {
    fn new(subject: &Subject, batch: usize) -> Result<Self, TrainError> {
        let detector = subject.build()?;
        // every parameter learns and nothing is averaged, as in the peers
        let settings = TrainConfig { ema: 0.0, frozen_prefixes: Vec::new(), ..TrainConfig::new(subject.config.arch()) };
        let optimizer = Optimizer::new(detector.params(), &settings);
        let batch = random_batch(subject, batch).map_err(|e| TrainError::Settings(e.to_string()))?;
        let loss_scale = LossScale::new(precision::current());
        Ok(Self { detector, optimizer, batch: Some(batch), loss_scale, iteration: 0 })
    }

    /// One step; the milliseconds of each phase in order.
    fn step(&mut self, probe: bool) -> Result<Vec<(&'static str, f64)>, TrainError> {
        let settings = StepSettings {
            mode: Mode::Train,
            probe,
            rate: RATE,
            iteration: self.iteration,
            precision: precision::current(),
            loss_scale: self.loss_scale.map(LossScale::factor),
        };
        let mut step = StepInProgress::new(self.batch.take().into_iter().collect(), settings);
        let mut phases = Vec::new();
        while step.next_phase().is_some() {
            let start = Instant::now();
            let phase = step.advance(&*self.detector, &mut self.optimizer)?;
            phases.push((phase.name(), start.elapsed().as_secs_f64() * 1e3));
        }
        self.detector.params().device().synchronize()?;
        let (report, mut batches) = step.finish();
        if let Some(scale) = &mut self.loss_scale {
            scale.follow(report.skipped);
        }
        self.batch = batches.pop();
        self.iteration += 1;
        Ok(phases)
    }

    /// The arithmetic of a step alone, its loss scaled alike: no stops, no clock, no look at the loss.
    fn bare_step(&mut self) -> Result<(), TrainError> {
        let Some(batch) = &self.batch else { return Ok(()) };
        let pass = Pass::new(Mode::Train);
        let images = Tensor::from_slice(&batch.images, &batch.shape, self.detector.params().device())?;
        let mut tape = Tape::default();
        let losses = tape.record(|| {
            let outputs = self.detector.forward(&images, &pass)?;
            self.detector.losses(&outputs, &batch.objects, &pass)
        })?;
        let total = losses.total()?;
        let total = match self.loss_scale {
            Some(scale) => total.affine(f64::from(scale.factor()), 0.0)?,
            None => total,
        };
        let mut gradients = self.optimizer.collect(&mut tape.backward(&total)?);
        if let Some(scale) = self.loss_scale {
            gradients.divide(scale.factor())?;
        }
        let norm = gradients.norm()?;
        if norm.is_finite() {
            self.optimizer.update(&gradients, RATE, norm, self.iteration)?;
            pass.commit()?;
        }
        if let Some(scale) = &mut self.loss_scale {
            scale.follow(!norm.is_finite());
        }
        self.detector.params().device().synchronize()?;
        self.iteration += 1;
        Ok(())
    }
}

impl Subject {
    /// Steps on `batch` images: forward, loss, backward and update.
    ///
    /// # Errors
    /// Those of the network, such as batch norms that need more than one image.
    pub fn train(&self, batch: usize, repeat: usize) -> Result<Measurement, TrainError> {
        let mut trainer = Trainer::new(self, batch)?;
        let mut phases = StageTimes::default();
        let times = measure(repeat, || {
            phases.add(trainer.step(false)?);
            Ok::<(), TrainError>(())
        })?;
        let name = format!("{} train step{}", self.label(), of_batch(batch));
        Ok(Measurement { stages: phases.medians(), ..Measurement::new(name, times) })
    }

    /// Steps without and with the probe, in turns; before that without it and bare, on the same two networks.
    ///
    /// # Errors
    /// As [`Self::train`].
    pub fn train_probed(&self, batch: usize, repeat: usize) -> Result<Vec<Measurement>, TrainError> {
        let (mut plain, mut other) = (Trainer::new(self, batch)?, Trainer::new(self, batch)?);
        let (stopping, bare) = measure_in_turns(repeat, || plain.step(false).map(drop), || other.bare_step())?;
        let (off, on) = measure_in_turns(repeat, || plain.step(false).map(drop), || other.step(true).map(drop))?;
        let mut both = with_and_without(&format!("{} train step{}", self.label(), of_batch(batch)), off, on);
        if let Some(off) = both.first_mut() {
            off.numbers.push(("times_bare", stopping.median / bare.median));
        }
        Ok(both)
    }
}

/// Noise with objects anywhere, masked where the network learns masks.
fn random_batch(subject: &Subject, images: usize) -> Result<Batch, MaskError> {
    let (width, height) = subject.input();
    let classes = subject.config.classes().len();
    let mut rng = Random::new(3);
    let pixels = (0..images * 3 * height * width).map(|_| rng.range(-1.0, 1.0)).collect();
    let mut objects = Vec::with_capacity(images);
    for _ in 0..images {
        let mut own = Vec::with_capacity(OBJECTS);
        for _ in 0..OBJECTS {
            own.push(random_object(subject, classes, &mut rng)?);
        }
        objects.push(own);
    }
    Ok(Batch {
        images: pixels,
        shape: [images, 3, height, width],
        sizes: vec![(subject.width, subject.height); images],
        objects,
        indices: (0..images).collect(),
        names: vec![String::new(); images],
        applied: vec![Vec::new(); images],
        position: Position::default(),
        wait_seconds: 0.0,
    })
}

/// A box of a tenth to four tenths of the picture each way, inside it.
fn random_object(subject: &Subject, classes: usize, rng: &mut Random) -> Result<Object, MaskError> {
    let (width, height) = (subject.width as f32, subject.height as f32);
    let (x, y) = (rng.range(0.0, width * 0.6), rng.range(0.0, height * 0.6));
    let (w, h) = (rng.range(width * 0.1, width * 0.4), rng.range(height * 0.1, height * 0.4));
    let mask = if subject.config.needs_masks() {
        // masks lie on the network's input, like the boxes
        let (columns, rows) = subject.input();
        let outline = vec![x, y, x + w, y, x + w, y + h, x, y + h];
        Some(Mask::from_polygons(&[outline], rows as u32, columns as u32)?)
    } else {
        None
    };
    let class = rng.below(classes) as u32;
    Ok(Object { bbox: BBox::from_xywh(x, y, w, h), class, mask, ..Object::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Arch;
    use crate::ops::precision::Precision;

    #[test]
    fn a_bare_step_in_f16_is_the_same_as_one_by_phases() {
        let subject = Subject::new(Arch::RetinanetNano, None).unwrap();
        Precision::F16.within(|| {
            let [mut plain, mut bare] = [(); 2].map(|()| Trainer::new(&subject, 2).unwrap());
            plain.step(false).unwrap();
            bare.bare_step().unwrap();
            assert!(plain.loss_scale.is_some());
            assert_eq!(bare.loss_scale, plain.loss_scale);
            assert_eq!(bare.detector.params().values().unwrap(), plain.detector.params().values().unwrap());
        });
    }

    #[test]
    fn objects_lie_inside_and_have_masks_where_the_network_learns_them() {
        let subject = Subject::new(Arch::MaskNano, None).unwrap();
        let batch = random_batch(&subject, 2).unwrap();
        assert_eq!(batch.shape, [2, 3, subject.input().1, subject.input().0]);
        let (width, height) = (subject.width as f32, subject.height as f32);
        for object in batch.objects.iter().flatten() {
            let b = object.bbox;
            assert!(b.is_proper() && b.x0 >= 0.0 && b.y0 >= 0.0 && b.x1 <= width && b.y1 <= height, "{b:?}");
            assert!(object.mask.as_ref().is_some_and(|mask| mask.area() > 0));
        }
        let plain = Subject::new(Arch::FasterNano, None).unwrap();
        assert!(random_batch(&plain, 1).unwrap().objects[0].iter().all(|object| object.mask.is_none()));
    }
}
