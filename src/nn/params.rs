//! The named parameters of a network: creation, initial values, loading, reading back.
//!
//! Names are those of the reference checkpoint, so loading is a match of names. Initial values depend on the seed and
//! the parameter's name alone, not on the order in which a network is built.

use crate::random::{Random, mix};
use crate::weights::{self, Checkpoint, Expected, LoadReport, WeightsError};
use candle_core::{Device, Result, Tensor, Var};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// What a parameter is for: decides decay, learning-rate factors and whether it is trained at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Weight,
    Bias,
    /// Scale or shift of a normalisation: trained without weight decay.
    Norm,
    /// Running statistics: saved and loaded, never trained.
    Buffer,
}

/// Initial values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    Constant(f32),
    /// Mean 0 and this deviation.
    Normal(f32),
    /// Uniform in ±√(6 / (fan in + fan out)) (Glorot & Bengio 2010).
    XavierUniform,
    /// Normal with deviation √(2 / fan in) (He et al. 2015).
    Kaiming,
}

/// Shape and row-major values by name.
pub type Values = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// One named parameter.
#[derive(Clone, Debug)]
pub struct Param {
    pub name: String,
    pub var: Var,
    pub role: Role,
}

/// All parameters of one network. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Params {
    entries: Arc<Mutex<Vec<Param>>>,
    version: Arc<AtomicU64>,
    device: Device,
    seed: u64,
}

impl Params {
    pub fn new(device: &Device, seed: u64) -> Self {
        Self { entries: Arc::default(), version: Arc::new(AtomicU64::new(1)), device: device.clone(), seed }
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The root scope: names without a prefix.
    pub fn root(&self) -> Scope {
        Scope { params: self.clone(), prefix: String::new() }
    }

    /// Counts up whenever a value changes: what is derived from the values (packed or folded weights) goes stale.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// To be called after values were changed in place.
    pub fn touch(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Param>> {
        self.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// All parameters in order of creation.
    pub fn all(&self) -> Vec<Param> {
        self.lock().clone()
    }

    /// The parameters an optimiser moves, in order of creation.
    pub fn trainable(&self) -> Vec<Param> {
        self.lock().iter().filter(|p| p.role != Role::Buffer).cloned().collect()
    }

    pub fn get(&self, name: &str) -> Option<Param> {
        self.lock().iter().find(|p| p.name == name).cloned()
    }

    /// Elements of all parameters and buffers.
    pub fn elements(&self) -> usize {
        self.lock().iter().map(|p| p.var.elem_count()).sum()
    }

    /// Elements of trained parameters: the "parameters" that model zoos print.
    pub fn trained_elements(&self) -> usize {
        self.trainable().iter().map(|p| p.var.elem_count()).sum()
    }

    /// Names and shapes, for a load report.
    pub fn expected(&self) -> Vec<Expected> {
        self.lock().iter().map(|p| Expected { name: p.name.clone(), shape: p.var.dims().to_vec() }).collect()
    }

    /// Overwrites one parameter.
    ///
    /// # Errors
    /// An unknown name, or a number of values that differs from the parameter's.
    pub fn set(&self, name: &str, values: &[f32]) -> Result<()> {
        let Some(param) = self.get(name) else {
            candle_core::bail!("no parameter named {name}");
        };
        param.var.set(&Tensor::from_slice(values, param.var.shape(), &self.device)?)?;
        self.touch();
        Ok(())
    }

    /// All values, by name.
    pub fn values(&self) -> Result<Values> {
        self.lock()
            .iter()
            .map(|p| Ok((p.name.clone(), (p.var.dims().to_vec(), p.var.flatten_all()?.to_vec1()?))))
            .collect()
    }

    /// Loads every tensor whose (already native) name and shape fit, and reports on every key.
    ///
    /// # Errors
    /// Only when a tensor that fits cannot be read; what does not fit is in the report.
    pub fn load(&self, checkpoint: &Checkpoint) -> std::result::Result<LoadReport, WeightsError> {
        let report = weights::compare(&self.expected(), checkpoint);
        for name in &report.loaded {
            if let Some(stored) = checkpoint.get(name) {
                let values = checkpoint.read_f32(stored)?;
                self.set(name, &values)
                    .map_err(|e| WeightsError::Tensor { name: name.clone(), what: e.to_string() })?;
            }
        }
        Ok(report)
    }
}

/// A place in the tree of names.
#[derive(Clone, Debug)]
pub struct Scope {
    params: Params,
    prefix: String,
}

impl Scope {
    /// The scope `name` below this one.
    pub fn enter(&self, name: impl std::fmt::Display) -> Self {
        Self { params: self.params.clone(), prefix: self.join(&name.to_string()) }
    }

    pub fn params(&self) -> &Params {
        &self.params
    }

    fn join(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }

    /// Creates the parameter `name` here and returns the tensor that follows it.
    ///
    /// # Errors
    /// A name that is taken, or a device that cannot hold the tensor.
    pub fn param(&self, name: &str, shape: &[usize], init: Init, role: Role) -> Result<Var> {
        let name = self.join(name);
        let values = initial(&name, shape, init, self.params.seed);
        let var = Var::from_tensor(&Tensor::from_vec(values, shape, &self.params.device)?)?;
        let mut entries = self.params.lock();
        if entries.iter().any(|p| p.name == name) {
            candle_core::bail!("parameter {name} exists twice");
        }
        entries.push(Param { name, var: var.clone(), role });
        Ok(var)
    }
}

fn initial(name: &str, shape: &[usize], init: Init, seed: u64) -> Vec<f32> {
    let count: usize = shape.iter().product();
    let key = name.bytes().fold(0u64, |h, b| mix(h ^ u64::from(b)));
    let mut rng = Random::keyed(seed, &[key]);
    let receptive: usize = shape.iter().skip(2).product();
    let fan_in = (shape.get(1).copied().unwrap_or(1) * receptive).max(1) as f32;
    let fan_out = (shape.first().copied().unwrap_or(1) * receptive).max(1) as f32;
    match init {
        Init::Constant(value) => vec![value; count],
        Init::Normal(std) => (0..count).map(|_| std * rng.normal()).collect(),
        Init::XavierUniform => {
            let bound = (6.0 / (fan_in + fan_out)).sqrt();
            (0..count).map(|_| rng.range(-bound, bound)).collect()
        }
        Init::Kaiming => {
            let std = (2.0 / fan_in).sqrt();
            (0..count).map(|_| std * rng.normal()).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_depend_on_name_and_seed_not_on_order() -> Result<()> {
        let build = |names: &[&str], seed| -> Result<Values> {
            let params = Params::new(&Device::Cpu, seed);
            for name in names {
                params.root().enter("a").param(name, &[4, 3, 3, 3], Init::Kaiming, Role::Weight)?;
            }
            params.values()
        };
        assert_eq!(build(&["x", "y"], 1)?, build(&["y", "x"], 1)?);
        assert_ne!(build(&["x", "y"], 1)?, build(&["y", "x"], 2)?);
        Ok(())
    }

    #[test]
    fn a_name_cannot_be_taken_twice_and_setting_moves_the_version() -> Result<()> {
        let params = Params::new(&Device::Cpu, 0);
        params.root().param("w", &[2], Init::Constant(1.0), Role::Weight)?;
        assert!(params.root().param("w", &[2], Init::Constant(1.0), Role::Weight).is_err());
        let before = params.version();
        params.set("w", &[3.0, 4.0])?;
        assert!(params.version() > before);
        assert!(params.set("w", &[3.0]).is_err() && params.set("v", &[3.0]).is_err());
        assert_eq!(params.values()?["w"].1, vec![3.0, 4.0]);
        Ok(())
    }
}
