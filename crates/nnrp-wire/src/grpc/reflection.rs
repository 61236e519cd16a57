//! Server reflection, so that tools need no `.proto`: which services there are, what they say, and what an error says.
use super::methods::is_offered;
use super::patient::Patient;
use crate::codec::proto::DESCRIPTORS;
use http::{Request, Response};
use prost::Message;
use prost_types::FileDescriptorSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::LazyLock;
use tonic::body::Body;
use tonic_reflection::server::Builder;
use tower_service::Service;

type Side = Box<dyn Fn(Request<Patient>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> + Send + Sync>;

static V1: LazyLock<Option<Side>> = LazyLock::new(|| builder()?.build_v1().ok().map(boxed));
static V1_ALPHA: LazyLock<Option<Side>> = LazyLock::new(|| builder()?.build_v1alpha().ok().map(boxed));

/// The reflection service of that name.
pub(super) fn side(service: &str) -> Option<&'static Side> {
    match service {
        "grpc.reflection.v1.ServerReflection" => V1.as_ref(),
        "grpc.reflection.v1alpha.ServerReflection" => V1_ALPHA.as_ref(),
        _ => None,
    }
}

fn builder() -> Option<Builder<'static>> {
    let mut ours = FileDescriptorSet::decode(DESCRIPTORS).ok()?;
    // The protocol has methods that this server does not offer.
    for service in ours.file.iter_mut().flat_map(|file| &mut file.service) {
        service.method.retain(|method| is_offered(method.name()));
    }
    let builder = Builder::configure()
        .register_file_descriptor_set(ours)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET);
    Some(builder)
}

fn boxed<S>(service: S) -> Side
where
    S: Service<Request<Patient>, Response = Response<Body>, Error = std::convert::Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    Box::new(move |request| {
        let mut service = service.clone();
        Box::pin(async move { service.call(request).await.unwrap_or_else(|never| match never {}) })
    })
}
