//! The clock, passed in so that tests need not sleep.
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Tells the time; a test's clock moves only when told to.
#[derive(Clone, Default)]
pub enum Clock {
    /// The machine's monotonic clock.
    #[default]
    System,
    /// A test's.
    Manual(Arc<Mutex<Instant>>),
}

impl Clock {
    /// A clock that stands still until [`Clock::advance`].
    pub fn manual() -> Self {
        Clock::Manual(Arc::new(Mutex::new(Instant::now())))
    }

    /// Now.
    #[inline]
    pub fn now(&self) -> Instant {
        match self {
            Clock::System => Instant::now(),
            Clock::Manual(now) => *now.lock(),
        }
    }

    /// Moves a manual clock on; the machine's clock moves by itself.
    pub fn advance(&self, by: Duration) {
        if let Clock::Manual(now) = self {
            *now.lock() += by;
        }
    }
}
