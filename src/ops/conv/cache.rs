//! Weights that are packed or transformed once and used until they change.

use super::forward::Method;
use super::scratch::{Aligned, Scratch, scratch};
use crate::ops::precision::Precision;
use candle_core::{DType, Result, Tensor};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The forms a layer's weights have been brought into, for one version of the weights: whoever writes new weights gives
/// them a new version number, and the old forms are dropped at the next use. One cache serves one layer.
#[derive(Debug, Default)]
pub struct WeightCache {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    version: u64,
    forms: Vec<(Form, Arc<Aligned>)>,
    /// What a GPU multiplies in a type of 16 bits.
    half: Option<Tensor>,
}

/// Which form of which weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Form {
    pub method: Method,
    /// `[O, C/groups, kh, kw]`.
    pub shape: [usize; 4],
    pub groups: usize,
    /// What the weights were rounded to.
    pub precision: Precision,
}

/// Packed weights: from a cache, or made for this call alone.
pub(super) enum Prepared {
    Kept(Arc<Aligned>),
    Passing(Scratch),
}

impl Prepared {
    pub fn as_slice(&self) -> &[f32] {
        match self {
            Prepared::Kept(values) => values.as_slice(),
            Prepared::Passing(values) => values.as_slice(),
        }
    }
}

/// Weights of `len` floats in a form that `make` writes, out of the cache where it holds this version of them.
pub(super) fn prepared(
    cache: Option<(&WeightCache, u64)>,
    form: Form,
    len: usize,
    make: impl FnOnce(&mut [f32]),
) -> Prepared {
    match cache {
        Some((cache, version)) => Prepared::Kept(cache.get_or_make(version, form, len, make)),
        None => {
            let mut values = scratch(len);
            make(values.as_mut_slice());
            Prepared::Passing(values)
        }
    }
}

impl Kept {
    /// Drops what was made of other weights.
    fn start(&mut self, version: u64) {
        self.forms.clear();
        self.half = None;
        self.version = version;
    }
}

impl WeightCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Whoever panicked left whole forms or none.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get_or_make(&self, version: u64, form: Form, len: usize, make: impl FnOnce(&mut [f32])) -> Arc<Aligned> {
        let mut stale: Option<Arc<Aligned>> = None;
        {
            let mut kept = self.lock();
            if kept.version == version {
                if let Some((_, values)) = kept.forms.iter().find(|(known, _)| *known == form) {
                    return Arc::clone(values);
                }
            } else {
                let found = kept.forms.iter().position(|(known, _)| *known == form);
                stale = found.map(|index| kept.forms.swap_remove(index).1);
                kept.start(version);
            }
        }
        // Made without the lock: it uses the thread pool, which may run another convolution on this thread meanwhile.
        let reusable = stale.and_then(|values| Arc::try_unwrap(values).ok());
        let mut values = match reusable {
            Some(values) if values.as_slice().len() == len => values,
            _ => Aligned::zeroed(len),
        };
        make(values.as_mut_slice());
        let values = Arc::new(values);
        let mut kept = self.lock();
        if kept.version == version && !kept.forms.iter().any(|(known, _)| *known == form) {
            kept.forms.push((form, Arc::clone(&values)));
        }
        values
    }

    /// The weights in a type of 16 bits, without a graph: cast where the cache does not hold this version of them; with
    /// the `channels_last` as `[O, kh, kw, C/groups]`.
    pub(super) fn half(&self, version: u64, weight: &Tensor, half: DType, channels_last: bool) -> Result<Tensor> {
        let mut kept = self.lock();
        if kept.version != version {
            kept.start(version);
        }
        if let Some(known) = kept.half.as_ref().filter(|known| known.dtype() == half) {
            return Ok(known.clone());
        }
        let weight = weight.detach();
        let cast = if channels_last { weight.permute((0, 2, 3, 1))?.contiguous()? } else { weight }.to_dtype(half)?;
        kept.half = Some(cast.clone());
        Ok(cast)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn form(method: Method) -> Form {
        Form { method, shape: [8, 1, 1, 1], groups: 1, precision: Precision::F32 }
    }

    fn first(cache: &WeightCache, version: u64, method: Method, value: f32) -> f32 {
        let make = |values: &mut [f32]| values.fill(value);
        prepared(Some((cache, version)), form(method), 8, make).as_slice()[0]
    }

    #[test]
    fn forms_are_made_once_a_version() {
        let cache = WeightCache::new();
        assert_eq!(first(&cache, 0, Method::Direct, 1.0), 1.0);
        assert_eq!(first(&cache, 0, Method::Direct, 2.0), 1.0);
        assert_eq!(first(&cache, 0, Method::Winograd4, 3.0), 3.0);
        assert_eq!(first(&cache, 1, Method::Direct, 4.0), 4.0);
        assert_eq!(first(&cache, 1, Method::Winograd4, 5.0), 5.0);
        assert_eq!(first(&cache, 1, Method::Direct, 6.0), 4.0);
        // An older version is another version.
        assert_eq!(first(&cache, 0, Method::Direct, 7.0), 7.0);
    }

    #[test]
    fn a_form_in_use_is_not_overwritten() {
        let cache = WeightCache::new();
        let old = prepared(Some((&cache, 0)), form(Method::Direct), 8, |values| values.fill(1.0));
        assert_eq!(first(&cache, 1, Method::Direct, 2.0), 2.0);
        assert_eq!(old.as_slice(), [1.0; 8]);
    }

    #[test]
    fn halves_are_cast_once_a_version() -> Result<()> {
        let cache = WeightCache::new();
        let weight = Tensor::from_slice(&[1.0f32 + f32::EPSILON, -2.0], (2, 1, 1, 1), &Device::Cpu)?;
        let first = cache.half(1, &weight, DType::F16, false)?;
        assert_eq!(first.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?, [1.0, -2.0]);
        let same =
            |version: u64, half: DType| cache.half(version, &weight, half, false).map(|cast| cast.id() == first.id());
        assert!(same(1, DType::F16)? && !same(1, DType::BF16)?);
        assert!(!same(1, DType::F16)?, "of two types the last one is kept");
        let first = cache.half(2, &weight, DType::F16, false)?;
        let weight = Tensor::arange(0f32, 6.0, &Device::Cpu)?.reshape((1, 2, 1, 3))?;
        let last = WeightCache::new().half(1, &weight, DType::F16, true)?;
        assert_eq!(last.dims(), [1, 1, 3, 2]);
        assert_eq!(last.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        prepared(Some((&cache, 3)), form(Method::Direct), 8, |values| values.fill(1.0));
        assert_ne!(cache.half(3, &weight, DType::F16, false)?.id(), first.id());
        Ok(())
    }

    #[test]
    fn without_a_cache_weights_are_made_each_time() {
        for value in [1.0, 2.0] {
            let values = prepared(None, form(Method::Direct), 8, |values| values.fill(value));
            assert_eq!(values.as_slice(), [value; 8]);
        }
    }
}
