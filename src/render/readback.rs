//! Drawing into memory: pictures for `boxwright render`, exports and tests.

use super::context::{Gpu, wait_for};
use super::error::RenderError;
use std::sync::mpsc;
use std::time::Duration;

/// Format of pictures drawn into memory: build the renderers for this one.
pub const PICTURE_FORMAT: wgpu::TextureFormat = wgpu::TextureFormat::Rgba8Unorm;

/// A device that needs longer is taken for hung. Software devices need seconds for large pictures.
const TIMEOUT: Duration = Duration::from_secs(60);

const BYTES_PER_PIXEL: u32 = 4;

/// Draws a picture and returns it as `[height, width, 4]`: red, green, blue, alpha, gamma-encoded, premultiplied (over
/// an opaque background alpha is 255 and that makes no difference).
///
/// `background` is red, green, blue, alpha from 0 to 1, gamma-encoded, premultiplied. `paint` gets the open pass; what
/// it draws must have been prepared for a [`Target`](super::Target) of this size.
///
/// # Errors
/// [`RenderError::Size`] and [`RenderError::TooLarge`] beyond the device's limits, [`RenderError::Device`] with the
/// first thing the device refused, [`RenderError::Timeout`].
pub fn render_to_rgba(
    gpu: &Gpu,
    width: u32,
    height: u32,
    background: [f32; 4],
    paint: impl FnOnce(&mut wgpu::RenderPass<'_>),
) -> Result<Vec<u8>, RenderError> {
    let layout = RowLayout::new(&gpu.device.limits(), width, height)?;
    let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
    let (buffer, submission) = record(gpu, &layout, background, paint);
    if let Some(error) = wait_for(scope.pop()) {
        return Err(refused("a drawing", &error));
    }
    read(gpu, &layout, &buffer, submission)
}

/// Sizes of the picture and of its copy, whose rows the device wants aligned.
#[derive(Debug, PartialEq)]
struct RowLayout {
    width: u32,
    height: u32,
    /// Bytes of a row of pixels, and from one row to the next.
    row: u32,
    stride: u32,
}

impl RowLayout {
    fn new(limits: &wgpu::Limits, width: u32, height: u32) -> Result<Self, RenderError> {
        let limit = limits.max_texture_dimension_2d;
        let size = || RenderError::Size { what: "picture", width, height, limit };
        if width == 0 || height == 0 || width > limit || height > limit {
            return Err(size());
        }
        let row = width.checked_mul(BYTES_PER_PIXEL).ok_or_else(size)?;
        let stride = row.checked_next_multiple_of(wgpu::COPY_BYTES_PER_ROW_ALIGNMENT).ok_or_else(size)?;
        let layout = Self { width, height, row, stride };
        if layout.bytes() > limits.max_buffer_size {
            let limit = limits.max_buffer_size;
            return Err(RenderError::TooLarge { what: "rows of the picture", bytes: layout.bytes(), limit });
        }
        Ok(layout)
    }

    fn bytes(&self) -> u64 {
        u64::from(self.stride) * u64::from(self.height)
    }
}

/// Draws and starts the copy into a buffer that the CPU can read.
fn record(
    gpu: &Gpu,
    layout: &RowLayout,
    background: [f32; 4],
    paint: impl FnOnce(&mut wgpu::RenderPass<'_>),
) -> (wgpu::Buffer, wgpu::SubmissionIndex) {
    let texture = gpu.device.create_texture(&wgpu::TextureDescriptor {
        label: Some("picture"),
        size: wgpu::Extent3d { width: layout.width, height: layout.height, depth_or_array_layers: 1 },
        mip_level_count: 1,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        format: PICTURE_FORMAT,
        usage: wgpu::TextureUsages::RENDER_ATTACHMENT | wgpu::TextureUsages::COPY_SRC,
        view_formats: &[],
    });
    let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("picture"),
        size: layout.bytes(),
        usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
        mapped_at_creation: false,
    });
    let view = texture.create_view(&wgpu::TextureViewDescriptor::default());
    let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("picture") });
    let [r, g, b, a] = background.map(f64::from);
    let mut pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
        label: Some("picture"),
        color_attachments: &[Some(wgpu::RenderPassColorAttachment {
            view: &view,
            depth_slice: None,
            resolve_target: None,
            ops: wgpu::Operations {
                load: wgpu::LoadOp::Clear(wgpu::Color { r, g, b, a }),
                store: wgpu::StoreOp::Store,
            },
        })],
        depth_stencil_attachment: None,
        timestamp_writes: None,
        occlusion_query_set: None,
        multiview_mask: None,
    });
    paint(&mut pass);
    drop(pass);
    encoder.copy_texture_to_buffer(
        texture.as_image_copy(),
        wgpu::TexelCopyBufferInfo {
            buffer: &buffer,
            layout: wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(layout.stride), rows_per_image: None },
        },
        texture.size(),
    );
    let submission = gpu.queue.submit([encoder.finish()]);
    (buffer, submission)
}

/// Waits for the copy and takes the padding out of its rows.
fn read(
    gpu: &Gpu,
    layout: &RowLayout,
    buffer: &wgpu::Buffer,
    submission: wgpu::SubmissionIndex,
) -> Result<Vec<u8>, RenderError> {
    let (sender, receiver) = mpsc::channel();
    buffer.map_async(wgpu::MapMode::Read, .., move |result| {
        // The receiver is gone when waiting was given up.
        let _ = sender.send(result);
    });
    let wait = wgpu::PollType::Wait { submission_index: Some(submission), timeout: Some(TIMEOUT) };
    match gpu.device.poll(wait) {
        Ok(_) => {}
        Err(wgpu::PollError::Timeout) => {
            return Err(RenderError::Timeout { seconds: TIMEOUT.as_secs() });
        }
        Err(error) => return Err(refused("waiting", &error)),
    }
    match receiver.try_recv() {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(refused("reading a picture back", &error)),
        Err(_) => {
            return Err(RenderError::Timeout { seconds: TIMEOUT.as_secs() });
        }
    }
    let mapped = buffer.get_mapped_range(..).map_err(|error| refused("reading a picture back", &error))?;
    let mut pixels = Vec::with_capacity(layout.row as usize * layout.height as usize);
    for row in mapped.chunks_exact(layout.stride as usize) {
        pixels.extend_from_slice(&row[..layout.row as usize]);
    }
    drop(mapped);
    buffer.unmap();
    Ok(pixels)
}

fn refused(what: &str, error: &dyn std::fmt::Display) -> RenderError {
    RenderError::Device { what: what.to_owned(), message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_padded_to_the_alignment_of_copies() {
        let limits = wgpu::Limits::default();
        let layout = RowLayout::new(&limits, 65, 3).unwrap();
        assert_eq!(layout, RowLayout { width: 65, height: 3, row: 260, stride: 512 });
        assert_eq!(layout.bytes(), 1536);
        assert_eq!(RowLayout::new(&limits, 64, 1).unwrap().stride, 256);
    }

    #[test]
    fn sizes_beyond_the_device_are_errors() {
        let limits = wgpu::Limits { max_buffer_size: 1 << 20, ..wgpu::Limits::default() };
        for (width, height) in [(0, 5), (5, 0), (8193, 1), (1, 8193), (u32::MAX, u32::MAX)] {
            assert!(matches!(RowLayout::new(&limits, width, height), Err(RenderError::Size { .. })));
        }
        // 1024 · 1024 · 4 bytes are four times the buffer's limit.
        assert!(matches!(RowLayout::new(&limits, 1024, 1024), Err(RenderError::TooLarge { .. })));
    }
}
