//! Models: what to load, what a loaded version takes and gives, and the versions that an engine holds (spec §6).
use crate::choose::NotTaken;
use crate::error::{NnrpError, Reason, Result, excerpt};
use crate::metrics::Metrics;
use crate::overrides::{Overrides, Range};
use crate::runtime::{Session, Verb};
use crate::schedule::Schedule;
use crate::symbols::Ties;
use crate::tensor::{Datatype, Shape};
use parking_lot::Mutex;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
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
    /// The sizes that dimensions may have; as long as the shape, or empty.
    pub ranges: Vec<Option<Range>>,
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
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// What callers say; letters, digits, `.`, `_`, `-`, not starting with `.`, 256 at most.
    pub name: String,
    /// Any string without `/`; the latest is the largest number, or else the last in order.
    #[serde(default = "first_version")]
    pub version: String,
    /// The file.
    pub path: PathBuf,
    /// What the file is, `onnx`; a file that is something else is refused.
    #[serde(default)]
    pub format: Option<String>,
    /// Which runtimes may load it, in the order wanted; empty: any that reads the file.
    #[serde(default)]
    pub runtime: Preference,
    /// Where to run: `auto` for the runtime's first choice that its options allow, `cpu`, `cuda:0`, or a device by the runtime's own name.
    #[serde(default = "any_device")]
    pub device: String,
    /// How exact the numbers must be.
    #[serde(default)]
    pub precision: Precision,
    /// What the names of symbolic dimensions claim; the engine's to know, not the runtime's.
    #[serde(default, skip_serializing)]
    pub symbols: Symbols,
    /// The runtime's own options, verbatim.
    #[serde(default)]
    pub options: Map<String, Value>,
    /// What callers see in place of the inputs that the runtime tells.
    #[serde(default, deserialize_with = "inputs", skip_serializing_if = "Overrides::is_empty")]
    pub inputs: Overrides,
    /// What callers see in place of the outputs that the runtime tells.
    #[serde(default, deserialize_with = "outputs", skip_serializing_if = "Overrides::is_empty")]
    pub outputs: Overrides,
    /// In whose process it runs. Told no further: a runtime need not know.
    #[serde(default, skip_serializing_if = "Isolation::is_none")]
    pub isolation: Isolation,
    /// Files and folders, and the SHA-256 digest that each must have whenever the model is loaded. Told no further: a runtime need not know.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digests: BTreeMap<PathBuf, String>,
    /// Whatever its owner wants to remember of it.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// Runtimes by name, the one wanted most first. As text `onnxruntime,openvino`; in JSON also a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "Named")]
pub struct Preference(pub Vec<String>);

#[derive(Deserialize)]
#[serde(untagged, expecting = "runtime: expected a name, or a list of names")]
enum Named {
    One(String),
    Several(Vec<String>),
}

impl From<Named> for Preference {
    fn from(named: Named) -> Self {
        match named {
            Named::One(text) => text.as_str().into(),
            Named::Several(names) => Preference(names),
        }
    }
}

impl From<&str> for Preference {
    fn from(text: &str) -> Self {
        Preference(text.split(',').map(|name| name.trim().to_owned()).collect())
    }
}

fn first_version() -> String {
    "1".to_owned()
}

fn inputs<'de, D: Deserializer<'de>>(given: D) -> std::result::Result<Overrides, D::Error> {
    Overrides::read("inputs", Value::deserialize(given)?).map_err(D::Error::custom)
}

fn outputs<'de, D: Deserializer<'de>>(given: D) -> std::result::Result<Overrides, D::Error> {
    Overrides::read("outputs", Value::deserialize(given)?).map_err(D::Error::custom)
}

fn any_device() -> String {
    "auto".to_owned()
}

/// How exact a session's numbers must be. A session that cannot do what was asked is an error, and what it really does is among its settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// The model's own types throughout; nothing is narrowed.
    #[default]
    Strict,
    /// Arithmetic in BF16 where the runtime has it.
    Bf16,
    /// Arithmetic in FP16 where the runtime has it.
    Fp16,
    /// Arithmetic in INT8 where the runtime has it.
    Int8,
    /// Whatever the runtime finds fastest.
    Fast,
}

/// What it means that inputs share the name of a symbolic dimension.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Symbols {
    /// One name is one size, as formats say that have such names.
    #[default]
    Equal,
    /// Nothing: for files whose names are wrong.
    Free,
}

/// In whose process a model runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// The engine's own.
    #[default]
    None,
    /// One of its own, whose crash is an error and a restart.
    Process,
}

impl Isolation {
    fn is_none(&self) -> bool {
        *self == Isolation::None
    }
}

/// Longest name of a model or version, in bytes.
pub const NAME_LIMIT: usize = 256;

impl ModelSpec {
    /// Version 1 of a model, loaded with every default.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> ModelSpec {
        ModelSpec {
            name: name.into(),
            version: first_version(),
            path: path.into(),
            format: None,
            runtime: Preference::default(),
            device: any_device(),
            precision: Precision::default(),
            symbols: Symbols::default(),
            options: Map::new(),
            inputs: Overrides::default(),
            outputs: Overrides::default(),
            isolation: Isolation::None,
            digests: BTreeMap::new(),
            labels: BTreeMap::new(),
        }
    }

    /// Reads one JSON document.
    ///
    /// # Errors
    /// `INVALID_OPTION` with the path and what was expected there.
    pub fn from_json(text: &str) -> Result<ModelSpec> {
        let mut described: Value = serde_json::from_str(text).map_err(|error| unreadable("", &error))?;
        let object = described.as_object_mut().ok_or_else(|| NnrpError::new(Reason::InvalidOption, "model description: expected a JSON object"))?;
        let mut overrides = |field| Overrides::read(field, object.shift_remove(field).unwrap_or_default());
        let (inputs, outputs) = (overrides("inputs")?, overrides("outputs")?);
        let spec: ModelSpec = serde_path_to_error::deserialize(described).map_err(|error| unreadable(&error.path().to_string(), error.inner()))?;
        Ok(ModelSpec { inputs, outputs, ..spec })
    }

    /// Checks the name, the version and the runtimes' names.
    ///
    /// # Errors
    /// `INVALID_OPTION`, naming the field.
    pub fn check(&self) -> Result<()> {
        for (field, text) in [("name", &self.name), ("version", &self.version)] {
            let allowed = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-');
            if text.is_empty() || text.len() > NAME_LIMIT || text.starts_with('.') || !text.chars().all(allowed) {
                let got = excerpt(text);
                let message = format!("model {field}: expected 1 to {NAME_LIMIT} letters, digits, '.', '_' or '-', not starting with '.', got '{got}'");
                return Err(NnrpError::new(Reason::InvalidOption, message).with("field", field).with("got", got));
            }
        }
        if self.runtime.0.iter().any(String::is_empty) {
            let message = "model runtime: expected a name, or several with commas between them, got an empty one";
            return Err(NnrpError::new(Reason::InvalidOption, message).with("field", "runtime"));
        }
        Ok(())
    }
}

#[cold]
fn unreadable(path: &str, error: &serde_json::Error) -> NnrpError {
    let told = error.to_string();
    if path.is_empty() || path == "." {
        return NnrpError::new(Reason::InvalidOption, format!("model description: {told}"));
    }
    NnrpError::new(Reason::InvalidOption, format!("model description: {}: {told}", excerpt(path))).with("path", excerpt(path))
}

/// One model version that can be run.
pub struct Loaded {
    /// The model's name.
    pub name: Name,
    /// The version.
    pub version: Name,
    /// What runs it.
    pub session: Box<dyn Session>,
    /// The dimensions of its inputs that are of one size.
    pub(crate) ties: Ties,
    /// Who runs when.
    pub schedule: Schedule,
    /// What happened so far.
    pub metrics: Metrics,
    /// What its owner wants to remember of it.
    pub labels: BTreeMap<String, String>,
    /// Options that were changed since.
    pub(crate) changed: Mutex<Map<String, Value>>,
    /// The runtimes that were asked first, and what they said.
    pub not_taken: Vec<NotTaken>,
}

impl Loaded {
    /// What it takes and gives.
    pub fn signature(&self) -> &Signature {
        &self.session.info().signature
    }

    /// As the model metadata tells it (spec §6.3), with every loaded version of the model in `versions`.
    pub fn metadata(&self, versions: &[Name]) -> Value {
        let info = self.session.info();
        let mut told = json!({
            "name": &*self.name,
            "versions": versions.iter().map(|version| &**version).collect::<Vec<&str>>(),
            "platform": self.platform(),
            "inputs": info.signature.inputs.iter().map(TensorSpec::to_json).collect::<Vec<_>>(),
            "outputs": info.signature.outputs.iter().map(TensorSpec::to_json).collect::<Vec<_>>(),
        });
        if let Some((name, value)) = self.properties() {
            told["properties"] = json!({name: value});
        }
        told
    }

    /// The property of the metadata that tells that a request has any number of answers, where that is so.
    pub fn properties(&self) -> Option<(&'static str, &'static str)> {
        self.session.info().streams.then_some(("decoupled", "true"))
    }

    /// Has the session do what is not a run; an option that was changed is told among the settings from then on.
    ///
    /// # Errors
    /// As [`Session::tend`].
    pub fn tend(&self, verb: Verb<'_>) -> Result<Value> {
        let told = self.session.tend(verb)?;
        if let Verb::SetOption(name, value) = verb {
            self.changed.lock().insert(name.to_owned(), value.clone());
        }
        Ok(told)
    }

    /// How it was loaded, as one JSON document: what [`crate::SessionInfo::to_json`] tells, its labels, and why no other runtime was taken.
    pub fn description(&self) -> Value {
        let mut told = self.session.info().to_json();
        for (name, value) in &*self.changed.lock() {
            told["settings"][name] = value.clone();
        }
        let device = told["device"].clone();
        if let Some(settings) = told["settings"].as_object_mut() {
            settings.entry("device").or_insert(device);
            settings.extend(self.session.state());
        }
        told["labels"] = json!(self.labels);
        told["chosen"] = json!({"runtime": self.session.info().runtime, "not_taken": self.not_taken.iter().map(NotTaken::to_json).collect::<Vec<_>>()});
        told
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

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime(json: Value) -> Result<Preference> {
        let spec = ModelSpec::from_json(&json!({"name": "m", "path": "m.onnx", "runtime": json}).to_string())?;
        spec.check().map(|()| spec.runtime)
    }

    #[test]
    fn runtimes_are_named_as_a_text_or_a_list_in_the_order_wanted() {
        let two = Preference(vec!["a".into(), "b".into()]);
        assert_eq!(runtime(json!("a,b")).unwrap(), two);
        assert_eq!(runtime(json!("a, b")).unwrap(), two);
        assert_eq!(runtime(json!(["a", "b"])).unwrap(), two);
        assert_eq!(runtime(json!([])).unwrap(), Preference::default());
        assert_eq!(ModelSpec::from_json(r#"{"name": "m", "path": "m.onnx"}"#).unwrap().runtime, Preference::default());
        for wrong in [json!(""), json!("a,"), json!(["a", ""]), json!(5), json!(["a", 5]), json!({"a": 1})] {
            let error = runtime(wrong.clone()).unwrap_err();
            assert!(error.is(Reason::InvalidOption) && error.message().contains("runtime"), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_mistake_in_a_description_is_told_with_its_path() {
        for (key, value, path) in [
            ("colour", json!("red"), "colour"),
            ("device", json!(5), "device"),
            ("labels", json!({"of": 5}), "labels.of"),
            ("precision", json!("exact"), "precision"),
            ("options", json!([]), "options"),
            ("inputs", json!({"x": {"shape": [-7]}}), "inputs['x'].shape[0]"),
        ] {
            let mut described = json!({"name": "m", "path": "m.onnx"});
            described[key] = value;
            let error = ModelSpec::from_json(&described.to_string()).unwrap_err();
            assert!(error.is(Reason::InvalidOption) && error.details()["path"] == path && error.message().contains(path), "{error:?}");
        }
        assert_eq!(ModelSpec::from_json(r#"["m", "1"]"#).unwrap_err().message(), "model description: expected a JSON object");
    }

    #[test]
    fn a_description_that_is_written_reads_as_the_same() {
        let inputs = Overrides::read("inputs", json!({"x": "pixels"})).unwrap();
        let labels = [("k".to_owned(), "v".to_owned())].into();
        let spec = ModelSpec { runtime: "a,b".into(), labels, inputs, ..ModelSpec::new("m", "m.onnx") };
        let again = ModelSpec::from_json(&serde_json::to_string(&spec).unwrap()).unwrap();
        assert_eq!((again.inputs, again.outputs), (spec.inputs, spec.outputs));
        assert_eq!((again.runtime, again.labels, again.format, again.precision), (spec.runtime, spec.labels, None, Precision::Strict));
    }
}
