// Where a picture stands on the screen. Twin of `ViewUniform` in src/render/view.rs.

struct View {
    // Point of the picture (its pixels) that stands at `viewport_center`.
    center: vec2<f32>,
    // Target pixels.
    viewport_center: vec2<f32>,
    // Width and height of the whole target, in pixels.
    target_size: vec2<f32>,
    // Target pixels per picture pixel.
    zoom: f32,
    padding: f32,
};

// Subtracting the centre first keeps far pixels of a large picture sharp at high zoom.
fn screen_from_image(view: View, point: vec2<f32>) -> vec2<f32> {
    return (point - view.center) * view.zoom + view.viewport_center;
}

fn image_from_screen(view: View, point: vec2<f32>) -> vec2<f32> {
    return (point - view.viewport_center) / view.zoom + view.center;
}

// Target pixels, y down, to clip space, y up.
fn clip_from_screen(target_size: vec2<f32>, point: vec2<f32>) -> vec4<f32> {
    let unit = point / target_size;
    return vec4<f32>(2.0 * unit.x - 1.0, 1.0 - 2.0 * unit.y, 0.0, 1.0);
}

// A position that no primitive survives.
fn nowhere() -> vec4<f32> {
    return vec4<f32>(2.0, 2.0, 2.0, 1.0);
}

// Straight colour and coverage to the premultiplied value that is blended.
fn premultiplied(color: vec4<f32>, coverage: f32) -> vec4<f32> {
    let alpha = color.a * coverage;
    return vec4<f32>(color.rgb * alpha, alpha);
}

// Corner of the unit square for vertex 0..3 of a triangle strip.
fn strip_corner(vertex: u32) -> vec2<f32> {
    return vec2<f32>(f32(vertex & 1u), f32(vertex >> 1u));
}
