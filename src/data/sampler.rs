//! One training sample from (seed, epoch, image): picture or stand-in, partners, augmentation, preprocessing.
//!
//! Nothing else has a say: not the thread, not what was drawn before, not the cache. So a sample can be drawn again.

use super::batch::{Prepared, object_in_input};
use super::dataset::{Dataset, Finding, ImageEntry, Severity};
use super::error::DataError;
use super::loader::LoaderSettings;
use super::picture_cache::PictureCache;
use crate::geometry::Object;
use crate::imaging::random_scale::with_shorter_side;
use crate::imaging::{
    Applied, ChannelOrder, Fit, Frame, Partner, Partners, Picture, Preprocess, SampleRef, augment_with,
};
use crate::random::Random;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Why a sample did not come about.
#[derive(Debug)]
pub(super) enum Halt {
    /// Somebody asked to stop.
    Stopped,
    Failed(DataError),
}

/// Draws samples; what all workers of a loader share.
pub(super) struct Sampler {
    pub(super) dataset: Arc<Dataset>,
    pub(super) settings: LoaderSettings,
    /// Colour of a canvas where no picture is.
    fill: [u8; 3],
    cache: PictureCache,
    stop: AtomicBool,
    /// Unreadable images by index.
    skipped: Mutex<BTreeMap<usize, Finding>>,
}

/// A picture of the data set with its training targets.
struct Loaded {
    index: usize,
    picture: Arc<Picture>,
    objects: Vec<Object>,
}

impl Loaded {
    fn sample(&self) -> SampleRef<'_> {
        SampleRef { picture: &self.picture, objects: &self.objects }
    }

    fn partner(&self) -> Partner<'_> {
        Partner { index: self.index, sample: self.sample() }
    }
}

impl Sampler {
    /// Keeps up to `cache_bytes` of decoded pixels.
    ///
    /// # Errors
    /// [`DataError::Loader`] for a data set without images, and for a random scale of an input whose size is fixed.
    pub(super) fn new(dataset: Arc<Dataset>, settings: LoaderSettings, cache_bytes: usize) -> Result<Self, DataError> {
        if dataset.images.is_empty() {
            let message = format!("the split {:?} of {:?} has no images", dataset.split, dataset.name);
            return Err(DataError::Loader { message });
        }
        if settings.augmentation.scales() && with_shorter_side(settings.preprocess.fit, 1).is_none() {
            let fit = settings.preprocess.describe();
            let message = format!("a random scale needs an input that keeps its aspect; set scale_high to 0 for {fit}");
            return Err(DataError::Loader { message });
        }
        Ok(Self {
            fill: fill_color(&settings.preprocess),
            dataset,
            settings,
            cache: PictureCache::new(cache_bytes),
            stop: AtomicBool::new(false),
            skipped: Mutex::new(BTreeMap::new()),
        })
    }

    /// Makes every sample from now on end in [`Halt::Stopped`].
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Images that could not be read so far, by index.
    pub(super) fn skips(&self) -> MutexGuard<'_, BTreeMap<usize, Finding>> {
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sample of image `slot` in `epoch`.
    pub(super) fn sample(&self, slot: usize, epoch: u64) -> Result<Prepared, Halt> {
        // Keyed by the slot: an image that stands in for another looks different from its own sample.
        let mut random = Random::keyed(self.settings.seed, &[epoch, slot as u64]);
        let own = self.readable(slot)?;
        let drawn = self.settings.augmentation.partners(self.dataset.images.len(), &mut random);
        let tiles = drawn.mosaic.iter().map(|&slot| self.readable(slot)).collect::<Result<Vec<Loaded>, Halt>>()?;
        let blended = drawn.mixup.map(|slot| self.readable(slot)).transpose()?;
        let partners = Partners {
            mosaic: tiles.iter().map(Loaded::partner).collect(),
            mixup: blended.as_ref().map(Loaded::partner),
        };
        Ok(self.prepare(slot, &own, &partners, &mut random))
    }

    /// Augments and preprocesses one picture.
    fn prepare(&self, slot: usize, own: &Loaded, partners: &Partners<Partner<'_>>, random: &mut Random) -> Prepared {
        let LoaderSettings { augmentation, preprocess, .. } = &self.settings;
        let frame = Frame { fill: self.fill, size: network_size(preprocess.fit, &own.picture) };
        let made = augment_with(own.sample(), partners, &frame, augmentation, random);
        let picture = made.picture.as_ref().unwrap_or(&own.picture);
        let mut applied = made.applied;
        if own.index != slot {
            applied.insert(0, Applied::new("stand-in", &[("for image", slot as f32)]));
        }
        let short = augmentation.draw_shorter_side(random);
        let input = match short.and_then(|short| Some((short, with_shorter_side(preprocess.fit, short)?))) {
            Some((short, fit)) => {
                applied.push(Applied::new("scale", &[("shorter side", short as f32)]));
                Preprocess { fit, ..preprocess.clone() }.apply(picture)
            }
            None => preprocess.apply(picture),
        };
        let objects = made.objects.into_iter().filter_map(|object| object_in_input(object, &input)).collect();
        let name = self.dataset.images.get(own.index).map(|entry| entry.name.clone()).unwrap_or_default();
        Prepared { input, objects, index: own.index, name, applied }
    }

    /// Image `slot`, or the next one by index that can be read.
    fn readable(&self, slot: usize) -> Result<Loaded, Halt> {
        let count = self.dataset.images.len();
        for index in (slot..count).chain(0..slot.min(count)) {
            if self.stopped() {
                return Err(Halt::Stopped);
            }
            if self.skips().contains_key(&index) {
                continue;
            }
            let Some(entry) = self.dataset.images.get(index) else { continue };
            match self.picture(index) {
                Ok(picture) => {
                    let objects = self.targets(entry, &picture);
                    return Ok(Loaded { index, picture, objects });
                }
                Err(error) => {
                    let message = format!("skipped, the next readable image stands in for it: {error}");
                    let finding = Finding::new(Severity::Error, "unreadable-image", &entry.name, message);
                    self.skips().insert(index, finding);
                }
            }
        }
        let example = self.skips().values().next().map(|finding| finding.message.clone()).unwrap_or_default();
        Err(Halt::Failed(DataError::NoReadableImage { count, example }))
    }

    fn picture(&self, index: usize) -> Result<Arc<Picture>, DataError> {
        if let Some(picture) = self.cache.get(index) {
            return Ok(picture);
        }
        let picture = Arc::new(self.dataset.picture(index)?);
        self.cache.offer(index, &picture);
        Ok(picture)
    }

    /// The training targets of an image, cut at its border.
    fn targets(&self, entry: &ImageEntry, picture: &Picture) -> Vec<Object> {
        let settings = &self.settings;
        let size = (picture.width, picture.height);
        let target = |object: &Object| Object {
            bbox: object.bbox.clip(size.0 as f32, size.1 as f32),
            mask: object.mask.as_ref().filter(|mask| settings.masks && (mask.width, mask.height) == size).cloned(),
            ..*object
        };
        let wanted = |object: &&Object| !(object.crowd || settings.drop_difficult && object.difficult);
        let proper = entry.objects.iter().filter(wanted).filter(|object| object.bbox.is_proper());
        proper.map(target).filter(|object| object.bbox.is_proper()).collect()
    }
}

/// Width and height that the network sees of a picture, without padding, at most: a mosaic's tiles have that size.
fn network_size(fit: Fit, picture: &Picture) -> (u32, u32) {
    let (width, height) = match fit {
        Fit::Stretch { width, height } | Fit::Letterbox { width, height, .. } => (width, height),
        Fit::ShortestEdge { short, long, .. }
        | Fit::ShortestEdgeRounded { short, long, .. }
        | Fit::ShortestEdgeAntialias { short, long, .. } => {
            if picture.width >= picture.height {
                (long, short)
            } else {
                (short, long)
            }
        }
    };
    let side = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    (side(width), side(height))
}

/// The mean colour that preprocessing subtracts, as RGB; the letterbox's grey where it subtracts none.
fn fill_color(preprocess: &Preprocess) -> [u8; 3] {
    let planes = match preprocess.fit {
        Fit::Letterbox { fill, .. } => [fill; 3],
        _ if preprocess.mean == [0.0; 3] => [127.5; 3],
        _ => preprocess.mean,
    };
    let [first, second, third] = planes.map(|value| value.round().clamp(0.0, 255.0) as u8);
    match preprocess.order {
        ChannelOrder::Rgb => [first, second, third],
        ChannelOrder::Bgr => [third, second, first],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canvas_has_the_mean_colour_as_rgb_and_the_size_the_network_sees() {
        let mut preprocess = Preprocess {
            fit: Fit::Stretch { width: 8, height: 8 },
            order: ChannelOrder::Bgr,
            mean: [103.53, 116.28, 123.675],
            std: [1.0; 3],
        };
        assert_eq!(fill_color(&preprocess), [124, 116, 104]);
        preprocess.fit = Fit::Letterbox { width: 8, height: 6, fill: 127.5 };
        assert_eq!(fill_color(&preprocess), [128, 128, 128]);
        assert_eq!(network_size(preprocess.fit, &Picture::new(3, 9, [0; 3])), (8, 6));
        let edge = Fit::ShortestEdge { short: 80, long: 130, divisor: 32 };
        assert_eq!(network_size(edge, &Picture::new(3, 9, [0; 3])), (80, 130));
        assert_eq!(network_size(edge, &Picture::new(9, 3, [0; 3])), (130, 80));
    }
}
