//! What sessions do beside answering requests (spec §8.15).
use super::Engine;
use crate::error::Result;
use crate::runtime::{Reading, Verb};
use crate::ticket::Ticket;
use serde_json::Value;
use std::sync::Arc;

impl Engine {
    /// Has a session do what is not a run, on the caller's own thread, in its turn where it takes one call at a time.
    ///
    /// # Errors
    /// `MODEL_NOT_FOUND`, `VERSION_NOT_FOUND`, and what the session says.
    pub fn tend(&self, name: &str, version: &str, verb: Verb<'_>) -> Result<Value> {
        let loaded = self.model(name, version)?;
        let _turn = self.wait_for_turn(&loaded, &Ticket::new(Arc::default(), None))?;
        loaded.tend(verb)
    }

    /// Memory to read a request's large inputs into, where the model has its own for them.
    pub fn reading(&self, name: &str, version: &str) -> Option<Reading> {
        self.model(name, version).ok()?.session.reading()
    }
}
