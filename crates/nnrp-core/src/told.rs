//! A runtime and its sessions as another language tells of them: one JSON document each, taken on no trust.
use crate::error::{NnrpError, Reason, Result, excerpt};
use crate::model::{NAME_LIMIT, Signature, TensorSpec};
use crate::plain::{plain, plain_fields};
use crate::runtime::{Concurrency, RuntimeInfo, SessionInfo, Threads};
use crate::tensor::{Datatype, Shape};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Most inputs, or outputs, of a session.
const MOST_TENSORS: usize = 10_000;
/// Most dimensions of one.
const MOST_DIMENSIONS: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Told {
    version: String,
    format: String,
    device: String,
    exclusive: bool,
    cancellable: bool,
    #[serde(default)]
    streams: bool,
    settings: Map<String, Value>,
    inputs: Vec<ToldTensor>,
    outputs: Vec<ToldTensor>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToldTensor {
    name: String,
    datatype: String,
    shape: Option<Vec<i64>>,
    #[serde(default)]
    symbols: Vec<Option<String>>,
    #[serde(default)]
    optional: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ToldRuntime {
    version: String,
    formats: Vec<String>,
    devices: Vec<String>,
    options: Value,
}

impl RuntimeInfo {
    /// What a runtime tells of itself; what cannot be read is empty.
    pub fn from_json(name: &'static str, text: &str) -> RuntimeInfo {
        let ToldRuntime { version, formats, devices, options } = serde_json::from_str(text).unwrap_or_default();
        let all_plain = |texts: Vec<String>| texts.iter().map(|text| plain(text)).collect();
        RuntimeInfo { name, version: plain(&version), formats: all_plain(formats), devices: all_plain(devices), options }
    }
}

impl SessionInfo {
    /// What [`SessionInfo::from_json`] reads.
    pub fn told(&self) -> Value {
        let tensors = |specs: &[TensorSpec]| specs.iter().map(told_tensor).collect::<Vec<Value>>();
        json!({
            "version": self.runtime_version,
            "format": self.format,
            "device": self.device,
            "exclusive": self.concurrency == Concurrency::Exclusive,
            "cancellable": self.cancellable,
            "streams": self.streams,
            "settings": self.settings,
            "inputs": tensors(&self.signature.inputs),
            "outputs": tensors(&self.signature.outputs),
        })
    }

    /// What a runtime tells of a session that it has loaded.
    ///
    /// # Errors
    /// `LOAD_FAILED`, saying what the runtime told wrong.
    pub fn from_json(runtime: &'static str, threads: Threads, text: &str) -> Result<SessionInfo> {
        let told: Told = serde_json::from_str(text).map_err(|error| wrong(runtime, &error.to_string()))?;
        Ok(SessionInfo {
            signature: Signature { inputs: specs(runtime, "input", told.inputs)?, outputs: specs(runtime, "output", told.outputs)? },
            runtime,
            runtime_version: plain(&told.version),
            format: plain(&told.format),
            device: plain(&told.device),
            concurrency: if told.exclusive { Concurrency::Exclusive } else { Concurrency::Shared },
            threads,
            cancellable: told.cancellable,
            streams: told.streams,
            settings: plain_fields(told.settings),
        })
    }
}

fn told_tensor(spec: &TensorSpec) -> Value {
    let shape = spec.shape.as_ref().map(|shape| shape.as_slice());
    json!({"name": &*spec.name, "datatype": spec.datatype.name(), "shape": shape, "symbols": spec.symbols, "optional": spec.optional})
}

fn specs(runtime: &str, what: &str, told: Vec<ToldTensor>) -> Result<Vec<TensorSpec>> {
    if told.len() > MOST_TENSORS || (what == "output" && told.is_empty()) {
        return Err(wrong(runtime, &format!("{what}s: expected 1 to {MOST_TENSORS}, got {}", told.len())));
    }
    let mut specs: Vec<TensorSpec> = Vec::with_capacity(told.len());
    for tensor in told {
        let spec = spec(tensor).map_err(|trouble| wrong(runtime, &format!("{what} {trouble}")))?;
        specs.push(spec);
    }
    let mut names: Vec<&str> = specs.iter().map(|spec| &*spec.name).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(wrong(runtime, &format!("{what} '{}' is told twice", excerpt(pair[0])))),
        None => Ok(specs),
    }
}

fn spec(told: ToldTensor) -> std::result::Result<TensorSpec, String> {
    let name = excerpt(&told.name);
    if told.name.is_empty() || told.name.len() > NAME_LIMIT {
        return Err(format!("'{name}': expected a name of 1 to {NAME_LIMIT} bytes"));
    }
    let datatype = Datatype::from_name(&told.datatype).ok_or_else(|| format!("'{name}': unknown datatype '{}'", excerpt(&told.datatype)))?;
    let dims = told.shape.as_deref().unwrap_or_default();
    if dims.len() > MOST_DIMENSIONS || dims.iter().any(|&dim| dim < -1) {
        return Err(format!("'{name}': expected at most {MOST_DIMENSIONS} dimensions, each -1 or more, got {:?}", &dims[..dims.len().min(8)]));
    }
    if !told.symbols.is_empty() && told.symbols.len() != dims.len() {
        return Err(format!("'{name}': expected {} symbols, got {}", dims.len(), told.symbols.len()));
    }
    let shape = told.shape.as_deref().map(Shape::from_slice);
    Ok(TensorSpec { name: told.name.into(), datatype, shape, symbols: told.symbols, ranges: vec![], optional: told.optional })
}

#[cold]
fn wrong(runtime: &str, trouble: &str) -> NnrpError {
    NnrpError::new(Reason::LoadFailed, format!("runtime {runtime}: what it tells of its session: {trouble}")).with("runtime", runtime)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(outputs: Value) -> Result<SessionInfo> {
        let session = json!({
            "version": "1", "format": "python", "device": "cpu", "exclusive": true, "cancellable": false, "settings": {},
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}], "outputs": outputs,
        });
        SessionInfo::from_json("tiny", Threads::Own, &session.to_string())
    }

    #[test]
    fn a_session_that_is_told_well_is_taken() {
        let info = told(json!([{"name": "y", "datatype": "BYTES", "shape": null}])).unwrap();
        assert_eq!((info.concurrency, info.threads), (Concurrency::Exclusive, Threads::Own));
        assert_eq!(info.signature.inputs[0].wire_shape().as_slice(), [-1, 2]);
        assert!(info.signature.outputs[0].shape.is_none());
        let again = SessionInfo::from_json("tiny", Threads::Own, &info.told().to_string()).unwrap();
        assert_eq!(again.told(), info.told());
    }

    #[test]
    fn a_runtime_that_cannot_say_what_it_is_is_nameable_all_the_same() {
        let info = RuntimeInfo::from_json("tiny", r#"{"version": "1", "formats": ["beads"], "options": {"type": "object"}}"#);
        assert_eq!((info.version.as_str(), info.formats.len(), info.options["type"].as_str()), ("1", 1, Some("object")));
        assert_eq!(RuntimeInfo::from_json("tiny", "5").version, "");
        let kept = crate::runtime::kept_name(&String::from("tiny"));
        assert!(std::ptr::eq(kept, crate::runtime::kept_name(&String::from("tiny"))));
    }

    #[test]
    fn each_mistake_of_a_runtime_is_named() {
        let output = |datatype: &str, shape: Value| json!({"name": "y", "datatype": datatype, "shape": shape});
        for (outputs, says) in [
            (json!([]), "outputs: expected 1"),
            (json!([output("FP31", json!([1]))]), "unknown datatype 'FP31'"),
            (json!([output("FP32", json!([-2]))]), "each -1 or more"),
            (json!([output("FP32", json!([1])), output("FP32", json!([1]))]), "told twice"),
            (json!([{"name": "", "datatype": "FP32", "shape": [1]}]), "expected a name"),
            (json!([{"name": "y", "datatype": "FP32", "shape": [1], "symbols": ["a", "b"]}]), "expected 1 symbols"),
            (json!([{"name": "y", "datatype": "FP32", "shape": "wide"}]), "invalid type"),
        ] {
            let error = told(outputs).unwrap_err();
            assert!(error.is(Reason::LoadFailed) && error.message().contains(says), "{error:?}");
        }
    }
}
