//! Threads that run sessions in Python, and may hold the last of one: the interpreter ends after them.
use pyo3::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How many there are. No lock, which a fork could inherit as another thread held it.
static COUNT: AtomicUsize = AtomicUsize::new(0);

const LOOK: Duration = Duration::from_millis(1);

/// Kept by a thread until all else that it had is gone.
struct Alive;

impl Drop for Alive {
    fn drop(&mut self) {
        let _of_another_process = COUNT.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| count.checked_sub(1));
    }
}

/// Counts this thread until it ends.
pub(crate) fn count() {
    thread_local! {
        static HERE: Alive = {
            COUNT.fetch_add(1, Ordering::AcqRel);
            Alive
        };
    }
    HERE.with(|_| ());
}

/// A fork has none of them.
pub(crate) fn forget() {
    COUNT.store(0, Ordering::Release);
}

/// Waits until no such thread is left, but no longer than that; tells whether it came to that.
#[pyfunction]
pub(crate) fn wait_for_threads(py: Python<'_>, grace: Duration) -> bool {
    let begun = Instant::now();
    py.detach(|| {
        while COUNT.load(Ordering::Acquire) > 0 {
            if begun.elapsed() > grace {
                return false;
            }
            std::thread::sleep(LOOK);
        }
        true
    })
}
