//! The engine of a Python process.
use crate::error::{OrRaise, refuse};
use crate::own::Own;
use crate::runtime::{PyRuntime, with_python};
use crate::signals;
use nnrp_core::{ModelSpec, Reason, Settings, Verb};
use nnrp_runtimes::isolated::{self, Command, Events, Processes};
use pyo3::prelude::*;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

#[pyclass(frozen, subclass, weakref, module = "nnrp._nnrp")]
pub(crate) struct Engine(pub(crate) Own<Arc<nnrp_core::Engine>>, Arc<Events>);

#[pymethods]
impl Engine {
    #[new]
    fn new(
        py: Python<'_>,
        libraries: HashMap<String, PathBuf>,
        plugins: Vec<PathBuf>,
        queue_capacity: Option<usize>,
        workers: Option<usize>,
        inline_limit_us: Option<u64>,
        isolation: (Vec<String>, Vec<(String, String)>, Duration, Duration, usize),
    ) -> PyResult<Self> {
        let mut settings = Settings::default();
        let limits = &mut settings.limits;
        limits.queue_capacity = queue_capacity.unwrap_or(limits.queue_capacity);
        limits.workers = workers.unwrap_or(limits.workers);
        limits.inline_limit = inline_limit_us.map_or(limits.inline_limit, Duration::from_micros);
        let mut runtimes = nnrp_runtimes::runtimes(|name| libraries.get(name).cloned());
        py.detach(|| nnrp_runtimes::plugin::add(&mut runtimes, &plugins)).or_raise(py)?;
        let (mut words, environment, load_limit, stop_grace, max_output_bytes) = isolation;
        let program = if words.is_empty() { String::new() } else { words.remove(0) };
        let command = Command { program, words, environment };
        let processes = isolated::Settings {
            command,
            load_limit,
            stop_grace,
            max_output_bytes,
            events: Arc::default(),
            look: Some(signals::look),
            aside: Some(signals::aside),
        };
        let events = processes.events.clone();
        runtimes.isolate_by(Arc::new(Processes::new(processes)));
        Ok(Engine(Own::new(Arc::new(nnrp_core::Engine::new(settings, runtimes))), events))
    }

    /// Loads what a JSON document describes, and gives its name and version.
    fn _load(&self, py: Python<'_>, description: &str) -> PyResult<(String, String)> {
        let engine = self.0.get(py)?;
        let loaded = signals::looking(|| py.detach(|| engine.load(ModelSpec::from_json(description)?)))?.or_raise(py)?;
        Ok((loaded.name.to_string(), loaded.version.to_string()))
    }

    /// Loads from now on also with a runtime that Python made.
    fn _add_runtime(&self, py: Python<'_>, name: &str, runtime: Py<PyAny>) -> PyResult<()> {
        self.0.get(py).map(|engine| engine.add_runtime(Arc::new(PyRuntime::new(name, runtime))))
    }

    /// Hosts one model for an engine in another process, with the runtimes that `bring` adds by their names.
    fn _host(&self, py: Python<'_>, descriptors: [i32; 2], bring: Py<PyAny>) -> PyResult<()> {
        let engine = self.0.get(py)?;
        let load = |spec: &ModelSpec| {
            with_python("isolated", Reason::LoadFailed, |py| bring.call1(py, (&spec.runtime.0,)).map(|_| Ok(())))?;
            engine.runtimes().load(spec)
        };
        Ok(py.detach(|| isolated::host(descriptors, load))?)
    }

    /// What became of processes after that number, as a JSON list; and the number of the latest, which is all without one. Waits for one.
    fn _events(&self, py: Python<'_>, after: Option<u64>, limit: Duration) -> (u64, String) {
        let Some(after) = after else { return (self.1.count(), "[]".to_owned()) };
        let events = py.detach(|| self.1.after(after, limit));
        let latest = events.last().and_then(|event| event["number"].as_u64()).unwrap_or(after);
        (latest, Value::Array(events).to_string())
    }

    fn _close(&self, py: Python<'_>, grace: Duration) -> PyResult<bool> {
        let engine = self.0.get(py)?;
        Ok(py.detach(|| engine.close(grace)))
    }

    fn _unload(&self, py: Python<'_>, name: &str, version: &str) -> PyResult<()> {
        self.0.get(py)?.unload(name, version).or_raise(py)
    }

    fn _loaded(&self, py: Python<'_>) -> PyResult<Vec<(String, String)>> {
        Ok(self.0.get(py)?.models().iter().map(|loaded| (loaded.name.to_string(), loaded.version.to_string())).collect())
    }

    /// Tells about a model, or about the runtimes, as one JSON document.
    #[pyo3(signature = (what, name="", version=""))]
    fn _tell(&self, py: Python<'_>, what: &str, name: &str, version: &str) -> PyResult<String> {
        let engine = self.0.get(py)?;
        let loaded = || engine.model(name, version).or_raise(py);
        let told = match what {
            "metadata" => loaded()?.metadata(&engine.versions(name)),
            "statistics" => loaded()?.metrics.snapshot(),
            "runtimes" => engine.runtimes().to_json(),
            "names" => engine.runtimes().iter().map(|runtime| runtime.name()).collect(),
            "session" => {
                let loaded = loaded()?;
                let optional: Vec<bool> = loaded.signature().inputs.iter().map(|spec| spec.optional).collect();
                json!({"version": &*loaded.version, "optional": optional, "session": loaded.description()})
            }
            _ => return Err(refuse(py, Reason::Bug, "nothing of that name can be told")),
        };
        Ok(told.to_string())
    }

    /// Has a session do what is not a run, and gives what it tells as JSON; `option` is what to set, and its value as JSON.
    #[pyo3(signature = (verb, name, version, option=None))]
    fn _tend(&self, py: Python<'_>, verb: &str, name: &str, version: &str, option: Option<(String, String)>) -> PyResult<String> {
        let engine = self.0.get(py)?;
        let value = option.as_ref().map(|(_, value)| serde_json::from_str(value).unwrap_or_default());
        let verb = match (verb, &option, &value) {
            (_, Some((name, _)), Some(value)) => Verb::SetOption(name, value),
            ("stats", ..) => Verb::Stats,
            _ => Verb::WarmUp,
        };
        py.detach(|| engine.tend(name, version, verb)).map(|told| told.to_string()).or_raise(py)
    }

    #[getter]
    fn ready(&self, py: Python<'_>) -> PyResult<bool> {
        self.0.get(py).map(|engine| engine.ready())
    }

    fn drain(&self, py: Python<'_>) -> PyResult<()> {
        self.0.get(py).map(|engine| engine.drain())
    }
}
