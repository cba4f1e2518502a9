//! Floor 1: tensor operations that candle lacks, gets wrong or does slowly, each with forward and backward, on the CPU
//! and on NVIDIA GPUs (`cuda`).

pub mod activation;
pub mod anchors;
pub mod conv;
mod cuda;
pub mod gather;
pub mod interrupt;
pub mod linear;
mod logistic;
pub mod losses;
pub mod maps;
pub mod matching;
pub mod multibox;
pub mod norm;
mod pair_loss;
pub mod picture;
pub mod pool;
pub mod precision;
pub mod proposals;
pub mod resize;
pub mod roi;
pub mod rois;
pub mod sampling;
pub mod select;
pub mod storage;
pub mod tape;
pub mod transposed;
pub mod update;
