//! Decoded pictures that training comes back to every epoch, up to a number of bytes.

use crate::imaging::Picture;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Pictures by their index in the data set.
///
/// What came first stays: every epoch shows all images once in a new order, so throwing the oldest out would throw out
/// just what comes again soonest, and a set a little larger than the limit would never be met.
pub(super) struct PictureCache {
    /// Bytes of pixels.
    limit: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    bytes: usize,
    pictures: HashMap<usize, Arc<Picture>>,
}

impl PictureCache {
    /// Keeps up to `limit` bytes of pixels; 0 keeps nothing.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, kept: Mutex::new(Kept::default()) }
    }

    pub(super) fn get(&self, index: usize) -> Option<Arc<Picture>> {
        self.kept().pictures.get(&index).cloned()
    }

    /// Keeps the picture if there is room.
    pub(super) fn offer(&self, index: usize, picture: &Arc<Picture>) {
        let bytes = picture.rgb.len();
        let mut kept = self.kept();
        let room = kept.bytes.saturating_add(bytes) <= self.limit;
        if room && self.limit > 0 && !kept.pictures.contains_key(&index) {
            kept.bytes += bytes;
            kept.pictures.insert(index, Arc::clone(picture));
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pictures_stay_up_to_the_limit() {
        let picture = |side: u32| Arc::new(Picture::new(side, 1, [side as u8; 3]));
        let cache = PictureCache::new(30);
        cache.offer(4, &picture(6));
        cache.offer(5, &picture(5));
        cache.offer(4, &picture(3));
        cache.offer(6, &picture(4));
        assert_eq!(cache.get(4).map(|p| p.width), Some(6));
        assert_eq!(cache.get(5), None, "18 of 30 bytes are taken");
        assert_eq!(cache.get(6).map(|p| p.width), Some(4), "exactly full");
        let nothing = PictureCache::new(0);
        nothing.offer(1, &picture(0));
        assert_eq!(nothing.get(1), None);
    }
}
