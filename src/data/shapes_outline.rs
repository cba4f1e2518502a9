//! Outlines of the eight classes of the built-in Shapes set, as polygons around the origin.
//!
//! Nothing here calls sine or cosine: the platform's versions differ in the last bit, and the same seed must give the
//! same pixels everywhere. Directions come from the rational points ((1 − t²)/(1 + t²), 2t/(1 + t²)) of the unit circle.

/// Closed polygons filled by the even-odd rule. Unit size: the circle has radius 1, the others about its area.
pub(super) type Outline = Vec<Vec<[f64; 2]>>;

/// No outline point is farther from the origin than this.
pub(super) const REACH: f64 = 1.3;

/// Steps in a quarter of the circle; at radius 100 the polygon misses the circle by at most 0.1 pixels.
const QUARTER_STEPS: u32 = 24;

/// Cosine and sine of the direction at `t` in `[0, 1)` of the quarter turn `quarter` (0 to 3).
pub(super) fn direction(t: f64, quarter: usize) -> (f64, f64) {
    let scale = 1.0 / (1.0 + t * t);
    let (cosine, sine) = ((1.0 - t * t) * scale, 2.0 * t * scale);
    match quarter % 4 {
        0 => (cosine, sine),
        1 => (-sine, cosine),
        2 => (-cosine, -sine),
        _ => (sine, -cosine),
    }
}

/// Points of the unit circle in one turn from (1, 0), four times `QUARTER_STEPS` of them.
pub(super) fn unit_circle() -> Vec<[f64; 2]> {
    let mut points = Vec::with_capacity(4 * QUARTER_STEPS as usize);
    for quarter in 0..4 {
        for step in 0..QUARTER_STEPS {
            let (cosine, sine) = direction(f64::from(step) / f64::from(QUARTER_STEPS), quarter);
            points.push([cosine, sine]);
        }
    }
    points
}

/// Directions of the ten corners of a star, 36° apart from straight up; only these need irrational constants.
const TENTHS: [[f64; 2]; 10] = [
    [0.0, -1.0],
    [0.587_785_252_292_473_1, -0.809_016_994_374_947_4],
    [0.951_056_516_295_153_5, -0.309_016_994_374_947_4],
    [0.951_056_516_295_153_5, 0.309_016_994_374_947_4],
    [0.587_785_252_292_473_1, 0.809_016_994_374_947_4],
    [0.0, 1.0],
    [-0.587_785_252_292_473_1, 0.809_016_994_374_947_4],
    [-0.951_056_516_295_153_5, 0.309_016_994_374_947_4],
    [-0.951_056_516_295_153_5, -0.309_016_994_374_947_4],
    [-0.587_785_252_292_473_1, -0.809_016_994_374_947_4],
];

fn scaled(points: &[[f64; 2]], factor: f64) -> Vec<[f64; 2]> {
    points.iter().map(|p| [p[0] * factor, p[1] * factor]).collect()
}

/// The outline of a class, by index into `shapes::CLASSES`; classes beyond the last are circles.
pub(super) fn outline(class: u32) -> Outline {
    match class {
        1 => vec![vec![[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]]],
        2 => vec![vec![[0.0, -1.25], [1.082_531_754_730_548, 0.625], [-1.082_531_754_730_548, 0.625]]],
        3 => vec![scaled(&unit_circle(), 1.05), scaled(&unit_circle(), 0.55)],
        4 => vec![cross(1.1, 0.36)],
        5 => {
            let corner = |(k, p): (usize, &[f64; 2])| {
                let radius = if k.is_multiple_of(2) { 1.25 } else { 0.5 };
                [p[0] * radius, p[1] * radius]
            };
            vec![TENTHS.iter().enumerate().map(corner).collect()]
        }
        6 => vec![vec![[0.0, -1.3], [0.72, 0.0], [0.0, 1.3], [-0.72, 0.0]]],
        7 => vec![crescent()],
        _ => vec![unit_circle()],
    }
}

/// A plus sign with arms `arm` long and twice `half` wide.
fn cross(arm: f64, half: f64) -> Vec<[f64; 2]> {
    vec![
        [-half, -arm],
        [half, -arm],
        [half, -half],
        [arm, -half],
        [arm, half],
        [half, half],
        [half, arm],
        [-half, arm],
        [-half, half],
        [-arm, half],
        [-arm, -half],
        [-half, -half],
    ]
}

/// The unit disc without a disc of radius 0.8 around (0.5, 0), moved so that its bounds are centred, and grown a little.
fn crescent() -> Vec<[f64; 2]> {
    // The circles meet at x = (1 − 0.8² + 0.5²) / (2 · 0.5) = 0.61, y = √(1 − 0.61²).
    let tip_x = 0.61;
    let tip_y = (1.0f64 - tip_x * tip_x).sqrt();
    let circle = unit_circle();
    let mut points = vec![[tip_x, tip_y]];
    points.extend(circle.iter().copied().filter(|p| p[0] < tip_x));
    points.push([tip_x, -tip_y]);
    let inner = circle.iter().map(|p| [0.5 + 0.8 * p[0], 0.8 * p[1]]).filter(|p| p[0] < tip_x);
    let mut inner: Vec<[f64; 2]> = inner.collect();
    inner.reverse();
    points.extend(inner);
    points.iter().map(|p| [(p[0] + 0.195) * 1.15, p[1] * 1.15]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Area of one polygon by the shoelace formula.
    fn area(polygon: &[[f64; 2]]) -> f64 {
        let mut twice = 0.0;
        for (k, a) in polygon.iter().enumerate() {
            let b = polygon[(k + 1) % polygon.len()];
            twice += a[0] * b[1] - b[0] * a[1];
        }
        twice.abs() / 2.0
    }

    #[test]
    fn directions_have_unit_length_and_go_round_once() {
        let circle = unit_circle();
        assert_eq!(circle.len(), 96);
        for (k, p) in circle.iter().enumerate() {
            assert!((p[0] * p[0] + p[1] * p[1] - 1.0).abs() < 1e-12);
            let q = circle[(k + 1) % 96];
            assert!(p[0] * q[1] - q[0] * p[1] > 0.0, "each step turns the same way");
        }
        // a 96-gon inscribed in the unit circle covers nearly pi
        assert!((area(&circle) - std::f64::consts::PI).abs() < 0.01);
    }

    #[test]
    fn outlines_stay_within_reach_and_are_solid_enough() {
        for class in 0..8 {
            let polygons = outline(class);
            for p in polygons.iter().flatten() {
                assert!(p[0] * p[0] + p[1] * p[1] <= REACH * REACH + 1e-9, "class {class}: {p:?}");
            }
            let hole = if polygons.len() > 1 { area(&polygons[1]) } else { 0.0 };
            let solid = area(&polygons[0]) - hole;
            assert!(solid > 1.2 && solid < 3.5, "class {class} covers {solid}");
        }
    }

    #[test]
    fn the_crescent_has_the_area_of_a_disc_without_its_lens() {
        // The overlap of the two discs is two circular segments on either side of x = 0.61: of the unit disc
        // acos(0.61) − 0.61·tip, of the smaller one 0.8²·(π − acos(0.11/0.8)) + 0.11·tip.
        let tip = (1.0f64 - 0.61 * 0.61).sqrt();
        let overlap = 0.61f64.acos() - 0.61 * tip + 0.64 * (std::f64::consts::PI - 0.1375f64.acos()) + 0.11 * tip;
        let expected = (std::f64::consts::PI - overlap) * 1.15 * 1.15;
        assert!((area(&outline(7)[0]) - expected).abs() < 0.02, "{} against {expected}", area(&outline(7)[0]));
    }
}
