//! Waiting for a word to change: first looking at it, while traffic is back to back, then asleep.
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What comes within this of the last time is back to back: two wakes across cores (45 µs each, measured on a 2-core machine) and some work.
pub(super) const BACK_TO_BACK: Duration = Duration::from_micros(200);
/// How long a waiter looks. Longer buys little latency with a whole core.
pub(super) const SPIN: Duration = Duration::from_micros(50);

/// With one processor the other side can only go on when we do not.
static ALONE: LazyLock<bool> = LazyLock::new(|| std::thread::available_parallelism().is_ok_and(|count| count.get() == 1));

/// Sets a word, and wakes who sleeps over it.
#[inline]
pub(super) fn post(word: &AtomicU32, sleeps: &AtomicU32, value: u32) {
    // The order of these two and of those in `wait` is what keeps a sleeper from missing the change.
    word.store(value, Ordering::SeqCst);
    if sleeps.load(Ordering::SeqCst) != 0 {
        wake(word);
    }
}

/// The word's value once it is another than `seen`.
#[inline]
pub(super) fn wait(word: &AtomicU32, sleeps: &AtomicU32, seen: u32, spin: bool) -> u32 {
    let value = word.load(Ordering::Acquire);
    if value != seen {
        return value;
    }
    if spin && let Some((value, _)) = look(word, seen, Instant::now()) {
        return value;
    }
    sleep(word, sleeps, seen)
}

/// As [`wait`], and about when it was: who has just looked at the clock, and finds the word soon, need not look again.
#[inline]
pub(super) fn wait_since(begun: Instant, word: &AtomicU32, sleeps: &AtomicU32, seen: u32, spin: bool) -> (u32, Instant) {
    let value = word.load(Ordering::Acquire);
    if value != seen {
        return (value, begun);
    }
    let found = if spin { look(word, seen, begun) } else { None };
    found.unwrap_or_else(|| (sleep(word, sleeps, seen), Instant::now()))
}

#[inline]
fn look(word: &AtomicU32, seen: u32, begun: Instant) -> Option<(u32, Instant)> {
    let mut now = begun;
    while now - begun <= SPIN {
        for _ in 0..32 {
            let value = word.load(Ordering::Acquire);
            if value != seen {
                return Some((value, now));
            }
            if *ALONE { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        now = Instant::now();
    }
    None
}

#[cold]
fn sleep(word: &AtomicU32, sleeps: &AtomicU32, seen: u32) -> u32 {
    sleeps.store(1, Ordering::SeqCst);
    loop {
        let value = word.load(Ordering::SeqCst);
        if value != seen {
            sleeps.store(0, Ordering::Relaxed);
            return value;
        }
        // SAFETY: the word is alive; the call returns at once when it has changed, and else when it is woken, by a signal too.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, seen, std::ptr::null::<libc::timespec>()) };
    }
}

/// Wakes who sleeps over a word, whatever else is known.
#[cold]
pub(super) fn wake(word: &AtomicU32) {
    // SAFETY: the word is alive.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_threads_hand_a_number_to_and_fro_asleep_and_awake() {
        for spin in [true, false] {
            let [there, back, there_sleeps, back_sleeps] = [const { AtomicU32::new(0) }; 4];
            std::thread::scope(|scope| {
                scope.spawn(|| (1..=2000).for_each(|turn| post(&back, &back_sleeps, wait(&there, &there_sleeps, turn - 1, spin))));
                for turn in 1..=2000 {
                    post(&there, &there_sleeps, turn);
                    assert_eq!(wait(&back, &back_sleeps, turn - 1, spin), turn);
                }
            });
        }
    }
}
