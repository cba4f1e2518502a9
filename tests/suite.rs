//! All integration tests in one binary.

mod architecture;
mod conv;
mod data;
mod engine;
mod eval;
mod geometry;
mod imaging;
mod ops;
mod parity;
#[path = "render/main.rs"]
mod render;
mod shaders;
mod training;
mod weights;
mod window;
