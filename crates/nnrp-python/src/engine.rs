//! The engine of a Python process.
use crate::error::{OrRaise, from_json};
use crate::model::Model;
use nnrp_core::runtime::Runtimes;
use nnrp_core::{ModelSpec, Settings};
use nnrp_runtimes::OnnxRuntime;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Holds models and answers requests for them.
///
/// Args:
///     queue_capacity: most requests that may wait for one model; one more is answered QueueFull.
///     workers: most threads that run one model's queue; default: one a core.
///     inline_limit_us: a session whose mean run is no longer, in microseconds, runs on the thread that has the request.
///
/// Example:
///     >>> engine = nnrp.Engine()
///     >>> model = engine.load("double.onnx")
#[pyclass(frozen, module = "nnrp", weakref)]
pub(crate) struct Engine(pub(crate) Arc<nnrp_core::Engine>);

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (*, queue_capacity=None, workers=None, inline_limit_us=None))]
    fn new(py: Python<'_>, queue_capacity: Option<usize>, workers: Option<usize>, inline_limit_us: Option<u64>) -> PyResult<Self> {
        let mut settings = Settings::default();
        let limits = &mut settings.limits;
        limits.queue_capacity = queue_capacity.unwrap_or(limits.queue_capacity);
        limits.workers = workers.unwrap_or(limits.workers);
        limits.inline_limit = inline_limit_us.map_or(limits.inline_limit, Duration::from_micros);
        let library = py.import(intern!(py, "nnrp.runtimes"))?.call_method1(intern!(py, "library"), ("onnxruntime",))?;
        let mut runtimes = Runtimes::default();
        runtimes.add(Arc::new(OnnxRuntime::new(library.extract::<Option<PathBuf>>()?)));
        Ok(Engine(Arc::new(nnrp_core::Engine::new(settings, runtimes))))
    }

    /// Load one model version and serve it from then on.
    ///
    /// Args:
    ///     path: the model file.
    ///     name: what callers say; default: the file's name without its suffix, or in NAME/VERSION/model.onnx the folder's.
    ///     version: default "1".
    ///     runtime: the runtime's name.
    ///     options: the runtime's own options, verbatim.
    ///
    /// Raises:
    ///     FileNotFound, InvalidModel, ModelExists, UnknownOption, InvalidOption, RuntimeNotInstalled, DeviceNotFound, LoadFailed.
    #[pyo3(signature = (path, name=None, version=None, runtime="onnxruntime", options=None))]
    fn load(
        &self,
        py: Python<'_>,
        path: &Bound<'_, PyAny>,
        name: Option<&str>,
        version: Option<&str>,
        runtime: &str,
        options: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Model> {
        let helper = py.import(intern!(py, "nnrp.engine"))?;
        let description: String = helper.call_method1(intern!(py, "describe"), (path, name, version, runtime, options))?.extract()?;
        let loaded = py.detach(|| self.0.load(ModelSpec::from_json(&description)?)).or_raise(py)?;
        Ok(Model::here(py, self.0.clone(), loaded))
    }

    /// Serve a version no longer, or none of a model's when `version` is left out. What waits or runs is still answered.
    #[pyo3(signature = (name, version=None))]
    fn unload(&self, py: Python<'_>, name: &str, version: Option<&str>) -> PyResult<()> {
        self.0.unload(name, version.unwrap_or_default()).or_raise(py)
    }

    /// A loaded model; without a version, the latest.
    #[pyo3(signature = (name, version=None))]
    fn model(&self, py: Python<'_>, name: &str, version: Option<&str>) -> PyResult<Model> {
        let loaded = self.0.model(name, version.unwrap_or_default()).or_raise(py)?;
        Ok(Model::here(py, self.0.clone(), loaded))
    }

    /// Every loaded model version, by name and then by version.
    fn models(&self, py: Python<'_>) -> Vec<Model> {
        self.0.models().into_iter().map(|loaded| Model::here(py, self.0.clone(), loaded)).collect()
    }

    /// Answer one request: `engine.infer("double", {"x": x})`, with whatever else `Model.infer` takes, and `version=`.
    #[pyo3(signature = (name, inputs, *args, version=None, **kwargs))]
    fn infer<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        inputs: &Bound<'py, PyDict>,
        args: &Bound<'py, PyTuple>,
        version: Option<&str>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let model = Bound::new(py, self.model(py, name, version)?)?;
        let given = PyTuple::new(py, [inputs.as_any()])?.add(args)?.cast_into::<PyTuple>()?;
        model.getattr(intern!(py, "infer"))?.call(given, kwargs)
    }

    /// What each runtime is and offers on this machine: name, version, formats, devices, options.
    fn runtimes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let infos = self.0.runtimes().iter().map(|runtime| runtime.info());
        let told = infos.map(
            |info| serde_json::json!({"name": info.name, "version": info.version, "formats": info.formats, "devices": info.devices, "options": info.options}),
        );
        from_json(py, &told.collect())
    }

    /// Whether it takes requests.
    #[getter]
    fn ready(&self) -> bool {
        self.0.ready()
    }

    /// Take nothing new from now on; what waits or runs is still answered.
    fn drain(&self) {
        self.0.drain();
    }
}
