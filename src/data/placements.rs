//! Where the pictures of a data set come to lie in a network's input, from their sizes alone.

use super::dataset::{Dataset, ImageEntry};
use crate::imaging::{Picture, Placement, Preprocess};
use rayon::prelude::*;
use std::collections::{BTreeSet, HashMap};

/// How one picture lies in its input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fitted {
    pub placement: Placement,
    /// Width and height of the input, pixels, padding included.
    pub input: (usize, usize),
}

/// The placement of every picture size that a data set has.
#[derive(Clone, Debug)]
pub struct Placements {
    by_size: HashMap<(u32, u32), Fitted>,
}

impl Placements {
    /// Works out each distinct size once. No picture is read.
    pub fn new(preprocess: &Preprocess, dataset: &Dataset) -> Self {
        let sizes: BTreeSet<(u32, u32)> = dataset.images.iter().map(|entry| (entry.width, entry.height)).collect();
        let by_size = sizes.into_par_iter().map(|size| (size, fitted(preprocess, size))).collect();
        Self { by_size }
    }

    /// That of a picture of the data set; nothing for a size that it does not have.
    pub fn of(&self, entry: &ImageEntry) -> Option<Fitted> {
        self.by_size.get(&(entry.width, entry.height)).copied()
    }
}

/// A picture without pixels is placed and not resized.
fn fitted(preprocess: &Preprocess, (width, height): (u32, u32)) -> Fitted {
    let input = preprocess.apply(&Picture { width, height, rgb: Vec::new() });
    Fitted { placement: input.placement, input: (input.width, input.height) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::dataset::Source;
    use crate::imaging::{ChannelOrder, Fit};

    #[test]
    fn the_placement_is_that_of_the_picture_itself() {
        let entry = |width: u32, height: u32| ImageEntry {
            id: 1,
            name: "a".to_owned(),
            source: Source::Shapes { seed: 1, index: 0 },
            width,
            height,
            objects: Vec::new(),
        };
        let set = Dataset { images: vec![entry(30, 20), entry(7, 19)], ..Dataset::default() };
        let fits = [
            Fit::Stretch { width: 16, height: 16 },
            Fit::Letterbox { width: 16, height: 16, fill: 127.5 },
            Fit::ShortestEdge { short: 10, long: 14, divisor: 8 },
        ];
        for fit in fits {
            let preprocess = Preprocess { fit, order: ChannelOrder::Rgb, mean: [0.0; 3], std: [1.0; 3] };
            let placements = Placements::new(&preprocess, &set);
            for image in &set.images {
                let input = preprocess.apply(&Picture::new(image.width, image.height, [9; 3]));
                let expected = Fitted { placement: input.placement, input: (input.width, input.height) };
                assert_eq!(placements.of(image), Some(expected), "{fit:?}");
            }
            assert_eq!(placements.of(&entry(1, 1)), None);
        }
    }
}
