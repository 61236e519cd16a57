//! A client while its answer is made: is it still there? (spec §7.4)
//!
//! One that closes and one that only says that it has asked all it will look alike: both end what they send. They differ once something is written, for
//! then the system of one that closed answers with a reset. So one that ends what it sends is given `100 Continue`, which every client of HTTP/1.1 passes
//! over (RFC 9110 §15.2).
use bytes::{Buf, BytesMut};
use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
/// How long a reset is waited for first; each wait is twice the last.
const FIRST: Duration = Duration::from_millis(10);
/// From then on it is asked again each time: it may leave later.
const AGAIN: Duration = Duration::from_secs(1);
/// Most bytes of the next requests that are kept; a client that sends more is not looked after.
const MOST: usize = 64 << 10;

/// What is known of it.
#[derive(Default)]
pub(super) struct Peer {
    ahead: BytesMut,
    asked: Option<Asked>,
}

/// It sends nothing more, and was asked whether it reads.
struct Asked {
    pause: Duration,
    timer: Pin<Box<Sleep>>,
}

impl Peer {
    /// What it sent that has not had its turn.
    pub(super) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    pub(super) fn keep(&mut self, bytes: &[u8]) {
        self.ahead.extend_from_slice(bytes);
    }

    /// Gives so many bytes of it.
    pub(super) fn give(&mut self, buf: &mut ReadBuf<'_>, count: usize) {
        buf.put_slice(&self.ahead[..count]);
        self.ahead.advance(count);
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
    }

    /// Looks after it, and sees to it that `cx` is woken when there is something to see.
    ///
    /// # Errors
    /// It is gone, or has no way (`interim`) to say that it is not.
    pub(super) fn look(&mut self, stream: &mut TcpStream, cx: &mut Context<'_>, interim: bool) -> io::Result<()> {
        if let Some(asked) = &mut self.asked {
            return asked.look(stream, cx);
        }
        let mut piece = [0; 4 << 10];
        while self.ahead.len() < MOST {
            let mut buf = ReadBuf::new(&mut piece);
            match Pin::new(&mut *stream).poll_read(cx, &mut buf)? {
                Poll::Pending => return Ok(()),
                Poll::Ready(()) if buf.filled().is_empty() && interim => {
                    ask(stream)?;
                    return self.asked.insert(Asked { pause: FIRST, timer: Box::pin(sleep(FIRST)) }).look(stream, cx);
                }
                Poll::Ready(()) if buf.filled().is_empty() => return Err(ErrorKind::ConnectionReset.into()),
                Poll::Ready(()) => self.ahead.extend_from_slice(buf.filled()),
            }
        }
        Ok(())
    }
}

impl Asked {
    fn look(&mut self, stream: &TcpStream, cx: &mut Context<'_>) -> io::Result<()> {
        while self.timer.as_mut().poll(cx).is_ready() {
            if let Some(gone) = stream.take_error()? {
                return Err(gone);
            }
            if self.pause >= AGAIN {
                ask(stream)?;
            }
            self.pause = (self.pause * 2).min(AGAIN);
            self.timer = Box::pin(sleep(self.pause));
        }
        Ok(())
    }
}

fn ask(stream: &TcpStream) -> io::Result<()> {
    match stream.try_write(INTERIM) {
        Ok(count) if count < INTERIM.len() => Err(ErrorKind::WriteZero.into()),
        // It has not yet read what was sent before, so it can be asked later.
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        done => done.map(drop),
    }
}
