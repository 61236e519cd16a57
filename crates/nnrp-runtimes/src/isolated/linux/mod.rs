//! Processes on Linux: shared memory that neither side can make shorter, futexes in it, and a kernel that ends children with their parents.
mod arena;
mod crossing;
#[cfg(test)]
mod distrust;
mod frame;
mod futex;
mod giving;
mod home;
mod host;
mod inputs;
mod life;
mod output;
mod process;
mod region;
mod seat;
mod session;
mod streaming;
#[cfg(test)]
mod streams;
mod words;

pub use host::host;

use super::Settings;
use nnrp_core::{Isolation, ModelSpec, Preference, Result, Session};
use std::sync::Arc;

/// Loads a model in a process of its own.
pub(super) fn load(settings: &Arc<Settings>, runtime: &'static str, spec: &ModelSpec) -> Result<Box<dyn Session>> {
    // A runtime may look at what callers see in place of what it tells; that they do is seen to on this side.
    let spec = ModelSpec { isolation: Isolation::None, runtime: Preference(vec![runtime.to_owned()]), ..spec.clone() };
    let (home, supervisor, told) = home::Home::start(runtime, settings.clone(), spec)?;
    Ok(Box::new(session::IsolatedSession::new(home, supervisor, told)?))
}
