//! Detections drawn on a picture without a GPU: outlines, label bars, and a 5×7 font of our own.

use super::decode::ImageError;
use super::picture::Picture;
use crate::geometry::{BBox, Detection};
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use std::path::Path;

/// Columns and rows of a glyph; one empty column stands between two.
const GLYPH_WIDTH: i64 = 5;
const GLYPH_HEIGHT: i64 = 7;

/// A colour per class id, the same everywhere: hue steps by the golden ratio, lightness takes three turns, in OKLCH;
/// chroma gives way until sRGB holds the colour.
pub fn class_color(class: u32) -> [u8; 3] {
    const GOLDEN: f64 = 0.618_033_988_749_895;
    let hue = (f64::from(class) * GOLDEN + 0.07).fract() * std::f64::consts::TAU;
    let lightness = [0.72, 0.62, 0.80][class as usize % 3];
    // Halving finds the largest chroma of the gamut to a thousandth.
    let (mut inside, mut outside) = (0.0, 0.19);
    for _ in 0..8 {
        let middle = (inside + outside) / 2.0;
        if oklch_to_linear(lightness, middle, hue).iter().all(|v| (0.0..=1.0).contains(v)) {
            inside = middle;
        } else {
            outside = middle;
        }
    }
    oklch_to_linear(lightness, inside, hue).map(|v| (gamma(v.clamp(0.0, 1.0)) * 255.0).round() as u8)
}

/// Linear-light sRGB of an OKLCH colour (B. Ottosson, "A perceptual color space for image processing", 2020).
fn oklch_to_linear(lightness: f64, chroma: f64, hue: f64) -> [f64; 3] {
    let (a, b) = (chroma * hue.cos(), chroma * hue.sin());
    let long = (lightness + 0.396_337_777_4 * a + 0.215_803_757_3 * b).powi(3);
    let medium = (lightness - 0.105_561_345_8 * a - 0.063_854_172_8 * b).powi(3);
    let short = (lightness - 0.089_484_177_5 * a - 1.291_485_548_0 * b).powi(3);
    [
        4.076_741_662_1 * long - 3.307_711_591_3 * medium + 0.230_969_929_2 * short,
        -1.268_438_004_6 * long + 2.609_757_401_1 * medium - 0.341_319_396_5 * short,
        -0.004_196_086_3 * long - 0.703_418_614_7 * medium + 1.707_614_701_0 * short,
    ]
}

/// The sRGB transfer curve, `[0, 1]` to `[0, 1]`.
fn gamma(linear: f64) -> f64 {
    if linear <= 0.003_130_8 { 12.92 * linear } else { 1.055 * linear.powf(1.0 / 2.4) - 0.055 }
}

/// Draws masks, outlines and labels ("class 0.87"), the best score on top. Boxes are in the picture's pixels; parts
/// outside are left away, and a box without finite corners is not drawn.
pub fn draw_detections(picture: &mut Picture, detections: &[Detection], classes: &[String]) {
    let scale = i64::from(picture.width.min(picture.height) / 320).clamp(1, 8);
    let mut order: Vec<&Detection> = detections.iter().collect();
    order.sort_by(|a, b| rank(b).total_cmp(&rank(a)));
    // From the worst to the best; among equals the earlier one ends on top.
    for detection in order.iter().rev() {
        draw_mask(picture, detection);
    }
    for detection in order.iter().rev() {
        let name = classes.get(detection.class as usize).cloned();
        let name = name.unwrap_or_else(|| format!("class {}", detection.class));
        let label = format!("{name} {:.2}", detection.score);
        draw_box(picture, detection.bbox, &label, class_color(detection.class), scale);
    }
}

/// Two fifths of the class colour over the pixels inside. A mask that does not read or has another size than the
/// picture is left away.
fn draw_mask(picture: &mut Picture, detection: &Detection) {
    let Some(mask) = &detection.mask else { return };
    if (mask.width, mask.height) != (picture.width, picture.height) {
        return;
    }
    let Ok(bitmap) = mask.to_bitmap() else { return };
    let color = class_color(detection.class);
    for (pixel, inside) in picture.rgb.chunks_exact_mut(3).zip(bitmap) {
        if inside != 0 {
            for channel in 0..3 {
                let blended = 3 * u16::from(pixel[channel]) + 2 * u16::from(color[channel]);
                pixel[channel] = (blended / 5) as u8;
            }
        }
    }
}

/// What detections are ordered by: not-a-number never wins.
fn rank(detection: &Detection) -> f32 {
    if detection.score.is_nan() { f32::NEG_INFINITY } else { detection.score }
}

fn draw_box(picture: &mut Picture, bbox: BBox, label: &str, color: [u8; 3], scale: i64) {
    if ![bbox.x0, bbox.y0, bbox.x1, bbox.y1].iter().all(|v| v.is_finite()) {
        return;
    }
    // Beyond any picture, and far from overflow.
    let place = |v: f32| v.round().clamp(-1.0e6, 1.0e6) as i64;
    let (x0, y0) = (place(bbox.x0), place(bbox.y0));
    let (x1, y1) = (place(bbox.x1).max(x0 + 1), place(bbox.y1).max(y0 + 1));
    let (width, height) = (i64::from(picture.width), i64::from(picture.height));
    if x1 <= 0 || y1 <= 0 || x0 >= width || y0 >= height {
        return;
    }
    let thick = (2 * scale).min(x1 - x0).min(y1 - y0);
    fill_rectangle(picture, (x0, y0), (x1, y0 + thick), color);
    fill_rectangle(picture, (x0, y1 - thick), (x1, y1), color);
    fill_rectangle(picture, (x0, y0), (x0 + thick, y1), color);
    fill_rectangle(picture, (x1 - thick, y0), (x1, y1), color);

    let letters = label.chars().count().min(1000) as i64;
    let bar_width = (letters * (GLYPH_WIDTH + 1) + 1) * scale;
    let bar_height = (GLYPH_HEIGHT + 2) * scale;
    // Above the box where there is room, else inside it; always with its start in the picture.
    let left = x0.min(width - bar_width).max(0);
    let top = if y0 >= bar_height { y0 - bar_height } else { y0.max(0) };
    fill_rectangle(picture, (left, top), (left + bar_width, top + bar_height), color);
    draw_text(picture, label, (left + scale, top + scale), readable_on(color), scale);
}

/// Black or white, whichever stands out more.
fn readable_on([red, green, blue]: [u8; 3]) -> [u8; 3] {
    let luma = 299 * u32::from(red) + 587 * u32::from(green) + 114 * u32::from(blue);
    if luma > 128_000 { [0; 3] } else { [255; 3] }
}

/// Draws text in the built-in font, `scale` pixels to a dot, its upper left corner at `at`. Characters outside ASCII
/// appear as question marks.
pub fn draw_text(picture: &mut Picture, text: &str, at: (i64, i64), color: [u8; 3], scale: i64) {
    let mut left = at.0;
    for character in text.chars() {
        if left >= i64::from(picture.width) {
            return;
        }
        let code = if (' '..='~').contains(&character) { character } else { '?' };
        let glyph = GLYPHS[code as usize - ' ' as usize];
        for (row, bits) in (0..).zip(glyph) {
            for column in 0..GLYPH_WIDTH {
                if (bits >> (GLYPH_WIDTH - 1 - column)) & 1 == 1 {
                    let (x, y) = (left + column * scale, at.1 + row * scale);
                    fill_rectangle(picture, (x, y), (x + scale, y + scale), color);
                }
            }
        }
        left += (GLYPH_WIDTH + 1) * scale;
    }
}

/// Fills columns `from.0..to.0` of rows `from.1..to.1`, as far as they are in the picture.
fn fill_rectangle(picture: &mut Picture, from: (i64, i64), to: (i64, i64), color: [u8; 3]) {
    let (width, height) = (i64::from(picture.width), i64::from(picture.height));
    let (x0, x1) = (from.0.clamp(0, width) as usize, to.0.clamp(0, width) as usize);
    let (y0, y1) = (from.1.clamp(0, height) as usize, to.1.clamp(0, height) as usize);
    if x0 >= x1 {
        return;
    }
    for y in y0..y1 {
        let start = y * picture.width as usize;
        for pixel in picture.rgb[3 * (start + x0)..3 * (start + x1)].chunks_exact_mut(3) {
            pixel.copy_from_slice(&color);
        }
    }
}

/// The picture as a PNG file in memory.
///
/// # Errors
/// [`ImageError::PixelCount`] when the bytes do not match the size, [`ImageError::Encode`] from the encoder (an empty
/// picture, for one).
pub fn encode_png(picture: &Picture) -> Result<Vec<u8>, ImageError> {
    let (width, height) = (picture.width, picture.height);
    if picture.rgb.len() as u128 != 3 * u128::from(width) * u128::from(height) {
        return Err(ImageError::PixelCount { width, height, found: picture.rgb.len() });
    }
    let mut bytes = Vec::new();
    let encoder = PngEncoder::new(&mut bytes);
    let written = encoder.write_image(&picture.rgb, width, height, ExtendedColorType::Rgb8);
    written.map_err(|fault| ImageError::Encode(fault.to_string()))?;
    Ok(bytes)
}

/// Writes the picture as a PNG file.
///
/// # Errors
/// [`ImageError::File`] with the fault and the path.
pub fn save_png(picture: &Picture, path: &Path) -> Result<(), ImageError> {
    let write = || -> Result<(), ImageError> { std::fs::write(path, encode_png(picture)?).map_err(ImageError::Io) };
    write().map_err(|fault| fault.in_file(path))
}

/// Rows of the printable ASCII characters from the top down; the highest of five bits is the left dot.
#[rustfmt::skip]
const GLYPHS: [[u8; 7]; 95] = [
    [0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00], // space
    [0x04, 0x04, 0x04, 0x04, 0x04, 0x00, 0x04], // !
    [0x0A, 0x0A, 0x0A, 0x00, 0x00, 0x00, 0x00], // "
    [0x0A, 0x0A, 0x1F, 0x0A, 0x1F, 0x0A, 0x0A], // #
    [0x04, 0x0F, 0x14, 0x0E, 0x05, 0x1E, 0x04], // $
    [0x19, 0x19, 0x02, 0x04, 0x08, 0x13, 0x13], // %
    [0x0C, 0x12, 0x14, 0x08, 0x15, 0x12, 0x0D], // &
    [0x04, 0x04, 0x08, 0x00, 0x00, 0x00, 0x00], // '
    [0x02, 0x04, 0x08, 0x08, 0x08, 0x04, 0x02], // (
    [0x08, 0x04, 0x02, 0x02, 0x02, 0x04, 0x08], // )
    [0x00, 0x04, 0x15, 0x0E, 0x15, 0x04, 0x00], // *
    [0x00, 0x04, 0x04, 0x1F, 0x04, 0x04, 0x00], // +
    [0x00, 0x00, 0x00, 0x00, 0x06, 0x04, 0x08], // ,
    [0x00, 0x00, 0x00, 0x1F, 0x00, 0x00, 0x00], // -
    [0x00, 0x00, 0x00, 0x00, 0x00, 0x0C, 0x0C], // .
    [0x01, 0x01, 0x02, 0x04, 0x08, 0x10, 0x10], // /
    [0x0E, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0E], // 0
    [0x04, 0x0C, 0x04, 0x04, 0x04, 0x04, 0x0E], // 1
    [0x0E, 0x11, 0x01, 0x02, 0x04, 0x08, 0x1F], // 2
    [0x1F, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0E], // 3
    [0x02, 0x06, 0x0A, 0x12, 0x1F, 0x02, 0x02], // 4
    [0x1F, 0x10, 0x1E, 0x01, 0x01, 0x11, 0x0E], // 5
    [0x06, 0x08, 0x10, 0x1E, 0x11, 0x11, 0x0E], // 6
    [0x1F, 0x01, 0x02, 0x04, 0x04, 0x04, 0x04], // 7
    [0x0E, 0x11, 0x11, 0x0E, 0x11, 0x11, 0x0E], // 8
    [0x0E, 0x11, 0x11, 0x0F, 0x01, 0x02, 0x0C], // 9
    [0x00, 0x0C, 0x0C, 0x00, 0x0C, 0x0C, 0x00], // :
    [0x00, 0x06, 0x06, 0x00, 0x06, 0x04, 0x08], // ;
    [0x02, 0x04, 0x08, 0x10, 0x08, 0x04, 0x02], // <
    [0x00, 0x00, 0x1F, 0x00, 0x1F, 0x00, 0x00], // =
    [0x08, 0x04, 0x02, 0x01, 0x02, 0x04, 0x08], // >
    [0x0E, 0x11, 0x01, 0x02, 0x04, 0x00, 0x04], // ?
    [0x0E, 0x11, 0x17, 0x15, 0x16, 0x10, 0x0F], // @
    [0x04, 0x0A, 0x11, 0x11, 0x1F, 0x11, 0x11], // A
    [0x1E, 0x11, 0x11, 0x1E, 0x11, 0x11, 0x1E], // B
    [0x0E, 0x11, 0x10, 0x10, 0x10, 0x11, 0x0E], // C
    [0x1C, 0x12, 0x11, 0x11, 0x11, 0x12, 0x1C], // D
    [0x1F, 0x10, 0x10, 0x1E, 0x10, 0x10, 0x1F], // E
    [0x1F, 0x10, 0x10, 0x1E, 0x10, 0x10, 0x10], // F
    [0x0E, 0x11, 0x10, 0x17, 0x11, 0x11, 0x0F], // G
    [0x11, 0x11, 0x11, 0x1F, 0x11, 0x11, 0x11], // H
    [0x0E, 0x04, 0x04, 0x04, 0x04, 0x04, 0x0E], // I
    [0x07, 0x02, 0x02, 0x02, 0x02, 0x12, 0x0C], // J
    [0x11, 0x12, 0x14, 0x18, 0x14, 0x12, 0x11], // K
    [0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x1F], // L
    [0x11, 0x1B, 0x15, 0x15, 0x11, 0x11, 0x11], // M
    [0x11, 0x19, 0x19, 0x15, 0x13, 0x13, 0x11], // N
    [0x0E, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0E], // O
    [0x1E, 0x11, 0x11, 0x1E, 0x10, 0x10, 0x10], // P
    [0x0E, 0x11, 0x11, 0x11, 0x15, 0x12, 0x0D], // Q
    [0x1E, 0x11, 0x11, 0x1E, 0x14, 0x12, 0x11], // R
    [0x0F, 0x10, 0x10, 0x0E, 0x01, 0x01, 0x1E], // S
    [0x1F, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04], // T
    [0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0E], // U
    [0x11, 0x11, 0x11, 0x11, 0x0A, 0x0A, 0x04], // V
    [0x11, 0x11, 0x11, 0x15, 0x15, 0x1B, 0x11], // W
    [0x11, 0x11, 0x0A, 0x04, 0x0A, 0x11, 0x11], // X
    [0x11, 0x11, 0x0A, 0x04, 0x04, 0x04, 0x04], // Y
    [0x1F, 0x01, 0x02, 0x04, 0x08, 0x10, 0x1F], // Z
    [0x0E, 0x08, 0x08, 0x08, 0x08, 0x08, 0x0E], // [
    [0x10, 0x10, 0x08, 0x04, 0x02, 0x01, 0x01], // \
    [0x0E, 0x02, 0x02, 0x02, 0x02, 0x02, 0x0E], // ]
    [0x04, 0x0A, 0x11, 0x00, 0x00, 0x00, 0x00], // ^
    [0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x1F], // _
    [0x08, 0x04, 0x02, 0x00, 0x00, 0x00, 0x00], // `
    [0x00, 0x00, 0x0E, 0x01, 0x0F, 0x11, 0x0F], // a
    [0x10, 0x10, 0x1E, 0x11, 0x11, 0x11, 0x1E], // b
    [0x00, 0x00, 0x0F, 0x10, 0x10, 0x10, 0x0F], // c
    [0x01, 0x01, 0x0F, 0x11, 0x11, 0x11, 0x0F], // d
    [0x00, 0x00, 0x0E, 0x11, 0x1F, 0x10, 0x0E], // e
    [0x06, 0x08, 0x1E, 0x08, 0x08, 0x08, 0x08], // f
    [0x00, 0x00, 0x0F, 0x11, 0x0F, 0x01, 0x0E], // g
    [0x10, 0x10, 0x1E, 0x11, 0x11, 0x11, 0x11], // h
    [0x04, 0x00, 0x0C, 0x04, 0x04, 0x04, 0x0E], // i
    [0x02, 0x00, 0x06, 0x02, 0x02, 0x12, 0x0C], // j
    [0x10, 0x10, 0x12, 0x14, 0x18, 0x14, 0x12], // k
    [0x0C, 0x04, 0x04, 0x04, 0x04, 0x04, 0x0E], // l
    [0x00, 0x00, 0x1A, 0x15, 0x15, 0x15, 0x15], // m
    [0x00, 0x00, 0x1E, 0x11, 0x11, 0x11, 0x11], // n
    [0x00, 0x00, 0x0E, 0x11, 0x11, 0x11, 0x0E], // o
    [0x00, 0x00, 0x1E, 0x11, 0x1E, 0x10, 0x10], // p
    [0x00, 0x00, 0x0F, 0x11, 0x0F, 0x01, 0x01], // q
    [0x00, 0x00, 0x16, 0x18, 0x10, 0x10, 0x10], // r
    [0x00, 0x00, 0x0F, 0x10, 0x0E, 0x01, 0x1E], // s
    [0x08, 0x08, 0x1E, 0x08, 0x08, 0x08, 0x06], // t
    [0x00, 0x00, 0x11, 0x11, 0x11, 0x13, 0x0D], // u
    [0x00, 0x00, 0x11, 0x11, 0x11, 0x0A, 0x04], // v
    [0x00, 0x00, 0x11, 0x15, 0x15, 0x15, 0x0A], // w
    [0x00, 0x00, 0x11, 0x0A, 0x04, 0x0A, 0x11], // x
    [0x00, 0x00, 0x11, 0x11, 0x0F, 0x01, 0x0E], // y
    [0x00, 0x00, 0x1F, 0x02, 0x04, 0x08, 0x1F], // z
    [0x03, 0x04, 0x04, 0x08, 0x04, 0x04, 0x03], // {
    [0x04, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04], // |
    [0x18, 0x04, 0x04, 0x02, 0x04, 0x04, 0x18], // }
    [0x00, 0x00, 0x08, 0x15, 0x02, 0x00, 0x00], // ~
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Mask;
    use std::slice::from_ref;

    fn detection(bbox: BBox, class: u32, score: f32) -> Detection {
        Detection { bbox, class, score, ..Detection::default() }
    }

    #[test]
    fn outlines_stand_on_the_box_and_leave_the_inside_alone() {
        let mut picture = Picture::new(100, 80, [0; 3]);
        draw_detections(&mut picture, &[detection(BBox::new(20.0, 30.0, 90.0, 70.0), 1, 0.5)], &[]);
        let color = class_color(1);
        for (x, y) in [(20, 30), (89, 69), (21, 50), (50, 69), (89, 31)] {
            assert_eq!(picture.pixel(x, y), color, "{x}, {y}");
        }
        for (x, y) in [(22, 32), (50, 50), (87, 67), (90, 50), (50, 70), (19, 50)] {
            assert_eq!(picture.pixel(x, y), [0; 3], "{x}, {y}");
        }
        // The bar lies above, 9 rows high, with letters in it.
        assert_eq!(picture.pixel(20, 21), color);
        assert_eq!(picture.pixel(20, 20), [0; 3]);
        let letters = (21..30).flat_map(|y| (20..90).map(move |x| (x, y)));
        assert!(letters.filter(|&(x, y)| picture.pixel(x, y) == readable_on(color)).count() > 30);
    }

    #[test]
    fn boxes_far_outside_or_not_finite_draw_nothing_and_never_fail() {
        let blank = Picture::new(40, 30, [9; 3]);
        let far = [
            BBox::new(1e30, 1e30, 2e30, 2e30),
            BBox::new(-1e30, -1e30, -1.0, -1.0),
            BBox::new(f32::NAN, 0.0, 10.0, 10.0),
            BBox::new(0.0, 0.0, f32::INFINITY, 10.0),
            BBox::new(41.0, 5.0, 60.0, 20.0),
        ];
        let mut picture = blank.clone();
        let names = vec!["käfer with a name that is longer than the picture is wide".to_string()];
        draw_detections(&mut picture, &far.map(|b| detection(b, 0, f32::NAN)), &names);
        assert_eq!(picture, blank);
        // These touch it: drawn as far as they are in it.
        let near = [
            BBox::new(-1e9, -1e9, 1e9, 1e9),
            BBox::new(39.6, 29.6, 1e9, 1e9),
            BBox::new(10.0, 10.0, 10.0, 10.0),
            BBox::new(20.0, 20.0, 5.0, 5.0),
        ];
        draw_detections(&mut picture, &near.map(|b| detection(b, 4_000_000_000, 2.0)), &names);
        assert_eq!(picture.rgb.len(), blank.rgb.len());
        draw_detections(&mut Picture::new(0, 0, [0; 3]), &near.map(|b| detection(b, 0, 0.5)), &names);
    }

    #[test]
    fn a_mask_colours_its_pixels_alone() {
        let mut picture = Picture::new(8, 6, [100; 3]);
        let mut bitmap = vec![0; 48];
        bitmap[2 * 8 + 5] = 1;
        let mask = Some(Mask::from_bitmap(6, 8, &bitmap).unwrap());
        let found = Detection { bbox: BBox::new(50.0, 50.0, 60.0, 60.0), mask, ..Detection::default() };
        draw_detections(&mut picture, from_ref(&found), &[]);
        let color = class_color(0);
        assert_eq!(picture.pixel(5, 2), color.map(|c| ((300 + 2 * u16::from(c)) / 5) as u8));
        assert_eq!(picture.rgb.iter().filter(|v| **v != 100).count(), 3);
        draw_detections(&mut Picture::new(9, 6, [100; 3]), &[found], &[]);
    }

    #[test]
    fn the_best_score_is_on_top() {
        let bbox = BBox::new(10.0, 20.0, 30.0, 40.0);
        for order in [[(0, 0.9), (1, 0.2)], [(1, 0.2), (0, 0.9)], [(0, 0.5), (1, 0.5)], [(0, 0.1), (1, f32::NAN)]] {
            let mut picture = Picture::new(60, 60, [0; 3]);
            draw_detections(&mut picture, &order.map(|(class, score)| detection(bbox, class, score)), &[]);
            assert_eq!(picture.pixel(10, 30), class_color(0), "{order:?}");
        }
    }

    #[test]
    fn letters_have_their_shape() {
        let mut picture = Picture::new(12, 7, [0; 3]);
        draw_text(&mut picture, "LT", (0, 0), [255; 3], 1);
        let row =
            |y: u32| -> String { (0..11).map(|x| if picture.pixel(x, y) == [255; 3] { '#' } else { '.' }).collect() };
        assert_eq!(row(0), "#.....#####");
        assert_eq!(row(3), "#.......#..");
        assert_eq!(row(6), "#####...#..");
        for (index, glyph) in GLYPHS.iter().enumerate() {
            assert!(glyph.iter().all(|bits| *bits < 32));
            assert_eq!(glyph.iter().all(|bits| *bits == 0), index == 0, "only the space is empty");
            assert!(GLYPHS[..index].iter().all(|other| other != glyph), "glyph {index} appears twice");
        }
    }

    #[test]
    fn colours_are_stable_vivid_and_apart() {
        // White, and the corner red, of the colour space: the matrices' own check values.
        for value in oklch_to_linear(1.0, 0.0, 0.0) {
            assert!((value - 1.0).abs() < 1e-6);
        }
        let red = oklch_to_linear(0.627_955, 0.257_683, 29.233_88_f64.to_radians());
        assert!((red[0] - 1.0).abs() < 1e-3 && red[1].abs() < 1e-3 && red[2].abs() < 1e-3, "{red:?}");
        let colors: Vec<[u8; 3]> = (0..24).map(class_color).collect();
        for (i, a) in colors.iter().enumerate() {
            assert!(a.iter().max().unwrap() - a.iter().min().unwrap() > 60, "class {i} is grey: {a:?}");
            for b in &colors[..i] {
                let distance: i32 = a.iter().zip(b).map(|(x, y)| (i32::from(*x) - i32::from(*y)).abs()).sum();
                assert!(distance > 15, "class {i}: {a:?} and {b:?}");
            }
        }
        class_color(u32::MAX);
    }

    #[test]
    fn a_png_reads_back_as_it_was() {
        let mut picture = Picture::new(5, 3, [10, 20, 30]);
        picture.set_pixel(4, 2, [255, 0, 1]);
        assert_eq!(super::super::decode::decode(&encode_png(&picture).unwrap()).unwrap(), picture);
        let torn = Picture { width: 5, height: 3, rgb: vec![0; 7] };
        assert!(matches!(encode_png(&torn), Err(ImageError::PixelCount { found: 7, .. })));
        let error = save_png(&picture, Path::new("/no such folder/a.png")).unwrap_err().to_string();
        assert!(error.ends_with("/no such folder/a.png"), "{error}");
    }
}
