//! Two-dimensional convolution with its gradients: our own kernels on the CPU; cuDNN or plain kernels on a GPU (`cuda`).
//!
//! How a call travels: [`conv2d`] checks shapes (`spec`), `op` hands raw slices to `forward`, which picks one of
//! the direct implicit GEMM (`direct`), Winograd's minimal filtering (`winograd`) or the depthwise loops
//! (`depthwise`). All multiplication-heavy work ends in the tiles of `gemm`. Gradients live in `input_gradient`
//! and `weight_gradient`. Every output is summed in an order that follows from the shapes alone, so results have
//! the same bits for any number of threads. `crate::ops::precision` says what factors are rounded to first.
//!
//! `BOXWRIGHT_SIMD=avx512|avx2|portable` in the environment forces an instruction set that the CPU has.

mod cache;
mod cuda;
#[cfg(feature = "cudnn")]
mod cudnn;
mod depthwise;
mod depthwise_planes;
mod direct;
mod forward;
mod gemm;
mod input_gradient;
mod normed;
mod op;
mod pack;
mod peak;
#[cfg(test)]
mod reference;
mod scratch;
pub(super) mod simd;
mod spec;
mod tasks;
mod tiles;
mod weight_gradient;
mod winograd;
mod winograd_weight;

pub use cache::WeightCache;
pub use normed::conv2d_norm_train;
pub use op::conv2d;
pub use peak::peak_gflops;
pub use simd::plainly;
pub use spec::{Activation, ConvSpec};
