// Anti-aliased polylines, one instance a segment. Twin of `CurveUniform` in src/render/curves.rs.
#import "view.wgsl"
#import "plot.wgsl"

struct CurveUniform {
    plot: Plot,
    colors: array<vec4<f32>, 32>,
    // Screen pixels: width, length of a dash, gap after it.
    widths: array<vec4<f32>, 32>,
};

@group(0) @binding(0) var<uniform> curves: CurveUniform;

const SERIES: u32 = 32u;
// A point that stands for a hole in the line (NaN and infinities are replaced before upload).
const MISSING: f32 = 1.0e38;

// The segment goes from `start` to `end`; the points around it say how its ends are cut.
struct SegmentInput {
    @location(0) before: vec2<f32>,
    @location(1) before_series: u32,
    @location(2) start: vec2<f32>,
    @location(3) start_series: u32,
    @location(4) end: vec2<f32>,
    @location(5) end_series: u32,
    @location(6) after: vec2<f32>,
    @location(7) after_series: u32,
};

struct SegmentVertex {
    @builtin(position) position: vec4<f32>,
    // Start and end in target pixels.
    @location(0) @interpolate(flat) ends: vec4<f32>,
    // Normals of the cuts at start and end; zero where nothing joins.
    @location(1) @interpolate(flat) cuts: vec4<f32>,
    @location(2) @interpolate(flat) color: vec4<f32>,
    @location(3) @interpolate(flat) half_width: f32,
    // Length of a dash and gap after it; no gap for a whole line.
    @location(4) @interpolate(flat) dash: vec2<f32>,
};

fn present(point: vec2<f32>) -> bool {
    return abs(point.x) < MISSING && abs(point.y) < MISSING;
}

fn direction(start: vec2<f32>, end: vec2<f32>) -> vec2<f32> {
    let along = end - start;
    let size = length(along);
    if size < 1.0e-4 {
        return vec2<f32>(0.0);
    }
    return along / size;
}

@vertex
fn vs_segment(segment: SegmentInput, @builtin(vertex_index) vertex: u32) -> SegmentVertex {
    var out: SegmentVertex;
    out.position = nowhere();
    out.ends = vec4<f32>(0.0);
    out.cuts = vec4<f32>(0.0);
    out.color = vec4<f32>(0.0);
    out.half_width = 0.0;
    out.dash = vec2<f32>(0.0);
    let series = segment.start_series;
    if series != segment.end_series || series >= SERIES || !present(segment.start) || !present(segment.end) {
        return out;
    }
    let width = curves.widths[series].x;
    if width <= 0.0 {
        return out;
    }
    let first = far_screen_from_plot(curves.plot, segment.start);
    let last = far_screen_from_plot(curves.plot, segment.end);
    let start = near_plot(curves.plot, first, last);
    let end = near_plot(curves.plot, last, first);
    let along = direction(start, end);
    // Fragments near a joint belong to one side of its bisector, so no pixel is blended twice.
    if segment.before_series == series && present(segment.before) {
        let cut = direction(far_screen_from_plot(curves.plot, segment.before), first) + along;
        out.cuts.x = cut.x;
        out.cuts.y = cut.y;
    }
    if segment.after_series == series && present(segment.after) {
        let cut = direction(last, far_screen_from_plot(curves.plot, segment.after)) + along;
        out.cuts.z = cut.x;
        out.cuts.w = cut.y;
    }
    let forward = select(along, vec2<f32>(1.0, 0.0), all(along == vec2<f32>(0.0)));
    let sideways = vec2<f32>(-forward.y, forward.x);
    let reach = 0.5 * width + 1.0;
    let corner = strip_corner(vertex);
    let point = mix(start - reach * forward, end + reach * forward, corner.x)
        + sideways * reach * (2.0 * corner.y - 1.0);
    out.position = clip_from_screen(curves.plot.target_size, point);
    out.ends = vec4<f32>(start, end);
    out.color = curves.colors[series];
    out.half_width = 0.5 * width;
    out.dash = curves.widths[series].yz;
    return out;
}

// Dashes lie along the x axis: curves of many short segments have no other direction to count along.
fn dash_coverage(dash: vec2<f32>, x: f32) -> f32 {
    if dash.y <= 0.0 {
        return 1.0;
    }
    let period = dash.x + dash.y;
    let phase = fract(x / period) * period;
    return clamp(min(phase, dash.x - phase) + 0.5, 0.0, 1.0);
}

@fragment
fn fs_segment(in: SegmentVertex) -> @location(0) vec4<f32> {
    let start = in.ends.xy;
    let end = in.ends.zw;
    let point = in.position.xy;
    if any(in.cuts.xy != vec2<f32>(0.0)) && dot(point - start, in.cuts.xy) <= 0.0 {
        discard;
    }
    if any(in.cuts.zw != vec2<f32>(0.0)) && dot(point - end, in.cuts.zw) > 0.0 {
        discard;
    }
    let along = end - start;
    let size = max(dot(along, along), 1.0e-8);
    let share_along = clamp(dot(point - start, along) / size, 0.0, 1.0);
    let distance = length(point - start - share_along * along);
    let coverage = clamp(in.half_width + 0.5 - distance, 0.0, 1.0);
    return premultiplied(in.color, coverage * dash_coverage(in.dash, point.x - curves.plot.area.x));
}
