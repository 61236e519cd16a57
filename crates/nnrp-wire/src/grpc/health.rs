//! The standard health service: of the server, of its inference service, and of each model by name.
use super::Service;
use super::outgoing::Outgoing;
use super::talk::Talk;
use crate::codec::proto;
use crate::frame::grpc::SERVICE;
use bytes::Bytes;
use http::Response;
use nnrp_core::error::excerpt;
use nnrp_core::{NnrpError, Reason, Result};
use prost::Message;
use std::sync::Arc;
use std::time::Duration;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// How often a watched status is looked at; the engine tells nobody when it changes.
const LOOK: Duration = Duration::from_millis(250);

/// A status now.
///
/// # Errors
/// `MALFORMED`; `MODEL_NOT_FOUND`: no service or model of that name.
pub(super) fn check(service: &Service, message: Bytes) -> Result<HealthCheckResponse> {
    let name = name(message)?;
    match look(service, &name) {
        ServingStatus::ServiceUnknown => {
            let name = excerpt(&name);
            Err(NnrpError::new(Reason::ModelNotFound, format!("no service or model '{name}'")).with("model", name))
        }
        status => Ok(response(status)),
    }
}

/// A status now and whenever it changes; ends when the server closes.
///
/// # Errors
/// `MALFORMED`.
pub(super) fn watch(service: &Arc<Service>, message: Bytes) -> Result<Response<Outgoing>> {
    let name = name(message)?;
    Ok(Talk::begin(service, |talk| async move {
        let mut told = None;
        loop {
            let closing = talk.service.signals.borrow().closing;
            let now = look(&talk.service, &name);
            if told != Some(now) {
                told = Some(now);
                talk.send(&response(now)).await?;
            }
            if closing {
                return Ok(());
            }
            tokio::select! {
                () = talk.left() => return Ok(()),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }))
}

fn name(message: Bytes) -> Result<String> {
    HealthCheckRequest::decode(message).map(|asked| asked.service).map_err(proto::malformed)
}

fn look(service: &Service, name: &str) -> ServingStatus {
    if !matches!(name, "" | SERVICE) && service.shared.engine.model(name, "").is_err() {
        return ServingStatus::ServiceUnknown;
    }
    if service.shared.ready() { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}
