//! Requests with any number of answers (spec §7.11): a worker gives them, a reader takes them, and a slow reader holds the worker back.
use super::Engine;
use super::here::never_began;
use crate::clock::Clock;
use crate::error::{NnrpError, Reason, Result, panicked};
use crate::message::{Request, Response};
use crate::model::Loaded;
use crate::runtime::Outputs;
use crate::schedule::called_itself;
use crate::stop::{Cause, Stop};
use crate::ticket::{Job, Ticket, Unpark, stopped};
use crate::validate::Prepared;
use crate::watch::Watching;
use parking_lot::{Mutex, MutexGuard};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

/// How many answers may wait for their reader; with one more, who gives them waits.
const AHEAD: usize = 8;

impl Engine {
    /// Begins to answer a request with all the answers that its model gives: any number where the model streams, or else one.
    ///
    /// It is run on the model's workers, never here. Dropping what this returns cancels the request.
    ///
    /// # Errors
    /// As [`Engine::infer`], as far as they are known at once; the others end the stream.
    pub fn stream(&self, mut request: Request<'_, 'static>) -> Result<Answers> {
        let clock = &self.settings.clock;
        let loaded = self.admit(&mut request)?;
        let prepared = loaded.prepare(&mut request, clock.now(), true)?;
        if loaded.schedule.runs_here() {
            return Err(loaded.count(called_itself()));
        }
        let (ticket, end) = Ticket::with_reply(request.stop.unwrap_or_default(), request.deadline);
        if let Some(error) = ticket.ended(clock) {
            return Err(loaded.count(error));
        }
        let watching = self.watch.add(&ticket);
        let (sink, answers) = mpsc::channel(AHEAD);
        let (end, stop, streams) = (End::Awaited(end), ticket.stop.clone(), loaded.session.info().streams);
        let answers = Answers { answers, end, stop, streams, watching };
        self.enqueue(&loaded, Job { prepared, ticket, sink: Some(sink) })?;
        Ok(answers)
    }
}

/// The answers to one request, in order, and how they end. Dropped before their end, they cancel the request.
#[must_use = "dropping it cancels the request"]
pub struct Answers {
    answers: mpsc::Receiver<Response>,
    end: End,
    stop: Arc<Stop>,
    streams: bool,
    watching: Option<Watching>,
}

enum End {
    Awaited(oneshot::Receiver<Result<Response>>),
    /// What was given before it is still to be read.
    Said(Result<Response>),
    Over(Option<Response>),
}

impl Answers {
    /// Answers that somebody else gives: where they go one by one, and then, once, how they ended.
    pub fn channel(stop: Arc<Stop>) -> (mpsc::Sender<Response>, oneshot::Sender<Result<Response>>, Answers) {
        let ((sink, answers), (end, said)) = (mpsc::channel(AHEAD), oneshot::channel());
        (sink, end, Answers { answers, end: End::Awaited(said), stop, streams: true, watching: None })
    }

    /// Whether there may be another number of answers than one.
    pub fn streams(&self) -> bool {
        self.streams
    }

    /// Raises the flag that ends the request.
    pub fn stop(&self) -> Arc<Stop> {
        self.stop.clone()
    }

    /// After the end of answers that ended well: what would be one more, without outputs.
    pub fn last(&self) -> Option<&Response> {
        if let End::Over(last) = &self.end { last.as_ref() } else { None }
    }

    /// The next answer; an error is the last; `None` once there are no more.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Response>>> {
        if let End::Awaited(end) = &mut self.end {
            if let Poll::Ready(Some(answer)) = self.answers.poll_recv(context) {
                return Poll::Ready(Some(Ok(answer)));
            }
            let said = ready!(Pin::new(end).poll(context)).unwrap_or_else(|_| Err(cut_off()));
            self.answers.close();
            self.watching = None;
            self.end = End::Said(said);
        }
        if let Ok(answer) = self.answers.try_recv() {
            return Poll::Ready(Some(Ok(answer)));
        }
        let (over, last) = match std::mem::replace(&mut self.end, End::Over(None)) {
            End::Said(Ok(response)) => (Some(response), None),
            End::Said(Err(error)) => (None, Some(Err(error))),
            End::Over(over) => (over, None),
            End::Awaited(_) => (None, None),
        };
        self.end = End::Over(over);
        Poll::Ready(last)
    }

    /// As [`Answers::poll_next`], waiting on this thread, but no longer than `patience`.
    pub fn wait_next(&mut self, patience: Duration) -> Poll<Option<Result<Response>>> {
        let (waker, began) = (Waker::from(Arc::new(Unpark(std::thread::current()))), Instant::now());
        loop {
            let next = self.poll_next(&mut Context::from_waker(&waker));
            match patience.checked_sub(began.elapsed()) {
                Some(left) if next.is_pending() => std::thread::park_timeout(left),
                _ => return next,
            }
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        if let End::Awaited(_) = &self.end {
            self.stop.raise(Cause::Cancelled);
        }
    }
}

/// Answers that threads share: one may wait for the next while another ends them.
pub struct SharedAnswers {
    answers: Mutex<Option<Answers>>,
    closed: AtomicBool,
    stop: Arc<Stop>,
}

impl From<Answers> for SharedAnswers {
    fn from(answers: Answers) -> Self {
        SharedAnswers { stop: answers.stop(), closed: AtomicBool::new(false), answers: Mutex::new(Some(answers)) }
    }
}

impl SharedAnswers {
    /// As [`Answers::poll_next`]; `None` once they were closed, too.
    pub fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<Result<Response>>> {
        self.next(self.answers.lock(), |answers| answers.poll_next(context))
    }

    /// As [`Answers::wait_next`]; other threads that want an answer wait meanwhile.
    pub fn wait_next(&self, patience: Duration) -> Poll<Option<Result<Response>>> {
        self.next(self.answers.lock(), |answers| answers.wait_next(patience))
    }

    /// The next answer if it is there already, without waiting for anything.
    pub fn try_next(&self) -> Poll<Option<Result<Response>>> {
        let Some(answers) = self.answers.try_lock() else { return Poll::Pending };
        self.next(answers, |answers| answers.poll_next(&mut Context::from_waker(Waker::noop())))
    }

    /// Cancels the request, unless it has ended. Who waits for an answer meanwhile gets what it ends with; there is none after that one, also of those
    /// that the model gave ahead.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.stop.raise(Cause::Cancelled);
        let closed = self.answers.try_lock().and_then(|mut answers| answers.take());
        drop(closed);
    }

    fn next(
        &self,
        mut answers: MutexGuard<'_, Option<Answers>>,
        next: impl FnOnce(&mut Answers) -> Poll<Option<Result<Response>>>,
    ) -> Poll<Option<Result<Response>>> {
        if self.closed.load(Ordering::SeqCst) {
            *answers = None;
        }
        answers.as_mut().map_or(Poll::Ready(None), next)
    }
}

/// Where a session's answers go.
struct Giving<'a> {
    loaded: &'a Loaded,
    prepared: &'a Prepared<'static>,
    ticket: &'a Ticket,
    clock: &'a Clock,
    answers: mpsc::Sender<Response>,
    count: u64,
    first: Option<Duration>,
    /// How long it waited for its reader.
    waited: Duration,
    refused: Option<NnrpError>,
}

impl Giving<'_> {
    fn give(&mut self, outputs: Outputs) -> Result<()> {
        let given = match &self.refused {
            Some(error) => Err(error.clone()),
            None => self.check(outputs).and_then(|response| self.send(response)),
        };
        if let Err(error) = &given {
            self.refused.get_or_insert_with(|| error.clone());
        }
        given
    }

    fn check(&mut self, outputs: Outputs) -> Result<Response> {
        let (loaded, prepared) = (self.loaded, self.prepared);
        if outputs.len() != prepared.outputs.len() {
            return Err(loaded.wrong_count(prepared.outputs.len(), outputs.len()));
        }
        self.ticket.ended(self.clock).map_or(Ok(()), Err)?;
        self.first.get_or_insert_with(|| self.clock.now().saturating_duration_since(prepared.arrived));
        Ok(loaded.response(&prepared.outputs, outputs, prepared.id.clone()))
    }

    fn send(&mut self, response: Response) -> Result<()> {
        match self.answers.try_send(response) {
            Ok(()) => {}
            Err(TrySendError::Closed(_)) => return Err(stopped(Cause::Cancelled)),
            Err(TrySendError::Full(response)) => {
                let (began, this, mut response, mut sent) = (self.clock.now(), &*self, Some(response), Ok(()));
                self.loaded.session.wait(&mut || sent = response.take().map_or(Ok(()), |response| this.wait_and_send(response)));
                self.waited += self.clock.now().saturating_duration_since(began);
                sent?;
            }
        }
        self.count += 1;
        Ok(())
    }

    fn wait_and_send(&self, response: Response) -> Result<()> {
        let thread = std::thread::current();
        let waker = Waker::from(Arc::new(Unpark(thread.clone())));
        let mut sending = pin!(self.answers.send(response));
        let wait = || loop {
            if let Some(error) = self.ticket.ended(self.clock) {
                return Err(error);
            }
            if let Poll::Ready(sent) = sending.as_mut().poll(&mut Context::from_waker(&waker)) {
                return sent.map_err(|_left| stopped(Cause::Cancelled));
            }
            std::thread::park();
        };
        self.ticket.stop.during(move || thread.unpark(), wait)
    }
}

impl Loaded {
    /// Runs a request whose turn it is and passes its answers on; gives what they end with.
    pub(super) fn give(&self, prepared: &Prepared<'static>, ticket: &Ticket, answers: mpsc::Sender<Response>, clock: &Clock) -> Result<Response> {
        let started = clock.now();
        let mut giving = Giving { loaded: self, prepared, ticket, clock, answers, count: 0, first: None, waited: Duration::ZERO, refused: None };
        let result = loop {
            let mut sink = |outputs| giving.give(outputs);
            let control = prepared.told(ticket.control());
            let result = catch_unwind(AssertUnwindSafe(|| self.session.stream(&prepared.inputs, &prepared.outputs, control, &mut sink)));
            if !matches!(&result, Ok(Err(error)) if never_began(error)) || !self.is_back(ticket)? {
                break result;
            }
        };
        let run = clock.now().saturating_duration_since(started).saturating_sub(giving.waited);
        self.metrics.stream(giving.count, giving.first);
        if !self.session.info().streams {
            self.schedule.observe(run, prepared.byte_size);
        }
        if let Some(error) = ticket.stop.cause().map(stopped).or(giving.refused) {
            return Err(self.count(error));
        }
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(self.count(error)),
            Err(_panic) => return Err(self.count(panicked())),
        }
        self.metrics.success(started.saturating_duration_since(prepared.arrived), run);
        Ok(self.response(&[], Outputs::new(), prepared.id.clone()))
    }

    #[cold]
    pub(super) fn only_streams(&self) -> NnrpError {
        let message = format!("model '{}': gives any number of answers to a request, so that it is asked for a stream of them, not for one", self.name);
        NnrpError::new(Reason::NotOffered, message).with("model", &*self.name).with("decoupled", true)
    }
}

#[cold]
fn cut_off() -> NnrpError {
    NnrpError::new(Reason::ClientCancelled, "whoever gave the answers went away before their end")
}
