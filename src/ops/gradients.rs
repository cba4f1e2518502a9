//! The backward pass, with a short way for the gradients of parameters.
//!
//! candle adds every gradient to a fresh tensor of zeros. For the weights of a convolution that is four passes over
//! memory as large as the network; while [`backward`] runs, our operations hand such gradients over directly.

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, TensorId};
use std::cell::RefCell;
use std::collections::HashMap;

/// Parameters and their gradients.
type Handed = HashMap<TensorId, (Tensor, Tensor)>;

thread_local! {
    static HANDED: RefCell<Option<Handed>> = const { RefCell::new(None) };
}

/// The gradients of one loss.
#[derive(Debug)]
pub struct GradientStore {
    store: GradStore,
    handed: Handed,
}

impl GradientStore {
    /// The gradient towards a parameter, of the parameter's shape; none where the loss does not depend on it.
    pub fn get(&self, parameter: &Tensor) -> Option<&Tensor> {
        match self.handed.get(&parameter.id()) {
            Some((_, gradient)) => Some(gradient),
            None => self.store.get(parameter),
        }
    }

    /// [`Self::get`], taking the gradient out.
    pub fn take(&mut self, parameter: &Tensor) -> Option<Tensor> {
        match self.handed.remove(&parameter.id()) {
            Some((_, gradient)) => Some(gradient),
            None => self.store.remove(parameter),
        }
    }
}

/// Gradients of a scalar towards every parameter it depends on.
///
/// # Errors
/// An operation without a gradient, or an interruption.
pub fn backward(loss: &Tensor) -> Result<GradientStore> {
    HANDED.with(|slot| *slot.borrow_mut() = Some(HashMap::new()));
    let store = loss.backward();
    let handed = HANDED.with(|slot| slot.borrow_mut().take()).unwrap_or_default();
    let (mut store, mut handed) = (store?, handed);
    // A parameter that other operations read too has a part in each.
    for (parameter, gradient) in handed.values_mut() {
        if let Some(other) = store.remove(parameter) {
            *gradient = gradient.add(&other)?;
        }
    }
    Ok(GradientStore { store, handed })
}

/// Takes `gradient` for a parameter while [`backward`] runs on this thread; gives it back otherwise, for candle to add.
///
/// # Errors
/// Gradients of one parameter that differ in shape.
pub(super) fn hand_over(parameter: &Tensor, gradient: Tensor) -> Result<Option<Tensor>> {
    if !parameter.is_variable() {
        return Ok(Some(gradient));
    }
    HANDED.with(|slot| match slot.borrow_mut().as_mut() {
        None => Ok(Some(gradient)),
        Some(handed) => {
            let sum = match handed.remove(&parameter.id()) {
                Some((_, other)) => other.add(&gradient)?,
                None => gradient,
            };
            handed.insert(parameter.id(), (parameter.clone(), sum));
            Ok(None)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::conv::{ConvSpec, conv2d};
    use crate::random::Random;
    use candle_core::{Device, Var};

    /// One kernel used twice by convolutions and once by another operation.
    #[test]
    fn parts_of_shared_parameters_add_up_as_candle_adds_them() -> Result<()> {
        let mut random = Random::new(1);
        let mut numbers = |shape: &[usize]| {
            let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|_| random.normal()).collect();
            Var::from_vec(values, shape, &Device::Cpu)
        };
        let (x, w, b) = (numbers(&[1, 3, 6, 6])?, numbers(&[3, 3, 3, 3])?, numbers(&[3])?);
        let spec = ConvSpec::new().padding(1);
        let once = conv2d(&x, &w, Some(&b), spec, None)?;
        let loss = (conv2d(&once, &w, None, spec, None)?.sqr()?.sum_all()? + w.sqr()?.sum_all()?)?;
        let (found, known) = (backward(&loss)?, loss.backward()?);
        for var in [&x, &w, &b] {
            let (Some(found), Some(known)) = (found.get(var), known.get(var)) else { panic!("a gradient is missing") };
            let (found, known) = (found.flatten_all()?.to_vec1::<f32>()?, known.flatten_all()?.to_vec1::<f32>()?);
            let largest = known.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            assert!(found.iter().zip(&known).all(|(a, b)| (a - b).abs() <= 1e-6 * largest));
        }
        assert!(backward(&w.sqr()?.sum_all()?)?.get(&x).is_none());
        Ok(())
    }
}
