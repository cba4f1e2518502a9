//! Finds, shrinks and encodes the pictures of the worst images for the page.

use crate::data::dataset::Dataset;
use crate::eval::ImageBoxes;
use crate::eval::report::Report;
use crate::eval::report::pictures::{Thumbnail, WorstImage, base64, outlines};
use crate::imaging::{self, Kernel, Picture, resize_picture};
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

/// Longest side of a picture on the page, pixels.
const SIDE: u32 = 640;
const QUALITY: u8 = 80;

/// Where pictures come from, by position among the scored images.
pub enum Pictures {
    /// Files named by the ground truth, looked for in these folders in turn.
    Files { folders: Vec<PathBuf>, names: Vec<String> },
    /// A data set, and the position in it of each scored image.
    Data { dataset: Box<Dataset>, positions: Vec<Option<usize>> },
}

impl Pictures {
    /// Pictures of a ground-truth file: in `folder`, or else in the file's own folder, in `images` beside it, and the
    /// same one level up.
    pub fn beside(gt: &Path, folder: Option<&Path>, names: Vec<String>) -> Self {
        let folders = match folder {
            Some(folder) => vec![folder.to_path_buf()],
            None => {
                let own = gt.parent().unwrap_or(Path::new("")).to_path_buf();
                let above = own.join("..");
                vec![own.clone(), own.join("images"), above.join("images"), above]
            }
        };
        Self::Files { folders, names }
    }

    /// Pictures of a data set, for `images` in any order.
    pub fn of_data(images: &[ImageBoxes], dataset: Dataset) -> Self {
        let by_id: HashMap<u64, usize> = dataset.images.iter().enumerate().map(|(i, entry)| (entry.id, i)).collect();
        let positions = images.iter().map(|image| by_id.get(&image.image_id).copied()).collect();
        Self::Data { dataset: Box::new(dataset), positions }
    }

    /// The report's worst images with their pictures, as far as those can be read.
    pub fn worst(&self, report: &Report, images: &[ImageBoxes]) -> Vec<WorstImage> {
        let worst = report.worst.iter().filter_map(|loss| Some((loss, images.get(loss.image)?)));
        worst
            .map(|(loss, image)| WorstImage {
                loss: loss.clone(),
                name: self.name(loss.image).unwrap_or_else(|| format!("image {}", image.image_id)),
                thumbnail: self.picture(loss.image).and_then(|picture| thumbnail(&picture)),
                outlines: outlines(report, image),
            })
            .collect()
    }

    fn name(&self, position: usize) -> Option<String> {
        let name = match self {
            Self::Files { names, .. } => names.get(position)?,
            Self::Data { dataset, positions } => &dataset.images.get((*positions.get(position)?)?)?.name,
        };
        (!name.is_empty()).then(|| name.clone())
    }

    fn picture(&self, position: usize) -> Option<Picture> {
        match self {
            Self::Files { folders, names } => {
                let name = Path::new(names.get(position)?);
                // a name from a file leads into the folder and nowhere else
                if name.as_os_str().is_empty() || !name.components().all(|part| matches!(part, Component::Normal(_))) {
                    return None;
                }
                folders.iter().find_map(|folder| imaging::load(&folder.join(name)).ok())
            }
            Self::Data { dataset, positions } => dataset.picture((*positions.get(position)?)?).ok(),
        }
    }
}

/// A smaller JPEG copy inside a text; `None` for a picture without pixels.
fn thumbnail(picture: &Picture) -> Option<Thumbnail> {
    let longest = picture.width.max(picture.height);
    let shrink = f64::from(SIDE.min(longest)) / f64::from(longest.max(1));
    // a picture with pixels keeps at least one on each side
    let side = |length: u32| ((f64::from(length) * shrink).round() as u32).max(length.min(1));
    let small = resize_picture(picture, side(picture.width), side(picture.height), Kernel::BilinearAntialias);
    if small.rgb.is_empty() || small.rgb.len() as u64 != 3 * u64::from(small.width) * u64::from(small.height) {
        return None;
    }
    let mut bytes = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut bytes, QUALITY);
    encoder.encode(&small.rgb, small.width, small.height, ExtendedColorType::Rgb8).ok()?;
    let data = format!("data:image/jpeg;base64,{}", base64(&bytes));
    Some(Thumbnail { width: picture.width, height: picture.height, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thumbnails_are_small_and_keep_the_image_s_own_size() {
        let small = thumbnail(&Picture::new(1600, 400, [200, 30, 30])).unwrap();
        assert_eq!((small.width, small.height), (1600, 400));
        assert!(small.data.starts_with("data:image/jpeg;base64,/9j/") && small.data.len() < 20_000);
        assert!(thumbnail(&Picture::new(0, 5, [0; 3])).is_none());
    }

    #[test]
    fn names_do_not_lead_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("in");
        std::fs::create_dir(&inside).unwrap();
        for place in [folder.path().join("a.png"), inside.join("b.png")] {
            imaging::save_png(&Picture::new(4, 3, [1, 2, 3]), &place).unwrap();
        }
        let outside = folder.path().join("a.png").to_string_lossy().into_owned();
        let names = vec!["b.png".to_owned(), "../a.png".to_owned(), outside, String::new(), "c.png".to_owned()];
        let pictures = Pictures::beside(Path::new("gt.json"), Some(&inside), names);
        let found: Vec<bool> = (0..6).map(|position| pictures.picture(position).is_some()).collect();
        assert_eq!(found, [true, false, false, false, false, false]);
        assert_eq!((pictures.name(1).as_deref(), pictures.name(3)), (Some("../a.png"), None));
    }
}
