//! Floor 2: parts of networks, and the named parameters they are made of.

pub mod backbone;
pub mod conv;
pub mod linear;
pub mod neck;
pub mod params;
pub mod pass;

pub use conv::{Conv, ConvBlock, ConvNorm};
pub use params::{Init, Params, Role, Scope};
pub use pass::{Mode, Pass};
