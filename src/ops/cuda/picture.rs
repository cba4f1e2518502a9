//! A network's input made of a picture on the device.

use super::{Arg, floats, launch, upload, wrap};
use candle_core::{CudaDevice, Result, Shape, Tensor};

/// [`crate::ops::picture::input`] for sizes and samples that it has checked, from the table of `picture.cu`.
pub(in crate::ops) fn input(
    device: &CudaDevice,
    (pixels, width): (&[u8], usize),
    table: &[i32],
    (input_width, input_height): (usize, usize),
    [left, top, columns, rows]: [usize; 4],
) -> Result<Tensor> {
    let count = input_width * input_height;
    let (pixels, table, mut y) = (upload(device, pixels)?, upload(device, table)?, floats(device, 3 * count)?);
    launch(
        device,
        "picture_input",
        count,
        &mut [
            Arg::All(&pixels),
            Arg::All(&table),
            Arg::Ints(&[width, input_width, left, top, columns, rows]),
            Arg::Out(&mut y),
        ],
    )?;
    Ok(wrap(y, Shape::from((1, 3, input_height, input_width))))
}
