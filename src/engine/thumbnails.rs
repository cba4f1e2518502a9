//! Small pictures for lists, made on a thread of their own: newest wish first, the longest unused forgotten.

use super::Wake;
use crate::data::dataset::Dataset;
use crate::imaging::{Kernel, Picture, resize_picture};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Longest side of a thumbnail, pixels.
pub const SIDE: u32 = 128;
/// Wishes that may wait; what was wished for longest ago is given up first, for it has been scrolled away.
const WISHES: usize = 256;
/// Most bytes of pixels that are kept.
const BYTES: usize = 48 << 20;

/// What became of an image.
#[derive(Clone, Debug)]
pub enum Thumbnail {
    Made(Arc<Picture>),
    /// It cannot be read, with the reason.
    Failed(Arc<str>),
}

impl Thumbnail {
    fn bytes(&self) -> usize {
        match self {
            Self::Made(picture) => picture.rgb.len(),
            Self::Failed(reason) => reason.len(),
        }
    }
}

/// The thumbnails of one data set. The thread starts with the first wish and ends when this is dropped.
pub struct Thumbnails {
    shared: Arc<Shared>,
    started: AtomicBool,
}

struct Shared {
    dataset: Arc<Dataset>,
    wake: Wake,
    state: Mutex<Shelf>,
    bell: Condvar,
}

/// What waits and what is there.
#[derive(Default)]
struct Shelf {
    /// Newest first.
    wishes: VecDeque<usize>,
    working: Option<usize>,
    kept: HashMap<usize, Kept>,
    bytes: usize,
    /// Counts looks.
    clock: u64,
    ended: bool,
}

struct Kept {
    thumbnail: Thumbnail,
    used: u64,
}

impl Thumbnails {
    /// `wake` is called whenever one more is ready.
    pub fn new(dataset: Arc<Dataset>, wake: Wake) -> Self {
        let shared = Shared { dataset, wake, state: Mutex::default(), bell: Condvar::new() };
        Self { shared: Arc::new(shared), started: AtomicBool::new(false) }
    }

    /// The thumbnail of image `index`; while there is none it is wished for.
    pub fn get(&self, index: usize) -> Option<Thumbnail> {
        if index >= self.shared.dataset.images.len() {
            return None;
        }
        let found = self.shared.lock().look(index);
        if found.is_none() {
            self.start();
            self.shared.bell.notify_one();
        }
        found
    }

    fn start(&self) {
        if self.started.swap(true, Ordering::AcqRel) {
            return;
        }
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new().name("boxwright-thumbnails".into()).spawn(move || shared.work());
        if let Err(error) = thread {
            tracing::warn!("no thread for thumbnails: {error}");
        }
    }
}

impl std::fmt::Debug for Thumbnails {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Thumbnails").field("started", &self.started).finish_non_exhaustive()
    }
}

impl Drop for Thumbnails {
    fn drop(&mut self) {
        // Not waited for: a large picture may just be on its way, and nobody wants it any more.
        self.shared.lock().ended = true;
        self.shared.bell.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some(index) = self.next() {
            let thumbnail = match self.dataset.picture(index) {
                Ok(picture) => Thumbnail::Made(Arc::new(shrunk(&picture))),
                Err(error) => Thumbnail::Failed(error.to_string().into()),
            };
            self.lock().keep(index, thumbnail, BYTES);
            (self.wake)();
        }
    }

    /// The next wish, waiting for one; nothing when it is over.
    fn next(&self) -> Option<usize> {
        let mut shelf = self.lock();
        loop {
            if shelf.ended {
                return None;
            }
            if let Some(index) = shelf.wishes.pop_front() {
                shelf.working = Some(index);
                return Some(index);
            }
            shelf = self.bell.wait(shelf).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Shelf {
    /// What is kept of image `index`, or else one more wish.
    fn look(&mut self, index: usize) -> Option<Thumbnail> {
        self.clock += 1;
        if let Some(kept) = self.kept.get_mut(&index) {
            kept.used = self.clock;
            return Some(kept.thumbnail.clone());
        }
        if self.working != Some(index) && !self.wishes.contains(&index) {
            self.wishes.push_front(index);
            self.wishes.truncate(WISHES);
        }
        None
    }

    /// Keeps a thumbnail, and forgets the longest unused beyond `most` bytes.
    fn keep(&mut self, index: usize, thumbnail: Thumbnail, most: usize) {
        self.working = None;
        self.bytes += thumbnail.bytes();
        if let Some(before) = self.kept.insert(index, Kept { thumbnail, used: self.clock }) {
            self.bytes -= before.thumbnail.bytes();
        }
        while self.bytes > most && self.kept.len() > 1 {
            let oldest = self.kept.iter().filter(|(at, _)| **at != index).min_by_key(|(_, kept)| kept.used);
            let Some(oldest) = oldest.map(|(at, _)| *at) else { break };
            if let Some(gone) = self.kept.remove(&oldest) {
                self.bytes -= gone.thumbnail.bytes();
            }
        }
    }
}

/// The picture with its longest side at most [`SIDE`].
fn shrunk(picture: &Picture) -> Picture {
    let longest = picture.width.max(picture.height).max(1);
    if longest <= SIDE {
        return picture.clone();
    }
    let side = |length: u32| (u64::from(length) * u64::from(SIDE) / u64::from(longest)).max(1) as u32;
    resize_picture(picture, side(picture.width), side(picture.height), Kernel::BilinearAntialias)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::open;
    use std::time::{Duration, Instant};

    fn picture(side: u32) -> Thumbnail {
        Thumbnail::Made(Arc::new(Picture::new(side, side, [0; 3])))
    }

    #[test]
    fn the_newest_wish_comes_first_and_old_ones_are_given_up() {
        let mut shelf = Shelf::default();
        for index in 0..WISHES + 10 {
            assert!(shelf.look(index).is_none());
        }
        shelf.look(WISHES + 9);
        assert_eq!(shelf.wishes.len(), WISHES);
        assert_eq!((shelf.wishes.front(), shelf.wishes.back()), (Some(&(WISHES + 9)), Some(&10)));
    }

    #[test]
    fn the_longest_unused_is_forgotten_and_bytes_stay_in_bounds() {
        let mut shelf = Shelf::default();
        let most = 2 * 3 * 8 * 8;
        shelf.keep(0, picture(8), most);
        shelf.keep(1, picture(8), most);
        assert!(shelf.look(0).is_some());
        shelf.keep(2, picture(8), most);
        assert_eq!(shelf.bytes, most);
        assert!(shelf.look(0).is_some() && shelf.look(2).is_some() && shelf.look(1).is_none());
        // One that is larger than everything allowed stays until the next comes.
        shelf.keep(3, picture(64), most);
        assert_eq!(shelf.kept.len(), 1);
    }

    #[test]
    fn thumbnails_keep_their_shape() {
        let wide = shrunk(&Picture::new(1000, 10, [1, 2, 3]));
        assert_eq!((wide.width, wide.height), (SIDE, 1));
        let small = shrunk(&Picture::new(20, 30, [1, 2, 3]));
        assert_eq!((small.width, small.height), (20, 30));
    }

    #[test]
    fn a_wish_is_fulfilled_on_another_thread() {
        let dataset = open("shapes:train=0,val=0,test=2", Some("test")).unwrap();
        let thumbnails = Thumbnails::new(Arc::new(dataset), Arc::new(|| {}));
        let start = Instant::now();
        let made = loop {
            if let Some(made) = thumbnails.get(1) {
                break made;
            }
            assert!(start.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(2));
        };
        let Thumbnail::Made(picture) = made else { panic!("{made:?}") };
        assert!(picture.width.max(picture.height) <= SIDE && !picture.rgb.is_empty());
        assert!(thumbnails.get(9).is_none());
    }
}
