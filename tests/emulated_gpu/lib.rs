//! An NVIDIA GPU made of the processor, for tests: the driver, cuBLAS, cuDNN, cuRAND, NVRTC, NCCL and NVML as one library.
//!
//! Laid in place of those libraries it lets every CUDA path run on a machine without a GPU, slowly but checked: kernels
//! are interpreted from their PTX, every access must lie inside an allocation of its device, and fresh memory holds NaN.
//! It shows that what is launched computes the right thing. It says nothing about time, and since all work is done before
//! a call returns, a wait that is missing does not show.
//! `EMULATED_GPUS` says how many devices there are (1).

mod blas;
mod dnn;
mod driver;
mod half;
mod memory;
mod nccl;
mod nvml;
mod nvrtc;
mod ptx;
mod rand;

/// Says on stderr what a caller did wrong, beside the status that it is answered with.
fn complain(what: std::fmt::Arguments<'_>) {
    eprintln!("emulated GPU: {what}");
}

/// How many devices there are.
fn devices() -> usize {
    std::env::var("EMULATED_GPUS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}
