//! One message after the other over HTTP/2, as gRPC frames them, none of them larger than is allowed.
use super::grpc::{ENCODING, PREFIX, WHAT, early, pool_of, raw_offset, unsaid};
use super::packing::Packing;
use super::too_large;
use crate::buffer::{Gathered, Pool};
use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::Body;
use nnrp_core::{Engine, NnrpError, Reason, Result};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Sleep, sleep};

/// The messages of a body; awaiting the next may be given up and begun anew at any time.
pub(crate) struct Messages<B> {
    body: B,
    headers: HeaderMap,
    /// Most bytes of one, also after decompression.
    byte_size: usize,
    /// Longest pause within one.
    pause: Duration,
    raw_tag: u32,
    pool: Pool,
    engine: Option<Arc<Engine>>,
    unread: Bytes,
    begun: Option<Begun>,
    timer: Option<Pin<Box<Sleep>>>,
    heard: Arc<AtomicBool>,
    trailers: Option<HeaderMap>,
}

/// A message of which the first bytes came.
struct Begun {
    packing: Option<Packing>,
    length: usize,
    bytes: Gathered,
}

impl<B: Body<Data = Bytes> + Unpin> Messages<B> {
    pub(crate) fn new(headers: HeaderMap, body: B, bounds: &super::grpc::Bounds<'_>) -> Self {
        let super::grpc::Bounds { byte_size, pause, raw_tag, pool, engine } = *bounds;
        let (pool, engine) = (pool.clone(), engine.cloned());
        Messages {
            body,
            headers,
            byte_size,
            pause,
            raw_tag,
            pool,
            engine,
            unread: Bytes::new(),
            begun: None,
            timer: None,
            heard: Arc::default(),
            trailers: None,
        }
    }

    /// The next message; `None` at the end. After an error there is no next: where one would begin is not known.
    ///
    /// # Errors
    /// `BODY_TOO_LARGE`, `MALFORMED`, `NOT_OFFERED`, `CLIENT_CANCELLED`, as [`super::grpc::read`].
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// As [`Messages::next`].
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        let mut begun = match self.begun.take() {
            Some(begun) => begun,
            None => match ready!(self.poll_begin(cx))? {
                Some(begun) => begun,
                None => return Poll::Ready(Ok(None)),
            },
        };
        loop {
            let missing = begun.length - begun.bytes.len();
            begun.bytes.push(&self.unread.split_to(missing.min(self.unread.len())));
            if begun.bytes.len() == begun.length {
                self.timer = None;
                let message = begun.bytes.into_bytes();
                let message = match begun.packing {
                    None => Ok(message),
                    Some(packing) => packing.inflate(&message, 0, self.byte_size, &self.pool),
                };
                return Poll::Ready(message.map(Some));
            }
            match self.poll_chunk(cx, true) {
                Poll::Ready(chunk) => self.unread = chunk?.ok_or_else(|| early(begun.length, begun.bytes.len()))?,
                Poll::Pending => {
                    self.begun = Some(begun);
                    return Poll::Pending;
                }
            }
        }
    }

    /// Set whenever something comes.
    pub(crate) fn heard(&self) -> Arc<AtomicBool> {
        self.heard.clone()
    }

    /// What came behind the last message.
    pub(crate) fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }

    fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Begun>>> {
        while self.unread.len() < PREFIX {
            let had = self.unread.len();
            self.unread = match ready!(self.poll_chunk(cx, had > 0))? {
                Some(chunk) if had == 0 => chunk,
                Some(chunk) => [&self.unread[..], &chunk[..]].concat().into(),
                None if had == 0 => return Poll::Ready(Ok(None)),
                None => return Poll::Ready(Err(early(PREFIX, had))),
            };
        }
        Poll::Ready(self.begin().map(Some))
    }

    fn begin(&mut self) -> Result<Begun> {
        let packing = match self.unread.get_u8() {
            0 => None,
            1 => Some(Packing::of(&self.headers, ENCODING, WHAT, Reason::NotOffered)?.ok_or_else(unsaid)?),
            flag => return Err(NnrpError::new(Reason::Malformed, format!("message: expected a flag of 0 or 1, got {flag}"))),
        };
        let length = self.unread.get_u32() as usize;
        if length > self.byte_size {
            return Err(too_large(WHAT, self.byte_size, Some(length as u64)));
        }
        let first = &self.unread[..length.min(self.unread.len())];
        let pool = pool_of(first, length, &self.pool, self.engine.as_ref());
        Ok(Begun { packing, length, bytes: Gathered::new(&pool, raw_offset(first, self.raw_tag), length) })
    }

    /// The next bytes; `None` at the end. A pause is bounded `within` a message only.
    fn poll_chunk(&mut self, cx: &mut Context<'_>, within: bool) -> Poll<Result<Option<Bytes>>> {
        loop {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(None) => return Poll::Ready(Ok(None)),
                Poll::Ready(Some(Err(_))) => {
                    return Poll::Ready(Err(NnrpError::new(Reason::ClientCancelled, "the stream was reset before its messages ended")));
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => {
                        self.timer = None;
                        self.heard.store(true, Ordering::Relaxed);
                        return Poll::Ready(Ok(Some(data)));
                    }
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
                Poll::Pending if within => {
                    let pause = self.pause;
                    ready!(self.timer.get_or_insert_with(|| Box::pin(sleep(pause))).as_mut().poll(cx));
                    return Poll::Ready(Err(NnrpError::new(Reason::Malformed, "message: no byte came for too long")));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::grpc::Bounds;
    use http_body::Frame;
    use std::collections::VecDeque;
    use std::convert::Infallible;

    struct Chunks(VecDeque<Bytes>);

    impl Body for Chunks {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<std::result::Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(Frame::data).map(Ok))
        }
    }

    fn framed(messages: &[&[u8]]) -> Vec<u8> {
        messages.iter().flat_map(|message| [&[0], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()).collect()
    }

    async fn all(bytes: &[u8], piece: usize) -> Vec<Result<Bytes>> {
        let chunks = Chunks(bytes.chunks(piece).map(Bytes::copy_from_slice).collect());
        let pool = Pool::default();
        let mut messages =
            Messages::new(HeaderMap::new(), chunks, &Bounds { byte_size: 1000, pause: Duration::from_secs(60), raw_tag: 7, pool: &pool, engine: None });
        let mut all = Vec::new();
        while let Some(message) = messages.next().await.transpose() {
            let ended = message.is_err();
            all.push(message);
            if ended {
                break;
            }
        }
        all
    }

    #[tokio::test]
    async fn messages_come_whole_and_in_order_however_they_are_cut() {
        let sent: [&[u8]; 4] = [&[1; 700], b"", b"two", &[4; 1000]];
        for piece in [1, 2, 5, 6, 704, 5000] {
            let came: Vec<Bytes> = all(&framed(&sent), piece).await.into_iter().map(Result::unwrap).collect();
            assert_eq!(came, sent, "{piece}");
        }
    }

    #[tokio::test]
    async fn what_is_no_message_ends_them_after_those_before() {
        for (rest, reason) in [
            (&b"\0\0\0\x03\xe9"[..], Reason::BodyTooLarge),
            (b"\x02\0\0\0\0", Reason::Malformed),
            (b"\0\0\0\0\x05abc", Reason::Malformed),
            (b"\0\0", Reason::Malformed),
            (b"\x01\0\0\0\0", Reason::Malformed),
        ] {
            for piece in [1, 7, 5000] {
                let came = all(&[&framed(&[b"one"])[..], rest].concat(), piece).await;
                assert_eq!(came[0].as_ref().unwrap(), &b"one"[..]);
                assert!(came[1].as_ref().unwrap_err().is(reason), "{rest:?} {piece} {:?}", came[1]);
            }
        }
    }
}
