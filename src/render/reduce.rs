//! Feature maps whose channels the device reduces: all channels go up once; which reduction or channel is a uniform, as
//! are colours and range.

use super::context::Gpu;
use super::error::RenderError;
use super::heatmap::{HeatmapDraw, HeatmapLook, HeatmapRenderer, without_holes};
use super::pipeline;
use super::shader::{ShaderLibrary, Twin, describe_twin};
use super::upload::Uniform;
use super::view::{Target, View};
use crate::trace::reduce::Reduction;

const WHAT: &str = "feature map";
/// Positions of a workgroup on a side; as in the shader.
const GROUP_SIDE: u32 = 8;

/// A map to show.
#[derive(Clone, Copy, Debug)]
pub struct ReduceInput<'a> {
    /// Numbers are sent to the device when this differs from the last call's.
    pub version: u64,
    pub width: u32,
    pub height: u32,
    /// `[channels, height, width]`, one channel at least; a channel that falls short is left out. NaN and infinities
    /// are holes: a mean over one is a hole, a maximum leaves it out.
    pub values: &'a [f32],
}

/// Twin of `ReduceUniform` in `shaders/reduce.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct ReduceUniform {
    width: u32,
    height: u32,
    channels: u32,
    how: u32,
    channel: u32,
    padding: [u32; 3],
}

pub(super) fn twins() -> Vec<Twin> {
    vec![describe_twin!(ReduceUniform, "reduce.wgsl", "ReduceUniform", [width, height, channels, how, channel])]
}

/// Pipeline and layout for reductions, on a device that can.
#[derive(Debug)]
pub struct ReduceRenderer {
    reducing: Option<Reducing>,
    most: u64,
}

#[derive(Debug)]
struct Reducing {
    layout: wgpu::BindGroupLayout,
    pipeline: wgpu::ComputePipeline,
}

impl Reducing {
    fn new(gpu: &Gpu, library: &ShaderLibrary) -> Result<Self, RenderError> {
        let entries = [
            pipeline::compute_entry(0, wgpu::BufferBindingType::Uniform),
            pipeline::compute_entry(1, wgpu::BufferBindingType::Storage { read_only: true }),
            wgpu::BindGroupLayoutEntry {
                binding: 2,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::StorageTexture {
                    access: wgpu::StorageTextureAccess::WriteOnly,
                    format: wgpu::TextureFormat::R32Float,
                    view_dimension: wgpu::TextureViewDimension::D2,
                },
                count: None,
            },
        ];
        let layout = pipeline::group_layout(&gpu.device, WHAT, &entries);
        let module = library.compile(&gpu.device, "reduce.wgsl")?;
        let pipeline = pipeline::build_compute(&gpu.device, &module, "cs_reduce", &layout)?;
        Ok(Self { layout, pipeline })
    }
}

impl ReduceRenderer {
    /// # Errors
    /// A shader or pipeline that the device refuses. One without compute shaders is no error: see
    /// [`most_bytes`](Self::most_bytes).
    pub fn new(gpu: &Gpu, library: &ShaderLibrary) -> Result<Self, RenderError> {
        let able = pipeline::computes(&gpu.device);
        let reducing = able.then(|| Reducing::new(gpu, library)).transpose()?;
        Ok(Self { reducing, most: pipeline::most_storage(&gpu.device) })
    }

    /// Most bytes of one map that the device reduces; 0 where it does not compute.
    pub fn most_bytes(&self) -> u64 {
        if self.reducing.is_some() { self.most } else { 0 }
    }

    /// Compiles the shader again.
    ///
    /// # Errors
    /// As [`new`](Self::new); the pipeline stays as it was.
    pub fn reload(&mut self, gpu: &Gpu, library: &ShaderLibrary) -> Result<(), RenderError> {
        if self.reducing.is_some() {
            self.reducing = Some(Reducing::new(gpu, library)?);
        }
        Ok(())
    }
}

/// One map in one view.
#[derive(Debug)]
pub struct ReduceDraw {
    uniform: Uniform<ReduceUniform>,
    map: Option<Map>,
    version: Option<u64>,
    heat: HeatmapDraw,
    /// How often channels were sent.
    pub uploads: u64,
    /// How often the uniform of the reduction was sent: as often was reduced.
    pub uniform_uploads: u64,
}

#[derive(Debug)]
struct Map {
    channels: u32,
    /// What the channels are reduced to.
    texture: wgpu::Texture,
    group: wgpu::BindGroup,
}

impl ReduceDraw {
    pub fn new(gpu: &Gpu) -> Self {
        Self {
            uniform: Uniform::new(&gpu.device, WHAT),
            map: None,
            version: None,
            heat: HeatmapDraw::new(gpu),
            uploads: 0,
            uniform_uploads: 0,
        }
    }

    /// Sends what changed since the last call, and reduces where something did. Nothing happens on a device that does
    /// not compute.
    ///
    /// # Errors
    /// [`RenderError::TooLarge`], [`RenderError::Size`] and [`RenderError::Length`] for a map beyond the device's
    /// limits or without a whole channel. Then the last map stays.
    pub fn prepare(
        &mut self,
        renderer: &ReduceRenderer,
        heatmap: &HeatmapRenderer,
        gpu: &Gpu,
        input: &ReduceInput<'_>,
        how: Reduction,
        look: &HeatmapLook,
        view: &View,
        target: &Target,
    ) -> Result<(), RenderError> {
        let Some(reducing) = &renderer.reducing else { return Ok(()) };
        let is_new = self.version != Some(input.version);
        if is_new {
            self.map = Some(self.send(reducing, renderer.most, gpu, input)?);
            self.version = Some(input.version);
            self.uploads += 1;
        }
        let Some(map) = &self.map else { return Ok(()) };
        let (how, channel) = match how {
            Reduction::Mean => (0, 0),
            Reduction::Max => (1, 0),
            Reduction::Channel(index) => (2, u32::try_from(index).unwrap_or(u32::MAX).min(map.channels - 1)),
        };
        let (width, height) = (map.texture.width(), map.texture.height());
        let uniform = ReduceUniform { width, height, channels: map.channels, how, channel, padding: [0; 3] };
        let is_changed = self.uniform.set(&gpu.queue, uniform);
        self.uniform_uploads += u64::from(is_changed);
        if is_new || is_changed {
            let descriptor = wgpu::CommandEncoderDescriptor { label: Some(WHAT) };
            let mut encoder = gpu.device.create_command_encoder(&descriptor);
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&reducing.pipeline);
            pass.set_bind_group(0, &map.group, &[]);
            pass.dispatch_workgroups(width.div_ceil(GROUP_SIDE), height.div_ceil(GROUP_SIDE), 1);
            drop(pass);
            gpu.queue.submit([encoder.finish()]);
        }
        self.heat.prepare_texture(heatmap, gpu, &map.texture, look, view, target);
        Ok(())
    }

    fn send(&self, reducing: &Reducing, limit: u64, gpu: &Gpu, input: &ReduceInput<'_>) -> Result<Map, RenderError> {
        let (width, height) = (input.width, input.height);
        let format = wgpu::TextureFormat::R32Float;
        let filled = wgpu::TextureUsages::STORAGE_BINDING;
        let texture = pipeline::texture(&gpu.device, WHAT, width, height, format, filled)?;
        let plane = width as usize * height as usize;
        let channels = input.values.len() / plane;
        let whole = &input.values[..channels * plane];
        if whole.is_empty() {
            let (expected, found) = (plane as u64, input.values.len() as u64);
            return Err(RenderError::Length { what: WHAT, width, height, expected, found });
        }
        let bytes = std::mem::size_of_val(whole) as u64;
        let channels = match u32::try_from(channels) {
            Ok(channels) if bytes <= limit => channels,
            _ => return Err(RenderError::TooLarge { what: WHAT, bytes, limit }),
        };
        let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(WHAT),
            size: bytes,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice::<f32, u8>(&without_holes(whole)));
        let view = texture.create_view(&wgpu::TextureViewDescriptor::default());
        let resources = [self.uniform.binding(), buffer.as_entire_binding(), wgpu::BindingResource::TextureView(&view)];
        let group = pipeline::group(&gpu.device, WHAT, &reducing.layout, &resources);
        Ok(Map { channels, texture, group })
    }

    /// Draws what was prepared.
    pub fn paint(&self, heatmap: &HeatmapRenderer, pass: &mut wgpu::RenderPass<'_>) {
        self.heat.paint(heatmap, pass);
    }
}
