//! Bars and curves.

use super::*;

#[test]
fn bars_are_as_high_as_their_numbers_with_lines_at_the_thresholds() {
    let Some(fixture) = fixture() else { return };
    let (gpu, renderer) = (&fixture.context.gpu, &fixture.renderers.bars);
    let target = Target::new(100, 60);
    let plot =
        Plot { area: Viewport::new(10.0, 10.0, 80.0, 40.0), x_range: [0.0, 4.0], y_range: [0.0, 4.0], log_y: false };
    let look = BarLook {
        color: [0.0, 1.0, 0.0, 1.0],
        gap: 2.0,
        thresholds: vec![Threshold { value: 2.5, color: [1.0, 0.0, 0.0, 1.0] }],
        ..BarLook::default()
    };
    let mut draw = BarDraw::new(renderer, gpu);
    let heights = [1.0, 3.0, 99.0, f32::NAN];
    draw.prepare(gpu, &BarInput { version: 1, heights: &heights }, &look, &plot, &target).unwrap();
    let picture = fixture.draw(&target, |pass| draw.paint(renderer, pass));
    // 20 pixels a bar and 10 a unit, from the bottom at 50.
    for (x, top) in [(20, 40), (40, 20), (58, 10)] {
        picture.expect(x, 49, GREEN);
        picture.expect(x, top, GREEN);
        picture.expect(x, top - 1, BLACK);
    }
    // Gap between bars, the bar that is no number, the line, and nothing outside the plot.
    for (x, y) in [(30, 49), (80, 49), (60, 9), (60, 50)] {
        picture.expect(x, y, BLACK);
    }
    picture.expect(60, 30, RED);
    let wide = Plot { y_range: [0.0, 8.0], ..plot };
    draw.prepare(gpu, &BarInput { version: 1, heights: &heights }, &look, &wide, &target).unwrap();
    assert_eq!((draw.uploads, draw.uniform_uploads), (1, 2));
    // A bar that is lower than a pixel still shows.
    let flat = Plot { y_range: [0.0, 4000.0], ..plot };
    draw.prepare(gpu, &BarInput { version: 1, heights: &heights }, &look, &flat, &target).unwrap();
    let picture = fixture.draw(&target, |pass| draw.paint(renderer, pass));
    for (y, color) in [(49, GREEN), (48, BLACK)] {
        picture.expect(20, y, color);
    }
    let many = BarLook { thresholds: vec![look.thresholds[0]; THRESHOLD_LIMIT + 1], ..look };
    let error = draw.prepare(gpu, &BarInput { version: 1, heights: &heights }, &many, &plot, &target).unwrap_err();
    assert!(matches!(error, RenderError::TooMany { .. }));
}

#[test]
fn curves_pass_through_their_points_with_their_width_and_leave_gaps() {
    let Some(fixture) = fixture() else { return };
    let (gpu, renderer) = (&fixture.context.gpu, &fixture.renderers.curves);
    let target = Target::new(100, 60);
    let plot =
        Plot { area: Viewport::new(0.0, 0.0, 100.0, 60.0), x_range: [0.0, 10.0], y_range: [0.0, 6.0], log_y: false };
    // Level at the height of pixel row 30, with a hole between 4 and 6; a slope; a lone point.
    let level = [[1.0, 2.95], [2.0, 2.95], [4.0, 2.95], [5.0, f32::NAN], [6.0, 2.95], [9.0, 2.95]];
    let slope = [[0.0, 0.0], [3.0, 3.0 * 0.6]];
    let lone = [[8.05, 4.95]];
    let series: [&[[f32; 2]]; 3] = [&level, &slope, &lone];
    let style = |color: [f32; 4], width: f32| CurveStyle { color, width, dash: [0.0; 2] };
    let styles = [style([1.0, 0.0, 0.0, 1.0], 3.0), style([0.0, 1.0, 0.0, 1.0], 2.0), style([1.0; 4], 7.0)];
    let mut draw = CurveDraw::new(renderer, gpu);
    let input = CurveInput { version: 1, series: &series };
    draw.prepare(gpu, &input, &styles, &plot, &target).unwrap();
    let picture = fixture.draw(&target, |pass| draw.paint(renderer, pass));
    for x in [12, 20, 35, 65, 85] {
        for y in 29..=31 {
            picture.expect(x, y, RED);
        }
        picture.expect(x, 27, BLACK);
        picture.expect(x, 33, BLACK);
    }
    picture.expect(50, 30, BLACK);
    assert!(picture.at(15, 51)[1] > 100, "{:?}", picture.at(15, 51));
    picture.expect(80, 10, WHITE);
    picture.expect(80, 16, BLACK);
    // Hiding a series is a style, not new points.
    draw.prepare(gpu, &input, &styles[1..], &plot, &target).unwrap();
    assert_eq!((draw.uploads, draw.uniform_uploads), (1, 2));
}

#[test]
fn a_translucent_curve_is_not_darker_at_its_joints() {
    let Some(fixture) = fixture() else { return };
    let (gpu, renderer) = (&fixture.context.gpu, &fixture.renderers.curves);
    let target = Target::new(80, 40);
    let plot =
        Plot { area: Viewport::new(0.0, 0.0, 80.0, 40.0), x_range: [0.0, 80.0], y_range: [0.0, 40.0], log_y: false };
    let zigzag: Vec<[f32; 2]> = (0..8).map(|i| [5.0 + 10.0 * i as f32, if i % 2 == 0 { 12.0 } else { 28.0 }]).collect();
    let series: [&[[f32; 2]]; 1] = [&zigzag];
    let mut draw = CurveDraw::new(renderer, gpu);
    let styles = [CurveStyle { color: [1.0, 1.0, 1.0, 0.5], width: 6.0, dash: [0.0; 2] }];
    draw.prepare(gpu, &CurveInput { version: 1, series: &series }, &styles, &plot, &target).unwrap();
    let picture = fixture.draw(&target, |pass| draw.paint(renderer, pass));
    let brightest = picture.pixels.chunks_exact(4).map(|pixel| pixel[0]).max().unwrap();
    // Half of white; twice blended would be 191.
    assert!((126..=130).contains(&brightest), "{brightest}");
    let half = picture.pixels.chunks_exact(4).filter(|pixel| pixel[0].abs_diff(128) <= 2).count();
    assert!(half > 500, "{half}");
}

#[test]
fn a_line_between_points_far_outside_keeps_its_slope() {
    let Some(fixture) = fixture() else { return };
    let (gpu, renderer) = (&fixture.context.gpu, &fixture.renderers.curves);
    let target = Target::new(80, 40);
    // 8 pixels a unit of x, 20 a unit of y: the line is 20 pixels high at x = 1005, and rises little there.
    let plot = Plot { area: whole(&target), x_range: [1000.0, 1010.0], y_range: [0.0, 2.0], log_y: false };
    let line = [[0.0, -0.005], [50_000.0, 49.995]];
    let mut draw = CurveDraw::new(renderer, gpu);
    let styles = [CurveStyle { color: [1.0; 4], width: 4.0, dash: [0.0; 2] }];
    draw.prepare(gpu, &CurveInput { version: 1, series: &[&line] }, &styles, &plot, &target).unwrap();
    let picture = fixture.draw(&target, |pass| draw.paint(renderer, pass));
    for x in [5, 40, 75] {
        for (y, color) in [(15, BLACK), (19, WHITE), (20, WHITE), (24, BLACK)] {
            picture.expect(x, y, color);
        }
    }
}

#[test]
fn dashes_lie_along_the_x_axis() {
    let Some(fixture) = fixture() else { return };
    let (gpu, renderer) = (&fixture.context.gpu, &fixture.renderers.curves);
    let target = Target::new(80, 40);
    let plot =
        Plot { area: Viewport::new(0.0, 0.0, 80.0, 40.0), x_range: [0.0, 80.0], y_range: [0.0, 40.0], log_y: false };
    // Many short pieces: a pattern that began anew with each of them would be none.
    let level: Vec<[f32; 2]> = (0..=80).map(|x| [x as f32, 20.5]).collect();
    let mut draw = CurveDraw::new(renderer, gpu);
    let styles = [CurveStyle { color: [1.0; 4], width: 3.0, dash: [12.0, 8.0] }];
    draw.prepare(gpu, &CurveInput { version: 1, series: &[&level] }, &styles, &plot, &target).unwrap();
    let picture = fixture.draw(&target, |pass| draw.paint(renderer, pass));
    for start in [0, 20, 40, 60] {
        picture.expect(start + 6, 19, WHITE);
        picture.expect(start + 16, 19, BLACK);
    }
}

#[test]
fn bars_from_a_value_on_have_their_own_colour() {
    let Some(fixture) = fixture() else { return };
    let (gpu, renderer) = (&fixture.context.gpu, &fixture.renderers.bars);
    let target = Target::new(40, 20);
    let plot = Plot { area: whole(&target), x_range: [0.0, 4.0], y_range: [0.0, 1.0], log_y: false };
    let (color, above) = ([1.0, 0.0, 0.0, 1.0], Some((2.0, [0.0, 1.0, 0.0, 1.0])));
    let look = BarLook { color, above, gap: 0.0, ..BarLook::default() };
    let mut draw = BarDraw::new(renderer, gpu);
    draw.prepare(gpu, &BarInput { version: 1, heights: &[1.0; 4] }, &look, &plot, &target).unwrap();
    let picture = fixture.draw(&target, |pass| draw.paint(renderer, pass));
    for (x, color) in [(5, RED), (15, RED), (25, GREEN), (35, GREEN)] {
        picture.expect(x, 10, color);
    }
}
