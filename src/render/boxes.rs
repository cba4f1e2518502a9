//! Many rectangles at once (a million is fine): outlines of constant width on the screen, filtered by uniforms.
//!
//! Each box is one instance of a strip of ten vertices round its outline, so only the line's pixels are touched. Boxes at
//! several stages lie in one buffer: it is bound twice, from one stage on and from the next, and a uniform moves between.

use super::box_style::{BoxFilter, BoxInstance, BoxLook, BoxStyle, CLASS_LIMIT, Stages};
use super::context::Gpu;
use super::error::RenderError;
use super::pipeline::{self, Recipe};
use super::shader::{ShaderLibrary, Twin, describe_twin};
use super::upload::{Uniform, VertexArray};
use super::view::{Placement, Target, View, ViewUniform};

/// Outer and inner corner in turn, back to the first.
const OUTLINE_VERTICES: u32 = 10;
/// Stands for "no class" in the uniform.
const NONE: u32 = u32::MAX;

const ATTRIBUTES: [wgpu::VertexAttribute; 5] =
    wgpu::vertex_attr_array![0 => Float32x4, 1 => Float32, 2 => Uint32, 3 => Uint32, 4 => Uint32];
/// Corners and score of the same box at the next stage.
const NEXT_ATTRIBUTES: [wgpu::VertexAttribute; 2] = wgpu::vertex_attr_array![5 => Float32x4, 6 => Float32];

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
    line_width: f32,
    opacity: f32,
    fill_opacity: f32,
    way: f32,
    padding: u32,
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
                line_width,
                opacity,
                fill_opacity,
                way
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
    still: Strokes,
    /// Between two stages.
    moving: Strokes,
}

#[derive(Debug)]
struct Strokes {
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
        let instances = |attributes: &'static [wgpu::VertexAttribute]| {
            Some(wgpu::VertexBufferLayout {
                array_stride: std::mem::size_of::<BoxInstance>() as u64,
                step_mode: wgpu::VertexStepMode::Instance,
                attributes,
            })
        };
        let (one, two) = ([instances(&ATTRIBUTES)], [instances(&ATTRIBUTES), instances(&NEXT_ATTRIBUTES)]);
        let build = |label: &str, vertex: &str, buffers: &[Option<wgpu::VertexBufferLayout<'static>>]| {
            let recipe = Recipe { label, vertex, fragment: "fs_box", layouts: &[layout], buffers, format };
            pipeline::build(device, &module, &recipe)
        };
        Ok(Self {
            still: Strokes {
                plain: build("boxes", "vs_box", &one)?,
                hovered: build("hovered box", "vs_hovered", &one)?,
                selected: build("selected box", "vs_selected", &one)?,
            },
            moving: Strokes {
                plain: build("moving boxes", "vs_box_moving", &two)?,
                hovered: build("hovered moving box", "vs_hovered_moving", &two)?,
                selected: build("selected moving box", "vs_selected_moving", &two)?,
            },
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
    stages: Option<Stages>,
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
            stages: None,
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
            line_width: look.line_width.max(0.0),
            opacity: look.opacity.clamp(0.0, 1.0),
            fill_opacity: look.fill_opacity.clamp(0.0, 1.0),
            way: look.stages.and_then(|stages| stages.around(self.boxes.count())).map_or(0.0, |(_, _, way)| way),
            padding: 0,
        };
        self.uniform_uploads += u64::from(self.uniform.set(&gpu.queue, uniform));
        self.stages = look.stages;
        self.hovered = look.hovered;
        self.selected = look.selected;
        self.placement = Placement::new(&view.viewport, target);
        Ok(())
    }

    /// Draws what was prepared.
    pub fn paint(&self, renderer: &BoxRenderer, pass: &mut wgpu::RenderPass<'_>) {
        let count = self.boxes.count();
        // Where the stages before and after begin, and how many boxes one has.
        let (before, after, each) = match self.stages {
            None => (0, None, count),
            Some(stages) => match stages.around(count) {
                Some((before, after, _)) => (before, Some(after), stages.each),
                None => return,
            },
        };
        if each == 0 || !self.placement.enter(pass) {
            return;
        }
        let pipelines = if after.is_some() { &renderer.pipelines.moving } else { &renderer.pipelines.still };
        pass.set_bind_group(0, &self.group, &[]);
        // Buffers are bound from the first box on, since not every device counts instances from elsewhere than 0.
        let mut draw = |pipeline: &wgpu::RenderPipeline, first: u32, count: u32| {
            let Some(own) = self.boxes.slice_from(before + first) else { return };
            pass.set_pipeline(pipeline);
            pass.set_vertex_buffer(0, own);
            if let Some(next) = after.and_then(|after| self.boxes.slice_from(after + first)) {
                pass.set_vertex_buffer(1, next);
            }
            pass.draw(0..OUTLINE_VERTICES, 0..count);
        };
        draw(&pipelines.plain, 0, each);
        for (pipeline, index) in [(&pipelines.hovered, self.hovered), (&pipelines.selected, self.selected)] {
            if let Some(index) = index.filter(|index| *index < each) {
                draw(pipeline, index, 1);
            }
        }
    }
}
