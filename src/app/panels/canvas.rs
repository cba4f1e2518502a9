//! A picture that is moved and zoomed with the pointer: what the views of several panels share.

use super::name_picture;
use crate::app::bridge::paint_scene;
use crate::app::scene::Caption;
use crate::app::theme;
use crate::engine::Shown;
use crate::geometry::BBox;
use crate::render::{Scene, View, Viewport};
use egui::{Color32, FontId, Painter, Pos2, Rect, Response, Sense, Ui, Vec2, vec2};

/// So many labels look for room; those after them are marks.
const MOST_TEXTS: usize = 400;

/// Changes of the view asked for by keys, done when the panel's size is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wish {
    Fit,
    Actual,
    Selection,
    Zoom(f32),
}

/// Place and zoom of one view; the picture is fitted anew when another one comes.
#[derive(Debug, Default)]
pub struct Canvas {
    view: Option<View>,
    /// The picture that the view was fitted to: its number, width and height.
    fitted: Option<(usize, u32, u32)>,
    wishes: Vec<Wish>,
}

/// One frame of a canvas.
pub struct Frame {
    pub rect: Rect,
    pub response: Response,
    pub view: View,
    /// The picture's point under the pointer, in its pixels.
    pub at: Option<[f32; 2]>,
    /// Whether the picture is another one than in the frame before.
    pub fresh: bool,
    /// Screen pixels a point.
    scale: f32,
}

impl Canvas {
    pub fn wish(&mut self, wish: Wish) {
        self.wishes.push(wish);
    }

    /// Takes the rest of `ui`, and moves the view as pointer and keys ask. `selection` is what Z zooms to.
    pub fn frame(&mut self, ui: &mut Ui, shown: &Shown, selection: Option<BBox>) -> Frame {
        let (rect, response) =
            ui.allocate_exact_size(ui.available_size().max(vec2(16.0, 16.0)), Sense::click_and_drag());
        name_picture(&response, &format!("Picture {}", shown.name));
        let scale = ui.ctx().pixels_per_point();
        let viewport =
            Viewport::new(rect.min.x * scale, rect.min.y * scale, rect.width() * scale, rect.height() * scale);
        let size = [shown.picture.width as f32, shown.picture.height as f32];
        let key = (shown.index, shown.picture.width, shown.picture.height);
        let known = self.view.filter(|_| self.fitted == Some(key));
        let fresh = known.is_none();
        let mut view = match known {
            // A fitted picture stays fitted when the panel gets another size.
            Some(view) if view == View::fit(size, view.viewport) => View::fit(size, viewport),
            Some(view) => View { viewport, ..view },
            None => View::fit(size, viewport),
        };
        self.fitted = Some(key);
        for wish in std::mem::take(&mut self.wishes) {
            match wish {
                Wish::Fit => view = View::fit(size, viewport),
                Wish::Actual => view.set_zoom(1.0),
                Wish::Zoom(factor) => view.zoom_at(viewport.center(), factor),
                Wish::Selection => {
                    if let Some(b) = selection {
                        view.look_at([b.x0, b.y0, b.x1, b.y1]);
                    }
                }
            }
        }
        if response.dragged() {
            let by = response.drag_delta() * scale;
            view.pan([by.x, by.y]);
        }
        let pointer = response.hover_pos();
        if let Some(pointer) = pointer {
            let (scroll, pinch) = ui.input(|i| (i.smooth_scroll_delta.y, i.zoom_delta()));
            let factor = (scroll * 0.005).exp() * pinch;
            if (factor - 1.0).abs() > 1e-4 {
                view.zoom_at([pointer.x * scale, pointer.y * scale], factor);
            }
        }
        self.view = Some(view);
        let at = pointer.map(|p| view.image_from_screen([p.x * scale, p.y * scale]));
        Frame { rect, response, view, at, fresh, scale }
    }
}

impl Frame {
    /// Draws `scene` in the buffers of view `id`; gives a painter for what lies over it.
    pub fn paint(&self, ui: &Ui, id: u64, scene: Scene) -> Painter {
        let painter = ui.painter_at(self.rect);
        painter.rect_filled(self.rect, 0.0, ui.visuals().extreme_bg_color);
        painter.add(paint_scene(self.rect, id, scene, self.view));
        painter
    }

    /// Writes labels in screen space; where two would overlap the later one is shortened to a mark.
    pub fn write(&self, painter: &Painter, captions: &[Caption]) {
        let font = FontId::proportional(12.0);
        let mut taken: Vec<Rect> = Vec::new();
        for caption in captions {
            let corner = self.point(caption.bbox.x0, caption.bbox.y0);
            if !self.rect.expand(60.0).contains(corner) {
                continue;
            }
            let [r, g, b] = caption.color;
            let color = Color32::from_rgb(r, g, b);
            let ink = theme::text_on(color);
            let place = |size: Vec2| Rect::from_min_size(corner - vec2(0.0, size.y), size + vec2(6.0, 0.0));
            let mut galley = painter.layout_no_wrap(caption.text.clone(), font.clone(), ink);
            let mut area = place(galley.size());
            let crowded = taken.len() >= MOST_TEXTS;
            if crowded || taken.iter().any(|t| t.intersects(area)) {
                let short = if caption.short.is_empty() { "…" } else { caption.short };
                galley = painter.layout_no_wrap(short.into(), font.clone(), ink);
                area = place(galley.size());
            }
            painter.rect_filled(area, 2.0, color);
            painter.galley(area.min + vec2(3.0, 0.0), galley, ink);
            if !crowded {
                taken.push(area);
            }
        }
    }

    /// Where a point of the picture lies on the screen.
    pub fn point(&self, x: f32, y: f32) -> Pos2 {
        let [x, y] = self.view.screen_from_image([x, y]);
        Pos2::new(x / self.scale, y / self.scale)
    }

    /// Where a box of the picture lies on the screen.
    pub fn bounds(&self, b: BBox) -> Rect {
        Rect::from_two_pos(self.point(b.x0, b.y0), self.point(b.x1, b.y1))
    }
}
