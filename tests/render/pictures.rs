//! Pictures: position, tiles, pixel grid, shrinking.

use super::*;

/// `width × height` opaque pixels that all differ from their neighbours.
fn test_pixels(width: u32, height: u32) -> Vec<u8> {
    let mut pixels = Vec::new();
    for y in 0..height {
        for x in 0..width {
            pixels.extend([(37 * x + 11 * y) as u8, (91 * y + 5 * x) as u8, (53 * (x ^ y)) as u8, 255]);
        }
    }
    pixels
}

fn rgb(pixels: &[u8], width: u32, x: u32, y: u32) -> [u8; 3] {
    let start = 4 * (y * width + x) as usize;
    [pixels[start], pixels[start + 1], pixels[start + 2]]
}

fn look(grid: f32) -> ImageLook {
    ImageLook { grid, ..ImageLook::default() }
}

#[test]
fn a_picture_lands_where_the_view_says() {
    let Some(fixture) = fixture() else { return };
    let (gpu, renderer) = (&fixture.context.gpu, &fixture.renderers.image);
    let pixels = test_pixels(4, 4);
    let input = ImageInput { version: 1, width: 4, height: 4, pixels: &pixels };
    let target = Target::new(67, 64);
    let view = View::fit([4.0, 4.0], Viewport::new(0.0, 0.0, 64.0, 64.0));
    let mut draw = ImageDraw::new(renderer, gpu);
    draw.prepare(renderer, gpu, &input, &look(0.0), &view, &target).unwrap();
    let picture = fixture.draw(&target, |pass| draw.paint(renderer, pass));
    for y in 0..4 {
        for x in 0..4 {
            for (dx, dy) in [(0, 0), (8, 8), (15, 15)] {
                picture.expect(16 * x + dx, 16 * y + dy, rgb(&pixels, 4, x, y));
            }
        }
    }
    picture.expect(65, 30, BLACK);
    // The same again sends nothing; a new zoom sends the uniform alone; a new version sends pixels.
    draw.prepare(renderer, gpu, &input, &look(0.0), &view, &target).unwrap();
    assert_eq!((draw.uploads, draw.uniform_uploads), (1, 1));
    let zoomed = View { zoom: 3.0, ..view };
    draw.prepare(renderer, gpu, &input, &look(0.0), &zoomed, &target).unwrap();
    assert_eq!((draw.uploads, draw.uniform_uploads), (1, 2));
    draw.prepare(renderer, gpu, &ImageInput { version: 2, ..input }, &look(0.0), &zoomed, &target).unwrap();
    assert_eq!((draw.uploads, draw.uniform_uploads), (2, 2));
}

#[test]
fn a_view_that_is_partly_off_screen_keeps_its_shape() {
    let Some(fixture) = fixture() else { return };
    let (gpu, renderer) = (&fixture.context.gpu, &fixture.renderers.image);
    let pixels = test_pixels(4, 4);
    let input = ImageInput { version: 1, width: 4, height: 4, pixels: &pixels };
    let target = Target::new(64, 64);
    // 16 screen pixels a pixel; the first column and the last row are outside.
    let view = View::fit([4.0, 4.0], Viewport::new(-16.0, 16.0, 64.0, 64.0));
    let mut draw = ImageDraw::new(renderer, gpu);
    draw.prepare(renderer, gpu, &input, &look(0.0), &view, &target).unwrap();
    let picture = fixture.draw(&target, |pass| draw.paint(renderer, pass));
    for y in 0..3 {
        for x in 1..4 {
            picture.expect(16 * (x - 1) + 8, 16 * (y + 1) + 8, rgb(&pixels, 4, x, y));
        }
    }
    picture.expect(8, 8, BLACK);
    picture.expect(56, 40, BLACK);
    // A clip rectangle cuts and does not move.
    let clipped = Target { clip: Some(Viewport::new(16.0, 0.0, 16.0, 64.0)), ..target };
    draw.prepare(renderer, gpu, &input, &look(0.0), &view, &clipped).unwrap();
    let picture = fixture.draw(&clipped, |pass| draw.paint(renderer, pass));
    picture.expect(24, 24, rgb(&pixels, 4, 2, 0));
    picture.expect(8, 24, BLACK);
    picture.expect(40, 24, BLACK);
}

#[test]
fn tiles_show_no_seams() {
    let Some(fixture) = fixture() else { return };
    let (width, height) = (20, 13);
    let pixels = test_pixels(width, height);
    let input = ImageInput { version: 1, width, height, pixels: &pixels };
    let gpu = &fixture.context.gpu;
    let mut tiled = ImageRenderer::new(gpu, &ShaderLibrary::default(), PICTURE_FORMAT).unwrap();
    tiled.set_tile_side(8);
    let mut pictures = Vec::new();
    for renderer in [&tiled, &fixture.renderers.image] {
        for (zoom, filter) in [(1, ImageFilter::Linear), (3, ImageFilter::Linear), (3, ImageFilter::Nearest)] {
            let target = Target::new(zoom * width, zoom * height);
            let view = View::fit([width as f32, height as f32], whole(&target));
            let mut draw = ImageDraw::new(renderer, gpu);
            let look = ImageLook { filter, ..look(0.0) };
            draw.prepare(renderer, gpu, &input, &look, &view, &target).unwrap();
            pictures.push(fixture.draw(&target, |pass| draw.paint(renderer, pass)));
        }
    }
    let worst = |a: &[u8], b: &[u8]| a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(worst(&pictures[0].pixels, &pixels) <= 2, "1:1 shows the pixels themselves");
    for index in 0..3 {
        assert!(worst(&pictures[index].pixels, &pictures[index + 3].pixels) <= 2, "{index}");
    }
}

#[test]
fn the_grid_shows_between_pixels_and_only_when_zoomed_in() {
    let Some(fixture) = fixture() else { return };
    let (gpu, renderer) = (&fixture.context.gpu, &fixture.renderers.image);
    let pixels = [200, 200, 200, 255].repeat(16);
    let input = ImageInput { version: 1, width: 4, height: 4, pixels: &pixels };
    let target = Target::new(96, 96);
    let mut draw = ImageDraw::new(renderer, gpu);
    let mut view = View::fit([4.0, 4.0], whole(&target));
    assert_eq!(view.zoom, 24.0);
    draw.prepare(renderer, gpu, &input, &look(1.0), &view, &target).unwrap();
    let picture = fixture.draw(&target, |pass| draw.paint(renderer, pass));
    picture.expect(12, 12, [200, 200, 200]);
    assert!(picture.at(24, 12)[0] < 150, "{:?}", picture.at(24, 12));
    view.set_zoom(8.0);
    draw.prepare(renderer, gpu, &input, &look(1.0), &view, &target).unwrap();
    let picture = fixture.draw(&target, |pass| draw.paint(renderer, pass));
    assert!((32..64).all(|x| picture.is(x, 48, [200, 200, 200])));
    assert_eq!(draw.uploads, 1);
}

#[test]
fn a_shrunk_picture_is_averaged() {
    let Some(fixture) = fixture() else { return };
    let (gpu, renderer) = (&fixture.context.gpu, &fixture.renderers.image);
    let board: Vec<u8> =
        (0..64 * 64).flat_map(|i| if (i + i / 64) % 2 == 0 { [255; 4] } else { [0, 0, 0, 255] }).collect();
    let input = ImageInput { version: 1, width: 64, height: 64, pixels: &board };
    let mut draw = ImageDraw::new(renderer, gpu);
    for side in [32, 16, 8] {
        let target = Target::new(side, side);
        let view = View::fit([64.0, 64.0], whole(&target));
        draw.prepare(renderer, gpu, &input, &look(0.0), &view, &target).unwrap();
        let picture = fixture.draw(&target, |pass| draw.paint(renderer, pass));
        for at in 0..side {
            picture.expect(at, side / 2, [128; 3]);
        }
    }
}

#[test]
fn pixels_of_the_wrong_number_are_an_error_and_the_last_picture_stays() {
    let Some(fixture) = fixture() else { return };
    let (gpu, renderer) = (&fixture.context.gpu, &fixture.renderers.image);
    let target = Target::new(4, 4);
    let view = one_to_one(&target);
    let mut draw = ImageDraw::new(renderer, gpu);
    let good = ImageInput { version: 1, width: 1, height: 1, pixels: &[255; 4] };
    draw.prepare(renderer, gpu, &good, &look(0.0), &view, &target).unwrap();
    for (width, height, length) in [(2, 2, 15), (u32::MAX, u32::MAX, 4), (0, 0, 0)] {
        let pixels = vec![0; length];
        let bad = ImageInput { version: 2, width, height, pixels: &pixels };
        assert!(draw.prepare(renderer, gpu, &bad, &look(0.0), &view, &target).is_err());
    }
    fixture.draw(&target, |pass| draw.paint(renderer, pass)).expect(0, 0, WHITE);
}
