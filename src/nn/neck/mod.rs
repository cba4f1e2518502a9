//! Necks: from a backbone's maps to the pyramid that the heads read.

pub mod fpn;
pub mod map_norm;
