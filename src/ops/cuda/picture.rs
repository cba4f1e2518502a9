//! A network's input made of a picture on the device.

use super::select::counters;
use super::{Arg, floats, launch, make, upload, wrap};
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

/// [`crate::ops::picture::extents`] of images `[N, C, H, W]`.
pub(in crate::ops) fn extents(images: &Tensor) -> Result<Tensor> {
    let (count, planes, height, width) = images.dims4()?;
    make([images], (count, 2), |device, [images], sizes| {
        let mut extents = counters(device, 2 * count)?;
        launch(
            device,
            "picture_extents",
            count * height * width,
            &mut [Arg::In(images), Arg::Ints(&[planes, height, width]), Arg::Out(&mut extents)],
        )?;
        launch(
            device,
            "whole_extents",
            2 * count,
            &mut [Arg::All(&extents), Arg::Ints(&[height, width]), Arg::Out(sizes)],
        )
    })
}
