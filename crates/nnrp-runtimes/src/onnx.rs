//! What an ONNX file says of itself, read without a runtime.
pub(crate) mod division;
pub(crate) mod narrowing;
mod node;
mod signature;
pub(crate) mod weights;

pub(crate) use signature::{inputs, named_dimensions, symbols};

use crate::format;
use nnrp_core::{Datatype, NnrpError, Reason, Result};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// No protobuf message is larger, so no ONNX file is; larger models keep their weights in files beside.
const SIZE_LIMIT: u64 = 1 << 31;
/// How deep graphs, types and lists may lie in each other, as in protobuf's own readers.
const DEPTH_LIMIT: usize = 100;

/// The datatype of an ONNX element type.
pub(crate) fn datatype_of(element: i64) -> Option<Datatype> {
    Some(match element {
        1 => Datatype::Fp32,
        2 => Datatype::Uint8,
        3 => Datatype::Int8,
        4 => Datatype::Uint16,
        5 => Datatype::Int16,
        6 => Datatype::Int32,
        7 => Datatype::Int64,
        8 => Datatype::Bytes,
        9 => Datatype::Bool,
        10 => Datatype::Fp16,
        11 => Datatype::Fp64,
        12 => Datatype::Uint32,
        13 => Datatype::Uint64,
        16 => Datatype::Bf16,
        17 => Datatype::Fp8E4m3,
        19 => Datatype::Fp8E5m2,
        21 => Datatype::Uint4,
        22 => Datatype::Int4,
        _ => return None,
    })
}

/// What the file is and needs: format and size; of ONNX also signature, producer, names, metadata, opsets, operators by domain, external files.
///
/// Reads the file alone; no library is opened and nothing is run. An input or output that is no tensor has a `type` instead of a datatype.
/// Of other formats than ONNX the signature is null: only a runtime can tell it.
///
/// # Errors
/// `FILE_NOT_FOUND`, `INVALID_MODEL`.
pub fn inspect(path: &Path) -> Result<Value> {
    let format = format::format(path)?;
    if format != "onnx" {
        return Ok(json!({"format": format, "byte_size": format::byte_size(path), "signature": null}));
    }
    let (model, byte_size) = read(path)?;
    Ok(model.to_json(byte_size))
}

fn read(path: &Path) -> Result<(Model, u64)> {
    let byte_size = std::fs::metadata(path).map_err(|error| format::refused(&error))?.len();
    if byte_size > SIZE_LIMIT {
        let message = format!("model file: expected at most {SIZE_LIMIT} bytes, got {byte_size}");
        return Err(NnrpError::new(Reason::InvalidModel, message).with("byte_size", byte_size));
    }
    let bytes = std::fs::read(path).map_err(|error| format::refused(&error))?;
    let mut model = Model::default();
    let read = model.read(&bytes).filter(|()| model.graph);
    read.map(|()| (model, byte_size)).ok_or_else(|| NnrpError::new(Reason::InvalidModel, "model file: not an ONNX model"))
}

/// One field of a protobuf message.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Skipped,
}

/// The fields of a message, in order; `None` for what is not protobuf.
fn fields(message: &[u8]) -> impl Iterator<Item = Option<(u32, Field<'_>)>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = field(&mut rest);
        if field.is_none() {
            rest = &[];
        }
        Some(field)
    })
}

fn field<'a>(rest: &mut &'a [u8]) -> Option<(u32, Field<'a>)> {
    let (tag, wire) = decode_key(rest).ok()?;
    let field = match wire {
        WireType::Varint => Field::Number(decode_varint(rest).ok()?),
        WireType::LengthDelimited => {
            let length = usize::try_from(decode_varint(rest).ok()?).ok()?;
            let (bytes, tail) = rest.split_at_checked(length)?;
            *rest = tail;
            Field::Bytes(bytes)
        }
        _ => {
            skip_field(wire, tag, rest, DecodeContext::default()).ok()?;
            Field::Skipped
        }
    };
    Some((tag, field))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A number as protobuf's int64.
fn signed(number: u64) -> i64 {
    number.cast_signed()
}

#[derive(Default)]
struct Model {
    texts: BTreeMap<&'static str, String>,
    numbers: BTreeMap<&'static str, i64>,
    metadata: Map<String, Value>,
    opsets: BTreeMap<String, i64>,
    operators: BTreeMap<String, BTreeSet<String>>,
    external: BTreeSet<String>,
    inputs: Vec<(String, Map<String, Value>)>,
    outputs: Vec<(String, Map<String, Value>)>,
    initializers: BTreeSet<String>,
    graph: bool,
}

impl Model {
    fn read(&mut self, message: &[u8]) -> Option<()> {
        for field in fields(message) {
            match field? {
                (1, Field::Number(version)) => drop(self.numbers.insert("ir_version", signed(version))),
                (2, Field::Bytes(name)) => drop(self.texts.insert("producer_name", text(name))),
                (3, Field::Bytes(version)) => drop(self.texts.insert("producer_version", text(version))),
                (4, Field::Bytes(domain)) => drop(self.texts.insert("domain", text(domain))),
                (5, Field::Number(version)) => drop(self.numbers.insert("model_version", signed(version))),
                (6, Field::Bytes(description)) => drop(self.texts.insert("description", text(description))),
                (7, Field::Bytes(graph)) => {
                    self.graph = true;
                    self.graph(graph, 0)?;
                }
                (8, Field::Bytes(opset)) => self.opset(opset)?,
                (14, Field::Bytes(entry)) => {
                    let (key, value) = pair(entry)?;
                    self.metadata.insert(key, Value::String(value));
                }
                (25, Field::Bytes(function)) => self.function(function)?,
                _ => {}
            }
        }
        Some(())
    }

    fn opset(&mut self, message: &[u8]) -> Option<()> {
        let (mut domain, mut version) = (String::new(), 0);
        for field in fields(message) {
            match field? {
                (1, Field::Bytes(name)) => domain = text(name),
                (2, Field::Number(number)) => version = signed(number),
                _ => {}
            }
        }
        self.opsets.insert(named(domain), version);
        Some(())
    }

    /// Depth 0 is the model's own graph; only that one has a signature.
    fn graph(&mut self, message: &[u8], depth: usize) -> Option<()> {
        for field in fields(message) {
            match field? {
                (1, Field::Bytes(node)) => self.node(node, depth)?,
                (2, Field::Bytes(name)) if depth == 0 => drop(self.texts.insert("graph_name", text(name))),
                (5, Field::Bytes(tensor)) => {
                    let name = self.tensor(tensor)?;
                    if depth == 0 {
                        self.initializers.insert(name);
                    }
                }
                (15, Field::Bytes(sparse)) => self.sparse(sparse)?,
                (11, Field::Bytes(value)) if depth == 0 => self.inputs.push(value_info(value)?),
                (12, Field::Bytes(value)) if depth == 0 => self.outputs.push(value_info(value)?),
                _ => {}
            }
        }
        Some(())
    }

    fn function(&mut self, message: &[u8]) -> Option<()> {
        for field in fields(message) {
            if let (7, Field::Bytes(node)) = field? {
                self.node(node, 1)?;
            }
        }
        Some(())
    }

    fn node(&mut self, message: &[u8], depth: usize) -> Option<()> {
        let (mut domain, mut operator) = (String::new(), String::new());
        for field in fields(message) {
            match field? {
                (4, Field::Bytes(name)) => operator = text(name),
                (5, Field::Bytes(attribute)) => self.attribute(attribute, depth + 1)?,
                (7, Field::Bytes(name)) => domain = text(name),
                _ => {}
            }
        }
        self.operators.entry(named(domain)).or_default().insert(operator);
        Some(())
    }

    fn attribute(&mut self, message: &[u8], depth: usize) -> Option<()> {
        for field in fields(message) {
            match field? {
                (5 | 10, Field::Bytes(tensor)) => drop(self.tensor(tensor)?),
                (6 | 11, Field::Bytes(graph)) if depth < DEPTH_LIMIT => self.graph(graph, depth)?,
                (6 | 11, Field::Bytes(_)) => return None,
                (22 | 23, Field::Bytes(sparse)) => self.sparse(sparse)?,
                _ => {}
            }
        }
        Some(())
    }

    /// Values and indices, which are tensors.
    fn sparse(&mut self, message: &[u8]) -> Option<()> {
        for field in fields(message) {
            if let (1 | 2, Field::Bytes(tensor)) = field? {
                self.tensor(tensor)?;
            }
        }
        Some(())
    }

    /// The tensor's name; notes the file that its elements lie in.
    fn tensor(&mut self, message: &[u8]) -> Option<String> {
        let mut name = String::new();
        for field in fields(message) {
            match field? {
                (8, Field::Bytes(bytes)) => name = text(bytes),
                (13, Field::Bytes(entry)) => {
                    let (key, value) = pair(entry)?;
                    if key == "location" {
                        self.external.insert(value);
                    }
                }
                _ => {}
            }
        }
        Some(name)
    }

    fn to_json(&self, byte_size: u64) -> Value {
        let text = |key: &str| self.texts.get(key).map_or("", String::as_str);
        let number = |key: &str| self.numbers.get(key).copied().unwrap_or(0);
        let inputs: Vec<Value> = self.inputs.iter().map(|(name, value)| described(name, value, self.initializers.contains(name))).collect();
        let outputs: Vec<Value> = self.outputs.iter().map(|(name, value)| described(name, value, false)).collect();
        json!({
            "format": "onnx",
            "byte_size": byte_size,
            "ir_version": number("ir_version"),
            "producer": {"name": text("producer_name"), "version": text("producer_version")},
            "graph_name": text("graph_name"),
            "domain": text("domain"),
            "description": text("description"),
            "model_version": number("model_version"),
            "metadata": self.metadata,
            "signature": {"inputs": inputs, "outputs": outputs},
            "needs": {"opsets": self.opsets, "operators": self.operators, "external_files": self.external},
        })
    }
}

/// The default domain's full name.
fn named(domain: String) -> String {
    if domain.is_empty() { "ai.onnx".to_owned() } else { domain }
}

fn described(name: &str, value: &Map<String, Value>, has_default: bool) -> Value {
    let mut all = Map::from_iter([("name".to_owned(), json!(name))]);
    all.extend(value.clone());
    if has_default {
        all.insert("optional".to_owned(), json!(true));
    }
    Value::Object(all)
}

/// Key and value of an entry.
fn pair(message: &[u8]) -> Option<(String, String)> {
    let (mut key, mut value) = (String::new(), String::new());
    for field in fields(message) {
        match field? {
            (1, Field::Bytes(bytes)) => key = text(bytes),
            (2, Field::Bytes(bytes)) => value = text(bytes),
            _ => {}
        }
    }
    Some((key, value))
}

fn value_info(message: &[u8]) -> Option<(String, Map<String, Value>)> {
    let (mut name, mut described) = (String::new(), Map::new());
    for field in fields(message) {
        match field? {
            (1, Field::Bytes(bytes)) => name = text(bytes),
            (2, Field::Bytes(bytes)) => described = type_of(bytes, 0)?,
            _ => {}
        }
    }
    Some((name, described))
}

fn type_of(message: &[u8], depth: usize) -> Option<Map<String, Value>> {
    let mut described = Map::new();
    for field in fields(message) {
        match field? {
            (1, Field::Bytes(tensor)) => described = tensor_type(tensor)?,
            (4, Field::Bytes(_)) => drop(described.insert("type".to_owned(), json!("sequence"))),
            (5, Field::Bytes(_)) => drop(described.insert("type".to_owned(), json!("map"))),
            (7, Field::Bytes(_)) => drop(described.insert("type".to_owned(), json!("opaque"))),
            (8, Field::Bytes(_)) => drop(described.insert("type".to_owned(), json!("sparse_tensor"))),
            (9, Field::Bytes(optional)) if depth < DEPTH_LIMIT => {
                for field in fields(optional) {
                    if let (1, Field::Bytes(contained)) = field? {
                        described = type_of(contained, depth + 1)?;
                    }
                }
                described.insert("optional".to_owned(), json!(true));
            }
            _ => {}
        }
    }
    Some(described)
}

/// Datatype and shape; a symbolic dimension is its name, an unknown one `-1`, and any rank `null`.
fn tensor_type(message: &[u8]) -> Option<Map<String, Value>> {
    let (mut datatype, mut shape) = (Value::Null, Value::Null);
    for field in fields(message) {
        match field? {
            (1, Field::Number(element)) => datatype = datatype_of(signed(element)).map_or(Value::Null, |datatype| json!(datatype.name())),
            (2, Field::Bytes(bytes)) => shape = Value::Array(dimensions(bytes)?),
            _ => {}
        }
    }
    Some(Map::from_iter([("datatype".to_owned(), datatype), ("shape".to_owned(), shape)]))
}

fn dimensions(message: &[u8]) -> Option<Vec<Value>> {
    let mut dims = Vec::new();
    for field in fields(message) {
        let (1, Field::Bytes(dim)) = field? else { continue };
        let mut size = json!(-1);
        for field in fields(dim) {
            match field? {
                (1, Field::Number(number)) => size = json!(signed(number)),
                (2, Field::Bytes(name)) if !name.is_empty() => size = json!(text(name)),
                _ => {}
            }
        }
        dims.push(size);
    }
    Some(dims)
}
