// Counts numbers into bins, and makes heights of bars from the counts. Twin of `HistogramUniform` in
// src/render/histogram.rs.

struct HistogramUniform {
    // Ends of the first and the last bin.
    low: f32,
    high: f32,
    bins: u32,
    // The group that counts; ANY for all of them.
    group: u32,
    // How many numbers there are.
    count: u32,
    padding_a: u32,
    padding_b: u32,
    padding_c: u32,
};

struct Sample {
    value: f32,
    group: u32,
};

@group(0) @binding(0) var<uniform> histogram: HistogramUniform;
@group(0) @binding(1) var<storage, read> samples: array<Sample>;
@group(0) @binding(2) var<storage, read_write> counts: array<atomic<u32>>;
@group(0) @binding(3) var<storage, read_write> heights: array<f32>;

const ANY: u32 = 0xffffffffu;
const GROUP_SIZE: u32 = 64u;

@compute @workgroup_size(64)
fn cs_count(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let span = histogram.high - histogram.low;
    for (var at = id.x; at < histogram.count; at += GROUP_SIZE * groups.x) {
        let value = samples[at].value;
        let counted = histogram.group == ANY || samples[at].group == histogram.group;
        if !counted || value < histogram.low || histogram.high < value {
            continue;
        }
        var bin = 0u;
        if span > 0.0 {
            bin = min(u32((value - histogram.low) / span * f32(histogram.bins)), histogram.bins - 1u);
        }
        atomicAdd(&counts[bin], 1u);
    }
}

// Heights as shares of the highest bar.
@compute @workgroup_size(1)
fn cs_heights() {
    var highest = 1u;
    for (var bin = 0u; bin < histogram.bins; bin += 1u) {
        highest = max(highest, atomicLoad(&counts[bin]));
    }
    for (var bin = 0u; bin < histogram.bins; bin += 1u) {
        heights[bin] = f32(atomicLoad(&counts[bin])) / f32(highest);
    }
}
