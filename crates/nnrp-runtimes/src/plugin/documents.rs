//! The JSON documents that a plug-in tells of itself and of its sessions.
use super::fault::{Verb, check};
use crate::c::abi::{NnrpFault, Status, Versioned};
use crate::c::dlpack::DIMENSION_LIMIT;
use nnrp_core::error::excerpt;
use nnrp_core::model::NAME_LIMIT;
use nnrp_core::plain::{is_unseen, plain, plain_fields};
use nnrp_core::{Datatype, Result, Shape, Signature, TensorSpec};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::ffi::{CStr, c_char};
use std::ptr::null;

/// Most inputs, and most outputs, of a session; most that a message can carry.
const MOST: usize = 1024;

/// What of a document is compared, and so must stay as it is: what options may be, and names.
fn compared(verb: Verb) -> &'static [&'static str] {
    match verb {
        Verb::Open => &["options"],
        Verb::Load => &["inputs", "outputs"],
        Verb::Run => &[],
    }
}

/// A JSON object that a plug-in tells, by a function that gives its text; its texts are made plain.
///
/// # Errors
/// The verb's: when the function fails, gives nothing, or no JSON object.
pub(super) fn read(runtime: &str, what: &str, tell: impl FnOnce(*mut *const c_char, *mut NnrpFault) -> Status, verb: Verb) -> Result<Map<String, Value>> {
    let (mut text, mut fault) = (null(), NnrpFault::sized());
    check(runtime, verb, what, tell(&raw mut text, &raw mut fault), &fault, None)?;
    if text.is_null() {
        return Err(verb.error(runtime, &format!("{what}: expected JSON, got NULL")));
    }
    // SAFETY: the plug-in gave a text that ends with NUL, and is not called before it is read.
    let parsed = serde_json::from_slice::<Map<String, Value>>(unsafe { CStr::from_ptr(text) }.to_bytes());
    let told = parsed.map_err(|error| verb.error(runtime, &format!("{what}: expected a JSON object: {}", excerpt(&error.to_string()))))?;
    let (kept, told): (Map<_, _>, Map<_, _>) = told.into_iter().partition(|(key, _)| compared(verb).contains(&key.as_str()));
    Ok(plain_fields(told).into_iter().chain(kept).collect())
}

/// What a plug-in is.
pub(super) struct About {
    pub(super) version: String,
    pub(super) formats: Vec<String>,
    pub(super) devices: Vec<String>,
    /// The options' JSON Schema, as it was told.
    pub(super) schema: Option<Value>,
    /// The same, for people: an empty one when there is none.
    pub(super) options: Value,
}

#[derive(Deserialize)]
struct AboutTold {
    #[serde(default)]
    version: String,
    #[serde(default)]
    formats: Vec<String>,
    #[serde(default = "cpu_alone")]
    devices: Vec<String>,
    options: Option<Value>,
}

fn cpu_alone() -> Vec<String> {
    vec!["cpu".to_owned()]
}

impl About {
    /// What its document says, or what is wrong with it.
    pub(super) fn of(told: Map<String, Value>) -> std::result::Result<About, String> {
        let AboutTold { version, formats, devices, options } = parse(told)?;
        let empty = json!({"type": "object", "properties": {}, "additionalProperties": false});
        Ok(About { version, formats, devices, options: options.clone().map_or(empty, described), schema: options })
    }
}

/// A schema whose words for people are plain.
fn described(schema: Value) -> Value {
    let word = |key: &str, value| match value {
        Value::String(text) if matches!(key, "title" | "description" | "$comment") => plain(&text).into(),
        value => described(value),
    };
    match schema {
        Value::Object(fields) => fields.into_iter().map(|(key, value)| (key.clone(), word(&key, value))).collect::<Map<_, _>>().into(),
        Value::Array(items) => items.into_iter().map(described).collect(),
        other => other,
    }
}

/// What a session is, as it was told.
#[derive(Deserialize)]
pub(super) struct SessionTold {
    inputs: Vec<TensorTold>,
    outputs: Vec<TensorTold>,
    pub(super) format: Option<String>,
    pub(super) device: Option<String>,
    pub(super) precision: Option<String>,
    #[serde(default)]
    pub(super) exclusive: bool,
    #[serde(default)]
    pub(super) cancellable: bool,
    #[serde(default)]
    pub(super) streams: bool,
    #[serde(default)]
    pub(super) settings: Map<String, Value>,
}

#[derive(Deserialize)]
struct TensorTold {
    name: String,
    datatype: String,
    shape: Option<Vec<i64>>,
    #[serde(default)]
    symbols: Vec<Option<String>>,
    #[serde(default)]
    optional: bool,
}

impl SessionTold {
    /// What its document says, with its signature; or what is wrong with it.
    pub(super) fn of(told: Map<String, Value>) -> std::result::Result<(SessionTold, Signature), String> {
        let mut told: SessionTold = parse(told)?;
        let (inputs, outputs) = (std::mem::take(&mut told.inputs), std::mem::take(&mut told.outputs));
        if outputs.is_empty() {
            return Err("outputs: expected at least one".to_owned());
        }
        let signature = Signature { inputs: specs("inputs", inputs)?, outputs: specs("outputs", outputs)? };
        Ok((told, signature))
    }
}

fn parse<T: for<'a> Deserialize<'a>>(told: Map<String, Value>) -> std::result::Result<T, String> {
    serde_json::from_value(Value::Object(told)).map_err(|error| excerpt(&error.to_string()))
}

fn specs(side: &str, told: Vec<TensorTold>) -> std::result::Result<Vec<TensorSpec>, String> {
    if told.len() > MOST {
        return Err(format!("{side}: expected at most {MOST}, got {}", told.len()));
    }
    let mut specs: Vec<TensorSpec> = Vec::with_capacity(told.len());
    for (index, tensor) in told.into_iter().enumerate() {
        let spec = spec(tensor).map_err(|wrong| format!("{side}[{index}]: {wrong}"))?;
        if specs.iter().any(|known| known.name == spec.name) {
            return Err(format!("{side}[{index}]: name '{}' is there twice", spec.name));
        }
        specs.push(spec);
    }
    Ok(specs)
}

fn spec(told: TensorTold) -> std::result::Result<TensorSpec, String> {
    let TensorTold { name, datatype, shape, symbols, optional } = told;
    if name.is_empty() || name.len() > NAME_LIMIT || name.contains(is_unseen) {
        return Err(format!("name: expected 1 to {NAME_LIMIT} bytes without control characters, got '{}'", excerpt(&plain(&name))));
    }
    let datatype = Datatype::from_name(&datatype).ok_or_else(|| format!("unknown datatype '{}'", excerpt(&datatype)))?;
    let symbols: Vec<Option<String>> = symbols.iter().map(|symbol| symbol.as_deref().map(plain)).collect();
    if let Some(shape) = &shape
        && (shape.len() > DIMENSION_LIMIT || shape.iter().any(|dim| *dim < -1))
    {
        return Err(format!("shape: expected at most {DIMENSION_LIMIT} dimensions, each -1 or more, got {}", excerpt(&format!("{shape:?}"))));
    }
    let rank = shape.as_ref().map_or(0, Vec::len);
    if symbols.len() != rank && !symbols.is_empty() {
        return Err(format!("symbols: expected one for each dimension, {rank}, got {}", symbols.len()));
    }
    Ok(TensorSpec { name: name.into(), datatype, shape: shape.map(|shape| Shape::from_slice(&shape)), symbols, ranges: vec![], optional })
}
