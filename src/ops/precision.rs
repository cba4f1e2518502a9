//! The number type in which convolutions and fully connected layers multiply.
//!
//! As autocast (Micikevicius et al., "Mixed Precision Training", ICLR 2018): factors are rounded to the type, forward
//! and backward, and their products summed in f32. cuDNN writes 16-bit sums in the type of their factors, so these are
//! rounded once more everywhere. All between such layers, the losses and the weights that are trained stay f32.

use super::storage::{CHUNK, in_chunks};
use candle_core::DType;
use half::{bf16, f16};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::str::FromStr;

thread_local! {
    static CURRENT: Cell<Precision> = const { Cell::new(Precision::F32) };
}

/// What factors are rounded to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Nothing is rounded.
    #[default]
    F32,
    /// f32 with 10 bits of mantissa: what matrix units take of it.
    Tf32,
    /// 5 bits of exponent, 10 of mantissa: overflows above 65504, so training scales the loss.
    F16,
    /// 8 bits of exponent, 7 of mantissa.
    Bf16,
}

/// The precision of what this thread does now.
pub fn current() -> Precision {
    CURRENT.get()
}

impl Precision {
    pub const ALL: [Self; 4] = [Self::F32, Self::Tf32, Self::F16, Self::Bf16];

    /// As it is written in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// Runs `work` with the convolutions and fully connected layers of this thread in this precision. Their gradients
    /// are computed in the same, wherever that happens.
    pub fn within<R>(self, work: impl FnOnce() -> R) -> R {
        let before = CURRENT.replace(self);
        let result = work();
        CURRENT.set(before);
        result
    }

    /// The nearest number of the type; of two as near, the even one, for TF32 the one farther from zero (as NVIDIA's
    /// `cvt.rna.tf32.f32`).
    pub fn round(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::Tf32 if value.is_finite() => f32::from_bits((value.to_bits() + 0x1000) & !0x1fff),
            Self::Tf32 => value,
            Self::F16 => f16::from_f32(value).to_f32(),
            Self::Bf16 => bf16::from_f32(value).to_f32(),
        }
    }

    /// The type that factors and results are kept in, where it has 16 bits.
    pub(super) fn half(self) -> Option<DType> {
        match self {
            Self::F32 | Self::Tf32 => None,
            Self::F16 => Some(DType::F16),
            Self::Bf16 => Some(DType::BF16),
        }
    }

    /// Factors of a product.
    pub(super) fn factors(self, values: &[f32]) -> Cow<'_, [f32]> {
        match self {
            Self::F32 => Cow::Borrowed(values),
            _ => Cow::Owned(in_chunks(values.len(), |range, to| {
                to.iter_mut().zip(&values[range]).for_each(|(to, &value)| *to = self.round(value));
            })),
        }
    }

    /// Sums of products.
    pub(super) fn results(self, mut values: Vec<f32>) -> Vec<f32> {
        if self.half().is_some() {
            values.par_iter_mut().with_min_len(CHUNK).for_each(|value| *value = self.round(*value));
        }
        values
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|precision| precision.name() == text);
        found.ok_or_else(|| format!("{text:?} is no precision; there are: f32, tf32, f16, bf16"))
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_settings() {
        for precision in Precision::ALL {
            assert_eq!(precision.to_string().parse(), Ok(precision));
            assert_eq!(serde_json::to_value(precision).unwrap(), precision.name());
        }
        assert!("fp16".parse::<Precision>().unwrap_err().contains("bf16"));
    }

    /// One unit in the last place above 1 is 2^-10 for TF32 and f16, 2^-7 for bf16.
    #[test]
    fn numbers_round_to_the_nearest_of_their_type() {
        use Precision::{Bf16, F16, F32, Tf32};
        let ulp = |bits: i32| 2f32.powi(-bits);
        for (precision, value, expected) in [
            (F32, 1.0 + ulp(23), 1.0 + ulp(23)),
            (Tf32, 1.0 + 0.49 * ulp(10), 1.0),
            (Tf32, 1.0 + 0.5 * ulp(10), 1.0 + ulp(10)),
            (Tf32, -1.0 - 0.5 * ulp(10), -1.0 - ulp(10)),
            (Tf32, f32::MAX, f32::INFINITY),
            (Tf32, f32::NEG_INFINITY, f32::NEG_INFINITY),
            (F16, 1.0 + 0.5 * ulp(10), 1.0),
            (F16, 1.0 + 1.5 * ulp(10), 1.0 + 2.0 * ulp(10)),
            (F16, 65519.0, 65504.0),
            (F16, 65520.0, f32::INFINITY),
            (F16, 0.6 * ulp(24), ulp(24)),
            (F16, 0.4 * ulp(24), 0.0),
            (Bf16, 1.0 + 0.5 * ulp(7), 1.0),
            (Bf16, 1.0 + 1.5 * ulp(7), 1.0 + 2.0 * ulp(7)),
            (Bf16, 65520.0, 65536.0),
        ] {
            assert_eq!(precision.round(value).to_bits(), expected.to_bits(), "{precision} of {value}");
        }
        for precision in Precision::ALL {
            assert!(precision.round(f32::NAN).is_nan() && precision.round(f32::from_bits(0x7fff_ffff)).is_nan());
            assert_eq!(precision.round(-0.0).to_bits(), (-0.0f32).to_bits());
        }
    }

    #[test]
    fn slices_round_as_numbers_do_and_f32_copies_nothing() {
        let values: Vec<f32> = (0..CHUNK + 5).map(|i| (i as f32 * 0.37).sin() * 100.0).collect();
        assert!(matches!(Precision::F32.factors(&values), Cow::Borrowed(_)));
        for precision in Precision::ALL {
            let expected: Vec<f32> = values.iter().map(|&value| precision.round(value)).collect();
            assert_eq!(*precision.factors(&values), expected);
            let kept = if precision.half().is_some() { &expected } else { &values };
            assert_eq!(precision.results(values.clone()), *kept);
        }
    }

    #[test]
    fn a_scope_ends_where_it_ends() {
        assert_eq!(current(), Precision::F32);
        let inside = Precision::Bf16.within(|| (current(), Precision::F32.within(current), current()));
        assert_eq!(inside, (Precision::Bf16, Precision::F32, Precision::Bf16));
        assert_eq!(current(), Precision::F32);
    }
}
