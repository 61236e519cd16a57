//! One message over HTTP/2 as gRPC frames it: a flag byte, four bytes of length, and the message.
use crate::buffer::{Gathered, Pool};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, header::HeaderName};
use http_body::{Body, Frame};
use nnrp_core::error::excerpt;
use nnrp_core::{NnrpError, Reason, Result};
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use smallvec::SmallVec;
use std::future::poll_fn;
use std::io::Read;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

const PREFIX: usize = 5;

/// Tensors up to this many bytes are copied behind the rest of their message; larger ones are parts of their own.
const COPIED: usize = 16 << 10;

const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// A framed message, in pieces.
pub(crate) type Parts = SmallVec<[Bytes; 2]>;

/// Frames a message without raw contents.
pub(crate) fn frame(message: &impl Message) -> Result<Parts> {
    frame_raw(message, 0, Vec::new())
}

/// Frames a message whose last field, `tag`, is the raw contents given apart.
pub(crate) fn frame_raw(message: &impl Message, tag: u32, raws: Vec<Bytes>) -> Result<Parts> {
    let field = |raw: &Bytes| prost::encoding::key_len(tag) + prost::encoding::encoded_len_varint(raw.len() as u64) + raw.len();
    let length = message.encoded_len() + raws.iter().map(field).sum::<usize>();
    let prefix = u32::try_from(length).map_err(|_| too_large(u32::MAX as usize, length))?;
    let copied: usize = raws.iter().filter(|raw| raw.len() <= COPIED).map(Bytes::len).sum();
    let mut head = BytesMut::with_capacity(PREFIX + message.encoded_len() + 16 * raws.len() + copied);
    head.put_u8(0);
    head.put_u32(prefix);
    message.encode(&mut head).map_err(|error| NnrpError::new(Reason::Bug, error.to_string()))?;
    let mut parts = Parts::new();
    for raw in raws {
        encode_key(tag, WireType::LengthDelimited, &mut head);
        encode_varint(raw.len() as u64, &mut head);
        if raw.len() <= COPIED {
            head.put_slice(&raw);
        } else {
            parts.push(head.split().freeze());
            parts.push(raw);
        }
    }
    if !head.is_empty() {
        parts.push(head.freeze());
    }
    Ok(parts)
}

/// The body of a request or an answer.
pub(crate) enum Outgoing {
    /// Ours.
    Framed { parts: smallvec::IntoIter<[Bytes; 2]>, trailers: Option<HeaderMap> },
    /// Of a service that tonic frames.
    Tonic(tonic::body::Body),
}

impl Default for Outgoing {
    fn default() -> Self {
        Outgoing::Framed { parts: Parts::new().into_iter(), trailers: None }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<std::result::Result<Frame<Bytes>, tonic::Status>>> {
        match self.get_mut() {
            Outgoing::Framed { parts, trailers } => {
                let data = parts.next().map(Frame::data);
                Poll::Ready(data.or_else(|| trailers.take().map(Frame::trailers)).map(Ok))
            }
            Outgoing::Tonic(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Outgoing::Framed { parts, trailers } => parts.len() == 0 && trailers.is_none(),
            Outgoing::Tonic(body) => body.is_end_stream(),
        }
    }
}

/// What bounds the reading of a message.
pub(crate) struct Bounds<'a> {
    /// Most bytes, also after decompression.
    pub(crate) byte_size: usize,
    /// Longest pause.
    pub(crate) pause: Duration,
    /// The field whose first content is to be aligned.
    pub(crate) raw_tag: u32,
    /// Where large messages are gathered.
    pub(crate) pool: &'a Pool,
}

/// Reads the one message of a body; `None` when there is none. Trailers, if they come, go to `trailers`.
///
/// # Errors
/// `BODY_TOO_LARGE`, `MALFORMED` (it ends early, pauses too long, holds more than one message, or does not decompress), `NOT_OFFERED` (its encoding),
/// `CLIENT_CANCELLED` (the stream was reset).
pub(crate) async fn read<B>(headers: &HeaderMap, body: &mut B, bounds: Bounds<'_>, trailers: &mut Option<HeaderMap>) -> Result<Option<Bytes>>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut reader = Reader { body, pause: bounds.pause, trailers };
    let Some(mut chunk) = reader.first().await? else { return Ok(None) };
    let compressed = match chunk.get_u8() {
        0 => None,
        1 => Some(Encoding::of(headers)?),
        flag => return Err(NnrpError::new(Reason::Malformed, format!("message: expected a flag of 0 or 1, got {flag}"))),
    };
    let length = chunk.get_u32() as usize;
    if length > bounds.byte_size {
        return Err(too_large(bounds.byte_size, length));
    }
    let message = if chunk.len() < length { reader.gather(chunk, length, &bounds).await? } else { chunk };
    if message.len() > length {
        return Err(NnrpError::new(Reason::Malformed, "message: expected one, got more behind it"));
    }
    reader.end().await?;
    match compressed {
        None => Ok(Some(message)),
        Some(Encoding::Gzip) => inflate(MultiGzDecoder::new(&message[..]), bounds.byte_size).map(Some),
        Some(Encoding::Deflate) => inflate(ZlibDecoder::new(&message[..]), bounds.byte_size).map(Some),
    }
}

struct Reader<'a, B> {
    body: &'a mut B,
    pause: Duration,
    trailers: &'a mut Option<HeaderMap>,
}

impl<B: Body<Data = Bytes> + Unpin> Reader<'_, B> {
    /// The next bytes; `None` at the end.
    async fn chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            let frame = tokio::time::timeout(self.pause, poll_fn(|cx| Pin::new(&mut *self.body).poll_frame(cx))).await;
            let Some(frame) = frame.map_err(|_| NnrpError::new(Reason::Malformed, "message: no byte came for too long"))? else { return Ok(None) };
            let frame = frame.map_err(|_| NnrpError::new(Reason::ClientCancelled, "the stream was reset before the message ended"))?;
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Ok(Some(data)),
                Err(frame) => *self.trailers = frame.into_trailers().ok(),
            }
        }
    }

    /// At least the five bytes before the message.
    async fn first(&mut self) -> Result<Option<Bytes>> {
        let Some(mut first) = self.chunk().await? else { return Ok(None) };
        while first.len() < PREFIX {
            let more = self.chunk().await?.ok_or_else(|| early(PREFIX, first.len()))?;
            first = [&first[..], &more[..]].concat().into();
        }
        Ok(Some(first))
    }

    async fn gather(&mut self, first: Bytes, length: usize, bounds: &Bounds<'_>) -> Result<Bytes> {
        let mut message = Gathered::new(bounds.pool, raw_offset(&first, bounds.raw_tag), length);
        message.push(&first);
        while message.len() < length {
            let more = self.chunk().await?.ok_or_else(|| early(length, message.len()))?;
            if more.len() > length - message.len() {
                return Err(NnrpError::new(Reason::Malformed, "message: expected one, got more behind it"));
            }
            message.push(&more);
        }
        Ok(message.into_bytes())
    }

    async fn end(&mut self) -> Result<()> {
        if self.body.is_end_stream() || self.chunk().await?.is_none() {
            return Ok(());
        }
        Err(NnrpError::new(Reason::Malformed, "message: expected one, got more behind it"))
    }
}

/// Where the first raw contents begin, as far as the first bytes of a message tell.
fn raw_offset(first: &[u8], tag: u32) -> usize {
    let mut rest = first;
    while let (Ok((field, WireType::LengthDelimited)), Ok(length)) = (decode_key(&mut rest), decode_varint(&mut rest)) {
        if field == tag {
            return first.len() - rest.len();
        }
        let Some(next) = usize::try_from(length).ok().and_then(|length| rest.get(length..)) else { return 0 };
        rest = next;
    }
    0
}

enum Encoding {
    Gzip,
    Deflate,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Result<Encoding> {
        match headers.get(ENCODING).map(|value| value.as_bytes()) {
            Some(b"gzip") => Ok(Encoding::Gzip),
            Some(b"deflate") => Ok(Encoding::Deflate),
            None | Some(b"identity") => Err(NnrpError::new(Reason::Malformed, "message: compressed, but the header 'grpc-encoding' does not say how")),
            Some(other) => {
                let got = excerpt(&String::from_utf8_lossy(other));
                let message = format!("header 'grpc-encoding': expected gzip, deflate or identity, got '{got}'");
                Err(NnrpError::new(Reason::NotOffered, message).with("got", got))
            }
        }
    }
}

fn inflate(decoder: impl Read, limit: usize) -> Result<Bytes> {
    let mut message = Vec::new();
    match decoder.take(limit as u64 + 1).read_to_end(&mut message) {
        Ok(length) if length > limit => Err(too_large(limit, length)),
        Ok(_) => Ok(message.into()),
        Err(_) => Err(NnrpError::new(Reason::Malformed, "message: expected what 'grpc-encoding' says, got bytes that do not decompress")),
    }
}

#[cold]
fn too_large(limit: usize, got: usize) -> NnrpError {
    NnrpError::new(Reason::BodyTooLarge, format!("message: expected {limit} bytes at most, got {got}")).with("limit", limit).with("got", got)
}

#[cold]
fn early(expected: usize, got: usize) -> NnrpError {
    NnrpError::new(Reason::Malformed, format!("message: expected {expected} bytes, got {got} and then the end")).with("expected", expected).with("got", got)
}
