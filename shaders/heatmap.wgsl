// One map of numbers in colours. Twin of `HeatmapUniform` in src/render/heatmap.rs.
#import "view.wgsl"
#import "colormap.wgsl"

struct HeatmapUniform {
    view: View,
    // Part of the picture that the map covers: x0, y0, x1, y1 in picture pixels.
    bounds: vec4<f32>,
    // Values at the ends of the colour map.
    low: f32,
    high: f32,
    opacity: f32,
    // 0: the same opacity everywhere. 1: opacity falls to nothing at `low`.
    fade: f32,
    color_map: u32,
    bilinear: u32,
    padding_a: u32,
    padding_b: u32,
};

@group(0) @binding(0) var<uniform> heat: HeatmapUniform;
// 32-bit floats need not be filterable: read with textureLoad alone.
@group(0) @binding(1) var values: texture_2d<f32>;

// Stands for "no value" (NaN and infinities are replaced before upload).
const MISSING: f32 = 1.0e38;

@vertex
fn vs_heat(@builtin(vertex_index) vertex: u32) -> @builtin(position) vec4<f32> {
    let point = mix(heat.bounds.xy, heat.bounds.zw, strip_corner(vertex));
    return clip_from_screen(heat.view.target_size, screen_from_image(heat.view, point));
}

fn value_at(cell: vec2<f32>, size: vec2<f32>) -> f32 {
    let nearest = clamp(cell, vec2<f32>(0.0), size - 1.0);
    return textureLoad(values, vec2<i32>(nearest), 0).x;
}

@fragment
fn fs_heat(@builtin(position) position: vec4<f32>) -> @location(0) vec4<f32> {
    let size = vec2<f32>(textureDimensions(values));
    let point = image_from_screen(heat.view, position.xy);
    let cell = (point - heat.bounds.xy) / (heat.bounds.zw - heat.bounds.xy) * size;
    var value = value_at(floor(cell), size);
    if abs(value) >= MISSING {
        return vec4<f32>(0.0);
    }
    if heat.bilinear == 1u {
        let corner = floor(cell - 0.5);
        let part = cell - 0.5 - corner;
        let a = value_at(corner, size);
        let b = value_at(corner + vec2<f32>(1.0, 0.0), size);
        let c = value_at(corner + vec2<f32>(0.0, 1.0), size);
        let d = value_at(corner + vec2<f32>(1.0, 1.0), size);
        if max(max(abs(a), abs(b)), max(abs(c), abs(d))) < MISSING {
            value = mix(mix(a, b, part.x), mix(c, d, part.x), part.y);
        }
    }
    let span = heat.high - heat.low;
    var t = 0.5;
    if abs(span) > 1.0e-30 {
        t = clamp((value - heat.low) / span, 0.0, 1.0);
    }
    let alpha = heat.opacity * mix(1.0, t, heat.fade);
    return premultiplied(vec4<f32>(map_color(heat.color_map, t), 1.0), alpha);
}
