//! Models in processes of their own (spec §8.17): a crash there is one error of the requests that it held, and a restart.
//!
//! The engine's side is a session like any other. It owns a process, started by a command that the host of the engine names, whose supervisor, a
//! thread, starts it again when it ends. Once a model they talk over a socket; each run crosses by two words in shared memory, which also holds its
//! tensors (`docs/decisions/0014-a-process-for-a-model.md`).
mod events;
#[cfg(target_os = "linux")]
mod linux;

pub use events::Events;
#[cfg(target_os = "linux")]
pub use linux::host;

use nnrp_core::stop::Look;
use nnrp_core::{Isolate, ModelSpec, NnrpError, Reason, Result, Session};
use std::sync::Arc;
use std::time::Duration;

/// How a process is started that hosts one model: the numbers of two descriptors are appended to the words, which it gives to [`host`].
#[derive(Clone, Debug, Default)]
pub struct Command {
    /// The program; none where nobody knows one.
    pub program: String,
    /// Its words.
    pub words: Vec<String>,
    /// What it finds in its environment beside ours.
    pub environment: Vec<(String, String)>,
}

/// How processes are started, and how long they get.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What starts one.
    pub command: Command,
    /// How long a load may take.
    pub load_limit: Duration,
    /// How long a run may go on after nobody waits for it any more, before a process that nobody else needs is ended.
    pub stop_grace: Duration,
    /// Most bytes of all outputs of one run.
    pub max_output_bytes: usize,
    /// Where it is told what becomes of them.
    pub events: Arc<Events>,
    /// Whether who loads on this thread wants to wait no longer; asked on the thread of the load, again and again. Once true, it stays so for that load.
    pub look: Option<fn() -> bool>,
    /// Calls what waits on this thread until a process is back, outside of whatever must not be held meanwhile, with what tells to wait no longer.
    pub aside: Option<Aside>,
}

impl Default for Settings {
    fn default() -> Self {
        let (load_limit, stop_grace) = (Duration::from_secs(300), Duration::from_secs(10));
        Settings { command: Command::default(), load_limit, stop_grace, max_output_bytes: 1 << 30, events: Arc::default(), look: None, aside: None }
    }
}

/// See [`Settings::aside`].
pub type Aside = fn(&mut (dyn FnMut(Look<'_>) + Send));

/// Gives each model that asks for it a process.
pub struct Processes(Arc<Settings>);

impl Processes {
    /// Processes that are started so.
    pub fn new(settings: Settings) -> Processes {
        Processes(Arc::new(settings))
    }
}

impl Isolate for Processes {
    fn load(&self, runtime: &'static str, spec: &ModelSpec) -> Result<Box<dyn Session>> {
        if self.0.command.program.is_empty() {
            return Err(not_offered("nobody said which program hosts a model"));
        }
        if self.0.look.is_some_and(|look| look()) {
            return Err(abandoned());
        }
        load(&self.0, runtime, spec)
    }
}

/// Of a load that nobody waits for.
#[cold]
fn abandoned() -> NnrpError {
    NnrpError::new(Reason::ClientCancelled, "nobody waits for the load any more")
}

#[cold]
fn not_offered(why: &str) -> NnrpError {
    NnrpError::new(Reason::NotOffered, format!("isolation 'process': {why}")).with("isolation", "process")
}

#[cfg(target_os = "linux")]
use linux::load;

#[cfg(not(target_os = "linux"))]
fn load(_settings: &Arc<Settings>, _runtime: &'static str, _spec: &ModelSpec) -> Result<Box<dyn Session>> {
    Err(not_offered("needs Linux"))
}

/// Hosts one model for an engine in another process.
///
/// # Errors
/// Always: it needs Linux.
#[cfg(not(target_os = "linux"))]
pub fn host(_descriptors: [i32; 2], _load: impl FnOnce(&ModelSpec) -> Result<Box<dyn Session>>) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}
