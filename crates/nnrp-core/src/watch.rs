//! The thread that ends requests at their deadlines (spec §7.4).
use crate::clock::Clock;
use crate::stop::Cause;
use crate::ticket::{Ticket, stopped};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

/// Stops requests whose deadline passes while they wait or run. One thread, started with the first deadline.
pub(crate) struct Watch(Arc<Watched>);

struct Watched {
    clock: Clock,
    state: Mutex<Deadlines>,
    wake: Condvar,
}

#[derive(Default)]
struct Deadlines {
    tickets: BTreeMap<(Instant, u64), Weak<Ticket>>,
    next: u64,
    /// When the thread looks again without being woken. Deadlines mostly come in order, and requests are mostly answered before: to wake
    /// the thread for each would cost more than a quick run.
    looks_at: Option<Instant>,
    running: bool,
    ended: bool,
}

impl Watch {
    pub(crate) fn new(clock: Clock) -> Watch {
        let watched = Arc::new(Watched { clock, state: Mutex::default(), wake: Condvar::new() });
        let weak = Arc::downgrade(&watched);
        let alarm = move || {
            if let Some(watched) = weak.upgrade() {
                // Under the lock, so that a thread that has just looked at the clock waits already.
                let _state = watched.state.lock();
                watched.wake.notify_one();
            }
        };
        watched.clock.on_advance(alarm);
        Watch(watched)
    }

    /// Stops and answers the request at its deadline, as long as what this returns is kept.
    pub(crate) fn add(&self, ticket: &Arc<Ticket>) -> Option<Watching> {
        let deadline = ticket.deadline?;
        let mut state = self.0.state.lock();
        state.next += 1;
        let key = (deadline, state.next);
        state.tickets.insert(key, Arc::downgrade(ticket));
        if !state.running {
            let watched = self.0.clone();
            state.running = std::thread::Builder::new().name("nnrp-deadlines".into()).spawn(move || watched.run()).is_ok();
        } else if state.looks_at.is_none_or(|instant| deadline < instant) {
            state.looks_at = Some(deadline);
            self.0.wake.notify_one();
        }
        Some(Watching { watched: self.0.clone(), key })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.state.lock().ended = true;
        self.0.wake.notify_one();
    }
}

/// A deadline that is watched; forgotten when dropped, so that answered requests leave nothing behind.
pub(crate) struct Watching {
    watched: Arc<Watched>,
    key: (Instant, u64),
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.watched.state.lock().tickets.remove(&self.key);
    }
}

impl Watched {
    fn run(&self) {
        let mut state = self.state.lock();
        while !state.ended {
            state.looks_at = state.tickets.first_key_value().map(|((deadline, _), _)| *deadline);
            match state.looks_at {
                None => self.wake.wait(&mut state),
                Some(deadline) if !self.clock.has_passed(deadline) => self.clock.wait_until(deadline, &self.wake, &mut state),
                Some(_) => {
                    if let Some(ticket) = state.tickets.pop_first().and_then(|(_, ticket)| ticket.upgrade()) {
                        MutexGuard::unlocked(&mut state, || end(&ticket));
                    }
                }
            }
        }
    }
}

fn end(ticket: &Ticket) {
    // The answer first: an interrupted run may end well, and then it is too late.
    ticket.answer(Err(stopped(Cause::Deadline)));
    ticket.stop.raise(Cause::Deadline);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_deadline_is_forgotten_once_its_request_is_answered() {
        let watch = Watch::new(Clock::default());
        for _ in 0..1000 {
            let ticket = Ticket::new(Arc::default(), Some(Instant::now() + Duration::from_secs(3600)));
            drop(watch.add(&ticket));
        }
        assert!(watch.0.state.lock().tickets.is_empty());
    }

    #[test]
    fn only_an_earlier_deadline_wakes_the_thread() {
        let (clock, hour) = (Clock::manual(), Duration::from_secs(3600));
        let watch = Watch::new(clock.clone());
        let add = |hours: u32| watch.add(&Ticket::new(Arc::default(), Some(clock.now() + hour * hours)));
        let looks_in = || watch.0.state.lock().looks_at.map(|instant| instant - clock.now());
        let _first = add(9);
        while looks_in().is_none() {
            std::thread::yield_now();
        }
        let _later = add(10);
        assert_eq!(looks_in(), Some(hour * 9));
        let earlier = add(2);
        assert_eq!(looks_in(), Some(hour * 2));
        drop(earlier);
        let _between = add(5);
        assert!(looks_in() <= Some(hour * 5));
    }
}
