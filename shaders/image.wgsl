// A picture in tiles. Twin of `ImageUniform` and `TileUniform` in src/render/image.rs.
#import "view.wgsl"

struct ImageUniform {
    view: View,
    opacity: f32,
    // 1: one texel, no blending. 0: bilinear, averaged over the footprint when shrunk.
    nearest: u32,
    // Strength of the pixel grid, 0 is off.
    grid: f32,
    padding: f32,
};

struct TileUniform {
    // Part of the picture this tile paints: x0, y0, x1, y1 in picture pixels.
    bounds: vec4<f32>,
    // Part of the picture its texture holds: x0, y0, width, height; a border wider than `bounds`.
    texels: vec4<f32>,
};

@group(0) @binding(0) var<uniform> image: ImageUniform;
@group(0) @binding(1) var bilinear: sampler;
@group(1) @binding(0) var<uniform> tile: TileUniform;
@group(1) @binding(1) var pixels: texture_2d<f32>;

@vertex
fn vs_tile(@builtin(vertex_index) vertex: u32) -> @builtin(position) vec4<f32> {
    let point = mix(tile.bounds.xy, tile.bounds.zw, strip_corner(vertex));
    return clip_from_screen(image.view.target_size, screen_from_image(image.view, point));
}

fn nearest_color(point: vec2<f32>) -> vec4<f32> {
    let texel = clamp(floor(point), tile.bounds.xy, tile.bounds.zw - 1.0) - tile.texels.xy;
    return premultiplied(textureLoad(pixels, vec2<i32>(texel), 0), 1.0);
}

// Up to 4 × 4 bilinear samples spread over the part of the picture that one screen pixel covers.
fn averaged_color(point: vec2<f32>) -> vec4<f32> {
    let footprint = max(1.0 / image.view.zoom, 1.0);
    let steps = i32(clamp(ceil(footprint * 0.5), 1.0, 4.0));
    let low = tile.texels.xy + 0.5;
    let high = tile.texels.xy + tile.texels.zw - 0.5;
    // Below one sample a pixel there is nothing to spread.
    let spread = select(0.0, footprint, steps > 1);
    var sum = vec4<f32>(0.0);
    for (var row = 0; row < steps; row++) {
        for (var column = 0; column < steps; column++) {
            let offset = (vec2<f32>(f32(column), f32(row)) + 0.5) / f32(steps) - 0.5;
            let at = clamp(point + offset * spread, low, high);
            let uv = (at - tile.texels.xy) / tile.texels.zw;
            sum += premultiplied(textureSampleLevel(pixels, bilinear, uv, 0.0), 1.0);
        }
    }
    return sum / f32(steps * steps);
}

@fragment
fn fs_tile(@builtin(position) position: vec4<f32>) -> @location(0) vec4<f32> {
    let point = image_from_screen(image.view, position.xy);
    var color: vec4<f32>;
    if image.nearest == 1u {
        color = nearest_color(point);
    } else {
        color = averaged_color(point);
    }
    if image.grid > 0.0 {
        // Screen pixels to the nearest boundary between picture pixels.
        let distance = (0.5 - abs(fract(point) - 0.5)) * image.view.zoom;
        let coverage = clamp(1.0 - min(distance.x, distance.y), 0.0, 1.0) * image.grid;
        let luma = dot(color.rgb, vec3<f32>(0.299, 0.587, 0.114));
        let ink = select(1.0, 0.0, luma > 0.5 * color.a) * color.a;
        color = vec4<f32>(mix(color.rgb, vec3<f32>(ink), coverage), color.a);
    }
    return color * image.opacity;
}
