//! Stochastic gradient descent with momentum, or AdamW, with parameter groups, gradient clipping and weight averaging.
//!
//! As PyTorch's `SGD`: v ← μ·v + (g + λ·w), w ← w − η·v.

use super::TrainConfig;
use super::config::Method;
use super::groups::{Group, groups};
use crate::nn::Params;
use crate::ops::tape::GradientStore;
use crate::ops::update::{Adam, adamw_all, blend_all, squared_norm, squared_norms, velocity_all};
use candle_core::{DType, Result, Tensor, Var};

/// State of one parameter.
#[derive(Debug)]
struct Slot {
    name: String,
    var: Var,
    group: Group,
    velocity: Option<Tensor>,
    /// AdamW's second moment.
    square: Option<Tensor>,
    /// Updates in those moments, which their bias is corrected by. Skipped iterations do not count, as in PyTorch.
    updates: u64,
    average: Option<Tensor>,
}

/// The optimiser of a run.
#[derive(Debug)]
pub struct Optimizer {
    slots: Vec<Slot>,
    params: Params,
    method: Method,
    momentum: f32,
    nesterov: bool,
    clip_norm: f32,
    ema: f32,
}

/// Name, shape and row-major values of one tensor.
pub type Named = (String, Vec<usize>, Vec<f32>);

/// Gradients of the trained parameters, summed over one or more batches.
#[derive(Debug, Default)]
pub struct Gradients {
    /// In the order of the optimiser's parameters; `None` where nothing flowed or nothing is trained.
    pub(super) slots: Vec<Option<Tensor>>,
}

impl Gradients {
    /// Adds those of a further batch.
    ///
    /// # Errors
    /// Gradients of another network.
    pub fn add(&mut self, other: Self) -> Result<()> {
        if self.slots.is_empty() {
            *self = other;
            return Ok(());
        }
        for (own, other) in self.slots.iter_mut().zip(other.slots) {
            *own = match (own.take(), other) {
                (Some(a), Some(b)) => Some((a + b)?),
                (a, b) => a.or(b),
            };
        }
        Ok(())
    }

    /// Divides all of them.
    ///
    /// # Errors
    /// A device without room for the quotients.
    pub fn divide(&mut self, by: f32) -> Result<()> {
        for gradient in self.slots.iter_mut().flatten() {
            *gradient = gradient.affine(1.0 / f64::from(by), 0.0)?;
        }
        Ok(())
    }

    /// Squared L2 norm of each, in the order of the optimiser's parameters; 0 where there is none.
    ///
    /// # Errors
    /// A gradient that cannot be read back.
    pub fn squares(&self) -> Result<Vec<f64>> {
        let there: Vec<&Tensor> = self.slots.iter().flatten().collect();
        let mut squares = squared_norms(&there)?.into_iter();
        let of = |slot: &Option<Tensor>| slot.as_ref().and_then(|_| squares.next()).unwrap_or(0.0);
        Ok(self.slots.iter().map(of).collect())
    }

    /// L2 norm over all of them.
    ///
    /// # Errors
    /// A gradient that cannot be read back.
    pub fn norm(&self) -> Result<f64> {
        Ok(self.squares()?.iter().sum::<f64>().sqrt())
    }
}

/// One trained parameter as the explanation of a step sees it.
#[derive(Debug)]
pub struct Trained<'a> {
    pub name: &'a str,
    pub weight: &'a Tensor,
    pub gradient: Option<&'a Tensor>,
}

/// A copy of weights and optimiser state, good for putting back bit for bit.
#[derive(Debug)]
pub struct OptimizerState {
    /// Weight, velocity, square, average; AdamW's updates.
    slots: Vec<(Tensor, [Option<Tensor>; 3], u64)>,
}

impl OptimizerState {
    /// Memory that the copy takes.
    pub fn bytes(&self) -> usize {
        let each = self.slots.iter().map(|(weight, rest, _)| weight.elem_count() * (1 + rest.iter().flatten().count()));
        each.sum::<usize>() * size_of::<f32>()
    }
}

fn copied(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.copy()?.detach())
}

impl Optimizer {
    pub fn new(params: &Params, config: &TrainConfig) -> Self {
        let all = params.all();
        let groups = groups(&all, config);
        let slots = all.into_iter().zip(groups).map(|(p, group)| Slot {
            name: p.name,
            var: p.var,
            group,
            velocity: None,
            square: None,
            updates: 0,
            average: None,
        });
        Self {
            slots: slots.collect(),
            params: params.clone(),
            method: config.method,
            momentum: config.momentum,
            nesterov: config.nesterov,
            clip_norm: config.clip_norm,
            ema: config.ema,
        }
    }

    /// Takes the gradients of the trained parameters out of `store`.
    pub fn collect(&self, store: &mut GradientStore) -> Gradients {
        let gradient = |slot: &Slot| if slot.group.trained { store.take(slot.var.as_tensor()) } else { None };
        Gradients { slots: self.slots.iter().map(gradient).collect() }
    }

    /// The trained parameters with their gradients, in order.
    pub fn trained<'a>(&'a self, gradients: &'a Gradients) -> impl Iterator<Item = Trained<'a>> {
        let pairs = self.slots.iter().enumerate().filter(|(_, slot)| slot.group.trained);
        pairs.map(move |(index, slot)| Trained {
            name: &slot.name,
            weight: slot.var.as_tensor(),
            gradient: gradients.slots.get(index).and_then(Option::as_ref),
        })
    }

    /// L2 norm of each trained parameter's gradient, by name, from their [`Gradients::squares`].
    pub fn gradient_norms(&self, squares: &[f64]) -> Vec<(String, f64)> {
        let pairs = self.slots.iter().zip(squares).filter(|(slot, _)| slot.group.trained);
        pairs.map(|(slot, square)| (slot.name.clone(), square.sqrt())).collect()
    }

    /// Whether any parameter is trained.
    pub fn trains_anything(&self) -> bool {
        self.slots.iter().any(|slot| slot.group.trained)
    }

    /// Moves every trained parameter one step against its gradient, and the average after it. `norm` is that of the
    /// gradients ([`Gradients::norm`]).
    ///
    /// `iteration` counts from 0; the average starts fast: its decay is min(ema, (1 + i) / (10 + i)). AdamW's bias is
    /// corrected by the updates of each parameter.
    ///
    /// # Errors
    /// A gradient of another shape than its parameter, or a device without room, before anything has moved.
    pub fn update(&mut self, gradients: &Gradients, rate: f32, norm: f64, iteration: u64) -> Result<()> {
        let (gradients, mut averages) = self.prepare(gradients)?;
        let scale = if self.clip_norm > 0.0 && norm > f64::from(self.clip_norm) {
            (f64::from(self.clip_norm) / norm) as f32
        } else {
            1.0
        };
        let (mut velocities, mut first, mut second, mut adam) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (slot, gradient) in self.slots.iter_mut().zip(&gradients) {
            let (Some(gradient), Some(momentum)) = (gradient, &slot.velocity) else { continue };
            let Group { rate: factor, decay, .. } = slot.group;
            let (rate, weights) = (rate * factor, slot.var.as_tensor());
            match (self.method, &slot.square) {
                (Method::AdamW, Some(square)) => {
                    slot.updates += 1;
                    let (parameter, moments, step) = (weights, (momentum, square), slot.updates);
                    adam.push(Adam { parameter, gradient, moments, rate, decay, scale, step });
                }
                _ => {
                    velocities.push(([momentum, gradient, weights], (self.momentum, scale, decay)));
                    if self.nesterov {
                        first.push((weights, gradient, (1.0 - rate * decay, -rate * scale)));
                        second.push((weights, momentum, (1.0, -rate * self.momentum)));
                    } else {
                        first.push((weights, momentum, (1.0, -rate)));
                    }
                }
            }
        }
        velocity_all(&velocities)?;
        blend_all(&first)?;
        blend_all(&second)?;
        adamw_all(&adam, (self.momentum, BETA2))?;
        if self.ema > 0.0 {
            let keep = self.ema.min((1.0 + iteration as f32) / (10.0 + iteration as f32));
            let mut all = Vec::with_capacity(self.slots.len());
            for slot in &mut self.slots {
                let keep = if slot.average.is_some() { keep } else { 0.0 };
                if slot.average.is_none() {
                    slot.average = averages.next();
                }
                all.extend(slot.average.as_ref().map(|average| (average, slot.var.as_tensor(), (keep, 1.0 - keep))));
            }
            blend_all(&all)?;
        }
        self.params.touch();
        Ok(())
    }

    /// Makes all memory that an update needs, so that once it has begun a full device cannot stop it: gradients in
    /// row-major order, moments, and zeros for the averages that begin.
    fn prepare(
        &mut self,
        gradients: &Gradients,
    ) -> Result<(Vec<Option<Tensor>>, impl Iterator<Item = Tensor> + use<>)> {
        self.check(gradients)?;
        let rows = |gradient: &Option<Tensor>| gradient.as_ref().map(Tensor::contiguous).transpose();
        let gradients: Vec<Option<Tensor>> = gradients.slots.iter().map(rows).collect::<Result<_>>()?;
        for (slot, _) in self.slots.iter_mut().zip(&gradients).filter(|(_, gradient)| gradient.is_some()) {
            // SGD's velocity is no mean of gradients: a run that was changed to AdamW begins both moments anew.
            if self.method == Method::AdamW && slot.square.is_none() {
                slot.square = Some(slot.var.zeros_like()?);
                (slot.velocity, slot.updates) = (None, 0);
            }
            if slot.velocity.is_none() {
                slot.velocity = Some(slot.var.zeros_like()?);
            }
        }
        let begin = self.slots.iter().filter(|slot| self.ema > 0.0 && slot.average.is_none());
        let averages: Vec<Tensor> = begin.map(|slot| slot.var.zeros_like()).collect::<Result<_>>()?;
        Ok((gradients, averages.into_iter()))
    }

    /// Whether every gradient fits its parameter.
    fn check(&self, gradients: &Gradients) -> Result<()> {
        for (slot, gradient) in self.slots.iter().zip(&gradients.slots) {
            let Some(gradient) = gradient else { continue };
            if gradient.dims() != slot.var.dims() || gradient.dtype() != DType::F32 {
                let (found, own) = (gradient.dims(), slot.var.dims());
                candle_core::bail!("{}: {:?} gradient {found:?} for a weight {own:?}", slot.name, gradient.dtype());
            }
        }
        Ok(())
    }

    /// Copies weights and state.
    ///
    /// # Errors
    /// A device without room for the copy.
    pub fn snapshot(&self) -> Result<OptimizerState> {
        let slots = self.slots.iter().map(|slot| {
            let own = [&slot.velocity, &slot.square, &slot.average];
            let [velocity, square, average] = own.map(|tensor| tensor.as_ref().map(copied).transpose());
            Ok((copied(slot.var.as_tensor())?, [velocity?, square?, average?], slot.updates))
        });
        Ok(OptimizerState { slots: slots.collect::<Result<_>>()? })
    }

    /// Puts back what [`Self::snapshot`] copied.
    ///
    /// # Errors
    /// A state of another network.
    pub fn put_back(&mut self, state: OptimizerState) -> Result<()> {
        if state.slots.len() != self.slots.len() {
            candle_core::bail!("a state of {} parameters for a network of {}", state.slots.len(), self.slots.len());
        }
        let averages = self.ema > 0.0;
        for (slot, (weight, [velocity, square, average], updates)) in self.slots.iter_mut().zip(state.slots) {
            slot.var.set(&weight)?;
            slot.updates = updates;
            // An average that nothing moves any more must not be taken for the weights.
            (slot.velocity, slot.square, slot.average) = (velocity, square, average.filter(|_| averages));
        }
        self.params.touch();
        Ok(())
    }

    /// Puts the averaged weights into the network, where there are any, and gives what was there.
    ///
    /// # Errors
    /// A device without room for the copy.
    pub fn enter_average(&mut self) -> Result<Vec<Tensor>> {
        let own = self.slots.iter().map(|slot| copied(slot.var.as_tensor())).collect::<Result<Vec<_>>>()?;
        for slot in &self.slots {
            if let Some(average) = &slot.average {
                slot.var.set(average)?;
            }
        }
        self.params.touch();
        Ok(own)
    }

    /// Undoes [`Self::enter_average`].
    ///
    /// # Errors
    /// Weights of another network.
    pub fn leave_average(&mut self, own: &[Tensor]) -> Result<()> {
        for (slot, weight) in self.slots.iter().zip(own) {
            slot.var.set(weight)?;
        }
        self.params.touch();
        Ok(())
    }

    /// Every tensor of the optimiser's state under a prefix of its own, and [`UPDATES`], for a checkpoint.
    ///
    /// # Errors
    /// A tensor that cannot be read back.
    pub fn state(&self) -> Result<Vec<Named>> {
        let mut out = Vec::new();
        for slot in &self.slots {
            for (prefix, tensor) in [(VELOCITY, &slot.velocity), (SQUARE, &slot.square), (AVERAGE, &slot.average)] {
                if let Some(t) = tensor {
                    out.push((format!("{prefix}{}", slot.name), t.dims().to_vec(), t.flatten_all()?.to_vec1()?));
                }
            }
        }
        if self.slots.iter().any(|slot| slot.updates > 0) {
            let counts = self.slots.iter().map(|slot| slot.updates as f32).collect();
            out.push((UPDATES.to_string(), vec![self.slots.len()], counts));
        }
        Ok(out)
    }

    /// Takes back one tensor of [`Self::state`], but for averages where these settings keep none; false when no
    /// parameter has that name and size.
    ///
    /// # Errors
    /// A device that cannot hold it.
    pub fn restore(&mut self, name: &str, values: &[f32]) -> Result<bool> {
        if name == UPDATES {
            if self.slots.len() != values.len() {
                return Ok(false);
            }
            self.slots.iter_mut().zip(values).for_each(|(slot, &count)| slot.updates = count as u64);
            return Ok(true);
        }
        for slot in &mut self.slots {
            let own = |prefix: &str| name.strip_prefix(prefix) == Some(slot.name.as_str());
            let target = if own(VELOCITY) {
                &mut slot.velocity
            } else if own(SQUARE) {
                &mut slot.square
            } else if own(AVERAGE) {
                if self.ema <= 0.0 {
                    return Ok(true);
                }
                &mut slot.average
            } else {
                continue;
            };
            if slot.var.elem_count() != values.len() {
                return Ok(false);
            }
            *target = Some(Tensor::from_slice(values, slot.var.shape(), slot.var.device())?);
            return Ok(true);
        }
        Ok(false)
    }

    /// Takes every moment of AdamW to be that of `iterations` updates: what a checkpoint without [`UPDATES`] says.
    pub fn assume_updates(&mut self, iterations: u64) {
        for slot in self.slots.iter_mut().filter(|slot| slot.square.is_some()) {
            slot.updates = iterations;
        }
    }

    /// Averaged weights where there are any, the plain ones otherwise: what is evaluated and shipped.
    ///
    /// # Errors
    /// A tensor that cannot be read back.
    pub fn averaged(&self) -> Result<Vec<Named>> {
        let slots = self.slots.iter().map(|slot| {
            let tensor = slot.average.as_ref().unwrap_or(slot.var.as_tensor());
            Ok((slot.name.clone(), tensor.dims().to_vec(), tensor.flatten_all()?.to_vec1()?))
        });
        slots.collect()
    }

    /// The first parameter or running statistic that holds a number that is none.
    ///
    /// # Errors
    /// A tensor that cannot be read back.
    pub fn poisoned(&self) -> Result<Option<&str>> {
        for slot in &self.slots {
            // A running variance may be large, but a sum of squares of finite f32 is finite in f64.
            if !squared_norm(slot.var.as_tensor())?.is_finite() {
                return Ok(Some(&slot.name));
            }
        }
        Ok(None)
    }
}

/// AdamW's decay of the squared gradients.
const BETA2: f32 = 0.99;

/// Prefixes of the optimiser's tensors in a checkpoint.
pub const VELOCITY: &str = "optimizer.velocity/";
pub const SQUARE: &str = "optimizer.square/";
pub const AVERAGE: &str = "optimizer.average/";
/// AdamW's updates of each parameter, in order of creation.
pub const UPDATES: &str = "optimizer.updates";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Arch;
    use crate::nn::{Init, Role};
    use crate::ops::tape::Tape;
    use candle_core::Device;

    fn plain() -> TrainConfig {
        TrainConfig {
            method: Method::Sgd,
            weight_decay: 0.5,
            ema: 0.0,
            clip_norm: 0.0,
            ..TrainConfig::new(Arch::SsdNano)
        }
    }

    /// A weight and a norm's scale, both 1, and the loss 2w + 3n.
    fn network() -> Result<(Params, Var, Var)> {
        let params = Params::new(&Device::Cpu, 0);
        let w = params.root().param("w", &[1], Init::Constant(1.0), Role::Weight)?;
        let n = params.root().param("n", &[1], Init::Constant(1.0), Role::Norm)?;
        Ok((params, w, n))
    }

    fn gradients(optimizer: &Optimizer, w: &Var, n: &Var) -> Result<Gradients> {
        let loss = ((w.as_tensor() * 2.0)? + (n.as_tensor() * 3.0)?)?.sum_all()?;
        Ok(optimizer.collect(&mut Tape::default().backward(&loss)?))
    }

    fn value(var: &Var) -> Result<f32> {
        Ok(var.to_vec1::<f32>()?[0])
    }

    #[test]
    fn two_steps_follow_the_formula_by_hand_and_norms_do_not_decay() -> Result<()> {
        let (params, w, n) = network()?;
        let mut optimizer = Optimizer::new(&params, &plain());
        for iteration in 0..2 {
            let gradients = gradients(&optimizer, &w, &n)?;
            let norm = gradients.norm()?;
            assert!((norm - 13f64.sqrt()).abs() < 1e-6);
            optimizer.update(&gradients, 0.1, norm, iteration)?;
        }
        // v1 = 2.5, w1 = 0.75; v2 = 0.9·2.5 + 2 + 0.375 = 4.625, w2 = 0.2875
        assert!((value(&w)? - 0.2875).abs() < 1e-6);
        // v1 = 3, n1 = 0.7; v2 = 5.7, n2 = 0.13
        assert!((value(&n)? - 0.13).abs() < 1e-6);
        Ok(())
    }

    #[test]
    fn an_update_that_cannot_be_finished_moves_nothing() -> Result<()> {
        let (params, w, n) = network()?;
        let mut optimizer = Optimizer::new(&params, &TrainConfig { ema: 0.5, ..plain() });
        let sum = gradients(&optimizer, &w, &n)?;
        optimizer.update(&sum, 0.1, sum.norm()?, 0)?;
        let all = |optimizer: &Optimizer| -> Result<_> { Ok((params.values()?, optimizer.state()?)) };
        let before = all(&optimizer)?;
        // The first parameter's gradient fits, the second one's does not.
        let mut wrong = gradients(&optimizer, &w, &n)?;
        wrong.slots[1] = Some(Tensor::zeros(2, DType::F32, &Device::Cpu)?);
        assert!(optimizer.update(&wrong, 0.1, 1.0, 1).is_err_and(|error| error.to_string().starts_with("n:")));
        assert_eq!(all(&optimizer)?, before);
        Ok(())
    }

    #[test]
    fn gradients_of_a_scaled_loss_are_divided_back() -> Result<()> {
        let (params, w, n) = network()?;
        let optimizer = Optimizer::new(&params, &plain());
        let loss = ((w.as_tensor() * 2.0)? + (n.as_tensor() * 3.0)?)?.sum_all()?.affine(65_536.0, 0.0)?;
        let mut scaled = optimizer.collect(&mut Tape::default().backward(&loss)?);
        scaled.divide(65_536.0)?;
        assert_eq!(scaled.squares()?, gradients(&optimizer, &w, &n)?.squares()?);
        Ok(())
    }

    #[test]
    fn nesterov_looks_ahead() -> Result<()> {
        let (params, w, n) = network()?;
        let mut optimizer = Optimizer::new(&params, &TrainConfig { nesterov: true, ..plain() });
        for iteration in 0..2 {
            let gradients = gradients(&optimizer, &w, &n)?;
            optimizer.update(&gradients, 0.1, gradients.norm()?, iteration)?;
        }
        // g' = 2.5, v1 = 2.5, w1 = 1 − 0.1·(2.5 + 2.25) = 0.525
        // g' = 2.2625, v2 = 4.5125, w2 = 0.525 − 0.1·(2.2625 + 4.06125) = −0.107375
        assert!((value(&w)? + 0.107_375).abs() < 1e-6, "{}", value(&w)?);
        Ok(())
    }

    #[test]
    fn adamw_corrects_its_bias_by_updates_and_a_checkpoint_keeps_their_count() -> Result<()> {
        let config = TrainConfig { method: Method::AdamW, ..plain() };
        let begun = || -> Result<_> {
            let (params, w, n) = network()?;
            Ok((Optimizer::new(&params, &config), w, n))
        };
        let update = |(optimizer, w, n): &mut (Optimizer, Var, Var), iteration: u64| -> Result<f32> {
            let gradients = gradients(optimizer, w, n)?;
            optimizer.update(&gradients, 0.1, gradients.norm()?, iteration)?;
            value(w)
        };
        let (mut whole, mut late) = (begun()?, begun()?);
        // Iterations 0 to 4 were skipped: the first update still moves by the rate, 0.95 · 1 − 0.1.
        let first = update(&mut late, 5)?;
        assert!((first - 0.85).abs() < 1e-6, "{first}");
        assert_eq!(update(&mut whole, 0)?, first);
        let (kept, expected) = (late.0.snapshot()?, update(&mut whole, 1)?);
        assert_eq!(update(&mut late, 9)?, expected);
        late.0.put_back(kept)?;
        // A checkpoint with the count, and one of an earlier version without it.
        for counted in [true, false] {
            let mut resumed = begun()?;
            resumed.1.set(late.1.as_tensor())?;
            for (name, _, values) in late.0.state()? {
                assert!((!counted && name == UPDATES) || resumed.0.restore(&name, &values)?, "{name}");
            }
            if !counted {
                resumed.0.assume_updates(1);
            }
            assert_eq!(update(&mut resumed, 9)?, expected);
        }
        assert!(!late.0.restore(UPDATES, &[1.0])?);
        assert_eq!(update(&mut late, 9)?, expected);
        Ok(())
    }

    #[test]
    fn frozen_parameters_stay_and_do_not_enter_the_norm() -> Result<()> {
        let (params, w, n) = network()?;
        let mut optimizer = Optimizer::new(&params, &TrainConfig { frozen_prefixes: vec!["w".into()], ..plain() });
        let gradients = gradients(&optimizer, &w, &n)?;
        assert!((gradients.norm()? - 3.0).abs() < 1e-6);
        assert_eq!(optimizer.gradient_norms(&gradients.squares()?), [("n".to_string(), 3.0)]);
        optimizer.update(&gradients, 0.1, 3.0, 0)?;
        assert_eq!((value(&w)?, optimizer.trains_anything()), (1.0, true));
        assert!((value(&n)? - 0.7).abs() < 1e-6);
        Ok(())
    }

    #[test]
    fn summed_gradients_are_the_sum_and_a_state_comes_back_bit_for_bit() -> Result<()> {
        let (params, w, n) = network()?;
        let config = TrainConfig { ema: 0.5, ..TrainConfig::new(Arch::SsdNano) };
        let mut optimizer = Optimizer::new(&params, &config);
        let mut sum = Gradients::default();
        for _ in 0..3 {
            sum.add(gradients(&optimizer, &w, &n)?)?;
        }
        assert!((sum.norm()? - 3.0 * 13f64.sqrt()).abs() < 1e-6);
        let all = |optimizer: &Optimizer| -> Result<_> { Ok((params.values()?, optimizer.state()?)) };
        optimizer.update(&sum, 0.1, sum.norm()?, 0)?;
        let (kept, before) = (optimizer.snapshot()?, all(&optimizer)?);
        assert_eq!(kept.bytes(), 2 * 4 * 4);
        optimizer.update(&sum, 0.1, sum.norm()?, 1)?;
        let after = all(&optimizer)?;
        assert_ne!(after, before);
        let own = optimizer.enter_average()?;
        assert_ne!(params.values()?, after.0);
        optimizer.leave_average(&own)?;
        assert_eq!(all(&optimizer)?, after);
        optimizer.put_back(kept)?;
        assert_eq!(all(&optimizer)?, before);
        params.set("n", &[f32::NAN])?;
        assert_eq!(optimizer.poisoned()?, Some("n"));
        Ok(())
    }
}
