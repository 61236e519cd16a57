//! The clock, passed in so that tests need not sleep.
use crate::condvar::Condvar;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Tells the time and whether a deadline has passed; a test's clock moves only when told to.
#[derive(Clone, Default)]
pub struct Clock(Option<Arc<Manual>>);

struct Manual {
    now: Mutex<Instant>,
    alarms: Mutex<Vec<Box<dyn Fn() + Send + Sync>>>,
}

impl Clock {
    /// A clock that stands still until [`Clock::advance`].
    pub fn manual() -> Self {
        Clock(Some(Arc::new(Manual { now: Mutex::new(Instant::now()), alarms: Mutex::default() })))
    }

    /// Now.
    #[inline]
    pub fn now(&self) -> Instant {
        match &self.0 {
            None => Instant::now(),
            Some(manual) => *manual.now.lock(),
        }
    }

    /// Whether nobody wants any more what was wanted until `deadline`.
    pub fn has_passed(&self, deadline: Instant) -> bool {
        deadline <= self.now()
    }

    /// Moves a manual clock on, and wakes who waits for it; the machine's clock moves by itself.
    pub fn advance(&self, by: Duration) {
        if let Some(manual) = &self.0 {
            *manual.now.lock() += by;
            manual.alarms.lock().iter().for_each(|alarm| alarm());
        }
    }

    /// Calls `alarm` whenever a manual clock was moved.
    pub(crate) fn on_advance(&self, alarm: impl Fn() + Send + Sync + 'static) {
        if let Some(manual) = &self.0 {
            manual.alarms.lock().push(Box::new(alarm));
        }
    }

    /// Waits to be woken, on the machine's clock no longer than until `instant`.
    pub(crate) fn wait_until<T>(&self, instant: Instant, wake: &Condvar, guard: &mut MutexGuard<'_, T>) {
        match &self.0 {
            None => drop(wake.wait_until(guard, instant)),
            Some(_) => wake.wait(guard),
        }
    }
}
