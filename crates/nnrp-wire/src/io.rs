//! A server's socket that does not wait for ever: a head that never ends, an answer that nobody reads, a body that nobody wants.
use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// How long, and for how many bytes, a body that was refused is read on, so that the client reads the refusal and not a reset.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES: usize = 1 << 30;

/// What a connection is doing, told by its request handler.
#[derive(Default)]
pub(crate) struct Activity {
    phase: AtomicU8,
    refused: AtomicBool,
}

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;
const WAITING: u8 = 3;

impl Activity {
    /// A request's head has come.
    pub(crate) fn begin(&self) {
        self.phase.store(BUSY, Ordering::Relaxed);
    }

    /// It waits for its turn or its run: whether the client is still there is worth a look.
    pub(crate) fn wait(&self) {
        self.phase.store(WAITING, Ordering::Relaxed);
    }

    /// Its answer is made.
    pub(crate) fn end(&self) {
        self.phase.store(IDLE, Ordering::Relaxed);
    }

    /// Part of a request stays unread: read on for a while before closing.
    pub(crate) fn refuse(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }
}

/// A timer that costs nothing until something has to be waited for.
struct Patience {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Patience { limit, timer: None }
    }

    fn end(&mut self) {
        if self.timer.is_some() {
            self.timer = None;
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.get_or_insert_with(|| Box::pin(sleep(self.limit))).as_mut().poll(cx)
    }

    /// Turns a wait that is too long into an error.
    fn bound<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.end();
            return result;
        }
        self.poll(cx).map(|()| Err(ErrorKind::TimedOut.into()))
    }
}

/// The socket.
pub(crate) struct Socket {
    stream: TcpStream,
    activity: Arc<Activity>,
    head: Patience,
    answer: Patience,
    linger: Patience,
    left: usize,
    rewrite: fn(&[u8]) -> Option<Vec<u8>>,
}

impl Socket {
    /// Bounds how long a head may take once its first byte came, and how long an answer may stay unread. Idle costs nothing.
    pub(crate) fn new(stream: TcpStream, activity: Arc<Activity>, read: Duration, write: Duration) -> Self {
        let [head, answer, linger] = [read, write, LINGER].map(Patience::new);
        Socket { stream, activity, head, answer, linger, left: LINGER_BYTES, rewrite: |_| None }
    }

    /// Gives some answers, written in one piece, other bytes; what a library answers by itself is not in the house's shape.
    pub(crate) fn rewriting(self, rewrite: fn(&[u8]) -> Option<Vec<u8>>) -> Self {
        Socket { rewrite, ..self }
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 16 << 10];
        loop {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Pending => return self.linger.poll(cx),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(())) if buf.filled().is_empty() => return Poll::Ready(()),
                Poll::Ready(Ok(())) => match self.left.checked_sub(buf.filled().len()) {
                    Some(left) => self.left = left,
                    None => return Poll::Ready(()),
                },
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let result = Pin::new(&mut this.stream).poll_read(cx, buf);
        match result {
            Poll::Ready(_) => {
                this.head.end();
                if buf.filled().len() > before && this.activity.phase.load(Ordering::Relaxed) == IDLE {
                    this.activity.phase.store(HEAD, Ordering::Relaxed);
                }
                result
            }
            Poll::Pending if this.activity.phase.load(Ordering::Relaxed) == HEAD => this.head.bound(cx, result),
            Poll::Pending => result,
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let result = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.answer.bound(cx, result)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let [only] = bufs
            && let Some(other) = (this.rewrite)(only)
        {
            // Nothing waits before the last answer of a connection, so a few hundred bytes find room.
            let _ = this.stream.try_write(&other);
            return Poll::Ready(Ok(only.len()));
        }
        let result = write_vectored(&mut this.stream, cx, bufs);
        this.answer.bound(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.activity.phase.load(Ordering::Relaxed) != WAITING {
            return Poll::Ready(Ok(()));
        }
        // hyper does not read on while a request that came along with this one waits in its buffer.
        let mut byte = [0];
        match self.stream.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(ErrorKind::ConnectionReset.into())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        if this.activity.refused.load(Ordering::Relaxed) {
            ready!(this.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}

/// Small messages are written in one piece: one more copy costs less than what the system does with pieces (18.9 instead of 19.5 µs a request).
fn write_vectored(stream: &mut TcpStream, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
    let size: usize = bufs.iter().map(|buf| buf.len()).sum();
    let mut whole = [0; 2 << 10];
    let Some(whole) = whole.get_mut(..size).filter(|_| bufs.len() > 1) else {
        return Pin::new(stream).poll_write_vectored(cx, bufs);
    };
    let mut rest = &mut *whole;
    for buf in bufs {
        let (place, tail) = rest.split_at_mut(buf.len());
        place.copy_from_slice(buf);
        rest = tail;
    }
    Pin::new(stream).poll_write(cx, whole)
}

/// A client's socket.
pub(crate) struct Plain(pub(crate) TcpStream);

impl AsyncRead for Plain {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Plain {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        write_vectored(&mut self.0, cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
