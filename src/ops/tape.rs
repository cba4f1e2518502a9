//! The backward pass: a tape of the operations of a forward pass, and the gradients that follow from it.
//!
//! candle keeps the whole graph until the loss is dropped and adds every gradient to a fresh tensor of zeros, four
//! passes over memory for each map of a network. While a [`Tape`] records, what our kernels return is a leaf to
//! candle; the tape knows where it came from, hands gradients on as they are, and lets go of maps as soon as their
//! gradient has been used. Operations of candle's own between ours are left to candle.

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::op::BackpropOp;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Storage, Tensor, TensorId,
    bail,
};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::mem::replace;
use std::sync::{Arc, Mutex};

/// The gradients of an operation's inputs from the inputs, its output and the output's gradient; none for an input
/// that nothing depends on.
type Gradient = dyn Fn(&[Tensor], &Tensor, &Tensor) -> Result<Vec<Option<Tensor>>> + Send + Sync;

/// One operation.
#[derive(Clone)]
struct Node {
    inputs: Vec<Tensor>,
    output: Tensor,
    gradient: Arc<Gradient>,
}

/// The operations of a forward pass, in order.
#[derive(Clone, Default)]
pub struct Tape {
    nodes: Vec<Node>,
    /// Which node made a tensor.
    makers: HashMap<TensorId, usize>,
}

thread_local! {
    static RECORDING: RefCell<Option<Tape>> = const { RefCell::new(None) };
}

impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a tape of {} operations", self.nodes.len())
    }
}

/// Puts back what recorded before, also when the work panics.
struct Restore<'a> {
    tape: &'a mut Tape,
    before: Option<Tape>,
}

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        let recorded = RECORDING.with_borrow_mut(|slot| replace(slot, self.before.take()));
        *self.tape = recorded.unwrap_or_default();
    }
}

impl Tape {
    /// Runs `work` on this thread; its operations are added to the tape. Tapes inside one another are independent.
    pub fn record<R>(&mut self, work: impl FnOnce() -> R) -> R {
        let own = std::mem::take(self);
        let before = RECORDING.with_borrow_mut(|slot| slot.replace(own));
        let _restore = Restore { tape: self, before };
        work()
    }

    /// Gradients of a scalar towards every parameter it depends on, through what was recorded and what candle knows.
    ///
    /// # Errors
    /// An operation without a gradient, or an interruption.
    pub fn backward(self, loss: &Tensor) -> Result<GradientStore> {
        let ones = loss.ones_like()?;
        self.backward_from(loss, ones)
    }

    /// [`Self::backward`] where `output` is a tensor of any shape and its `gradient` is known.
    ///
    /// # Errors
    /// As [`Self::backward`].
    pub fn backward_from(self, output: &Tensor, gradient: Tensor) -> Result<GradientStore> {
        let Self { mut nodes, makers } = self;
        let mut found = Found { makers, known: GradientStore::default(), candles: BTreeMap::new() };
        found.add(output, gradient)?;
        while let Some(Node { inputs, output, gradient }) = nodes.pop() {
            found.pass_candle(nodes.len() + 1)?;
            let Some(own) = found.known.take(&output) else { continue };
            let gradients = gradient(&inputs, &output, &own)?;
            drop((own, output));
            for (input, gradient) in inputs.iter().zip(gradients) {
                if let Some(gradient) = gradient {
                    found.add(input, gradient)?;
                }
            }
        }
        found.pass_candle(0)?;
        Ok(found.known)
    }
}

/// Gradients by the tensors they belong to.
#[derive(Debug, Default)]
pub struct GradientStore(HashMap<TensorId, Tensor>);

impl GradientStore {
    /// The gradient towards a parameter, of the parameter's shape; none where the loss does not depend on it.
    pub fn get(&self, parameter: &Tensor) -> Option<&Tensor> {
        self.0.get(&parameter.id())
    }

    /// [`Self::get`], taking the gradient out.
    pub fn take(&mut self, parameter: &Tensor) -> Option<Tensor> {
        self.0.remove(&parameter.id())
    }

    fn add(&mut self, id: TensorId, gradient: Tensor) -> Result<()> {
        let sum = match self.0.remove(&id) {
            Some(other) => other.add(&gradient)?,
            None => gradient,
        };
        self.0.insert(id, sum);
        Ok(())
    }
}

/// A backward pass on its way.
struct Found {
    makers: HashMap<TensorId, usize>,
    known: GradientStore,
    /// Results of candle's operations with their gradients, by the last node that one of them was made from, plus 1: 0
    /// where it is parameters alone.
    candles: BTreeMap<usize, Vec<(Tensor, Tensor)>>,
}

impl Found {
    /// Adds to the gradient of `tensor`.
    fn add(&mut self, tensor: &Tensor, gradient: Tensor) -> Result<()> {
        let gradient = gradient.detach();
        if tensor.is_variable() || self.makers.contains_key(&tensor.id()) {
            return self.known.add(tensor.id(), gradient);
        }
        let leaves = tensor.sorted_nodes();
        let leaves = leaves.iter().filter(|node| node.is_variable());
        let Some(last) = leaves.map(|leaf| self.makers.get(&leaf.id()).map_or(0, |&maker| maker + 1)).max() else {
            return Ok(());
        };
        let waiting = self.candles.entry(last).or_default();
        match waiting.iter_mut().find(|(known, _)| known.id() == tensor.id()) {
            Some((_, sum)) => *sum = sum.add(&gradient)?,
            None => waiting.push((tensor.clone(), gradient)),
        }
        Ok(())
    }

    /// Lets candle differentiate what waits at `first` or above.
    fn pass_candle(&mut self, first: usize) -> Result<()> {
        for (_, waiting) in self.candles.split_off(&first) {
            for (tensor, gradient) in waiting {
                let mut store = tensor.apply_op1(Start(gradient))?.backward()?;
                for leaf in tensor.sorted_nodes().iter().filter(|node| node.is_variable()) {
                    if let Some(gradient) = store.remove(leaf) {
                        self.known.add(leaf.id(), gradient)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Begins candle's backward pass with a given gradient.
struct Start(Tensor);

impl CustomOp1 for Start {
    fn name(&self) -> &'static str {
        "start"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![0.0]), Shape::from(())))
    }

    fn cuda_fwd(&self, storage: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        let shape = Shape::from(());
        Ok((storage.device().zeros_impl(&shape, DType::F32)?, shape))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.0.clone()))
    }
}

/// A result whose gradient nobody has noted: candle may go on with it, but not back.
struct Untaped(Mutex<Option<(CudaStorage, Shape)>>);

impl CustomOp1 for Untaped {
    fn name(&self) -> &'static str {
        "an operation outside a tape"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("{}: all tensors must be on the same device", self.name())
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        match self.0.lock().map(|mut made| made.take()) {
            Ok(Some(made)) => Ok(made),
            _ => bail!("{} ran twice", self.name()),
        }
    }
}

/// Whether a tape records on this thread and something depends on one of `inputs`.
fn records(inputs: &[&Tensor]) -> bool {
    inputs.iter().any(|input| input.track_op()) && RECORDING.with_borrow(Option::is_some)
}

/// Notes how `output` was made.
fn note(inputs: Vec<Tensor>, output: &Tensor, gradient: Arc<Gradient>) {
    RECORDING.with_borrow_mut(|slot| {
        if let Some(tape) = slot {
            tape.makers.insert(output.id(), tape.nodes.len());
            tape.nodes.push(Node { inputs, output: output.clone(), gradient });
        }
    });
}

/// `output`, which candle made from `inputs`, with a gradient that takes less than candle's. It is no leaf: candle's own
/// operations on it go back to the inputs their own way.
pub(super) fn with_gradient(
    inputs: &[&Tensor],
    output: Tensor,
    gradient: impl Fn(&[Tensor], &Tensor, &Tensor) -> Result<Vec<Option<Tensor>>> + Send + Sync + 'static,
) -> Tensor {
    if records(inputs) {
        note(inputs.iter().map(|&input| input.clone()).collect(), &output, Arc::new(gradient));
    }
    output
}

/// What a kernel made of any number of inputs, with its gradient, which a tape alone knows.
///
/// # Errors
/// Those of candle.
pub(super) fn made_from(
    inputs: &[Tensor],
    made: (CudaStorage, Shape),
    gradient: impl Fn(&[Tensor], &Tensor, &Tensor) -> Result<Vec<Option<Tensor>>> + Send + Sync + 'static,
) -> Result<Tensor> {
    let Some(tracked) = inputs.iter().find(|input| input.track_op()) else { return Ok(cuda(made).detach()) };
    if RECORDING.with_borrow(Option::is_none) {
        return tracked.apply_op1(Untaped(Mutex::new(Some(made))));
    }
    let made = cuda(made);
    note(inputs.to_vec(), &made, Arc::new(gradient));
    Ok(made)
}

/// [`Tensor::apply_op1`], on the tape where one records.
pub(super) fn apply1<O: CustomOp1 + Send + Sync + 'static>(x: &Tensor, op: O) -> Result<Tensor> {
    if !records(&[x]) {
        return x.apply_op1(op);
    }
    let (s1, l1) = x.storage_and_layout();
    let made = match &*s1 {
        Storage::Cpu(s1) => cpu(op.cpu_fwd(s1, l1)?),
        Storage::Cuda(s1) => cuda(op.cuda_fwd(s1, l1)?),
        Storage::Metal(_) => bail!("{}: there is no implementation for Metal", op.name()),
    };
    note(vec![x.clone()], &made, Arc::new(move |inputs, y, g| Ok(vec![op.bwd(&inputs[0], y, g)?])));
    Ok(made)
}

/// [`Tensor::apply_op2`], on the tape where one records.
pub(super) fn apply2<O: CustomOp2 + Send + Sync + 'static>(x: &Tensor, a: &Tensor, op: O) -> Result<Tensor> {
    if !records(&[x, a]) {
        return x.apply_op2(a, op);
    }
    let ((s1, l1), (s2, l2)) = (x.storage_and_layout(), a.storage_and_layout());
    let made = match (&*s1, &*s2) {
        (Storage::Cpu(s1), Storage::Cpu(s2)) => cpu(op.cpu_fwd(s1, l1, s2, l2)?),
        (Storage::Cuda(s1), Storage::Cuda(s2)) => cuda(op.cuda_fwd(s1, l1, s2, l2)?),
        _ => bail!("{}: all tensors must be on the same device", op.name()),
    };
    let gradient = move |inputs: &[Tensor], y: &Tensor, g: &Tensor| {
        let (g1, g2) = op.bwd(&inputs[0], &inputs[1], y, g)?;
        Ok(vec![g1, g2])
    };
    note(vec![x.clone(), a.clone()], &made, Arc::new(gradient));
    Ok(made)
}

/// [`Tensor::apply_op3`], on the tape where one records.
pub(super) fn apply3<O: CustomOp3 + Send + Sync + 'static>(
    x: &Tensor,
    a: &Tensor,
    b: &Tensor,
    op: O,
) -> Result<Tensor> {
    if !records(&[x, a, b]) {
        return x.apply_op3(a, b, op);
    }
    let ((s1, l1), (s2, l2), (s3, l3)) = (x.storage_and_layout(), a.storage_and_layout(), b.storage_and_layout());
    let made = match (&*s1, &*s2, &*s3) {
        (Storage::Cpu(s1), Storage::Cpu(s2), Storage::Cpu(s3)) => cpu(op.cpu_fwd(s1, l1, s2, l2, s3, l3)?),
        (Storage::Cuda(s1), Storage::Cuda(s2), Storage::Cuda(s3)) => cuda(op.cuda_fwd(s1, l1, s2, l2, s3, l3)?),
        _ => bail!("{}: all tensors must be on the same device", op.name()),
    };
    let gradient = move |inputs: &[Tensor], y: &Tensor, g: &Tensor| {
        let (g1, g2, g3) = op.bwd(&inputs[0], &inputs[1], &inputs[2], y, g)?;
        Ok(vec![g1, g2, g3])
    };
    note(vec![x.clone(), a.clone(), b.clone()], &made, Arc::new(gradient));
    Ok(made)
}

/// A leaf of candle's graph.
fn cpu((storage, shape): (CpuStorage, Shape)) -> Tensor {
    Tensor::from_storage(Storage::Cpu(storage), shape, BackpropOp::none(), true)
}

/// A leaf of candle's graph.
fn cuda((storage, shape): (CudaStorage, Shape)) -> Tensor {
    Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::conv::{ConvSpec, conv2d};
    use crate::random::Random;
    use candle_core::{Device, Var};

    fn near(found: Option<&Tensor>, known: Option<&Tensor>) -> Result<()> {
        let (Some(found), Some(known)) = (found, known) else { bail!("a gradient is missing") };
        assert_eq!(found.dims(), known.dims());
        let (found, known) = (found.flatten_all()?.to_vec1::<f32>()?, known.flatten_all()?.to_vec1::<f32>()?);
        let largest = known.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        assert!(found.iter().zip(&known).all(|(a, b)| (a - b).abs() <= 1e-6 * largest), "{found:?} {known:?}");
        Ok(())
    }

    /// One kernel used twice by convolutions and once by another operation, with candle's operations before, between
    /// and behind, some of whose results are read twice.
    #[test]
    fn gradients_are_candles() -> Result<()> {
        let mut random = Random::new(1);
        let mut numbers = |shape: &[usize]| {
            let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|_| random.normal()).collect();
            Var::from_vec(values, shape, &Device::Cpu)
        };
        let (x, w, b) = (numbers(&[1, 3, 6, 6])?, numbers(&[3, 3, 3, 3])?, numbers(&[3])?);
        let spec = ConvSpec::new().padding(1);
        let loss = || {
            let half = w.affine(0.5, 0.0)?;
            let once = conv2d(&x, &half, Some(&b), spec, None)?;
            let between = (once.sqr()? + &once)?;
            let twice = conv2d(&between, &w, None, spec, None)?;
            let thrice = conv2d(&between, &half, None, spec, None)?;
            (twice.mul(&thrice)?.sum_all()? + (w.sqr()?.sum_all()? + once.sum_all()?)?)?.affine(2.0, 1.0)
        };
        let known = loss()?.backward()?;
        let mut tape = Tape::default();
        let recorded = tape.record(loss)?;
        assert_eq!(tape.nodes.len(), 3);
        let found = tape.clone().backward(&recorded)?;
        for var in [&x, &w, &b] {
            near(found.get(var), known.get(var))?;
        }
        assert_eq!(found.0.len(), 3, "gradients of maps are gone");
        // what was not recorded is candle's
        let found = Tape::default().backward(&loss()?)?;
        near(found.get(&x), known.get(&x))?;
        assert!(Tape::default().backward(&w.sqr()?.sum_all()?)?.get(&x).is_none());
        // a given gradient, towards an output that is a leaf
        let mut tape = Tape::default();
        let output = tape.record(|| conv2d(&x, &w, None, spec, None))?;
        let known = conv2d(&x, &w, None, spec, None)?.affine(3.0, 0.0)?.sum_all()?.backward()?;
        let found = tape.backward_from(&output, output.ones_like()?.affine(3.0, 0.0)?)?;
        near(found.get(&w), known.get(&w))
    }

    #[test]
    fn tapes_record_in_turns_and_only_what_matters() -> Result<()> {
        let x = Var::ones((1, 1, 3, 3), DType::F32, &Device::Cpu)?;
        let run = |x: &Tensor| conv2d(x, &x.detach(), None, ConvSpec::new(), None);
        let (mut outer, mut inner) = (Tape::default(), Tape::default());
        let first = outer.record(|| run(&x))?;
        let second = outer.record(|| {
            inner.record(|| run(&x))?;
            run(&x.detach())?;
            first.add(&run(&x)?)
        })?;
        assert_eq!((outer.nodes.len(), inner.nodes.len()), (2, 1));
        run(&x)?;
        assert_eq!(outer.nodes.len(), 2);
        let gradients = outer.backward(&second.sum_all()?)?;
        assert_eq!(
            gradients.get(&x).map(Tensor::mean_all).transpose()?.map(|m| m.to_vec0::<f32>()).transpose()?,
            Some(2.0)
        );
        Ok(())
    }
}
