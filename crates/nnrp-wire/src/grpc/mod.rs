//! The gRPC form (spec §4.5): one HTTP/2 connection, its methods, and the standard health and reflection services beside them.
//!
//! Unary calls are framed here rather than by tonic: its own errors are INTERNAL whatever the client did wrong, and it copies each tensor twice.
mod batched;
pub(crate) mod frame;
mod health;
mod methods;
mod reflection;
pub(crate) mod status;
pub(crate) mod timeout;

use crate::buffer::Pool;
use crate::io::{Activity, Socket};
use crate::request::{REQUEST_ID, request_id, unwound};
use crate::server::{Shared, Stopping, stopped};
use batched::{Batched, drive};
use frame::Outgoing;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use nnrp_core::error::excerpt;
use nnrp_core::{NnrpError, Reason, Result};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// The service's name, as paths, health and reflection know it.
pub(crate) const SERVICE: &str = "inference.GRPCInferenceService";

pub(crate) const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// What HTTP/2 may hold unread: the windows of a stream and of a connection, and a frame; 745 → 520 µs for 602 kB, two cores.
pub(crate) const STREAM_WINDOW: u32 = 4 << 20;
pub(crate) const CONNECTION_WINDOW: u32 = 16 << 20;
pub(crate) const FRAME_SIZE: u32 = 1 << 20;

const STREAMS: u32 = 128;
const HEADER_BYTES: u32 = 16 << 10;
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a client has to answer the goodbye of a server that stops.
const PARTING: Duration = Duration::from_secs(1);

/// Serves one connection until it ends; once `stopping` turns true it takes no new calls and ends with the last one.
pub(crate) async fn serve_connection(stream: TcpStream, shared: Arc<Shared>, pool: Pool, mut stopping: Stopping) {
    let activity = Arc::new(Activity::default());
    // HTTP/2 tells by itself whether the peer is there, so a pause between frames is no fault.
    activity.begin();
    let socket = Batched::new(Socket::new(stream, activity, shared.settings.read_timeout, shared.settings.write_timeout));
    let service = Arc::new(Service { shared, pool, stopping: stopping.clone() });
    let calls = service.clone();
    let serve = hyper::service::service_fn(move |request| {
        let service = calls.clone();
        async move { Ok::<_, Infallible>(service.answer(request).await) }
    });
    let mut connection = pin!(http().serve_connection(TokioIo::new(socket.clone()), serve));
    tokio::select! {
        _ = drive(&socket, connection.as_mut()) => return,
        () = stopped(&mut stopping) => connection.as_mut().graceful_shutdown(),
    }
    while tokio::time::timeout(PARTING, drive(&socket, connection.as_mut())).await.is_err() {
        // A client that does not look at its connection never answers the goodbye; without a call of its own it is not waited for.
        if Arc::strong_count(&service) == IDLE_HOLDERS {
            return;
        }
    }
}

/// Who holds the service of a connection without calls: the connection, and what makes its calls.
const IDLE_HOLDERS: usize = 2;

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
    stopping: Stopping,
}

impl Service {
    async fn answer(&self, request: Request<Incoming>) -> Response<Outgoing> {
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

    async fn route(&self, request: Request<Incoming>) -> Result<Response<Outgoing>> {
        check_form(request.method(), request.headers())?;
        let path = request.uri().path();
        let (service, method) = path.strip_prefix('/').and_then(|path| path.split_once('/')).ok_or_else(|| not_offered(path))?;
        match service {
            SERVICE => {
                let method = methods::Method::from_name(method).ok_or_else(|| not_offered(path))?;
                Ok(success(methods::call(self, method, request).await?))
            }
            "grpc.health.v1.Health" => Ok(health::call(self, request).await),
            _ => match reflection::side(service) {
                Some(reflect) => Ok(reflect(request).await.map(Outgoing::Tonic)),
                None => Err(not_offered(path)),
            },
        }
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

fn success(parts: frame::Parts) -> Response<Outgoing> {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(status::STATUS, HeaderValue::from_static("0"));
    let mut response = Response::new(Outgoing::Framed { parts: parts.into_iter(), trailers: Some(trailers) });
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
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
