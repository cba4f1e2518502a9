//! A picture on the screen, with pan, zoom, and a pixel grid when zoomed in.
//!
//! A picture of more than 4096 pixels on a side is cut into tiles, so no picture is too large for the device's
//! textures and nothing is scaled down. Shrunk, it is averaged over what a screen pixel covers, exactly down to 1:8.

use super::context::Gpu;
use super::error::RenderError;
use super::pipeline::{self, Recipe};
use super::shader::{ShaderLibrary, Twin, describe_twin};
use super::tiles::{TileArea, split};
use super::upload::Uniform;
use super::view::{Placement, Target, View, ViewUniform};

/// Longest side of a tile's texture: within every device's limit, and 64 MiB to allocate at a time.
const TILE_SIDE: u32 = 4096;
/// The pixel grid appears at this zoom and has its full strength at twice that.
const GRID_ZOOM: f32 = 12.0;
/// [`ImageFilter::Auto`] shows squares from this zoom on.
const NEAREST_ZOOM: f32 = 2.0;

/// Pixels to show, `[height, width, 4]`: red, green, blue, alpha (not premultiplied), gamma-encoded.
#[derive(Clone, Copy, Debug)]
pub struct ImageInput<'a> {
    /// Pixels are sent to the device when this differs from the last call's.
    pub version: u64,
    pub width: u32,
    pub height: u32,
    pub pixels: &'a [u8],
}

/// How pixels become screen pixels when enlarged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageFilter {
    /// Blended below 200 %, squares from there on.
    #[default]
    Auto,
    Nearest,
    Linear,
}

/// How the picture looks. Changing it sends one uniform.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImageLook {
    pub filter: ImageFilter,
    /// 0 to 1.
    pub opacity: f32,
    /// Strength of the pixel grid from 0 (off) to 1.
    pub grid: f32,
}

impl Default for ImageLook {
    fn default() -> Self {
        Self { filter: ImageFilter::Auto, opacity: 1.0, grid: 0.5 }
    }
}

/// Twin of `ImageUniform` in `shaders/image.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct ImageUniform {
    view: ViewUniform,
    opacity: f32,
    nearest: u32,
    grid: f32,
    padding: f32,
}

/// Twin of `TileUniform` in `shaders/image.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct TileUniform {
    bounds: [f32; 4],
    texels: [f32; 4],
}

pub(super) fn twins() -> Vec<Twin> {
    vec![
        describe_twin!(ImageUniform, "image.wgsl", "ImageUniform", [view, opacity, nearest, grid]),
        describe_twin!(TileUniform, "image.wgsl", "TileUniform", [bounds, texels]),
    ]
}

/// Pipeline and layouts for pictures.
#[derive(Debug)]
pub struct ImageRenderer {
    pipeline: wgpu::RenderPipeline,
    picture_layout: wgpu::BindGroupLayout,
    tile_layout: wgpu::BindGroupLayout,
    sampler: wgpu::Sampler,
    format: wgpu::TextureFormat,
    tile_side: u32,
}

impl ImageRenderer {
    /// # Errors
    /// A shader or pipeline that the device refuses; a target format that encodes colours itself.
    pub fn new(gpu: &Gpu, library: &ShaderLibrary, format: wgpu::TextureFormat) -> Result<Self, RenderError> {
        pipeline::check_format(format)?;
        let device = &gpu.device;
        let picture_layout = pipeline::group_layout(
            device,
            "image",
            &[pipeline::uniform_entry::<ImageUniform>(0), pipeline::sampler_entry(1)],
        );
        let tile_layout = pipeline::group_layout(
            device,
            "image tile",
            &[pipeline::uniform_entry::<TileUniform>(0), pipeline::texture_entry(1, true)],
        );
        let sampler = device.create_sampler(&wgpu::SamplerDescriptor {
            label: Some("image"),
            mag_filter: wgpu::FilterMode::Linear,
            min_filter: wgpu::FilterMode::Linear,
            ..Default::default()
        });
        let pipeline = build(device, library, format, &picture_layout, &tile_layout)?;
        let tile_side = device.limits().max_texture_dimension_2d.min(TILE_SIDE);
        Ok(Self { pipeline, picture_layout, tile_layout, sampler, format, tile_side })
    }

    /// Compiles the shaders again.
    ///
    /// # Errors
    /// As [`new`](Self::new); the pipeline stays as it was.
    pub fn reload(&mut self, gpu: &Gpu, library: &ShaderLibrary) -> Result<(), RenderError> {
        self.pipeline = build(&gpu.device, library, self.format, &self.picture_layout, &self.tile_layout)?;
        Ok(())
    }

    /// Makes tiles smaller (3 texels at least), for pictures that come after this call.
    pub fn set_tile_side(&mut self, side: u32) {
        self.tile_side = side.max(3).min(self.tile_side);
    }
}

fn build(
    device: &wgpu::Device,
    library: &ShaderLibrary,
    format: wgpu::TextureFormat,
    picture_layout: &wgpu::BindGroupLayout,
    tile_layout: &wgpu::BindGroupLayout,
) -> Result<wgpu::RenderPipeline, RenderError> {
    let module = library.compile(device, "image.wgsl")?;
    pipeline::build(
        device,
        &module,
        &Recipe {
            label: "image",
            vertex: "vs_tile",
            fragment: "fs_tile",
            layouts: &[picture_layout, tile_layout],
            buffers: &[],
            format,
        },
    )
}

#[derive(Debug)]
struct Tile {
    area: TileArea,
    texture: wgpu::Texture,
    group: wgpu::BindGroup,
}

/// One picture in one view.
#[derive(Debug)]
pub struct ImageDraw {
    uniform: Uniform<ImageUniform>,
    group: wgpu::BindGroup,
    tiles: Vec<Tile>,
    size: [u32; 2],
    version: Option<u64>,
    placement: Placement,
    /// How often pixels were sent.
    pub uploads: u64,
    /// How often the uniform was sent.
    pub uniform_uploads: u64,
}

impl ImageDraw {
    pub fn new(renderer: &ImageRenderer, gpu: &Gpu) -> Self {
        let uniform = Uniform::new(&gpu.device, "image");
        let group = pipeline::group(
            &gpu.device,
            "image",
            &renderer.picture_layout,
            &[uniform.binding(), wgpu::BindingResource::Sampler(&renderer.sampler)],
        );
        Self {
            uniform,
            group,
            tiles: Vec::new(),
            size: [0, 0],
            version: None,
            placement: Placement::default(),
            uploads: 0,
            uniform_uploads: 0,
        }
    }

    /// Sends what changed since the last call.
    ///
    /// # Errors
    /// [`RenderError::Length`] when `pixels` is not `width · height · 4` long, [`RenderError::Size`] when a side is 0.
    /// Then the last picture stays.
    pub fn prepare(
        &mut self,
        renderer: &ImageRenderer,
        gpu: &Gpu,
        image: &ImageInput<'_>,
        look: &ImageLook,
        view: &View,
        target: &Target,
    ) -> Result<(), RenderError> {
        if self.version != Some(image.version) {
            self.upload(renderer, gpu, image)?;
            self.version = Some(image.version);
            self.uploads += 1;
        }
        let nearest = match look.filter {
            ImageFilter::Auto => view.zoom >= NEAREST_ZOOM,
            ImageFilter::Nearest => true,
            ImageFilter::Linear => false,
        };
        let uniform = ImageUniform {
            view: ViewUniform::new(view, target),
            opacity: look.opacity.clamp(0.0, 1.0),
            nearest: u32::from(nearest),
            grid: look.grid * grid_strength(view.zoom),
            padding: 0.0,
        };
        self.uniform_uploads += u64::from(self.uniform.set(&gpu.queue, uniform));
        self.placement = Placement::new(&view.viewport, target);
        Ok(())
    }

    fn upload(&mut self, renderer: &ImageRenderer, gpu: &Gpu, image: &ImageInput<'_>) -> Result<(), RenderError> {
        const WHAT: &str = "picture";
        let (width, height) = (image.width, image.height);
        let expected = u64::from(width).saturating_mul(u64::from(height)).saturating_mul(4);
        if image.pixels.len() as u64 != expected {
            return Err(RenderError::Length { what: WHAT, width, height, expected, found: image.pixels.len() as u64 });
        }
        // A row's length in bytes is a 32-bit number.
        let limit = u32::MAX / 4;
        if width == 0 || height == 0 || width > limit {
            return Err(RenderError::Size { what: WHAT, width, height, limit });
        }
        if self.size != [width, height] || self.tiles.is_empty() {
            let areas = split(width, height, renderer.tile_side);
            let tiles: Result<Vec<Tile>, RenderError> =
                areas.into_iter().map(|area| new_tile(renderer, gpu, area)).collect();
            self.tiles = tiles?;
            self.size = [width, height];
        }
        for Tile { area: TileArea { columns, rows }, texture, .. } in &self.tiles {
            let first = (u64::from(rows.texels_start) * u64::from(width) + u64::from(columns.texels_start)) * 4;
            gpu.queue.write_texture(
                texture.as_image_copy(),
                image.pixels,
                wgpu::TexelCopyBufferLayout { offset: first, bytes_per_row: Some(4 * width), rows_per_image: None },
                texture.size(),
            );
        }
        Ok(())
    }

    /// Draws what was prepared.
    pub fn paint(&self, renderer: &ImageRenderer, pass: &mut wgpu::RenderPass<'_>) {
        if self.tiles.is_empty() || !self.placement.enter(pass) {
            return;
        }
        pass.set_pipeline(&renderer.pipeline);
        pass.set_bind_group(0, &self.group, &[]);
        for tile in &self.tiles {
            pass.set_bind_group(1, &tile.group, &[]);
            pass.draw(0..4, 0..1);
        }
    }
}

fn new_tile(renderer: &ImageRenderer, gpu: &Gpu, area: TileArea) -> Result<Tile, RenderError> {
    let TileArea { columns, rows } = area;
    let (width, height) = (columns.texels_end - columns.texels_start, rows.texels_end - rows.texels_start);
    let texture = pipeline::data_texture(&gpu.device, "picture", width, height, wgpu::TextureFormat::Rgba8Unorm)?;
    let mut uniform = Uniform::new(&gpu.device, "image tile");
    uniform.set(
        &gpu.queue,
        TileUniform {
            bounds: [columns.start as f32, rows.start as f32, columns.end as f32, rows.end as f32],
            texels: [columns.texels_start as f32, rows.texels_start as f32, width as f32, height as f32],
        },
    );
    let view = texture.create_view(&wgpu::TextureViewDescriptor::default());
    let group = pipeline::group(
        &gpu.device,
        "image tile",
        &renderer.tile_layout,
        &[uniform.binding(), wgpu::BindingResource::TextureView(&view)],
    );
    Ok(Tile { area, texture, group })
}

/// 0 below the zoom at which the grid appears, 1 from twice that on.
fn grid_strength(zoom: f32) -> f32 {
    if zoom < GRID_ZOOM { 0.0 } else { (zoom / GRID_ZOOM - 0.5).clamp(0.5, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_appears_at_its_zoom_and_grows() {
        assert_eq!(grid_strength(11.9), 0.0);
        assert_eq!(grid_strength(12.0), 0.5);
        assert_eq!(grid_strength(15.0), 0.75);
        assert_eq!(grid_strength(200.0), 1.0);
    }
}
