//! A connection that is driven by whoever waits for its answer.
use crate::io::Plain;
use crate::rest::reply::Pieces;
use hyper::client::conn::http1::{Connection, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// One connection, of HTTP/1.1 unless said otherwise. Dropped, it closes; while nobody waits for an answer, nothing is read.
pub(super) struct Link<S = SendRequest<Pieces>, C = Connection<TokioIo<Plain>, Pieces>> {
    pub(super) sender: S,
    connection: C,
    ended: bool,
    relay: Arc<Relay>,
}

impl<S, C: Future + Unpin> Link<S, C> {
    pub(super) fn new((sender, connection): (S, C)) -> Self {
        Link { sender, connection, ended: false, relay: Arc::default() }
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
                if !self.ended {
                    self.ended = Pin::new(&mut self.connection).poll(&mut inner).is_ready();
                }
                if let Poll::Ready(result) = work.as_mut().poll(&mut inner) {
                    return Poll::Ready(result);
                }
                if self.relay.park() {
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

impl Link {
    /// Whether it can take one more request.
    pub(super) fn is_open(&self) -> bool {
        !self.ended && self.sender.is_ready()
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
