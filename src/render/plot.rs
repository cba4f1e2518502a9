//! Axes of a plot in a rectangle of the target, and their uniform twin `Plot` in `shaders/plot.wgsl`.

use super::shader::{Twin, describe_twin};
use super::view::{Target, Viewport};

/// The rectangle of a plot and the values at its edges.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plot {
    pub area: Viewport,
    /// Values at the left and the right edge.
    pub x_range: [f32; 2],
    /// Values at the bottom and the top edge; above 0 when `log_y` is on.
    pub y_range: [f32; 2],
    pub log_y: bool,
}

/// Smallest number a logarithmic axis tells from zero; as in the shader.
const TINY: f32 = 1.0e-30;

impl Plot {
    /// Target pixel of a value, for labels and hit tests: the shader's arithmetic, without its limit for far points.
    pub fn screen_from_value(&self, point: [f32; 2]) -> [f32; 2] {
        let [bottom, top] = self.y_range;
        let rise = if self.log_y {
            share(point[1].max(TINY).log2(), bottom.max(TINY).log2(), top.max(TINY).log2())
        } else {
            share(point[1], bottom, top)
        };
        let run = share(point[0], self.x_range[0], self.x_range[1]);
        [self.area.x + self.area.width * run, self.area.y + self.area.height * (1.0 - rise)]
    }

    /// Value under a target pixel.
    pub fn value_from_screen(&self, point: [f32; 2]) -> [f32; 2] {
        let run = (point[0] - self.area.x) / self.area.width;
        let rise = 1.0 - (point[1] - self.area.y) / self.area.height;
        let between = |low: f32, high: f32, share: f32| low + share * (high - low);
        let [bottom, top] = self.y_range;
        let y = if self.log_y {
            between(bottom.max(TINY).log2(), top.max(TINY).log2(), rise).exp2()
        } else {
            between(bottom, top, rise)
        };
        [between(self.x_range[0], self.x_range[1], run), y]
    }
}

/// 0 at `low`, 1 at `high`; the middle when the range is empty.
fn share(value: f32, low: f32, high: f32) -> f32 {
    let span = high - low;
    if span.abs() < TINY { 0.5 } else { (value - low) / span }
}

/// Twin of `Plot` in `shaders/plot.wgsl`.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct PlotUniform {
    area: [f32; 4],
    x_range: [f32; 2],
    y_range: [f32; 2],
    target_size: [f32; 2],
    log_y: u32,
    padding: u32,
}

impl PlotUniform {
    pub fn new(plot: &Plot, target: &Target) -> Self {
        Self {
            area: [plot.area.x, plot.area.y, plot.area.width, plot.area.height],
            x_range: plot.x_range,
            y_range: plot.y_range,
            target_size: [target.width as f32, target.height as f32],
            log_y: u32::from(plot.log_y),
            padding: 0,
        }
    }

    pub fn twin() -> Twin {
        describe_twin!(PlotUniform, "plot.wgsl", "Plot", [area, x_range, y_range, target_size, log_y])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(log_y: bool) -> Plot {
        Plot { area: Viewport::new(10.0, 20.0, 200.0, 100.0), x_range: [0.0, 50.0], y_range: [0.01, 100.0], log_y }
    }

    #[test]
    fn values_stand_where_the_axes_say() {
        assert_eq!(plot(false).screen_from_value([25.0, 100.0]), [110.0, 20.0]);
        // 1 is half way from 0.01 to 100 on a logarithmic axis.
        let [x, y] = plot(true).screen_from_value([0.0, 1.0]);
        assert_eq!(x, 10.0);
        assert!((y - 70.0).abs() < 1e-3, "{y}");
    }

    #[test]
    fn screen_and_value_are_inverse() {
        for log_y in [false, true] {
            let point = [12.5, 3.0];
            let back = plot(log_y).value_from_screen(plot(log_y).screen_from_value(point));
            assert!((back[0] - point[0]).abs() < 1e-3 && (back[1] - point[1]).abs() < 1e-3, "{back:?}");
        }
    }

    #[test]
    fn an_empty_range_and_zero_on_a_logarithmic_axis_give_numbers() {
        let flat = Plot { x_range: [3.0, 3.0], y_range: [1.0, 1.0], ..plot(true) };
        assert_eq!(flat.screen_from_value([3.0, 1.0]), [110.0, 70.0]);
        assert!(plot(true).screen_from_value([0.0, 0.0])[1].is_finite());
    }
}
