//! What the servers of all forms work with.
use crate::settings::ServerSettings;
use crate::unread::Unread;
use nnrp_core::{Answer, Engine, NnrpError, Reason, Response, Result};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Instant;
use tokio::sync::watch;

/// As both forms tell it: only extensions of the Open Inference Protocol that the server honours.
pub(crate) fn server_metadata() -> Value {
    json!({"name": "nnrp", "version": env!("CARGO_PKG_VERSION"), "extensions": EXTENSIONS})
}

/// Extensions that the server honours.
pub(crate) const EXTENSIONS: [&str; 1] = ["binary_tensor_data"];

/// What every connection needs.
pub(crate) struct Shared {
    /// Answers requests.
    pub(crate) engine: Arc<Engine>,
    /// Bounds.
    pub(crate) settings: ServerSettings,
    /// Large answers on their way.
    pub(crate) unread: Arc<Unread>,
    /// Whether the server stops.
    stopping: AtomicBool,
    /// Requests that were taken and are not answered.
    taken: AtomicUsize,
    /// Who waits for the last of them when the server stops.
    pub(crate) keeper: OnceLock<Thread>,
}

/// A request that was taken; ends with its answer.
pub(crate) struct Taken(Arc<Shared>);

impl Drop for Taken {
    fn drop(&mut self) {
        if self.0.taken.fetch_sub(1, Ordering::SeqCst) == 1
            && self.0.stopping()
            && let Some(keeper) = self.0.keeper.get()
        {
            keeper.unpark();
        }
    }
}

impl Shared {
    pub(crate) fn new(engine: Arc<Engine>, settings: ServerSettings) -> Self {
        let unread = Unread::new(settings.max_unread_bytes);
        Shared { engine, unread, settings, stopping: AtomicBool::new(false), taken: AtomicUsize::new(0), keeper: OnceLock::new() }
    }

    /// Takes a request.
    ///
    /// # Errors
    /// `DRAINING`: the server stops.
    pub(crate) fn take(self: &Arc<Self>) -> Result<Taken> {
        // Counted before it is looked: whoever stops the server sees this request, or this request sees that.
        self.taken.fetch_add(1, Ordering::SeqCst);
        let taken = Taken(self.clone());
        if self.stopping() { Err(draining()) } else { Ok(taken) }
    }

    /// Whether what was taken is answered.
    pub(crate) fn is_done(&self) -> bool {
        self.taken.load(Ordering::SeqCst) == 0
    }

    /// From now on it does.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// Whether the server stops.
    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Whether new requests are welcome: the server is not stopping, and its engine is not draining.
    pub(crate) fn ready(&self) -> bool {
        !self.stopping() && self.engine.ready()
    }
}

/// Why nothing new is taken.
#[cold]
pub(crate) fn draining() -> NnrpError {
    NnrpError::new(Reason::Draining, "the server is stopping and takes nothing new")
}

/// What the server tells all its connections.
#[derive(Clone, Copy, Default)]
pub(crate) struct Signal {
    /// No new requests; and when what is in flight must have ended, which may only come nearer.
    pub(crate) end: Option<Instant>,
    /// Nothing is in flight any more, or its time is over: no new connections, end when idle.
    pub(crate) closing: bool,
    /// How often connections were told to look whether anything was asked of them.
    pub(crate) looks: u64,
    /// How often connections were told to look whether an answer is stuck.
    pub(crate) doubts: u64,
}

/// Hears what the server tells.
pub(crate) type Signals = watch::Receiver<Signal>;

/// Waits until the server closes.
pub(crate) async fn closing(signals: &mut Signals) {
    let _ = signals.wait_for(|signal| signal.closing).await;
}

/// Waits until the server is as far as `told`, or until a connection or call is `quiet` when it looks.
pub(crate) async fn parting(signals: &mut Signals, told: fn(&Signal) -> bool, quiet: impl Fn() -> bool) {
    let mut looks = signals.borrow().looks;
    let _ = signals.wait_for(|signal| told(signal) || std::mem::replace(&mut looks, signal.looks) != signal.looks && quiet()).await;
}

/// Waits until an answer of a connection is `stuck` when it looks.
pub(crate) async fn doubted(signals: &mut Signals, stuck: impl Fn() -> bool) {
    let mut doubts = signals.borrow().doubts;
    let _ = signals.wait_for(|signal| std::mem::replace(&mut doubts, signal.doubts) != signal.doubts && stuck()).await;
}

/// Waits until what is in flight must have ended.
pub(crate) async fn over(signals: &mut Signals) {
    loop {
        let end = signals.borrow_and_update().end;
        tokio::select! {
            biased;
            () = async { match end { Some(end) => tokio::time::sleep_until(end.into()).await, None => std::future::pending().await } } => return,
            changed = signals.changed() => if changed.is_err() { return },
        }
    }
}

/// Waits for an answer, but no longer than the server lives.
///
/// # Errors
/// What the request ended with; `DRAINING` when the server ended first.
pub(crate) async fn awaited(answer: Answer, signals: &Signals) -> Result<Response> {
    let mut signals = signals.clone();
    tokio::select! {
        biased;
        answer = answer => answer,
        () = over(&mut signals) => Err(NnrpError::new(Reason::Draining, "the server stops, and the request was not answered within its grace")),
    }
}
