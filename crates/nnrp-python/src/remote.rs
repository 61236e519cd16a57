//! Serving an engine, and models that others serve.
use crate::engine::Engine;
use crate::error::{OrRaise, refuse};
use crate::own::Own;
use crate::signals;
use nnrp_core::Reason;
use nnrp_wire::{Question, ServerSettings};
use pyo3::prelude::*;
use std::sync::Arc;
use std::time::Duration;

#[pyclass(frozen, subclass, weakref, module = "nnrp._nnrp")]
pub(crate) struct Client(pub(crate) Own<Arc<nnrp_wire::Client>>);

#[pymethods]
impl Client {
    #[new]
    fn new(py: Python<'_>, url: &str) -> PyResult<Self> {
        Ok(Client(Own::new(Arc::new(nnrp_wire::Client::connect(url).or_raise(py)?))))
    }

    /// Asks the server, and gives its answer as one JSON document.
    #[pyo3(signature = (what, name="", version=""))]
    fn _ask(&self, py: Python<'_>, what: &str, name: &str, version: &str) -> PyResult<String> {
        let (client, (model, version)) = (self.0.get(py)?, (name.to_owned(), version.to_owned()));
        let question = match what {
            "index" => Question::Index,
            "live" => Question::ServerLive,
            "ready" if name.is_empty() => Question::ServerReady,
            "ready" => Question::ModelReady { name: model, version },
            "metadata" if name.is_empty() => Question::ServerMetadata,
            "metadata" => Question::ModelMetadata { name: model, version },
            _ => return Err(refuse(py, Reason::Bug, "nothing of that name can be asked")),
        };
        signals::during(py, |look| client.ask_looking(question, look))?.map(|told| told.to_string()).or_raise(py)
    }
}

/// Of REST and gRPC.
type Ports = (Option<u16>, Option<u16>);

/// Of reading, writing and being idle.
type Timeouts = (Duration, Duration, Duration);

#[pyclass(frozen, subclass, weakref, module = "nnrp._nnrp")]
pub(crate) struct Server(Own<nnrp_wire::Server>);

#[pymethods]
impl Server {
    #[new]
    fn new(
        py: Python<'_>,
        engine: PyRef<'_, Engine>,
        host: String,
        ports: Ports,
        bounds: (usize, usize, usize, usize),
        queue_full_status: u16,
        timeouts: Timeouts,
    ) -> PyResult<Self> {
        let (engine, (http_port, grpc_port)) = (engine.0.get(py)?.clone(), ports);
        let (threads, max_body_bytes, max_connections, max_unread_bytes) = bounds;
        let (read_timeout, write_timeout, idle_timeout) = timeouts;
        let settings = ServerSettings {
            begin: nnrp_runtimes::prompt,
            host,
            http_port,
            grpc_port,
            threads,
            max_body_bytes,
            max_connections,
            max_unread_bytes,
            queue_full_status,
            read_timeout,
            write_timeout,
            idle_timeout,
        };
        Ok(Server(Own::new(py.detach(|| nnrp_wire::Server::start(engine, settings)).or_raise(py)?)))
    }

    fn _ports(&self, py: Python<'_>) -> PyResult<Ports> {
        let server = self.0.get(py)?;
        Ok((server.http_address().map(|address| address.port()), server.grpc_address().map(|address| address.port())))
    }

    fn _stop(&self, py: Python<'_>, grace: Duration) -> PyResult<()> {
        self.0.get(py).map(|server| server.begin_to_stop(grace))
    }

    fn _stopped(&self, py: Python<'_>, timeout: Duration) -> PyResult<bool> {
        let server = self.0.get(py)?;
        let stopped = py.detach(|| server.is_stopped_within(timeout));
        py.check_signals()?;
        Ok(stopped)
    }
}
