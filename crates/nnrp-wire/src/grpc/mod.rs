//! The gRPC form (spec §4.5): one HTTP/2 connection, its methods, and the standard health and reflection services beside them.
//!
//! Unary calls are framed here rather than by tonic: its own errors are INTERNAL whatever the client did wrong, and it copies each tensor twice.
mod backlog;
mod batched;
mod health;
mod methods;
mod outgoing;
mod reflection;
mod streamed;
mod talk;

use crate::buffer::Pool;
use crate::frame::grpc::{CONNECTION_WINDOW, FRAME_SIZE, GRPC, Parts, SERVICE, STREAM_WINDOW};
use crate::frame::status;
use crate::io::{Activity, Socket};
use crate::request::{REQUEST_ID, request_id, unwound};
use crate::shared::{Shared, Signals, doubted, parting};
use backlog::Backlog;
use batched::{Batched, drive};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use nnrp_core::error::excerpt;
use nnrp_core::{NnrpError, Reason, Result};
use outgoing::{Answer, Framed, Hold, Outgoing};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;

const STREAMS: u32 = 128;
const HEADER_BYTES: u32 = 16 << 10;
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a client has to answer a goodbye.
const PARTING: Duration = Duration::from_secs(1);

/// Serves one connection until it ends or is quiet for too long; once the server closes it takes no new calls and ends with the last one.
pub(crate) async fn serve_connection(stream: TcpStream, shared: Arc<Shared>, pool: Pool, mut signals: Signals) {
    let activity = Arc::new(Activity::default());
    // HTTP/2 tells by itself whether the peer is there, so a pause between frames is no fault.
    activity.begin();
    let socket = Batched::new(Socket::new(stream, activity, shared.settings.read_timeout, shared.settings.write_timeout));
    let service = Arc::new(Service { shared, pool, signals: signals.clone(), asked: AtomicBool::new(true), backlog: Backlog::default() });
    let (calls, mut doubts) = (service.clone(), signals.clone());
    let serve = hyper::service::service_fn(move |request| {
        let service = calls.clone();
        async move {
            let answer = service.answer(request).await;
            Ok::<_, Infallible>(answer.map(|body| Answer { body, service }))
        }
    });
    let mut connection = pin!(http().serve_connection(TokioIo::new(socket.clone()), serve));
    // A call holds the service until the last of its answer is written.
    let free = || Arc::strong_count(&service) == HOLDERS && !socket.is_blocked();
    tokio::select! {
        biased;
        _ = drive(&socket, connection.as_mut()) => return,
        // Its windows stay shut: what it does not read is let go of.
        () = doubted(&mut doubts, || service.backlog.is_stuck()) => return,
        () = parting(&mut signals, |signal| signal.closing, || free() && !service.asked.swap(false, Ordering::Relaxed)) => {}
    }
    connection.as_mut().graceful_shutdown();
    // A client that does not look at its connection never answers the goodbye; without a call of its own it is not waited for.
    let mut waited = free();
    while tokio::time::timeout(PARTING, drive(&socket, connection.as_mut())).await.is_err() {
        if waited && free() {
            return;
        }
        waited = free();
    }
}

/// Who holds the service of a connection without calls: the connection, and what makes its calls.
const HOLDERS: usize = 2;

fn http() -> http2::Builder<TokioExecutor> {
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .auto_date_header(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_SIZE)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    http
}

struct Service {
    shared: Arc<Shared>,
    pool: Pool,
    signals: Signals,
    /// Whether anything was, or the connection was made, since the last look.
    asked: AtomicBool,
    /// What the client has not read.
    backlog: Backlog,
}

impl Service {
    async fn answer(self: &Arc<Self>, request: Request<Incoming>) -> Response<Outgoing> {
        self.asked.store(true, Ordering::Relaxed);
        let own_id = request.headers().get(REQUEST_ID).cloned();
        let result = unwound(self.route(request)).await;
        let result = result.unwrap_or_else(|_| Err(NnrpError::new(Reason::Bug, "the server failed while it handled this request")));
        match result {
            Ok(mut response) => {
                if let Some(id) = own_id {
                    response.headers_mut().insert(REQUEST_ID, id);
                }
                response
            }
            Err(error) => refuse(&error, &request_id(own_id.as_ref())),
        }
    }

    async fn route(self: &Arc<Self>, request: Request<Incoming>) -> Result<Response<Outgoing>> {
        check_form(request.method(), request.headers())?;
        let path = request.uri().path();
        let (service, method) = path.strip_prefix('/').and_then(|path| path.split_once('/')).ok_or_else(|| not_offered(path))?;
        match service {
            SERVICE if method == methods::STREAM => streamed::call(self, request),
            SERVICE => {
                let method = methods::Method::from_name(method).ok_or_else(|| not_offered(path))?;
                self.success(methods::call(self, method, request).await?)
            }
            "grpc.health.v1.Health" if method == "Check" => self.success(methods::call(self, methods::Method::Health, request).await?),
            "grpc.health.v1.Health" if method == "Watch" => health::watch(self, methods::receive(self, None, request).await?.0),
            _ if reflection::is_named(service, method) => Ok(reflection::call(self, request)),
            _ => Err(not_offered(path)),
        }
    }

    fn success(self: &Arc<Self>, parts: Parts) -> Result<Response<Outgoing>> {
        let message = Framed::of(self, parts)?;
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(status::STATUS, HeaderValue::from_static("0"));
        let mut response = Response::new(Outgoing::Framed { message, trailers: Some((trailers, Hold::small(self, 1))) });
        response.headers_mut().insert(CONTENT_TYPE, GRPC);
        Ok(response)
    }
}

fn check_form(method: &Method, headers: &HeaderMap) -> Result<()> {
    if method != Method::POST {
        let got = excerpt(method.as_str());
        return Err(NnrpError::new(Reason::MethodNotAllowed, format!("HTTP method: expected POST, got {got}")).with("expected", "POST").with("got", got));
    }
    let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    match content_type.strip_prefix(b"application/grpc") {
        Some(b"" | b"+proto") => Ok(()),
        Some(rest) if rest.starts_with(b";") || rest.starts_with(b"+proto;") => Ok(()),
        _ => {
            let got = excerpt(&String::from_utf8_lossy(content_type));
            let message = format!("header 'content-type': expected application/grpc, got '{got}'");
            Err(NnrpError::new(Reason::UnsupportedMediaType, message).with("expected", "application/grpc").with("got", got))
        }
    }
}

#[cold]
fn not_offered(path: &str) -> NnrpError {
    let got = excerpt(path);
    NnrpError::new(Reason::NotOffered, format!("this server does not offer the method '{got}'")).with("method", got)
}

/// An answer of headers alone; its HTTP status says so too where the request is not gRPC.
#[cold]
fn refuse(error: &NnrpError, request_id: &str) -> Response<Outgoing> {
    let mut response = Response::new(Outgoing::default());
    if error.is(Reason::UnsupportedMediaType) || error.is(Reason::MethodNotAllowed) {
        *response.status_mut() = StatusCode::from_u16(error.http()).unwrap_or_default();
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, GRPC);
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    if error.is(Reason::NotOffered) {
        headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity,deflate,gzip"));
    }
    status::insert(headers, error, request_id);
    response
}
