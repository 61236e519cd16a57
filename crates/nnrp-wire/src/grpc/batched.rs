//! Few and large reads and writes while there is much to move (737 → 546 µs for 602 kB, two cores): HTTP/2 peers send frames of 16 kB, of which
//! h2 reads half at a time and writes one.
use crate::io::{Socket, poll_write_all};
use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// Bytes of one large read, and of what waits to be written at once.
const BATCH: usize = 64 << 10;

/// A read that fills as many bytes has more behind it.
const FULL: usize = 4 << 10;

/// A write of fewer bytes goes out as it is.
const SMALL: usize = 8 << 10;

/// A socket that holds back what is written until [`drive`] sends it, and what came until those who wait for the last of it have run: buffers that are
/// used again while the cache has them make the difference (491 → 418 µs).
pub(super) struct Batched<S>(Arc<Mutex<Inner<S>>>);

struct Inner<S> {
    socket: S,
    unread: BytesMut,
    /// The last read filled what it was given, so there is more to come.
    wide: bool,
    unwritten: BytesMut,
    /// A large read was handed out in this step of [`drive`]; its readers come first.
    fed: bool,
}

impl<S> Clone for Batched<S> {
    fn clone(&self) -> Self {
        Batched(self.0.clone())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Batched<S> {
    pub(super) fn new(socket: S) -> Self {
        Batched(Arc::new(Mutex::new(Inner { socket, unread: BytesMut::new(), wide: false, unwritten: BytesMut::new(), fed: false })))
    }
}

impl Batched<Socket> {
    /// Whether the peer keeps us from writing.
    pub(super) fn is_blocked(&self) -> bool {
        self.0.lock().socket.is_blocked()
    }
}

/// Drives a connection over the socket to its end, sending after each step what that wrote.
pub(super) async fn drive<S, C, T>(socket: &Batched<S>, mut connection: Pin<&mut C>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    C: Future<Output = T>,
{
    poll_fn(|cx| {
        socket.0.lock().fed = false;
        let step = connection.as_mut().poll(cx);
        match socket.0.lock().poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => step.map(|_| Ok(())),
        }
    })
    .await
}

impl<S: AsyncRead + AsyncWrite + Unpin> Inner<S> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            if !self.wide {
                let room = buf.remaining();
                ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
                self.wide = room >= FULL && buf.remaining() == 0;
                return Poll::Ready(Ok(()));
            }
            if self.fed {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.fed = true;
            self.unread.reserve(BATCH);
            let count = ready!(pin!(self.socket.read_buf(&mut self.unread)).poll(cx))?;
            self.wide = count >= FULL;
        }
        let count = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread[..count]);
        self.unread.advance(count);
        if self.unread.is_empty() && !self.wide {
            self.unread = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let size = bufs.iter().map(|buf| buf.len()).sum();
        if size < SMALL && self.unwritten.is_empty() {
            return Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        }
        if self.unwritten.len() >= BATCH {
            ready!(self.poll_send(cx))?;
        }
        bufs.iter().for_each(|buf| self.unwritten.extend_from_slice(buf));
        Poll::Ready(Ok(size))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(poll_write_all(&mut self.socket, cx, &mut self.unwritten))?;
        if self.unwritten.capacity() > 0 {
            self.unwritten = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Batched<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.lock().poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Batched<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        ready!(inner.poll_send(cx))?;
        Pin::new(&mut inner.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|index| (index % 251) as u8).collect()
    }

    #[tokio::test]
    async fn what_is_written_in_frames_arrives_whole_and_in_order_through_a_narrow_socket() {
        for (frame, room) in [(100, 64), (16_393, 1_000), (16_393, 1 << 20), (300_000, 4_096)] {
            let (near, mut far) = tokio::io::duplex(room);
            let socket = Batched::new(near);
            let mut writer = socket.clone();
            let sending = async move {
                for piece in bytes(700_000).chunks(frame) {
                    writer.write_all(piece).await.unwrap();
                }
                writer.shutdown().await.unwrap();
            };
            let mut arrived = Vec::new();
            let mut sending = pin!(sending);
            let (sent, received) = tokio::join!(drive(&socket, sending.as_mut()), far.read_to_end(&mut arrived));
            assert!(sent.is_ok() && received.is_ok());
            assert!(arrived == bytes(700_000), "{frame} {room}");
        }
    }

    #[tokio::test]
    async fn what_arrives_is_read_whole_and_in_order_however_little_is_asked_for() {
        for (asked, room) in [(10, 64), (8_192, 1 << 20), (16_393, 1_000), (100_000, 1 << 20)] {
            let (near, mut far) = tokio::io::duplex(room);
            let socket = Batched::new(near);
            let mut reader = socket.clone();
            let sending = async move {
                far.write_all(&bytes(700_000)).await.unwrap();
                far.shutdown().await.unwrap();
            };
            let (arrived, had) = tokio::sync::oneshot::channel();
            let mut reading = pin!(async move {
                let (mut all, mut piece) = (Vec::new(), vec![0; asked]);
                while let count @ 1.. = reader.read(&mut piece).await.unwrap() {
                    all.extend_from_slice(&piece[..count]);
                }
                arrived.send(all).unwrap();
            });
            let ((), read) = tokio::join!(sending, drive(&socket, reading.as_mut()));
            assert!(read.is_ok());
            let arrived = had.await.unwrap();
            assert!(arrived == bytes(700_000), "{asked} {room}");
        }
    }

    #[tokio::test]
    async fn what_is_small_goes_out_at_once_and_keeps_no_buffer() {
        let (near, mut far) = tokio::io::duplex(1_000);
        let mut socket = Batched::new(near);
        socket.write_all(b"small").await.unwrap();
        let mut arrived = [0; 5];
        far.read_exact(&mut arrived).await.unwrap();
        assert_eq!((&arrived, socket.0.lock().unwritten.capacity()), (b"small", 0));
    }
}
