//! Reading a message body: bounded, aligned, without a copy when it came in one piece, decompressed when it says so.
use super::packing::Packing;
use super::too_large;
use crate::buffer::{Gathered, Pool};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};
use http_body::Body;
use nnrp_core::error::excerpt;
use nnrp_core::{NnrpError, Reason, Result};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Sleep, sleep};

/// Length of the JSON part of a message whose tensors follow it.
pub(crate) const JSON_SIZE: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Alignment of the tensors without which a small body is copied once more.
const SMALL_ALIGNMENT: usize = 8;

const WHAT: &str = "body";

/// What bounds the reading of a body.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    /// Most bytes, also after decompression.
    pub(crate) byte_size: usize,
    /// Longest pause.
    pub(crate) pause: Duration,
}

/// A number in a header.
///
/// # Errors
/// `MALFORMED`: not a number.
pub(crate) fn number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<usize>> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().unwrap_or("");
    // Two that differ would mean two different messages.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && values.all(|other| other == value);
    digits.then(|| text.parse().ok()).flatten().map(Some).ok_or_else(|| {
        let got = excerpt(&String::from_utf8_lossy(value.as_bytes()));
        NnrpError::new(Reason::Malformed, format!("header '{name}': expected one number of bytes, got '{got}'")).with("header", name.as_str()).with("got", got)
    })
}

/// Reads a body and decompresses it; the byte at `head` is aligned.
///
/// # Errors
/// `BODY_TOO_LARGE`, `MALFORMED` (it ends early, pauses too long, or does not decompress), `UNSUPPORTED_MEDIA_TYPE` (its encoding), `NOT_OFFERED` (its
/// transfer coding).
pub(crate) async fn read<B: Body<Data = Bytes> + Unpin>(headers: &HeaderMap, body: B, head: usize, bounds: Bounds, pool: &Pool) -> Result<Bytes>
where
    B::Error: std::error::Error,
{
    let packing = Packing::of(headers, header::CONTENT_ENCODING, WHAT, Reason::UnsupportedMediaType)?;
    let claimed = body.size_hint().exact();
    if claimed.is_none() {
        check_coding(headers)?;
    }
    if claimed.is_some_and(|claimed| claimed > bounds.byte_size as u64) {
        return Err(too_large(WHAT, bounds.byte_size, claimed));
    }
    match packing {
        None => gather(body, head, bounds, pool).await,
        Some(packing) => packing.inflate(&gather(body, 0, bounds, &pool.within(None)).await?, head, bounds.byte_size, pool),
    }
}

/// Refuses a transfer coding beside `chunked`, which would leave the body as something else than it looks.
fn check_coding(headers: &HeaderMap) -> Result<()> {
    let other = headers.get_all(header::TRANSFER_ENCODING).iter().find(|value| !value.as_bytes().eq_ignore_ascii_case(b"chunked"));
    let Some(value) = other else { return Ok(()) };
    let got = excerpt(&String::from_utf8_lossy(value.as_bytes()));
    let message = format!("header 'transfer-encoding': expected chunked, got '{got}'");
    Err(NnrpError::new(Reason::NotOffered, message).with("header", "transfer-encoding").with("got", got))
}

async fn gather<B: Body<Data = Bytes> + Unpin>(mut body: B, head: usize, bounds: Bounds, pool: &Pool) -> Result<Bytes>
where
    B::Error: std::error::Error,
{
    let claimed = body.size_hint().exact();
    let mut gathered: Option<Gathered> = None;
    let mut stall = Stall::new(bounds.pause);
    loop {
        let got = gathered.as_ref().map_or(0, Gathered::len);
        let Some(frame) = stall.frame(&mut body).await.map_err(|lost| early(claimed, got, lost.as_ref()))? else { break };
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > bounds.byte_size - got {
            return Err(too_large(WHAT, bounds.byte_size, claimed));
        }
        let whole = claimed == Some(data.len() as u64);
        if gathered.is_none()
            && whole
            && data.get(head..).is_none_or(|tensors| tensors.is_empty() || (tensors.as_ptr() as usize).is_multiple_of(SMALL_ALIGNMENT))
        {
            return Ok(data);
        }
        let expected = claimed.map_or(0, |claimed| claimed as usize);
        gathered.get_or_insert_with(|| Gathered::new(pool, head, expected)).push(&data);
        if claimed == Some((got + data.len()) as u64) {
            break;
        }
    }
    Ok(gathered.map_or_else(Bytes::new, Gathered::into_bytes))
}

/// The next frame, or why there is none: `Err(None)` when the peer paused too long.
struct Stall {
    limit: Duration,
    waits: usize,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    fn new(limit: Duration) -> Self {
        Stall { limit, waits: 0, timer: None }
    }

    async fn frame<B: Body + Unpin>(&mut self, body: &mut B) -> std::result::Result<Option<http_body::Frame<B::Data>>, Option<B::Error>> {
        poll_fn(|cx| {
            if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) {
                if self.timer.is_some() {
                    self.timer = None;
                }
                return Poll::Ready(frame.transpose().map_err(Some));
            }
            // hyper starts to read a body when it is asked for it, so the first wait is over at once.
            self.waits += 1;
            if self.waits < 2 {
                return Poll::Pending;
            }
            self.timer.get_or_insert_with(|| Box::pin(sleep(self.limit))).as_mut().poll(cx).map(|()| Err(None))
        })
        .await
    }
}

#[cold]
fn early(claimed: Option<u64>, got: usize, lost: Option<&impl std::error::Error>) -> NnrpError {
    let expected = claimed.map_or_else(|| "a whole chunked body".to_owned(), |claimed| format!("{claimed} bytes"));
    let why = match lost {
        Some(_) => "the connection ended, or a chunk could not be read",
        None => "no byte came for too long",
    };
    NnrpError::new(Reason::Malformed, format!("body: expected {expected}, got {got} bytes: {why}")).with("got", got)
}
