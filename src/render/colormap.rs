//! Colour maps on the CPU, for legends: the same polynomials as `shaders/colormap.wgsl`.
//!
//! Viridis and magma are minimax-weighted least-squares fits of degree 7 to the 256 colours that matplotlib
//! publishes under CC0; they stay within 4/255 of them. The diverging map is blue, neutral, red.

/// Polynomial coefficients, lowest power first, for red, green and blue.
type Polynomial<const N: usize> = [[f32; 3]; N];

const VIRIDIS: Polynomial<8> = [
    [0.260833, 0.005428, 0.32464],
    [1.074588, 1.478541, 1.994056],
    [-14.381527, -1.120934, -8.82683],
    [75.93535, 2.166507, 32.101547],
    [-218.19472, -8.308449, -87.53385],
    [329.32004, 19.111177, 145.05548],
    [-239.83032, -19.29725, -127.13574],
    [66.810745, 6.871626, 44.159115],
];

const MAGMA: Polynomial<8> = [
    [0.007276, -0.012291, 0.012295],
    [-0.398773, 1.535508, 1.299383],
    [17.05047, -15.249422, 16.806181],
    [-75.1094, 78.967354, -105.643906],
    [180.60455, -205.64348, 265.45816],
    [-233.52225, 285.02893, -357.96057],
    [149.4864, -196.6944, 254.70836],
    [-37.126873, 53.056305, -73.94319],
];

const DIVERGING_LOW: Polynomial<3> = [[0.95, 0.95, 0.93], [-1.13, -0.49, -0.01], [0.26, -0.18, -0.34]];
const DIVERGING_HIGH: Polynomial<3> = [[0.95, 0.95, 0.93], [0.23, -0.63, -1.23], [-0.58, -0.22, 0.42]];

/// A colour map. The numbers are those of `map_color` in `shaders/colormap.wgsl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ColorMap {
    /// Magnitudes.
    #[default]
    Viridis = 0,
    /// Magnitudes over a dark ground.
    Magma = 1,
    /// Signed values: blue below, red above, neutral in the middle of the range. Give it a range around zero.
    Diverging = 2,
    Gray = 3,
}

impl ColorMap {
    pub const ALL: [Self; 4] = [Self::Viridis, Self::Magma, Self::Diverging, Self::Gray];

    /// Name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Viridis => "viridis",
            Self::Magma => "magma",
            Self::Diverging => "diverging",
            Self::Gray => "gray",
        }
    }

    /// Colour at `position` (0 to 1, clamped; NaN counts as 0): gamma-encoded red, green, blue from 0 to 1.
    pub fn color(self, position: f32) -> [f32; 3] {
        let t = if position.is_nan() { 0.0 } else { position.clamp(0.0, 1.0) };
        let side = (2.0 * t - 1.0).abs();
        let color = match self {
            Self::Viridis => evaluate(&VIRIDIS, t),
            Self::Magma => evaluate(&MAGMA, t),
            Self::Diverging if t < 0.5 => evaluate(&DIVERGING_LOW, side),
            Self::Diverging => evaluate(&DIVERGING_HIGH, side),
            Self::Gray => [t; 3],
        };
        color.map(|channel| channel.clamp(0.0, 1.0))
    }

    /// Colour at `position` in bytes.
    pub fn rgb(self, position: f32) -> [u8; 3] {
        self.color(position).map(|channel| (255.0 * channel).round() as u8)
    }
}

/// Place of `value` in the range, 0 at `low` and 1 at `high`, clamped; the middle when the range is empty.
pub fn range_position(value: f32, low: f32, high: f32) -> f32 {
    let span = high - low;
    if span.abs() > 1.0e-30 { ((value - low) / span).clamp(0.0, 1.0) } else { 0.5 }
}

fn evaluate<const N: usize>(polynomial: &Polynomial<N>, t: f32) -> [f32; 3] {
    polynomial.iter().rev().fold([0.0; 3], |sum, coefficients| {
        [coefficients[0] + t * sum[0], coefficients[1] + t * sum[1], coefficients[2] + t * sum[2]]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::ShaderLibrary;

    /// The numbers of one `array<vec3<f32>, N>` constant of the shader.
    fn shader_table(name: &str) -> Vec<[f32; 3]> {
        let text = ShaderLibrary::embedded().assemble("colormap.wgsl").unwrap().text;
        let start = text.find(&format!("const {name} ")).unwrap_or_else(|| panic!("{name} is not in the shader"));
        let end = start + text[start..].find(';').unwrap();
        text[start..end]
            .split("vec3<f32>(")
            .skip(1)
            .map(|row| {
                let numbers: Vec<f32> =
                    row[..row.find(')').unwrap()].split(',').map(|number| number.trim().parse().unwrap()).collect();
                [numbers[0], numbers[1], numbers[2]]
            })
            .collect()
    }

    #[test]
    fn the_shader_has_the_same_tables() {
        assert_eq!(shader_table("VIRIDIS"), VIRIDIS);
        assert_eq!(shader_table("MAGMA"), MAGMA);
        assert_eq!(shader_table("DIVERGING_LOW"), DIVERGING_LOW);
        assert_eq!(shader_table("DIVERGING_HIGH"), DIVERGING_HIGH);
    }

    fn near(map: ColorMap, position: f32, expected: [u8; 3]) {
        let found = map.rgb(position);
        let worst = found.iter().zip(expected).map(|(&a, b)| a.abs_diff(b)).max().unwrap();
        assert!(worst <= 4, "{} at {position}: {found:?}, not {expected:?}", map.name());
    }

    #[test]
    fn magnitude_maps_follow_the_published_colours() {
        // Entries 0, 51, 102, 153, 204 and 255 of matplotlib's tables of 256.
        let viridis = [[68, 1, 84], [65, 68, 135], [42, 120, 142], [34, 168, 132], [122, 209, 81], [253, 231, 37]];
        let magma = [[0, 0, 4], [59, 15, 112], [140, 41, 129], [222, 73, 104], [254, 159, 109], [252, 253, 191]];
        for (index, (v, m)) in viridis.into_iter().zip(magma).enumerate() {
            near(ColorMap::Viridis, index as f32 / 5.0, v);
            near(ColorMap::Magma, index as f32 / 5.0, m);
        }
    }

    #[test]
    fn the_diverging_map_is_neutral_in_the_middle_and_darkens_to_both_sides() {
        let luma = |color: [f32; 3]| 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2];
        let middle = ColorMap::Diverging.color(0.5);
        assert_eq!(middle, [0.95, 0.95, 0.93]);
        for step in 0..50 {
            let (near, far) = (step as f32 / 100.0, (step + 1) as f32 / 100.0);
            for sign in [-1.0, 1.0] {
                let inner = ColorMap::Diverging.color(0.5 + sign * near);
                let outer = ColorMap::Diverging.color(0.5 + sign * far);
                assert!(luma(outer) < luma(inner));
            }
        }
        let (low, high) = (ColorMap::Diverging.color(0.0), ColorMap::Diverging.color(1.0));
        assert!(low[2] > 2.0 * low[0] && high[0] > 2.0 * high[2], "{low:?} {high:?}");
    }

    #[test]
    fn positions_are_clamped_and_an_empty_range_is_its_middle() {
        assert_eq!(range_position(5.0, 0.0, 10.0), 0.5);
        assert_eq!(range_position(-5.0, 0.0, 10.0), 0.0);
        assert_eq!(range_position(15.0, 0.0, 10.0), 1.0);
        assert_eq!(range_position(7.0, 3.0, 3.0), 0.5);
        assert_eq!(range_position(2.0, 10.0, 0.0), 0.8);
        for map in ColorMap::ALL {
            assert_eq!(map.color(f32::NAN), map.color(0.0));
            assert_eq!(map.color(9.0), map.color(1.0));
        }
    }
}
