//! The gRPC form from the client's side: one HTTP/2 connection, made when it is first needed and made anew when it was lost.
use super::{Endpoint, Question, Transport};
use crate::buffer::Pool;
use crate::codec::proto::{self, messages as m};
use crate::grpc::frame::{self, Outgoing, Parts};
use crate::grpc::{CONNECTION_WINDOW, FRAME_SIZE, GRPC, SERVICE, STREAM_WINDOW, status, timeout};
use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request as HttpRequest, Response as HttpResponse, Uri, header};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use nnrp_core::{Code, NnrpError, Reason, Request, Response, Result};
use prost::Message;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may pause within an answer.
const PAUSE: Duration = Duration::from_secs(300);
/// Largest answer, also once its typed contents are decoded.
const ANSWER_LIMIT: usize = 2 << 30;

const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("nnrp/", env!("CARGO_PKG_VERSION")));

/// A request on its way.
#[derive(Clone)]
pub(crate) struct Call {
    method: &'static str,
    parts: Parts,
    deadline: Option<Instant>,
}

impl Call {
    fn new(method: &'static str, message: &impl Message) -> Result<Call> {
        Ok(Call { method, parts: frame::frame(message)?, deadline: None })
    }
}

/// A server's gRPC form.
pub(crate) struct GrpcClient {
    endpoint: Endpoint,
    authority: Option<Authority>,
    sender: Mutex<Option<SendRequest<Outgoing>>>,
    pool: Pool,
}

impl Transport for GrpcClient {
    type Call = Call;

    fn open(endpoint: &Endpoint) -> Self {
        let authority = endpoint.to_string().parse().ok();
        GrpcClient { endpoint: endpoint.clone(), authority, sender: Mutex::new(None), pool: Pool::default() }
    }

    fn prepare(request: &Request<'_, 'static>) -> Result<Call> {
        let mut message = proto::encode_request(request);
        let raws = std::mem::take(&mut message.raw_input_contents);
        Ok(Call { method: "ModelInfer", parts: frame::frame_raw(&message, 7, raws)?, deadline: request.deadline })
    }

    async fn infer(&self, call: Call) -> Result<Response> {
        let message = self.exchange(&call).await?;
        proto::decode_response(proto::read_response(message, ANSWER_LIMIT)?)
    }

    async fn ask(&self, question: Question) -> Result<Value> {
        match question {
            Question::ServerLive => {
                let answer: m::ServerLiveResponse = self.call("ServerLive", &m::ServerLiveRequest {}).await?;
                Ok(answer.live.into())
            }
            Question::ServerReady => {
                let answer: m::ServerReadyResponse = self.call("ServerReady", &m::ServerReadyRequest {}).await?;
                Ok(answer.ready.into())
            }
            Question::ModelReady { name, version } => {
                match self.call::<m::ModelReadyResponse>("ModelReady", &m::ModelReadyRequest { name, version }).await {
                    Ok(answer) => Ok(answer.ready.into()),
                    Err(error) if error.code() == Code::NotFound => Ok(Value::Bool(false)),
                    Err(error) => Err(error),
                }
            }
            Question::ServerMetadata => {
                let answer: m::ServerMetadataResponse = self.call("ServerMetadata", &m::ServerMetadataRequest {}).await?;
                Ok(json!({"name": answer.name, "version": answer.version, "extensions": answer.extensions}))
            }
            Question::ModelMetadata { name, version } => self.call("ModelMetadata", &m::ModelMetadataRequest { name, version }).await.map(model_metadata),
            Question::Index => self.call("RepositoryIndex", &m::RepositoryIndexRequest::default()).await.map(index),
        }
    }
}

fn model_metadata(answer: m::ModelMetadataResponse) -> Value {
    let tensor = |spec: m::model_metadata_response::TensorMetadata| json!({"name": spec.name, "datatype": spec.datatype, "shape": spec.shape});
    json!({
        "name": answer.name,
        "versions": answer.versions,
        "platform": answer.platform,
        "inputs": answer.inputs.into_iter().map(tensor).collect::<Value>(),
        "outputs": answer.outputs.into_iter().map(tensor).collect::<Value>(),
    })
}

fn index(answer: m::RepositoryIndexResponse) -> Value {
    let entry = |model: m::repository_index_response::ModelIndex| {
        let mut entry = json!({"name": model.name, "version": model.version, "state": model.state});
        if !model.reason.is_empty() {
            entry["reason"] = model.reason.into();
        }
        entry
    };
    answer.models.into_iter().map(entry).collect()
}

impl GrpcClient {
    async fn call<A: Message + Default>(&self, method: &'static str, message: &impl Message) -> Result<A> {
        A::decode(self.exchange(&Call::new(method, message)?).await?).map_err(proto::malformed)
    }

    /// Sends a call and reads its answer; once more on a new connection when the one that was there turns out to be gone.
    async fn exchange(&self, call: &Call) -> Result<Bytes> {
        let (mut sender, fresh) = self.connection().await?;
        let refused = match sender.try_send_request(self.request(call)?).await {
            Ok(response) => return self.answer(response).await,
            Err(refused) => refused,
        };
        if fresh || !sender.is_closed() {
            return Err(self.lost(refused.error()));
        }
        let (mut sender, _) = self.connection().await?;
        let response = sender.send_request(self.request(call)?).await.map_err(|error| self.lost(&error))?;
        self.answer(response).await
    }

    fn request(&self, call: &Call) -> Result<HttpRequest<Outgoing>> {
        let mut request = HttpRequest::new(Outgoing::Framed { parts: call.parts.clone().into_iter(), trailers: None });
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri(call.method)?;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, GRPC);
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::USER_AGENT, USER_AGENT);
        if let Some(deadline) = call.deadline {
            timeout::insert(headers, deadline.saturating_duration_since(Instant::now()));
        }
        Ok(request)
    }

    fn uri(&self, method: &str) -> Result<Uri> {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = self.authority.clone();
        parts.path_and_query = PathAndQuery::try_from(format!("/{SERVICE}/{method}")).ok();
        Uri::from_parts(parts).map_err(|_| self.endpoint.failed("not a host and a port"))
    }

    async fn connection(&self) -> Result<(SendRequest<Outgoing>, bool)> {
        let mut kept = self.sender.lock().await;
        if let Some(sender) = kept.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok((sender.clone(), false));
        }
        let sender = self.connect().await?;
        *kept = Some(sender.clone());
        Ok((sender, true))
    }

    async fn connect(&self) -> Result<SendRequest<Outgoing>> {
        let Endpoint { host, port } = &self.endpoint;
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((host.as_str(), *port)))
            .await
            .map_err(|_| self.endpoint.failed("no connection within 10 s"))?
            .map_err(|error| self.endpoint.failed(format_args!("no connection: {}", error.kind())))?;
        let _ = stream.set_nodelay(true);
        let mut http = Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new()).initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW).max_frame_size(FRAME_SIZE);
        let (sender, connection) = http.handshake(TokioIo::new(stream)).await.map_err(|error| self.lost(&error))?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }

    async fn answer(&self, response: HttpResponse<Incoming>) -> Result<Bytes> {
        let (head, mut body) = response.into_parts();
        if let Some(Err(error)) = status::read(&head.headers) {
            return Err(error);
        }
        if head.status != http::StatusCode::OK {
            return Err(self.endpoint.failed(format_args!("expected a gRPC server, got HTTP status {}", head.status.as_u16())));
        }
        let mut trailers = None;
        let bounds = frame::Bounds { byte_size: ANSWER_LIMIT, pause: PAUSE, raw_tag: 6, pool: &self.pool };
        let message = frame::read(&head.headers, &mut body, bounds, &mut trailers).await.map_err(|error| match error.code() {
            Code::Cancelled => self.endpoint.failed("the connection was lost before the answer ended"),
            _ => error,
        })?;
        match trailers.as_ref().or(Some(&head.headers)).and_then(status::read) {
            Some(Err(error)) => Err(error),
            Some(Ok(())) => message.ok_or_else(|| NnrpError::new(Reason::Malformed, format!("{}: expected an answer, got none", self.endpoint))),
            None => Err(self.endpoint.failed("the answer ended without a status")),
        }
    }

    #[cold]
    fn lost(&self, error: &hyper::Error) -> NnrpError {
        let why = if error.is_parse() { "the server does not speak HTTP/2" } else { "the connection was lost before the answer came" };
        self.endpoint.failed(why)
    }
}
