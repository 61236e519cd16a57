//! Who runs when (spec §7.2): a quick session on the thread that read the request, a slow one through its queue.
//!
//! A hop to another thread costs more than all the rest of a small request (measured: 45 µs each way on a 2-core machine), so a session whose
//! running mean is short runs where the request was read. Everything else waits in a bounded queue for the model's workers, which live
//! while there is work.
use crate::error::{NnrpError, Reason, Result};
use crate::message::Response;
use crate::stop::{Cause, Stop};
use crate::validate::Prepared;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How a model's requests wait.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most requests that may wait; one more is answered `QUEUE_FULL`.
    pub queue_capacity: usize,
    /// Most threads that run the queue of one model.
    pub workers: usize,
    /// A session whose expected run is no longer than this runs on the thread that read the request.
    pub inline_limit: Duration,
    /// How long a worker waits for more before it ends.
    pub linger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        Limits { queue_capacity: 1024, workers, inline_limit: Duration::from_micros(500), linger: Duration::from_secs(5) }
    }
}

/// A request that waits.
pub(crate) struct Job {
    pub(crate) prepared: Prepared<'static>,
    pub(crate) ticket: Arc<Ticket>,
}

/// What a waiting request and its waiter share. The first answer counts.
pub(crate) struct Ticket {
    pub(crate) stop: Arc<Stop>,
    pub(crate) deadline: Option<Instant>,
    reply: Mutex<Option<oneshot::Sender<Result<Response>>>>,
}

impl Ticket {
    pub(crate) fn new(stop: Arc<Stop>, deadline: Option<Instant>) -> (Arc<Ticket>, oneshot::Receiver<Result<Response>>) {
        let (sender, receiver) = oneshot::channel();
        (Arc::new(Ticket { stop, deadline, reply: Mutex::new(Some(sender)) }), receiver)
    }

    /// Answers; does nothing when an answer was given before.
    pub(crate) fn answer(&self, answer: Result<Response>) {
        if let Some(sender) = self.reply.lock().take() {
            // The waiter may be gone: then nobody is owed an answer.
            let _ = sender.send(answer);
        }
    }

    /// The error of a request that was stopped or is late, if it was or is.
    pub(crate) fn ended(&self, now: Instant) -> Option<NnrpError> {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.stop.raise(Cause::Deadline);
        }
        self.stop.cause().map(stopped)
    }
}

/// The error of a stopped request.
#[cold]
pub(crate) fn stopped(cause: Cause) -> NnrpError {
    match cause {
        Cause::Cancelled => NnrpError::new(Reason::ClientCancelled, "the request was cancelled"),
        Cause::Deadline => NnrpError::new(Reason::Deadline, "the request's deadline passed before it was answered"),
    }
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    workers: usize,
    idle: usize,
    closed: bool,
}

/// One model version's turn-taking: its queue, its permit, and how long its runs take.
pub struct Schedule {
    limits: Limits,
    /// Held during a run of a session that takes one call at a time.
    permit: Option<Mutex<()>>,
    mean_ns: AtomicU64,
    mean_bytes: AtomicU64,
    waiting: AtomicUsize,
    queue: Mutex<Queue>,
    wake: Condvar,
}

/// Whether a submission needs one more worker.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Submitted {
    /// A worker has it or will.
    Taken,
    /// The caller starts a worker.
    NeedsWorker,
}

impl Schedule {
    /// Turn-taking for a session; `exclusive` when it takes one call at a time.
    pub fn new(limits: Limits, exclusive: bool) -> Self {
        let limits = Limits { workers: if exclusive { 1 } else { limits.workers.max(1) }, ..limits };
        Schedule {
            limits,
            permit: exclusive.then(Mutex::default),
            mean_ns: AtomicU64::new(0),
            mean_bytes: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            queue: Mutex::default(),
            wake: Condvar::new(),
        }
    }

    /// The running mean of a run; zero before the first.
    #[inline]
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.mean_ns.load(Relaxed))
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Whether a run over that many input bytes is expected to be short. More bytes than usual count in proportion.
    #[inline]
    pub fn is_quick(&self, byte_size: usize) -> bool {
        let (mean, usual) = (self.mean_ns.load(Relaxed), self.mean_bytes.load(Relaxed).max(1));
        let growth = (byte_size as u64).div_ceil(usual).max(1);
        mean != 0 && mean.saturating_mul(growth) <= self.limits.inline_limit.as_nanos() as u64
    }

    /// Takes a finished run into the running mean, one eighth of it.
    #[inline]
    pub(crate) fn observe(&self, run: Duration, byte_size: usize) {
        let blend = |mean: &AtomicU64, new: u64| {
            let old = mean.load(Relaxed);
            mean.store(if old == 0 { new.max(1) } else { (old - old / 8 + new / 8).max(1) }, Relaxed);
        };
        blend(&self.mean_ns, run.as_nanos() as u64);
        blend(&self.mean_bytes, byte_size as u64);
    }

    /// The turn of a request that may run right here without waiting; `None` when it must queue.
    #[inline]
    pub(crate) fn try_inline(&self, byte_size: usize) -> Option<Turn<'_>> {
        if !self.is_quick(byte_size) || self.waiting.load(Relaxed) > 0 {
            return None;
        }
        match &self.permit {
            None => Some(Turn { _permit: None }),
            Some(permit) => permit.try_lock().map(|guard| Turn { _permit: Some(guard) }),
        }
    }

    /// Waits for a turn on the caller's own thread.
    ///
    /// # Errors
    /// What `ended` says once it says something.
    pub(crate) fn wait_turn(&self, mut ended: impl FnMut() -> Option<NnrpError>) -> Result<Turn<'_>> {
        const LOOK: Duration = Duration::from_millis(5);
        let Some(permit) = &self.permit else {
            return ended().map_or(Ok(Turn { _permit: None }), Err);
        };
        loop {
            if let Some(error) = ended() {
                return Err(error);
            }
            if let Some(guard) = permit.try_lock_for(LOOK) {
                return Ok(Turn { _permit: Some(guard) });
            }
        }
    }

    /// Puts a request at the end of the queue.
    ///
    /// # Errors
    /// `QUEUE_FULL` at the bound, with the job's own ticket untouched; `MODEL_NOT_FOUND` once the model is unloaded.
    pub(crate) fn submit(&self, job: Job) -> Result<Submitted> {
        let mut queue = self.queue.lock();
        if queue.closed {
            return Err(NnrpError::new(Reason::ModelNotFound, "the model was unloaded while the request came in"));
        }
        if queue.jobs.len() >= self.limits.queue_capacity {
            queue.jobs.retain(|job| match job.ticket.stop.cause() {
                None => true,
                Some(cause) => {
                    job.ticket.answer(Err(stopped(cause)));
                    false
                }
            });
        }
        if queue.jobs.len() >= self.limits.queue_capacity {
            let message = format!("the model's queue is full: {} requests wait", queue.jobs.len());
            return Err(NnrpError::new(Reason::QueueFull, message).with("capacity", self.limits.queue_capacity));
        }
        queue.jobs.push_back(job);
        self.waiting.store(queue.jobs.len(), Relaxed);
        if queue.idle < queue.jobs.len() && queue.workers < self.limits.workers {
            queue.workers += 1;
            return Ok(Submitted::NeedsWorker);
        }
        self.wake.notify_one();
        Ok(Submitted::Taken)
    }

    /// The oldest waiting request, for a worker; `None` tells the worker to end.
    pub(crate) fn next(&self) -> Option<Job> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                self.waiting.store(queue.jobs.len(), Relaxed);
                return Some(job);
            }
            if queue.closed {
                queue.workers -= 1;
                return None;
            }
            queue.idle += 1;
            let waited = self.wake.wait_for(&mut queue, self.limits.linger);
            queue.idle -= 1;
            if waited.timed_out() && queue.jobs.is_empty() {
                queue.workers -= 1;
                return None;
            }
        }
    }

    /// A worker could not be started: gives back every request that nobody would run now, which is none while another worker lives.
    pub(crate) fn worker_failed(&self) -> VecDeque<Job> {
        let mut queue = self.queue.lock();
        queue.workers -= 1;
        if queue.workers > 0 {
            return VecDeque::new();
        }
        self.waiting.store(0, Relaxed);
        std::mem::take(&mut queue.jobs)
    }

    /// Takes nothing new; what waits is still run, and then the workers end.
    pub fn close(&self) {
        self.queue.lock().closed = true;
        self.wake.notify_all();
    }
}

/// The right to run now; given back when dropped.
pub(crate) struct Turn<'a> {
    _permit: Option<MutexGuard<'a, ()>>,
}

/// Stops requests whose deadline passes while they wait or run. One thread, started with the first deadline.
#[derive(Default)]
pub(crate) struct Watch(Arc<Watched>);

#[derive(Default)]
struct Watched {
    state: Mutex<Deadlines>,
    wake: Condvar,
}

#[derive(Default)]
struct Deadlines {
    tickets: std::collections::BTreeMap<(Instant, u64), Weak<Ticket>>,
    next: u64,
    running: bool,
    ended: bool,
}

impl Watch {
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
        } else if state.tickets.first_key_value().is_some_and(|(first, _)| *first == key) {
            self.0.wake.notify_one();
        }
        Some(Watching { watched: self.0.clone(), key })
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

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.state.lock().ended = true;
        self.0.wake.notify_one();
    }
}

impl Watched {
    fn run(&self) {
        let mut state = self.state.lock();
        while !state.ended {
            let Some(first) = state.tickets.first_key_value().map(|((deadline, _), _)| *deadline) else {
                self.wake.wait(&mut state);
                continue;
            };
            if first > Instant::now() {
                self.wake.wait_until(&mut state, first);
                continue;
            }
            let Some((_, ticket)) = state.tickets.pop_first() else { continue };
            if let Some(ticket) = ticket.upgrade() {
                MutexGuard::unlocked(&mut state, || {
                    // The answer first: an interrupted run may end well, and then it is too late.
                    ticket.answer(Err(stopped(Cause::Deadline)));
                    ticket.stop.raise(Cause::Deadline);
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smallvec::SmallVec;

    fn job() -> Job {
        let (ticket, _) = Ticket::new(Arc::default(), None);
        let prepared = Prepared { inputs: SmallVec::new(), outputs: SmallVec::new(), byte_size: 0, id: None, arrived: Instant::now() };
        Job { prepared, ticket }
    }

    fn limits(queue_capacity: usize) -> Limits {
        Limits { queue_capacity, workers: 1, linger: Duration::ZERO, ..Limits::default() }
    }

    #[test]
    fn a_full_queue_refuses_and_forgets_who_left() {
        let schedule = Schedule::new(limits(1), false);
        let first = job();
        let stop = first.ticket.stop.clone();
        assert_eq!(schedule.submit(first).unwrap(), Submitted::NeedsWorker);
        assert!(schedule.submit(job()).unwrap_err().is(Reason::QueueFull));
        stop.raise(Cause::Cancelled);
        assert_eq!(schedule.submit(job()).unwrap(), Submitted::Taken);
        assert_eq!(schedule.waiting(), 1);
    }

    #[test]
    fn a_session_is_quick_only_once_its_runs_were_short() {
        let schedule = Schedule::new(Limits::default(), false);
        assert!(!schedule.is_quick(64));
        schedule.observe(Duration::from_micros(5), 64);
        assert!(schedule.is_quick(64));
        assert!(!schedule.is_quick(64 * 1000));
        schedule.observe(Duration::from_millis(300), 64);
        assert!(!schedule.is_quick(64));
    }

    #[test]
    fn an_exclusive_session_has_one_turn_at_a_time() {
        let schedule = Schedule::new(Limits::default(), true);
        schedule.observe(Duration::from_micros(5), 0);
        let turn = schedule.try_inline(0);
        assert!(turn.is_some());
        assert!(schedule.try_inline(0).is_none());
        let refused = schedule.wait_turn(|| Some(stopped(Cause::Deadline))).err().unwrap();
        assert!(refused.is(Reason::Deadline));
        drop(turn);
        assert!(schedule.try_inline(0).is_some());
    }

    #[test]
    fn a_closed_queue_gives_what_it_has_and_takes_nothing() {
        let schedule = Schedule::new(limits(4), false);
        schedule.submit(job()).unwrap();
        schedule.close();
        assert!(schedule.submit(job()).is_err());
        assert!(schedule.next().is_some());
        assert!(schedule.next().is_none());
    }

    #[test]
    fn without_a_worker_every_waiting_request_is_given_back() {
        let schedule = Schedule::new(limits(4), false);
        assert_eq!(schedule.submit(job()).unwrap(), Submitted::NeedsWorker);
        assert_eq!(schedule.submit(job()).unwrap(), Submitted::Taken);
        assert_eq!(schedule.worker_failed().len(), 2);
        assert_eq!(schedule.waiting(), 0);
        assert_eq!(schedule.submit(job()).unwrap(), Submitted::NeedsWorker);
    }

    #[test]
    fn a_deadline_is_forgotten_once_its_request_is_answered() {
        let watch = Watch::default();
        for _ in 0..1000 {
            let (ticket, _) = Ticket::new(Arc::default(), Some(Instant::now() + Duration::from_secs(3600)));
            drop(watch.add(&ticket));
        }
        assert!(watch.0.state.lock().tickets.is_empty());
    }
}
