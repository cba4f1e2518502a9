//! Histograms that the device counts: numbers go up once; range, bins and the group that counts are uniforms.
//!
//! The bars are drawn from the buffer that the counts lie in; nothing is read back.

use super::bars::{BarDraw, BarLook, BarRenderer};
use super::context::Gpu;
use super::error::RenderError;
use super::pipeline;
use super::plot::Plot;
use super::shader::{ShaderLibrary, Twin, describe_twin};
use super::upload::Uniform;
use super::view::{Target, Viewport};

/// Bins that one histogram can have.
pub const BIN_LIMIT: u32 = 256;

/// Stands for all groups; as in the shader.
const ANY: u32 = u32::MAX;
/// Invocations of a workgroup, as in the shader, and most workgroups: each takes several numbers when there are more.
const GROUP_SIZE: u32 = 64;
const MOST_GROUPS: u32 = 1024;
/// The highest bar ends a little below the top.
const TOP: f32 = 1.04;
const BIN_BYTES: u64 = 4 * BIN_LIMIT as u64;

/// Numbers to count.
#[derive(Clone, Copy, Debug)]
pub struct HistogramInput<'a> {
    /// Numbers are sent to the device when this differs from the last call's.
    pub version: u64,
    /// NaN and infinities are in no bin.
    pub values: &'a [f32],
    /// The class, level or stage of each number, below `u32::MAX`.
    pub groups: &'a [u32],
}

/// What is counted and how it looks. Changing it sends uniforms alone.
#[derive(Clone, Debug, PartialEq)]
pub struct HistogramLook {
    /// Ends of the first and the last bin; a number on the last end is in the last bin.
    pub low: f32,
    pub high: f32,
    /// 1 to [`BIN_LIMIT`].
    pub bins: u32,
    /// The group that counts; all without one.
    pub group: Option<u32>,
    /// Edges and widths of the bars come from the bins.
    pub bars: BarLook,
}

/// Twin of `HistogramUniform` in `shaders/histogram.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct HistogramUniform {
    low: f32,
    high: f32,
    bins: u32,
    group: u32,
    count: u32,
    padding: [u32; 3],
}

/// Twin of `Sample` in `shaders/histogram.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Sample {
    value: f32,
    group: u32,
}

pub(super) fn twins() -> Vec<Twin> {
    vec![describe_twin!(HistogramUniform, "histogram.wgsl", "HistogramUniform", [low, high, bins, group, count])]
}

/// Pipelines and layout for counting, on a device that can.
#[derive(Debug)]
pub struct HistogramRenderer {
    counting: Option<Counting>,
}

#[derive(Debug)]
struct Counting {
    layout: wgpu::BindGroupLayout,
    count: wgpu::ComputePipeline,
    heights: wgpu::ComputePipeline,
}

impl Counting {
    fn new(gpu: &Gpu, library: &ShaderLibrary) -> Result<Self, RenderError> {
        let storage = |read_only| wgpu::BufferBindingType::Storage { read_only };
        let entries = [
            pipeline::compute_entry(0, wgpu::BufferBindingType::Uniform),
            pipeline::compute_entry(1, storage(true)),
            pipeline::compute_entry(2, storage(false)),
            pipeline::compute_entry(3, storage(false)),
        ];
        let layout = pipeline::group_layout(&gpu.device, "histogram", &entries);
        let module = library.compile(&gpu.device, "histogram.wgsl")?;
        let build = |entry: &str| pipeline::build_compute(&gpu.device, &module, entry, &layout);
        let (count, heights) = (build("cs_count")?, build("cs_heights")?);
        Ok(Self { layout, count, heights })
    }
}

impl HistogramRenderer {
    /// # Errors
    /// A shader or pipeline that the device refuses. One without compute shaders is no error: see
    /// [`is_available`](Self::is_available).
    pub fn new(gpu: &Gpu, library: &ShaderLibrary) -> Result<Self, RenderError> {
        let able = pipeline::computes(&gpu.device);
        Ok(Self { counting: able.then(|| Counting::new(gpu, library)).transpose()? })
    }

    /// Whether the device counts. Where it does not, draws show nothing.
    pub fn is_available(&self) -> bool {
        self.counting.is_some()
    }

    /// Compiles the shaders again.
    ///
    /// # Errors
    /// As [`new`](Self::new); the pipelines stay as they were.
    pub fn reload(&mut self, gpu: &Gpu, library: &ShaderLibrary) -> Result<(), RenderError> {
        if self.counting.is_some() {
            self.counting = Some(Counting::new(gpu, library)?);
        }
        Ok(())
    }
}

/// One set of numbers, and the histograms of it that are on show.
#[derive(Debug, Default)]
pub struct HistogramDraw {
    samples: Option<Samples>,
    version: Option<u64>,
    views: Vec<View>,
    /// How often numbers were sent.
    pub uploads: u64,
    /// How often uniforms of counting were sent: as often was counted.
    pub uniform_uploads: u64,
}

#[derive(Debug)]
struct Samples {
    buffer: wgpu::Buffer,
    count: u32,
}

/// One histogram. All are prepared before any is painted, so each has its own bins.
#[derive(Debug)]
struct View {
    uniform: Uniform<HistogramUniform>,
    group: wgpu::BindGroup,
    counts: wgpu::Buffer,
    heights: wgpu::Buffer,
    bins: u32,
    bars: BarDraw,
}

impl View {
    fn new(counting: &Counting, bars: &BarRenderer, gpu: &Gpu, samples: &wgpu::Buffer) -> Self {
        let storage = |label: &str, usage: wgpu::BufferUsages| {
            gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: BIN_BYTES,
                usage: wgpu::BufferUsages::STORAGE | usage,
                mapped_at_creation: false,
            })
        };
        let uniform = Uniform::new(&gpu.device, "histogram");
        let counts = storage("counts of bins", wgpu::BufferUsages::COPY_DST);
        let heights = storage("heights of bins", wgpu::BufferUsages::VERTEX);
        let resources =
            [uniform.binding(), samples.as_entire_binding(), counts.as_entire_binding(), heights.as_entire_binding()];
        let group = pipeline::group(&gpu.device, "histogram", &counting.layout, &resources);
        Self { uniform, group, counts, heights, bins: 0, bars: BarDraw::new(bars, gpu) }
    }

    fn count(&self, counting: &Counting, gpu: &Gpu, samples: u32) {
        let descriptor = wgpu::CommandEncoderDescriptor { label: Some("histogram") };
        let mut encoder = gpu.device.create_command_encoder(&descriptor);
        encoder.clear_buffer(&self.counts, 0, None);
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_bind_group(0, &self.group, &[]);
        pass.set_pipeline(&counting.count);
        pass.dispatch_workgroups(samples.div_ceil(GROUP_SIZE).clamp(1, MOST_GROUPS), 1, 1);
        pass.set_pipeline(&counting.heights);
        pass.dispatch_workgroups(1, 1, 1);
        drop(pass);
        gpu.queue.submit([encoder.finish()]);
    }
}

impl HistogramDraw {
    /// Sends what changed since the last call, and counts where something did. `view` numbers the histogram among those
    /// of these numbers, from 0; `area` is where it stands. Nothing happens on a device that does not compute.
    ///
    /// # Errors
    /// [`RenderError::TooLarge`] when the numbers do not fit into one buffer, [`RenderError::TooMany`] for too many
    /// bins or thresholds. Then what was prepared last stays.
    pub fn prepare(
        &mut self,
        renderer: &HistogramRenderer,
        bars: &BarRenderer,
        gpu: &Gpu,
        view: usize,
        input: &HistogramInput<'_>,
        look: &HistogramLook,
        area: Viewport,
        target: &Target,
    ) -> Result<(), RenderError> {
        let Some(counting) = &renderer.counting else { return Ok(()) };
        if look.bins > BIN_LIMIT {
            return Err(RenderError::TooMany { what: "bins", count: look.bins as usize, limit: BIN_LIMIT as usize });
        }
        if self.version != Some(input.version) {
            self.samples = Some(send(gpu, input)?);
            self.version = Some(input.version);
            self.uploads += 1;
            // They name the numbers of before.
            self.views.clear();
        }
        let Some(samples) = &self.samples else { return Ok(()) };
        while self.views.len() <= view {
            self.views.push(View::new(counting, bars, gpu, &samples.buffer));
        }
        let Some(shown) = self.views.get_mut(view) else { return Ok(()) };
        shown.bins = look.bins.max(1);
        let uniform = HistogramUniform {
            low: look.low,
            high: look.high,
            bins: shown.bins,
            group: look.group.unwrap_or(ANY),
            count: samples.count,
            padding: [0; 3],
        };
        if shown.uniform.set(&gpu.queue, uniform) {
            self.uniform_uploads += 1;
            shown.count(counting, gpu, samples.count);
        }
        let bin_width = (look.high - look.low) / shown.bins as f32;
        let bars = BarLook { first_edge: look.low, bin_width, ..look.bars.clone() };
        let plot = Plot { area, x_range: [look.low, look.high], y_range: [0.0, TOP], log_y: false };
        shown.bars.place(gpu, &bars, &plot, target)
    }

    /// Draws the histogram of this number as it was prepared.
    pub fn paint(&self, bars: &BarRenderer, view: usize, pass: &mut wgpu::RenderPass<'_>) {
        if let Some(shown) = self.views.get(view) {
            let heights = shown.heights.slice(..4 * u64::from(shown.bins));
            shown.bars.paint_heights(bars, pass, Some(heights), shown.bins);
        }
    }
}

fn send(gpu: &Gpu, input: &HistogramInput<'_>) -> Result<Samples, RenderError> {
    let samples = gather(input);
    let bytes = std::mem::size_of_val(samples.as_slice()) as u64;
    let limit = pipeline::most_storage(&gpu.device);
    let count = match u32::try_from(samples.len()) {
        Ok(count) if bytes <= limit => count,
        _ => return Err(RenderError::TooLarge { what: "numbers of a histogram", bytes, limit }),
    };
    let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("numbers of a histogram"),
        // A buffer of nothing cannot be bound.
        size: bytes.max(std::mem::size_of::<Sample>() as u64),
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    if count > 0 {
        gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&samples));
    }
    Ok(Samples { buffer, count })
}

/// The numbers that can be in a bin: shaders may not rely on NaN or infinities.
fn gather(input: &HistogramInput<'_>) -> Vec<Sample> {
    let pairs = input.values.iter().zip(input.groups);
    pairs.filter(|(value, _)| value.is_finite()).map(|(&value, &group)| Sample { value, group }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_are_sent_each_with_its_group() {
        let values = [0.5, f32::NAN, f32::INFINITY, 0.25];
        let input = HistogramInput { version: 1, values: &values, groups: &[3, 4, 5, 6] };
        assert_eq!(gather(&input), [Sample { value: 0.5, group: 3 }, Sample { value: 0.25, group: 6 }]);
    }
}
