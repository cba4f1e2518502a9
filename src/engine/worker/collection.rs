//! The worker's looks at the open data as a whole: health, numbers, what augmentation does, results as a file.

use super::Worker;
use super::scoring::Ticker;
use crate::data::check::{CheckSettings, Depth, check_with};
use crate::data::loader::{Loader, Position};
use crate::data::statistics::statistics;
use crate::data::{Dataset, write_results};
use crate::engine::event::Event;
use crate::engine::latest::{AnnotatedPicture, Augmented};
use crate::geometry::Detection;
use crate::imaging::{ChannelOrder, Picture, Preprocess};
use crate::ops::interrupt;
use crate::train::{TrainConfig, loader_settings};
use std::path::PathBuf;
use std::sync::Arc;

const CHECK: &str = "check";

impl Worker {
    /// Checks the open data; what is tiny is judged by the input of the network that is there.
    pub(super) fn check_data(&mut self, pixels: bool) {
        let Some(dataset) = self.data.clone() else {
            return self.error(CHECK, "no data is open");
        };
        let preprocess = self.preprocess().cloned();
        let depth = if pixels { Depth::Pixels } else { Depth::Headers };
        let settings = CheckSettings { depth, preprocess: preprocess.as_ref() };
        let mut ticker = Ticker::new(&mut self.out, CHECK);
        let checked = check_with(&dataset, settings, &mut |done, total| {
            ticker.tell(done, total);
            !interrupt::requested()
        });
        let cancelled = interrupt::requested();
        self.out.put(Event::Checked(Arc::new(checked.findings)));
        self.out.put(Event::Idle { task: CHECK.into(), cancelled });
    }

    pub(super) fn measure_data(&mut self) {
        let Some(dataset) = self.data.clone() else {
            return self.error("statistics", "no data is open");
        };
        self.out.put(Event::Measured(Arc::new(statistics(&dataset))));
    }

    /// One image as training sees it in an epoch: the loader itself makes it.
    pub(super) fn augment(&mut self, index: usize, epoch: u64, train: TrainConfig) {
        let config = match (&self.run, &self.model) {
            (Some(run), _) => run.detector.config().clone(),
            (None, Some(model)) => model.detector.config().clone(),
            (None, None) => return self.error("augmentation", "no model is loaded"),
        };
        let Some(dataset) = self.data.clone() else {
            return self.error("augmentation", "no data is open");
        };
        let train = TrainConfig { batch: 1, workers: 1, shuffle: false, ..train };
        let settings = loader_settings(&train, &config);
        match augmented(dataset, index, epoch, settings) {
            Ok(augmented) => {
                let index = augmented.index;
                self.slots.augmented.put(augmented);
                self.out.put(Event::Augmented { index });
            }
            Err(error) => self.error("augmentation", error),
        }
    }

    pub(super) fn save_results(&mut self, path: PathBuf) {
        let (Some(details), Some(dataset)) = (&self.evaluated, &self.data) else {
            return self.error("results", "nothing has been evaluated on the open data yet: evaluate it first");
        };
        let lists: Vec<Vec<Detection>> = details.results.iter().map(|image| image.detections.clone()).collect();
        match write_results(&path, dataset, &lists) {
            Ok(()) => self.out.put(Event::Saved { path }),
            Err(error) => self.error("results", error),
        }
    }

    fn preprocess(&self) -> Option<&Preprocess> {
        match (&self.run, &self.model) {
            (Some(run), _) => Some(run.detector.preprocess()),
            (None, Some(model)) => Some(model.detector.preprocess()),
            (None, None) => None,
        }
    }
}

fn augmented(
    dataset: Arc<Dataset>,
    index: usize,
    epoch: u64,
    settings: crate::data::LoaderSettings,
) -> Result<Augmented, String> {
    let preprocess = settings.preprocess.clone();
    let start = Position { epoch, batch: index as u64 };
    let batch = Loader::new(dataset.clone(), settings, start).and_then(|mut loader| loader.next());
    let batch = batch.map_err(|error| error.to_string())?;
    // An image that cannot be read has another one standing in for it.
    let index = batch.indices.first().copied().ok_or("the loader gave an empty batch")?;
    let picture = dataset.picture(index).map_err(|error| error.to_string())?;
    let entry = dataset.images.get(index).ok_or("the loader gave an image that is not there")?;
    let [_, _, height, width] = batch.shape;
    let before =
        AnnotatedPicture { name: entry.name.clone(), picture: Arc::new(picture), objects: entry.objects.clone() };
    let after = AnnotatedPicture {
        name: format!("{} in epoch {epoch}", entry.name),
        picture: Arc::new(picture_of(&batch.images, width, height, &preprocess)),
        objects: batch.objects.into_iter().next().unwrap_or_default(),
    };
    let applied = batch.applied.into_iter().next().unwrap_or_default();
    Ok(Augmented { index, epoch, before, after, classes: dataset.classes.clone(), applied })
}

/// Undoes the normalisation of planes `[3, height, width]`.
fn picture_of(planes: &[f32], width: usize, height: usize, preprocess: &Preprocess) -> Picture {
    let mut picture = Picture::new(width as u32, height as u32, [0; 3]);
    let plane = (width * height).max(1);
    let channels = planes.chunks_exact(plane).zip(preprocess.mean.iter().zip(&preprocess.std)).enumerate();
    for (number, (values, (mean, std))) in channels {
        let channel = if preprocess.order == ChannelOrder::Bgr { 2 - number } else { number };
        for (pixel, value) in picture.rgb.chunks_exact_mut(3).zip(values) {
            if let Some(byte) = pixel.get_mut(channel) {
                *byte = (value * std + mean).round().clamp(0.0, 255.0) as u8;
            }
        }
    }
    picture
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::open;
    use crate::detect::{Arch, Config};
    use crate::imaging::{Augmentation, Fit};

    #[test]
    fn normalisation_is_undone_in_the_order_of_the_planes() {
        let preprocess = Preprocess {
            fit: Fit::Stretch { width: 2, height: 1 },
            order: ChannelOrder::Bgr,
            mean: [10.0, 20.0, 30.0],
            std: [2.0, 1.0, 1.0],
        };
        let picture = picture_of(&[0.0, 5.0, 1.0, 0.0, 0.0, 300.0], 2, 1, &preprocess);
        assert_eq!(picture.rgb, [30, 21, 10, 255, 20, 20]);
    }

    #[test]
    fn an_epoch_gives_an_image_the_same_look_again_and_another_epoch_another() {
        let dataset = Arc::new(open("shapes:train=3,val=0,test=0", Some("train")).unwrap());
        let config = Config::new(Arch::SsdNano, &dataset.classes);
        let train = TrainConfig {
            batch: 1,
            workers: 1,
            shuffle: false,
            augmentation: Augmentation::ssd(),
            ..TrainConfig::new(Arch::SsdNano)
        };
        let look = |epoch: u64| {
            let found = augmented(dataset.clone(), 2, epoch, loader_settings(&train, &config)).unwrap();
            assert_eq!((found.index, found.before.name.as_str()), (2, dataset.images[2].name.as_str()));
            (found.after.picture.rgb.clone(), found.applied.clone())
        };
        assert_eq!(look(4), look(4));
        let others: Vec<_> = (5..9).map(look).collect();
        assert!(others.iter().any(|other| other != &look(4)), "four epochs look like the first");
    }
}
