//! Picture files into RGB pixels: content decides the format, the EXIF rotation is applied, every fault is named.

use super::picture::Picture;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, ErrorKind, Read, Seek};
use std::path::{Path, PathBuf};

/// Longest side that is read, pixels.
pub const MAX_SIDE: u32 = 32_768;
/// Most bytes that one decoded picture, or one picture file, may take.
pub const MAX_BYTES: u64 = 1 << 30;
/// What is read of a JPEG to find its size; a header that is longer costs a second look.
const JPEG_HEADER_BYTES: u64 = 256 * 1024;

const FORMATS: &str = "JPEG, PNG, BMP, GIF, TIFF, WebP, PNM, TGA, ICO";
const EXTENSIONS: [&str; 18] = [
    "jpg", "jpeg", "jpe", "jfif", "png", "bmp", "dib", "gif", "tif", "tiff", "webp", "pbm", "pgm", "ppm", "pam", "pnm",
    "tga", "ico",
];

/// Why a picture could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("the content is no picture that can be read; formats: {FORMATS}")]
    UnknownFormat,
    #[error("the {format} picture is damaged: {fault}")]
    Damaged { format: String, fault: String },
    #[error("the {format} picture uses something that is not supported: {fault}")]
    Unsupported { format: String, fault: String },
    #[error("the {format} picture is too large: sides up to {MAX_SIDE} pixels and {MAX_BYTES} decoded bytes are read")]
    TooLarge { format: String },
    #[error("the file has {bytes} bytes; pictures up to {MAX_BYTES} bytes are read")]
    FileTooLarge { bytes: u64 },
    #[error("this is not a regular file")]
    NotAFile,
    #[error("a picture of {width} × {height} pixels needs 3 bytes for each, and there are {found} bytes")]
    PixelCount { width: u32, height: u32, found: usize },
    #[error("the picture cannot be written as PNG: {0}")]
    Encode(String),
    #[error("{0}")]
    Io(std::io::Error),
    #[error("{fault}: {}", .path.display())]
    File { fault: Box<ImageError>, path: PathBuf },
}

impl ImageError {
    /// The same fault with the file that it is in; the path stands last.
    pub(super) fn in_file(self, path: &Path) -> Self {
        Self::File { fault: Box::new(self), path: path.to_path_buf() }
    }
}

/// Decodes a picture from memory.
///
/// The format is recognised by content (TGA has no signature: see [`load`]). The EXIF rotation is applied. Grey is
/// repeated into three channels; palettes are looked up; 16-bit samples are rounded to 8; alpha is dropped, not
/// blended, so transparent pixels keep their stored colour; CMYK JPEG becomes RGB as Adobe stores it (inverted inks).
/// An animation gives its first frame.
///
/// # Errors
/// [`ImageError::UnknownFormat`], [`ImageError::Damaged`] (also for a cut-off file), [`ImageError::Unsupported`] or
/// [`ImageError::TooLarge`].
pub fn decode(bytes: &[u8]) -> Result<Picture, ImageError> {
    decode_as(bytes, format_of(bytes, None)?)
}

/// Reads and decodes a picture file, as [`decode`] does. A file without a known signature is taken as TGA if it is
/// named so.
///
/// # Errors
/// [`ImageError::File`] with the fault and the path.
pub fn load(path: &Path) -> Result<Picture, ImageError> {
    let read = || -> Result<Picture, ImageError> {
        let mut bytes = Vec::new();
        open(path)?.take(MAX_BYTES).read_to_end(&mut bytes).map_err(ImageError::Io)?;
        decode_as(&bytes, format_of(&bytes, Some(path))?)
    };
    read().map_err(|fault| fault.in_file(path))
}

/// Whether the file name ends like a picture's. The content decides when it is read.
pub fn is_image_path(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
    extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()))
}

/// Width and height of a picture file, pixels, after the EXIF rotation. Reads the header alone.
///
/// # Errors
/// [`ImageError::File`] with the fault and the path. A file that is cut off behind its header is not noticed.
pub fn size_of(path: &Path) -> Result<(u32, u32), ImageError> {
    let read = || -> Result<(u32, u32), ImageError> {
        let mut file = open(path)?;
        let mut start = Vec::new();
        (&mut file).take(JPEG_HEADER_BYTES).read_to_end(&mut start).map_err(ImageError::Io)?;
        let format = format_of(&start, Some(path))?;
        if format == ImageFormat::Jpeg
            && let Ok(size) = upright_size(Cursor::new(start.as_slice()), format)
        {
            return Ok(size);
        }
        file.rewind().map_err(ImageError::Io)?;
        upright_size(BufReader::new(file), format)
    };
    read().map_err(|fault| fault.in_file(path))
}

/// Opens a regular file of bounded size: a device or a pipe could deliver for ever.
fn open(path: &Path) -> Result<File, ImageError> {
    let metadata = std::fs::metadata(path).map_err(ImageError::Io)?;
    if !metadata.is_file() {
        return Err(ImageError::NotAFile);
    }
    if metadata.len() > MAX_BYTES {
        return Err(ImageError::FileTooLarge { bytes: metadata.len() });
    }
    File::open(path).map_err(ImageError::Io)
}

fn format_of(bytes: &[u8], path: Option<&Path>) -> Result<ImageFormat, ImageError> {
    let named_tga = || {
        let extension = path.and_then(Path::extension);
        extension.is_some_and(|e| e.eq_ignore_ascii_case("tga")).then_some(ImageFormat::Tga)
    };
    image::guess_format(bytes).ok().or_else(named_tga).ok_or(ImageError::UnknownFormat)
}

fn decode_as(bytes: &[u8], format: ImageFormat) -> Result<Picture, ImageError> {
    let name = name_of(format);
    if format == ImageFormat::Jpeg
        && let Some(fault) = jpeg_fault(bytes)
    {
        return Err(ImageError::Damaged { format: name, fault: fault.to_string() });
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits());
    let mut decoder = reader.into_decoder().map_err(|e| named(e, format))?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(ImageError::Damaged { format: name, fault: "it has no pixels".to_string() });
    }
    // The decoder's own limits are about its working memory; the pixels are allocated for it.
    if width > MAX_SIDE || height > MAX_SIDE || decoder.total_bytes() > MAX_BYTES {
        return Err(ImageError::TooLarge { format: name });
    }
    // Unreadable metadata is no reason to refuse good pixels.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut pixels = DynamicImage::from_decoder(decoder).map_err(|e| named(e, format))?;
    pixels.apply_orientation(orientation);
    into_picture(pixels)
}

fn upright_size<R: BufRead + Seek>(source: R, format: ImageFormat) -> Result<(u32, u32), ImageError> {
    let mut reader = ImageReader::with_format(source, format);
    reader.limits(limits());
    let mut decoder = reader.into_decoder().map_err(|e| named(e, format))?;
    let (width, height) = decoder.dimensions();
    let turned = match decoder.orientation().unwrap_or(Orientation::NoTransforms) {
        Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH => {
            true
        }
        Orientation::NoTransforms
        | Orientation::Rotate180
        | Orientation::FlipHorizontal
        | Orientation::FlipVertical => false,
    };
    Ok(if turned { (height, width) } else { (width, height) })
}

fn limits() -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    limits
}

fn name_of(format: ImageFormat) -> String {
    format!("{format:?}").to_uppercase()
}

/// Our error for the decoder's, with the format.
fn named(error: image::ImageError, format: ImageFormat) -> ImageError {
    let format = name_of(format);
    match error {
        image::ImageError::Limits(_) => ImageError::TooLarge { format },
        image::ImageError::Unsupported(fault) => ImageError::Unsupported { format, fault: fault.to_string() },
        image::ImageError::IoError(fault) if fault.kind() == ErrorKind::UnexpectedEof => {
            ImageError::Damaged { format, fault: "it ends too early".to_string() }
        }
        fault => ImageError::Damaged { format, fault: fault.to_string() },
    }
}

/// What is wrong with the segments of a JPEG, if anything. The decoder fills what a cut-off file lacks with grey and
/// says nothing, so the way to the end marker is walked here: segments have a length, coded data goes to the next
/// marker (T.81, annex B).
fn jpeg_fault(bytes: &[u8]) -> Option<&'static str> {
    const CUT_OFF: &str = "it ends before its end marker";
    // Past the start marker.
    let mut at = 2;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(step) = rest.iter().position(|&b| b == 0xFF) else {
            return Some(CUT_OFF);
        };
        at += step;
        let Some(&code) = bytes.get(at + 1) else {
            return Some(CUT_OFF);
        };
        at += match code {
            0xD9 => return None,
            // A fill byte.
            0xFF => 1,
            // A coded 0xFF, a restart marker, or another marker without a length.
            0x00 | 0x01 | 0xD0..=0xD8 => 2,
            _ => {
                let (Some(&high), Some(&low)) = (bytes.get(at + 2), bytes.get(at + 3)) else {
                    return Some(CUT_OFF);
                };
                let length = u16::from_be_bytes([high, low]);
                if length < 2 {
                    return Some("a segment is shorter than its own length field");
                }
                2 + usize::from(length)
            }
        };
    }
}

/// Three 8-bit channels of whatever was decoded.
fn into_picture(pixels: DynamicImage) -> Result<Picture, ImageError> {
    let (width, height) = (pixels.width(), pixels.height());
    // round(v · 255 / 65535)
    let narrow = |v: u16| ((u32::from(v) + 128) / 257) as u8;
    let rgb: Vec<u8> = match pixels {
        DynamicImage::ImageRgb8(p) => p.into_raw(),
        DynamicImage::ImageRgba8(p) => p.as_raw().chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect(),
        DynamicImage::ImageLuma8(p) => p.as_raw().iter().flat_map(|&v| [v; 3]).collect(),
        DynamicImage::ImageLumaA8(p) => p.as_raw().chunks_exact(2).flat_map(|p| [p[0]; 3]).collect(),
        DynamicImage::ImageRgb16(p) => p.as_raw().iter().map(|&v| narrow(v)).collect(),
        DynamicImage::ImageRgba16(p) => {
            p.as_raw().chunks_exact(4).flat_map(|p| [narrow(p[0]), narrow(p[1]), narrow(p[2])]).collect()
        }
        DynamicImage::ImageLuma16(p) => p.as_raw().iter().flat_map(|&v| [narrow(v); 3]).collect(),
        DynamicImage::ImageLumaA16(p) => p.as_raw().chunks_exact(2).flat_map(|p| [narrow(p[0]); 3]).collect(),
        other => other.into_rgb8().into_raw(),
    };
    Picture::from_rgb(width, height, rgb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jpeg_must_reach_its_end_marker() {
        // Start, a segment of 2 + 2 bytes that holds a false end marker, coded data with a stuffed 0xFF, the end.
        let whole = [0xFF, 0xD8, 0xFF, 0xE1, 0, 4, 0xFF, 0xD9, 7, 0xFF, 0, 0xFF, 0xD3, 9, 0xFF, 0xFF, 0xD9];
        assert_eq!(jpeg_fault(&whole), None);
        for cut in 2..whole.len() {
            assert!(jpeg_fault(&whole[..cut]).is_some(), "cut at {cut}");
        }
        assert!(jpeg_fault(&[0xFF, 0xD8, 0xFF, 0xE1, 0, 1]).unwrap().contains("length"));
        assert!(jpeg_fault(&[]).is_some());
    }

    #[test]
    fn names_decide_what_is_listed_and_content_what_is_read() {
        assert!(is_image_path(Path::new("a/b.JPG")) && is_image_path(Path::new("x.webp")));
        assert!(!is_image_path(Path::new("x.txt")) && !is_image_path(Path::new("png")));
        assert!(matches!(decode(b"plain text"), Err(ImageError::UnknownFormat)));
        assert!(matches!(decode(b""), Err(ImageError::UnknownFormat)));
        assert!(matches!(decode(b"\x89PNG\r\n\x1a\n"), Err(ImageError::Damaged { .. })));
        assert_eq!(name_of(ImageFormat::Jpeg), "JPEG");
    }

    #[test]
    fn sixteen_bit_and_alpha_become_plain_rgb() {
        let deep = image::ImageBuffer::from_raw(1, 1, vec![65535u16, 257, 128]).unwrap();
        assert_eq!(into_picture(DynamicImage::ImageRgb16(deep)).unwrap().rgb, [255, 1, 0]);
        let clear = image::ImageBuffer::from_raw(1, 1, vec![9u8, 8, 7, 0]).unwrap();
        assert_eq!(into_picture(DynamicImage::ImageRgba8(clear)).unwrap().rgb, [9, 8, 7]);
        let grey = image::ImageBuffer::from_raw(2, 1, vec![5u8, 6]).unwrap();
        assert_eq!(into_picture(DynamicImage::ImageLuma8(grey)).unwrap().rgb, [5, 5, 5, 6, 6, 6]);
    }
}
