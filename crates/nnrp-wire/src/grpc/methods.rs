//! The methods of `inference.GRPCInferenceService` that this server offers.
use super::{Service, health};
use crate::codec::check_elements;
use crate::codec::proto;
use crate::codec::proto::messages as m;
use crate::frame::grpc::{self, Parts};
use crate::frame::timeout;
use crate::shared::{EXTENSIONS, awaited};
use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;
use m::model_metadata_response::TensorMetadata;
use m::repository_index_response::ModelIndex;
use nnrp_core::model::Name;
use nnrp_core::{Engine, Loaded, NnrpError, Reason, Result, TensorSpec};
use prost::Message;
use std::sync::Arc;
use std::time::Instant;

/// Most bytes of a message that carries no tensors.
pub(super) const SMALL: usize = 64 << 10;

/// A method.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Method {
    ServerLive,
    ServerReady,
    ServerMetadata,
    ModelReady,
    ModelMetadata,
    ModelInfer,
    RepositoryIndex,
    /// Of the service beside it, `grpc.health.v1.Health`.
    Health,
}

impl Method {
    /// The method of a name, if the server offers it.
    pub(super) fn from_name(name: &str) -> Option<Method> {
        match name {
            "ModelInfer" => Some(Method::ModelInfer),
            "ServerLive" => Some(Method::ServerLive),
            "ServerReady" => Some(Method::ServerReady),
            "ServerMetadata" => Some(Method::ServerMetadata),
            "ModelReady" => Some(Method::ModelReady),
            "ModelMetadata" => Some(Method::ModelMetadata),
            "RepositoryIndex" => Some(Method::RepositoryIndex),
            _ => None,
        }
    }
}

/// The one method that is no unary call.
pub(super) const STREAM: &str = "ModelStreamInfer";

/// Whether the server offers a method of that name.
pub(super) fn is_offered(name: &str) -> bool {
    name == STREAM || Method::from_name(name).is_some()
}

/// Reads the request of a unary call and makes its answer.
pub(super) async fn call(service: &Service, method: Method, request: Request<Incoming>) -> Result<Parts> {
    let received = Instant::now();
    let engine = (method == Method::ModelInfer).then_some(&service.shared.engine);
    let _taken = engine.map(|_| service.shared.take()).transpose()?;
    let (message, deadline) = receive(service, engine, request).await?;
    match method {
        Method::ModelInfer => infer(service, message, received, deadline).await,
        Method::ServerLive => read(message).and_then(|m::ServerLiveRequest {}| grpc::frame(&m::ServerLiveResponse { live: true })),
        Method::ServerReady => read(message).and_then(|m::ServerReadyRequest {}| grpc::frame(&m::ServerReadyResponse { ready: service.shared.ready() })),
        Method::ServerMetadata => read(message).and_then(|m::ServerMetadataRequest {}| grpc::frame(&server_metadata())),
        Method::ModelReady => grpc::frame(&model_ready(service, &read(message)?)?),
        Method::ModelMetadata => grpc::frame(&model_metadata(service, &read(message)?)?),
        Method::RepositoryIndex => grpc::frame(&repository_index(service, &read(message)?)?),
        Method::Health => grpc::frame(&health::check(service, message)?),
    }
}

/// Reads the one message of a call, and its deadline; one without an engine carries no tensors.
pub(super) async fn receive(service: &Service, engine: Option<&Arc<Engine>>, request: Request<Incoming>) -> Result<(Bytes, Option<Instant>)> {
    let (head, mut body) = request.into_parts();
    let deadline = timeout::deadline(&head.headers, Instant::now())?;
    let settings = &service.shared.settings;
    let byte_size = if engine.is_some() { settings.max_body_bytes } else { settings.max_body_bytes.min(SMALL) };
    let bounds = grpc::Bounds { byte_size, pause: settings.read_timeout, raw_tag: 7, pool: &service.pool, engine };
    let mut trailers = None;
    let reading = grpc::read(&head.headers, &mut body, bounds, &mut trailers);
    let message = match deadline {
        None => reading.await,
        Some(deadline) => tokio::time::timeout_at(deadline.into(), reading).await.unwrap_or_else(|_| Err(late())),
    }?;
    let message = message.ok_or_else(|| NnrpError::new(Reason::Malformed, "message: expected one, got none"))?;
    Ok((message, deadline))
}

async fn infer(service: &Service, message: Bytes, received: Instant, deadline: Option<Instant>) -> Result<Parts> {
    let limit = service.shared.settings.max_body_bytes;
    let mut request = proto::decode_request(proto::read_request(message, limit)?, received)?;
    check_elements(&request, limit)?;
    request.deadline = [request.deadline, deadline].into_iter().flatten().min();
    let mut answer = service.shared.engine.infer_async(request);
    let response = match answer.take_ready() {
        Some(response) => response?,
        None => awaited(answer, &service.signals).await?,
    };
    let mut answer = proto::encode_response(&response);
    let raws = std::mem::take(&mut answer.raw_output_contents);
    grpc::frame_raw(&answer, 6, raws)
}

fn read<M: Message + Default>(message: Bytes) -> Result<M> {
    M::decode(message).map_err(proto::malformed)
}

#[cold]
fn late() -> NnrpError {
    NnrpError::new(Reason::Deadline, "the deadline passed while the message was awaited")
}

fn server_metadata() -> m::ServerMetadataResponse {
    m::ServerMetadataResponse {
        name: "nnrp".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        extensions: EXTENSIONS.into_iter().map(str::to_owned).collect(),
    }
}

fn model_ready(service: &Service, asked: &m::ModelReadyRequest) -> Result<m::ModelReadyResponse> {
    let engine = &service.shared.engine;
    engine.model(&asked.name, &asked.version)?;
    Ok(m::ModelReadyResponse { ready: service.shared.ready() })
}

fn model_metadata(service: &Service, asked: &m::ModelMetadataRequest) -> Result<m::ModelMetadataResponse> {
    let engine = &service.shared.engine;
    let loaded = engine.model(&asked.name, &asked.version)?;
    Ok(describe(&loaded, &engine.versions(&loaded.name)))
}

fn describe(loaded: &Loaded, versions: &[Name]) -> m::ModelMetadataResponse {
    let tensor =
        |spec: &TensorSpec| TensorMetadata { name: (*spec.name).to_owned(), datatype: spec.datatype.name().to_owned(), shape: spec.wire_shape().to_vec() };
    let signature = loaded.signature();
    m::ModelMetadataResponse {
        name: (*loaded.name).to_owned(),
        versions: versions.iter().map(|version| (**version).to_owned()).collect(),
        platform: loaded.platform(),
        inputs: signature.inputs.iter().map(tensor).collect(),
        outputs: signature.outputs.iter().map(tensor).collect(),
    }
}

fn repository_index(service: &Service, asked: &m::RepositoryIndexRequest) -> Result<m::RepositoryIndexResponse> {
    if !asked.repository_name.is_empty() {
        return Err(NnrpError::new(Reason::NotOffered, "this server has one repository; expected an empty repository_name"));
    }
    let entry = |loaded: &Arc<Loaded>| ModelIndex {
        name: (*loaded.name).to_owned(),
        version: (*loaded.version).to_owned(),
        state: "READY".to_owned(),
        reason: String::new(),
    };
    Ok(m::RepositoryIndexResponse { models: service.shared.engine.models().iter().map(entry).collect() })
}
