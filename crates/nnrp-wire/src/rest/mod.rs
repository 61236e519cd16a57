//! The REST form: HTTP/1.1 on one socket, `/v2/…` to the engine and back (spec §4.3).
mod reply;
mod route;

use crate::buffer::{PLACED_FROM, Pool};
use crate::codec::check_elements;
use crate::codec::rest::{decode_raw_request, decode_request, encode_response};
use crate::frame::body::{self, Bounds, JSON_SIZE, number};
use crate::io::{Activity, Socket};
use crate::request::{REQUEST_ID, unwound};
use crate::shared::{Shared, Signals, awaited, parting, server_metadata};
use crate::unread::SHARE;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use nnrp_core::error::excerpt;
use nnrp_core::{NnrpError, Reason, Result};
use reply::{Reply, Sending, compressed, failed, inferred, json, not_ready, unreadable, wrong_header};
use route::{Target, Verb, target};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpStream;

/// Most bytes that one read takes, and that a request's head may have.
const READ_SIZE: usize = 256 << 10;

/// Larger bodies that nobody asked for are not read; the connection closes.
const SKIPPED: u64 = 64 << 10;

/// A request's body until it has been read to its end.
struct Unread {
    body: Option<Incoming>,
    begun: bool,
}

impl From<Incoming> for Unread {
    fn from(body: Incoming) -> Self {
        Unread { body: (!body.is_end_stream()).then_some(body), begun: false }
    }
}

impl Unread {
    /// Whether it may be so long.
    fn may_have(&self, byte_size: u64) -> bool {
        self.body.as_ref().is_some_and(|body| body.size_hint().upper().is_none_or(|most| most >= byte_size))
    }
}

/// One connection.
struct Connection {
    shared: Arc<Shared>,
    pool: Pool,
    activity: Arc<Activity>,
    signals: Signals,
}

/// Serves one connection until its client leaves, is quiet for too long, or has its answer once the server stops, and at the latest until that closes.
pub(crate) async fn serve_connection(stream: TcpStream, shared: Arc<Shared>, pool: Pool, mut signals: Signals) {
    let activity = Arc::new(Activity::default());
    let mut first = [0];
    tokio::select! {
        biased;
        // A connection that says nothing costs no buffer: 2 kB instead of 13.
        peeked = stream.peek(&mut first) => if !matches!(peeked, Ok(1..)) { return },
        () = parting(&mut signals, |signal| signal.closing, || activity.quiet()) => return,
    }
    let (read, write) = (shared.settings.read_timeout, shared.settings.write_timeout);
    let socket = Socket::new(stream, activity.clone(), read, write).of_http1(unreadable);
    let connection = Connection { shared, pool, activity, signals: signals.clone() };
    let service = service_fn(|request| connection.answer(request));
    let mut builder = http1::Builder::new();
    // No `pipeline_flush`: hyper would keep an error to itself while bytes that it cannot parse wait behind it.
    // A client that ends what it sends may well read; the socket tells it from one that is gone.
    builder.max_buf_size(READ_SIZE).header_read_timeout(None).half_close(true);
    let mut served = pin!(builder.serve_connection(TokioIo::new(socket), service));
    tokio::select! {
        biased;
        _ = served.as_mut() => return,
        () = parting(&mut signals, |signal| signal.closing, || connection.activity.quiet()) => {}
    }
    served.as_mut().graceful_shutdown();
    let _ = served.await;
}

impl Connection {
    async fn answer(&self, request: Request<Incoming>) -> std::result::Result<Response<Sending>, Infallible> {
        self.activity.begin();
        let (parts, incoming) = request.into_parts();
        let mut body = Unread::from(incoming);
        let result = unwound(self.route(&parts, &mut body)).await;
        let result = result.unwrap_or_else(|_| Err(NnrpError::new(Reason::Bug, "the server failed while it handled this request")));
        let mut reply = result.unwrap_or_else(|error| self.fail(&error, &parts));
        if reply.body().left() > SHARE {
            reply = self.claim(reply, &parts);
        }
        if let Some(id) = parts.headers.get(REQUEST_ID) {
            reply.headers_mut().entry(REQUEST_ID).or_insert_with(|| id.clone());
        }
        if body.body.is_some() && !self.skip(&parts, &mut body).await {
            self.activity.refuse();
            close(&mut reply);
        }
        if self.shared.stopping() {
            close(&mut reply);
        }
        self.activity.end();
        Ok(reply.map(|pieces| Sending::new(pieces, &self.activity)))
    }

    /// Has a large answer count until the last of it is written; where there is no room for it, the answer is that.
    fn claim(&self, mut reply: Reply, parts: &Parts) -> Reply {
        match (self.shared.unread.claim(reply.body().left()), reply.body_mut().last_mut()) {
            (Ok(claim), Some(last)) => *last = claim.on(std::mem::take(last)),
            (Err(error), _) => return self.fail(&error, parts),
            (Ok(_), None) => {}
        }
        reply
    }

    /// Reads past a small body that nobody asked for, so that the connection lives on.
    #[cold]
    async fn skip(&self, parts: &Parts, body: &mut Unread) -> bool {
        let small = body.body.as_ref().and_then(|body| body.size_hint().exact()).is_some_and(|size| size <= SKIPPED);
        small && !body.begun && !parts.headers.contains_key(header::EXPECT) && self.read(parts, body, 0, &self.pool).await.is_ok()
    }

    async fn route(&self, parts: &Parts, body: &mut Unread) -> Result<Reply> {
        let received = Instant::now();
        self.check_length(parts, body)?;
        check_host(parts)?;
        let Some(target) = target(parts.uri.path()) else { return Err(no_path(parts)) };
        if !target.takes(&parts.method) {
            return Err(NnrpError::new(Reason::MethodNotAllowed, format!("{}: expected {}, got {}", path(parts), target.allow(), method(parts)))
                .with("allow", target.allow()));
        }
        let engine = &self.shared.engine;
        match target {
            Target::Model { name, version, verb: Verb::Infer } => self.infer(parts, body, (&name, &version), received).await,
            Target::Model { name, version, verb: Verb::Metadata } => {
                Ok(json(StatusCode::OK, &engine.model(&name, &version)?.metadata(&engine.versions(&name))))
            }
            Target::Model { name, version, verb: Verb::Ready } => {
                let loaded = engine.model(&name, &version)?;
                Ok(self.ready(json!({"name": &*loaded.name}), parts))
            }
            Target::Server => Ok(json(StatusCode::OK, &server_metadata())),
            Target::Live => Ok(json(StatusCode::OK, &json!({"live": true}))),
            Target::Ready => Ok(self.ready(json!({}), parts)),
            Target::Models => {
                let mut names: Vec<_> = engine.models().iter().map(|loaded| loaded.name.clone()).collect();
                names.dedup();
                let names: Vec<&str> = names.iter().map(|name| &**name).collect();
                Ok(compressed(Bytes::from(json!({"models": names}).to_string()), &parts.headers))
            }
            Target::Index => self.index(parts, body).await,
        }
    }

    /// Refuses a length beside a transfer coding: what stands between us and the client may have believed the other (RFC 9112 §6.3).
    fn check_length(&self, parts: &Parts, body: &mut Unread) -> Result<()> {
        if !parts.headers.contains_key(header::TRANSFER_ENCODING) || !self.activity.is_ambiguous() {
            return Ok(());
        }
        // Wherever it ends, it is not skipped.
        body.begun = true;
        Err(NnrpError::new(Reason::Malformed, "headers: expected content-length or transfer-encoding, got both").with("header", "content-length"))
    }

    async fn infer(&self, parts: &Parts, body: &mut Unread, (name, version): (&str, &str), received: Instant) -> Result<Reply> {
        let _taken = self.shared.take()?;
        check_content_type(&parts.headers)?;
        let json_size = number(&parts.headers, &JSON_SIZE)?;
        let engine = &self.shared.engine;
        // Of a body that is all JSON no tensor stays where it lies.
        let placed = json_size.is_some() && body.may_have(PLACED_FROM as u64 + 1);
        let pool = self.pool.within(if placed { engine.reading(name, version) } else { None });
        let bytes = self.read(parts, body, json_size.unwrap_or(0), &pool).await?;
        let interim = parts.version >= Version::HTTP_11;
        let (mut answer, wanted) = if json_size == Some(0) {
            let loaded = engine.model(name, version)?;
            let (request, wanted) = decode_raw_request(name, version, &bytes, loaded.signature())?;
            (engine.infer_async(request), wanted)
        } else {
            let (request, wanted) = decode_request(name, version, &bytes, json_size, received)?;
            check_elements(&request, self.shared.settings.max_body_bytes)?;
            (engine.infer_async(request), wanted)
        };
        drop(bytes);
        let response = match answer.take_ready() {
            Some(response) => response?,
            None => {
                self.activity.wait(interim);
                awaited(answer, &self.signals).await?
            }
        };
        Ok(inferred(encode_response(&response, &wanted)?, &parts.headers))
    }

    async fn read(&self, parts: &Parts, body: &mut Unread, head: usize, pool: &Pool) -> Result<Bytes> {
        let Some(incoming) = &mut body.body else { return Ok(Bytes::new()) };
        body.begun = true;
        let settings = &self.shared.settings;
        let bounds = Bounds { byte_size: settings.max_body_bytes, pause: settings.read_timeout };
        let result = body::read(&parts.headers, &mut *incoming, head, bounds, pool).await;
        if result.is_ok() || incoming.is_end_stream() {
            body.body = None;
        }
        result
    }

    fn ready(&self, mut told: Value, parts: &Parts) -> Reply {
        let ready = self.shared.ready();
        told["ready"] = ready.into();
        if ready { json(StatusCode::OK, &told) } else { not_ready(&told, &parts.headers) }
    }

    async fn index(&self, parts: &Parts, body: &mut Unread) -> Result<Reply> {
        let bytes = self.read(parts, body, 0, &self.pool).await?;
        if !bytes.trim_ascii().is_empty() {
            let asked: Value = serde_json::from_slice(&bytes).map_err(|error| NnrpError::new(Reason::Malformed, format!("body: {error}")))?;
            let ready = asked.as_object().map(|asked| asked.get("ready").is_none_or(Value::is_boolean));
            if ready != Some(true) {
                return Err(NnrpError::new(Reason::Malformed, "body: expected nothing or {\"ready\": true or false}, got something else"));
            }
        }
        let models = self.shared.engine.models();
        let entry = |loaded: &Arc<nnrp_core::Loaded>| json!({"name": &*loaded.name, "version": &*loaded.version, "state": "READY"});
        Ok(compressed(Bytes::from(Value::Array(models.iter().map(entry).collect()).to_string()), &parts.headers))
    }

    #[cold]
    fn fail(&self, error: &NnrpError, parts: &Parts) -> Reply {
        let mut reply = failed(error, &parts.headers, self.shared.settings.queue_full_status);
        if error.is(Reason::MethodNotAllowed)
            && let Some(allow) = error.details().get("allow").and_then(Value::as_str).and_then(|allow| HeaderValue::from_str(allow).ok())
        {
            reply.headers_mut().insert(header::ALLOW, allow);
        }
        reply
    }
}

/// HTTP/1.1 has one host (RFC 9112 §3.2).
fn check_host(parts: &Parts) -> Result<()> {
    let hosts = parts.headers.get_all(header::HOST);
    let mut values = hosts.iter();
    if parts.version < Version::HTTP_11 || values.next().is_some() && values.next().is_none() {
        return Ok(());
    }
    let got: Vec<String> = hosts.iter().map(|host| excerpt(&String::from_utf8_lossy(host.as_bytes()))).collect();
    let got = if got.is_empty() { "none".to_owned() } else { excerpt(&got.join(" and ")) };
    Err(wrong_header("host", "one", got))
}

/// Says that nothing more is read after this answer.
#[cold]
fn close(reply: &mut Reply) {
    reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
}

#[cold]
fn no_path(parts: &Parts) -> NnrpError {
    NnrpError::new(Reason::PathNotFound, format!("no such path: '{}'", path(parts))).with("path", path(parts))
}

fn path(parts: &Parts) -> String {
    excerpt(parts.uri.path())
}

fn method(parts: &Parts) -> String {
    excerpt(parts.method.as_str())
}

/// Media types whose body may be an inference request; `curl -d` says that it sends a form.
const READABLE: [&[u8]; 6] =
    [b"application/json", b"application/octet-stream", b"application/x-www-form-urlencoded", b"application/binary", b"text/plain", b"text/json"];

fn check_content_type(headers: &HeaderMap) -> Result<()> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let media = value.as_bytes().split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    let suffixed = media.len() > 5 && media.ends_with(b"+json");
    if media.is_empty() || suffixed || READABLE.iter().any(|readable| media.eq_ignore_ascii_case(readable)) {
        return Ok(());
    }
    let got = excerpt(&String::from_utf8_lossy(media));
    let message = format!("header 'content-type': expected application/json or application/octet-stream, got '{got}'");
    Err(NnrpError::new(Reason::UnsupportedMediaType, message).with("got", got))
}
