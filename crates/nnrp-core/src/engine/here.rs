//! Runs, and those on the thread that read their request (spec §7.2): one that takes too long there is ended, and begins again in the queue.
use super::Engine;
use crate::clock::Clock;
use crate::error::{Result, panicked};
use crate::message::Response;
use crate::model::Loaded;
use crate::runtime::{Concurrency, Control, Outputs};
use crate::stop::{Cause, Stop};
use crate::ticket::{Ticket, stopped};
use crate::validate::Prepared;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// How a run went.
pub(super) struct Ran {
    result: std::thread::Result<Result<Outputs>>,
    started: Instant,
    took: Duration,
}

impl Engine {
    /// Answers a request whose turn it is on this very thread.
    ///
    /// # Errors
    /// The request itself, whose run took too long for this thread and was ended.
    #[allow(clippy::result_large_err, reason = "the quick path answers without an allocation")]
    pub(super) fn answer_here<'d>(
        &self,
        loaded: &Loaded,
        prepared: Prepared<'d>,
        ticket: Option<&Ticket>,
    ) -> std::result::Result<Result<Response>, Prepared<'d>> {
        let clock = &self.settings.clock;
        let control = ticket.map_or(Control::default(), Ticket::control);
        if !loaded.may_begin_again() {
            return Ok(loaded.answer(prepared, control, clock));
        }
        let started = if ticket.is_some() { clock.now() } else { prepared.arrived };
        let holding = self.watch.hold(started);
        let run = || loaded.run(&prepared, Control { stop: Some(&holding.stop), ..control }, started, clock);
        let ran = match control.stop {
            None => run(),
            Some(stop) => {
                let ends = holding.stop.clone();
                stop.during(move || ends.raise(Cause::Cancelled), run)
            }
        };
        let cause = control.stop.and_then(Stop::cause);
        if cause.is_none() && holding.stop.cause().is_some() && !matches!(ran.result, Ok(Ok(_))) {
            return Err(prepared);
        }
        Ok(loaded.conclude(prepared, ran, cause))
    }
}

impl Loaded {
    /// Whether a run can be ended and leaves nothing behind.
    #[inline]
    fn may_begin_again(&self) -> bool {
        let info = self.session.info();
        info.cancellable && info.concurrency == Concurrency::Shared
    }

    /// Runs a request whose turn it is.
    pub(super) fn run(&self, prepared: &Prepared<'_>, control: Control<'_>, started: Instant, clock: &Clock) -> Ran {
        let control = prepared.told(control);
        let result = catch_unwind(AssertUnwindSafe(|| self.session.run(&prepared.inputs, &prepared.outputs, control)));
        let took = clock.now().saturating_duration_since(started);
        // Failed runs count too: a session that fails slowly is not quick.
        self.schedule.observe(took, prepared.byte_size);
        Ran { result, started, took }
    }

    /// The answer to a request that was run, or that was stopped meanwhile for some cause.
    pub(super) fn conclude(&self, prepared: Prepared<'_>, ran: Ran, cause: Option<Cause>) -> Result<Response> {
        if let Some(cause) = cause {
            return Err(self.count(stopped(cause)));
        }
        let outputs = match ran.result {
            Ok(Ok(outputs)) if outputs.len() == prepared.outputs.len() => outputs,
            Ok(Ok(outputs)) => return Err(self.count(self.wrong_count(prepared.outputs.len(), outputs.len()))),
            Ok(Err(error)) => return Err(self.count(error)),
            Err(_panic) => return Err(self.count(panicked())),
        };
        self.metrics.success(ran.started.saturating_duration_since(prepared.arrived), ran.took);
        Ok(self.response(&prepared.outputs, outputs, prepared.id))
    }
}
