//! Feature maps whose channels the device reduces.

use super::*;
use boxwright::trace::FeatureMap;
use boxwright::trace::reduce::Reduction;

/// Three channels of 5 × 3 with numbers of both signs, and a hole in the second one.
fn feature_map() -> FeatureMap {
    let mut data: Vec<f32> = (0..45).map(|i| ((i * 29) % 17) as f32 / 8.0 - 1.0).collect();
    data[15 + 7] = f32::NAN;
    FeatureMap { channels: 3, height: 3, width: 5, data, ..FeatureMap::default() }
}

#[test]
fn reductions_look_as_those_of_the_cpu_and_changing_them_is_no_upload() {
    let Some(fixture) = fixture() else { return };
    let (gpu, renderers) = (&fixture.context.gpu, &fixture.renderers);
    if renderers.reduce.most_bytes() == 0 {
        println!("skipped: the adapter does not compute");
        return;
    }
    let map = feature_map();
    let input = ReduceInput { version: 1, width: 5, height: 3, values: &map.data };
    let target = Target::new(50, 30);
    let (view, bounds) = (one_to_one(&target), [0.0, 0.0, 50.0, 30.0]);
    let look = HeatmapLook { bounds, low: -1.0, high: 1.0, opacity: 1.0, ..HeatmapLook::default() };
    let mut draw = ReduceDraw::new(gpu);
    let mut heat = HeatmapDraw::new(gpu);
    let channels = [0, 1, 2, 9].map(Reduction::Channel);
    let all = [Reduction::Mean, Reduction::Max].into_iter().chain(channels);
    for (version, how) in (1..).zip(all) {
        draw.prepare(&renderers.reduce, &renderers.heatmap, gpu, &input, how, &look, &view, &target).unwrap();
        let found = fixture.draw(&target, |pass| draw.paint(&renderers.heatmap, pass));
        let values = map.reduced(how);
        let reduced = HeatmapInput { version, width: 5, height: 3, values: &values };
        heat.prepare(&renderers.heatmap, gpu, &reduced, &look, &view, &target).unwrap();
        let expected = fixture.draw(&target, |pass| heat.paint(&renderers.heatmap, pass));
        let worst = found.pixels.iter().zip(&expected.pixels).map(|(a, b)| a.abs_diff(*b)).max();
        assert!(worst.unwrap() <= 2, "{how:?}: {worst:?}");
        assert!(!found.is(5, 5, BLACK), "{how:?} shows nothing");
    }
    // The last two channels are the same one: no number changes, nothing is reduced again.
    assert_eq!((draw.uploads, draw.uniform_uploads), (1, 5));
    // Colours and range are uniforms of the heat map.
    let wide = HeatmapLook { high: 5.0, color_map: ColorMap::Gray, ..look };
    let one = Reduction::Channel(2);
    draw.prepare(&renderers.reduce, &renderers.heatmap, gpu, &input, one, &wide, &view, &target).unwrap();
    assert_eq!((draw.uploads, draw.uniform_uploads), (1, 5));
}

#[test]
fn a_new_map_is_reduced_and_one_without_a_whole_channel_is_an_error() {
    let Some(fixture) = fixture() else { return };
    let (gpu, renderers) = (&fixture.context.gpu, &fixture.renderers);
    if renderers.reduce.most_bytes() == 0 {
        return;
    }
    let target = Target::new(8, 8);
    let view = one_to_one(&target);
    let look =
        HeatmapLook { bounds: [0.0, 0.0, 8.0, 8.0], opacity: 1.0, color_map: ColorMap::Gray, ..HeatmapLook::default() };
    let mut draw = ReduceDraw::new(gpu);
    let prepare = |draw: &mut ReduceDraw, version: u64, side: u32, values: &[f32]| {
        let input = ReduceInput { version, width: side, height: side, values };
        let mean = Reduction::Mean;
        draw.prepare(&renderers.reduce, &renderers.heatmap, gpu, &input, mean, &look, &view, &target)
    };
    // The same shape with other numbers leaves the uniform as it is.
    for (version, value, color) in [(1, 0.0, BLACK), (2, 1.0, WHITE)] {
        prepare(&mut draw, version, 2, &[value; 8]).unwrap();
        fixture.draw(&target, |pass| draw.paint(&renderers.heatmap, pass)).expect(4, 4, color);
    }
    for (side, values) in [(2, &[0.0; 3][..]), (0, &[]), (u32::MAX, &[0.0])] {
        assert!(prepare(&mut draw, 3, side, values).is_err());
    }
    fixture.draw(&target, |pass| draw.paint(&renderers.heatmap, pass)).expect(4, 4, WHITE);
}
