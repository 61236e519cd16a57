//! The engine of a Python process.
use crate::error::{OrRaise, refuse};
use nnrp_core::runtime::Runtimes;
use nnrp_core::{ModelSpec, Reason, Settings};
use nnrp_runtimes::OnnxRuntime;
use pyo3::prelude::*;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

#[pyclass(frozen, subclass, weakref, module = "nnrp._nnrp")]
pub(crate) struct Engine(pub(crate) Arc<nnrp_core::Engine>);

#[pymethods]
impl Engine {
    #[new]
    fn new(onnxruntime: Option<PathBuf>, queue_capacity: Option<usize>, workers: Option<usize>, inline_limit_us: Option<u64>) -> Self {
        let mut settings = Settings::default();
        let limits = &mut settings.limits;
        limits.queue_capacity = queue_capacity.unwrap_or(limits.queue_capacity);
        limits.workers = workers.unwrap_or(limits.workers);
        limits.inline_limit = inline_limit_us.map_or(limits.inline_limit, Duration::from_micros);
        let mut runtimes = Runtimes::default();
        runtimes.add(Arc::new(OnnxRuntime::new(onnxruntime)));
        Engine(Arc::new(nnrp_core::Engine::new(settings, runtimes)))
    }

    /// Loads what a JSON document describes, and gives its name and version.
    fn _load(&self, py: Python<'_>, description: &str) -> PyResult<(String, String)> {
        let loaded = py.detach(|| self.0.load(ModelSpec::from_json(description)?)).or_raise(py)?;
        Ok((loaded.name.to_string(), loaded.version.to_string()))
    }

    fn _unload(&self, py: Python<'_>, name: &str, version: &str) -> PyResult<()> {
        self.0.unload(name, version).or_raise(py)
    }

    fn _loaded(&self) -> Vec<(String, String)> {
        self.0.models().iter().map(|loaded| (loaded.name.to_string(), loaded.version.to_string())).collect()
    }

    /// Tells about a model, or about the runtimes, as one JSON document.
    #[pyo3(signature = (what, name="", version=""))]
    fn _tell(&self, py: Python<'_>, what: &str, name: &str, version: &str) -> PyResult<String> {
        let loaded = || self.0.model(name, version).or_raise(py);
        let told = match what {
            "metadata" => loaded()?.metadata(&self.0.versions(name)),
            "statistics" => loaded()?.metrics.snapshot(),
            "runtimes" => self.0.runtimes().iter().map(|runtime| runtime.info().to_json()).collect(),
            "session" => {
                let loaded = loaded()?;
                let info = loaded.session.info();
                let optional: Vec<bool> = info.signature.inputs.iter().map(|spec| spec.optional).collect();
                json!({"version": &*loaded.version, "optional": optional, "session": info.to_json()})
            }
            _ => return Err(refuse(py, Reason::Bug, "nothing of that name can be told")),
        };
        Ok(told.to_string())
    }

    #[getter]
    fn ready(&self) -> bool {
        self.0.ready()
    }

    fn drain(&self) {
        self.0.drain();
    }
}
