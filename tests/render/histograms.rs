//! Histograms that the device counts.

use super::*;
use boxwright::stats::Histogram;

/// 10,000 numbers over and beyond 0 to 1 in three groups, all edges of 20 and 16 bins, and what is no number.
fn numbers() -> (Vec<f32>, Vec<u32>) {
    let spread = |i: u32| i.wrapping_mul(2_654_435_761) as f32 / u32::MAX as f32;
    let mut values: Vec<f32> = (0..10_000).map(|i| spread(i).powi(2) * 1.2 - 0.1).collect();
    for bins in [20, 16] {
        values.extend((0..=bins).map(|edge| edge as f32 / bins as f32));
    }
    values.extend([f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0]);
    let groups = (0..values.len() as u32).map(|i| i % 3).collect();
    (values, groups)
}

/// Rows of pixels for one count.
const ROWS: f32 = 3.0;

#[test]
fn bins_hold_what_the_cpu_counts_and_what_is_counted_is_no_upload() {
    let Some(fixture) = fixture() else { return };
    let (gpu, renderers) = (&fixture.context.gpu, &fixture.renderers);
    if !renderers.histograms.is_available() {
        println!("skipped: the adapter does not compute");
        return;
    }
    let (values, groups) = numbers();
    let input = HistogramInput { version: 1, values: &values, groups: &groups };
    let mut draw = HistogramDraw::default();
    let cases = [(0.0, 1.0, 20, None), (0.0, 1.0, 16, None), (0.0, 1.0, 20, Some(1)), (0.0, 0.5, 8, Some(2))];
    for (low, high, bins, group) in cases {
        let mut expected = Histogram::new(low, high, bins as usize);
        let counted = values.iter().zip(&groups).filter(|(_, own)| group.is_none_or(|group| group == **own));
        counted.for_each(|(&value, _)| expected.add(value));
        let highest = *expected.counts().iter().max().unwrap() as f32;
        // The highest bar ends at 1 of 1.04.
        let target = Target::new(bins, (ROWS * highest * 1.04).round() as u32);
        let bars = BarLook { color: [0.0, 1.0, 0.0, 1.0], gap: 0.0, ..BarLook::default() };
        let look = HistogramLook { low, high, bins, group, bars };
        let (histograms, area) = (&renderers.histograms, whole(&target));
        draw.prepare(histograms, &renderers.bars, gpu, 0, &input, &look, area, &target).unwrap();
        let picture = fixture.draw(&target, |pass| draw.paint(&renderers.bars, 0, pass));
        for (bin, &count) in expected.counts().iter().enumerate() {
            let rows = (0..target.height).filter(|&row| picture.is(bin as u32, row, GREEN)).count();
            let found = rows as f32 / ROWS;
            assert!((found - count as f32).abs() < 0.5, "{bins} bins of {group:?}: {found} in {bin}, not {count}");
        }
    }
    assert_eq!((draw.uploads, draw.uniform_uploads), (1, 4));
}

#[test]
fn two_histograms_of_the_same_numbers_keep_apart() {
    let Some(fixture) = fixture() else { return };
    let (gpu, renderers) = (&fixture.context.gpu, &fixture.renderers);
    if !renderers.histograms.is_available() {
        return;
    }
    let input = HistogramInput { version: 1, values: &[0.1, 0.9, f32::NAN], groups: &[0, 1, 1] };
    let target = Target::new(40, 20);
    let bars = BarLook { color: [0.0, 1.0, 0.0, 1.0], gap: 0.0, ..BarLook::default() };
    let mut draw = HistogramDraw::default();
    for view in 0..2 {
        let look = HistogramLook { low: 0.0, high: 1.0, bins: 2, group: Some(view), bars: bars.clone() };
        let area = Viewport::new(20.0 * view as f32, 0.0, 20.0, 20.0);
        let histograms = &renderers.histograms;
        draw.prepare(histograms, &renderers.bars, gpu, view as usize, &input, &look, area, &target).unwrap();
    }
    let picture = fixture.draw(&target, |pass| {
        draw.paint(&renderers.bars, 0, pass);
        draw.paint(&renderers.bars, 1, pass);
        // There is none of this number.
        draw.paint(&renderers.bars, 2, pass);
    });
    for (x, color) in [(5, GREEN), (15, BLACK), (25, BLACK), (35, GREEN)] {
        picture.expect(x, 15, color);
    }
    assert_eq!(draw.uploads, 1);
    let look = HistogramLook { low: 0.0, high: 1.0, bins: BIN_LIMIT + 1, group: None, bars };
    let area = whole(&target);
    let error = draw.prepare(&renderers.histograms, &renderers.bars, gpu, 0, &input, &look, area, &target);
    assert!(matches!(error, Err(RenderError::TooMany { .. })));
    // Nothing to count is no error, and no bar.
    let (look, nothing) = (HistogramLook { bins: 2, ..look }, HistogramInput { version: 2, values: &[], groups: &[] });
    draw.prepare(&renderers.histograms, &renderers.bars, gpu, 0, &nothing, &look, area, &target).unwrap();
    fixture.draw(&target, |pass| draw.paint(&renderers.bars, 0, pass)).expect(5, 15, BLACK);
}
