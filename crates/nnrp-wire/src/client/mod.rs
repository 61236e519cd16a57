//! Clients of the REST and the gRPC form, with one face.
mod caller;
pub(crate) mod grpc;
pub(crate) mod http;
mod link;
mod told;

pub use caller::Pending;
pub use told::Told;

use caller::Caller;
use nnrp_core::stop::Look;
use nnrp_core::{Answers, Code, NnrpError, Reason, Request, Response, Result};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use tokio::sync::mpsc;

/// Where a server is.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// Name or address, without brackets.
    pub(crate) host: String,
    /// TCP port.
    pub(crate) port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{open}{}{close}:{}", self.host, self.port)
    }
}

impl Endpoint {
    /// The error of a server that cannot be reached, or that was lost.
    #[cold]
    pub(crate) fn failed(&self, what: impl fmt::Display) -> NnrpError {
        NnrpError::new(Reason::ConnectionFailed, format!("{self}: {what}")).with("host", self.host.as_str()).with("port", self.port)
    }

    /// The error of an answer that cannot be read: who asked has done nothing wrong (spec §5.1).
    #[cold]
    pub(crate) fn unreadable(&self, error: NnrpError) -> NnrpError {
        if error.code() != Code::InvalidArgument {
            return error;
        }
        self.failed(format_args!("the answer cannot be read: {}", error.message()))
    }
}

/// What a client may ask beside inference.
#[derive(Clone, Debug)]
pub enum Question {
    /// → `{"name", "version", "extensions"}`
    ServerMetadata,
    /// → true or false
    ServerLive,
    /// → true or false
    ServerReady,
    /// → true or false; an unknown model is not ready
    ModelReady {
        /// The model's name.
        name: String,
        /// "" is the latest.
        version: String,
    },
    /// → `{"name", "versions", "platform", "inputs", "outputs"}`
    ModelMetadata {
        /// The model's name.
        name: String,
        /// "" is the latest.
        version: String,
    },
    /// → `[{"name", "version", "state", "reason"}]`
    Index,
}

/// One form of the protocol, from the client's side. Deadlines and cancellation are the caller's: it drops the future.
pub(crate) trait Transport: Send + Sync + 'static {
    /// A request, encoded; cheap to clone.
    type Call: Send + 'static;

    /// A transport that connects when it is first used; its connections belong to the tokio runtime that polls it.
    fn open(endpoint: &Endpoint) -> Self;

    /// Encodes a request on the caller's thread.
    fn prepare(request: &Request<'_, 'static>) -> Result<Self::Call>;

    /// Sends it and reads the answer; may be called many times at once.
    fn infer(&self, call: Self::Call) -> impl Future<Output = Result<Response>> + Send;

    /// Encodes a request for a stream of answers.
    fn prepare_stream(request: &Request<'_, 'static>) -> Result<Self::Call>;

    /// Sends it and passes each answer on; gives what they end with.
    fn stream(&self, call: Self::Call, sink: mpsc::Sender<Response>) -> impl Future<Output = Result<Response>> + Send;

    /// Asks for metadata or health.
    fn ask(&self, question: Question) -> impl Future<Output = Result<Value>> + Send;
}

/// A server, seen as one more place to infer.
///
/// The blocking calls drive a connection of their own on the caller's thread, so they must not be made from within a tokio runtime.
pub struct Client(Form);

enum Form {
    Http(Caller<http::HttpClient>),
    Grpc(Caller<grpc::GrpcClient>),
}

macro_rules! either {
    ($client:expr, $caller:ident => $call:expr) => {
        match &$client.0 {
            Form::Http($caller) => $call,
            Form::Grpc($caller) => $call,
        }
    };
}

impl Client {
    /// A client of `http://host:port` or `grpc://host:port`; no traffic yet.
    ///
    /// # Errors
    /// `INVALID_OPTION`: not such a URL.
    pub fn connect(url: &str) -> Result<Client> {
        let invalid = |why: &str| {
            let got = nnrp_core::error::excerpt(&without_credentials(url));
            NnrpError::new(Reason::InvalidOption, format!("url: expected http://host:port or grpc://host:port, got '{got}' ({why})")).with("got", got)
        };
        let uri: ::http::Uri = url.parse().map_err(|_| invalid("not a URL"))?;
        let authority = uri.authority().ok_or_else(|| invalid("no host"))?;
        if authority.as_str().contains('@') || !matches!(uri.path_and_query().map_or("", |path| path.as_str()), "" | "/") {
            return Err(invalid("more than a host and a port"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if authority.port_u16().is_none() && authority.as_str().len() > authority.host().len() {
            return Err(invalid("the port is no number up to 65535"));
        }
        let endpoint = |port| Endpoint { host, port: authority.port_u16().unwrap_or(port) };
        match uri.scheme_str() {
            Some("http") => Ok(Client(Form::Http(Caller::new(endpoint(8000))))),
            Some("grpc") => Ok(Client(Form::Grpc(Caller::new(endpoint(8001))))),
            _ => Err(invalid("another scheme")),
        }
    }

    /// Infers, blocking the caller's thread.
    ///
    /// # Errors
    /// The server's own error, `CONNECTION_FAILED`, `DEADLINE`, or `CLIENT_CANCELLED` when `request.stop` was raised.
    pub fn infer(&self, request: Request<'_, 'static>) -> Result<Response> {
        either!(self, caller => caller.infer(&request))
    }

    /// As [`Client::infer`]; while the answer is awaited, `look` is called several times a second, and where it says so the request is withdrawn.
    ///
    /// # Errors
    /// As [`Client::infer`]; `CLIENT_CANCELLED` when it was withdrawn.
    pub fn infer_looking(&self, request: Request<'_, 'static>, look: Look<'_>) -> Result<Response> {
        either!(self, caller => caller.infer_looking(&request, look))
    }

    /// Infers on a background thread of the client; dropping the answer cancels the request.
    pub fn infer_async(&self, request: Request<'_, 'static>) -> Pending {
        either!(self, caller => caller.infer_async(&request))
    }

    /// Asks for a stream of answers, read on a background thread of the client; dropping what this returns cancels the request.
    ///
    /// # Errors
    /// As [`Client::infer`], as far as they are known at once; the others end the stream. `NOT_OFFERED` over REST.
    pub fn stream(&self, request: Request<'_, 'static>) -> Result<Answers> {
        either!(self, caller => caller.stream(&request))
    }

    /// Tells the server's name, version and extensions.
    ///
    /// # Errors
    /// As [`Client::infer`].
    pub fn server_metadata(&self) -> Result<Value> {
        self.ask(Question::ServerMetadata)
    }

    /// Whether the server answers at all.
    ///
    /// # Errors
    /// As [`Client::infer`]; a server that cannot be reached is an error, not `false`.
    pub fn server_live(&self) -> Result<bool> {
        self.ask(Question::ServerLive).map(|live| live == Value::Bool(true))
    }

    /// Whether the server takes requests.
    ///
    /// # Errors
    /// As [`Client::server_live`].
    pub fn server_ready(&self) -> Result<bool> {
        self.ask(Question::ServerReady).map(|ready| ready == Value::Bool(true))
    }

    /// Whether a model version can be asked; a version of "" is the latest.
    ///
    /// # Errors
    /// As [`Client::server_live`].
    pub fn model_ready(&self, name: &str, version: &str) -> Result<bool> {
        let question = Question::ModelReady { name: name.to_owned(), version: version.to_owned() };
        self.ask(question).map(|ready| ready == Value::Bool(true))
    }

    /// Tells a model's versions, inputs and outputs.
    ///
    /// # Errors
    /// As [`Client::infer`].
    pub fn model_metadata(&self, name: &str, version: &str) -> Result<Value> {
        self.ask(Question::ModelMetadata { name: name.to_owned(), version: version.to_owned() })
    }

    /// Lists the server's models: `[{"name", "version", "state", "reason"}]`.
    ///
    /// # Errors
    /// As [`Client::infer`].
    pub fn index(&self) -> Result<Value> {
        self.ask(Question::Index)
    }

    fn ask(&self, question: Question) -> Result<Value> {
        self.ask_looking(question, &mut || false)
    }

    /// Asks, and calls `look` meanwhile as [`Client::infer_looking`] does.
    ///
    /// # Errors
    /// As [`Client::infer_looking`].
    pub fn ask_looking(&self, question: Question, look: Look<'_>) -> Result<Value> {
        either!(self, caller => caller.ask(question, look))
    }
}

/// A URL with what stands before its host left out: it may be a password.
fn without_credentials(url: &str) -> Cow<'_, str> {
    let Some((before, host)) = url.rsplit_once('@') else { return url.into() };
    let scheme = before.find("://").map_or("", |at| &before[..at + 3]);
    format!("{scheme}…@{host}").into()
}
