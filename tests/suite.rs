//! All integration tests in one binary.

mod architecture;
mod conv;
mod data;
mod data_parallel;
mod engine;
mod eval;
mod export;
mod formats;
mod fuzz;
mod geometry;
mod gpu;
mod health;
mod imaging;
mod nano;
mod ops;
mod parity;
mod pipeline;
mod precision;
mod published_weights;
mod rcnn;
#[path = "render/main.rs"]
mod render;
mod shaders;
mod training;
mod weights;
mod window;
