//! The runtime contract (spec §8), as Rust wears it: what executes models, and a model version that it has loaded.
use crate::error::Result;
use crate::model::{ModelSpec, Signature};
use crate::stop::Stop;
use crate::tensor::Tensor;
use serde_json::{Map, Value, json};
use smallvec::SmallVec;
use std::sync::Arc;

/// Outputs of a run, in the order they were asked for.
pub type Outputs = SmallVec<[Tensor<'static>; 1]>;

/// What a runtime is, told without loading a model.
#[derive(Clone, Debug)]
pub struct RuntimeInfo {
    /// `onnxruntime`.
    pub name: &'static str,
    /// The library's own version.
    pub version: String,
    /// Model formats it reads, `onnx`.
    pub formats: Vec<String>,
    /// Devices or execution providers it offers on this machine.
    pub devices: Vec<String>,
    /// JSON Schema of the options that [`Runtime::load`] takes.
    pub options: Value,
}

impl RuntimeInfo {
    /// As one JSON document.
    pub fn to_json(&self) -> Value {
        json!({"name": self.name, "version": self.version, "formats": self.formats, "devices": self.devices, "options": self.options})
    }
}

/// What can execute models on devices.
pub trait Runtime: Send + Sync {
    /// What a [`ModelSpec`] calls it, `onnxruntime`. Touches no library.
    fn name(&self) -> &'static str;

    /// Describes itself without loading a model.
    fn info(&self) -> RuntimeInfo;

    /// Loads one model version onto one device.
    ///
    /// # Errors
    /// `FILE_NOT_FOUND`, `INVALID_MODEL`, `UNKNOWN_OPTION`, `INVALID_OPTION`, `DEVICE_NOT_FOUND`, or `LOAD_FAILED` with the runtime's own
    /// code and text in details; never a file path.
    fn load(&self, spec: &ModelSpec) -> Result<Box<dyn Session>>;
}

/// How many runs a session takes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concurrency {
    /// Any number of threads.
    Shared,
    /// One call at a time; the scheduler holds a permit.
    Exclusive,
}

/// What a loaded session is and what it was really given.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// Named inputs and outputs.
    pub signature: Signature,
    /// The runtime's name.
    pub runtime: &'static str,
    /// The runtime's version.
    pub runtime_version: String,
    /// The file's format, `onnx`; metadata calls `{runtime}_{format}` the platform.
    pub format: String,
    /// The device that runs it, `cpu`.
    pub device: String,
    /// How many runs at once.
    pub concurrency: Concurrency,
    /// Whether [`Control::stop`] can end a run.
    pub cancellable: bool,
    /// Effective settings: what was asked for as it was honoured, and the defaults that hold.
    pub settings: Map<String, Value>,
}

impl SessionInfo {
    /// As one JSON document, without the signature.
    pub fn to_json(&self) -> Value {
        json!({
            "runtime": self.runtime,
            "version": self.runtime_version,
            "format": self.format,
            "device": self.device,
            "settings": self.settings,
            "exclusive": self.concurrency == Concurrency::Exclusive,
            "cancellable": self.cancellable,
        })
    }
}

/// What goes along with a run.
#[derive(Clone, Copy, Default)]
pub struct Control<'a> {
    /// Raised when nobody waits any more; `None` when the run is too quick to be worth interrupting.
    pub stop: Option<&'a Stop>,
}

/// One model version, loaded by one runtime on one device.
///
/// The host has validated everything before [`Session::run`]: names, presence, datatypes, ranks, dimensions, byte sizes, alignment.
pub trait Session: Send + Sync {
    /// What it is; the same for its whole life.
    fn info(&self) -> &SessionInfo;

    /// Runs one batch.
    ///
    /// `inputs` has one slot for each input of the signature, in order; `None` only where the signature says optional. `outputs` are indices
    /// into the signature's outputs; the answer has their order. Elements are aligned to their datatype.
    ///
    /// # Errors
    /// `RUN_FAILED` with the runtime's code and text in details. A run ended by `control.stop` may return any error: the host knows why.
    fn run(&self, inputs: &[Option<Tensor<'_>>], outputs: &[usize], control: Control<'_>) -> Result<Outputs>;
}

/// The runtimes of an engine, by name.
#[derive(Clone, Default)]
pub struct Runtimes(Vec<Arc<dyn Runtime>>);

impl Runtimes {
    /// Adds one; a later one of the same name replaces it.
    pub fn add(&mut self, runtime: Arc<dyn Runtime>) {
        let name = runtime.name();
        self.0.retain(|known| known.name() != name);
        self.0.push(runtime);
    }

    /// The runtimes, in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Runtime>> {
        self.0.iter()
    }

    /// The runtime of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Runtime>> {
        self.0.iter().find(|runtime| runtime.name() == name)
    }
}
