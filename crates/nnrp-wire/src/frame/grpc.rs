//! One message over HTTP/2 as gRPC frames it: a flag byte, four bytes of length, and the message.
use super::packing::Packing;
use super::too_large;
use crate::buffer::{Gathered, PLACED_FROM, Pool};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Body;
use nnrp_core::{Engine, NnrpError, Reason, Result};
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use smallvec::SmallVec;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub(super) const WHAT: &str = "message";

pub(super) const PREFIX: usize = 5;

/// Tensors up to this many bytes are copied behind the rest of their message; larger ones are parts of their own.
const COPIED: usize = 16 << 10;

/// The service's name, as paths, health and reflection know it.
pub(crate) const SERVICE: &str = "inference.GRPCInferenceService";

/// The content type.
pub(crate) const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// What HTTP/2 may hold unread: the windows of a stream and of a connection, and a frame; 745 → 520 µs for 602 kB, two cores.
pub(crate) const STREAM_WINDOW: u32 = 4 << 20;
pub(crate) const CONNECTION_WINDOW: u32 = 16 << 20;
pub(crate) const FRAME_SIZE: u32 = 1 << 20;

pub(super) const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// A framed message, in pieces.
pub(crate) type Parts = SmallVec<[Bytes; 2]>;

/// Frames a message without raw contents.
pub(crate) fn frame(message: &impl Message) -> Result<Parts> {
    frame_raw(message, 0, Vec::new())
}

/// Frames a message whose last field, `tag`, is the raw contents given apart.
pub(crate) fn frame_raw(message: &impl Message, tag: u32, raws: Vec<Bytes>) -> Result<Parts> {
    frame_within(None, message, tag, raws)
}

/// Likewise, where the message is the one field `outer` of the message that is framed.
#[inline]
pub(crate) fn frame_within(outer: Option<u32>, message: &impl Message, tag: u32, raws: Vec<Bytes>) -> Result<Parts> {
    let field = |tag, length| prost::encoding::key_len(tag) + prost::encoding::encoded_len_varint(length as u64) + length;
    let inner = message.encoded_len() + raws.iter().map(|raw| field(tag, raw.len())).sum::<usize>();
    let length = outer.map_or(inner, |outer| field(outer, inner));
    let prefix = u32::try_from(length).map_err(|_| too_large(WHAT, u32::MAX as usize, Some(length as u64)))?;
    let copied: usize = raws.iter().filter(|raw| raw.len() <= COPIED).map(Bytes::len).sum();
    let mut head = BytesMut::with_capacity(2 * PREFIX + 6 + message.encoded_len() + 16 * raws.len() + copied);
    head.put_u8(0);
    head.put_u32(prefix);
    if let Some(outer) = outer {
        encode_key(outer, WireType::LengthDelimited, &mut head);
        encode_varint(inner as u64, &mut head);
    }
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
    /// Whose models may have memory of their own for what they are asked.
    pub(crate) engine: Option<&'a Arc<Engine>>,
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
    let packing = match chunk.get_u8() {
        0 => None,
        1 => Some(Packing::of(headers, ENCODING, WHAT, Reason::NotOffered)?.ok_or_else(unsaid)?),
        flag => return Err(NnrpError::new(Reason::Malformed, format!("message: expected a flag of 0 or 1, got {flag}"))),
    };
    let length = chunk.get_u32() as usize;
    if length > bounds.byte_size {
        return Err(too_large(WHAT, bounds.byte_size, Some(length as u64)));
    }
    let message = if chunk.len() < length { reader.gather(chunk, length, &bounds).await? } else { chunk };
    if message.len() > length {
        return Err(NnrpError::new(Reason::Malformed, "message: expected one, got more behind it"));
    }
    reader.end().await?;
    match packing {
        None => Ok(Some(message)),
        Some(packing) => packing.inflate(&message, 0, bounds.byte_size, bounds.pool).map(Some),
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
        let pool = pool_of(&first, length, bounds.pool, bounds.engine);
        let mut message = Gathered::new(&pool, raw_offset(&first, bounds.raw_tag), length);
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
pub(super) fn raw_offset(first: &[u8], tag: u32) -> usize {
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

/// Where a request is gathered of which the first bytes came: where its model reads it, if it names one that wants to.
pub(super) fn pool_of(first: &[u8], length: usize, pool: &Pool, engine: Option<&Arc<Engine>>) -> Pool {
    let reading = engine.filter(|_| length > PLACED_FROM).and_then(|engine| {
        let mut rest = first;
        let name = text(&mut rest, 1)?;
        match text(&mut rest, 2) {
            Some(version) => engine.reading(name, version),
            // One may still come, and be that of another process.
            None => engine.reading(name, "").filter(|_| engine.versions(name).len() == 1),
        }
    });
    pool.within(reading)
}

/// The text of the field that comes next, if it is that one.
fn text<'m>(rest: &mut &'m [u8], tag: u32) -> Option<&'m str> {
    let mut next = *rest;
    let key = decode_key(&mut next).ok()?;
    let length = usize::try_from(decode_varint(&mut next).ok()?).ok()?;
    let (content, after) = next.split_at_checked(length).filter(|_| key == (tag, WireType::LengthDelimited))?;
    *rest = after;
    std::str::from_utf8(content).ok()
}

#[cold]
pub(super) fn unsaid() -> NnrpError {
    NnrpError::new(Reason::Malformed, "message: compressed, but the header 'grpc-encoding' does not say how")
}

#[cold]
pub(super) fn early(expected: usize, got: usize) -> NnrpError {
    NnrpError::new(Reason::Malformed, format!("message: expected {expected} bytes, got {got} and then the end")).with("expected", expected).with("got", got)
}
