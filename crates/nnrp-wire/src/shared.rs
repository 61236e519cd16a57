//! What the servers of all forms work with.
use crate::settings::ServerSettings;
use crate::unread::Unread;
use nnrp_core::{Answer, Engine, NnrpError, Reason, Response, Result};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
}

impl Shared {
    pub(crate) fn new(engine: Arc<Engine>, settings: ServerSettings) -> Self {
        Shared { engine, unread: Unread::new(settings.max_unread_bytes), settings, stopping: AtomicBool::new(false) }
    }

    /// From now on it does.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the server stops.
    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Whether new requests are welcome: the server is not stopping, and its engine is not draining.
    pub(crate) fn ready(&self) -> bool {
        !self.stopping() && self.engine.ready()
    }
}

/// What the server tells all its connections.
#[derive(Clone, Copy, Default)]
pub(crate) struct Signal {
    /// No new requests, end when idle; and when what is in flight must have ended, which may only come nearer.
    pub(crate) end: Option<Instant>,
    /// How often connections were told to look whether anything was asked of them.
    pub(crate) looks: u64,
    /// How often connections were told to look whether an answer is stuck.
    pub(crate) doubts: u64,
}

/// Hears what the server tells.
pub(crate) type Signals = watch::Receiver<Signal>;

/// Waits until the server stops.
pub(crate) async fn stopped(signals: &mut Signals) {
    let _ = signals.wait_for(|signal| signal.end.is_some()).await;
}

/// Waits until the server stops, or until a connection is `quiet` when it looks.
pub(crate) async fn parting(signals: &mut Signals, quiet: impl Fn() -> bool) {
    let mut looks = signals.borrow().looks;
    let _ = signals.wait_for(|signal| signal.end.is_some() || std::mem::replace(&mut looks, signal.looks) != signal.looks && quiet()).await;
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
