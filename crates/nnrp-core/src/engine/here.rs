//! Runs, and those on the thread that read their request (spec §7.2): one that takes too long there is ended, and begins again in the queue.
use super::Engine;
use crate::clock::Clock;
use crate::error::{NnrpError, Reason, Result, panicked};
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
    /// The request itself, whose run took too long for this thread and was ended, or never began.
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
            return loaded.answer_now(prepared, control, clock);
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
        let ended = holding.stop.cause().is_some() && !matches!(ran.result, Ok(Ok(_)));
        if cause.is_none() && (ended || ran.never_began()) {
            return Err(prepared);
        }
        Ok(loaded.conclude(prepared, ran, cause))
    }
}

impl Ran {
    /// Whether what runs it was away (spec §8.17).
    #[inline]
    fn never_began(&self) -> bool {
        matches!(&self.result, Ok(Err(error)) if never_began(error))
    }
}

/// Whether a run that ended so never began.
#[cold]
pub(super) fn never_began(error: &NnrpError) -> bool {
    error.is(Reason::RuntimeCrashed) && error.details().get("held") == Some(&false.into())
}

impl Loaded {
    /// Answers a request whose turn it is, without waiting for anything but its run.
    ///
    /// # Errors
    /// The request itself, whose run never began.
    #[allow(clippy::result_large_err, reason = "the quick path answers without an allocation")]
    pub(super) fn answer_now<'d>(&self, prepared: Prepared<'d>, control: Control<'_>, clock: &Clock) -> std::result::Result<Result<Response>, Prepared<'d>> {
        // A request that did not wait needs no second look at the clock.
        let started = if control.stop.is_some() { clock.now() } else { prepared.arrived };
        let ran = self.run(&prepared, control, started, clock);
        let cause = control.stop.and_then(Stop::cause);
        if cause.is_none() && ran.never_began() { Err(prepared) } else { Ok(self.conclude(prepared, ran, cause)) }
    }

    /// Answers a request whose turn it is, on a thread that may wait until what runs it is back.
    pub(super) fn answer(&self, prepared: Prepared<'_>, ticket: &Ticket, clock: &Clock) -> Result<Response> {
        loop {
            let ran = self.run(&prepared, ticket.control(), clock.now(), clock);
            if ran.never_began() && self.is_back(ticket)? {
                continue;
            }
            return self.conclude(prepared, ran, ticket.stop.cause());
        }
    }

    /// Waits on this thread until what runs the session is back after a run that never began; false where that run's error stands.
    ///
    /// # Errors
    /// Why it is not back soon.
    #[cold]
    pub(super) fn is_back(&self, ticket: &Ticket) -> Result<bool> {
        let back = self.session.back(&ticket.stop);
        if ticket.stop.cause().is_some() { Ok(false) } else { back.map_err(|error| self.count(error)) }
    }

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
