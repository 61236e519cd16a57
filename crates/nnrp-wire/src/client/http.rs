//! The REST form from the client's side: HTTP/1.1, tensors in binary, connections kept.
use super::link::Link;
use super::{Endpoint, Question, Transport};
use crate::buffer::Pool;
use crate::codec::rest::{decode_error, decode_response, encode_request};
use crate::io::Plain;
use crate::rest::body::{self, Bounds, JSON_SIZE, number};
use crate::rest::reply::Pieces;
use bytes::Bytes;
use http::{HeaderValue, Method, Request as HttpRequest, Response as HttpResponse, StatusCode, Uri, header};
use hyper::body::Incoming;
use hyper::client::conn::http1::Builder;
use hyper_util::rt::TokioIo;
use nnrp_core::{NnrpError, Reason, Request, Response, Result};
use parking_lot::Mutex;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::time::Duration;
use tokio::net::TcpStream;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may pause within an answer.
const PAUSE: Duration = Duration::from_secs(300);
/// Largest answer.
const ANSWER_LIMIT: usize = 2 << 30;
/// Most bytes that one read takes.
const READ_SIZE: usize = 1 << 20;
/// What stays as it is in a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'-').remove(b'~');

/// A request on its way.
#[derive(Clone)]
pub(crate) struct Call {
    method: Method,
    path: Uri,
    json_size: Option<usize>,
    body: Pieces,
}

/// A server's REST form; keeps the connections that it made.
pub(crate) struct HttpClient {
    endpoint: Endpoint,
    host: Option<HeaderValue>,
    #[allow(clippy::vec_box, reason = "links move in and out of futures all the time")]
    kept: Mutex<Vec<Box<Link>>>,
    pool: Pool,
}

impl Transport for HttpClient {
    type Call = Call;

    fn open(endpoint: &Endpoint) -> Self {
        let host = HeaderValue::from_str(&endpoint.to_string()).ok();
        HttpClient { endpoint: endpoint.clone(), host, kept: Mutex::new(Vec::new()), pool: Pool::default() }
    }

    fn prepare(request: &Request<'_, 'static>) -> Result<Call> {
        let encoded = encode_request(request, true)?;
        let json_size = (!encoded.tensors.is_empty()).then_some(encoded.json.len());
        Ok(Call { method: Method::POST, path: path(&request.model, &request.version, "/infer")?, json_size, body: encoded.into() })
    }

    async fn infer(&self, call: Call) -> Result<Response> {
        let (status, json_size, body) = self.exchange(call).await?;
        if status != StatusCode::OK {
            return Err(decode_error(status.as_u16(), &body));
        }
        decode_response(&body, json_size)
    }

    async fn ask(&self, question: Question) -> Result<Value> {
        let (method, path) = match &question {
            Question::ServerMetadata => (Method::GET, Uri::from_static("/v2")),
            Question::ServerLive => (Method::GET, Uri::from_static("/v2/health/live")),
            Question::ServerReady => (Method::GET, Uri::from_static("/v2/health/ready")),
            Question::ModelReady { name, version } => (Method::GET, path(name, version, "/ready")?),
            Question::ModelMetadata { name, version } => (Method::GET, path(name, version, "")?),
            Question::Index => (Method::POST, Uri::from_static("/v2/repository/index")),
        };
        let (status, _, body) = self.exchange(Call { method, path, json_size: None, body: Pieces::default() }).await?;
        match question {
            Question::ServerLive | Question::ServerReady | Question::ModelReady { .. } => match status.as_u16() {
                200 => Ok(Value::Bool(true)),
                400 | 404 | 503 => Ok(Value::Bool(false)),
                other => Err(decode_error(other, &body)),
            },
            _ if status == StatusCode::OK => {
                serde_json::from_slice(&body).map_err(|error| NnrpError::new(Reason::Malformed, format!("{}: the answer is no JSON: {error}", self.endpoint)))
            }
            _ => Err(decode_error(status.as_u16(), &body)),
        }
    }
}

fn path(name: &str, version: &str, verb: &str) -> Result<Uri> {
    let name = utf8_percent_encode(name, SEGMENT);
    let text = match version {
        "" => format!("/v2/models/{name}{verb}"),
        version => format!("/v2/models/{name}/versions/{}{verb}", utf8_percent_encode(version, SEGMENT)),
    };
    Uri::try_from(text).map_err(|_| NnrpError::new(Reason::ModelNotFound, "the model's name is too long for a path"))
}

impl HttpClient {
    async fn exchange(&self, call: Call) -> Result<(StatusCode, Option<usize>, Bytes)> {
        let (mut link, response) = self.send(call).await?;
        let (parts, incoming) = response.into_parts();
        let json_size = number(&parts.headers, &JSON_SIZE)?;
        let bounds = Bounds { byte_size: ANSWER_LIMIT, pause: PAUSE };
        let body = link.drive(body::read(&parts.headers, incoming, json_size.unwrap_or(0), bounds, &self.pool)).await;
        let body =
            body.map_err(|error| if error.is(Reason::Malformed) { self.endpoint.failed(format_args!("the answer broke off: {error}")) } else { error })?;
        if link.is_open() {
            self.kept.lock().push(link);
        }
        Ok((parts.status, json_size, body))
    }

    /// Sends on a kept connection, or on a new one when there is none or the server has closed it meanwhile.
    async fn send(&self, call: Call) -> Result<(Box<Link>, HttpResponse<Incoming>)> {
        loop {
            let kept = self.kept.lock().pop();
            let Some(mut link) = kept else { break };
            let answer = link.sender.try_send_request(self.request(call.clone()));
            match link.drive(answer).await {
                Ok(response) => return Ok((link, response)),
                Err(mut refused) => {
                    if refused.take_message().is_none() && !closed(refused.error()) {
                        return Err(self.lost(refused.error()));
                    }
                }
            }
        }
        // Boxed: it is rare, and would make each call's future as large as itself.
        let mut link = Box::pin(self.connect()).await?;
        let answer = link.sender.send_request(self.request(call));
        let response = link.drive(answer).await.map_err(|error| self.lost(&error))?;
        Ok((link, response))
    }

    fn request(&self, call: Call) -> HttpRequest<Pieces> {
        let mut request = HttpRequest::new(call.body);
        *request.method_mut() = call.method;
        *request.uri_mut() = call.path;
        let headers = request.headers_mut();
        if let Some(host) = &self.host {
            headers.insert(header::HOST, host.clone());
        }
        match call.json_size {
            Some(size) => {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
                headers.insert(JSON_SIZE, HeaderValue::from(size));
            }
            None => {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            }
        }
        request
    }

    async fn connect(&self) -> Result<Box<Link>> {
        let Endpoint { host, port } = &self.endpoint;
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((host.as_str(), *port)))
            .await
            .map_err(|_| self.endpoint.failed("no connection within 10 s"))?
            .map_err(|error| self.endpoint.failed(format_args!("no connection: {}", error.kind())))?;
        let _ = stream.set_nodelay(true);
        let made = Builder::new().max_buf_size(READ_SIZE).handshake(TokioIo::new(Plain(stream))).await;
        made.map(|made| Box::new(Link::new(made))).map_err(|error| self.lost(&error))
    }

    #[cold]
    fn lost(&self, error: &hyper::Error) -> NnrpError {
        let why = if error.is_parse() { "the answer is not HTTP" } else { "the connection was lost before the answer came" };
        self.endpoint.failed(why)
    }
}

/// Whether the server closed a kept connection before any byte of an answer.
fn closed(error: &hyper::Error) -> bool {
    error.is_canceled()
        || error.is_closed()
        || error.is_incomplete_message()
        || std::error::Error::source(error).is_some_and(|cause| cause.is::<std::io::Error>())
}
