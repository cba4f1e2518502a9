//! Many rectangles at once (a million is fine): outlines of constant width on the screen, filtered by uniforms.
//!
//! Each box is one instance of a strip of ten vertices round its outline, so only the line's pixels are touched.

use super::box_style::{BoxFilter, BoxInstance, BoxLook, BoxStyle, CLASS_LIMIT};
use super::context::Gpu;
use super::error::RenderError;
use super::pipeline::{self, Recipe};
use super::shader::{ShaderLibrary, Twin, describe_twin};
use super::upload::{Uniform, VertexArray};
use super::view::{Placement, Target, View, ViewUniform};

/// Outer and inner corner in turn, back to the first.
const OUTLINE_VERTICES: u32 = 10;
/// Stands for "no class" and "no box" in the uniform.
const NONE: u32 = u32::MAX;

const ATTRIBUTES: [wgpu::VertexAttribute; 5] =
    wgpu::vertex_attr_array![0 => Float32x4, 1 => Float32, 2 => Uint32, 3 => Uint32, 4 => Uint32];

/// Twin of `BoxUniform` in `shaders/boxes.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct BoxUniform {
    view: ViewUniform,
    class_mask: [[u32; 4]; 4],
    score_min: f32,
    score_max: f32,
    isolated_class: u32,
    level_mask: u32,
    outcome_mask: u32,
    assignment_mask: u32,
    color_mode: u32,
    selected: u32,
    hovered: u32,
    line_width: f32,
    opacity: f32,
    fill_opacity: f32,
}

/// Twin of `PaletteUniform` in `shaders/boxes.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct PaletteUniform {
    classes: [[f32; 4]; CLASS_LIMIT],
    outcomes: [[f32; 4]; 8],
    assignments: [[f32; 4]; 8],
    levels: [[f32; 4]; 8],
    class_count: u32,
    padding: [u32; 3],
}

impl PaletteUniform {
    fn new(style: &BoxStyle) -> Self {
        let mut classes = [[1.0; 4]; CLASS_LIMIT];
        for (slot, color) in classes.iter_mut().zip(&style.class_colors) {
            *slot = *color;
        }
        Self {
            classes,
            outcomes: style.outcome_colors,
            assignments: style.assignment_colors,
            levels: style.level_colors,
            class_count: style.class_colors.len().clamp(1, CLASS_LIMIT) as u32,
            padding: [0; 3],
        }
    }
}

pub(super) fn twins() -> Vec<Twin> {
    vec![
        describe_twin!(
            BoxUniform,
            "boxes.wgsl",
            "BoxUniform",
            [
                view,
                class_mask,
                score_min,
                score_max,
                isolated_class,
                level_mask,
                outcome_mask,
                assignment_mask,
                color_mode,
                selected,
                hovered,
                line_width,
                opacity,
                fill_opacity
            ]
        ),
        describe_twin!(
            PaletteUniform,
            "boxes.wgsl",
            "PaletteUniform",
            [classes, outcomes, assignments, levels, class_count]
        ),
    ]
}

/// Pipelines and layout for rectangles.
#[derive(Debug)]
pub struct BoxRenderer {
    pipelines: Pipelines,
    layout: wgpu::BindGroupLayout,
    format: wgpu::TextureFormat,
}

#[derive(Debug)]
struct Pipelines {
    plain: wgpu::RenderPipeline,
    hovered: wgpu::RenderPipeline,
    selected: wgpu::RenderPipeline,
}

impl Pipelines {
    fn new(
        device: &wgpu::Device,
        library: &ShaderLibrary,
        format: wgpu::TextureFormat,
        layout: &wgpu::BindGroupLayout,
    ) -> Result<Self, RenderError> {
        let module = library.compile(device, "boxes.wgsl")?;
        let build = |label: &str, vertex: &str| {
            let buffer = wgpu::VertexBufferLayout {
                array_stride: std::mem::size_of::<BoxInstance>() as u64,
                step_mode: wgpu::VertexStepMode::Instance,
                attributes: &ATTRIBUTES,
            };
            let recipe =
                Recipe { label, vertex, fragment: "fs_box", layouts: &[layout], buffers: &[Some(buffer)], format };
            pipeline::build(device, &module, &recipe)
        };
        Ok(Self {
            plain: build("boxes", "vs_box")?,
            hovered: build("hovered box", "vs_hovered")?,
            selected: build("selected box", "vs_selected")?,
        })
    }
}

impl BoxRenderer {
    /// # Errors
    /// A shader or pipeline that the device refuses; a target format that encodes colours itself.
    pub fn new(gpu: &Gpu, library: &ShaderLibrary, format: wgpu::TextureFormat) -> Result<Self, RenderError> {
        pipeline::check_format(format)?;
        let layout = pipeline::group_layout(
            &gpu.device,
            "boxes",
            &[pipeline::uniform_entry::<BoxUniform>(0), pipeline::uniform_entry::<PaletteUniform>(1)],
        );
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

/// What to draw.
#[derive(Clone, Copy, Debug)]
pub struct BoxInput<'a> {
    /// Boxes are sent to the device when this differs from the last call's.
    pub version: u64,
    /// Later ones are drawn over earlier ones: sort by score, lowest first.
    pub boxes: &'a [BoxInstance],
    pub style: &'a BoxStyle,
}

/// One array of rectangles in one view.
#[derive(Debug)]
pub struct BoxDraw {
    uniform: Uniform<BoxUniform>,
    palette: Uniform<PaletteUniform>,
    style: Option<BoxStyle>,
    group: wgpu::BindGroup,
    boxes: VertexArray<BoxInstance>,
    hovered: Option<u32>,
    selected: Option<u32>,
    placement: Placement,
    /// How often boxes or colours were sent.
    pub uploads: u64,
    /// How often the uniform of view, filter and look was sent.
    pub uniform_uploads: u64,
}

impl BoxDraw {
    pub fn new(renderer: &BoxRenderer, gpu: &Gpu) -> Self {
        let uniform = Uniform::new(&gpu.device, "boxes");
        let palette = Uniform::new(&gpu.device, "box colours");
        let group = pipeline::group(&gpu.device, "boxes", &renderer.layout, &[uniform.binding(), palette.binding()]);
        Self {
            uniform,
            palette,
            style: None,
            group,
            boxes: VertexArray::new("boxes"),
            hovered: None,
            selected: None,
            placement: Placement::default(),
            uploads: 0,
            uniform_uploads: 0,
        }
    }

    /// Sends what changed since the last call.
    ///
    /// # Errors
    /// [`RenderError::TooLarge`] when the boxes do not fit into one buffer; then the last ones stay.
    pub fn prepare(
        &mut self,
        gpu: &Gpu,
        input: &BoxInput<'_>,
        filter: &BoxFilter,
        look: &BoxLook,
        view: &View,
        target: &Target,
    ) -> Result<(), RenderError> {
        self.uploads += u64::from(self.boxes.set(gpu, input.version, input.boxes)?);
        if self.style.as_ref() != Some(input.style) {
            self.uploads += u64::from(self.palette.set(&gpu.queue, PaletteUniform::new(input.style)));
            self.style = Some(input.style.clone());
        }
        let uniform = BoxUniform {
            view: ViewUniform::new(view, target),
            class_mask: filter.classes.vectors(),
            score_min: filter.score_min,
            score_max: filter.score_max,
            isolated_class: filter.isolated_class.unwrap_or(NONE),
            level_mask: filter.levels,
            outcome_mask: filter.outcomes,
            assignment_mask: filter.assignments,
            color_mode: look.color as u32,
            selected: look.selected.unwrap_or(NONE),
            hovered: look.hovered.unwrap_or(NONE),
            line_width: look.line_width.max(0.0),
            opacity: look.opacity.clamp(0.0, 1.0),
            fill_opacity: look.fill_opacity.clamp(0.0, 1.0),
        };
        self.uniform_uploads += u64::from(self.uniform.set(&gpu.queue, uniform));
        self.hovered = look.hovered;
        self.selected = look.selected;
        self.placement = Placement::new(&view.viewport, target);
        Ok(())
    }

    /// Draws what was prepared.
    pub fn paint(&self, renderer: &BoxRenderer, pass: &mut wgpu::RenderPass<'_>) {
        let Some(all) = self.boxes.slice_from(0) else { return };
        if !self.placement.enter(pass) {
            return;
        }
        pass.set_bind_group(0, &self.group, &[]);
        pass.set_pipeline(&renderer.pipelines.plain);
        pass.set_vertex_buffer(0, all);
        pass.draw(0..OUTLINE_VERTICES, 0..self.boxes.count());
        let over = [(&renderer.pipelines.hovered, self.hovered), (&renderer.pipelines.selected, self.selected)];
        for (pipeline, index) in over {
            // The buffer is bound from this box on, since not every device counts instances from elsewhere than 0.
            if let Some(one) = index.and_then(|index| self.boxes.slice_from(index)) {
                pass.set_pipeline(pipeline);
                pass.set_vertex_buffer(0, one);
                pass.draw(0..OUTLINE_VERTICES, 0..1);
            }
        }
    }
}
