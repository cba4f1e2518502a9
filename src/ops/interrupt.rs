//! Interruption of long work: a count of waiting requests that every convolution of a thread looks at, forward and
//! backward.

use candle_core::Result;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

thread_local! {
    static REQUESTS: RefCell<Option<Arc<AtomicUsize>>> = const { RefCell::new(None) };
}

/// The message of the error that an interruption raises.
pub const INTERRUPTED: &str = "interrupted on request";

/// From now on, work of this thread ends with an error while `requests` is above 0; `None` turns it off.
pub fn watch(requests: Option<Arc<AtomicUsize>>) {
    REQUESTS.with(|slot| *slot.borrow_mut() = requests);
}

/// What this thread watches, for a thread that does a part of its work.
pub fn watched() -> Option<Arc<AtomicUsize>> {
    REQUESTS.with(|slot| slot.borrow().clone())
}

/// Whether this thread's work is to end.
pub fn requested() -> bool {
    REQUESTS.with(|slot| slot.borrow().as_ref().is_some_and(|requests| requests.load(Ordering::Acquire) > 0))
}

/// # Errors
/// [`INTERRUPTED`], while this thread's count is above 0.
pub fn check() -> Result<()> {
    if requested() {
        candle_core::bail!("{INTERRUPTED}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_watched_count_above_zero_interrupts() {
        assert!(check().is_ok());
        let requests = Arc::new(AtomicUsize::new(0));
        watch(Some(requests.clone()));
        assert!(check().is_ok() && watched().is_some_and(|seen| Arc::ptr_eq(&seen, &requests)));
        requests.store(1, Ordering::Release);
        assert!(check().unwrap_err().to_string().contains(INTERRUPTED));
        watch(None);
        assert!(check().is_ok());
    }
}
