//! The thread that ends requests at their deadlines (spec §7.4), and runs that hold a thread which reads requests too long (spec §7.2).
use crate::clock::Clock;
use crate::condvar::Condvar;
use crate::stop::{Cause, Stop};
use crate::ticket::{Ticket, stopped};
use parking_lot::{Mutex, MutexGuard};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Longest that a run may hold a thread which reads requests; it is looked for as often.
const PATIENCE: Duration = Duration::from_millis(50);

/// Stops requests whose deadline passes while they wait or run. One thread, started with the first.
pub(crate) struct Watch(Arc<Watched>);

struct Watched {
    /// No other watch's.
    number: u64,
    clock: Clock,
    state: Mutex<Deadlines>,
    wake: Condvar,
    /// Whether the thread looks for runs that hold theirs too long.
    looks: AtomicBool,
}

#[derive(Default)]
struct Deadlines {
    tickets: BTreeMap<(Instant, u64), Weak<Ticket>>,
    next: u64,
    /// When the thread looks again without being woken. Deadlines mostly come in order, and requests are mostly answered before: to wake
    /// the thread for each would cost more than a quick run.
    looks_at: Option<Instant>,
    /// When it looks at what threads hold.
    looks_at_held: Option<Instant>,
    held: Vec<Weak<Held>>,
    running: bool,
    ended: bool,
}

impl Watch {
    pub(crate) fn new(clock: Clock) -> Watch {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        let watched = Arc::new(Watched { number, clock, state: Mutex::default(), wake: Condvar::new(), looks: AtomicBool::new(false) });
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
        self.look_at(&mut state, deadline);
        Some(Watching { watched: self.0.clone(), key })
    }

    /// Has the thread look no later than then.
    fn look_at(&self, state: &mut Deadlines, instant: Instant) {
        if !state.running {
            let watched = self.0.clone();
            state.running = std::thread::Builder::new().name("nnrp-deadlines".into()).spawn(move || watched.run()).is_ok();
        } else if state.looks_at.is_none_or(|looks_at| instant < looks_at) {
            state.looks_at = Some(instant);
            self.0.wake.notify_one();
        }
    }

    /// A run that this thread holds from now on, for as long as what this returns is kept; its stop is raised once that was too long.
    #[inline]
    pub(crate) fn hold(&self, since: Instant) -> Holding {
        let (held, stop) = (self.held_here(), Arc::new(Stop::default()));
        let before = held.0.lock().replace((since, stop.clone()));
        if !self.0.looks.load(SeqCst) {
            self.look_for_held();
        }
        Holding { held, before, stop }
    }

    fn held_here(&self) -> Arc<Held> {
        thread_local! { static HERE: RefCell<Option<(u64, Arc<Held>)>> = const { RefCell::new(None) }; }
        HERE.with_borrow_mut(|here| match here {
            Some((number, held)) if *number == self.0.number => held.clone(),
            _ => {
                let held = Arc::new(Held::default());
                self.0.state.lock().held.push(Arc::downgrade(&held));
                *here = Some((self.0.number, held.clone()));
                held
            }
        })
    }

    #[cold]
    fn look_for_held(&self) {
        let mut state = self.0.state.lock();
        self.0.looks.store(true, SeqCst);
        let instant = self.0.clock.now() + PATIENCE;
        state.looks_at_held = Some(instant);
        self.look_at(&mut state, instant);
    }
}

/// The run that a thread holds, and since when.
#[derive(Default)]
struct Held(Mutex<Option<(Instant, Arc<Stop>)>>);

/// A run that its thread holds.
pub(crate) struct Holding {
    held: Arc<Held>,
    /// That of a run which this one is part of.
    before: Option<(Instant, Arc<Stop>)>,
    pub(crate) stop: Arc<Stop>,
}

impl Drop for Holding {
    #[inline]
    fn drop(&mut self) {
        *self.held.0.lock() = self.before.take();
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
            let deadline = state.tickets.first_key_value().map(|((deadline, _), _)| *deadline);
            state.looks_at = deadline.into_iter().chain(state.looks_at_held).min();
            match state.looks_at {
                None => self.wake.wait(&mut state),
                Some(instant) if !self.clock.has_passed(instant) => self.clock.wait_until(instant, &self.wake, &mut state),
                Some(instant) if deadline == Some(instant) => {
                    if let Some(ticket) = state.tickets.pop_first().and_then(|(_, ticket)| ticket.upgrade()) {
                        MutexGuard::unlocked(&mut state, || end(&ticket));
                    }
                }
                Some(_) => {
                    let overdue = self.overdue(&mut state);
                    MutexGuard::unlocked(&mut state, || overdue.iter().for_each(|stop| stop.raise(Cause::Cancelled)));
                }
            }
        }
    }

    /// The stops of runs that hold their threads too long. Where no thread holds one, it looks no more until one does.
    fn overdue(&self, state: &mut Deadlines) -> Vec<Arc<Stop>> {
        self.looks.store(false, SeqCst);
        let now = self.clock.now();
        state.held.retain(|held| held.strong_count() > 0);
        let held: Vec<(Instant, Arc<Stop>)> = state.held.iter().filter_map(|held| held.upgrade()?.0.lock().clone()).collect();
        state.looks_at_held = (!held.is_empty()).then(|| now + PATIENCE);
        self.looks.store(!held.is_empty(), SeqCst);
        held.into_iter().filter(|(since, _)| now.saturating_duration_since(*since) >= PATIENCE).map(|(_, stop)| stop).collect()
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
