//! A network's input from a picture of 8-bit pixels, where the network is: resizing, order of channels, normalisation
//! and padding in one pass. On the CPU `imaging` does the same while it reads.

use super::cuda;
use candle_core::{Device, Result, Tensor, bail};

/// Two samples of an axis and the weight of the second: `first · (1 − weight) + second · weight`.
pub type Mixed = (usize, usize, f32);

/// What each pixel of an input is made of.
#[derive(Clone, Debug)]
pub struct Samples<'a> {
    /// Row-major pixels of three bytes.
    pub pixels: &'a [u8],
    /// Pixels of a row.
    pub width: usize,
    /// Columns of the picture that each column of the content mixes.
    pub columns: Vec<Mixed>,
    /// Rows of the picture that each row of the content mixes.
    pub rows: Vec<Mixed>,
    /// Width and height of the input, padding included.
    pub size: (usize, usize),
    /// Column and row of the input where the content starts.
    pub offset: (usize, usize),
    pub planes: [Plane; 3],
}

/// One plane of an input: `(value − mean) · factor` of a channel, and what stands around the content.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plane {
    pub channel: usize,
    pub mean: f32,
    pub factor: f32,
    pub padding: f32,
}

/// The input `[1, 3, H, W]`.
///
/// # Errors
/// Samples outside the picture, content that does not fit into the input, or a device that is no GPU.
pub fn input(samples: &Samples<'_>, device: &Device) -> Result<Tensor> {
    let (width, height) = (samples.width, samples.pixels.len() / (3 * samples.width).max(1));
    let outside = |axis: &[Mixed], length: usize| axis.iter().any(|&(first, second, _)| first.max(second) >= length);
    let unknown = samples.planes.iter().any(|plane| plane.channel > 2);
    if unknown || outside(&samples.columns, width) || outside(&samples.rows, height) {
        bail!("a picture of {width} x {height} pixels has not all the samples that are asked for");
    }
    let (columns, rows, size, offset) = (samples.columns.len(), samples.rows.len(), samples.size, samples.offset);
    if offset.0 + columns > size.0 || offset.1 + rows > size.1 {
        bail!("{columns} x {rows} pixels do not fit at {offset:?} into an input of {size:?}");
    }
    let Device::Cuda(device) = device else {
        bail!("pictures become inputs on NVIDIA GPUs alone, not on {:?}", device.location());
    };
    let content = [offset.0, offset.1, columns, rows];
    cuda::picture::input(device, (samples.pixels, width), &table(samples), size, content)
}

/// Height and width of what ends with the last pixel of each image `[N, C, H, W]` that is not zero in some plane,
/// `[N, 2]`, on a CUDA device; of all of it where there is none.
///
/// # Errors
/// Another shape, or a device that is not CUDA.
pub fn extents(images: &Tensor) -> Result<Tensor> {
    cuda::picture::extents(&images.detach())
}

/// The numbers of `picture.cu`.
fn table(samples: &Samples<'_>) -> Vec<i32> {
    let bits = |value: f32| value.to_bits() as i32;
    let planes = samples.planes.iter();
    let planes = planes.flat_map(|p| [p.channel as i32, bits(p.mean), bits(p.factor), bits(p.padding)]);
    let axes = samples.rows.iter().chain(&samples.columns);
    planes.chain(axes.flat_map(|&(first, second, weight)| [first as i32, second as i32, bits(weight)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(pixels: &[u8]) -> Samples<'_> {
        let plane = |channel: usize| Plane { channel, mean: 1.0, factor: 0.5, padding: 2.0 };
        Samples {
            pixels,
            width: 2,
            columns: vec![(0, 1, 0.25)],
            rows: vec![(0, 0, 0.0), (1, 2, 0.75)],
            size: (4, 3),
            offset: (3, 1),
            planes: [2, 1, 0].map(plane),
        }
    }

    #[test]
    fn the_table_has_planes_then_rows_then_columns() {
        let pixels = [0; 18];
        let of = |value: f32| value.to_bits() as i32;
        let [mean, factor, padding] = [1.0, 0.5, 2.0].map(of);
        let planes = [2, mean, factor, padding, 1, mean, factor, padding, 0, mean, factor, padding];
        let axes = [0, 0, 0, 1, 2, of(0.75), 0, 1, of(0.25)];
        assert_eq!(table(&samples(&pixels)), [&planes[..], &axes].concat());
    }

    #[test]
    fn samples_outside_the_picture_and_content_outside_the_input_are_errors() {
        let pixels = [0; 18];
        let complaint = |samples: Samples<'_>| input(&samples, &Device::Cpu).unwrap_err().to_string();
        assert!(complaint(samples(&pixels)).contains("NVIDIA"));
        assert!(complaint(samples(&pixels[..12])).contains("2 x 2"));
        assert!(complaint(Samples { columns: vec![(0, 2, 0.0)], ..samples(&pixels) }).contains("samples"));
        assert!(complaint(Samples { size: (3, 3), ..samples(&pixels) }).contains("fit"));
        assert!(complaint(Samples { offset: (3, 2), ..samples(&pixels) }).contains("fit"));
    }
}
