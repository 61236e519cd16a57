//! One life of the process of an isolated model, as the engine sees it: who sits where, and what is left of runs that nobody waits for.
use super::arena::Arena;
use super::frame::{self, Order};
use super::futex::{self, BACK_TO_BACK, SPIN};
use super::inputs::Block;
use super::region::{Region, SEATS, ask_arena};
use super::seat::{NUDGE, reply_room};
use bytes::Bytes;
use nnrp_core::condvar::Condvar;
use nnrp_core::{Control, NnrpError, Reason, Result, Verb};
use parking_lot::Mutex;
use serde_json::Value;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How the process came to its end, and when there will be another.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) exit: String,
    pub(super) again: Duration,
}

/// A process that has loaded its model.
pub(super) struct Life {
    pub(super) runtime: &'static str,
    pub(super) region: Arc<Region>,
    pub(super) arena: Mutex<Arena>,
    /// Most bytes of all outputs of a run.
    pub(super) max_output_bytes: usize,
    /// Whether its session can end a run.
    pub(super) stoppable: AtomicBool,
    /// Whether its session does one thing at a time.
    exclusive: AtomicBool,
    pub(super) paces: [Pace; SEATS],
    pub(super) began: Instant,
    ended: OnceLock<Ended>,
    seats: Mutex<Seats>,
    vacated: Condvar,
    orders: Mutex<UnixStream>,
    answers: Mutex<HashMap<u64, SyncSender<std::result::Result<Value, Value>>>>,
    asked: AtomicU64,
    deaf: AtomicBool,
}

/// When a seat's last run began, and how long the one before it took over there; in nanoseconds.
#[derive(Default)]
pub(super) struct Pace {
    pub(super) began: AtomicU64,
    pub(super) took: AtomicU64,
}

impl Pace {
    /// Notes that a run began, and tells whether its reply may come while one looks for it: traffic is back to back, and runs are short.
    pub(super) fn begin(&self, now: Duration) -> bool {
        let (now, took) = (now.as_nanos() as u64, self.took.load(Ordering::Relaxed));
        let since = now.saturating_sub(self.began.load(Ordering::Relaxed)).saturating_sub(took);
        // Who has the seat is alone.
        self.began.store(now, Ordering::Relaxed);
        since < BACK_TO_BACK.as_nanos() as u64 && took < SPIN.as_nanos() as u64
    }
}

#[derive(Default)]
struct Seats {
    free: Vec<usize>,
    runs: Vec<u32>,
    busy: usize,
    left: Vec<Left>,
}

/// A run that goes on although nobody waits for it.
struct Left {
    seat: usize,
    run: u32,
    /// Of a stream, how many answers were taken.
    taken: Option<u32>,
    since: Instant,
    _kept: Kept,
}

/// What a look at such runs came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// There are none.
    Nothing,
    /// They have time left, or others run beside them.
    Waiting,
    /// One goes on for too long, and nobody else needs the process.
    Stuck,
}

/// What a run reads, for as long as it may.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) blocks: SmallVec<[Block; 2]>,
    pub(super) in_place: SmallVec<[Bytes; 2]>,
}

/// A seat that is taken, given back at the end.
pub(super) struct Sat<'a> {
    life: &'a Life,
    pub(super) seat: usize,
    pub(super) run: u32,
}

impl Drop for Sat<'_> {
    fn drop(&mut self) {
        let mut seats = self.life.seats.lock();
        seats.busy -= 1;
        seats.free.push(self.seat);
        drop(seats);
        self.life.vacated.notify_all();
    }
}

impl Life {
    pub(super) fn new(runtime: &'static str, region: Arc<Region>, orders: UnixStream, max_output_bytes: usize) -> Life {
        Life {
            runtime,
            region,
            arena: Mutex::new(Arena::new(ask_arena())),
            max_output_bytes,
            stoppable: AtomicBool::new(false),
            exclusive: AtomicBool::new(false),
            paces: [const { Pace { began: AtomicU64::new(0), took: AtomicU64::new(0) } }; SEATS],
            began: Instant::now(),
            ended: OnceLock::new(),
            seats: Mutex::default(),
            vacated: Condvar::new(),
            orders: Mutex::new(orders),
            answers: Mutex::default(),
            asked: AtomicU64::new(0),
            deaf: AtomicBool::new(false),
        }
    }

    /// Opens that many seats.
    pub(super) fn open(&self, count: usize, stoppable: bool, exclusive: bool) {
        self.stoppable.store(stoppable, Ordering::Relaxed);
        self.exclusive.store(exclusive, Ordering::Relaxed);
        let mut seats = self.seats.lock();
        seats.free = (0..count.clamp(1, SEATS)).rev().collect();
        seats.runs = vec![0; SEATS];
    }

    pub(super) fn dead(&self) -> bool {
        self.ended.get().is_some()
    }

    /// The error of a request that the process held, or could not be given.
    #[cold]
    pub(super) fn crashed(&self, held: bool) -> NnrpError {
        let ended = self.ended.get().cloned().unwrap_or_else(|| Ended { exit: "its end".to_owned(), again: Duration::ZERO });
        crashed(self.runtime, &ended, held)
    }

    /// Takes a seat, or waits for one, within a time where there is one.
    ///
    /// # Errors
    /// `RUNTIME_CRASHED`; any, when the request was stopped or the time is over.
    pub(super) fn sit(self: &Arc<Life>, control: Control<'_>, until: Option<Instant>) -> Result<Sat<'_>> {
        if let Some(sat) = self.sit_now(&mut self.seats.lock()) {
            return Ok(sat);
        }
        let wait = || {
            let mut seats = self.seats.lock();
            loop {
                if self.dead() {
                    return Err(self.crashed(false));
                }
                if control.stop.is_some_and(|stop| stop.cause().is_some()) {
                    return Err(self.stopped());
                }
                match (self.sit_now(&mut seats), until) {
                    (Some(sat), _) => return Ok(sat),
                    (None, None) => self.vacated.wait(&mut seats),
                    (None, Some(until)) if Instant::now() < until => drop(self.vacated.wait_until(&mut seats, until)),
                    (None, Some(_)) => return Err(self.stopped()),
                }
            }
        };
        let life = self.clone();
        let look_again = move || {
            // Under the lock, so that who has just looked waits already.
            let _seats = life.seats.lock();
            life.vacated.notify_all();
        };
        match control.stop {
            Some(stop) => stop.during(look_again, wait),
            None => wait(),
        }
    }

    fn sit_now(&self, seats: &mut Seats) -> Option<Sat<'_>> {
        let seat = seats.free.pop()?;
        let run = seats.runs.get_mut(seat)?;
        *run = *run % (NUDGE - 1) + 1;
        let run = *run;
        seats.busy += 1;
        Some(Sat { life: self, seat, run })
    }

    /// Of a run that was stopped, which the engine answers itself.
    #[cold]
    pub(super) fn stopped(&self) -> NnrpError {
        NnrpError::new(Reason::RunFailed, format!("runtime {}: the run was stopped", self.runtime))
    }

    /// Leaves a run to itself, or a stream of which so many answers were taken: its seat stays taken until it ends.
    pub(super) fn leave(&self, sat: Sat<'_>, kept: Kept, taken: Option<u32>) {
        let (seat, run) = (sat.seat, sat.run);
        std::mem::forget(sat);
        let mut seats = self.seats.lock();
        seats.busy -= 1;
        if self.dead() {
            // Nobody looks after it any more, and what it keeps would keep this life.
            drop(seats);
            return drop(kept);
        }
        seats.left.push(Left { seat, run, taken, since: Instant::now(), _kept: kept });
        drop(seats);
        // A stream hears of it with its next answer, whatever its session can do.
        if taken.is_some() || self.stoppable.load(Ordering::Relaxed) {
            // Where it cannot be told, the time that it has left will do.
            let _unheard = self.order(&Order::Stop { seat, run });
        }
    }

    /// Looks after the runs that were left to themselves.
    pub(super) fn look(&self, grace: Duration) -> Look {
        let mut seats = self.seats.lock();
        let left = std::mem::take(&mut seats.left);
        for mut one in left {
            let reply = self.region.table().seats[one.seat].reply();
            let over = match &mut one.taken {
                Some(taken) => self.drain(one.seat, taken),
                None => {
                    let replied = reply.word.load(Ordering::Acquire) & !NUDGE == one.run;
                    if replied {
                        self.discard(&reply.spot, &reply_room(one.seat));
                    }
                    replied
                }
            };
            if over { seats.free.push(one.seat) } else { seats.left.push(one) }
        }
        self.vacated.notify_all();
        match (seats.left.iter().map(|one| one.since.elapsed()).max(), seats.busy) {
            (None, _) => Look::Nothing,
            (Some(longest), 0) if longest > grace => Look::Stuck,
            _ => Look::Waiting,
        }
    }

    /// Ends it for everybody who waits for something of it. The process must be gone: its words are written to.
    pub(super) fn end(&self, ended: Ended) {
        let _first = self.ended.set(ended);
        for seat in &self.region.table().seats {
            for word in [&seat.reply().word, &seat.given.0] {
                word.fetch_or(NUDGE, Ordering::SeqCst);
                futex::wake(word);
            }
        }
        self.answers.lock().clear();
        let mut seats = self.seats.lock();
        let left = std::mem::take(&mut seats.left);
        self.vacated.notify_all();
        drop(seats);
        drop(left);
    }

    /// Gives an order.
    pub(super) fn order(&self, order: &Order) -> std::io::Result<()> {
        let given = frame::write(&mut *self.orders.lock(), order);
        if given.is_err() {
            // Half an order may have been written: it will never understand another.
            self.deaf.store(true, Ordering::Release);
        }
        given
    }

    /// Whether the process takes no orders any more.
    pub(super) fn deaf(&self) -> bool {
        self.deaf.load(Ordering::Acquire)
    }

    /// Asks for what a session may offer, when no run goes on beside it where the session does one thing at a time.
    ///
    /// # Errors
    /// What the session says; `RUNTIME_CRASHED`; `RUN_FAILED` when it takes longer than `limit`.
    pub(super) fn ask_for(self: &Arc<Life>, verb: Verb<'_>, limit: Duration) -> Result<Value> {
        let until = Instant::now() + limit;
        let late = || NnrpError::new(Reason::RunFailed, format!("runtime {}: no answer within {} s", self.runtime, limit.as_secs_f32()));
        let sat = self.exclusive.load(Ordering::Relaxed).then(|| self.sit(Control::default(), Some(until)));
        let sat = sat.transpose().map_err(|error| if error.is(Reason::RuntimeCrashed) { error } else { late() })?;
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver): (_, Receiver<_>) = sync_channel(1);
        self.answers.lock().insert(number, sender);
        let sent = self.order(&Order::Ask { number, want: verb.into() });
        let answer = if sent.is_ok() && !self.dead() { receiver.recv_timeout(until.saturating_duration_since(Instant::now())).ok() } else { None };
        self.answers.lock().remove(&number);
        match answer {
            Some(answer) => answer.map_err(|error| frame::error_of(self.runtime, &error)),
            None if self.dead() || sent.is_err() => Err(self.crashed(true)),
            None => {
                // It may go on, and no run may beside it.
                if let Some(sat) = sat {
                    self.leave(sat, Kept::default(), None);
                }
                Err(late())
            }
        }
    }

    /// Hands an answer to who asked.
    pub(super) fn answered(&self, number: u64, answer: std::result::Result<Value, Value>) {
        if let Some(sender) = self.answers.lock().remove(&number) {
            let _gone = sender.try_send(answer);
        }
    }
}

/// The error of a process that ended.
#[cold]
pub(super) fn crashed(runtime: &str, ended: &Ended, held: bool) -> NnrpError {
    let what = if held { "while it had the request; it is started again" } else { "and is being started again" };
    let message = format!("runtime {runtime}: the process of the model ended ({}) {what}", ended.exit);
    let error = NnrpError::new(Reason::RuntimeCrashed, message).with("runtime", runtime).with("exit", ended.exit.as_str()).with("held", held);
    error.with("retry_after_ms", ended.again.as_millis() as u64)
}
