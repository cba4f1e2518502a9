//! Pictures drawn off screen, asserted by what must be where, not pixel by pixel. Skipped without a graphics adapter.

mod boxes;
mod device;
mod heatmaps;
mod histograms;
mod pictures;
mod plots;
mod reductions;

use boxwright::render::*;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

struct Fixture {
    context: Context,
    renderers: Renderers,
}

/// The one device of this file. Software drivers are happiest with one user at a time.
fn fixture() -> Option<MutexGuard<'static, Fixture>> {
    static FIXTURE: OnceLock<Option<Mutex<Fixture>>> = OnceLock::new();
    let fixture = FIXTURE.get_or_init(|| match Context::headless() {
        Ok(context) => {
            let renderers = Renderers::new(&context.gpu, PICTURE_FORMAT).expect("shaders compile");
            Some(Mutex::new(Fixture { context, renderers }))
        }
        Err(RenderError::NoAdapter(_)) => None,
        Err(error) => panic!("{error}"),
    });
    if fixture.is_none() {
        println!("skipped: no graphics adapter");
    }
    fixture.as_ref().map(|fixture| fixture.lock().unwrap_or_else(PoisonError::into_inner))
}

struct Picture {
    width: u32,
    pixels: Vec<u8>,
}

impl Picture {
    fn at(&self, x: u32, y: u32) -> [u8; 4] {
        let start = 4 * (y * self.width + x) as usize;
        [self.pixels[start], self.pixels[start + 1], self.pixels[start + 2], self.pixels[start + 3]]
    }

    fn is(&self, x: u32, y: u32, color: [u8; 3]) -> bool {
        self.at(x, y).iter().zip(color).all(|(&found, expected)| found.abs_diff(expected) <= 2)
    }

    #[track_caller]
    fn expect(&self, x: u32, y: u32, color: [u8; 3]) {
        assert!(self.is(x, y, color), "({x}, {y}) is {:?}, not {color:?}", self.at(x, y));
    }
}

impl Fixture {
    fn draw(&self, target: &Target, paint: impl FnOnce(&mut wgpu::RenderPass<'_>)) -> Picture {
        let background = [0.0, 0.0, 0.0, 1.0];
        let pixels = render_to_rgba(&self.context.gpu, target.width, target.height, background, paint)
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(self.context.errors.take(), Vec::<String>::new());
        Picture { width: target.width, pixels }
    }
}

const BLACK: [u8; 3] = [0, 0, 0];
const RED: [u8; 3] = [255, 0, 0];
const GREEN: [u8; 3] = [0, 255, 0];
const WHITE: [u8; 3] = [255, 255, 255];

fn whole(target: &Target) -> Viewport {
    Viewport::new(0.0, 0.0, target.width as f32, target.height as f32)
}

/// One picture pixel is one screen pixel, corner on corner.
fn one_to_one(target: &Target) -> View {
    View::fit([target.width as f32, target.height as f32], whole(target))
}
