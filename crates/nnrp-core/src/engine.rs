//! The engine: takes a request down the corridor and answers it (spec §7).
use crate::clock::Clock;
use crate::error::{NnrpError, Reason, Result};
use crate::message::{Output, Request, Response};
use crate::metrics::Metrics;
use crate::model::{Loaded, ModelSpec, Name};
use crate::route::{Registry, model_exists};
use crate::runtime::{Concurrency, Control, Runtimes};
use crate::schedule::{Job, Limits, Schedule, Submitted, Ticket, Watch, Watching, stopped};
use crate::stop::{Cause, Stop};
use crate::validate::{Prepared, prepare};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::sync::oneshot;

/// How an engine behaves.
#[derive(Clone, Default)]
pub struct Settings {
    /// How each model's requests wait.
    pub limits: Limits,
    /// The clock that deadlines are compared with before a run.
    pub clock: Clock,
}

/// Models, their runtimes, and the one way a request takes through them.
pub struct Engine {
    settings: Settings,
    runtimes: Runtimes,
    registry: Registry,
    watch: Watch,
    draining: AtomicBool,
}

impl Engine {
    /// An engine without models.
    pub fn new(settings: Settings, runtimes: Runtimes) -> Self {
        Engine { settings, runtimes, registry: Registry::default(), watch: Watch::default(), draining: AtomicBool::new(false) }
    }

    /// The runtimes it can load with.
    pub fn runtimes(&self) -> &Runtimes {
        &self.runtimes
    }

    /// Loads a model version and serves it from then on.
    ///
    /// # Errors
    /// `INVALID_OPTION` for a bad name, `MODEL_EXISTS`, `RUNTIME_NOT_INSTALLED`, and what the runtime says.
    pub fn load(&self, spec: ModelSpec) -> Result<Arc<Loaded>> {
        spec.check()?;
        if self.registry.versions(&spec.name).iter().any(|version| **version == *spec.version) {
            return Err(model_exists(&spec.name, &spec.version));
        }
        let runtime = self.runtimes.get(&spec.runtime).ok_or_else(|| self.no_runtime(&spec.runtime))?;
        let session = runtime.load(&spec)?;
        let exclusive = session.info().concurrency == Concurrency::Exclusive;
        let loaded = Arc::new(Loaded {
            name: spec.name.into(),
            version: spec.version.into(),
            session,
            schedule: Schedule::new(self.settings.limits, exclusive),
            metrics: Metrics::default(),
        });
        self.registry.add(loaded.clone())?;
        Ok(loaded)
    }

    #[cold]
    fn no_runtime(&self, name: &str) -> NnrpError {
        let known: Vec<&str> = self.runtimes.iter().map(|runtime| runtime.name()).collect();
        let got = crate::error::excerpt(name);
        NnrpError::new(Reason::RuntimeNotInstalled, format!("runtime '{got}' is not installed: expected one of {known:?}")).with("runtime", got)
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

    /// Answers a request on the caller's own thread, which may wait for its turn and for the run.
    ///
    /// # Errors
    /// Every error of the specification; see spec §5.
    pub fn infer(&self, mut request: Request<'_, '_>) -> Result<Response> {
        let loaded = self.admit(&request)?;
        let prepared = loaded.admit(&mut request, self.settings.clock.now())?;
        if request.deadline.is_none()
            && request.stop.is_none()
            && let Some(_turn) = loaded.schedule.try_inline(prepared.byte_size)
        {
            return loaded.answer(prepared, Control::default(), &self.settings.clock);
        }
        self.infer_slowly(&loaded, prepared, request.stop.unwrap_or_default(), request.deadline)
    }

    /// Answers a request without ever waiting on the caller's thread: a quick and idle session runs right here, any other queues.
    ///
    /// Dropping the answer before it is ready cancels the request.
    pub fn infer_async(&self, request: Request<'_, 'static>) -> Answer {
        self.start(request).unwrap_or_else(|error| Answer(State::Ready(Some(Err(error)))))
    }

    fn admit(&self, request: &Request<'_, '_>) -> Result<Arc<Loaded>> {
        if self.draining.load(Relaxed) {
            return Err(NnrpError::new(Reason::Draining, "the server is stopping and takes nothing new"));
        }
        self.registry.pick(&request.model, &request.version)
    }

    fn start(&self, mut request: Request<'_, 'static>) -> Result<Answer> {
        let loaded = self.admit(&request)?;
        let prepared = loaded.admit(&mut request, self.settings.clock.now())?;
        if request.deadline.is_some_and(|deadline| deadline <= prepared.arrived) {
            return Err(loaded.count(stopped(Cause::Deadline)));
        }
        if let Some(_turn) = loaded.schedule.try_inline(prepared.byte_size) {
            let answer = loaded.answer(prepared, Control::default(), &self.settings.clock);
            return Ok(Answer(State::Ready(Some(answer))));
        }
        let (ticket, reply) = Ticket::new(request.stop.unwrap_or_default(), request.deadline);
        let watching = self.watch.add(&ticket);
        let stop = ticket.stop.clone();
        self.enqueue(loaded, Job { prepared, ticket })?;
        Ok(Answer(State::Waiting { reply, stop, _watching: watching }))
    }

    fn enqueue(&self, loaded: Arc<Loaded>, job: Job) -> Result<()> {
        if loaded.schedule.submit(job).map_err(|error| loaded.count(error))? == Submitted::Taken {
            return Ok(());
        }
        let (worker, clock) = (loaded.clone(), self.settings.clock.clone());
        let name = format!("nnrp:{}", loaded.name);
        if std::thread::Builder::new().name(name).spawn(move || worker.work(&clock)).is_err() {
            for job in loaded.schedule.worker_failed() {
                let error = NnrpError::new(Reason::QueueFull, "no thread could be started for the model's queue");
                job.ticket.answer(Err(loaded.count(error)));
            }
        }
        Ok(())
    }

    #[cold]
    fn infer_slowly(&self, loaded: &Loaded, prepared: Prepared<'_>, stop: Arc<Stop>, deadline: Option<Instant>) -> Result<Response> {
        let (ticket, _reply) = Ticket::new(stop, deadline);
        let _watching = self.watch.add(&ticket);
        let turn = loaded.schedule.wait_turn(|| ticket.ended(self.settings.clock.now()));
        let _turn = turn.map_err(|error| loaded.count(error))?;
        loaded.answer(prepared, Control { stop: Some(&ticket.stop) }, &self.settings.clock)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.registry.all().iter().for_each(|loaded| loaded.schedule.close());
    }
}

impl Loaded {
    #[inline]
    fn admit<'d>(&self, request: &mut Request<'_, 'd>, arrived: Instant) -> Result<Prepared<'d>> {
        let inputs = std::mem::take(&mut request.inputs);
        let id = request.id.take();
        prepare(self.signature(), inputs, &request.outputs, id, arrived).map_err(|error| self.count(error))
    }

    #[cold]
    fn count(&self, error: NnrpError) -> NnrpError {
        self.metrics.failure(error.reason());
        error
    }

    /// Runs a request whose turn it is.
    fn answer(&self, prepared: Prepared<'_>, control: Control<'_>, clock: &Clock) -> Result<Response> {
        // A request that did not wait needs no second look at the clock.
        let started = if control.stop.is_some() { clock.now() } else { prepared.arrived };
        let result = catch_unwind(AssertUnwindSafe(|| self.session.run(&prepared.inputs, &prepared.outputs, control)));
        let run = clock.now().saturating_duration_since(started);
        // Failed runs count too: a session that fails slowly is not quick.
        self.schedule.observe(run, prepared.byte_size);
        if let Some(cause) = control.stop.and_then(Stop::cause) {
            return Err(self.count(stopped(cause)));
        }
        let outputs = match result {
            Ok(Ok(outputs)) if outputs.len() == prepared.outputs.len() => outputs,
            Ok(Ok(outputs)) => return Err(self.count(self.wrong_count(prepared.outputs.len(), outputs.len()))),
            Ok(Err(error)) => return Err(self.count(error)),
            Err(_panic) => return Err(self.count(NnrpError::new(Reason::Bug, "the runtime's adapter panicked"))),
        };
        self.metrics.success(started.saturating_duration_since(prepared.arrived), run);
        let specs = &self.signature().outputs;
        let named = prepared.outputs.iter().zip(outputs).map(|(index, tensor)| Output { name: specs[*index].name.clone(), tensor });
        Ok(Response { model: self.name.clone(), version: self.version.clone(), id: prepared.id, outputs: named.collect() })
    }

    #[cold]
    fn wrong_count(&self, expected: usize, got: usize) -> NnrpError {
        let runtime = self.session.info().runtime;
        NnrpError::new(Reason::RunFailed, format!("runtime {runtime}: expected {expected} outputs, got {got}")).with("runtime", runtime)
    }

    /// Answers what waits until there has been nothing for a while.
    fn work(&self, clock: &Clock) {
        while let Some(Job { prepared, ticket }) = self.schedule.next() {
            let answer = match self.schedule.wait_turn(|| ticket.ended(clock.now())) {
                Ok(_turn) => self.answer(prepared, Control { stop: Some(&ticket.stop) }, clock),
                Err(error) => Err(self.count(error)),
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
