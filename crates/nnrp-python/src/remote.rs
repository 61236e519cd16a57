//! Serving an engine, and models that others serve.
use crate::engine::Engine;
use crate::error::{OrRaise, from_json, refuse};
use crate::model::{Home, Model};
use nnrp_core::tensor::Shape;
use nnrp_core::{Datatype, NnrpError, Reason, Signature, TensorSpec};
use nnrp_wire::ServerSettings;
use pyo3::intern;
use pyo3::prelude::*;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// A server of the Open Inference Protocol, seen from outside.
///
/// Args:
///     url: "http://host:port" for REST or "grpc://host:port". Nothing is sent yet.
///
/// Example:
///     >>> client = nnrp.Client("http://127.0.0.1:8000")
///     >>> client.model("double")(np.float32([1, 2, 3]))
#[pyclass(frozen, module = "nnrp", weakref)]
pub(crate) struct Client(Arc<nnrp_wire::Client>);

#[pymethods]
impl Client {
    #[new]
    fn new(py: Python<'_>, url: &str) -> PyResult<Self> {
        Ok(Client(Arc::new(nnrp_wire::Client::connect(url).or_raise(py)?)))
    }

    /// The models of the server: one dict for each version, with name, version, state and reason.
    fn models<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        from_json(py, &py.detach(|| self.0.index()).or_raise(py)?)
    }

    /// A model of the server, to be called as if it were here; without a version, the server's choice at each call.
    #[pyo3(signature = (name, version=None))]
    fn model(&self, py: Python<'_>, name: &str, version: Option<&str>) -> PyResult<Model> {
        let version = version.unwrap_or_default();
        let metadata = py.detach(|| self.0.model_metadata(name, version)).or_raise(py)?;
        let signature = signature(&metadata).or_raise(py)?;
        Ok(Model::new(py, Home::There { client: self.0.clone() }, name.into(), version.into(), &signature))
    }

    /// The server's metadata, or a model's when it is named.
    #[pyo3(signature = (model=None, version=None))]
    fn metadata<'py>(&self, py: Python<'py>, model: Option<&str>, version: Option<&str>) -> PyResult<Bound<'py, PyAny>> {
        let told = py.detach(|| match model {
            Some(model) => self.0.model_metadata(model, version.unwrap_or_default()),
            None => self.0.server_metadata(),
        });
        from_json(py, &told.or_raise(py)?)
    }

    /// Whether the server answers at all.
    fn live(&self, py: Python<'_>) -> PyResult<bool> {
        py.detach(|| self.0.server_live()).or_raise(py)
    }

    /// Whether the server, or a model when it is named, takes requests.
    #[pyo3(signature = (model=None, version=None))]
    fn ready(&self, py: Python<'_>, model: Option<&str>, version: Option<&str>) -> PyResult<bool> {
        let told = py.detach(|| match model {
            Some(model) => self.0.model_ready(model, version.unwrap_or_default()),
            None => self.0.server_ready(),
        });
        told.or_raise(py)
    }
}

/// The signature that a server's metadata tells.
fn signature(metadata: &Value) -> nnrp_core::Result<Signature> {
    let side = |key: &str| metadata[key].as_array().into_iter().flatten().map(spec).collect::<nnrp_core::Result<Vec<_>>>();
    Ok(Signature { inputs: side("inputs")?, outputs: side("outputs")? })
}

fn spec(told: &Value) -> nnrp_core::Result<TensorSpec> {
    let malformed = || NnrpError::new(Reason::Malformed, "model metadata: expected tensors with name, datatype and shape").with("got", told.clone());
    let name = told["name"].as_str().ok_or_else(malformed)?;
    let dims = told["shape"].as_array().ok_or_else(malformed)?;
    // Protobuf's JSON writes whole numbers as text.
    let dim = |value: &Value| value.as_i64().or_else(|| value.as_str()?.parse().ok());
    let shape = dims.iter().map(dim).collect::<Option<Shape>>().ok_or_else(malformed)?;
    let datatype = Datatype::parse(told["datatype"].as_str().ok_or_else(malformed)?, name)?;
    Ok(TensorSpec { name: name.into(), datatype, shape: Some(shape), symbols: Vec::new(), optional: false })
}

/// A running server; `nnrp.serve` makes it. As a context manager it stops at the end of the block.
#[pyclass(frozen, module = "nnrp", weakref)]
pub(crate) struct Server {
    server: nnrp_wire::Server,
    host: String,
    engine: Py<Engine>,
    /// A threading.Event: waiting for it answers Ctrl-C.
    stopped: Py<PyAny>,
}

#[pymethods]
impl Server {
    #[new]
    #[pyo3(signature = (engine, *, host, http_port, grpc_port, threads, max_body_bytes, max_connections, queue_full_status))]
    #[allow(clippy::too_many_arguments, reason = "the settings of a server")]
    fn new(
        engine: &Bound<'_, Engine>,
        host: String,
        http_port: Option<u16>,
        grpc_port: Option<u16>,
        threads: usize,
        max_body_bytes: usize,
        max_connections: usize,
        queue_full_status: u16,
    ) -> PyResult<Self> {
        let py = engine.py();
        let settings = ServerSettings {
            host: host.clone(),
            http_port,
            grpc_port,
            threads,
            max_body_bytes,
            max_connections,
            queue_full_status,
            ..ServerSettings::default()
        };
        let served = engine.get().0.clone();
        let server = py.detach(|| nnrp_wire::Server::start(served, settings)).or_raise(py)?;
        let stopped = py.import(intern!(py, "threading"))?.call_method0(intern!(py, "Event"))?.unbind();
        Ok(Server { server, host, engine: engine.clone().unbind(), stopped })
    }

    /// Where REST listens; None when it does not.
    #[getter]
    fn http_url(&self) -> Option<String> {
        self.server.http_address().map(|address| self.url("http", address.port()))
    }

    /// Where gRPC listens; None when it does not.
    #[getter]
    fn grpc_url(&self) -> Option<String> {
        self.server.grpc_address().map(|address| self.url("grpc", address.port()))
    }

    /// The engine that answers.
    #[getter]
    fn engine(&self, py: Python<'_>) -> Py<Engine> {
        self.engine.clone_ref(py)
    }

    /// Take nothing new, finish what is in flight within `grace` seconds, and return. The engine takes nothing new from then on.
    #[pyo3(signature = (grace=10.0))]
    fn stop(&self, py: Python<'_>, grace: f64) -> PyResult<()> {
        let Ok(grace) = Duration::try_from_secs_f64(grace) else {
            return Err(refuse(py, Reason::InvalidOption, format!("grace: expected seconds from 0, got {grace}")));
        };
        py.detach(|| self.server.stop(grace));
        self.stopped.call_method0(py, intern!(py, "set"))?;
        Ok(())
    }

    /// Wait until the server is stopped, by another thread or a signal handler; Ctrl-C raises KeyboardInterrupt.
    ///
    /// Args:
    ///     timeout: most seconds to wait; default: no end.
    ///
    /// Returns:
    ///     Whether it was stopped.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        self.stopped.call_method1(py, intern!(py, "wait"), (timeout,))?.extract(py)
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_args))]
    fn __exit__(&self, py: Python<'_>, _args: &Bound<'_, PyAny>) -> PyResult<()> {
        self.stop(py, 10.0)
    }

    fn __repr__(&self) -> String {
        let places: Vec<String> = self.http_url().into_iter().chain(self.grpc_url()).collect();
        format!("<nnrp.Server at {}>", places.join(", "))
    }
}

impl Server {
    fn url(&self, scheme: &str, port: u16) -> String {
        // A wildcard is no place to connect to.
        let host = match self.host.as_str() {
            "0.0.0.0" => "127.0.0.1",
            "::" => "::1",
            host => host,
        };
        if host.contains(':') { format!("{scheme}://[{host}]:{port}") } else { format!("{scheme}://{host}:{port}") }
    }
}
