//! Picture files as they come: rotations, depths, palettes, inks, damage, size limits; and a whole augmented sample.

use boxwright::geometry::{BBox, Object};
use boxwright::imaging::{
    Augmentation, ChannelOrder, Fit, ImageError, Picture, Preprocess, Sample, augment, decode, load, save_png, size_of,
};
use boxwright::random::Random;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::codecs::tga::TgaEncoder;
use image::{ExtendedColorType, ImageEncoder};

const RED: [u8; 3] = [255, 0, 0];
const GREEN: [u8; 3] = [0, 255, 0];
const BLUE: [u8; 3] = [0, 0, 255];
const WHITE: [u8; 3] = [255, 255, 255];

/// 48 × 32 pixels with a colour in each quarter: red and green above, blue and white below.
fn quarters() -> Picture {
    let mut picture = Picture::new(48, 32, RED);
    picture.paste(&Picture::new(24, 16, GREEN), 24, 0);
    picture.paste(&Picture::new(24, 16, BLUE), 0, 16);
    picture.paste(&Picture::new(24, 16, WHITE), 24, 16);
    picture
}

fn jpeg(picture: &Picture) -> Vec<u8> {
    let mut bytes = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut bytes, 100);
    encoder.write_image(&picture.rgb, picture.width, picture.height, ExtendedColorType::Rgb8).unwrap();
    bytes
}

/// A JPEG with an EXIF segment of one entry, the orientation, right behind its start marker.
fn jpeg_with_orientation(picture: &Picture, orientation: u8) -> Vec<u8> {
    let mut segment = vec![0xFF, 0xE1, 0, 34];
    segment.extend_from_slice(b"Exif\0\0II\x2A\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0");
    segment.extend_from_slice(&[orientation, 0, 0, 0, 0, 0, 0, 0]);
    let plain = jpeg(picture);
    [&plain[..2], &segment[..], &plain[2..]].concat()
}

fn png(pixels: &[u8], width: u32, height: u32, color: ExtendedColorType) -> Vec<u8> {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes).write_image(pixels, width, height, color).unwrap();
    bytes
}

/// CRC-32 of the PNG specification, annex D, bit by bit.
fn crc(bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(byte), |c, _| if c & 1 == 1 { (c >> 1) ^ 0xEDB8_8320 } else { c >> 1 })
    })
}

/// A PNG by hand: `rows` hold a filter byte and samples each, stored without compression.
fn raw_png(width: u32, height: u32, depth: u8, color_type: u8, palette: &[u8], rows: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8; 4], data: &[u8]| {
        bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
        bytes.extend_from_slice(kind);
        bytes.extend_from_slice(data);
        bytes.extend_from_slice(&crc(kind.iter().chain(data).copied()).to_be_bytes());
    };
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend_from_slice(&[depth, color_type, 0, 0, 0]);
    chunk(b"IHDR", &header);
    if !palette.is_empty() {
        chunk(b"PLTE", palette);
    }
    // zlib: header, one stored block, Adler-32.
    let length = rows.len() as u16;
    let mut data = vec![0x78, 0x01, 0x01];
    data.extend_from_slice(&length.to_le_bytes());
    data.extend_from_slice(&(!length).to_le_bytes());
    data.extend_from_slice(rows);
    let (a, b) = rows.iter().fold((1u32, 0u32), |(a, b), &byte| {
        let a = (a + u32::from(byte)) % 65521;
        (a, (a + b) % 65521)
    });
    data.extend_from_slice(&((b << 16) | a).to_be_bytes());
    chunk(b"IDAT", &data);
    chunk(b"IEND", &[]);
    bytes
}

/// One block of 8 × 8 pixels in four inks, stored inverted as Adobe does: no cyan, full magenta and yellow, no black.
fn cmyk_jpeg() -> Vec<u8> {
    let mut bytes = vec![0xFF, 0xD8];
    // Adobe segment, transform 0: four inks as they are.
    bytes.extend_from_slice(b"\xFF\xEE\x00\x0EAdobe\x00\x64\x00\x00\x00\x00\x00");
    // Quantisation by 8 throughout: a DC coefficient counts levels from 128.
    bytes.extend_from_slice(&[0xFF, 0xDB, 0, 67, 0]);
    bytes.extend_from_slice(&[8; 64]);
    // Frame: 8 bits, 8 × 8, four components without subsampling.
    bytes.extend_from_slice(&[0xFF, 0xC0, 0, 20, 8, 0, 8, 0, 8, 4]);
    bytes.extend_from_slice(&[1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0, 4, 0x11, 0]);
    // DC codes: size 0 is 0, size 7 is 10, size 8 is 110. AC: end of block is 0.
    bytes.extend_from_slice(&[0xFF, 0xC4, 0, 22, 0x00, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 8]);
    bytes.extend_from_slice(&[0xFF, 0xC4, 0, 20, 0x10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&[0xFF, 0xDA, 0, 14, 4, 1, 0, 2, 0, 3, 0, 4, 0, 0, 63, 0]);
    // 10 1111111 0 (level 255), twice 110 01111111 0 (level 0), 10 1111111 0, ones to the byte.
    bytes.extend_from_slice(&[0xBF, 0xB3, 0xFB, 0x3F, 0xAF, 0xEF]);
    bytes.extend_from_slice(&[0xFF, 0xD9]);
    bytes
}

fn close(a: [u8; 3], b: [u8; 3]) -> bool {
    a.iter().zip(b).all(|(x, y)| x.abs_diff(y) < 24)
}

#[test]
fn every_exif_orientation_is_applied() {
    // Displayed upper left, upper right, lower left, lower right, by the EXIF numbers 1 to 8.
    let expected = [
        [RED, GREEN, BLUE, WHITE],
        [GREEN, RED, WHITE, BLUE],
        [WHITE, BLUE, GREEN, RED],
        [BLUE, WHITE, RED, GREEN],
        [RED, BLUE, GREEN, WHITE],
        [BLUE, RED, WHITE, GREEN],
        [WHITE, GREEN, BLUE, RED],
        [GREEN, WHITE, RED, BLUE],
    ];
    let folder = tempfile::tempdir().unwrap();
    for (number, corners) in (1u8..).zip(expected) {
        let bytes = jpeg_with_orientation(&quarters(), number);
        let picture = decode(&bytes).unwrap();
        let size = if number < 5 { (48, 32) } else { (32, 48) };
        assert_eq!((picture.width, picture.height), size, "orientation {number}");
        let (right, below) = (picture.width - 4, picture.height - 4);
        let found =
            [picture.pixel(3, 3), picture.pixel(right, 3), picture.pixel(3, below), picture.pixel(right, below)];
        for (a, b) in found.into_iter().zip(corners) {
            assert!(close(a, b), "orientation {number}: {found:?}");
        }
        // A name that says something else does not matter.
        let path = folder.path().join(format!("{number}.png"));
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(size_of(&path).unwrap(), size);
        assert_eq!(load(&path).unwrap(), picture);
    }
}

#[test]
fn grey_palette_and_deep_pngs_become_rgb() {
    let grey = decode(&png(&[0, 100, 255], 3, 1, ExtendedColorType::L8)).unwrap();
    assert_eq!(grey.rgb, [0, 0, 0, 100, 100, 100, 255, 255, 255]);

    let deep: Vec<u8> = [0u16, 65535, 25700, 257, 128, 129].iter().flat_map(|v| v.to_ne_bytes()).collect();
    // round(v · 255 / 65535): 129 · 255 / 65535 = 0.502.
    let picture = decode(&png(&deep, 2, 1, ExtendedColorType::Rgb16)).unwrap();
    assert_eq!(picture.rgb, [0, 255, 100, 1, 0, 1]);
    let picture = decode(&png(&deep[..8], 4, 1, ExtendedColorType::L16)).unwrap();
    assert_eq!(picture.rgb, [0, 0, 0, 255, 255, 255, 100, 100, 100, 1, 1, 1]);

    // Transparent pixels keep the colour that is stored for them.
    let clear = decode(&png(&[9, 8, 7, 0, 1, 2, 3, 255], 2, 1, ExtendedColorType::Rgba8)).unwrap();
    assert_eq!(clear.rgb, [9, 8, 7, 1, 2, 3]);

    let palette = [RED, GREEN, BLUE].concat();
    let indexed = decode(&raw_png(3, 2, 8, 3, &palette, &[0, 2, 1, 0, 0, 0, 1, 2])).unwrap();
    assert_eq!((indexed.width, indexed.height), (3, 2));
    assert_eq!(indexed.rgb, [BLUE, GREEN, RED, RED, GREEN, BLUE].concat());

    // One bit a pixel: 1 0 1.
    let bits = decode(&raw_png(3, 1, 1, 0, &[], &[0, 0b1010_0000])).unwrap();
    assert_eq!(bits.rgb, [WHITE, [0; 3], WHITE].concat());
}

#[test]
fn four_inks_become_rgb() {
    let picture = decode(&cmyk_jpeg()).unwrap();
    assert_eq!((picture.width, picture.height), (8, 8));
    assert!(close(picture.pixel(4, 4), RED), "{:?}", picture.pixel(4, 4));
}

#[test]
fn plain_formats_are_read_by_content_and_tga_by_name() {
    let picture = decode(b"P6 2 1 255\n\x01\x02\x03\x04\x05\x06").unwrap();
    assert_eq!(picture.rgb, [1, 2, 3, 4, 5, 6]);
    let folder = tempfile::tempdir().unwrap();
    let mut tga = Vec::new();
    TgaEncoder::new(&mut tga).write_image(&picture.rgb, 2, 1, ExtendedColorType::Rgb8).unwrap();
    let path = folder.path().join("a.TGA");
    std::fs::write(&path, &tga).unwrap();
    assert_eq!(load(&path).unwrap(), picture);
    assert_eq!(size_of(&path).unwrap(), (2, 1));
    let path = folder.path().join("a.png");
    save_png(&picture, &path).unwrap();
    assert_eq!(load(&path).unwrap(), picture);
}

#[test]
fn cut_off_and_damaged_files_are_errors_that_say_so() {
    let whole = jpeg(&quarters());
    assert!(decode(&whole).is_ok());
    for cut in [3, 40, whole.len() / 2, whole.len() * 9 / 10, whole.len() - 2, whole.len() - 1] {
        let error = decode(&whole[..cut]).unwrap_err();
        assert!(matches!(error, ImageError::Damaged { .. }), "cut at {cut}: {error}");
        assert!(error.to_string().contains("JPEG"), "{error}");
    }
    let whole = png(&quarters().rgb, 48, 32, ExtendedColorType::Rgb8);
    for cut in [9, 30, whole.len() / 2] {
        let error = decode(&whole[..cut]).unwrap_err().to_string();
        assert!(error.contains("PNG"), "{error}");
    }
    let mut damaged = raw_png(3, 1, 8, 0, &[], &[0, 1, 2, 3]);
    let sample = damaged.len() - 12 - 4 - 4 - 1;
    damaged[sample] ^= 1;
    assert!(decode(&damaged).unwrap_err().to_string().contains("PNG"));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.jpg");
    std::fs::write(&path, &jpeg(&quarters())[..400]).unwrap();
    let error = load(&path).unwrap_err().to_string();
    assert!(error.contains("JPEG") && error.ends_with("broken.jpg"), "{error}");
    std::fs::write(&path, b"not a picture").unwrap();
    assert!(load(&path).unwrap_err().to_string().ends_with("broken.jpg"));
    assert!(size_of(&path).is_err());
    assert!(load(folder.path()).unwrap_err().to_string().contains("regular file"));
    let missing = folder.path().join("missing.png");
    assert!(load(&missing).unwrap_err().to_string().ends_with("missing.png"));
}

#[test]
fn headers_that_ask_for_too_much_are_refused() {
    for (width, height) in [(40_000, 1), (1, 40_000), (32_000, 32_000)] {
        let error = decode(&raw_png(width, height, 8, 2, &[], &[0])).unwrap_err();
        assert!(matches!(error, ImageError::TooLarge { .. }), "{width} × {height}: {error}");
    }
    assert!(decode(&raw_png(0, 5, 8, 2, &[], &[0])).is_err());
}

#[test]
fn a_sample_goes_from_file_to_input_with_its_box_on_its_pixels() {
    let mut picture = Picture::new(90, 60, [40, 40, 40]);
    picture.paste(&Picture::new(30, 24, WHITE), 36, 18);
    let object = Object { bbox: BBox::new(36.0, 18.0, 66.0, 42.0), ..Object::default() };
    let preprocess = Preprocess {
        fit: Fit::Stretch { width: 96, height: 96 },
        order: ChannelOrder::Rgb,
        mean: [0.0; 3],
        std: [255.0; 3],
    };
    let settings = Augmentation { photometric: false, ..Augmentation::ssd() };
    for seed in 0..24 {
        let sample = Sample { picture: picture.clone(), objects: vec![object.clone()] };
        let (sample, _) = augment(sample, &settings, [40, 40, 40], &mut Random::new(seed));
        let input = preprocess.apply(&sample.picture);
        let bbox = input.placement.to_input(sample.objects[0].bbox);
        // Away from the edge by one pixel of the picture, the input is white inside the box and dark outside it.
        let (margin_x, margin_y) = (1.0 + input.placement.scale_x, 1.0 + input.placement.scale_y);
        for y in 0..96 {
            for x in 0..96 {
                let (left, top) = (x as f32 + 0.5 - bbox.x0, y as f32 + 0.5 - bbox.y0);
                let (right, bottom) = (bbox.width() - left, bbox.height() - top);
                let value = input.planes[y * 96 + x];
                if left.min(right) > margin_x && top.min(bottom) > margin_y {
                    assert!(value > 0.999, "seed {seed}: {value} inside at {x}, {y}");
                }
                if left.min(right) < -margin_x || top.min(bottom) < -margin_y {
                    assert!(value < 0.2, "seed {seed}: {value} outside at {x}, {y}");
                }
            }
        }
    }
}
