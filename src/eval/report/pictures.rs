//! Outlines over the pictures of the worst images, and picture bytes as text that stands inside a page.

use super::{REPORT_IOU, Report};
use crate::eval::ImageBoxes;
use crate::eval::verdicts::{Verdict, match_all};
use crate::eval::worst::ImageLoss;

/// What an outline marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    Right,
    Wrong,
    Missed,
}

impl Mark {
    /// CSS colour of the outline.
    pub const fn color(self) -> &'static str {
        match self {
            Self::Right => "#2e7d32",
            Self::Wrong => "#d32f2f",
            Self::Missed => "#1565c0",
        }
    }
}

/// A box over a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Outline {
    /// Left, top, width, height in pixels of the image.
    pub xywh: [f64; 4],
    pub mark: Mark,
    /// Class, and the score of a detection.
    pub words: String,
}

/// A picture inside a page.
#[derive(Clone, Debug, PartialEq)]
pub struct Thumbnail {
    /// Of the image itself, which the outlines are measured in.
    pub width: u32,
    pub height: u32,
    /// `data:image/jpeg;base64,…`
    pub data: String,
}

/// One of the worst images as a page shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct WorstImage {
    pub loss: ImageLoss,
    /// For people: the file's name where there is one.
    pub name: String,
    /// `None` where the picture is not at hand; the outlines then stand alone.
    pub thumbnail: Option<Thumbnail>,
    pub outlines: Vec<Outline>,
}

/// Detections of the report's score and above, and the objects that they miss. Detections of groups and of ignored
/// objects are left out, boxes that are no boxes too.
pub fn outlines(report: &Report, image: &ImageBoxes) -> Vec<Outline> {
    let iou_type = ImageBoxes::compared_by(std::slice::from_ref(image));
    let mut list = Vec::new();
    for matched in match_all(std::slice::from_ref(image), report.classes.len(), REPORT_IOU, iou_type) {
        let mut missed = matched.missed;
        for (verdict, result) in matched.detections.iter().zip(&image.results) {
            let mark = match verdict.verdict {
                Verdict::TruePositive => Mark::Right,
                Verdict::FalsePositive => Mark::Wrong,
                Verdict::Ignored => continue,
            };
            if result.score >= report.score {
                let words = format!("{} {:.2}", report.class_name(result.class as usize), result.score);
                list.push(Outline { xywh: result.xywh, mark, words });
            } else if mark == Mark::Right {
                missed.extend(verdict.truth);
            }
        }
        for truth in missed.into_iter().filter_map(|index| image.truths.get(index)) {
            let words = report.class_name(truth.class as usize);
            list.push(Outline { xywh: truth.xywh, mark: Mark::Missed, words });
        }
    }
    list.retain(|outline| outline.xywh.iter().all(|v| v.is_finite()));
    list
}

/// Bytes as base64 (RFC 4648) with padding.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let group = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for place in 0..4 {
            // as many digits as bytes, and one more
            let digit = DIGITS[((group >> (18 - 6 * place)) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn base64_as_in_the_rfc() {
        let vectors =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")];
        for (bytes, text) in vectors {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[255, 254, 253]), "//79");
    }

    #[test]
    fn outlines_say_right_wrong_and_missed() {
        let (report, images) = samples::report();
        let marks = |image: &ImageBoxes| outlines(&report, image).iter().map(|o| o.mark).collect::<Vec<_>>();
        assert_eq!(marks(&images[0]), [Mark::Right, Mark::Right]);
        // the detection of 0.7 is below the score of the report
        assert_eq!(marks(&images[1]), [Mark::Wrong, Mark::Missed, Mark::Missed]);
        assert_eq!(outlines(&report, &images[0])[1].words, "dog 0.80");
    }
}
