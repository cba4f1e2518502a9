//! Single operations other than convolutions, at the sizes that detectors give them.

use super::{Measurement, measure, random_tensor};
use crate::geometry::BBox;
use crate::geometry::nms::nms;
use crate::ops::activation::softmax_last;
use crate::ops::losses::sigmoid_focal;
use crate::ops::norm::batch_norm_train;
use crate::ops::pool::{Pool, max_pool2d};
use crate::ops::resize::{upsample_bilinear, upsample_nearest};
use crate::ops::roi::roi_align;
use crate::ops::tape::Tape;
use crate::random::Random;
use candle_core::{Device, Result, Tensor, Var};
use std::hint::black_box;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Greedy suppression of so many boxes at IoU 0.5 on 800×800 pixels.
    Nms(usize),
    /// 1000 regions of 256 channels to 7×7, two samples a bin each way, from the finest level at 800×800 pixels.
    RoiAlign,
    /// VGG-16's first.
    MaxPool,
    /// A level of the pyramid to the size of the next finer one.
    ResizeNearest,
    ResizeBilinear,
    /// With the batch's statistics, C2 of ResNet-50 at 400 pixels.
    BatchNorm,
    /// SSD300's classes.
    Softmax,
    /// RetinaNet's classes at 800×800 pixels.
    Focal,
}

impl Operation {
    pub const ALL: [Self; 10] = [
        Self::Nms(1000),
        Self::Nms(10_000),
        Self::Nms(50_000),
        Self::RoiAlign,
        Self::MaxPool,
        Self::ResizeNearest,
        Self::ResizeBilinear,
        Self::BatchNorm,
        Self::Softmax,
        Self::Focal,
    ];

    pub fn name(self) -> String {
        match self {
            Self::Nms(count) => format!("nms {count}"),
            Self::RoiAlign => "roialign 1000 x 256 x 7 x 7".into(),
            Self::MaxPool => "max pool 64 x 300 x 300 k2 s2".into(),
            Self::ResizeNearest => "resize nearest 256 x 50 x 50 to 100 x 100".into(),
            Self::ResizeBilinear => "resize bilinear 256 x 50 x 50 to 100 x 100".into(),
            Self::BatchNorm => "batch norm 256 x 100 x 100".into(),
            Self::Softmax => "softmax 8732 x 91".into(),
            Self::Focal => "focal loss 120087 x 91".into(),
        }
    }

    /// The operation, and with `train` forward and backward pass together where it has a gradient.
    ///
    /// # Errors
    /// Those of the operation.
    pub fn measure(self, train: bool, repeat: usize) -> Result<Vec<Measurement>> {
        let mut rng = Random::new(4);
        let runs = Runs { name: self.name(), train, repeat };
        match self {
            Self::Nms(count) => {
                let boxes = boxes(count, 800.0, 84.0, &mut rng);
                let scores: Vec<f32> = (0..count).map(|_| rng.unit()).collect();
                let times = measure(repeat, || {
                    black_box(nms(&boxes, &scores, 0.5));
                    Ok::<(), candle_core::Error>(())
                })?;
                Ok(vec![Measurement::new(runs.name, times)])
            }
            Self::RoiAlign => {
                let features = random_tensor(&[1, 256, 200, 200], &mut rng)?;
                let rois: Vec<(u32, BBox)> =
                    boxes(1000, 800.0, 208.0, &mut rng).into_iter().map(|bbox| (0, bbox)).collect();
                runs.of(&features, |x| roi_align(x, &rois, 0.25, (7, 7), 2, false))
            }
            Self::MaxPool => {
                let x = random_tensor(&[1, 64, 300, 300], &mut rng)?;
                runs.of(&x, |x| max_pool2d(x, Pool::new(2)))
            }
            Self::ResizeNearest => {
                let x = random_tensor(&[1, 256, 50, 50], &mut rng)?;
                runs.of(&x, |x| upsample_nearest(x, (100, 100)))
            }
            Self::ResizeBilinear => {
                let x = random_tensor(&[1, 256, 50, 50], &mut rng)?;
                runs.of(&x, |x| upsample_bilinear(x, (100, 100), false))
            }
            Self::BatchNorm => {
                let x = random_tensor(&[1, 256, 100, 100], &mut rng)?;
                let (gamma, beta) = (random_tensor(&[256], &mut rng)?, random_tensor(&[256], &mut rng)?);
                runs.of(&x, |x| Ok(batch_norm_train(x, &gamma, &beta, 1e-5)?.0))
            }
            Self::Softmax => {
                let x = random_tensor(&[8732, 91], &mut rng)?;
                runs.of(&x, softmax_last)
            }
            Self::Focal => {
                let (rows, classes) = (120_087, 91);
                let x = random_tensor(&[rows, classes], &mut rng)?;
                let mut targets = vec![0.0_f32; rows * classes];
                for row in targets.chunks_exact_mut(classes).step_by(100) {
                    if let Some(target) = row.get_mut(rng.below(classes)) {
                        *target = 1.0;
                    }
                }
                let targets = Tensor::from_vec(targets, (rows, classes), &Device::Cpu)?;
                runs.of(&x, |x| sigmoid_focal(x, &targets, 0.25, 2.0))
            }
        }
    }
}

/// Boxes whose centres lie anywhere on `side`² pixels, with sides of 4 to `longest` pixels.
fn boxes(count: usize, side: f32, longest: f32, rng: &mut Random) -> Vec<BBox> {
    let mut one = || {
        let (x, y) = (rng.range(0.0, side), rng.range(0.0, side));
        BBox::from_cxcywh(x, y, rng.range(4.0, longest), rng.range(4.0, longest))
    };
    (0..count).map(|_| one()).collect()
}

/// How an operation is run.
struct Runs {
    name: String,
    train: bool,
    repeat: usize,
}

impl Runs {
    fn of(self, x: &Tensor, forward: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Vec<Measurement>> {
        let times = measure(self.repeat, || forward(x).map(drop))?;
        let mut measurements = vec![Measurement::new(self.name.as_str(), times)];
        if self.train {
            let x = Var::from_tensor(x)?;
            // the backward pass starts from ones, which is the gradient of the sum
            let times = measure(self.repeat, || {
                let mut tape = Tape::default();
                let y = tape.record(|| forward(x.as_tensor()))?;
                tape.backward(&y).map(drop)
            })?;
            measurements.push(Measurement::new(format!("{} forward+backward", self.name), times));
        }
        Ok(measurements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_are_proper_and_of_the_asked_size() {
        let found = boxes(100, 800.0, 84.0, &mut Random::new(1));
        assert_eq!(found.len(), 100);
        assert!(found.iter().all(|b| (3.9..84.1).contains(&b.width()) && (3.9..84.1).contains(&b.height())));
    }

    #[test]
    fn suppression_and_an_operation_with_a_gradient_are_timed() {
        let names = |operation: Operation, train: bool| -> Vec<String> {
            operation.measure(train, 1).unwrap().into_iter().map(|m| m.name).collect()
        };
        assert_eq!(names(Operation::Nms(100), true), ["nms 100"]);
        let name = Operation::Softmax.name();
        assert_eq!(names(Operation::Softmax, true), [name.clone(), format!("{name} forward+backward")]);
        assert_eq!(names(Operation::Softmax, false), [name]);
    }
}
