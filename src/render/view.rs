//! Pan and zoom of a picture in a rectangle of the target, and its uniform twin `View` in `shaders/view.wgsl`.

use super::shader::{Twin, describe_twin};

/// Smallest zoom: 64 picture pixels on one of the screen.
pub const MIN_ZOOM: f32 = 1.0 / 64.0;
/// Largest zoom: one picture pixel is a square of 256 screen pixels.
pub const MAX_ZOOM: f32 = 256.0;

/// A rectangle in pixels of the target. It may reach over the target's edges.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Viewport {
    pub x: f32,
    pub y: f32,
    pub width: f32,
    pub height: f32,
}

impl Viewport {
    pub fn new(x: f32, y: f32, width: f32, height: f32) -> Self {
        Self { x, y, width, height }
    }

    /// The middle, in target pixels.
    pub fn center(&self) -> [f32; 2] {
        [self.x + 0.5 * self.width, self.y + 0.5 * self.height]
    }
}

/// What is drawn into.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Target {
    /// Pixels of the whole target, not of a part of it.
    pub width: u32,
    pub height: u32,
    /// Nothing is drawn outside (the visible part of a panel that scrolls); `None` for the whole target.
    pub clip: Option<Viewport>,
}

impl Target {
    pub fn new(width: u32, height: u32) -> Self {
        Self { width, height, clip: None }
    }
}

/// Which part of a picture is seen where.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct View {
    /// The picture's point in the middle of the viewport, in picture pixels: (0, 0) is the corner of the first pixel.
    pub center_x: f32,
    pub center_y: f32,
    /// Screen pixels per picture pixel, [`MIN_ZOOM`] to [`MAX_ZOOM`].
    pub zoom: f32,
    pub viewport: Viewport,
}

impl View {
    /// The whole picture of `image_size` (width, height) as large as the viewport allows, in its middle.
    pub fn fit(image_size: [f32; 2], viewport: Viewport) -> Self {
        let mut view = Self { center_x: 0.0, center_y: 0.0, zoom: 1.0, viewport };
        view.look_at([0.0, 0.0, image_size[0], image_size[1]]);
        view
    }

    /// Shows a rectangle (x0, y0, x1, y1 in picture pixels) as large as the viewport allows.
    pub fn look_at(&mut self, bounds: [f32; 4]) {
        self.center_x = 0.5 * (bounds[0] + bounds[2]);
        self.center_y = 0.5 * (bounds[1] + bounds[3]);
        let width = (bounds[2] - bounds[0]).abs().max(f32::MIN_POSITIVE);
        let height = (bounds[3] - bounds[1]).abs().max(f32::MIN_POSITIVE);
        self.zoom = clamp_zoom((self.viewport.width / width).min(self.viewport.height / height));
    }

    /// Target pixel of a point of the picture.
    pub fn screen_from_image(&self, point: [f32; 2]) -> [f32; 2] {
        let middle = self.viewport.center();
        [(point[0] - self.center_x) * self.zoom + middle[0], (point[1] - self.center_y) * self.zoom + middle[1]]
    }

    /// Point of the picture under a target pixel.
    pub fn image_from_screen(&self, point: [f32; 2]) -> [f32; 2] {
        let middle = self.viewport.center();
        [(point[0] - middle[0]) / self.zoom + self.center_x, (point[1] - middle[1]) / self.zoom + self.center_y]
    }

    /// Zooms by `factor` while the point under `pointer` (target pixels) stays where it is.
    pub fn zoom_at(&mut self, pointer: [f32; 2], factor: f32) {
        if !factor.is_finite() || factor <= 0.0 {
            return;
        }
        let held = self.image_from_screen(pointer);
        self.zoom = clamp_zoom(self.zoom * factor);
        let moved = self.image_from_screen(pointer);
        self.center_x += held[0] - moved[0];
        self.center_y += held[1] - moved[1];
    }

    /// Sets the zoom and keeps the middle.
    pub fn set_zoom(&mut self, zoom: f32) {
        self.zoom = clamp_zoom(zoom);
    }

    /// Moves the picture by target pixels.
    pub fn pan(&mut self, by: [f32; 2]) {
        self.center_x -= by[0] / self.zoom;
        self.center_y -= by[1] / self.zoom;
    }
}

/// A zoom in the valid range; 1 for what is no number.
fn clamp_zoom(zoom: f32) -> f32 {
    if zoom.is_nan() { 1.0 } else { zoom.clamp(MIN_ZOOM, MAX_ZOOM) }
}

/// Twin of `View` in `shaders/view.wgsl`.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct ViewUniform {
    pub center: [f32; 2],
    pub viewport_center: [f32; 2],
    pub target_size: [f32; 2],
    pub zoom: f32,
    pub padding: f32,
}

impl ViewUniform {
    pub fn new(view: &View, target: &Target) -> Self {
        Self {
            center: [view.center_x, view.center_y],
            viewport_center: view.viewport.center(),
            target_size: [target.width as f32, target.height as f32],
            zoom: view.zoom,
            padding: 0.0,
        }
    }

    pub fn twin() -> Twin {
        describe_twin!(ViewUniform, "view.wgsl", "View", [center, viewport_center, target_size, zoom])
    }
}

/// Where a prepared draw lands. The whole target is the viewport, so a view that is partly off screen keeps its
/// shape; what lies outside the view is cut off by the scissor rectangle.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Placement {
    size: [f32; 2],
    /// x, y, width, height inside the target; `None` when nothing is seen.
    scissor: Option<[u32; 4]>,
}

impl Placement {
    pub fn new(viewport: &Viewport, target: &Target) -> Self {
        let clip = target.clip.unwrap_or(Viewport::new(0.0, 0.0, target.width as f32, target.height as f32));
        let span = |start: f32, size: f32, clip_start: f32, clip_size: f32, limit: u32| -> Option<(u32, u32)> {
            // A float that is negative, too large or no number saturates.
            let low = (start.max(clip_start).round() as u32).min(limit);
            let high = ((start + size).min(clip_start + clip_size).round() as u32).min(limit);
            (low < high).then_some((low, high - low))
        };
        let columns = span(viewport.x, viewport.width, clip.x, clip.width, target.width);
        let rows = span(viewport.y, viewport.height, clip.y, clip.height, target.height);
        let scissor = match (columns, rows) {
            (Some((x, width)), Some((y, height))) => Some([x, y, width, height]),
            _ => None,
        };
        Self { size: [target.width as f32, target.height as f32], scissor }
    }

    /// Sets viewport and scissor; false when there is nothing to draw.
    pub fn enter(&self, pass: &mut wgpu::RenderPass<'_>) -> bool {
        let Some([x, y, width, height]) = self.scissor else {
            return false;
        };
        pass.set_viewport(0.0, 0.0, self.size[0], self.size[1], 0.0, 1.0);
        pass.set_scissor_rect(x, y, width, height);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: [f32; 2], b: [f32; 2]) -> bool {
        (a[0] - b[0]).abs() < 1e-3 && (a[1] - b[1]).abs() < 1e-3
    }

    #[test]
    fn fit_shows_the_whole_picture_in_the_middle() {
        // 640 × 480 into 320 × 320: the width decides, a half; the picture is 240 high, 40 from top and bottom.
        let view = View::fit([640.0, 480.0], Viewport::new(10.0, 20.0, 320.0, 320.0));
        assert_eq!(view.zoom, 0.5);
        assert!(close(view.screen_from_image([0.0, 0.0]), [10.0, 60.0]));
        assert!(close(view.screen_from_image([640.0, 480.0]), [330.0, 300.0]));
    }

    #[test]
    fn screen_and_image_are_inverse() {
        let view =
            View { center_x: 311.5, center_y: -7.25, zoom: 3.5, viewport: Viewport::new(-40.0, 9.0, 301.0, 77.0) };
        for point in [[0.0, 0.0], [17.5, -300.25], [640.0, 480.0]] {
            assert!(close(view.image_from_screen(view.screen_from_image(point)), point));
        }
    }

    #[test]
    fn zooming_holds_the_point_under_the_pointer_even_at_the_limits() {
        let mut view = View::fit([100.0, 50.0], Viewport::new(0.0, 0.0, 400.0, 300.0));
        let pointer = [123.0, 45.0];
        let held = view.image_from_screen(pointer);
        for factor in [1.5, 2.0, 0.1, 1e9, 1e-9] {
            view.zoom_at(pointer, factor);
            assert!((MIN_ZOOM..=MAX_ZOOM).contains(&view.zoom));
            let seen = view.screen_from_image(held);
            assert!((seen[0] - pointer[0]).abs() < 0.1 && (seen[1] - pointer[1]).abs() < 0.1, "{factor}: {seen:?}");
        }
    }

    #[test]
    fn numbers_that_make_no_sense_leave_a_usable_view() {
        let mut view = View::fit([0.0, 0.0], Viewport::new(0.0, 0.0, 0.0, 0.0));
        assert!((MIN_ZOOM..=MAX_ZOOM).contains(&view.zoom));
        let before = view;
        for factor in [f32::NAN, f32::INFINITY, 0.0, -2.0] {
            view.zoom_at([1.0, 1.0], factor);
        }
        assert_eq!(view, before);
        view.set_zoom(f32::NAN);
        assert_eq!(view.zoom, 1.0);
    }

    #[test]
    fn panning_moves_the_picture_by_screen_pixels() {
        let mut view =
            View { center_x: 5.0, center_y: 5.0, zoom: 4.0, viewport: Viewport::new(0.0, 0.0, 100.0, 100.0) };
        let before = view.screen_from_image([7.0, 3.0]);
        view.pan([8.0, -2.0]);
        assert!(close(view.screen_from_image([7.0, 3.0]), [before[0] + 8.0, before[1] - 2.0]));
    }

    #[test]
    fn the_scissor_stays_inside_target_and_clip() {
        let target = Target::new(100, 80);
        let scissor = |viewport: Viewport, target: &Target| Placement::new(&viewport, target).scissor;
        assert_eq!(scissor(Viewport::new(-20.0, 10.0, 50.0, 200.0), &target), Some([0, 10, 30, 70]));
        assert_eq!(scissor(Viewport::new(100.0, 0.0, 50.0, 50.0), &target), None);
        assert_eq!(scissor(Viewport::new(-60.0, 0.0, 50.0, 50.0), &target), None);
        assert_eq!(scissor(Viewport::new(f32::NAN, 0.0, f32::NAN, 50.0), &Target::new(0, 0)), None);
        let clipped = Target { clip: Some(Viewport::new(20.0, 5.0, 10.0, 10.0)), ..target };
        assert_eq!(scissor(Viewport::new(0.0, 0.0, 100.0, 80.0), &clipped), Some([20, 5, 10, 10]));
    }
}
