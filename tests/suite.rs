//! All integration tests in one binary.

mod architecture;
mod conv;
mod data;
mod eval;
mod geometry;
mod imaging;
mod ops;
#[path = "render/main.rs"]
mod render;
mod shaders;
mod weights;
