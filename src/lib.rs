//! Boxwright: a desktop workbench for object detection.
//!
//! Modules stand on floors; a module uses what lies on a lower floor (see `tests/architecture.rs`).

pub mod app;
pub mod cli;
pub mod data;
pub mod detect;
pub mod engine;
pub mod eval;
pub mod geometry;
pub mod imaging;
pub mod nn;
pub mod ops;
pub mod random;
pub mod render;
pub mod stats;
pub mod trace;
pub mod train;
pub mod weights;
