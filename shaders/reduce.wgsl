// The channels of a feature map as one number a position. Twin of `ReduceUniform` in src/render/reduce.rs.

struct ReduceUniform {
    width: u32,
    height: u32,
    channels: u32,
    // 0: mean, 1: maximum, 2: one channel.
    how: u32,
    channel: u32,
    padding_a: u32,
    padding_b: u32,
    padding_c: u32,
};

@group(0) @binding(0) var<uniform> reduce: ReduceUniform;
// [channels, height, width]
@group(0) @binding(1) var<storage, read> values: array<f32>;
@group(0) @binding(2) var reduced: texture_storage_2d<r32float, write>;

const MAXIMUM: u32 = 1u;
const ONE_CHANNEL: u32 = 2u;
// Stands for "no value" (NaN and infinities are replaced before upload).
const MISSING: f32 = 1.0e38;

@compute @workgroup_size(8, 8)
fn cs_reduce(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= reduce.width || id.y >= reduce.height {
        return;
    }
    let plane = reduce.width * reduce.height;
    let at = id.y * reduce.width + id.x;
    var value = MISSING;
    if reduce.how == ONE_CHANNEL {
        value = values[reduce.channel * plane + at];
    } else {
        var sum = 0.0;
        var most = -MISSING;
        var present = 0u;
        for (var channel = 0u; channel < reduce.channels; channel += 1u) {
            let one = values[channel * plane + at];
            if abs(one) < MISSING {
                sum += one;
                most = max(most, one);
                present += 1u;
            }
        }
        // A mean over a hole is a hole; a maximum leaves it out.
        if reduce.how == MAXIMUM {
            value = select(MISSING, most, present > 0u);
        } else {
            value = select(MISSING, sum / f32(max(reduce.channels, 1u)), present == reduce.channels);
        }
    }
    textureStore(reduced, vec2<i32>(id.xy), vec4<f32>(value, 0.0, 0.0, 1.0));
}
