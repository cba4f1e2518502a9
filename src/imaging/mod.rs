//! Floor 1: pictures on the CPU: decoding, resizing, preprocessing, augmentation, drawing. No tensors here.

pub mod augment;
pub mod augmentation;
pub mod crop;
pub mod decode;
pub mod draw;
pub mod mask_map;
mod mixup;
mod mosaic;
pub mod photometric;
pub mod picture;
pub mod preprocess;
pub mod random_scale;
pub mod resize;
mod tile;
pub mod view;

pub use augment::{
    Applied, Augmentation, Augmented, Frame, Partner, Partners, Sample, SampleRef, augment, augment_with,
};
pub use decode::{ImageError, decode, is_image_path, load, size_of};
pub use draw::{class_color, draw_detections, encode_png, save_png};
pub use picture::Picture;
pub use preprocess::{ChannelOrder, Fit, Input, Placement, Preprocess};
pub use resize::{Kernel, resize_picture, resize_planes};
