//! Stopping a request that nobody waits for any more (spec §7.4).
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// Why a request was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// The client cancelled or went away.
    Cancelled = 1,
    /// Its deadline passed.
    Deadline = 2,
}

/// Whether who waits for an answer wants to wait no longer.
pub type Look<'a> = &'a mut (dyn FnMut() -> bool + Send);

/// How often it is asked.
pub const LOOK: Duration = Duration::from_millis(100);

type Interrupt = Arc<dyn Fn() + Send + Sync>;

/// A flag that is raised once, and what to do to a run when it is.
#[derive(Default)]
pub struct Stop {
    cause: AtomicU8,
    interrupt: Mutex<Option<Interrupt>>,
}

impl Stop {
    /// Raises the flag; the first cause stays. Interrupts the run, if one goes on.
    pub fn raise(&self, cause: Cause) {
        if self.cause.compare_exchange(0, cause as u8, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            let interrupt = self.interrupt.lock().clone();
            if let Some(interrupt) = interrupt {
                interrupt();
            }
        }
    }

    /// Why it was raised, if it was.
    pub fn cause(&self) -> Option<Cause> {
        match self.cause.load(Ordering::Acquire) {
            1 => Some(Cause::Cancelled),
            2 => Some(Cause::Deadline),
            _ => None,
        }
    }

    /// Calls `interrupt`, once the flag is raised or at once if it was, unless work goes on then that has an interrupt of its own.
    pub fn hear(&self, interrupt: impl Fn() + Send + Sync + 'static) {
        let interrupt: Interrupt = Arc::new(interrupt);
        *self.interrupt.lock() = Some(interrupt.clone());
        if self.cause().is_some() {
            interrupt();
        }
    }

    /// Runs `work`, calling `interrupt` from another thread if the flag is raised meanwhile or was before. Within such work the innermost interrupt is
    /// called first, and the others as the inner work ends.
    pub fn during<T>(&self, interrupt: impl Fn() + Send + Sync + 'static, work: impl FnOnce() -> T) -> T {
        struct Restore<'a>(&'a Stop, Option<Interrupt>);
        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                let outer = self.1.take();
                self.0.interrupt.lock().clone_from(&outer);
                if let (Some(outer), Some(_)) = (outer, self.0.cause()) {
                    outer();
                }
            }
        }
        let interrupt: Interrupt = Arc::new(interrupt);
        let _restore = Restore(self, self.interrupt.lock().replace(interrupt.clone()));
        if self.cause().is_some() {
            interrupt();
        }
        work()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn the_first_cause_stays_and_interrupts_once() {
        let stop = Stop::default();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        stop.during(
            move || {
                counted.fetch_add(1, Ordering::Relaxed);
            },
            || {
                stop.raise(Cause::Deadline);
                stop.raise(Cause::Cancelled);
            },
        );
        assert_eq!(stop.cause(), Some(Cause::Deadline));
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_stop_within_inner_work_reaches_the_outer_once_the_inner_has_ended() {
        let stop = Stop::default();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hear = |name: &'static str| {
            let heard = heard.clone();
            move || heard.lock().push(name)
        };
        stop.during(hear("outer"), || {
            stop.during(hear("first"), || ());
            stop.during(hear("inner"), || stop.raise(Cause::Cancelled));
            assert_eq!(*heard.lock(), ["inner", "outer"]);
        });
    }

    #[test]
    fn a_run_that_starts_after_the_stop_is_interrupted_at_once() {
        let stop = Stop::default();
        stop.raise(Cause::Cancelled);
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        stop.during(
            move || {
                counted.fetch_add(1, Ordering::Relaxed);
            },
            || assert_eq!(calls.load(Ordering::Relaxed), 1),
        );
    }
}
