// Instanced rectangle outlines. Twin of `BoxUniform` and `PaletteUniform` in src/render/boxes.rs;
// flag bits and colour modes as in src/render/box_style.rs.
#import "view.wgsl"
#import "colormap.wgsl"

struct BoxUniform {
    view: View,
    // One bit a class, 512 classes.
    class_mask: array<vec4<u32>, 4>,
    score_min: f32,
    score_max: f32,
    // NONE when all classes of the mask show.
    isolated_class: u32,
    level_mask: u32,
    outcome_mask: u32,
    assignment_mask: u32,
    color_mode: u32,
    line_width: f32,
    opacity: f32,
    fill_opacity: f32,
    // The way from one stage to the next, 0 to 1.
    way: f32,
    padding: u32,
};

struct PaletteUniform {
    classes: array<vec4<f32>, 512>,
    outcomes: array<vec4<f32>, 8>,
    assignments: array<vec4<f32>, 8>,
    levels: array<vec4<f32>, 8>,
    class_count: u32,
    padding_a: u32,
    padding_b: u32,
    padding_c: u32,
};

@group(0) @binding(0) var<uniform> boxes: BoxUniform;
@group(0) @binding(1) var<uniform> palette: PaletteUniform;

const NONE: u32 = 0xffffffffu;
const CLASSES: u32 = 512u;

const BY_OUTCOME: u32 = 0u;
const SOLID: u32 = 1u;
const DASHED: u32 = 2u;
const DOTTED: u32 = 3u;
const HATCHED: u32 = 4u;

// Screen pixels.
const DASH_PERIOD: f32 = 10.0;
const DOT_PERIOD: f32 = 4.0;
const HATCH_PERIOD: f32 = 8.0;
const HALO: f32 = 1.0;

struct BoxInput {
    @location(0) bounds: vec4<f32>,
    @location(1) score: f32,
    @location(2) category: u32,
    @location(3) level: u32,
    @location(4) flags: u32,
};

// The same box at the next stage.
struct NextInput {
    @location(5) bounds: vec4<f32>,
    @location(6) score: f32,
};

struct BoxVertex {
    @builtin(position) position: vec4<f32>,
    // x0, y0, x1, y1 in target pixels.
    @location(0) @interpolate(flat) bounds: vec4<f32>,
    @location(1) @interpolate(flat) color: vec4<f32>,
    // Half the line's width, halo around it, opacity of the inside; 1 when the inside is drawn at all.
    @location(2) @interpolate(flat) stroke: vec4<f32>,
    @location(3) @interpolate(flat) style: u32,
};

fn outcome_of(box: BoxInput) -> u32 {
    return box.flags & 7u;
}

fn assignment_of(box: BoxInput) -> u32 {
    return (box.flags >> 3u) & 7u;
}

fn style_of(box: BoxInput) -> u32 {
    let style = (box.flags >> 6u) & 7u;
    if style != BY_OUTCOME {
        return style;
    }
    switch outcome_of(box) {
        case 3u: {
            return DASHED;
        }
        case 4u: {
            return DOTTED;
        }
        case 5u: {
            return HATCHED;
        }
        default: {
            return SOLID;
        }
    }
}

fn class_shown(category: u32) -> bool {
    if boxes.isolated_class != NONE {
        return category == boxes.isolated_class;
    }
    if category >= CLASSES {
        return true;
    }
    let word = category >> 5u;
    let bits = boxes.class_mask[word >> 2u][word & 3u];
    return ((bits >> (category & 31u)) & 1u) == 1u;
}

fn shown(box: BoxInput) -> bool {
    let scored = box.score >= boxes.score_min && box.score <= boxes.score_max;
    let leveled = box.level >= 32u || ((boxes.level_mask >> (box.level & 31u)) & 1u) == 1u;
    let judged = ((boxes.outcome_mask >> outcome_of(box)) & 1u) == 1u;
    let assigned = ((boxes.assignment_mask >> assignment_of(box)) & 1u) == 1u;
    return scored && leveled && judged && assigned && class_shown(box.category);
}

fn color_of(box: BoxInput) -> vec4<f32> {
    let count = max(palette.class_count, 1u);
    switch boxes.color_mode {
        case 1u: {
            return vec4<f32>(map_color(0u, box.score), 1.0);
        }
        case 2u: {
            return palette.outcomes[outcome_of(box)];
        }
        case 3u: {
            return palette.assignments[assignment_of(box)];
        }
        case 4u: {
            return palette.levels[box.level & 7u];
        }
        case 5u: {
            return palette.classes[min(box.level % count, CLASSES - 1u)];
        }
        default: {
            return palette.classes[min(box.category % count, CLASSES - 1u)];
        }
    }
}

fn hidden() -> BoxVertex {
    var out: BoxVertex;
    out.position = nowhere();
    out.bounds = vec4<f32>(0.0);
    out.color = vec4<f32>(0.0);
    out.stroke = vec4<f32>(0.0);
    out.style = SOLID;
    return out;
}

// A stage that does not have a box gives it a score that is no number. Compilers may take all floats for numbers, so
// the bits are asked.
fn has_box(score: f32) -> bool {
    return (bitcast<u32>(score) & 0x7fffffffu) <= 0x7f800000u;
}

// The box on its way to the next stage; one that only one of the two has stays where it is there.
fn on_the_way(box: BoxInput, next: NextInput) -> BoxInput {
    var out = box;
    if !has_box(next.score) {
        return out;
    }
    if has_box(box.score) {
        out.bounds = mix(box.bounds, next.bounds, boxes.way);
        out.score = mix(box.score, next.score, boxes.way);
    } else {
        out.bounds = next.bounds;
        out.score = next.score;
    }
    return out;
}

// How much of the box is there: a box of one stage alone fades on the way.
fn presence(box: BoxInput, next: NextInput) -> f32 {
    return select(0.0, 1.0 - boxes.way, has_box(box.score)) + select(0.0, boxes.way, has_box(next.score));
}

// The outline is a strip of ten vertices that goes round the rectangle, outer and inner corner in turn.
// When the inside is drawn too, the inner corners meet in the middle, so every pixel is covered once.
fn outline(box: BoxInput, vertex: u32, alpha: f32, line_width: f32, halo: f32, fill: f32) -> BoxVertex {
    if !shown(box) {
        return hidden();
    }
    let a = screen_from_image(boxes.view, box.bounds.xy);
    let b = screen_from_image(boxes.view, box.bounds.zw);
    let low = min(a, b);
    let high = max(a, b);
    let reach = 0.5 * line_width + halo;
    if any(high + reach < vec2<f32>(0.0)) || any(low - reach > boxes.view.target_size) {
        return hidden();
    }
    var out: BoxVertex;
    out.style = style_of(box);
    let filled = fill > 0.0 || out.style == HATCHED;
    let half_size = 0.5 * (high - low);
    var size = half_size + reach;
    if (vertex & 1u) == 1u {
        size = select(max(half_size - 0.5 * line_width, vec2<f32>(0.0)), vec2<f32>(0.0), filled);
    }
    let corner = (vertex >> 1u) & 3u;
    let side = vec2<f32>(
        select(-1.0, 1.0, corner == 1u || corner == 2u),
        select(-1.0, 1.0, corner >= 2u),
    );
    out.position = clip_from_screen(boxes.view.target_size, 0.5 * (low + high) + side * size);
    out.bounds = vec4<f32>(low, high);
    let color = color_of(box);
    out.color = vec4<f32>(color.rgb, color.a * alpha);
    out.stroke = vec4<f32>(0.5 * line_width, halo, fill, select(0.0, 1.0, filled));
    return out;
}

fn plain(box: BoxInput, vertex: u32, alpha: f32) -> BoxVertex {
    return outline(box, vertex, alpha, boxes.line_width, 0.0, boxes.fill_opacity);
}

fn hovered(box: BoxInput, vertex: u32, alpha: f32) -> BoxVertex {
    let fill = max(boxes.fill_opacity, 0.1);
    return outline(box, vertex, alpha, boxes.line_width + 1.0, HALO, fill);
}

fn selected(box: BoxInput, vertex: u32, alpha: f32) -> BoxVertex {
    let fill = max(boxes.fill_opacity, 0.18);
    return outline(box, vertex, alpha, boxes.line_width + 2.0, HALO, fill);
}

@vertex
fn vs_box(box: BoxInput, @builtin(vertex_index) vertex: u32) -> BoxVertex {
    return plain(box, vertex, 1.0);
}

@vertex
fn vs_hovered(box: BoxInput, @builtin(vertex_index) vertex: u32) -> BoxVertex {
    return hovered(box, vertex, 1.0);
}

@vertex
fn vs_selected(box: BoxInput, @builtin(vertex_index) vertex: u32) -> BoxVertex {
    return selected(box, vertex, 1.0);
}

// The same between two stages.

@vertex
fn vs_box_moving(box: BoxInput, next: NextInput, @builtin(vertex_index) vertex: u32) -> BoxVertex {
    return plain(on_the_way(box, next), vertex, presence(box, next));
}

@vertex
fn vs_hovered_moving(box: BoxInput, next: NextInput, @builtin(vertex_index) vertex: u32) -> BoxVertex {
    return hovered(on_the_way(box, next), vertex, presence(box, next));
}

@vertex
fn vs_selected_moving(box: BoxInput, next: NextInput, @builtin(vertex_index) vertex: u32) -> BoxVertex {
    return selected(on_the_way(box, next), vertex, presence(box, next));
}

fn dash(along: f32, period: f32, share: f32) -> f32 {
    return select(0.0, 1.0, fract(max(along, 0.0) / period) < share);
}

@fragment
fn fs_box(in: BoxVertex) -> @location(0) vec4<f32> {
    let from_low = in.position.xy - in.bounds.xy;
    let from_high = in.bounds.zw - in.position.xy;
    let depth = min(from_low, from_high);
    let half_width = in.stroke.x;
    // Half-open as the rasteriser counts: a line has the same width with and without a filled inside.
    if in.stroke.y > 0.0 && (any(from_low < vec2<f32>(-half_width)) || any(from_high <= vec2<f32>(-half_width))) {
        return vec4<f32>(0.0, 0.0, 0.0, 0.6 * in.color.a * boxes.opacity);
    }
    var coverage = 0.0;
    // Without a line the inside goes up to the edge, also where rounding puts a pixel beyond it.
    let on_line = any(from_low < vec2<f32>(half_width)) || any(from_high <= vec2<f32>(half_width));
    if in.stroke.w == 0.0 || (on_line && half_width > 0.0) {
        let along = select(from_low.x, from_low.y, depth.x < depth.y);
        switch in.style {
            case 2u: {
                coverage = dash(along, DASH_PERIOD, 0.6);
            }
            case 3u: {
                coverage = dash(along, DOT_PERIOD, 0.5);
            }
            default: {
                coverage = 1.0;
            }
        }
    } else {
        coverage = in.stroke.z;
        if in.style == HATCHED {
            coverage = max(coverage, 0.7 * dash(from_low.x + from_low.y, HATCH_PERIOD, 0.2));
        }
    }
    return premultiplied(in.color, coverage * boxes.opacity);
}
