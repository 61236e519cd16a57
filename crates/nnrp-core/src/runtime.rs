//! The runtime contract (spec §8), as Rust wears it: what executes models, and a model version that it has loaded.
mod known;

pub use known::{First, NamedDimensions, Runtimes, Verify};

use crate::error::{NnrpError, Reason, Result};
use crate::message::Parameter;
use crate::model::{ModelSpec, Signature};
use crate::stop::Stop;
use crate::tensor::Tensor;
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::Instant;

/// Outputs of a run, in the order they were asked for.
pub type Outputs = SmallVec<[Tensor<'static>; 1]>;

/// Takes the answers of a stream one by one; an error says that nobody wants more.
pub type Sink<'a> = dyn FnMut(Outputs) -> Result<()> + 'a;

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

/// The one copy of a runtime's name that is known only when a program runs. It stays: there are as many as programs name runtimes.
pub fn kept_name(name: &str) -> &'static str {
    static NAMES: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    let mut names = NAMES.lock();
    names.iter().copied().find(|known| *known == name).unwrap_or_else(|| {
        let kept: &'static str = Box::leak(name.into());
        names.push(kept);
        kept
    })
}

/// What can execute models on devices.
pub trait Runtime: Send + Sync {
    /// What a [`ModelSpec`] calls it, `onnxruntime`. Touches no library.
    fn name(&self) -> &'static str;

    /// Describes itself without loading a model.
    fn info(&self) -> RuntimeInfo;

    /// Why it cannot be used on this machine, as far as that is known without looking for it.
    fn unusable(&self) -> Option<NnrpError> {
        None
    }

    /// Looks at the file as [`Runtime::load`] does first, without opening a library: asked before a process is started to load it.
    ///
    /// # Errors
    /// As [`Runtime::load`], for a file that it would refuse by its format.
    fn look(&self, _spec: &ModelSpec) -> Result<()> {
        Ok(())
    }

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

/// On which threads a session runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// Any: also the one that read the request, which then serves nobody else meanwhile.
    Any,
    /// A caller's own, or workers that run nothing else and live inside [`Session::work`]: what runs there may wait as long as it likes.
    Own,
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
    /// Which threads may run it.
    pub threads: Threads,
    /// Whether [`Control::stop`] can end a run.
    pub cancellable: bool,
    /// Whether a request has any number of answers: then it is asked by [`Session::stream`] and never by [`Session::run`].
    pub streams: bool,
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
            "streams": self.streams,
        })
    }
}

/// What goes along with a run.
#[derive(Clone, Copy, Default)]
pub struct Control<'a> {
    /// Raised when nobody waits any more; `None` when nobody can tell the run to end, or when it is too quick to be worth interrupting.
    pub stop: Option<&'a Stop>,
    /// When it will be raised at the latest.
    pub deadline: Option<Instant>,
    /// The request's id.
    pub id: Option<&'a str>,
    /// The request's parameters that are the model's own.
    pub parameters: &'a [(String, Parameter)],
}

/// What a session may do beside running, where it offers it.
#[derive(Clone, Copy, Debug)]
pub enum Verb<'a> {
    /// Run once with values of its own choice.
    WarmUp,
    /// Tell what it uses.
    Stats,
    /// Change an option, by its name and value.
    SetOption(&'a str, &'a Value),
}

impl Verb<'_> {
    /// As the contract calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Verb::WarmUp => "warm_up",
            Verb::Stats => "stats",
            Verb::SetOption(..) => "set_option",
        }
    }
}

/// Memory that its owner would rather have large tensors in than anybody else's: a host outputs, a session inputs.
pub trait Room {
    /// A place of that many bytes, 64-byte aligned; `None` where other memory will do.
    fn place(&self, byte_size: usize) -> Option<Box<dyn Place>>;
}

/// Bytes that are written once and read from then on.
pub trait Place: AsRef<[u8]> + AsMut<[u8]> + Send + Sync {}

/// A session's memory for inputs, kept by whoever reads them from somewhere.
pub type Reading = Arc<dyn Room + Send + Sync>;

/// The bytes of a place that has been written to.
pub fn placed(place: Box<dyn Place>) -> Bytes {
    struct Written(Box<dyn Place>);
    impl AsRef<[u8]> for Written {
        fn as_ref(&self) -> &[u8] {
            (*self.0).as_ref()
        }
    }
    Bytes::from_owner(Written(place))
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

    /// As [`Session::run`], with room for large outputs. A runtime that cannot write where it is told to leaves it alone.
    ///
    /// # Errors
    /// As [`Session::run`].
    fn run_into(&self, inputs: &[Option<Tensor<'_>>], outputs: &[usize], control: Control<'_>, _room: &dyn Room) -> Result<Outputs> {
        self.run(inputs, outputs, control)
    }

    /// Answers one request with any number of answers, each given to `sink` as soon as it is there; always on a worker of the model.
    ///
    /// `sink` waits while whoever reads the answers is slow. Once it gives an error, or `control.stop` is raised, nobody wants more: the session
    /// returns, no matter what. A session that does not stream has one answer.
    ///
    /// # Errors
    /// As [`Session::run`]; what was given before stays given.
    fn stream(&self, inputs: &[Option<Tensor<'_>>], outputs: &[usize], control: Control<'_>, sink: &mut Sink<'_>) -> Result<()> {
        sink(self.run(inputs, outputs, control)?)
    }

    /// Calls `turns`, the whole life of a worker thread, inside whatever the runtime keeps on a thread.
    fn work(&self, turns: &mut (dyn FnMut() + Send)) {
        turns();
    }

    /// Calls `until`, which waits for a turn on a caller's thread, outside of whatever the runtime must not hold meanwhile.
    fn wait(&self, until: &mut (dyn FnMut() + Send)) {
        until();
    }

    /// After a run that never began, because what runs it is away for a moment: waits on this thread until it is back, or `stop` is raised. False
    /// where nothing is waited for, and the run's error stands.
    ///
    /// # Errors
    /// Why it is not back soon.
    fn back(&self, _stop: &Stop) -> Result<bool> {
        Ok(false)
    }

    /// Memory in which it reads a request's large inputs where they lie, and from which it would have to copy them otherwise.
    fn reading(&self) -> Option<Reading> {
        None
    }

    /// Most worker threads; the engine's own limit when it does not tell.
    fn workers(&self) -> Option<usize> {
        None
    }

    /// Does what is not a run.
    ///
    /// # Errors
    /// `NOT_OFFERED`, and what the runtime says.
    fn tend(&self, verb: Verb<'_>) -> Result<Value> {
        Err(self.not_offered(verb.name()))
    }

    /// Runs once with values of its own choice, so that the first request is not the slow one.
    ///
    /// # Errors
    /// As [`Session::tend`].
    fn warm_up(&self) -> Result<()> {
        self.tend(Verb::WarmUp).map(drop)
    }

    /// Tells what it uses: memory, threads, caches.
    ///
    /// # Errors
    /// As [`Session::tend`].
    fn stats(&self) -> Result<Value> {
        self.tend(Verb::Stats)
    }

    /// Changes an option of the loaded model.
    ///
    /// # Errors
    /// `NOT_OFFERED`, `UNKNOWN_OPTION`, `INVALID_OPTION`.
    fn set_option(&self, name: &str, value: &Value) -> Result<()> {
        self.tend(Verb::SetOption(name, value)).map(drop)
    }

    /// What is told among the settings and changes while the session lives.
    fn state(&self) -> Map<String, Value> {
        Map::new()
    }

    /// The error of a verb that the runtime does not have.
    #[doc(hidden)]
    fn not_offered(&self, verb: &str) -> NnrpError {
        let runtime = self.info().runtime;
        NnrpError::new(Reason::NotOffered, format!("runtime {runtime}: does not offer {verb}")).with("runtime", runtime).with("verb", verb)
    }
}

/// What can run a runtime's models in processes of their own (spec §8.17).
pub trait Isolate: Send + Sync {
    /// Loads a model version by that runtime in another process.
    ///
    /// # Errors
    /// As [`Runtime::load`], and `LOAD_FAILED` when the process ends or takes too long.
    fn load(&self, runtime: &'static str, spec: &ModelSpec) -> Result<Box<dyn Session>>;
}
