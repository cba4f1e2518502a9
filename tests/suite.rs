//! All integration tests in one binary.

mod architecture;
mod conv;
mod data;
mod engine;
mod eval;
mod export;
mod formats;
mod fuzz;
mod geometry;
mod health;
mod imaging;
mod nano;
mod ops;
mod parity;
mod pipeline;
mod published_weights;
mod rcnn;
#[path = "render/main.rs"]
mod render;
mod shaders;
mod training;
mod weights;
mod window;
