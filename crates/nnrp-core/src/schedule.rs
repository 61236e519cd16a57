//! Who runs when (spec §7.2): a quick session on the thread that read the request, a slow one through its queue.
//!
//! A hop to another thread costs more than all the rest of a small request (measured: 45 µs each way on a 2-core machine), so a session whose
//! running mean is short runs where the request was read. Everything else waits in a bounded queue for the model's workers, which live
//! while there is work.
use crate::clock::Clock;
use crate::condvar::Condvar;
use crate::error::{NnrpError, Reason, Result};
use crate::ticket::{Job, Ticket, Unpark, stopped};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, atomic::AtomicU64, atomic::AtomicUsize, atomic::Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};

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

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Callers that wait for their turn on their own threads.
    callers: usize,
    workers: usize,
    idle: usize,
    /// Worker threads that have not ended yet, whether or not they still take requests.
    threads: usize,
    closed: bool,
}

impl Queue {
    fn waiting(&self) -> usize {
        self.jobs.len() + self.callers
    }
}

/// One model version's turn-taking: its queue, its permit, and how long its runs take.
pub struct Schedule {
    limits: Limits,
    /// Its one permit is held during a run of a session that takes one call at a time, and handed on in the order in which it was asked for.
    permit: Option<Semaphore>,
    /// The thread that runs the session now, where it takes one call at a time; 0 when none does.
    runner: AtomicUsize,
    mean_ns: AtomicU64,
    mean_bytes: AtomicU64,
    waiting: AtomicUsize,
    queue: Mutex<Queue>,
    wake: Condvar,
    ended: Condvar,
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
            permit: exclusive.then(|| Semaphore::new(1)),
            runner: AtomicUsize::new(0),
            mean_ns: AtomicU64::new(0),
            mean_bytes: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            queue: Mutex::default(),
            wake: Condvar::new(),
            ended: Condvar::new(),
        }
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// How long a run over that many input bytes will take by the running mean, which more bytes than usual lengthen in proportion; zero before the first.
    pub fn expected(&self, byte_size: usize) -> Duration {
        let (mean, usual) = (self.mean_ns.load(Relaxed), self.mean_bytes.load(Relaxed).max(1));
        Duration::from_nanos(mean.saturating_mul((byte_size as u64).div_ceil(usual).max(1)))
    }

    /// Whether a run over that many input bytes is expected to be short.
    #[inline]
    pub fn is_quick(&self, byte_size: usize) -> bool {
        (1..=self.limits.inline_limit.as_nanos()).contains(&self.expected(byte_size).as_nanos())
    }

    /// Whether a caller has to wait for another's run to end.
    pub fn is_taken(&self) -> bool {
        self.permit.as_ref().is_some_and(|permit| permit.available_permits() == 0) && self.runner.load(Relaxed) != thread_number()
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
        if self.is_quick(byte_size) { self.try_now() } else { None }
    }

    /// The turn of a request that need not wait for one.
    #[inline]
    pub(crate) fn try_now(&self) -> Option<Turn<'_>> {
        if self.waiting.load(Relaxed) > 0 {
            return None;
        }
        match &self.permit {
            None => Some(Turn(None)),
            Some(permit) => permit.try_acquire().ok().map(|permit| self.turn(permit)),
        }
    }

    #[inline]
    fn turn<'a>(&'a self, permit: SemaphorePermit<'a>) -> Turn<'a> {
        self.runner.store(thread_number(), Relaxed);
        Turn(Some((permit, &self.runner)))
    }

    /// The turn of a caller that runs its request on its own thread. While it waits it counts like a request in the queue; where calls need
    /// not wait for each other, it need not either: its thread is its own.
    ///
    /// # Errors
    /// As [`Schedule::submit`], and why the request ended before its turn came.
    pub(crate) fn caller_turn(&self, ticket: &Ticket, clock: &Clock) -> Result<Turn<'_>> {
        match self.permit.as_ref().map(Semaphore::try_acquire) {
            None => self.wait_turn(ticket, clock),
            Some(Ok(permit)) => ticket.ended(clock).map_or_else(|| Ok(self.turn(permit)), Err),
            Some(Err(_taken)) if self.runs_here() => Err(called_itself()),
            Some(Err(_taken)) => {
                self.count_callers(|queue| self.make_room(queue).map(|()| queue.callers += 1))?;
                let turn = self.wait_turn(ticket, clock);
                self.count_callers(|queue| queue.callers -= 1);
                turn
            }
        }
    }

    /// Whether this very thread runs the session now, where it takes one call at a time.
    pub(crate) fn runs_here(&self) -> bool {
        self.runner.load(Relaxed) == thread_number()
    }

    fn count_callers<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
        let mut queue = self.queue.lock();
        let result = change(&mut queue);
        self.waiting.store(queue.waiting(), Relaxed);
        result
    }

    /// Waits for a turn on this thread.
    ///
    /// # Errors
    /// Why the request ended before its turn came.
    pub(crate) fn wait_turn(&self, ticket: &Ticket, clock: &Clock) -> Result<Turn<'_>> {
        let Some(permit) = &self.permit else { return ticket.ended(clock).map_or(Ok(Turn(None)), Err) };
        let thread = std::thread::current();
        let waker = Waker::from(Arc::new(Unpark(thread.clone())));
        let mut turn = pin!(permit.acquire());
        let wait = || loop {
            if let Some(error) = ticket.ended(clock) {
                return Err(error);
            }
            if let Poll::Ready(permit) = turn.as_mut().poll(&mut Context::from_waker(&waker)) {
                return permit.map(|permit| self.turn(permit)).map_err(|_| NnrpError::new(Reason::Bug, "a session's permit is never closed"));
            }
            std::thread::park();
        };
        ticket.stop.during(move || thread.unpark(), wait)
    }

    /// Puts a request at the end of the queue.
    ///
    /// # Errors
    /// `QUEUE_FULL` at the bound, with the job's own ticket untouched; `MODEL_NOT_FOUND` once the model is unloaded.
    pub(crate) fn submit(&self, job: Job) -> Result<Submitted> {
        let mut queue = self.queue.lock();
        self.make_room(&mut queue)?;
        queue.jobs.push_back(job);
        self.waiting.store(queue.waiting(), Relaxed);
        if queue.idle < queue.jobs.len() && queue.workers < self.limits.workers {
            queue.workers += 1;
            queue.threads += 1;
            return Ok(Submitted::NeedsWorker);
        }
        self.wake.notify_one();
        Ok(Submitted::Taken)
    }

    fn make_room(&self, queue: &mut Queue) -> Result<()> {
        if queue.closed {
            return Err(NnrpError::new(Reason::ModelNotFound, "the model was unloaded while the request came in"));
        }
        if queue.waiting() >= self.limits.queue_capacity {
            queue.jobs.retain(|job| match job.ticket.stop.cause() {
                None => true,
                Some(cause) => {
                    job.ticket.answer(Err(stopped(cause)));
                    false
                }
            });
        }
        if queue.waiting() >= self.limits.queue_capacity {
            let message = format!("the model's queue is full: {} requests wait", queue.waiting());
            return Err(NnrpError::new(Reason::QueueFull, message).with("capacity", self.limits.queue_capacity));
        }
        Ok(())
    }

    /// The oldest waiting request, for a worker; `None` tells the worker to end.
    pub(crate) fn next(&self) -> Option<Job> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                self.waiting.store(queue.waiting(), Relaxed);
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
        queue.threads -= 1;
        if queue.workers > 0 {
            return VecDeque::new();
        }
        self.waiting.store(queue.callers, Relaxed);
        std::mem::take(&mut queue.jobs)
    }

    /// A worker's thread is about to end.
    pub(crate) fn thread_ended(&self) {
        self.queue.lock().threads -= 1;
        self.ended.notify_all();
    }

    /// Waits until no worker's thread is left, and tells whether it came to that.
    pub(crate) fn wait_for_threads(&self, until: Instant) -> bool {
        let mut queue = self.queue.lock();
        while queue.threads > 0 {
            if self.ended.wait_until(&mut queue, until).timed_out() {
                return false;
            }
        }
        true
    }

    /// Takes nothing new; what waits is still run, and then the workers end.
    pub fn close(&self) {
        self.queue.lock().closed = true;
        self.wake.notify_all();
    }
}

/// The right to run now; given back when dropped.
pub(crate) struct Turn<'a>(Option<(SemaphorePermit<'a>, &'a AtomicUsize)>);

impl Drop for Turn<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some((_permit, runner)) = &self.0 {
            runner.store(0, Relaxed);
        }
    }
}

/// The error of a session that takes one call at a time and asks itself within a run.
#[cold]
pub(crate) fn called_itself() -> NnrpError {
    NnrpError::new(Reason::WrongState, "the session takes one call at a time, and it called itself within a run: it would wait for ever")
}

/// A number that no other living thread has; never 0.
#[inline]
fn thread_number() -> usize {
    thread_local! { static HERE: u8 = const { 0 }; }
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stop::Cause;
    use crate::validate::Prepared;
    use smallvec::SmallVec;

    fn job() -> Job {
        let ticket = Ticket::new(Arc::default(), None);
        let prepared = Prepared { inputs: SmallVec::new(), outputs: SmallVec::new(), byte_size: 0, id: None, parameters: Vec::new(), arrived: Instant::now() };
        Job { prepared, ticket, sink: None }
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
        let late = Ticket::new(Arc::default(), Some(Instant::now()));
        assert!(schedule.wait_turn(&late, &Clock::default()).err().unwrap().is(Reason::Deadline));
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
}
