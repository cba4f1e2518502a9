//! Buffers that remember what they hold, so that an unchanged uniform or array is never sent again.

use super::context::Gpu;
use super::error::RenderError;
use std::marker::PhantomData;

/// One uniform struct in a buffer of its own. Every view has its own: all views are prepared before any is painted.
#[derive(Debug)]
pub(super) struct Uniform<T> {
    buffer: wgpu::Buffer,
    held: Option<T>,
}

impl<T: bytemuck::Pod> Uniform<T> {
    pub fn new(device: &wgpu::Device, label: &str) -> Self {
        let buffer = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: std::mem::size_of::<T>() as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        Self { buffer, held: None }
    }

    /// Sends `value` unless the buffer holds it; true when it was sent.
    pub fn set(&mut self, queue: &wgpu::Queue, value: T) -> bool {
        if self.held.as_ref().is_some_and(|held| bytemuck::bytes_of(held) == bytemuck::bytes_of(&value)) {
            return false;
        }
        queue.write_buffer(&self.buffer, 0, bytemuck::bytes_of(&value));
        self.held = Some(value);
        true
    }

    pub fn binding(&self) -> wgpu::BindingResource<'_> {
        self.buffer.as_entire_binding()
    }
}

/// Vertex data that grows with its content and is told apart by a version number.
#[derive(Debug)]
pub(super) struct VertexArray<T> {
    what: &'static str,
    buffer: Option<wgpu::Buffer>,
    count: u32,
    version: Option<u64>,
    items: PhantomData<T>,
}

impl<T: bytemuck::NoUninit> VertexArray<T> {
    /// Empty. `what` names the items in errors.
    pub fn new(what: &'static str) -> Self {
        Self { what, buffer: None, count: 0, version: None, items: PhantomData }
    }

    pub fn holds(&self, version: u64) -> bool {
        self.version == Some(version)
    }

    /// Sends `items` unless the buffer holds this version; true when something was sent.
    ///
    /// # Errors
    /// [`RenderError::TooLarge`]: then the old content stays.
    pub fn set(&mut self, gpu: &Gpu, version: u64, items: &[T]) -> Result<bool, RenderError> {
        if self.holds(version) {
            return Ok(false);
        }
        let bytes = std::mem::size_of_val(items) as u64;
        let limit = gpu.device.limits().max_buffer_size;
        let too_large = RenderError::TooLarge { what: self.what, bytes, limit };
        let count = match u32::try_from(items.len()) {
            Ok(count) if bytes <= limit => count,
            _ => return Err(too_large),
        };
        if count > 0 {
            let roomy = self.buffer.take().filter(|buffer| buffer.size() >= bytes);
            let buffer = roomy.unwrap_or_else(|| {
                gpu.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some(self.what),
                    // Doubling keeps a slowly growing array from a new buffer every frame.
                    size: bytes.next_power_of_two().min(limit).max(bytes),
                    usage: wgpu::BufferUsages::VERTEX | wgpu::BufferUsages::COPY_DST,
                    mapped_at_creation: false,
                })
            });
            gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(items));
            self.buffer = Some(buffer);
        }
        self.count = count;
        self.version = Some(version);
        Ok(count > 0)
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    /// The items from `first` on; `None` when there are none.
    pub fn slice_from(&self, first: u32) -> Option<wgpu::BufferSlice<'_>> {
        let size = std::mem::size_of::<T>() as u64;
        let (start, end) = (u64::from(first) * size, u64::from(self.count) * size);
        let buffer = self.buffer.as_ref()?;
        (start < end).then(|| buffer.slice(start..end))
    }
}
