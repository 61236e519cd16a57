//! Connections that are made when they are needed, driven by whoever waits for an answer, and kept for the next.
use super::Endpoint;
use nnrp_core::{NnrpError, Result};
use parking_lot::Mutex;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use tokio::net::TcpStream;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What one form does with a connection.
pub(super) trait Form: Sync {
    type Call: Sync;
    type Link: Send;
    type Answer: Send;

    /// Begins to speak on a new connection.
    fn greet(&self, stream: TcpStream) -> impl Future<Output = Result<Self::Link>> + Send;

    /// Sends a call and awaits the head of its answer; a connection that failed is gone.
    fn send(&self, link: Box<Self::Link>, call: &Self::Call) -> impl Future<Output = std::result::Result<(Box<Self::Link>, Self::Answer), Lost>> + Send;
}

/// Why a call has no answer.
pub(super) struct Lost {
    pub(super) error: NnrpError,
    /// It was not sent, or the server closed the connection before any byte of an answer.
    pub(super) unheard: bool,
}

impl From<NnrpError> for Lost {
    fn from(error: NnrpError) -> Self {
        Lost { error, unheard: false }
    }
}

/// The connections that nobody uses now, the last used last.
pub(super) struct Links<L> {
    #[allow(clippy::vec_box, reason = "links move in and out of futures all the time")]
    kept: Mutex<Vec<Box<L>>>,
}

impl<L> Links<L> {
    pub(super) fn new() -> Self {
        Links { kept: Mutex::new(Vec::new()) }
    }

    pub(super) fn keep(&self, link: Box<L>) {
        self.kept.lock().push(link);
    }

    /// Sends a call on a kept connection, or on a new one when there is none.
    ///
    /// A server closes what is idle, and a call may cross with that. So what a kept connection lost before any byte of an answer is sent again, once, on a
    /// new one: inference changes nothing in the server (spec §7.9). What a new connection loses stays lost.
    pub(super) async fn send<F: Form<Link = L>>(&self, form: &F, endpoint: &Endpoint, call: &F::Call) -> Result<(Box<L>, F::Answer)> {
        let kept = self.kept.lock().pop();
        if let Some(link) = kept {
            match form.send(link, call).await {
                Err(lost) if lost.unheard => {}
                ended => return ended.map_err(|lost| lost.error),
            }
            // The others have been idle for longer.
            self.kept.lock().clear();
        }
        // Boxed: it is rare, and would make each call's future as large as itself.
        let link = Box::pin(connect(form, endpoint)).await?;
        form.send(Box::new(link), call).await.map_err(|lost| lost.error)
    }
}

async fn connect<F: Form>(form: &F, endpoint: &Endpoint) -> Result<F::Link> {
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((endpoint.host.as_str(), endpoint.port)))
        .await
        .map_err(|_| endpoint.failed(format_args!("no connection within {} s", CONNECT_TIMEOUT.as_secs())))?
        .map_err(|error| match error.raw_os_error() {
            None => endpoint.failed("no connection: no address is known for the host"),
            Some(_) => endpoint.failed(format_args!("no connection: {}", error.kind())),
        })?;
    let _ = stream.set_nodelay(true);
    form.greet(stream).await
}

/// One connection. Dropped, it closes; while nobody waits for an answer, nothing is read.
pub(super) struct Link<S, C> {
    pub(super) sender: S,
    /// `None` once it is over and let go of what waited to be sent.
    pub(super) connection: Option<C>,
    ended: bool,
    relay: Arc<Relay>,
}

impl<S, C: Future + Unpin> Link<S, C> {
    pub(super) fn new((sender, connection): (S, C)) -> Self {
        Link { sender, connection: Some(connection), ended: false, relay: Arc::default() }
    }

    /// Awaits what the connection brings, driving it meanwhile.
    pub(super) async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let waker = Waker::from(self.relay.clone());
        poll_fn(|cx| {
            self.relay.attach(cx.waker());
            let mut inner = Context::from_waker(&waker);
            loop {
                self.relay.begin();
                if let Some(connection) = self.connection.as_mut().filter(|_| !self.ended) {
                    self.ended = Pin::new(connection).poll(&mut inner).is_ready();
                }
                if let Poll::Ready(result) = work.as_mut().poll(&mut inner) {
                    return Poll::Ready(result);
                }
                // What was given to a connection that was over already is told so when that goes.
                let released = self.ended && self.connection.take().is_some();
                if !released && self.relay.park() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Whether the connection is over.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }
}

/// Keeps to itself what the two sides of a connection wake each other for, since both are polled anyway.
#[derive(Default)]
struct Relay {
    state: AtomicU8,
    outer: Mutex<Option<Waker>>,
}

const PARKED: u8 = 0;
const POLLING: u8 = 1;
const WOKEN: u8 = 2;

impl Relay {
    fn attach(&self, outer: &Waker) {
        let mut known = self.outer.lock();
        if !known.as_ref().is_some_and(|known| known.will_wake(outer)) {
            *known = Some(outer.clone());
        }
    }

    fn begin(&self) {
        self.state.store(POLLING, Ordering::Release);
    }

    /// Whether nothing has happened since [`Relay::begin`]; from then on a wake goes on to whoever polls.
    fn park(&self) -> bool {
        self.state.compare_exchange(POLLING, PARKED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(WOKEN, Ordering::AcqRel) == PARKED
            && let Some(outer) = &*self.outer.lock()
        {
            outer.wake_by_ref();
        }
    }
}
