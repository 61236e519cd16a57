//! A request on its way: what it shares with those who may stop or answer it.
use crate::clock::Clock;
use crate::error::{NnrpError, Reason, Result};
use crate::message::Response;
use crate::runtime::Control;
use crate::stop::{Cause, Stop};
use crate::validate::Prepared;
use parking_lot::Mutex;
use std::sync::Arc;
use std::task::Wake;
use std::thread::Thread;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

/// A request that waits.
pub(crate) struct Job {
    pub(crate) prepared: Prepared<'static>,
    pub(crate) ticket: Arc<Ticket>,
    /// Where its answers go one by one; what the ticket is answered with ends them.
    pub(crate) sink: Option<mpsc::Sender<Response>>,
}

/// What a request that can be stopped shares with those who may stop or answer it. The first answer counts.
pub(crate) struct Ticket {
    pub(crate) stop: Arc<Stop>,
    pub(crate) deadline: Option<Instant>,
    reply: Mutex<Option<oneshot::Sender<Result<Response>>>>,
}

impl Ticket {
    /// For a request that runs on the thread that waits for it.
    pub(crate) fn new(stop: Arc<Stop>, deadline: Option<Instant>) -> Arc<Ticket> {
        Arc::new(Ticket { stop, deadline, reply: Mutex::new(None) })
    }

    /// For a request that another thread answers.
    pub(crate) fn with_reply(stop: Arc<Stop>, deadline: Option<Instant>) -> (Arc<Ticket>, oneshot::Receiver<Result<Response>>) {
        let (sender, receiver) = oneshot::channel();
        (Arc::new(Ticket { stop, deadline, reply: Mutex::new(Some(sender)) }), receiver)
    }

    /// What goes along with its run.
    pub(crate) fn control(&self) -> Control<'_> {
        Control { stop: Some(&self.stop), deadline: self.deadline, ..Control::default() }
    }

    /// Answers; does nothing when an answer was given before.
    pub(crate) fn answer(&self, answer: Result<Response>) {
        if let Some(sender) = self.reply.lock().take() {
            // The waiter may be gone: then nobody is owed an answer.
            let _ = sender.send(answer);
        }
    }

    /// The error of a request that was stopped or is late, if it was or is.
    pub(crate) fn ended(&self, clock: &Clock) -> Option<NnrpError> {
        if self.deadline.is_some_and(|deadline| clock.has_passed(deadline)) {
            self.stop.raise(Cause::Deadline);
        }
        self.stop.cause().map(stopped)
    }
}

/// Wakes a thread that waits for something.
pub(crate) struct Unpark(pub(crate) Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
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
