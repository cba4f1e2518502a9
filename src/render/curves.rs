//! Anti-aliased curves of constant width on the screen, several series in one draw.
//!
//! Every point costs a rectangle: reduce long series to two points a pixel first (minimum and maximum).

use super::context::Gpu;
use super::error::RenderError;
use super::pipeline::{self, Recipe};
use super::plot::{Plot, PlotUniform};
use super::shader::{ShaderLibrary, Twin, describe_twin};
use super::upload::{Uniform, VertexArray};
use super::view::{Placement, Target};

/// Series that one draw can carry.
pub const SERIES_LIMIT: usize = 32;

/// What coordinates that are no numbers are sent as. Above `MISSING` in the shader.
const HOLE: f32 = f32::MAX;
/// Stands for "no series" at both ends of the buffer.
const NO_SERIES: u32 = u32::MAX;
/// Points a segment is drawn from: the one before, its start, its end, the one after.
const NEIGHBOURS: u32 = 4;

static ATTRIBUTES: [[wgpu::VertexAttribute; 2]; NEIGHBOURS as usize] = [
    wgpu::vertex_attr_array![0 => Float32x2, 1 => Uint32],
    wgpu::vertex_attr_array![2 => Float32x2, 3 => Uint32],
    wgpu::vertex_attr_array![4 => Float32x2, 5 => Uint32],
    wgpu::vertex_attr_array![6 => Float32x2, 7 => Uint32],
];

/// One point in the buffer.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct CurvePoint {
    position: [f32; 2],
    series: u32,
}

/// Curves to show.
#[derive(Clone, Copy, Debug)]
pub struct CurveInput<'a> {
    /// Points are sent to the device when this differs from the last call's.
    pub version: u64,
    /// Points (x, y) of each series in the units of the plot's axes, at most [`SERIES_LIMIT`] series. A point with a
    /// coordinate that is no finite number leaves a gap.
    pub series: &'a [&'a [[f32; 2]]],
}

/// How one series looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CurveStyle {
    /// Red, green, blue, alpha from 0 to 1, gamma-encoded, not premultiplied.
    pub color: [f32; 4],
    /// Screen pixels; 0 hides the series.
    pub width: f32,
    /// Screen pixels of a dash and of the gap after it, along the x axis; a whole line without a gap.
    pub dash: [f32; 2],
}

/// Twin of `CurveUniform` in `shaders/curves.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct CurveUniform {
    plot: PlotUniform,
    colors: [[f32; 4]; SERIES_LIMIT],
    widths: [[f32; 4]; SERIES_LIMIT],
}

pub(super) fn twins() -> Vec<Twin> {
    vec![describe_twin!(CurveUniform, "curves.wgsl", "CurveUniform", [plot, colors, widths])]
}

/// Pipeline and layout for curves.
#[derive(Debug)]
pub struct CurveRenderer {
    pipeline: wgpu::RenderPipeline,
    layout: wgpu::BindGroupLayout,
    format: wgpu::TextureFormat,
}

impl CurveRenderer {
    /// # Errors
    /// A shader or pipeline that the device refuses; a target format that encodes colours itself.
    pub fn new(gpu: &Gpu, library: &ShaderLibrary, format: wgpu::TextureFormat) -> Result<Self, RenderError> {
        pipeline::check_format(format)?;
        let layout = pipeline::group_layout(&gpu.device, "curves", &[pipeline::uniform_entry::<CurveUniform>(0)]);
        let pipeline = build(&gpu.device, library, format, &layout)?;
        Ok(Self { pipeline, layout, format })
    }

    /// Compiles the shaders again.
    ///
    /// # Errors
    /// As [`new`](Self::new); the pipeline stays as it was.
    pub fn reload(&mut self, gpu: &Gpu, library: &ShaderLibrary) -> Result<(), RenderError> {
        self.pipeline = build(&gpu.device, library, self.format, &self.layout)?;
        Ok(())
    }
}

fn build(
    device: &wgpu::Device,
    library: &ShaderLibrary,
    format: wgpu::TextureFormat,
    layout: &wgpu::BindGroupLayout,
) -> Result<wgpu::RenderPipeline, RenderError> {
    let module = library.compile(device, "curves.wgsl")?;
    let buffers = ATTRIBUTES.each_ref().map(|attributes| {
        Some(wgpu::VertexBufferLayout {
            array_stride: std::mem::size_of::<CurvePoint>() as u64,
            step_mode: wgpu::VertexStepMode::Instance,
            attributes: attributes.as_slice(),
        })
    });
    let recipe = Recipe {
        label: "curves",
        vertex: "vs_segment",
        fragment: "fs_segment",
        layouts: &[layout],
        buffers: &buffers,
        format,
    };
    pipeline::build(device, &module, &recipe)
}

/// One set of curves in one plot.
#[derive(Debug)]
pub struct CurveDraw {
    uniform: Uniform<CurveUniform>,
    group: wgpu::BindGroup,
    points: VertexArray<CurvePoint>,
    placement: Placement,
    /// How often points were sent.
    pub uploads: u64,
    /// How often the uniform was sent.
    pub uniform_uploads: u64,
}

impl CurveDraw {
    pub fn new(renderer: &CurveRenderer, gpu: &Gpu) -> Self {
        let uniform = Uniform::new(&gpu.device, "curves");
        let group = pipeline::group(&gpu.device, "curves", &renderer.layout, &[uniform.binding()]);
        Self {
            uniform,
            group,
            points: VertexArray::new("points of curves"),
            placement: Placement::default(),
            uploads: 0,
            uniform_uploads: 0,
        }
    }

    /// Sends what changed since the last call. Series without a style are hidden.
    ///
    /// # Errors
    /// [`RenderError::TooMany`] for more than [`SERIES_LIMIT`] series or styles; [`RenderError::TooLarge`] when the
    /// points do not fit into one buffer. Then what was prepared last stays.
    pub fn prepare(
        &mut self,
        gpu: &Gpu,
        input: &CurveInput<'_>,
        styles: &[CurveStyle],
        plot: &Plot,
        target: &Target,
    ) -> Result<(), RenderError> {
        let count = input.series.len().max(styles.len());
        if count > SERIES_LIMIT {
            return Err(RenderError::TooMany { what: "series", count, limit: SERIES_LIMIT });
        }
        if !self.points.holds(input.version) {
            self.uploads += u64::from(self.points.set(gpu, input.version, &gather(input.series))?);
        }
        let mut uniform = CurveUniform {
            plot: PlotUniform::new(plot, target),
            colors: [[0.0; 4]; SERIES_LIMIT],
            widths: [[0.0; 4]; SERIES_LIMIT],
        };
        for (slot, style) in uniform.colors.iter_mut().zip(styles) {
            *slot = style.color;
        }
        for (slot, style) in uniform.widths.iter_mut().zip(styles) {
            *slot = [style.width, style.dash[0], style.dash[1], 0.0];
        }
        self.uniform_uploads += u64::from(self.uniform.set(&gpu.queue, uniform));
        self.placement = Placement::new(&plot.area, target);
        Ok(())
    }

    /// Draws what was prepared.
    pub fn paint(&self, renderer: &CurveRenderer, pass: &mut wgpu::RenderPass<'_>) {
        let segments = self.points.count().saturating_sub(NEIGHBOURS - 1);
        if segments == 0 || !self.placement.enter(pass) {
            return;
        }
        pass.set_pipeline(&renderer.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        // The same buffer four times, each one point further on.
        for slot in 0..NEIGHBOURS {
            pass.set_vertex_buffer(slot, self.points.slice_from(slot));
        }
        pass.draw(0..4, 0..segments);
    }
}

/// All series behind one another with an end mark on both sides. A point without a neighbour in its series is doubled:
/// it shows as a dot.
fn gather(series: &[&[[f32; 2]]]) -> Vec<CurvePoint> {
    let end = CurvePoint { position: [HOLE; 2], series: NO_SERIES };
    let mut points = vec![end];
    let whole = |position: &[f32; 2]| position.iter().all(|coordinate| coordinate.is_finite());
    for (number, line) in (0..).zip(series) {
        let there = |at: Option<usize>| at.and_then(|at| line.get(at)).is_some_and(whole);
        for (at, position) in line.iter().enumerate() {
            let known = whole(position);
            let point = CurvePoint { position: if known { *position } else { [HOLE; 2] }, series: number };
            points.push(point);
            if known && !there(at.checked_sub(1)) && !there(Some(at + 1)) {
                points.push(point);
            }
        }
    }
    points.push(end);
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_between_end_marks_with_holes_marked() {
        let line = [[0.0, 1.0], [1.0, 1.0], [2.0, f32::NAN], [3.0, 4.0], [4.0, f32::INFINITY]];
        let points = gather(&[&line, &[], &[[5.0, 6.0]]]);
        let series: Vec<u32> = points.iter().map(|point| point.series).collect();
        assert_eq!(series, [NO_SERIES, 0, 0, 0, 0, 0, 0, 2, 2, NO_SERIES]);
        let positions: Vec<[f32; 2]> = points.iter().map(|point| point.position).collect();
        let hole = [HOLE; 2];
        assert_eq!(positions[1..7], [line[0], line[1], hole, line[3], line[3], hole]);
        assert_eq!(positions[7..9], [[5.0, 6.0]; 2]);
    }

    #[test]
    fn a_point_is_three_words() {
        assert_eq!(std::mem::size_of::<CurvePoint>(), 12);
        assert_eq!(ATTRIBUTES[3][1].offset, 8);
    }
}
