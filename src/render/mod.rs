//! Floor 1: drawing with wgpu. Input is numbers, boxes, pixels and colours; no widgets, no tensors.
//!
//! Each primitive is a long-lived `…Renderer` (pipelines and layouts, one per device and target format) and a `…Draw`
//! (buffers and uniform, one per view that shows it). `prepare` sends what changed, `paint` draws into an open pass.
//! Two views never share a `…Draw`, since all are prepared before any is painted.
//!
//! Colours are gamma-encoded numbers, blended premultiplied into `Rgba8Unorm` or `Bgra8Unorm` targets with one sample
//! and no depth buffer, as egui does. A view that reaches over the target's edge keeps its shape: `paint` sets the
//! whole target as viewport and cuts with the scissor rectangle.

mod bars;
mod box_style;
mod boxes;
mod colormap;
mod context;
mod curves;
mod error;
mod heatmap;
mod histogram;
mod image;
mod pipeline;
mod plot;
mod readback;
mod reduce;
mod scene;
mod shader;
mod tiles;
mod upload;
mod view;

pub use self::image::{ImageDraw, ImageFilter, ImageInput, ImageLook, ImageRenderer};
pub use bars::{BarDraw, BarInput, BarLook, BarRenderer, THRESHOLD_LIMIT, Threshold};
pub use box_style::{
    BoxAssignment, BoxColor, BoxFilter, BoxInstance, BoxLook, BoxStyle, CLASS_LIMIT, ClassMask, LineStyle, Outcome,
    Stages,
};
pub use boxes::{BoxDraw, BoxInput, BoxRenderer};
pub use colormap::{ColorMap, range_position};
pub use context::{Context, ErrorLog, Gpu};
pub use curves::{CurveDraw, CurveInput, CurveRenderer, CurveStyle, SERIES_LIMIT};
pub use error::RenderError;
pub use heatmap::{HeatmapDraw, HeatmapInput, HeatmapLook, HeatmapRenderer};
pub use histogram::{BIN_LIMIT, HistogramDraw, HistogramInput, HistogramLook, HistogramRenderer};
pub use plot::Plot;
pub use readback::{PICTURE_FORMAT, render_to_rgba};
pub use reduce::{ReduceDraw, ReduceInput, ReduceRenderer};
pub use scene::{BoxLayer, HeatLayer, Scene, SceneDraw};
pub use shader::{Assembled, ShaderLibrary, Twin};
pub use view::{MAX_ZOOM, MIN_ZOOM, Target, View, Viewport};

/// One renderer of each kind, and the shaders they were made from.
#[derive(Debug)]
pub struct Renderers {
    library: ShaderLibrary,
    pub image: ImageRenderer,
    pub boxes: BoxRenderer,
    pub heatmap: HeatmapRenderer,
    pub bars: BarRenderer,
    pub curves: CurveRenderer,
    pub histograms: HistogramRenderer,
    pub reduce: ReduceRenderer,
}

impl Renderers {
    /// For targets of `format`.
    ///
    /// # Errors
    /// [`RenderError::Format`] for a format that encodes colours itself; shaders or pipelines that the device refuses.
    pub fn new(gpu: &Gpu, format: wgpu::TextureFormat) -> Result<Self, RenderError> {
        Self::with_library(gpu, format, ShaderLibrary::default())
    }

    /// With shaders from elsewhere.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_library(gpu: &Gpu, format: wgpu::TextureFormat, library: ShaderLibrary) -> Result<Self, RenderError> {
        Ok(Self {
            image: ImageRenderer::new(gpu, &library, format)?,
            boxes: BoxRenderer::new(gpu, &library, format)?,
            heatmap: HeatmapRenderer::new(gpu, &library, format)?,
            bars: BarRenderer::new(gpu, &library, format)?,
            curves: CurveRenderer::new(gpu, &library, format)?,
            histograms: HistogramRenderer::new(gpu, &library)?,
            reduce: ReduceRenderer::new(gpu, &library)?,
            library,
        })
    }

    /// Builds pipelines anew when a shader file changed; true when one had. Cheap enough to call every frame.
    ///
    /// # Errors
    /// The first shader that does not compile; its renderer goes on with the last good pipeline, all others are new.
    pub fn reload(&mut self, gpu: &Gpu) -> Result<bool, RenderError> {
        if !self.library.changed() {
            return Ok(false);
        }
        let results = [
            self.image.reload(gpu, &self.library),
            self.boxes.reload(gpu, &self.library),
            self.heatmap.reload(gpu, &self.library),
            self.bars.reload(gpu, &self.library),
            self.curves.reload(gpu, &self.library),
            self.histograms.reload(gpu, &self.library),
            self.reduce.reload(gpu, &self.library),
        ];
        results.into_iter().collect::<Result<(), RenderError>>()?;
        Ok(true)
    }
}

/// Every uniform struct as Rust lays it out, to be compared with the shaders.
pub fn twins() -> Vec<Twin> {
    let mut twins = vec![view::ViewUniform::twin(), plot::PlotUniform::twin()];
    twins.extend(self::image::twins());
    twins.extend(boxes::twins());
    twins.extend(heatmap::twins());
    twins.extend(bars::twins());
    twins.extend(curves::twins());
    twins.extend(histogram::twins());
    twins.extend(reduce::twins());
    twins
}
