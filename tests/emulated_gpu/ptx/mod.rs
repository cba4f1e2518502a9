//! PTX, NVIDIA's assembler: modules are searched for their functions, functions translated, kernels run.
//!
//! A subset: what nvcc makes of candle's kernels and of those of this program. An instruction outside of it is an error
//! that names it. A call is replaced by the body of what is called.

mod decode;
mod module;
mod number;
mod parse;
mod run;

pub use module::Module;
pub use parse::Kernel;
pub use run::{Fault, Grid, launch};
