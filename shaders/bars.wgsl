// Bars of a histogram and threshold lines across it. Twin of `BarUniform` in src/render/bars.rs.
#import "view.wgsl"
#import "plot.wgsl"

struct BarUniform {
    plot: Plot,
    color: vec4<f32>,
    // Of bars from the value `above` on.
    color_above: vec4<f32>,
    // Value at the left edge of the first bar, and width of a bar in the same unit.
    first_edge: f32,
    bin_width: f32,
    // Screen pixels.
    gap: f32,
    line_width: f32,
    above: f32,
    padding_a: f32,
    padding_b: f32,
    padding_c: f32,
    // Value in x.
    thresholds: array<vec4<f32>, 8>,
    threshold_colors: array<vec4<f32>, 8>,
};

@group(0) @binding(0) var<uniform> bars: BarUniform;

struct BarVertex {
    @builtin(position) position: vec4<f32>,
    @location(0) @interpolate(flat) color: vec4<f32>,
};

@vertex
fn vs_bar(
    @builtin(vertex_index) vertex: u32,
    @builtin(instance_index) bar: u32,
    @location(0) height: f32,
) -> BarVertex {
    let left = bars.first_edge + f32(bar) * bars.bin_width;
    var base = clamp(0.0, bars.plot.y_range.x, bars.plot.y_range.y);
    if bars.plot.log_y == 1u {
        base = bars.plot.y_range.x;
    }
    var low = screen_from_plot(bars.plot, vec2<f32>(left, base));
    var high = screen_from_plot(bars.plot, vec2<f32>(left + bars.bin_width, height));
    // A gap only where it leaves most of the bar.
    let gap = select(0.0, bars.gap, high.x - low.x > 3.0 * bars.gap);
    low.x += 0.5 * gap;
    // A bar narrower than a pixel still shows.
    high.x = max(high.x - 0.5 * gap, low.x + 1.0);
    // So does one that is lower, unless it is empty.
    if height > 0.0 {
        high.y = min(high.y, low.y - 1.0);
    }
    var out: BarVertex;
    out.position = clip_from_screen(bars.plot.target_size, mix(low, high, strip_corner(vertex)));
    out.color = select(bars.color, bars.color_above, left >= bars.above - 1.0e-6);
    return out;
}

@vertex
fn vs_threshold(@builtin(vertex_index) vertex: u32, @builtin(instance_index) line: u32) -> BarVertex {
    let slot = min(line, 7u);
    let at = screen_from_plot(bars.plot, vec2<f32>(bars.thresholds[slot].x, bars.plot.y_range.x)).x;
    let corner = strip_corner(vertex);
    let point = vec2<f32>(
        at + bars.line_width * (corner.x - 0.5),
        bars.plot.area.y + bars.plot.area.w * corner.y,
    );
    var out: BarVertex;
    out.position = clip_from_screen(bars.plot.target_size, point);
    out.color = bars.threshold_colors[slot];
    return out;
}

@fragment
fn fs_bar(in: BarVertex) -> @location(0) vec4<f32> {
    return premultiplied(in.color, 1.0);
}
