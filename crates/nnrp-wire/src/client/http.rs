//! The REST form from the client's side: HTTP/1.1, tensors in binary, connections kept.
use super::link::{Form, Link, Links, Lost};
use super::{Endpoint, Question, Transport};
use crate::buffer::Pool;
use crate::codec::rest::{decode_error, decode_response, encode_request};
use crate::frame::body::{self, Bounds, JSON_SIZE, number};
use crate::frame::pieces::Pieces;
use crate::io::Plain;
use bytes::Bytes;
use http::{HeaderValue, Method, Request as HttpRequest, Response as HttpResponse, StatusCode, Uri, header};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use nnrp_core::{NnrpError, Reason, Request, Response, Result};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// How long a server may pause within an answer.
const PAUSE: Duration = Duration::from_secs(300);
/// Largest answer.
const ANSWER_LIMIT: usize = 2 << 30;
/// Most bytes that one read takes.
const READ_SIZE: usize = 1 << 20;
/// What stays as it is in a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'-').remove(b'~');

type HttpLink = Link<SendRequest<Pieces>, Connection<TokioIo<Plain>, Pieces>>;

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
    links: Links<HttpLink>,
    pool: Pool,
}

impl Transport for HttpClient {
    type Call = Call;

    fn open(endpoint: &Endpoint) -> Self {
        let host = HeaderValue::from_str(&endpoint.to_string()).ok();
        HttpClient { endpoint: endpoint.clone(), host, links: Links::new(), pool: Pool::default() }
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
        decode_response(&body, json_size).map_err(|error| self.endpoint.unreadable(error))
    }

    fn prepare_stream(_: &Request<'_, 'static>) -> Result<Call> {
        Err(NnrpError::new(Reason::NotOffered, "a stream of answers: REST has none; expected a model behind grpc://host:port"))
    }

    async fn stream(&self, call: Call, _: mpsc::Sender<Response>) -> Result<Response> {
        self.infer(call).await
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
                serde_json::from_slice(&body).map_err(|error| self.endpoint.failed(format_args!("the answer is no JSON: {error}")))
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
        let (mut link, response) = self.links.send(self, &self.endpoint, &call).await?;
        let (parts, incoming) = response.into_parts();
        let json_size = number(&parts.headers, &JSON_SIZE).map_err(|error| self.endpoint.unreadable(error))?;
        let bounds = Bounds { byte_size: ANSWER_LIMIT, pause: PAUSE };
        let body = link.drive(body::read(&parts.headers, incoming, json_size.unwrap_or(0), bounds, &self.pool)).await;
        let body = body.map_err(|error| {
            if error.is(Reason::Malformed) { self.endpoint.failed(format_args!("the answer broke off: {error}")) } else { self.endpoint.unreadable(error) }
        })?;
        if !link.ended() && link.sender.is_ready() {
            self.links.keep(link);
        }
        Ok((parts.status, json_size, body))
    }

    fn request(&self, call: &Call) -> HttpRequest<Pieces> {
        let mut request = HttpRequest::new(call.body.clone());
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = call.path.clone();
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

    #[cold]
    fn lost(&self, error: &hyper::Error) -> NnrpError {
        let why = if error.is_parse() { "the answer is not HTTP" } else { "the connection was lost before the answer came" };
        self.endpoint.failed(why)
    }
}

impl Form for HttpClient {
    type Call = Call;
    type Link = HttpLink;
    type Answer = HttpResponse<Incoming>;

    async fn greet(&self, stream: TcpStream) -> Result<HttpLink> {
        let made = Builder::new().max_buf_size(READ_SIZE).handshake(TokioIo::new(Plain(stream))).await;
        made.map(Link::new).map_err(|error| self.lost(&error))
    }

    async fn send(&self, mut link: Box<HttpLink>, call: &Call) -> std::result::Result<(Box<HttpLink>, HttpResponse<Incoming>), Lost> {
        let answer = link.sender.try_send_request(self.request(call));
        match link.drive(answer).await {
            Ok(answer) => Ok((link, answer)),
            Err(mut refused) => {
                let unsent = refused.take_message().is_some();
                let heard = link.connection.is_some_and(|connection| !connection.into_parts().read_buf.is_empty());
                let unheard = unsent || closed(refused.error()) && !heard;
                Err(Lost { error: self.lost(refused.error()), unheard })
            }
        }
    }
}

/// Whether the server closed the connection.
fn closed(error: &hyper::Error) -> bool {
    error.is_canceled()
        || error.is_closed()
        || error.is_incomplete_message()
        || std::error::Error::source(error).is_some_and(|cause| cause.is::<std::io::Error>())
}
