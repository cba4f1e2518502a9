//! Rectangles: outlines, filters, styles, highlights, several views.

use super::*;

fn style() -> BoxStyle {
    BoxStyle { class_colors: vec![[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0]], ..BoxStyle::default() }
}

/// Draws boxes at 1:1 with lines 2 pixels wide.
fn boxes_picture(fixture: &Fixture, boxes: &[BoxInstance], filter: &BoxFilter, look: &BoxLook) -> Picture {
    let (gpu, renderer) = (&fixture.context.gpu, &fixture.renderers.boxes);
    let target = Target::new(64, 64);
    let mut draw = BoxDraw::new(renderer, gpu);
    let input = BoxInput { version: 1, boxes, style: &style() };
    draw.prepare(gpu, &input, filter, look, &one_to_one(&target), &target).unwrap();
    fixture.draw(&target, |pass| draw.paint(renderer, pass))
}

#[test]
fn a_box_is_an_outline_in_its_class_colour() {
    let Some(fixture) = fixture() else { return };
    let boxes = [BoxInstance::new([4.0, 4.0, 24.0, 16.0], 1.0, 0), BoxInstance::new([30.0, 30.0, 60.0, 50.0], 1.0, 1)];
    let picture = boxes_picture(&fixture, &boxes, &BoxFilter::default(), &BoxLook::default());
    for (x, y) in [(3, 10), (4, 10), (23, 10), (24, 10), (14, 3), (14, 4), (14, 15), (14, 16), (3, 3), (24, 16)] {
        picture.expect(x, y, RED);
    }
    for (x, y) in [(2, 10), (5, 10), (22, 10), (25, 10), (14, 2), (14, 5), (14, 14), (14, 17)] {
        picture.expect(x, y, BLACK);
    }
    picture.expect(30, 40, GREEN);
    picture.expect(45, 40, BLACK);
}

#[test]
fn the_threshold_hides_a_box_without_sending_boxes_again() {
    let Some(fixture) = fixture() else { return };
    let (gpu, renderer) = (&fixture.context.gpu, &fixture.renderers.boxes);
    let boxes = [BoxInstance::new([4.0, 4.0, 24.0, 16.0], 0.3, 0), BoxInstance::new([30.0, 4.0, 50.0, 16.0], 0.8, 0)];
    let (style, target) = (style(), Target::new(64, 64));
    let input = BoxInput { version: 7, boxes: &boxes, style: &style };
    let mut draw = BoxDraw::new(renderer, gpu);
    let mut uploads = None;
    for (score_min, first, second) in [(0.0, RED, RED), (0.5, BLACK, RED), (0.9, BLACK, BLACK), (0.1, RED, RED)] {
        let filter = BoxFilter { score_min, ..BoxFilter::default() };
        let look = BoxLook::default();
        draw.prepare(gpu, &input, &filter, &look, &one_to_one(&target), &target).unwrap();
        let picture = fixture.draw(&target, |pass| draw.paint(renderer, pass));
        picture.expect(4, 10, first);
        picture.expect(30, 10, second);
        assert_eq!(draw.uploads, *uploads.get_or_insert(draw.uploads));
    }
    assert_eq!(draw.uniform_uploads, 4);
}

#[test]
fn the_shader_shows_what_the_filter_says_on_the_cpu() {
    let Some(fixture) = fixture() else { return };
    // One small box for each combination that some filter tells apart, 8 in a row.
    let mut boxes = Vec::new();
    for index in 0..64u32 {
        let (x, y) = ((index % 8 * 8) as f32, (index / 8 * 8) as f32);
        let outcomes = [Outcome::None, Outcome::TruePositive, Outcome::FalsePositive, Outcome::Ignored];
        let assignments = [BoxAssignment::Positive, BoxAssignment::Negative, BoxAssignment::Mined];
        let classes = [0, 1, 31, 32, 127, 128, 511, 512, 600];
        let score = if index == 13 { f32::NAN } else { index as f32 / 64.0 };
        let instance = BoxInstance::new([x + 2.0, y + 2.0, x + 6.0, y + 6.0], score, classes[index as usize % 9])
            .with_level(index % 5 * 10)
            .with_outcome(outcomes[index as usize % 4])
            .with_assignment(assignments[index as usize % 3])
            .with_style(LineStyle::Solid);
        boxes.push(instance);
    }
    let all = BoxFilter::default();
    let mut classes = ClassMask::ALL;
    for class in [1, 32, 127, 511] {
        classes.set(class, false);
    }
    for filter in [
        all,
        BoxFilter { score_min: 0.25, score_max: 0.75, ..all },
        BoxFilter { classes, ..all },
        BoxFilter { classes: ClassMask::NONE, ..all },
        BoxFilter { isolated_class: Some(600), ..all },
        BoxFilter { levels: 1 << 20, ..all },
        BoxFilter { outcomes: 1 << Outcome::FalsePositive as u32, ..all },
        BoxFilter { assignments: !(1 << BoxAssignment::Mined as u32), ..all },
    ] {
        let picture = boxes_picture(&fixture, &boxes, &filter, &BoxLook::default());
        for (index, instance) in (0..).zip(&boxes) {
            let drawn = !picture.is(index % 8 * 8 + 2, index / 8 * 8 + 4, BLACK);
            assert_eq!(drawn, filter.shows(instance), "box {index}: {instance:?} with {filter:?}");
        }
    }
}

#[test]
fn line_styles_follow_the_outcome() {
    let Some(fixture) = fixture() else { return };
    let bbox = [8.0, 8.0, 56.0, 40.0];
    let draw = |outcome: Outcome| {
        let boxes = [BoxInstance::new(bbox, 1.0, 0).with_outcome(outcome)];
        boxes_picture(&fixture, &boxes, &BoxFilter::default(), &BoxLook::default())
    };
    let along_top = |picture: &Picture| (8..56).filter(|&x| picture.is(x, 8, RED)).count();
    let inside =
        |picture: &Picture| (10..54).flat_map(|x| (10..38).map(move |y| (x, y))).any(|(x, y)| !picture.is(x, y, BLACK));
    let solid = draw(Outcome::TruePositive);
    assert_eq!(along_top(&solid), 48);
    assert!(!inside(&solid));
    let dashed = along_top(&draw(Outcome::FalseNegative));
    assert!((20..40).contains(&dashed), "{dashed} of 48 pixels");
    let dotted = draw(Outcome::Duplicate);
    assert!((16..34).contains(&along_top(&dotted)) && !inside(&dotted));
    let hatched = draw(Outcome::Ignored);
    assert_eq!(along_top(&hatched), 48);
    assert!(inside(&hatched));
}

#[test]
fn selected_and_hovered_boxes_stand_out_over_later_ones() {
    let Some(fixture) = fixture() else { return };
    let boxes =
        [BoxInstance::new([10.0, 10.0, 50.0, 50.0], 1.0, 0), BoxInstance::new([10.0, 10.0, 50.0, 50.0], 1.0, 1)];
    let draw = |selected: Option<u32>, hovered: Option<u32>| {
        let look = BoxLook { selected, hovered, ..BoxLook::default() };
        boxes_picture(&fixture, &boxes, &BoxFilter::default(), &look)
    };
    draw(None, None).expect(10, 30, GREEN);
    // An index that does not exist is no box.
    draw(Some(2), Some(u32::MAX)).expect(10, 30, GREEN);
    for picture in [draw(Some(0), None), draw(None, Some(0))] {
        picture.expect(10, 30, RED);
        let inside = picture.at(30, 30);
        assert!(inside[0] > 15 && inside[1] == 0, "the inside is tinted: {inside:?}");
    }
    // Two pixels more of line than the others.
    let selected = draw(Some(0), None);
    assert_eq!((5..15).filter(|&x| selected.is(x, 30, RED)).count(), 4);
    // A filter hides the selected box too.
    let look = BoxLook { selected: Some(0), ..BoxLook::default() };
    let filter = BoxFilter { isolated_class: Some(1), ..BoxFilter::default() };
    boxes_picture(&fixture, &boxes, &filter, &look).expect(10, 30, GREEN);
}

#[test]
fn colours_can_tell_score_and_outcome() {
    let Some(fixture) = fixture() else { return };
    let boxes = [BoxInstance::new([10.0, 10.0, 50.0, 50.0], 0.7, 0).with_outcome(Outcome::TruePositive)];
    let draw = |color: BoxColor| {
        boxes_picture(&fixture, &boxes, &BoxFilter::default(), &BoxLook { color, ..BoxLook::default() })
    };
    draw(BoxColor::Score).expect(10, 30, ColorMap::Viridis.rgb(0.7));
    let [r, g, b, _] = BoxStyle::default().outcome_colors[Outcome::TruePositive as usize];
    draw(BoxColor::Outcome).expect(10, 30, [r, g, b].map(|channel| (255.0 * channel).round() as u8));
}

#[test]
fn parts_of_a_mask_fill_every_pixel_once_in_the_colour_of_their_number() {
    let Some(fixture) = fixture() else { return };
    // Columns of one pixel beside each other, at a zoom that puts edges on the centres of pixels: from 14 to 50.
    let part = |x: f32| BoxInstance::new([x, 20.0, x + 1.0, 44.0], 1.0, 0).with_level(1);
    let boxes: Vec<BoxInstance> = (20..44u8).map(|x| part(f32::from(x))).collect();
    let (gpu, renderer) = (&fixture.context.gpu, &fixture.renderers.boxes);
    let (style, target) = (style(), Target::new(64, 64));
    let view = View { zoom: 1.5, ..one_to_one(&target) };
    let mut draw = BoxDraw::new(renderer, gpu);
    let input = BoxInput { version: 1, boxes: &boxes, style: &style };
    for (fill_opacity, expected) in [(1.0, GREEN), (0.5, [0, 128, 0])] {
        let look = BoxLook { line_width: 0.0, fill_opacity, color: BoxColor::Instance, ..BoxLook::default() };
        draw.prepare(gpu, &input, &BoxFilter::default(), &look, &view, &target).unwrap();
        let picture = fixture.draw(&target, |pass| draw.paint(renderer, pass));
        for (x, y) in (15..49).flat_map(|x| (15..49).map(move |y| (x, y))) {
            picture.expect(x, y, expected);
        }
        picture.expect(12, 30, BLACK);
        picture.expect(30, 52, BLACK);
    }
}

#[test]
fn two_views_of_the_same_boxes_are_prepared_before_either_is_painted() {
    let Some(fixture) = fixture() else { return };
    let (gpu, renderer) = (&fixture.context.gpu, &fixture.renderers.boxes);
    let boxes = [BoxInstance::new([4.0, 4.0, 24.0, 24.0], 0.5, 0)];
    let (style, target) = (style(), Target::new(64, 32));
    let input = BoxInput { version: 1, boxes: &boxes, style: &style };
    let look = BoxLook::default();
    let view = |x: f32| View { center_x: 16.0, center_y: 16.0, zoom: 1.0, viewport: Viewport::new(x, 0.0, 32.0, 32.0) };
    let mut left = BoxDraw::new(renderer, gpu);
    let mut right = BoxDraw::new(renderer, gpu);
    left.prepare(gpu, &input, &BoxFilter::default(), &look, &view(0.0), &target).unwrap();
    let strict = BoxFilter { score_min: 0.9, ..BoxFilter::default() };
    right.prepare(gpu, &input, &strict, &look, &view(32.0), &target).unwrap();
    let picture = fixture.draw(&target, |pass| {
        left.paint(renderer, pass);
        right.paint(renderer, pass);
    });
    picture.expect(4, 14, RED);
    picture.expect(36, 14, BLACK);
}

#[test]
fn many_boxes_are_drawn_and_nothing_leaves_the_view() {
    let Some(fixture) = fixture() else { return };
    let (gpu, renderer) = (&fixture.context.gpu, &fixture.renderers.boxes);
    // 200 × 200 boxes of 2 pixels, one in the middle of every 4 × 4; the view sees 16 × 16 of them.
    let boxes: Vec<BoxInstance> = (0..40_000u32)
        .map(|index| {
            let (x, y) = ((index % 200 * 4) as f32, (index / 200 * 4) as f32);
            BoxInstance::new([x + 1.0, y + 1.0, x + 3.0, y + 3.0], 1.0, 0)
        })
        .collect();
    let (style, target) = (style(), Target::new(96, 96));
    let view = View { center_x: 400.0, center_y: 400.0, zoom: 1.0, viewport: Viewport::new(16.0, 16.0, 64.0, 64.0) };
    let look = BoxLook { fill_opacity: 1.0, line_width: 1.0, ..BoxLook::default() };
    let mut draw = BoxDraw::new(renderer, gpu);
    let input = BoxInput { version: 1, boxes: &boxes, style: &style };
    draw.prepare(gpu, &input, &BoxFilter::default(), &look, &view, &target).unwrap();
    let picture = fixture.draw(&target, |pass| draw.paint(renderer, pass));
    for y in 0..96 {
        for x in 0..96 {
            let inside = (16..80).contains(&x) && (16..80).contains(&y);
            if !inside {
                picture.expect(x, y, BLACK);
            } else if x % 4 == 2 && y % 4 == 2 {
                picture.expect(x, y, RED);
            }
        }
    }
}

#[test]
fn scrubbing_between_stages_moves_boxes_and_sends_none() {
    let Some(fixture) = fixture() else { return };
    let (gpu, renderer) = (&fixture.context.gpu, &fixture.renderers.boxes);
    // The first box goes right, then down; the second is in the first stage alone.
    let gone = BoxInstance::new([4.0, 36.0, 24.0, 56.0], f32::NAN, 1);
    let at = |x: f32, y: f32| BoxInstance::new([x, y, x + 20.0, y + 20.0], 1.0, 0);
    let only = BoxInstance { score: 1.0, ..gone };
    let boxes = [at(4.0, 4.0), only, at(24.0, 4.0), gone, at(24.0, 24.0), gone];
    let (style, target) = (style(), Target::new(64, 64));
    let input = BoxInput { version: 1, boxes: &boxes, style: &style };
    let mut draw = BoxDraw::new(renderer, gpu);
    let mut scrub = |place: f32, selected: Option<u32>| {
        let look = BoxLook { stages: Some(Stages { each: 2, place }), selected, ..BoxLook::default() };
        draw.prepare(gpu, &input, &BoxFilter::default(), &look, &one_to_one(&target), &target).unwrap();
        (fixture.draw(&target, |pass| draw.paint(renderer, pass)), draw.uploads)
    };
    let (first, uploads) = scrub(0.0, None);
    first.expect(4, 14, RED);
    first.expect(4, 46, GREEN);
    for (place, corner, green) in [(0.25, [9, 4], 191), (0.5, [14, 4], 128), (1.0, [24, 4], 0), (1.5, [24, 14], 0)] {
        let (picture, sent) = scrub(place, None);
        assert_eq!(sent, uploads, "boxes were sent again at {place}");
        let [x, y] = corner;
        picture.expect(x, y + 10, RED);
        picture.expect(x + 10, y, RED);
        picture.expect(x - 3, y + 10, BLACK);
        let faded = picture.at(4, 46);
        assert!(faded[1].abs_diff(green) <= 2 && faded[0] == 0, "{faded:?} at {place}");
    }
    // A place beyond the last stage is the last stage; the selected box moves too.
    let (last, sent) = scrub(9.0, Some(0));
    assert_eq!(sent, uploads);
    last.expect(24, 34, RED);
    assert_eq!((19..29).filter(|&x| last.is(x, 34, RED)).count(), 4);
    let (between, _) = scrub(0.5, Some(0));
    assert_eq!((9..19).filter(|&x| between.is(x, 14, RED)).count(), 4);
    // An index that the stage does not have is no box, though the array has it.
    scrub(0.0, Some(2)).0.expect(4, 14, RED);
}
