//! Backbones: image in, pyramid of feature maps out.

pub mod resnet;
pub mod vgg;
pub mod vgg_reduced;
