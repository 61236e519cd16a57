//! The engine: takes a request down the corridor and answers it (spec §7).
mod here;
mod stream;
mod tend;

pub use stream::{Answers, SharedAnswers};

use crate::choose::Chosen;
use crate::clock::Clock;
use crate::error::{NnrpError, Reason, Result};
use crate::message::{Output, Request, Response};
use crate::metrics::Metrics;
use crate::model::{Loaded, ModelSpec, Name};
use crate::route::{Registry, model_exists};
use crate::runtime::{Concurrency, Control, Outputs, Runtime, Runtimes, Threads};
use crate::schedule::{Limits, Schedule, Submitted, Turn};
use crate::stop::{Cause, LOOK, Look, Stop};
use crate::symbols::Ties;
use crate::ticket::{Job, Ticket, Unpark, stopped};
use crate::validate::{Prepared, prepare};
use crate::watch::{Watch, Watching};
use parking_lot::Mutex;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How an engine behaves.
#[derive(Clone, Default)]
pub struct Settings {
    /// How each model's requests wait.
    pub limits: Limits,
    /// The one clock that deadlines are compared with.
    pub clock: Clock,
}

/// Models, their runtimes, and the one way a request takes through them.
pub struct Engine {
    settings: Settings,
    runtimes: Mutex<Runtimes>,
    registry: Registry,
    watch: Watch,
    draining: AtomicBool,
}

impl Engine {
    /// An engine without models.
    pub fn new(settings: Settings, runtimes: Runtimes) -> Self {
        let watch = Watch::new(settings.clock.clone());
        Engine { settings, runtimes: Mutex::new(runtimes), registry: Registry::default(), watch, draining: AtomicBool::new(false) }
    }

    /// The runtimes it can load with.
    pub fn runtimes(&self) -> Runtimes {
        self.runtimes.lock().clone()
    }

    /// Loads with one more runtime from now on; one of the same name is replaced.
    pub fn add_runtime(&self, runtime: Arc<dyn Runtime>) {
        let mut runtimes = self.runtimes.lock();
        // Kept until the lock is given back: what ends with it may be anybody's code.
        let _before = runtimes.clone();
        runtimes.add(runtime);
        drop(runtimes);
    }

    /// Loads a model version and serves it from then on.
    ///
    /// # Errors
    /// `INVALID_OPTION` for a bad name, `MODEL_EXISTS`, `RUNTIME_NOT_INSTALLED`, `NO_RUNTIME`, and what the runtime says.
    pub fn load(&self, spec: ModelSpec) -> Result<Arc<Loaded>> {
        spec.check()?;
        if self.registry.versions(&spec.name).iter().any(|version| **version == *spec.version) {
            return Err(model_exists(&spec.name, &spec.version));
        }
        let Chosen { session, not_taken } = self.runtimes().choose(&spec)?;
        let exclusive = session.info().concurrency == Concurrency::Exclusive;
        let limits = Limits { workers: session.workers().unwrap_or(self.settings.limits.workers), ..self.settings.limits };
        let loaded = Arc::new(Loaded {
            name: spec.name.into(),
            version: spec.version.into(),
            ties: Ties::of(&session.info().signature, spec.symbols),
            session,
            schedule: Schedule::new(limits, exclusive),
            metrics: Metrics::default(),
            labels: spec.labels,
            changed: Mutex::default(),
            not_taken,
        });
        self.registry.add(loaded.clone())?;
        Ok(loaded)
    }

    /// Serves a version no longer, or none of a model's when `version` is empty. What waits or runs is still answered.
    ///
    /// # Errors
    /// `MODEL_NOT_FOUND`, `VERSION_NOT_FOUND`.
    pub fn unload(&self, name: &str, version: &str) -> Result<()> {
        self.registry.remove(name, version)?.iter().for_each(|loaded| loaded.schedule.close());
        Ok(())
    }

    /// A loaded version; an empty version means the latest.
    ///
    /// # Errors
    /// `MODEL_NOT_FOUND`, `VERSION_NOT_FOUND`.
    pub fn model(&self, name: &str, version: &str) -> Result<Arc<Loaded>> {
        self.registry.pick(name, version)
    }

    /// Every loaded version, by name and then by version.
    pub fn models(&self) -> Vec<Arc<Loaded>> {
        self.registry.all()
    }

    /// The loaded versions of a model, oldest first.
    pub fn versions(&self, name: &str) -> Vec<Name> {
        self.registry.versions(name)
    }

    /// Whether it takes requests.
    pub fn ready(&self) -> bool {
        !self.draining.load(Relaxed)
    }

    /// Takes nothing new from now on; what waits or runs is still answered.
    pub fn drain(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Takes nothing new, ends every model once what waits for it is answered, and waits until its threads are gone, but no longer than that;
    /// tells whether they are.
    pub fn close(&self, grace: Duration) -> bool {
        self.drain();
        let (models, until) = (self.models(), Instant::now() + grace);
        models.iter().for_each(|loaded| loaded.schedule.close());
        models.iter().all(|loaded| loaded.schedule.wait_for_threads(until))
    }

    /// Answers a request on the caller's own thread, which may wait for its turn and for the run.
    ///
    /// # Errors
    /// Every error of the specification; see spec §5.
    pub fn infer(&self, mut request: Request<'_, '_>) -> Result<Response> {
        let loaded = self.admit(&mut request)?;
        let mut prepared = loaded.prepare(&mut request, self.settings.clock.now(), false)?;
        if runs_unwatched(&request)
            && let Some(_turn) = loaded.turn_here(prepared.byte_size)
        {
            match loaded.answer_now(prepared, Control::default(), &self.settings.clock) {
                Ok(answer) => return answer,
                Err(never_began) => prepared = never_began,
            }
        }
        self.infer_slowly(&loaded, prepared, request.stop.unwrap_or_default(), request.deadline)
    }

    /// Answers a request without ever waiting on the caller's thread: a quick and idle session runs right here, any other queues.
    ///
    /// Dropping the answer before it is ready cancels the request.
    pub fn infer_async(&self, request: Request<'_, 'static>) -> Answer {
        self.start(request).unwrap_or_else(|error| Answer(State::Ready(Some(Err(error)))))
    }

    fn admit(&self, request: &mut Request<'_, '_>) -> Result<Arc<Loaded>> {
        if self.draining.load(Relaxed) {
            return Err(NnrpError::new(Reason::Draining, "the server is stopping and takes nothing new"));
        }
        if !request.parameters.is_empty() {
            request.settle(self.settings.clock.now())?;
        }
        self.registry.pick(&request.model, &request.version)
    }

    fn start(&self, mut request: Request<'_, 'static>) -> Result<Answer> {
        let clock = &self.settings.clock;
        let loaded = self.admit(&mut request)?;
        let mut prepared = loaded.prepare(&mut request, clock.now(), false)?;
        let mut turn = if loaded.has_own_threads() { None } else { loaded.schedule.try_inline(prepared.byte_size) };
        if turn.is_some() && runs_unwatched(&request) {
            match self.answer_here(&loaded, prepared, None) {
                Ok(answer) => return Ok(Answer(State::Ready(Some(answer)))),
                Err(again) => (turn, prepared) = (None, again),
            }
        }
        let (ticket, reply) = Ticket::with_reply(request.stop.unwrap_or_default(), request.deadline);
        if let Some(error) = ticket.ended(clock) {
            return Err(loaded.count(error));
        }
        let watching = self.watch.add(&ticket);
        if turn.is_some() {
            match self.answer_here(&loaded, prepared, Some(&ticket)) {
                Ok(answer) => return Ok(Answer(State::Ready(Some(answer)))),
                Err(again) => prepared = again,
            }
        }
        drop(turn);
        let stop = ticket.stop.clone();
        self.enqueue(&loaded, Job { prepared, ticket, sink: None })?;
        Ok(Answer(State::Waiting { reply, stop, _watching: watching }))
    }

    fn enqueue(&self, loaded: &Arc<Loaded>, job: Job) -> Result<()> {
        if loaded.schedule.submit(job).map_err(|error| loaded.count(error))? == Submitted::Taken {
            return Ok(());
        }
        let (worker, clock) = (loaded.clone(), self.settings.clock.clone());
        let name = format!("nnrp:{}", loaded.name);
        let life = move || {
            worker.session.work(&mut || worker.work(&clock));
            worker.schedule.thread_ended();
        };
        if std::thread::Builder::new().name(name).spawn(life).is_err() {
            for job in loaded.schedule.worker_failed() {
                let error = NnrpError::new(Reason::QueueFull, "no thread could be started for the model's queue");
                job.ticket.answer(Err(loaded.count(error)));
            }
        }
        Ok(())
    }

    #[cold]
    fn infer_slowly(&self, loaded: &Loaded, prepared: Prepared<'_>, stop: Arc<Stop>, deadline: Option<Instant>) -> Result<Response> {
        let ticket = Ticket::new(stop, deadline);
        let _watching = self.watch.add(&ticket);
        let _turn = self.wait_for_turn(loaded, &ticket).map_err(|error| loaded.count(error))?;
        loaded.answer(prepared, &ticket, &self.settings.clock)
    }

    fn wait_for_turn<'l>(&self, loaded: &'l Loaded, ticket: &Ticket) -> Result<Turn<'l>> {
        let clock = &self.settings.clock;
        let mut turn = loaded.schedule.try_now().filter(|_| ticket.ended(clock).is_none()).map(Ok);
        if turn.is_none() {
            loaded.session.wait(&mut || turn = Some(loaded.schedule.caller_turn(ticket, clock)));
        }
        turn.unwrap_or_else(|| Err(NnrpError::new(Reason::Bug, "a session did not wait for its turn")))
    }
}

/// Whether nothing can end the request's run before its time, so that the run need not be made to end.
#[inline]
fn runs_unwatched(request: &Request<'_, '_>) -> bool {
    request.deadline.is_none() && request.stop.is_none()
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.registry.all().iter().for_each(|loaded| loaded.schedule.close());
    }
}

impl Loaded {
    fn has_own_threads(&self) -> bool {
        self.session.info().threads == Threads::Own
    }

    /// A turn on the caller's own thread without waiting for it; a session with threads of its own need not be quick there.
    #[inline]
    fn turn_here(&self, byte_size: usize) -> Option<Turn<'_>> {
        if self.has_own_threads() { self.schedule.try_now() } else { self.schedule.try_inline(byte_size) }
    }

    #[inline]
    fn prepare<'d>(&self, request: &mut Request<'_, 'd>, arrived: Instant, streamed: bool) -> Result<Prepared<'d>> {
        let inputs = std::mem::take(&mut request.inputs);
        let (info, id) = (self.session.info(), request.id.take());
        if info.streams && !streamed {
            return Err(self.count(self.only_streams()));
        }
        let prepared = prepare((&info.signature, &self.ties), inputs, &request.outputs, id, arrived).map_err(|error| self.count(error))?;
        Ok(Prepared { parameters: std::mem::take(&mut request.parameters), ..prepared })
    }

    #[cold]
    fn count(&self, error: NnrpError) -> NnrpError {
        self.metrics.failure(error.reason());
        error
    }

    #[inline]
    fn response(&self, wanted: &[usize], outputs: Outputs, id: Option<Box<str>>) -> Response {
        let specs = &self.signature().outputs;
        let named = wanted.iter().zip(outputs).map(|(index, tensor)| Output { name: specs[*index].name.clone(), tensor });
        Response { model: self.name.clone(), version: self.version.clone(), id, outputs: named.collect() }
    }

    #[cold]
    fn wrong_count(&self, expected: usize, got: usize) -> NnrpError {
        let runtime = self.session.info().runtime;
        NnrpError::new(Reason::RunFailed, format!("runtime {runtime}: expected {expected} outputs, got {got}")).with("runtime", runtime)
    }

    /// Answers what waits until there has been nothing for a while.
    fn work(&self, clock: &Clock) {
        while let Some(Job { prepared, ticket, sink }) = self.schedule.next() {
            let answer = match (self.schedule.wait_turn(&ticket, clock), sink) {
                (Ok(_turn), None) => self.answer(prepared, &ticket, clock),
                (Ok(_turn), Some(sink)) => self.give(&prepared, &ticket, sink, clock),
                (Err(error), _) => Err(self.count(error)),
            };
            ticket.answer(answer);
        }
    }
}

/// An answer that is there or will be. Dropped before it is ready, it cancels the request.
#[must_use = "dropping it cancels the request"]
pub struct Answer(State);

#[allow(clippy::large_enum_variant, reason = "the quick path answers without an allocation")]
enum State {
    Ready(Option<Result<Response>>),
    Waiting { reply: oneshot::Receiver<Result<Response>>, stop: Arc<Stop>, _watching: Option<Watching> },
}

impl Answer {
    fn disarm(&mut self) {
        self.0 = State::Ready(None);
    }

    /// The answer, if it is there already.
    pub fn take_ready(&mut self) -> Option<Result<Response>> {
        match &mut self.0 {
            State::Ready(answer) => answer.take(),
            State::Waiting { .. } => None,
        }
    }

    /// Waits for it on this thread, and calls `look` several times a second; where that says so the request is cancelled.
    ///
    /// # Errors
    /// What the request ended with.
    pub fn wait(mut self, look: Look<'_>) -> Result<Response> {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        loop {
            if let Poll::Ready(answer) = Pin::new(&mut self).poll(&mut Context::from_waker(&waker)) {
                return answer;
            }
            std::thread::park_timeout(LOOK);
            if look() {
                return Err(stopped(Cause::Cancelled));
            }
        }
    }

    /// Raises the flag that ends the request; `None` when there is nothing to end any more.
    pub fn stop(&self) -> Option<Arc<Stop>> {
        match &self.0 {
            State::Ready(_) => None,
            State::Waiting { stop, .. } => Some(stop.clone()),
        }
    }
}

impl Future for Answer {
    type Output = Result<Response>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Ready(answer) => Poll::Ready(answer.take().unwrap_or_else(lost)),
            State::Waiting { reply, .. } => {
                let answer = std::task::ready!(Pin::new(reply).poll(context)).unwrap_or_else(|_| lost());
                // Answered: nothing is left to stop.
                self.disarm();
                Poll::Ready(answer)
            }
        }
    }
}

#[cold]
fn lost() -> Result<Response> {
    Err(NnrpError::new(Reason::Bug, "the answer was taken before or never given"))
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let State::Waiting { stop, .. } = &self.0 {
            stop.raise(Cause::Cancelled);
        }
    }
}
