//! Server reflection, so that tools need no `.proto`: which services there are and what they say.
use http::{Request, Response};
use hyper::body::Incoming;
use std::future::Future;
use std::pin::Pin;
use std::sync::LazyLock;
use tonic::body::Body;
use tonic_reflection::server::Builder;
use tower_service::Service;

type Side = Box<dyn Fn(Request<Incoming>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> + Send + Sync>;

static V1: LazyLock<Option<Side>> = LazyLock::new(|| builder().build_v1().ok().map(boxed));
static V1_ALPHA: LazyLock<Option<Side>> = LazyLock::new(|| builder().build_v1alpha().ok().map(boxed));

/// The reflection service of that name.
pub(super) fn side(service: &str) -> Option<&'static Side> {
    match service {
        "grpc.reflection.v1.ServerReflection" => V1.as_ref(),
        "grpc.reflection.v1alpha.ServerReflection" => V1_ALPHA.as_ref(),
        _ => None,
    }
}

fn builder() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(crate::codec::proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

fn boxed<S>(service: S) -> Side
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = std::convert::Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    Box::new(move |request| {
        let mut service = service.clone();
        Box::pin(async move { service.call(request).await.unwrap_or_else(|never| match never {}) })
    })
}
