//! Answers: a status, headers, and a body in pieces that are written as they lie.
use super::body::JSON_SIZE;
use crate::codec::rest::{Encoded, encode_error};
use crate::request::{REQUEST_ID, new_request_id, request_id};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use nnrp_core::{NnrpError, Reason};
use serde_json::Value;
use smallvec::SmallVec;
use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Smaller answers are not worth compressing.
const COMPRESSED_FROM: usize = 1 << 10;

/// A body that is already there, in pieces.
#[derive(Clone, Default)]
pub(crate) struct Pieces {
    pieces: SmallVec<[Bytes; 3]>,
    next: usize,
    left: usize,
}

impl Pieces {
    fn one(bytes: Bytes) -> Self {
        Pieces { left: bytes.len(), pieces: SmallVec::from_iter([bytes]), next: 0 }
    }
}

impl From<Encoded> for Pieces {
    fn from(encoded: Encoded) -> Self {
        let mut pieces = Pieces::one(encoded.json);
        for tensor in encoded.tensors {
            pieces.left += tensor.len();
            pieces.pieces.push(tensor);
        }
        pieces
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        while let Some(piece) = this.pieces.get_mut(this.next) {
            this.next += 1;
            if !piece.is_empty() {
                this.left -= piece.len();
                return Poll::Ready(Some(Ok(Frame::data(std::mem::take(piece)))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}

/// An answer on its way.
pub(super) type Reply = Response<Pieces>;

/// A JSON document.
pub(super) fn json(status: StatusCode, document: &Value) -> Reply {
    plain(status, Bytes::from(document.to_string()))
}

fn plain(status: StatusCode, body: Bytes) -> Reply {
    let mut reply = Response::new(Pieces::one(body));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, JSON);
    reply
}

/// An encoded inference answer, compressed when it is JSON and the client asks for that.
pub(super) fn inferred(encoded: Encoded, request: &HeaderMap) -> Reply {
    if encoded.tensors.is_empty() {
        return compressed(encoded.json, request);
    }
    let json_size = encoded.json.len();
    let mut reply = Response::new(Pieces::from(encoded));
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, BINARY);
    headers.insert(JSON_SIZE, HeaderValue::from(json_size));
    reply
}

/// JSON text, compressed when it is worth it and the client asks for that.
pub(super) fn compressed(text: Bytes, request: &HeaderMap) -> Reply {
    let Some(accepted) = request.get(header::ACCEPT_ENCODING) else { return plain(StatusCode::OK, text) };
    if text.len() < COMPRESSED_FROM {
        return plain(StatusCode::OK, text);
    }
    let packed = match preferred(accepted) {
        Some("gzip") => pack(GzEncoder::new(Vec::new(), Compression::fast()), &text, GzEncoder::finish).map(|packed| (packed, "gzip")),
        Some(_) => pack(ZlibEncoder::new(Vec::new(), Compression::fast()), &text, ZlibEncoder::finish).map(|packed| (packed, "deflate")),
        None => None,
    };
    let Some((packed, encoding)) = packed else { return plain(StatusCode::OK, text) };
    let mut reply = plain(StatusCode::OK, packed);
    reply.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    reply.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    reply
}

fn pack<W: Write>(mut encoder: W, text: &[u8], finish: impl FnOnce(W) -> std::io::Result<Vec<u8>>) -> Option<Bytes> {
    encoder.write_all(text).ok()?;
    finish(encoder).ok().map(Bytes::from)
}

/// The encoding of ours that a client takes; gzip before deflate.
fn preferred(accepted: &HeaderValue) -> Option<&'static str> {
    let accepted = accepted.to_str().ok()?;
    let takes = |name: &str| {
        accepted.split(',').any(|item| {
            let (coding, quality) = item.split_once(';').unwrap_or((item, ""));
            let refused = quality.trim().strip_prefix("q=").is_some_and(|quality| quality.parse::<f32>().is_ok_and(|quality| quality <= 0.0));
            coding.trim().eq_ignore_ascii_case(name) && !refused
        })
    };
    ["gzip", "deflate"].into_iter().find(|name| takes(name))
}

/// An error in the house's shape.
#[cold]
pub(super) fn failed(error: &NnrpError, request: &HeaderMap, queue_full_status: u16) -> Reply {
    let id = request_id(request.get(REQUEST_ID));
    let number = if error.is(Reason::QueueFull) { queue_full_status } else { error.http() };
    let status = StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut reply = plain(status, encode_error(error, Some(&id)));
    if matches!(number, 503 | 429) {
        retry_later(&mut reply);
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        reply.headers_mut().insert(REQUEST_ID, id);
    }
    reply
}

/// What hyper answers by itself to bytes that are no request, in the house's shape; our own answers stay as they are.
pub(super) fn unreadable(answer: &[u8]) -> Option<Vec<u8>> {
    let status = answer.strip_prefix(b"HTTP/1.1 4")?.get(..2)?;
    if !answer.windows(EMPTY.len()).any(|window| window == EMPTY) {
        return None;
    }
    let error = match status {
        b"14" => NnrpError::new(Reason::PathNotFound, "path: expected at most 65534 bytes, got more"),
        b"31" => NnrpError::new(Reason::BodyTooLarge, "head: expected at most 100 headers of at most 256 KiB together, got more"),
        _ => NnrpError::new(Reason::Malformed, "head: expected a request line, headers and at most one length of HTTP/1.1, got something else"),
    };
    let status = StatusCode::from_u16(error.http()).ok()?;
    let body = encode_error(&error, Some(&new_request_id()));
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    Some([head.as_bytes(), &body].concat())
}

const EMPTY: &[u8] = b"\r\ncontent-length: 0\r\n";

/// Tells the client when to come again.
pub(super) fn retry_later(reply: &mut Reply) {
    reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
}
