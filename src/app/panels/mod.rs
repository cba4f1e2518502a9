//! The panels, one file each: read the state, draw, raise actions.

pub mod data;
pub mod evaluation;
pub mod image;
pub mod log;
pub mod losses;
pub mod model;
pub mod step;
