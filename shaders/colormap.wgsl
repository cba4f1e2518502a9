// Colour maps as polynomials in t from 0 to 1, lowest power first, gamma-encoded RGB.
// Twin of the tables of the same names in src/render/colormap.rs.

const VIRIDIS = array<vec3<f32>, 8>(
    vec3<f32>(0.260833, 0.005428, 0.32464),
    vec3<f32>(1.074588, 1.478541, 1.994056),
    vec3<f32>(-14.381527, -1.120934, -8.82683),
    vec3<f32>(75.93535, 2.166507, 32.101547),
    vec3<f32>(-218.19472, -8.308449, -87.53385),
    vec3<f32>(329.32004, 19.111177, 145.05548),
    vec3<f32>(-239.83032, -19.29725, -127.13574),
    vec3<f32>(66.810745, 6.871626, 44.159115),
);

const MAGMA = array<vec3<f32>, 8>(
    vec3<f32>(0.007276, -0.012291, 0.012295),
    vec3<f32>(-0.398773, 1.535508, 1.299383),
    vec3<f32>(17.05047, -15.249422, 16.806181),
    vec3<f32>(-75.1094, 78.967354, -105.643906),
    vec3<f32>(180.60455, -205.64348, 265.45816),
    vec3<f32>(-233.52225, 285.02893, -357.96057),
    vec3<f32>(149.4864, -196.6944, 254.70836),
    vec3<f32>(-37.126873, 53.056305, -73.94319),
);

// Both halves of the diverging map run from the neutral middle (0) to an end (1).
const DIVERGING_LOW = array<vec3<f32>, 3>(
    vec3<f32>(0.95, 0.95, 0.93),
    vec3<f32>(-1.13, -0.49, -0.01),
    vec3<f32>(0.26, -0.18, -0.34),
);

const DIVERGING_HIGH = array<vec3<f32>, 3>(
    vec3<f32>(0.95, 0.95, 0.93),
    vec3<f32>(0.23, -0.63, -1.23),
    vec3<f32>(-0.58, -0.22, 0.42),
);

fn viridis(t: f32) -> vec3<f32> {
    var color = VIRIDIS[6] + t * VIRIDIS[7];
    color = VIRIDIS[5] + t * color;
    color = VIRIDIS[4] + t * color;
    color = VIRIDIS[3] + t * color;
    color = VIRIDIS[2] + t * color;
    color = VIRIDIS[1] + t * color;
    return VIRIDIS[0] + t * color;
}

fn magma(t: f32) -> vec3<f32> {
    var color = MAGMA[6] + t * MAGMA[7];
    color = MAGMA[5] + t * color;
    color = MAGMA[4] + t * color;
    color = MAGMA[3] + t * color;
    color = MAGMA[2] + t * color;
    color = MAGMA[1] + t * color;
    return MAGMA[0] + t * color;
}

fn diverging(t: f32) -> vec3<f32> {
    let side = abs(2.0 * t - 1.0);
    if t < 0.5 {
        return DIVERGING_LOW[0] + side * (DIVERGING_LOW[1] + side * DIVERGING_LOW[2]);
    }
    return DIVERGING_HIGH[0] + side * (DIVERGING_HIGH[1] + side * DIVERGING_HIGH[2]);
}

// `map` counts as `ColorMap` does: viridis, magma, diverging, gray.
fn map_color(map: u32, position: f32) -> vec3<f32> {
    let t = clamp(position, 0.0, 1.0);
    var color = vec3<f32>(t);
    switch map {
        case 0u: {
            color = viridis(t);
        }
        case 1u: {
            color = magma(t);
        }
        case 2u: {
            color = diverging(t);
        }
        default: {}
    }
    return clamp(color, vec3<f32>(0.0), vec3<f32>(1.0));
}
