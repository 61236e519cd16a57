//! How a transport is driven: by the caller's own thread, or by one background thread.
use super::{Endpoint, Question, Transport};
use nnrp_core::stop::{LOOK, Look};
use nnrp_core::{Answers, Cause, Code, NnrpError, Reason, Request, Response, Result};
use parking_lot::Mutex;
use serde_json::Value;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

/// Connections kept for the next blocking calls.
const LANES: usize = 64;

/// How long a question about metadata or health may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection with the runtime that drives it, used by one thread at a time: a hop to another thread would cost more than the request.
struct Lane<T> {
    transport: T,
    runtime: Runtime,
}

struct Background<T> {
    transport: Arc<T>,
    handle: Handle,
    _stop: oneshot::Sender<()>,
}

/// A transport's blocking and asynchronous face.
pub(super) struct Caller<T> {
    endpoint: Endpoint,
    lanes: Mutex<Vec<Lane<T>>>,
    background: Mutex<Option<Background<T>>>,
}

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| NnrpError::new(Reason::ConnectionFailed, format!("no room for one more connection: {}", error.kind())))
}

impl<T: Transport> Caller<T> {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Caller { endpoint, lanes: Mutex::new(Vec::new()), background: Mutex::new(None) }
    }

    pub(super) fn infer(&self, request: &Request<'_, 'static>) -> Result<Response> {
        let call = T::prepare(request)?;
        let Some(stop) = &request.stop else {
            return self.block(async |transport| self.until(request.deadline, transport.infer(call)).await);
        };
        let raised = Arc::new(Notify::new());
        let raise = raised.clone();
        stop.during(
            move || raise.notify_one(),
            || {
                self.block(async |transport| {
                    let answer = pin!(self.until(request.deadline, transport.infer(call)));
                    tokio::select! {
                        biased;
                        answer = answer => answer,
                        () = raised.notified() => Err(match stop.cause() {
                            Some(Cause::Deadline) => self.late(),
                            _ => withdrawn(),
                        }),
                    }
                })
            },
        )
    }

    pub(super) fn infer_looking(&self, request: &Request<'_, 'static>, look: Look<'_>) -> Result<Response> {
        let call = T::prepare(request)?;
        self.block(async |transport| looking(look, self.until(request.deadline, transport.infer(call))).await)
    }

    pub(super) fn infer_async(&self, request: &Request<'_, 'static>) -> Pending {
        let started = T::prepare(request).and_then(|call| {
            let (endpoint, deadline) = (self.endpoint.clone(), request.deadline);
            self.with_background(|background| {
                let transport = background.transport.clone();
                background.handle.spawn(async move { until(&endpoint, deadline, transport.infer(call)).await })
            })
        });
        Pending(match started {
            Ok(task) => Progress::Task(task),
            Err(error) => Progress::Failed(error),
        })
    }

    pub(super) fn stream(&self, request: &Request<'_, 'static>) -> Result<Answers> {
        let call = T::prepare_stream(request)?;
        let (endpoint, deadline, stop) = (self.endpoint.clone(), request.deadline, request.stop.clone().unwrap_or_default());
        let (sink, end, answers) = Answers::channel(stop.clone());
        let raised = Arc::new(Notify::new());
        let raise = raised.clone();
        stop.hear(move || raise.notify_one());
        self.with_background(|background| {
            let (transport, reader) = (background.transport.clone(), sink.clone());
            background.handle.spawn(async move {
                let ended = tokio::select! {
                    biased;
                    () = reader.closed() => return,
                    () = raised.notified() => Err(NnrpError::new(Reason::ClientCancelled, "the request was cancelled while its answers were awaited")),
                    ended = until(&endpoint, deadline, transport.stream(call, sink)) => ended,
                };
                let _left = end.send(ended);
            });
        })?;
        Ok(answers)
    }

    pub(super) fn ask(&self, question: Question, look: Look<'_>) -> Result<Value> {
        let until = Instant::now() + QUESTION_TIMEOUT;
        self.block(async |transport| looking(look, self.until(Some(until), transport.ask(question))).await)
    }

    fn block<R>(&self, work: impl AsyncFnOnce(&T) -> Result<R>) -> Result<R> {
        let kept = self.lanes.lock().pop();
        let lane = match kept {
            Some(lane) => lane,
            None => Lane { transport: T::open(&self.endpoint), runtime: runtime()? },
        };
        let result = lane.runtime.block_on(pin!(work(&lane.transport)));
        // A lane is driven only while it is used: what was cut short there ends, for the server too, only with the lane.
        let whole = result.as_ref().err().is_none_or(|error: &NnrpError| !matches!(error.code(), Code::Cancelled | Code::DeadlineExceeded | Code::Unavailable));
        let mut lanes = self.lanes.lock();
        if whole && lanes.len() < LANES {
            lanes.push(lane);
            return result;
        }
        drop(lanes);
        let Lane { transport, runtime } = lane;
        drop(transport);
        // Whoever looks a name up for it is not waited for.
        runtime.shutdown_background();
        result
    }

    fn with_background<R>(&self, work: impl FnOnce(&Background<T>) -> R) -> Result<R> {
        let mut slot = self.background.lock();
        if slot.is_none() {
            *slot = Some(self.start()?);
        }
        slot.as_ref().map(work).ok_or_else(|| NnrpError::new(Reason::Bug, "the client's background thread is not there"))
    }

    fn start(&self) -> Result<Background<T>> {
        let runtime = runtime()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name("nnrp-client".to_owned())
            .spawn(move || {
                let _ = runtime.block_on(stopped);
            })
            .map_err(|error| NnrpError::new(Reason::ConnectionFailed, format!("no room for the client's background thread: {}", error.kind())))?;
        Ok(Background { transport: Arc::new(T::open(&self.endpoint)), handle, _stop: stop })
    }

    fn until<R>(&self, deadline: Option<Instant>, work: impl Future<Output = Result<R>>) -> impl Future<Output = Result<R>> {
        until(&self.endpoint, deadline, work)
    }

    fn late(&self) -> NnrpError {
        late(&self.endpoint)
    }
}

#[cold]
fn withdrawn() -> NnrpError {
    NnrpError::new(Reason::ClientCancelled, "the request was cancelled while its answer was awaited")
}

async fn looking<R>(look: Look<'_>, work: impl Future<Output = Result<R>>) -> Result<R> {
    let mut work = pin!(work);
    loop {
        match tokio::time::timeout(LOOK, work.as_mut()).await {
            Ok(result) => return result,
            Err(_) if look() => return Err(withdrawn()),
            Err(_) => {}
        }
    }
}

#[cold]
fn late(endpoint: &Endpoint) -> NnrpError {
    NnrpError::new(Reason::Deadline, format!("{endpoint}: no answer before the request's deadline"))
}

async fn until<R>(endpoint: &Endpoint, deadline: Option<Instant>, work: impl Future<Output = Result<R>>) -> Result<R> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline.into(), work).await.unwrap_or_else(|_| Err(late(endpoint))),
        None => work.await,
    }
}

/// An answer that is on its way; dropping it cancels the request. It comes once: awaited again it is an error.
pub struct Pending(Progress);

enum Progress {
    Task(JoinHandle<Result<Response>>),
    /// What awaiting it gives from now on.
    Failed(NnrpError),
}

impl Future for Pending {
    type Output = Result<Response>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let task = match &mut self.0 {
            Progress::Task(task) => task,
            Progress::Failed(error) => return Poll::Ready(Err(error.clone())),
        };
        let ended = ready!(Pin::new(task).poll(cx));
        self.0 = Progress::Failed(NnrpError::new(Reason::ClientCancelled, "the answer has come already, and comes once"));
        Poll::Ready(ended.unwrap_or_else(|error| {
            Err(if error.is_panic() {
                NnrpError::new(Reason::Bug, "the client's background task ended early")
            } else {
                NnrpError::new(Reason::ClientCancelled, "the client was closed before the answer came")
            })
        }))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Progress::Task(task) = &self.0 {
            task.abort();
        }
    }
}
