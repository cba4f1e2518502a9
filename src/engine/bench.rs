//! Timing: stages, whole passes, training steps and single convolutions.

use crate::data::{Batch, Position};
use crate::detect::predict::inference_pass;
use crate::detect::{Arch, Config, build, names::names_for, predict};
use crate::geometry::{BBox, Object};
use crate::imaging::picture::Picture;
pub use crate::ops::conv::peak_gflops;
use crate::ops::conv::{Activation, ConvSpec, WeightCache, conv2d};
use crate::random::Random;
use crate::trace::StageTime;
use crate::train::optimizer::Optimizer;
use crate::train::step::{step, training_pass};
use crate::train::{TrainConfig, TrainError};
use candle_core::{Device, Result, Tensor};
use std::sync::Arc;
use std::time::Instant;

/// Milliseconds by stage.
pub type Stages = Vec<(String, f64)>;

/// Milliseconds of repeated work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Times {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

/// (input channels, output channels, side, kernel, stride, dilation)
pub type ConvolutionShape = (usize, usize, usize, usize, usize, usize);

/// Layers of the published networks.
pub const CONVOLUTIONS: [ConvolutionShape; 18] = [
    (3, 64, 300, 3, 1, 1),
    (64, 64, 300, 3, 1, 1),
    (64, 128, 150, 3, 1, 1),
    (128, 128, 150, 3, 1, 1),
    (256, 256, 75, 3, 1, 1),
    (512, 512, 38, 3, 1, 1),
    (512, 512, 19, 3, 1, 1),
    (512, 1024, 19, 3, 1, 6),
    (1024, 1024, 19, 1, 1, 1),
    (256, 256, 100, 3, 1, 1),
    (64, 256, 200, 1, 1, 1),
    (256, 64, 200, 1, 1, 1),
    (512, 2048, 25, 1, 1, 1),
    (128, 128, 100, 3, 2, 1),
    (3, 64, 800, 7, 2, 1),
    (256, 256, 13, 3, 1, 1),
    (12, 12, 240, 3, 1, 1),
    (48, 48, 60, 3, 1, 1),
];

/// Threads that parallel loops use.
pub fn thread_count() -> usize {
    rayon::current_num_threads()
}

/// Median, least and greatest of the measured milliseconds, after two unmeasured rounds.
fn measure<E>(repeat: usize, mut work: impl FnMut() -> std::result::Result<(), E>) -> std::result::Result<Times, E> {
    let mut times = Vec::with_capacity(repeat);
    for round in 0..repeat.max(1) + 2 {
        let start = Instant::now();
        work()?;
        if round >= 2 {
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(Times { median: times[times.len() / 2], min: times[0], max: times[times.len() - 1] })
}

fn random(shape: &[usize], rng: &mut Random) -> Result<Tensor> {
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.range(-1.0, 1.0)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// One convolution with bias and ReLU, weights packed once: its name, times and GFLOP/s.
///
/// # Errors
/// Those of the operation.
pub fn convolution(
    (input, output, side, kernel, stride, dilation): ConvolutionShape,
    repeat: usize,
) -> Result<(String, Times, f64)> {
    let mut rng = Random::new(1);
    let x = random(&[1, input, side, side], &mut rng)?;
    let w = random(&[output, input, kernel, kernel], &mut rng)?;
    let b = random(&[output], &mut rng)?;
    let padding = dilation * (kernel - 1) / 2;
    let spec = ConvSpec::new().stride(stride).padding(padding).dilation(dilation).activation(Activation::Relu);
    let cache = Arc::new(WeightCache::default());
    let mut pixels = 0;
    let times = measure(repeat.max(5), || {
        pixels = conv2d(&x, &w, Some(&b), spec, Some((&cache, 1)))?.elem_count() / output;
        Ok::<(), candle_core::Error>(())
    })?;
    let flops = 2.0 * (pixels * output * input * kernel * kernel) as f64;
    let name = format!("conv {input}>{output} {side} k{kernel} s{stride} d{dilation}");
    Ok((name, times, flops / times.median / 1e6))
}

/// A 640×480 picture through `arch` under random weights: whole times, and the median of each stage.
///
/// # Errors
/// Those of the network.
pub fn forward(arch: Arch, repeat: usize) -> Result<(Times, Stages)> {
    let config = Config::new(arch, &names_for(80));
    let detector = build(&config, &Device::Cpu, 1)?;
    let mut rng = Random::new(2);
    let bytes: Vec<u8> = (0..640 * 480 * 3).map(|_| rng.next_u64() as u8).collect();
    let picture = Picture::from_rgb(640, 480, bytes).map_err(candle_core::Error::wrap)?;
    let mut stages = Vec::new();
    let times = measure(repeat, || {
        collect(&mut stages, &predict(&*detector, &picture, None, inference_pass(false))?.timings);
        Ok::<(), candle_core::Error>(())
    })?;
    Ok((times, medians(stages)))
}

fn collect(stages: &mut Vec<(String, Vec<f64>)>, timings: &[StageTime]) {
    for time in timings {
        match stages.iter_mut().find(|(name, _)| *name == time.stage) {
            Some((_, times)) => times.push(time.seconds * 1e3),
            None => stages.push((time.stage.clone(), vec![time.seconds * 1e3])),
        }
    }
}

fn medians(stages: Vec<(String, Vec<f64>)>) -> Stages {
    let medians = stages.into_iter().map(|(name, mut times)| {
        times.sort_by(f64::total_cmp);
        (name, times[times.len() / 2])
    });
    medians.collect()
}

/// Training steps of `arch` on random images with four objects each: whole times, and the median of each phase.
///
/// # Errors
/// Those of the network.
pub fn train(arch: Arch, batch: usize, repeat: usize) -> std::result::Result<(Times, Stages), TrainError> {
    let config = Config::new(arch, &names_for(80));
    let detector = build(&config, &Device::Cpu, 1)?;
    let mut optimizer = Optimizer::new(detector.params(), &TrainConfig::new(arch));
    let (height, width) = config.input();
    let mut rng = Random::new(3);
    let images = (0..batch * 3 * height * width).map(|_| rng.range(-1.0, 1.0)).collect();
    let side = width as f32;
    let objects: Vec<Vec<Object>> = (0..batch)
        .map(|_| {
            let object = |class: u32| {
                let (x, y) = (rng.range(0.0, side * 0.6), rng.range(0.0, side * 0.6));
                let size = rng.range(side * 0.1, side * 0.4);
                Object { bbox: BBox::from_xywh(x, y, size, size), class, ..Object::default() }
            };
            (0..4).map(object).collect()
        })
        .collect();
    let batch = Batch {
        images,
        shape: [batch, 3, height, width],
        sizes: vec![(width, height); batch],
        objects,
        indices: (0..batch).collect(),
        names: vec![String::new(); batch],
        applied: vec![Vec::new(); batch],
        position: Position::default(),
        wait_seconds: 0.0,
    };
    let mut stages = Vec::new();
    let mut iteration = 0;
    let times = measure(repeat, || {
        let report = step(&*detector, &mut optimizer, &batch, 1e-6, iteration, training_pass(&batch, false))?;
        iteration += 1;
        collect(&mut stages, &report.timings);
        Ok::<(), TrainError>(())
    })?;
    Ok((times, medians(stages)))
}
