//! Numbers in JSON that come back bit for bit: those JSON has no form for are written as text.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A number, infinite and NaN included.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Exact(pub f64);

impl Exact {
    /// The same number, or both are none.
    pub fn same(self, other: Self) -> bool {
        self.0.to_bits() == other.0.to_bits() || (self.0.is_nan() && other.0.is_nan())
    }

    /// As f32; exact where it came from one.
    pub fn single(self) -> f32 {
        self.0 as f32
    }
}

impl From<f32> for Exact {
    fn from(value: f32) -> Self {
        Self(f64::from(value))
    }
}

impl From<f64> for Exact {
    fn from(value: f64) -> Self {
        Self(value)
    }
}

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_finite() { serializer.serialize_f64(self.0) } else { serializer.collect_str(&self.0) }
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(f64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(value) => Ok(Self(value)),
            Form::Text(text) => text.parse().map(Self).map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_back() {
        for value in [0.1f32, -0.0, 1e-42, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            let written = Exact::from(value);
            let text = serde_json::to_string(&written).unwrap();
            let read: Exact = serde_json::from_str(&text).unwrap();
            assert!(read.same(written), "{text}");
            assert!(value.is_nan() || read.single().to_bits() == value.to_bits(), "{text}");
        }
    }
}
