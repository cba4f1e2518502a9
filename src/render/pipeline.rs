//! What all pipelines here share: triangle strips, premultiplied blending, one sample, no depth; errors as values.

use super::context::wait_for;
use super::error::RenderError;

/// What differs between pipelines.
pub(super) struct Recipe<'a> {
    pub label: &'a str,
    pub vertex: &'a str,
    pub fragment: &'a str,
    pub layouts: &'a [&'a wgpu::BindGroupLayout],
    pub buffers: &'a [Option<wgpu::VertexBufferLayout<'a>>],
    pub format: wgpu::TextureFormat,
}

/// Builds a pipeline.
///
/// # Errors
/// [`RenderError::Device`] with the device's words when shader, layouts and buffers do not fit together.
pub(super) fn build(
    device: &wgpu::Device,
    module: &wgpu::ShaderModule,
    recipe: &Recipe<'_>,
) -> Result<wgpu::RenderPipeline, RenderError> {
    let layouts: Vec<Option<&wgpu::BindGroupLayout>> = recipe.layouts.iter().map(|&layout| Some(layout)).collect();
    let targets = [Some(wgpu::ColorTargetState {
        format: recipe.format,
        blend: Some(wgpu::BlendState::PREMULTIPLIED_ALPHA_BLENDING),
        write_mask: wgpu::ColorWrites::ALL,
    })];
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(recipe.label),
        bind_group_layouts: &layouts,
        immediate_size: 0,
    });
    let pipeline = device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
        label: Some(recipe.label),
        layout: Some(&layout),
        vertex: wgpu::VertexState {
            module,
            entry_point: Some(recipe.vertex),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            buffers: recipe.buffers,
        },
        primitive: wgpu::PrimitiveState {
            topology: wgpu::PrimitiveTopology::TriangleStrip,
            ..wgpu::PrimitiveState::default()
        },
        depth_stencil: None,
        multisample: wgpu::MultisampleState::default(),
        fragment: Some(wgpu::FragmentState {
            module,
            entry_point: Some(recipe.fragment),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            targets: &targets,
        }),
        multiview_mask: None,
        cache: None,
    });
    match wait_for(scope.pop()) {
        None => Ok(pipeline),
        Some(error) => {
            Err(RenderError::Device { what: format!("the pipeline \"{}\"", recipe.label), message: error.to_string() })
        }
    }
}

/// Builds a pipeline that computes.
///
/// # Errors
/// [`RenderError::Device`] with the device's words when shader and layout do not fit together.
pub(super) fn build_compute(
    device: &wgpu::Device,
    module: &wgpu::ShaderModule,
    entry: &str,
    layout: &wgpu::BindGroupLayout,
) -> Result<wgpu::ComputePipeline, RenderError> {
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(entry),
        bind_group_layouts: &[Some(layout)],
        immediate_size: 0,
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(entry),
        layout: Some(&layout),
        module,
        entry_point: Some(entry),
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    });
    match wait_for(scope.pop()) {
        None => Ok(pipeline),
        Some(error) => {
            Err(RenderError::Device { what: format!("the pipeline \"{entry}\""), message: error.to_string() })
        }
    }
}

/// Whether the device runs the compute shaders here: groups of 64, three storage buffers, one storage texture.
pub(super) fn computes(device: &wgpu::Device) -> bool {
    let limits = device.limits();
    limits.max_compute_workgroups_per_dimension > 0
        && limits.max_compute_workgroup_size_x.min(limits.max_compute_invocations_per_workgroup) >= 64
        && limits.max_compute_workgroup_size_y >= 8
        && limits.max_storage_buffers_per_shader_stage >= 3
        && limits.max_storage_textures_per_shader_stage >= 1
}

/// Most bytes of one buffer that a shader reads as storage.
pub(super) fn most_storage(device: &wgpu::Device) -> u64 {
    let limits = device.limits();
    limits.max_buffer_size.min(limits.max_storage_buffer_binding_size)
}

/// Layout entry of a buffer that a compute shader sees.
pub(super) fn compute_entry(binding: u32, ty: wgpu::BufferBindingType) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    }
}

/// Colours here are gamma-encoded already: a target that encodes once more is refused.
pub(super) fn check_format(format: wgpu::TextureFormat) -> Result<(), RenderError> {
    if format.is_srgb() { Err(RenderError::Format(format!("{format:?}"))) } else { Ok(()) }
}

/// Layout entry of a uniform struct of type `T`, seen by both stages.
pub(super) fn uniform_entry<T>(binding: u32) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::VERTEX_FRAGMENT,
        ty: wgpu::BindingType::Buffer {
            ty: wgpu::BufferBindingType::Uniform,
            has_dynamic_offset: false,
            min_binding_size: wgpu::BufferSize::new(std::mem::size_of::<T>() as u64),
        },
        count: None,
    }
}

/// Layout entry of a two-dimensional texture of floats, seen by the fragment stage.
pub(super) fn texture_entry(binding: u32, filterable: bool) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::FRAGMENT,
        ty: wgpu::BindingType::Texture {
            sample_type: wgpu::TextureSampleType::Float { filterable },
            view_dimension: wgpu::TextureViewDimension::D2,
            multisampled: false,
        },
        count: None,
    }
}

/// Layout entry of a filtering sampler, seen by the fragment stage.
pub(super) fn sampler_entry(binding: u32) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::FRAGMENT,
        ty: wgpu::BindingType::Sampler(wgpu::SamplerBindingType::Filtering),
        count: None,
    }
}

pub(super) fn group_layout(
    device: &wgpu::Device,
    label: &str,
    entries: &[wgpu::BindGroupLayoutEntry],
) -> wgpu::BindGroupLayout {
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(label), entries })
}

/// A bind group of `resources` at bindings 0, 1, …
pub(super) fn group(
    device: &wgpu::Device,
    label: &str,
    layout: &wgpu::BindGroupLayout,
    resources: &[wgpu::BindingResource<'_>],
) -> wgpu::BindGroup {
    let entries: Vec<wgpu::BindGroupEntry<'_>> = (0..)
        .zip(resources)
        .map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource: resource.clone() })
        .collect();
    device.create_bind_group(&wgpu::BindGroupDescriptor { label: Some(label), layout, entries: &entries })
}

/// A texture that is filled from the CPU and read by shaders.
///
/// # Errors
/// [`RenderError::Size`] when a side is 0 or above the device's limit.
pub(super) fn data_texture(
    device: &wgpu::Device,
    what: &'static str,
    width: u32,
    height: u32,
    format: wgpu::TextureFormat,
) -> Result<wgpu::Texture, RenderError> {
    texture(device, what, width, height, format, wgpu::TextureUsages::COPY_DST)
}

/// A texture that is filled as `filled` says and read by shaders.
///
/// # Errors
/// [`RenderError::Size`] when a side is 0 or above the device's limit.
pub(super) fn texture(
    device: &wgpu::Device,
    what: &'static str,
    width: u32,
    height: u32,
    format: wgpu::TextureFormat,
    filled: wgpu::TextureUsages,
) -> Result<wgpu::Texture, RenderError> {
    let limit = device.limits().max_texture_dimension_2d;
    if width == 0 || height == 0 || width > limit || height > limit {
        return Err(RenderError::Size { what, width, height, limit });
    }
    Ok(device.create_texture(&wgpu::TextureDescriptor {
        label: Some(what),
        size: wgpu::Extent3d { width, height, depth_or_array_layers: 1 },
        mip_level_count: 1,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        format,
        usage: wgpu::TextureUsages::TEXTURE_BINDING | filled,
        view_formats: &[],
    }))
}
