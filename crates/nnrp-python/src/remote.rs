//! Serving an engine, and models that others serve.
use crate::engine::Engine;
use crate::error::{OrRaise, refuse};
use nnrp_core::Reason;
use nnrp_wire::ServerSettings;
use pyo3::prelude::*;
use std::sync::Arc;
use std::time::Duration;

#[pyclass(frozen, subclass, weakref, module = "nnrp._nnrp")]
pub(crate) struct Client(pub(crate) Arc<nnrp_wire::Client>);

#[pymethods]
impl Client {
    #[new]
    fn new(py: Python<'_>, url: &str) -> PyResult<Self> {
        Ok(Client(Arc::new(nnrp_wire::Client::connect(url).or_raise(py)?)))
    }

    /// Asks the server, and gives its answer as one JSON document.
    #[pyo3(signature = (what, name="", version=""))]
    fn _ask(&self, py: Python<'_>, what: &str, name: &str, version: &str) -> PyResult<String> {
        let told = py.detach(|| match what {
            "index" => Some(self.0.index()),
            "live" => Some(self.0.server_live().map(Into::into)),
            "ready" if name.is_empty() => Some(self.0.server_ready().map(Into::into)),
            "ready" => Some(self.0.model_ready(name, version).map(Into::into)),
            "metadata" if name.is_empty() => Some(self.0.server_metadata()),
            "metadata" => Some(self.0.model_metadata(name, version)),
            _ => None,
        });
        told.ok_or_else(|| refuse(py, Reason::Bug, "nothing of that name can be asked"))?.map(|told| told.to_string()).or_raise(py)
    }
}

/// Of REST and gRPC.
type Ports = (Option<u16>, Option<u16>);

#[pyclass(frozen, subclass, weakref, module = "nnrp._nnrp")]
pub(crate) struct Server(nnrp_wire::Server);

#[pymethods]
impl Server {
    #[new]
    fn new(py: Python<'_>, engine: PyRef<'_, Engine>, host: String, ports: Ports, bounds: (usize, usize, usize), queue_full_status: u16) -> PyResult<Self> {
        let (engine, (http_port, grpc_port), (threads, max_body_bytes, max_connections)) = (engine.0.clone(), ports, bounds);
        let bounds = ServerSettings { threads, max_body_bytes, max_connections, queue_full_status, ..ServerSettings::default() };
        let settings = ServerSettings { host, http_port, grpc_port, ..bounds };
        Ok(Server(py.detach(|| nnrp_wire::Server::start(engine, settings)).or_raise(py)?))
    }

    fn _ports(&self) -> Ports {
        (self.0.http_address().map(|address| address.port()), self.0.grpc_address().map(|address| address.port()))
    }

    fn _stop(&self, py: Python<'_>, grace: Duration) {
        py.detach(|| self.0.stop(grace));
    }
}
