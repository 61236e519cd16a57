//! Answers: a status, headers, and a body in pieces that are written as they lie.
use crate::codec::rest::{Encoded, encode_error};
use crate::frame::body::JSON_SIZE;
use crate::frame::pieces::Pieces;
use crate::io::{Activity, Fault};
use crate::request::{REQUEST_ID, request_id};
use crate::shared::draining;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use nnrp_core::{NnrpError, Reason};
use serde_json::Value;
use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// Smaller answers are not worth compressing.
const COMPRESSED_FROM: usize = 1 << 10;

/// An answer.
pub(super) type Reply = Response<Pieces>;

/// The body of an answer that tells its connection when the last of it is on its way.
pub(super) struct Sending {
    pieces: Pieces,
    activity: Arc<Activity>,
}

impl Sending {
    pub(super) fn new(pieces: Pieces, activity: &Arc<Activity>) -> Self {
        Sending { pieces, activity: activity.clone() }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.activity.given();
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.pieces).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.pieces.size_hint()
    }
}

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
    let full = error.is(Reason::QueueFull) || error.is(Reason::UnreadAnswers);
    refused(if full { queue_full_status } else { error.http() }, encode_error(error, Some(&id)), &id)
}

/// The error of a server that is asked whether it is ready, which says so as the answer of a ready one does.
#[cold]
pub(super) fn not_ready(told: &Value, request: &HeaderMap) -> Reply {
    let (id, error) = (request_id(request.get(REQUEST_ID)), draining());
    let (error_json, told) = (encode_error(&error, Some(&id)), told.to_string());
    let both = [&error_json[..error_json.len() - 1], b",", &told.as_bytes()[1..]].concat();
    refused(error.http(), both.into(), &id)
}

fn refused(number: u16, body: Bytes, id: &str) -> Reply {
    let status = StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut reply = plain(status, body);
    if matches!(number, 503 | 429) {
        retry_later(&mut reply);
    }
    if let Ok(id) = HeaderValue::from_str(id) {
        reply.headers_mut().insert(REQUEST_ID, id);
    }
    reply
}

/// What hyper answers by itself to bytes that are no request, in the house's shape.
#[cold]
pub(super) fn unreadable(answer: &[u8], fault: Option<Box<Fault>>) -> Bytes {
    let own_id = fault.as_ref().and_then(|fault| HeaderValue::from_str(fault.request_id.as_deref()?).ok());
    let id = request_id(own_id.as_ref());
    let error = match (answer.strip_prefix(b"HTTP/1.1 ").and_then(|answer| answer.get(..3)), fault) {
        (Some(b"414"), _) => NnrpError::new(Reason::PathNotFound, "path: expected at most 65534 bytes, got more"),
        (Some(b"431"), _) => NnrpError::new(Reason::BodyTooLarge, "head: expected at most 100 headers of at most 256 KiB together, got more"),
        (_, Some(fault)) => wrong_header(fault.header, fault.expected, fault.got),
        _ => NnrpError::new(Reason::Malformed, "head: expected a request line, headers and at most one length of HTTP/1.1, got something else"),
    };
    let body = encode_error(&error, Some(&id));
    let status = StatusCode::from_u16(error.http()).unwrap_or(StatusCode::BAD_REQUEST);
    let headers = format!("content-type: application/json\r\nx-request-id: {id}\r\nconnection: close\r\ncontent-length: {}", body.len());
    let head = format!("HTTP/1.1 {status}\r\n{headers}\r\n\r\n");
    [head.as_bytes(), &body].concat().into()
}

/// The error of a header that cannot be what it is.
#[cold]
pub(super) fn wrong_header(header: &str, expected: &str, got: String) -> NnrpError {
    let message = format!("header '{header}': expected {expected}, got '{got}'");
    NnrpError::new(Reason::Malformed, message).with("header", header).with("expected", expected).with("got", got)
}

/// Tells the client when to come again.
fn retry_later(reply: &mut Reply) {
    reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
}
