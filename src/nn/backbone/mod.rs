//! Backbones: image in, pyramid of feature maps out.

pub mod vgg;
