//! What the client of a connection has not read, and whether it reads (spec §7.8). One thread serves a connection, so that looks and changes do not meet.
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Bytes of answers, each with its end, by their age.
#[derive(Default)]
pub(super) struct Backlog {
    looks: AtomicUsize,
    /// Added since the last look.
    fresh: AtomicUsize,
    old: AtomicUsize,
    /// What may not be sent yet, so that nobody can have read it.
    held: AtomicUsize,
    /// Some of what is old was read since the last look.
    moved: AtomicBool,
}

impl Backlog {
    pub(super) fn byte_size(&self) -> usize {
        [&self.fresh, &self.old, &self.held].map(|bytes| bytes.load(Ordering::Relaxed)).into_iter().sum()
    }

    /// Gives the time at which they were added.
    pub(super) fn add(&self, byte_size: usize) -> usize {
        self.fresh.fetch_add(byte_size, Ordering::Relaxed);
        self.looks.load(Ordering::Relaxed)
    }

    /// Adds what may not be sent before its turn, and gives what stands for the time.
    pub(super) fn hold(&self, byte_size: usize) -> usize {
        self.held.fetch_add(byte_size, Ordering::Relaxed);
        HELD
    }

    pub(super) fn remove(&self, since: usize, byte_size: usize) {
        let age = match since {
            HELD => &self.held,
            since if since == self.looks.load(Ordering::Relaxed) => &self.fresh,
            _ => &self.old,
        };
        age.fetch_sub(byte_size, Ordering::Relaxed);
    }

    /// Some of what was added then is read.
    pub(super) fn moves(&self, since: usize) {
        if since != self.looks.load(Ordering::Relaxed) {
            self.moved.store(true, Ordering::Relaxed);
        }
    }

    /// Looks: whether there was something to read at the last look, and is, and none of it was read. What else was asked and read meanwhile does not count.
    pub(super) fn is_stuck(&self) -> bool {
        let stuck = !self.moved.swap(false, Ordering::Relaxed) && self.old.load(Ordering::Relaxed) > 0;
        self.old.fetch_add(self.fresh.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        self.looks.fetch_add(1, Ordering::Relaxed);
        stuck
    }
}

/// The time of what is held.
const HELD: usize = usize::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reads_only_what_is_new_is_stuck() {
        let backlog = Backlog::default();
        let unread = backlog.add(10);
        assert!(!backlog.is_stuck());
        let read = backlog.add(5);
        assert_eq!(backlog.byte_size(), 15);
        backlog.moves(read);
        backlog.remove(read, 5);
        assert!(backlog.is_stuck());
        backlog.moves(unread);
        assert!(!backlog.is_stuck());
        backlog.remove(unread, 10);
        assert!(!backlog.is_stuck());
        assert_eq!(backlog.byte_size(), 0);
    }

    #[test]
    fn nobody_is_stuck_over_what_may_not_be_sent_yet() {
        let backlog = Backlog::default();
        let held = backlog.hold(10);
        assert_eq!(backlog.byte_size(), 10);
        assert!(!backlog.is_stuck());
        assert!(!backlog.is_stuck());
        backlog.remove(held, 10);
        assert_eq!(backlog.byte_size(), 0);
    }
}
