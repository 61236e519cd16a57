//! The standard health service: of the server, of its inference service, and of each model by name.
use super::Service;
use super::outgoing::Outgoing;
use super::patient::Patient;
use crate::frame::grpc::SERVICE;
use crate::frame::status;
use crate::shared::{Shared, Signals};
use http::{Request, Response};
use nnrp_core::error::excerpt;
use nnrp_core::{NnrpError, Reason};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Interval;
use tonic::codegen::tokio_stream::Stream;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tower_service::Service as _;

/// How often a watched status is looked at; the engine tells nobody when it changes.
const LOOK: Duration = Duration::from_millis(250);

/// Answers a call of `grpc.health.v1.Health`.
pub(super) async fn call(service: &Service, request: Request<Patient>) -> Response<Outgoing> {
    let health = Doctor { shared: service.shared.clone(), signals: service.signals.clone() };
    let answer = HealthServer::new(health).call(request).await;
    answer.unwrap_or_else(|never| match never {}).map(Outgoing::Tonic)
}

#[derive(Clone)]
struct Doctor {
    shared: Arc<Shared>,
    signals: Signals,
}

impl Doctor {
    fn look(&self, name: &str) -> ServingStatus {
        let engine = &self.shared.engine;
        if !matches!(name, "" | SERVICE) && engine.model(name, "").is_err() {
            return ServingStatus::ServiceUnknown;
        }
        if self.shared.ready() { ServingStatus::Serving } else { ServingStatus::NotServing }
    }
}

#[tonic::async_trait]
impl Health for Doctor {
    type WatchStream = Watch;

    async fn check(&self, request: tonic::Request<HealthCheckRequest>) -> Result<tonic::Response<HealthCheckResponse>, tonic::Status> {
        let name = request.into_inner().service;
        match self.look(&name) {
            ServingStatus::ServiceUnknown => {
                let name = excerpt(&name);
                let error = NnrpError::new(Reason::ModelNotFound, format!("no service or model '{name}'")).with("model", name);
                Err(status::tonic_status(&error))
            }
            status => Ok(tonic::Response::new(response(status))),
        }
    }

    async fn watch(&self, request: tonic::Request<HealthCheckRequest>) -> Result<tonic::Response<Watch>, tonic::Status> {
        let name = request.into_inner().service;
        Ok(tonic::Response::new(Watch { doctor: self.clone(), name, told: None, interval: tokio::time::interval(LOOK) }))
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}

/// A status now and whenever it changes; ends when the server closes.
struct Watch {
    doctor: Doctor,
    name: String,
    told: Option<ServingStatus>,
    interval: Interval,
}

impl Stream for Watch {
    type Item = Result<HealthCheckResponse, tonic::Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let closing = self.doctor.signals.borrow().closing;
            let now = self.doctor.look(&self.name);
            if self.told != Some(now) {
                self.told = Some(now);
                return Poll::Ready(Some(Ok(response(now))));
            }
            if closing {
                return Poll::Ready(None);
            }
            ready!(self.interval.poll_tick(cx));
        }
    }
}
