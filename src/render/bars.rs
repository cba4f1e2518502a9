//! Bars of a histogram with threshold lines.

use super::context::Gpu;
use super::error::RenderError;
use super::pipeline::{self, Recipe};
use super::plot::{Plot, PlotUniform};
use super::shader::{ShaderLibrary, Twin, describe_twin};
use super::upload::{Uniform, VertexArray};
use super::view::{Placement, Target};

/// Lines that one histogram can carry.
pub const THRESHOLD_LIMIT: usize = 8;

const HEIGHT: [wgpu::VertexAttribute; 1] = wgpu::vertex_attr_array![0 => Float32];

/// Heights to show.
#[derive(Clone, Copy, Debug)]
pub struct BarInput<'a> {
    /// Heights are sent to the device when this differs from the last call's.
    pub version: u64,
    /// In the unit of the plot's y axis, from left to right. Not a number counts as 0.
    pub heights: &'a [f32],
}

/// A vertical line over the bars.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// On the plot's x axis.
    pub value: f32,
    /// Red, green, blue, alpha from 0 to 1, gamma-encoded, not premultiplied.
    pub color: [f32; 4],
}

/// How bars look. Changing it sends one uniform.
#[derive(Clone, Debug, PartialEq)]
pub struct BarLook {
    /// Red, green, blue, alpha from 0 to 1, gamma-encoded, not premultiplied.
    pub color: [f32; 4],
    /// Colour of the bars from a value of the plot's x axis on, where it is another.
    pub above: Option<(f32, [f32; 4])>,
    /// Left edge of the first bar and width of every bar, in the unit of the plot's x axis.
    pub first_edge: f32,
    pub bin_width: f32,
    /// Screen pixels between bars, where there is room.
    pub gap: f32,
    /// At most [`THRESHOLD_LIMIT`].
    pub thresholds: Vec<Threshold>,
    /// Width of the threshold lines in screen pixels.
    pub line_width: f32,
}

impl Default for BarLook {
    fn default() -> Self {
        Self {
            color: [0.337, 0.706, 0.914, 1.0],
            above: None,
            first_edge: 0.0,
            bin_width: 1.0,
            gap: 1.0,
            thresholds: Vec::new(),
            line_width: 2.0,
        }
    }
}

/// Twin of `BarUniform` in `shaders/bars.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct BarUniform {
    plot: PlotUniform,
    color: [f32; 4],
    color_above: [f32; 4],
    first_edge: f32,
    bin_width: f32,
    gap: f32,
    line_width: f32,
    above: f32,
    padding: [f32; 3],
    thresholds: [[f32; 4]; THRESHOLD_LIMIT],
    threshold_colors: [[f32; 4]; THRESHOLD_LIMIT],
}

pub(super) fn twins() -> Vec<Twin> {
    vec![describe_twin!(
        BarUniform,
        "bars.wgsl",
        "BarUniform",
        [plot, color, color_above, first_edge, bin_width, gap, line_width, above, thresholds, threshold_colors]
    )]
}

/// Pipelines and layout for histograms.
#[derive(Debug)]
pub struct BarRenderer {
    pipelines: Pipelines,
    layout: wgpu::BindGroupLayout,
    format: wgpu::TextureFormat,
}

#[derive(Debug)]
struct Pipelines {
    bars: wgpu::RenderPipeline,
    thresholds: wgpu::RenderPipeline,
}

impl Pipelines {
    fn new(
        device: &wgpu::Device,
        library: &ShaderLibrary,
        format: wgpu::TextureFormat,
        layout: &wgpu::BindGroupLayout,
    ) -> Result<Self, RenderError> {
        let module = library.compile(device, "bars.wgsl")?;
        let heights = wgpu::VertexBufferLayout {
            array_stride: std::mem::size_of::<f32>() as u64,
            step_mode: wgpu::VertexStepMode::Instance,
            attributes: &HEIGHT,
        };
        let bars = Recipe {
            label: "bars",
            vertex: "vs_bar",
            fragment: "fs_bar",
            layouts: &[layout],
            buffers: &[Some(heights)],
            format,
        };
        let thresholds = Recipe {
            label: "thresholds",
            vertex: "vs_threshold",
            fragment: "fs_bar",
            layouts: &[layout],
            buffers: &[],
            format,
        };
        Ok(Self {
            bars: pipeline::build(device, &module, &bars)?,
            thresholds: pipeline::build(device, &module, &thresholds)?,
        })
    }
}

impl BarRenderer {
    /// # Errors
    /// A shader or pipeline that the device refuses; a target format that encodes colours itself.
    pub fn new(gpu: &Gpu, library: &ShaderLibrary, format: wgpu::TextureFormat) -> Result<Self, RenderError> {
        pipeline::check_format(format)?;
        let layout = pipeline::group_layout(&gpu.device, "bars", &[pipeline::uniform_entry::<BarUniform>(0)]);
        let pipelines = Pipelines::new(&gpu.device, library, format, &layout)?;
        Ok(Self { pipelines, layout, format })
    }

    /// Compiles the shaders again.
    ///
    /// # Errors
    /// As [`new`](Self::new); the pipelines stay as they were.
    pub fn reload(&mut self, gpu: &Gpu, library: &ShaderLibrary) -> Result<(), RenderError> {
        self.pipelines = Pipelines::new(&gpu.device, library, self.format, &self.layout)?;
        Ok(())
    }
}

/// One histogram in one plot.
#[derive(Debug)]
pub struct BarDraw {
    uniform: Uniform<BarUniform>,
    group: wgpu::BindGroup,
    heights: VertexArray<f32>,
    threshold_count: u32,
    placement: Placement,
    /// How often heights were sent.
    pub uploads: u64,
    /// How often the uniform was sent.
    pub uniform_uploads: u64,
}

impl BarDraw {
    pub fn new(renderer: &BarRenderer, gpu: &Gpu) -> Self {
        let uniform = Uniform::new(&gpu.device, "bars");
        let group = pipeline::group(&gpu.device, "bars", &renderer.layout, &[uniform.binding()]);
        Self {
            uniform,
            group,
            heights: VertexArray::new("bars"),
            threshold_count: 0,
            placement: Placement::default(),
            uploads: 0,
            uniform_uploads: 0,
        }
    }

    /// Sends what changed since the last call.
    ///
    /// # Errors
    /// [`RenderError::TooMany`] for more than [`THRESHOLD_LIMIT`] thresholds; [`RenderError::TooLarge`] when the
    /// heights do not fit into one buffer. Then what was prepared last stays.
    pub fn prepare(
        &mut self,
        gpu: &Gpu,
        input: &BarInput<'_>,
        look: &BarLook,
        plot: &Plot,
        target: &Target,
    ) -> Result<(), RenderError> {
        check_thresholds(look)?;
        if !self.heights.holds(input.version) {
            let heights: Vec<f32> =
                input.heights.iter().map(|&height| if height.is_finite() { height } else { 0.0 }).collect();
            self.uploads += u64::from(self.heights.set(gpu, input.version, &heights)?);
        }
        self.place(gpu, look, plot, target)
    }

    /// The look and place alone, for heights that lie in a buffer of somebody else.
    ///
    /// # Errors
    /// [`RenderError::TooMany`] for more than [`THRESHOLD_LIMIT`] thresholds.
    pub(super) fn place(&mut self, gpu: &Gpu, look: &BarLook, plot: &Plot, target: &Target) -> Result<(), RenderError> {
        check_thresholds(look)?;
        let (above, color_above) = look.above.unwrap_or((f32::MAX, look.color));
        let mut uniform = BarUniform {
            plot: PlotUniform::new(plot, target),
            color: look.color,
            color_above,
            first_edge: look.first_edge,
            bin_width: look.bin_width,
            gap: look.gap.max(0.0),
            line_width: look.line_width.max(0.0),
            above,
            padding: [0.0; 3],
            thresholds: [[0.0; 4]; THRESHOLD_LIMIT],
            threshold_colors: [[0.0; 4]; THRESHOLD_LIMIT],
        };
        for (slot, threshold) in uniform.thresholds.iter_mut().zip(&look.thresholds) {
            *slot = [threshold.value, 0.0, 0.0, 0.0];
        }
        for (slot, threshold) in uniform.threshold_colors.iter_mut().zip(&look.thresholds) {
            *slot = threshold.color;
        }
        self.uniform_uploads += u64::from(self.uniform.set(&gpu.queue, uniform));
        self.threshold_count = look.thresholds.len() as u32;
        self.placement = Placement::new(&plot.area, target);
        Ok(())
    }

    /// Draws what was prepared.
    pub fn paint(&self, renderer: &BarRenderer, pass: &mut wgpu::RenderPass<'_>) {
        self.paint_heights(renderer, pass, self.heights.slice_from(0), self.heights.count());
    }

    /// Draws bars of `heights`, one number a bar.
    pub(super) fn paint_heights(
        &self,
        renderer: &BarRenderer,
        pass: &mut wgpu::RenderPass<'_>,
        heights: Option<wgpu::BufferSlice<'_>>,
        count: u32,
    ) {
        if !self.placement.enter(pass) {
            return;
        }
        pass.set_bind_group(0, &self.group, &[]);
        if let Some(heights) = heights {
            pass.set_pipeline(&renderer.pipelines.bars);
            pass.set_vertex_buffer(0, heights);
            pass.draw(0..4, 0..count);
        }
        if self.threshold_count > 0 {
            pass.set_pipeline(&renderer.pipelines.thresholds);
            pass.draw(0..4, 0..self.threshold_count);
        }
    }
}

fn check_thresholds(look: &BarLook) -> Result<(), RenderError> {
    let count = look.thresholds.len();
    if count > THRESHOLD_LIMIT {
        return Err(RenderError::TooMany { what: "thresholds", count, limit: THRESHOLD_LIMIT });
    }
    Ok(())
}
