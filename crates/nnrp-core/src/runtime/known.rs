//! The runtimes that an engine can load with.
use super::{Isolate, Runtime, Session, SessionInfo};
use crate::error::{NnrpError, Reason, Result};
use crate::model::{Isolation, ModelSpec, Signature};
use crate::symbols::{is_unnamed, with_names};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// Names the runtime that is asked first for a file, if any should be.
pub type First = fn(&Path) -> Option<&'static str>;

/// Refuses a file or folder that does not have that digest.
pub type Verify = fn(&Path, &str) -> Result<()>;

/// Tells the names of the dimensions of inputs and outputs, by tensor, that a file of that format has; none where nobody knows.
pub type NamedDimensions = fn(&Path, &str) -> HashMap<String, Vec<Option<String>>>;

/// The runtimes of an engine, by name.
#[derive(Clone, Default)]
pub struct Runtimes {
    known: Vec<Arc<dyn Runtime>>,
    isolate: Option<Arc<dyn Isolate>>,
    first: Option<First>,
    verify: Option<Verify>,
    dimensions: Option<NamedDimensions>,
}

impl Runtimes {
    /// Adds one; a later one of the same name replaces it.
    pub fn add(&mut self, runtime: Arc<dyn Runtime>) {
        let name = runtime.name();
        self.known.retain(|known| known.name() != name);
        self.known.push(runtime);
    }

    /// Asks this one first for a model of which nobody wants a certain runtime, from now on.
    pub fn begin_with(&mut self, first: First) {
        self.first = Some(first);
    }

    /// Looks at the digests that descriptions say this way, from now on.
    pub fn verify_by(&mut self, verify: Verify) {
        self.verify = Some(verify);
    }

    /// Looks this way for the names of dimensions that a runtime does not tell, from now on.
    pub fn name_dimensions_by(&mut self, dimensions: NamedDimensions) {
        self.dimensions = Some(dimensions);
    }

    /// The signature with the file's own names of dimensions, where the runtime tells none of them and the file has some.
    pub(crate) fn with_names(&self, path: &Path, info: &SessionInfo) -> Option<Signature> {
        let dimensions = self.dimensions.filter(|_| info.signature.inputs.iter().any(is_unnamed))?;
        with_names(&info.signature, &dimensions(path, &info.format))
    }

    /// Refuses a model that is no longer what it was when it was described. To be asked in the process that loads it, at each load.
    ///
    /// # Errors
    /// `INVALID_MODEL`; `NOT_OFFERED` where nobody looks.
    pub(crate) fn verify(&self, spec: &ModelSpec) -> Result<()> {
        let nobody: Verify = |_, _| Err(NnrpError::new(Reason::NotOffered, "model description: digests: this engine has nobody who looks at them"));
        spec.digests.iter().try_for_each(|(path, digest)| self.verify.unwrap_or(nobody)(path, digest))
    }

    /// The one that is asked first for a file.
    pub(crate) fn own(&self, path: &Path) -> Option<&'static str> {
        self.first.and_then(|first| first(path))
    }

    /// Gives models that ask for it processes of their own, from now on.
    pub fn isolate_by(&mut self, isolate: Arc<dyn Isolate>) {
        self.isolate = Some(isolate);
    }

    /// Loads a model by one runtime, in the process that its description asks for.
    pub(crate) fn load_by(&self, runtime: &dyn Runtime, spec: &ModelSpec) -> Result<Box<dyn Session>> {
        match (spec.isolation, &self.isolate) {
            (Isolation::None, _) => runtime.load(spec),
            (Isolation::Process, Some(isolate)) => {
                runtime.look(spec)?;
                isolate.load(runtime.name(), spec)
            }
            (Isolation::Process, None) => {
                Err(NnrpError::new(Reason::NotOffered, "isolation 'process': this engine was not told how to start one").with("isolation", "process"))
            }
        }
    }

    /// The runtimes, in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Runtime>> {
        self.known.iter()
    }

    /// What each is and offers, as one JSON document; `error` where it cannot be used.
    pub fn to_json(&self) -> Value {
        let told = self.iter().map(|runtime| {
            let mut told = runtime.info().to_json();
            if let Some(error) = runtime.unusable() {
                told["error"] = error.to_json();
            }
            told
        });
        told.collect()
    }

    /// The runtime of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Runtime>> {
        self.known.iter().find(|runtime| runtime.name() == name)
    }
}
