//! A gRPC client that sends what it likes, framed by hand, and reads statuses by tonic's own crates.
use crate::support::{Gate, PATIENCE};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use nnrp_wire::codec::proto::messages as m;
use nnrp_wire::{Server, ServerSettings};
use prost::Message;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::{Sleep, sleep};
use tonic_types::StatusExt;

/// A server of both forms and its gate.
pub(crate) fn serve_both() -> (Server, Gate) {
    crate::support::serve(settings())
}

/// The same with other settings.
pub(crate) fn serve_with(change: impl FnOnce(&mut ServerSettings)) -> (Server, Gate) {
    let mut settings = settings();
    change(&mut settings);
    crate::support::serve(settings)
}

/// Settings of a test's server of both forms.
pub(crate) fn settings() -> ServerSettings {
    ServerSettings { grpc_port: Some(0), ..crate::support::settings() }
}

/// The pieces of a body, whether it ends after them, and how long it waits before each.
pub(crate) struct Script {
    pieces: VecDeque<Bytes>,
    hangs: bool,
    pause: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Script {
    pub(crate) fn of(pieces: impl IntoIterator<Item = impl Into<Bytes>>) -> Script {
        Script { pieces: pieces.into_iter().map(Into::into).collect(), hangs: false, pause: Duration::ZERO, timer: None }
    }

    pub(crate) fn that_never_ends(mut self) -> Script {
        self.hangs = true;
        self
    }

    pub(crate) fn that_pauses(mut self, pause: Duration) -> Script {
        self.pause = pause;
        self
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if !self.pause.is_zero() && !self.pieces.is_empty() {
            let pause = self.pause;
            ready!(self.timer.get_or_insert_with(|| Box::pin(sleep(pause))).as_mut().poll(context));
            self.timer = None;
        }
        match self.pieces.pop_front() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None if self.hangs => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}

/// A message with its five bytes in front.
pub(crate) fn framed(flag: u8, message: &[u8]) -> Bytes {
    let mut frame = vec![flag];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(message);
    frame.into()
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) http: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) status: tonic::Status,
}

impl Answer {
    /// The message, of a call that went well.
    pub(crate) fn message<M: Message + Default>(&self) -> M {
        assert_eq!(self.status.code(), tonic::Code::Ok, "{:?}", self.status);
        M::decode(&self.body[5..]).unwrap()
    }

    /// Asserts an error of the house's shape; its details as ErrorInfo carries them.
    pub(crate) fn assert_error(&self, code: i32, reason: &str) -> std::collections::HashMap<String, String> {
        let details = self.status.get_error_details();
        let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo: {:?}", self.status));
        assert_eq!((self.status.code() as i32, info.reason.as_str(), info.domain.as_str()), (code, reason, "nnrp"), "{:?}", self.status);
        assert!(!self.status.message().is_empty() && !self.status.message().contains(".rs"), "{:?}", self.status);
        info.metadata.clone()
    }
}

/// One connection.
pub(crate) struct Peer {
    pub(crate) runtime: Runtime,
    pub(crate) sender: SendRequest<Script>,
}

impl Peer {
    pub(crate) fn to(server: &Server) -> Peer {
        Peer::of(server, &http2::Builder::new(TokioExecutor::new()))
    }

    /// One to which little is sent before it reads.
    pub(crate) fn that_reads_slowly(server: &Server) -> Peer {
        Peer::of(server, http2::Builder::new(TokioExecutor::new()).initial_stream_window_size(1 << 16).initial_connection_window_size(1 << 16))
    }

    /// One to which nothing is sent but headers.
    pub(crate) fn that_never_reads(server: &Server) -> Peer {
        Peer::of(server, http2::Builder::new(TokioExecutor::new()).initial_stream_window_size(0))
    }

    fn of(server: &Server, http: &http2::Builder<TokioExecutor>) -> Peer {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let sender = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(server.grpc_address().unwrap()).await.unwrap();
            let (sender, connection) = http.handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            sender
        });
        Peer { runtime, sender }
    }

    /// Calls a method of the inference service with one message.
    pub(crate) fn call(&self, method: &str, message: &impl Message) -> Answer {
        self.send(&format!("/inference.GRPCInferenceService/{method}"), &[], Script::of([framed(0, &message.encode_to_vec())]))
    }

    /// Calls ModelInfer with what is not quite a message.
    pub(crate) fn infer(&self, headers: &[(&'static str, &str)], body: Script) -> Answer {
        self.send("/inference.GRPCInferenceService/ModelInfer", headers, body)
    }

    pub(crate) fn send(&self, path: &str, headers: &[(&'static str, &str)], body: Script) -> Answer {
        let call = self.start(request(path, headers, body));
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, call).await.expect("an answer in time").unwrap() })
    }

    /// Makes a call that goes on while the runtime is driven.
    pub(crate) fn start(&self, request: Request<Script>) -> JoinHandle<Answer> {
        let mut sender = self.sender.clone();
        self.runtime.spawn(async move { read(sender.send_request(request).await.unwrap()).await })
    }
}

pub(crate) fn request(path: &str, headers: &[(&'static str, &str)], body: Script) -> Request<Script> {
    let mut request = Request::post(format!("http://t{path}")).header("te", "trailers");
    for (name, value) in [("content-type", "application/grpc")].iter().filter(|(name, _)| headers.iter().all(|(given, _)| given != name)).chain(headers) {
        request = request.header(*name, *value);
    }
    request.body(body).unwrap()
}

/// Reads an answer to its end.
pub(crate) async fn read(response: http::Response<Incoming>) -> Answer {
    let (head, mut body) = response.into_parts();
    let mut bytes = BytesMut::new();
    let mut trailers = None;
    while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame.into_data() {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    let status = trailers.as_ref().or(Some(&head.headers)).and_then(tonic::Status::from_header_map).expect("a status");
    Answer { http: head.status.as_u16(), headers: head.headers, body: bytes.freeze(), status }
}

/// A request of the model `double`, or another that takes x.
pub(crate) fn ask(model: &str, x: &[f32]) -> m::ModelInferRequest {
    let input = m::model_infer_request::InferInputTensor { name: "x".into(), datatype: "FP32".into(), shape: vec![x.len() as i64], ..Default::default() };
    let raw: Vec<u8> = x.iter().flat_map(|value| value.to_le_bytes()).collect();
    m::ModelInferRequest { model_name: model.into(), inputs: vec![input], raw_input_contents: vec![raw.into()], ..Default::default() }
}

/// The framed bytes of such a request.
pub(crate) fn asked(model: &str, x: &[f32]) -> Bytes {
    framed(0, &ask(model, x).encode_to_vec())
}
