//! What belongs to the process that made it: threads, and locks that they held, do not come along when a process forks.
use crate::alive;
use crate::error::refuse;
use nnrp_core::Reason;
use pyo3::prelude::*;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// How many forks lie between the first process and this one.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// Tells that this process is a fork.
#[pyfunction]
pub(crate) fn forked() {
    FORKS.fetch_add(1, Relaxed);
    alive::forget();
}

/// A value of this process. A fork can neither use it nor drop it: both may wait for threads that are not there.
pub(crate) struct Own<T>(Option<T>, u32);

impl<T> Own<T> {
    pub(crate) fn new(value: T) -> Self {
        Own(Some(value), FORKS.load(Relaxed))
    }

    /// The value; `None` in a fork.
    #[inline]
    pub(crate) fn mine(&self) -> Option<&T> {
        self.0.as_ref().filter(|_| self.1 == FORKS.load(Relaxed))
    }

    #[inline]
    pub(crate) fn get(&self, py: Python<'_>) -> PyResult<&T> {
        self.mine().ok_or_else(|| refuse(py, Reason::WrongState, "made before this process forked, and of no use here: load or connect anew"))
    }

    /// As [`Own::mine`], given away.
    pub(crate) fn into_mine(mut self) -> Option<T> {
        self.mine()?;
        self.0.take()
    }
}

impl<T> Drop for Own<T> {
    fn drop(&mut self) {
        if self.mine().is_none() {
            std::mem::forget(self.0.take());
        }
    }
}
