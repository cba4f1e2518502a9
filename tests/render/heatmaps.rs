//! Maps of numbers: colours, cells, holes.

use super::*;

/// A map over the whole of a 60 × 50 target.
fn heat_picture(fixture: &Fixture, input: &HeatmapInput<'_>, look: &HeatmapLook) -> Picture {
    let (gpu, renderer) = (&fixture.context.gpu, &fixture.renderers.heatmap);
    let target = Target::new(60, 50);
    let look = HeatmapLook { bounds: [0.0, 0.0, 60.0, 50.0], opacity: 1.0, ..*look };
    let mut draw = HeatmapDraw::new(gpu);
    draw.prepare(renderer, gpu, input, &look, &one_to_one(&target), &target).unwrap();
    fixture.draw(&target, |pass| draw.paint(renderer, pass))
}

#[test]
fn a_constant_map_has_the_colour_of_its_legend() {
    let Some(fixture) = fixture() else { return };
    for color_map in ColorMap::ALL {
        for (value, low, high) in [(0.25, 0.0, 1.0), (-3.0, -4.0, 4.0), (9.0, 0.0, 1.0), (5.0, 5.0, 5.0)] {
            for smooth in [false, true] {
                let values = [value; 12];
                let input = HeatmapInput { version: 1, width: 4, height: 3, values: &values };
                let look = HeatmapLook { low, high, color_map, smooth, ..HeatmapLook::default() };
                let picture = heat_picture(&fixture, &input, &look);
                let expected = color_map.rgb(range_position(value, low, high));
                for (x, y) in [(0, 0), (59, 49), (30, 25)] {
                    picture.expect(x, y, expected);
                }
            }
        }
    }
}

#[test]
fn cells_are_squares_or_blend_and_holes_show_what_is_below() {
    let Some(fixture) = fixture() else { return };
    let values = [0.0, 1.0, f32::NAN, 0.0, 1.0, f32::INFINITY];
    let input = HeatmapInput { version: 1, width: 3, height: 2, values: &values };
    let gray = HeatmapLook { color_map: ColorMap::Gray, ..HeatmapLook::default() };
    let squares = heat_picture(&fixture, &input, &gray);
    squares.expect(19, 10, BLACK);
    squares.expect(20, 10, WHITE);
    squares.expect(50, 10, BLACK);
    squares.expect(50, 40, BLACK);
    let blended = heat_picture(&fixture, &input, &HeatmapLook { smooth: true, ..gray });
    // Cell centres are at 10 and 30: the middle of the pixel at 20 is 0.525 of the way.
    blended.expect(20, 10, [134; 3]);
    blended.expect(30, 10, WHITE);
    // No value is made up beside a hole.
    blended.expect(39, 10, WHITE);
    blended.expect(50, 10, BLACK);
}

#[test]
fn a_map_that_does_not_fit_its_size_is_an_error_and_range_changes_send_no_numbers() {
    let Some(fixture) = fixture() else { return };
    let (gpu, renderer) = (&fixture.context.gpu, &fixture.renderers.heatmap);
    let target = Target::new(8, 8);
    let mut draw = HeatmapDraw::new(gpu);
    let view = one_to_one(&target);
    let values = [1.0; 4];
    for high in [1.0, 2.0, 3.0] {
        let input = HeatmapInput { version: 1, width: 2, height: 2, values: &values };
        let look = HeatmapLook { high, ..HeatmapLook::default() };
        draw.prepare(renderer, gpu, &input, &look, &view, &target).unwrap();
    }
    assert_eq!((draw.uploads, draw.uniform_uploads), (1, 3));
    for (width, height) in [(2, 3), (0, 0), (u32::MAX, u32::MAX)] {
        let values = vec![0.0; if width == 0 { 0 } else { 4 }];
        let input = HeatmapInput { version: 2, width, height, values: &values };
        assert!(draw.prepare(renderer, gpu, &input, &HeatmapLook::default(), &view, &target).is_err());
    }
}
