// Where numbers stand in a plot. Twin of `PlotUniform` in src/render/plot.rs.

struct Plot {
    // x, y, width, height of the plot in target pixels.
    area: vec4<f32>,
    // Values at the left and right edge.
    x_range: vec2<f32>,
    // Values at the bottom and top edge.
    y_range: vec2<f32>,
    target_size: vec2<f32>,
    // 1: the y axis is logarithmic.
    log_y: u32,
    padding: u32,
};

// Smallest number a logarithmic axis tells from zero.
const TINY: f32 = 1.0e-30;
// Beyond this many pixels from the plot a coordinate says only "far away".
const FAR: f32 = 32768.0;
// No coordinate is larger, in pixels.
const HORIZON: f32 = 1.0e9;

// 0 at `low`, 1 at `high`; the middle when the range is empty.
fn share(value: f32, low: f32, high: f32) -> f32 {
    let span = high - low;
    if abs(span) < TINY {
        return 0.5;
    }
    return (value - low) / span;
}

fn height_share(plot: Plot, y: f32) -> f32 {
    if plot.log_y == 1u {
        return share(log2(max(y, TINY)), log2(max(plot.y_range.x, TINY)), log2(max(plot.y_range.y, TINY)));
    }
    return share(y, plot.y_range.x, plot.y_range.y);
}

// Where a point stands, however far from the plot.
fn far_screen_from_plot(plot: Plot, point: vec2<f32>) -> vec2<f32> {
    let x = plot.area.x + plot.area.z * share(point.x, plot.x_range.x, plot.x_range.y);
    let y = plot.area.y + plot.area.w * (1.0 - height_share(plot, point.y));
    return clamp(vec2<f32>(x, y), vec2<f32>(-HORIZON), vec2<f32>(HORIZON));
}

fn screen_from_plot(plot: Plot, point: vec2<f32>) -> vec2<f32> {
    let low = plot.area.xy - FAR;
    return clamp(far_screen_from_plot(plot, point), low, low + plot.area.zw + 2.0 * FAR);
}

// An end of a line (target pixels) moved towards the other one until it is not far: a limit of x and y each for itself
// would turn the line.
fn near_plot(plot: Plot, point: vec2<f32>, other: vec2<f32>) -> vec2<f32> {
    let middle = plot.area.xy + 0.5 * plot.area.zw;
    let beyond = max(abs(point - middle) - 0.5 * plot.area.zw - FAR, vec2<f32>(0.0));
    let part = beyond / max(abs(other - point), vec2<f32>(1.0e-4));
    return mix(point, other, clamp(max(part.x, part.y), 0.0, 1.0));
}
