//! Data-parallel training: the network on several devices, each of which learns from its part of every batch.
//!
//! As PyTorch's `DistributedDataParallel`: a device computes the gradient of the mean loss over its part, and the
//! weights move by the mean over the devices. Only the first device, the run's own, has the optimiser's state; the
//! others are given its new weights. Batch norms see the part of their own device, and the running statistics are those
//! of the first. A batch of fewer images than devices, as an epoch that is not shuffled may end with, is learnt from by
//! as many devices as it has images. One device is the case without others: nothing is cut, exchanged or handed to a
//! thread.

mod exchange;
mod shared_step;

pub use shared_step::SharedStep;

use super::TrainError;
use super::optimizer::Optimizer;
use super::run::RunConfig;
use super::step::{Phase, StepInProgress};
use crate::detect::{Detector, build};
use crate::nn::Params;
use crate::ops::interrupt;
use candle_core::{Device, Tensor};
use crossbeam_channel::{Receiver, Sender, bounded};
use exchange::Exchange;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::{Builder, JoinHandle};

/// candle sorts its graph by recursion: a deep network needs a deep stack. Only touched pages cost memory.
const STACK: usize = 256 << 20;

/// The network on a further device.
struct Network {
    detector: Box<dyn Detector>,
    /// Moves nothing: it knows which parameters are trained, and finds those that are no numbers.
    optimizer: Optimizer,
}

/// A phase that a thread is to run.
struct Work {
    network: Network,
    step: StepInProgress,
    requests: Option<Arc<AtomicUsize>>,
}

/// What came of it.
struct Done {
    network: Network,
    step: StepInProgress,
    outcome: Result<Phase, TrainError>,
}

/// A further device with the thread that computes there: libraries and buffers that a thread keeps outlive its phases.
struct Replica {
    /// None while the thread has it.
    network: Option<Network>,
    work: Option<Sender<Work>>,
    done: Receiver<Done>,
    thread: Option<JoinHandle<()>>,
}

impl Replica {
    fn new(rank: usize, config: &RunConfig, device: &Device) -> Result<Self, TrainError> {
        let detector = build(&config.model, device, config.train.seed)?;
        let optimizer = Optimizer::new(detector.params(), &config.train);
        let (work, inbox) = bounded(1);
        let (outbox, done) = bounded(1);
        let builder = Builder::new().name(format!("boxwright-rank{rank}")).stack_size(STACK);
        let thread = builder.spawn(move || run_phases(&inbox, &outbox)).map_err(|error| {
            TrainError::Settings(format!("no thread starts for device {rank} of the run ({error}); name fewer devices"))
        })?;
        Ok(Self { network: Some(Network { detector, optimizer }), work: Some(work), done, thread: Some(thread) })
    }

    fn network(&self) -> Result<&Network, TrainError> {
        self.network.as_ref().ok_or_else(gone)
    }

    /// Lets the thread run the next phase of `step`.
    fn start(&mut self, step: StepInProgress, requests: Option<Arc<AtomicUsize>>) -> Result<(), TrainError> {
        let network = self.network.take().ok_or_else(gone)?;
        let work = self.work.as_ref().ok_or_else(gone)?;
        work.send(Work { network, step, requests }).map_err(|_| gone())
    }

    /// Waits for what [`Self::start`] began.
    fn wait(&mut self) -> Result<(StepInProgress, Result<Phase, TrainError>), TrainError> {
        let Done { network, step, outcome } = self.done.recv().map_err(|_| gone())?;
        self.network = Some(network);
        Ok((step, outcome))
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // Without a sender the thread's inbox ends, which ends its loop.
        self.work = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of a further device ended by a panic");
        }
    }
}

/// The loop of a replica's thread.
fn run_phases(inbox: &Receiver<Work>, outbox: &Sender<Done>) {
    for Work { mut network, mut step, requests } in inbox {
        interrupt::watch(requests);
        let advanced = step.advance(&*network.detector, &mut network.optimizer);
        // Another device reads what is computed here.
        let ready = network.detector.params().device().synchronize();
        let outcome = advanced.and_then(|phase| ready.map(|()| phase).map_err(TrainError::from));
        if outbox.send(Done { network, step, outcome }).is_err() {
            break;
        }
    }
}

fn gone() -> TrainError {
    TrainError::Settings("the thread of a further device has ended; resume the run from its last checkpoint".into())
}

/// The network on all devices but the first, and the way between them.
pub struct Replicas {
    others: Vec<Replica>,
    exchange: Exchange,
    /// The version of the first device's weights that the others have.
    version: u64,
}

impl Replicas {
    /// Copies for all of `devices` but the first. They get their weights before the first phase.
    ///
    /// # Errors
    /// Batches that are too small to be cut, a device that cannot hold the network, or GPUs that NCCL cannot connect.
    pub fn new(config: &RunConfig, devices: &[Device]) -> Result<Self, TrainError> {
        let batch = config.train.batch;
        if batch < devices.len() {
            return Err(TrainError::Settings(format!(
                "a batch of {batch} cannot be cut for {count} devices, each of which needs an image: set batch to a \
                 multiple of {count}, or name fewer devices",
                count = devices.len()
            )));
        }
        let others = devices.iter().enumerate().skip(1).map(|(rank, device)| Replica::new(rank, config, device));
        Ok(Self { others: others.collect::<Result<_, _>>()?, exchange: Exchange::between(devices)?, version: 0 })
    }

    /// How many devices there are, the first one included.
    pub fn count(&self) -> usize {
        1 + self.others.len()
    }

    /// All devices, the run's own first.
    pub fn devices(&self) -> &[Device] {
        self.exchange.devices()
    }

    /// Gives the others the weights and running statistics of the first device, where those have changed.
    fn follow(&mut self, own: &Params) -> Result<(), TrainError> {
        let version = own.version();
        if self.others.is_empty() || self.version == version {
            return Ok(());
        }
        let values: Vec<Tensor> = own.all().iter().map(|param| param.var.as_tensor().detach()).collect();
        let copies = self.exchange.spread(&values)?;
        for (replica, copies) in self.others.iter().zip(&copies) {
            let params = replica.network()?.detector.params();
            for (param, copy) in params.all().iter().zip(copies) {
                param.var.set(copy)?;
            }
            params.touch();
            params.device().synchronize()?;
        }
        self.version = version;
        Ok(())
    }

    /// Runs the next phase of every step, all at once: the first on this thread, the others on their devices', the last
    /// of which have none where there are fewer steps. Of several errors, that of the first device is told.
    fn advance(
        &mut self,
        steps: &mut Vec<StepInProgress>,
        detector: &dyn Detector,
        optimizer: &mut Optimizer,
    ) -> Result<Phase, TrainError> {
        let requests = interrupt::watched();
        let theirs: Vec<StepInProgress> = steps.drain(1..).collect();
        let started = theirs.len();
        for (replica, step) in self.others.iter_mut().zip(theirs) {
            replica.start(step, requests.clone())?;
        }
        let mut outcome = match steps.first_mut() {
            Some(own) => own.advance(detector, optimizer),
            None => Err(gone()),
        };
        for replica in self.others.iter_mut().take(started) {
            let (step, theirs) = replica.wait()?;
            steps.push(step);
            outcome = outcome.and(theirs);
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::shared_step::part;
    use super::*;
    use crate::data;
    use crate::data::loader::{Batch, Loader, Position};
    use crate::detect::Arch;
    use crate::nn::Pass;
    use crate::ops::tape::Tape;
    use crate::train::incident::Fault;
    use crate::train::loader_settings;
    use crate::train::optimizer::Gradients;
    use crate::train::step::{StepReport, StepSettings, step};

    const DATA: &str = "shapes:train=8,val=2,test=2";
    const RATE: f32 = 0.01;

    /// Settings with this batch size, and the first batches under them.
    fn drawn(images: usize, count: usize) -> (RunConfig, Vec<Batch>) {
        let dataset = Arc::new(data::open(DATA, Some("train")).unwrap());
        let mut config = RunConfig::new(Arch::SsdNano, DATA, &dataset);
        config.train.batch = images;
        let settings = loader_settings(&config.train, &config.model);
        let mut loader = Loader::new(dataset, settings, Position::default()).unwrap();
        let batches = (0..count).map(|_| loader.next().unwrap()).collect();
        (config, batches)
    }

    fn fresh(config: &RunConfig) -> Network {
        let detector = build(&config.model, &Device::Cpu, config.train.seed).unwrap();
        let optimizer = Optimizer::new(detector.params(), &config.train);
        Network { detector, optimizer }
    }

    fn settings(config: &RunConfig, probe: bool) -> StepSettings {
        let (mode, precision) = (config.train.mode(), config.train.precision);
        StepSettings { mode, probe, rate: RATE, iteration: 0, precision, loss_scale: None }
    }

    /// An iteration on this many CPUs, ready for its first phase.
    fn begun(config: &RunConfig, batches: &[Batch], devices: usize, probe: bool) -> (Network, Replicas, SharedStep) {
        let replicas = Replicas::new(config, &vec![Device::Cpu; devices]).unwrap();
        (fresh(config), replicas, SharedStep::new(batches.to_vec(), settings(config, probe), devices))
    }

    fn done(config: &RunConfig, batches: &[Batch], devices: usize, probe: bool) -> (Network, Replicas, StepReport) {
        let (mut own, mut replicas, mut step) = begun(config, batches, devices, probe);
        while step.next_phase().is_some() {
            step.advance(&mut replicas, &*own.detector, &mut own.optimizer).unwrap();
        }
        let (report, returned) = step.finish();
        assert!(returned == batches);
        (own, replicas, report)
    }

    #[test]
    fn the_gradient_of_two_devices_is_the_mean_over_the_halves_by_hand() {
        let (config, batches) = drawn(4, 1);
        let (mut own, mut replicas, mut step) = begun(&config, &batches, 2, false);
        while step.advance(&mut replicas, &*own.detector, &mut own.optimizer).unwrap() != Phase::Backward {}
        let halves = [0..2, 2..4].map(|images| {
            let (network, half) = (fresh(&config), part(&batches[0], images));
            let pass = Pass::new(config.train.mode());
            let images = Tensor::from_slice(&half.images, &half.shape, &Device::Cpu).unwrap();
            let mut tape = Tape::default();
            let losses = tape.record(|| {
                let outputs = network.detector.forward(&images, &pass).unwrap();
                network.detector.losses(&outputs, &half.objects, &pass).unwrap()
            });
            let total = losses.total().unwrap();
            let gradients = network.optimizer.collect(&mut tape.backward(&total).unwrap());
            (total.to_vec0::<f32>().unwrap(), gradients)
        });
        assert_eq!(step.loss(), Some((halves[0].0 + halves[1].0) / 2.0));
        let values = |gradients: &Gradients| -> Vec<Option<Vec<f32>>> {
            let values = |slot: &Tensor| slot.flatten_all().unwrap().to_vec1().unwrap();
            gradients.slots.iter().map(|slot| slot.as_ref().map(values)).collect()
        };
        let (mean, first, second) = (values(&step.shards[0].gradients), values(&halves[0].1), values(&halves[1].1));
        assert_eq!(mean.len(), own.detector.params().all().len());
        assert!(mean.iter().flatten().count() > 10);
        for (mean, halves) in mean.iter().zip(first.iter().zip(&second)) {
            let by_hand = match halves {
                (Some(a), Some(b)) => Some(a.iter().zip(b).map(|(a, b)| (a + b) * 0.5).collect::<Vec<f32>>()),
                (a, b) => {
                    assert!(a.is_none() && b.is_none());
                    None
                }
            };
            assert_eq!(*mean, by_hand);
        }
    }

    #[test]
    fn one_device_makes_the_ordinary_step_bit_for_bit() {
        let (config, batches) = drawn(4, 1);
        let mut plain = fresh(&config);
        let pass = Pass::new(config.train.mode());
        let known = step(&*plain.detector, &mut plain.optimizer, &batches[0], RATE, 0, pass).unwrap();
        let (own, replicas, report) = done(&config, &batches, 1, false);
        assert_eq!(replicas.count(), 1);
        assert_eq!((report.loss, report.gradient_norm), (known.loss, known.gradient_norm));
        assert_eq!((report.parts, report.images), (known.parts, known.images));
        assert_eq!(own.detector.params().values().unwrap(), plain.detector.params().values().unwrap());
    }

    #[test]
    fn replicas_are_given_the_weights_and_statistics_that_the_first_device_has_after_an_update() {
        // Two images on the first device, three on the other.
        let (config, batches) = drawn(5, 1);
        let before = fresh(&config).detector.params().values().unwrap();
        let (own, mut replicas, _) = done(&config, &batches, 2, false);
        let theirs = |replicas: &Replicas| replicas.others[0].network().unwrap().detector.params().values().unwrap();
        let params = own.detector.params();
        let after = params.values().unwrap();
        for name in ["backbone.features.0.weight", "backbone.features.0.norm.running_mean"] {
            assert_ne!(after[name], before[name], "{name}");
        }
        replicas.follow(params).unwrap();
        assert_eq!(theirs(&replicas), after);
        let (name, (_, values)) = after.iter().next().unwrap();
        params.set(name, &vec![0.25; values.len()]).unwrap();
        replicas.follow(params).unwrap();
        assert_eq!(theirs(&replicas), params.values().unwrap());
    }

    #[test]
    fn traces_of_accumulated_batches_come_in_the_order_of_their_images() {
        let (config, batches) = drawn(5, 2);
        let (_, _, report) = done(&config, &batches, 2, true);
        let objects: Vec<_> = batches.iter().flat_map(|batch| batch.objects.clone()).collect();
        assert_eq!(report.traces.into_iter().map(|trace| trace.objects).collect::<Vec<_>>(), objects);
        assert_eq!(report.images, batches.iter().flat_map(|batch| batch.names.clone()).collect::<Vec<_>>());
        assert!((report.parts.iter().map(|(_, value)| value).sum::<f32>() - report.loss).abs() < 1e-4 * report.loss);
        assert!(!report.layers.is_empty() && report.gradient_norm > 0.0);
    }

    #[test]
    fn what_is_wrong_in_a_part_is_named_with_its_image() {
        let (config, mut batches) = drawn(4, 1);
        let image = batches[0].images.len() / 4;
        batches[0].images[3 * image] = f32::NAN;
        let (mut own, mut replicas, mut step) = begun(&config, &batches, 2, false);
        let error = loop {
            if let Err(error) = step.advance(&mut replicas, &*own.detector, &mut own.optimizer) {
                break error;
            }
        };
        let TrainError::Incident(incident) = error else { panic!("{error}") };
        assert_eq!((incident.fault, incident.image.as_ref()), (Fault::Pixel, Some(&batches[0].names[3])));
        // The threads are there for the next iteration.
        assert_eq!(step.shards.len(), 2);
        assert!(replicas.others[0].network.is_some());
    }

    #[test]
    fn a_request_to_stop_reaches_the_thread_of_a_further_device() {
        let (config, batches) = drawn(4, 1);
        let (mut own, mut replicas, mut step) = begun(&config, &batches, 2, false);
        step.advance(&mut replicas, &*own.detector, &mut own.optimizer).unwrap();
        let (replica, shard) = (&mut replicas.others[0], step.shards.remove(1));
        replica.start(shard, Some(Arc::new(AtomicUsize::new(1)))).unwrap();
        assert!(replica.wait().unwrap().1.unwrap_err().is_interruption());
    }

    #[test]
    fn settings_of_a_batch_with_fewer_images_than_devices_are_an_error_that_says_so() {
        let (config, _) = drawn(1, 1);
        let text = Replicas::new(&config, &[Device::Cpu, Device::Cpu]).err().unwrap().to_string();
        assert!(text.contains("a batch of 1 cannot be cut for 2 devices"), "{text}");
    }

    #[test]
    fn a_shorter_batch_is_learnt_from_by_as_many_devices_as_it_has_images() {
        for images in [1, 2] {
            let (mut config, batches) = drawn(images, 1);
            // A map of one cell has no batch statistics over one image.
            (config.train.batch, config.train.freeze_batch_norm) = (3, true);
            let (few, _, expected) = done(&config, &batches, images, true);
            let (own, mut replicas, report) = done(&config, &batches, 3, true);
            assert_eq!((report.loss, report.gradient_norm), (expected.loss, expected.gradient_norm));
            assert_eq!((report.parts, report.traces.len()), (expected.parts, images));
            let params = own.detector.params();
            assert_eq!(params.values().unwrap(), few.detector.params().values().unwrap());
            // All of them learn from the next one.
            replicas.follow(params).unwrap();
            for replica in &replicas.others {
                assert_eq!(replica.network().unwrap().detector.params().values().unwrap(), params.values().unwrap());
            }
        }
    }
}
