//! The gRPC form from the client's side: connections of HTTP/2, one call at a time on each, kept for the next.
use super::link::{Form, Link, Links, Lost};
use super::{Endpoint, Question, Transport};
use crate::buffer::Pool;
use crate::codec::proto::{self, messages as m};
use crate::frame::grpc::{self, CONNECTION_WINDOW, FRAME_SIZE, GRPC, Parts, SERVICE, STREAM_WINDOW};
use crate::frame::messages::Messages;
use crate::frame::{status, streamed, timeout};
use bytes::Bytes;
use h2::RecvStream;
use h2::client::{Builder, Connection, SendRequest};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request as HttpRequest, Response as HttpResponse, StatusCode, Uri, header};
use http_body::{Body, Frame};
use nnrp_core::{Code, NnrpError, Reason, Request, Response, Result};
use prost::Message;
use serde_json::{Value, json};
use smallvec::SmallVec;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// How long a server may pause within an answer.
const PAUSE: Duration = Duration::from_secs(300);
/// What small frames may cost beside their bytes before they are read. With less than this, many small answers of a stream that is read slowly end the
/// connection before its window is full.
const FRAMING: usize = 64 << 20;

/// Largest answer, also once its typed contents are decoded.
const ANSWER_LIMIT: usize = 2 << 30;

const STREAM: &str = "ModelStreamInfer";

const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("nnrp/", env!("CARGO_PKG_VERSION")));

type GrpcLink = Link<SendRequest<Bytes>, Connection<TcpStream>>;

/// A request on its way.
#[derive(Clone)]
pub(crate) struct Call {
    method: &'static str,
    parts: Parts,
    deadline: Option<Instant>,
}

impl Call {
    fn new(method: &'static str, message: &impl Message) -> Result<Call> {
        Ok(Call { method, parts: grpc::frame(message)?, deadline: None })
    }
}

/// A server's gRPC form; keeps the connections that it made.
pub(crate) struct GrpcClient {
    endpoint: Endpoint,
    authority: Option<Authority>,
    links: Links<GrpcLink>,
    pool: Pool,
}

impl Transport for GrpcClient {
    type Call = Call;

    fn open(endpoint: &Endpoint) -> Self {
        let authority = endpoint.to_string().parse().ok();
        GrpcClient { endpoint: endpoint.clone(), authority, links: Links::new(), pool: Pool::default() }
    }

    fn prepare(request: &Request<'_, 'static>) -> Result<Call> {
        let mut message = proto::encode_request(request);
        let raws = std::mem::take(&mut message.raw_input_contents);
        Ok(Call { method: "ModelInfer", parts: grpc::frame_raw(&message, 7, raws)?, deadline: request.deadline })
    }

    async fn infer(&self, call: Call) -> Result<Response> {
        let message = self.exchange(&call).await?;
        proto::read_response(message, ANSWER_LIMIT).and_then(proto::decode_response).map_err(|error| self.endpoint.unreadable(error))
    }

    fn prepare_stream(request: &Request<'_, 'static>) -> Result<Call> {
        let mut message = streamed::encode_request(request);
        let raws = std::mem::take(&mut message.raw_input_contents);
        Ok(Call { method: STREAM, parts: grpc::frame_raw(&message, 7, raws)?, deadline: request.deadline })
    }

    async fn stream(&self, call: Call, sink: mpsc::Sender<Response>) -> Result<Response> {
        let (mut link, response) = self.links.send(self, &self.endpoint, &call).await?;
        let last = link.drive(self.answers(response, &sink)).await?;
        // One that was left in the middle ends with its connection, for the server too.
        if !link.ended() {
            self.links.keep(link);
        }
        Ok(last)
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
            Question::ModelReady { name, version } => match self.call::<m::ModelReadyResponse>("ModelReady", &m::ModelReadyRequest { name, version }).await {
                Ok(answer) => Ok(answer.ready.into()),
                Err(error) if error.code() == Code::NotFound => Ok(Value::Bool(false)),
                Err(error) => Err(error),
            },
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
        A::decode(self.exchange(&Call::new(method, message)?).await?).map_err(|error| self.endpoint.unreadable(proto::malformed(error)))
    }

    async fn exchange(&self, call: &Call) -> Result<Bytes> {
        let (mut link, response) = self.links.send(self, &self.endpoint, call).await?;
        let answer = link.drive(self.answer(response)).await;
        if !link.ended() {
            self.links.keep(link);
        }
        answer
    }

    fn request(&self, call: &Call) -> Result<HttpRequest<()>> {
        let mut request = HttpRequest::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri(call.method)?;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, GRPC);
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::USER_AGENT, USER_AGENT);
        if call.method == STREAM {
            headers.insert(streamed::STATUS_ERRORS, HeaderValue::from_static("true"));
        }
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

    async fn answer(&self, response: HttpResponse<RecvStream>) -> Result<Bytes> {
        let (head, body) = response.into_parts();
        self.check(&head)?;
        let mut trailers = None;
        let message = grpc::read(&head.headers, &mut Answered(body), self.bounds(), &mut trailers).await.map_err(|error| self.cut_off(error))?;
        match trailers.as_ref().or(Some(&head.headers)).and_then(status::read) {
            Some(Err(error)) => Err(error),
            Some(Ok(())) => message.ok_or_else(|| self.endpoint.failed("expected an answer, got none")),
            None => Err(self.endpoint.failed("the answer ended without a status")),
        }
    }

    /// Passes the answers of a stream on; gives the one without outputs that ends them.
    async fn answers(&self, response: HttpResponse<RecvStream>, sink: &mpsc::Sender<Response>) -> Result<Response> {
        let (head, body) = response.into_parts();
        self.check(&head)?;
        let mut messages = Messages::new(head.headers, Answered(body), &self.bounds());
        let mut end = Response { model: "".into(), version: "".into(), id: None, outputs: SmallVec::new() };
        while let Some(message) = messages.next().await.map_err(|error| self.cut_off(error))? {
            let message = proto::read_stream_response(message, ANSWER_LIMIT).map_err(|error| self.endpoint.unreadable(error))?;
            let (answer, last) = streamed::answer(message)?;
            let answer = proto::decode_response(answer).map_err(|error| self.endpoint.unreadable(error))?;
            if last && answer.outputs.is_empty() {
                end = answer;
            } else if sink.send(answer).await.is_err() {
                return Err(NnrpError::new(Reason::ClientCancelled, "nobody reads the answers any more"));
            }
        }
        match messages.trailers().and_then(status::read) {
            Some(ended) => ended.map(|()| end),
            None => Err(self.endpoint.failed("the answers ended without a status")),
        }
    }

    fn check(&self, head: &http::response::Parts) -> Result<()> {
        if let Some(Err(error)) = status::read(&head.headers) {
            return Err(error);
        }
        if head.status != StatusCode::OK {
            return Err(self.endpoint.failed(format_args!("expected a gRPC server, got HTTP status {}", head.status.as_u16())));
        }
        Ok(())
    }

    fn bounds(&self) -> grpc::Bounds<'_> {
        grpc::Bounds { byte_size: ANSWER_LIMIT, pause: PAUSE, raw_tag: 6, pool: &self.pool, engine: None }
    }

    #[cold]
    fn cut_off(&self, error: NnrpError) -> NnrpError {
        if error.code() == Code::Cancelled { self.endpoint.failed("the connection was lost before the answer ended") } else { self.endpoint.unreadable(error) }
    }

    #[cold]
    fn lost(&self, error: &h2::Error) -> NnrpError {
        let why = if error.is_io() || error.is_remote() { "the connection was lost before the answer came" } else { "the server does not speak HTTP/2" };
        self.endpoint.failed(why)
    }
}

impl Form for GrpcClient {
    type Call = Call;
    type Link = GrpcLink;
    type Answer = HttpResponse<RecvStream>;

    async fn greet(&self, stream: TcpStream) -> Result<GrpcLink> {
        let mut http = Builder::new();
        http.enable_push(false).initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW).max_frame_size(FRAME_SIZE);
        http.data_frame_budget(FRAMING);
        http.handshake(stream).await.map(Link::new).map_err(|error| self.lost(&error))
    }

    async fn send(&self, mut link: Box<GrpcLink>, call: &Call) -> std::result::Result<(Box<GrpcLink>, HttpResponse<RecvStream>), Lost> {
        let request = self.request(call)?;
        let mut sender = link.sender.clone();
        let parts = call.parts.clone();
        let mut unsent = true;
        let sent = async {
            poll_fn(|cx| sender.poll_ready(cx)).await?;
            let (answer, mut body) = sender.send_request(request, false)?;
            unsent = false;
            let last = parts.len().saturating_sub(1);
            for (index, part) in parts.into_iter().enumerate() {
                body.send_data(part, index == last)?;
            }
            answer.await
        };
        match link.drive(sent).await {
            Ok(answer) => Ok((link, answer)),
            Err(error) => Err(Lost { error: self.lost(&error), unheard: unsent || closed(&error) }),
        }
    }
}

/// Whether the server closed the connection, or refused the call unseen.
fn closed(error: &h2::Error) -> bool {
    error.is_io() || error.is_remote() && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// The body of an answer.
struct Answered(RecvStream);

impl Body for Answered {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<std::result::Result<Frame<Bytes>, h2::Error>>> {
        if let Some(data) = ready!(self.0.poll_data(cx)) {
            let data = data?;
            self.0.flow_control().release_capacity(data.len())?;
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let trailers = ready!(self.0.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}
