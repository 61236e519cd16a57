//! Models: what to load, what a loaded version takes and gives, and the versions that an engine holds (spec §6).
use crate::error::{NnrpError, Reason, Result};
use crate::metrics::Metrics;
use crate::runtime::Session;
use crate::schedule::Schedule;
use crate::tensor::{Datatype, Shape};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::sync::Arc;

/// A name that many answers share.
pub type Name = Arc<str>;

/// One input or output.
#[derive(Clone, Debug)]
pub struct TensorSpec {
    /// Its name.
    pub name: Name,
    /// Element type.
    pub datatype: Datatype,
    /// Dimensions, `-1` where any size will do. `None`: any rank.
    pub shape: Option<Shape>,
    /// The names of symbolic dimensions, `batch`; as long as the shape, or empty.
    pub symbols: Vec<Option<String>>,
    /// May be left out.
    pub optional: bool,
}

impl TensorSpec {
    /// The shape as metadata tells it; any rank shows as `[-1]`.
    pub fn wire_shape(&self) -> Shape {
        self.shape.clone().unwrap_or_else(|| Shape::from_slice(&[-1]))
    }

    /// As the model metadata tells it: `{"name", "datatype", "shape"}`.
    pub fn to_json(&self) -> Value {
        json!({"name": &*self.name, "datatype": self.datatype.name(), "shape": self.wire_shape().as_slice()})
    }
}

/// The named inputs and outputs of a model.
#[derive(Clone, Debug, Default)]
pub struct Signature {
    /// What it takes, in the model's order.
    pub inputs: Vec<TensorSpec>,
    /// What it gives, in the model's order.
    pub outputs: Vec<TensorSpec>,
}

/// What to load, by whom and how. The one description of a model, checked here and nowhere else.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// What callers say; letters, digits, `.`, `_`, `-`, not starting with `.`, 256 at most.
    pub name: String,
    /// Any string without `/`; the latest is the largest number, or else the last in order.
    #[serde(default = "first_version")]
    pub version: String,
    /// The file.
    pub path: PathBuf,
    /// The runtime's name.
    #[serde(default = "default_runtime")]
    pub runtime: String,
    /// The runtime's own options, verbatim.
    #[serde(default)]
    pub options: Map<String, Value>,
}

fn first_version() -> String {
    "1".to_owned()
}

fn default_runtime() -> String {
    "onnxruntime".to_owned()
}

/// Longest name of a model or version, in bytes.
pub const NAME_LIMIT: usize = 256;

impl ModelSpec {
    /// Reads one JSON document.
    ///
    /// # Errors
    /// `INVALID_OPTION` with serde's path and what it expected.
    pub fn from_json(text: &str) -> Result<ModelSpec> {
        serde_json::from_str(text).map_err(|error| NnrpError::new(Reason::InvalidOption, format!("model description: {error}")))
    }

    /// Checks the name and the version.
    ///
    /// # Errors
    /// `INVALID_OPTION`, naming the field.
    pub fn check(&self) -> Result<()> {
        for (field, text) in [("name", &self.name), ("version", &self.version)] {
            let allowed = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-');
            if text.is_empty() || text.len() > NAME_LIMIT || text.starts_with('.') || !text.chars().all(allowed) {
                let got = crate::error::excerpt(text);
                let message = format!("model {field}: expected 1 to {NAME_LIMIT} letters, digits, '.', '_' or '-', not starting with '.', got '{got}'");
                return Err(NnrpError::new(Reason::InvalidOption, message).with("field", field).with("got", got));
            }
        }
        Ok(())
    }
}

/// One model version that can be run.
pub struct Loaded {
    /// The model's name.
    pub name: Name,
    /// The version.
    pub version: Name,
    /// What runs it.
    pub session: Box<dyn Session>,
    /// Who runs when.
    pub schedule: Schedule,
    /// What happened so far.
    pub metrics: Metrics,
}

impl Loaded {
    /// What it takes and gives.
    pub fn signature(&self) -> &Signature {
        &self.session.info().signature
    }

    /// As the model metadata tells it (spec §6.3), with every loaded version of the model in `versions`.
    pub fn metadata(&self, versions: &[Name]) -> Value {
        let info = self.session.info();
        json!({
            "name": &*self.name,
            "versions": versions.iter().map(|version| &**version).collect::<Vec<&str>>(),
            "platform": self.platform(),
            "inputs": info.signature.inputs.iter().map(TensorSpec::to_json).collect::<Vec<_>>(),
            "outputs": info.signature.outputs.iter().map(TensorSpec::to_json).collect::<Vec<_>>(),
        })
    }

    /// `onnxruntime_onnx`, as clients of the Open Inference Protocol know it.
    pub fn platform(&self) -> String {
        let info = self.session.info();
        format!("{}_{}", info.runtime, info.format)
    }
}

/// The order of versions: numbers by value, before them everything else by text.
pub fn version_order(version: &str) -> (Option<u128>, &str) {
    (version.parse().ok(), version)
}
