//! The clock of deadlines, as C counts it.
use std::time::{Duration, Instant};

/// Nanoseconds on the clock of deadlines.
#[cfg(unix)]
pub fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is there to be filled; the clock is one that every Unix has.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

/// Nanoseconds on the clock of deadlines.
#[cfg(not(unix))]
pub fn now_ns() -> u64 {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    START.elapsed().as_nanos() as u64 + 1
}

/// The instant of a deadline; 0 is none, and so is one that no clock will reach.
pub fn instant(deadline_ns: u64) -> Option<Instant> {
    match deadline_ns {
        0 => None,
        at => Instant::now().checked_add(Duration::from_nanos(at.saturating_sub(now_ns()))),
    }
}

/// The deadline at an instant; 0 is none.
pub fn deadline_ns(instant: Option<Instant>) -> u64 {
    instant.map_or(0, |instant| {
        let left = instant.saturating_duration_since(Instant::now()).as_nanos();
        now_ns().saturating_add(u64::try_from(left).unwrap_or(u64::MAX)).max(1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_keeps_its_distance_from_now() {
        let in_an_hour = instant(now_ns() + 3_600_000_000_000).unwrap().duration_since(Instant::now());
        assert!((3_599..=3_600).contains(&in_an_hour.as_secs()));
        assert!(instant(1).unwrap() <= Instant::now());
        assert!(instant(0).is_none());
        let there = now_ns() + 3_600_000_000_000;
        assert!(deadline_ns(instant(there)).abs_diff(there) < 1_000_000_000);
        assert_eq!(deadline_ns(None), 0);
    }
}
