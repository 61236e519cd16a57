//! The files of spec/vectors, and the engine's messages told as those files tell them.
#![allow(dead_code, reason = "each test program uses its part")]
use bytes::Bytes;
use nnrp_core::tensor::{Datatype, Shape, Tensor};
use nnrp_core::{Input, NnrpError, Output, Parameter, Request, Response, Signature, TensorSpec};
use nnrp_wire::codec::check_elements;
use nnrp_wire::codec::rest::{Wanted, decode_raw_request, decode_request, decode_response};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) struct Vector {
    pub(crate) name: String,
    pub(crate) document: Value,
    pub(crate) body: Bytes,
    pub(crate) json_size: Option<usize>,
    pub(crate) signature: Signature,
}

/// Every vector of a folder, by name.
pub(crate) fn load(folder: &str) -> Vec<Vector> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../spec/vectors").join(folder);
    let mut vectors: Vec<Vector> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let document: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let json_size = document["headers"]["Inference-Header-Content-Length"].as_str().map(|size| size.parse().unwrap());
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            Vector { name, body: body(&document["body"]), json_size, signature: signature(&document["signature"]), document }
        })
        .collect();
    vectors.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(!vectors.is_empty());
    vectors
}

fn body(parts: &Value) -> Bytes {
    let part = |part: &Value| match part {
        Value::String(text) => text.clone().into_bytes(),
        part => match part["hex"].as_str() {
            Some(text) => hex::decode(text).unwrap(),
            None => part["repeat"].as_str().unwrap().repeat(part["times"].as_u64().unwrap() as usize).into_bytes(),
        },
    };
    match parts {
        Value::Array(parts) => parts.iter().flat_map(part).collect(),
        whole => part(whole).into(),
    }
}

fn signature(inputs: &Value) -> Signature {
    let spec = |value: &Value| TensorSpec {
        name: text(&value["name"]).into(),
        datatype: Datatype::from_name(text(&value["datatype"])).unwrap(),
        shape: Some(shape(&value["shape"])),
        symbols: vec![],
        ranges: vec![],
        optional: false,
    };
    Signature { inputs: inputs.as_array().into_iter().flatten().map(spec).collect(), outputs: vec![] }
}

/// What a vector's direction decodes to and the engine makes of its parameters, told as its `means`.
pub(crate) fn decode(vector: &Vector) -> Result<Value, NnrpError> {
    let received = Instant::now();
    let (body, signature) = (&vector.body, &vector.signature);
    match (text(&vector.document["direction"]), vector.json_size) {
        ("request", Some(0)) => decode_raw_request("m", "", body, signature).map(|(request, wanted)| tell_request(&request, &wanted, received)),
        ("request", size) => {
            let (mut request, wanted) = decode_request("m", "", body, size, received)?;
            check_elements(&request, 64 << 20)?;
            request.settle(received)?;
            Ok(tell_request(&request, &wanted, received))
        }
        ("response", size) => decode_response(body, size).map(|response| tell_response(&response)),
        (direction, _) => panic!("{}: {direction} is no direction", vector.name),
    }
}

pub(crate) fn tell_request(request: &Request<'_, '_>, wanted: &Wanted, received: Instant) -> Value {
    let mut means = Map::new();
    if let Some(id) = &request.id {
        means.insert("id".into(), json!(id));
    }
    if !request.parameters.is_empty() {
        means.insert("parameters".into(), request.parameters.iter().map(|(name, value)| (name.clone(), tell_parameter(value))).collect());
    }
    if let Some(deadline) = request.deadline {
        means.insert("timeout_us".into(), json!((deadline - received).as_micros() as u64));
    }
    means.insert("inputs".into(), request.inputs.iter().map(|input| tell_tensor(&input.name, &input.tensor)).collect());
    if !request.outputs.is_empty() {
        means.insert("outputs".into(), json!(&*request.outputs));
    }
    let flags: Vec<bool> = (0..request.outputs.len().max(1)).map(|index| wanted.binary(index)).collect();
    means.insert("binary".into(), json!(flags));
    Value::Object(means)
}

pub(crate) fn tell_response(response: &Response) -> Value {
    let outputs: Value = response.outputs.iter().map(|output| tell_tensor(&output.name, &output.tensor)).collect();
    let mut means = json!({"model": &*response.model, "version": &*response.version, "outputs": outputs});
    if let Some(id) = &response.id {
        means["id"] = json!(id);
    }
    means
}

fn tell_tensor(name: &str, tensor: &Tensor<'_>) -> Value {
    json!({"name": name, "datatype": tensor.datatype.name(), "shape": tensor.shape.as_slice(), "data": hex::encode(tensor.bytes())})
}

fn tell_parameter(parameter: &Parameter) -> Value {
    match parameter {
        Parameter::Bool(value) => json!(value),
        Parameter::Int(value) => json!(value),
        Parameter::Uint(value) => json!(value),
        Parameter::Double(value) => json!(value),
        Parameter::String(value) => json!(value),
    }
}

/// The `means` of a file in the full form that the tellers give.
pub(crate) fn expected(vector: &Vector) -> Value {
    let mut means = vector.document["means"].clone();
    if vector.document["direction"] == "request" {
        let outputs = vector.document["means"]["outputs"].as_array().map_or(1, Vec::len);
        let flags = match &vector.document["means"]["binary"] {
            flags @ Value::Array(_) => flags.clone(),
            flag => json!(vec![flag.as_bool().unwrap_or(false); outputs]),
        };
        means["binary"] = flags;
    }
    for output in means.get_mut("outputs").and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut) {
        output.remove("binary");
    }
    means
}

/// The request that a file's `means` describes.
pub(crate) fn build_request(means: &Value) -> Request<'_, 'static> {
    Request {
        model: "m".into(),
        id: means["id"].as_str().map(Into::into),
        parameters: means["parameters"].as_object().into_iter().flatten().map(|(name, value)| (name.clone(), parameter(value))).collect(),
        inputs: list(&means["inputs"]).map(|input| Input { name: text(&input["name"]).into(), tensor: tensor(input) }).collect(),
        outputs: list(&means["outputs"]).map(|name| text(name).into()).collect(),
        deadline: means["timeout_us"].as_u64().map(|micros| Instant::now() + Duration::from_micros(micros)),
        ..Request::default()
    }
}

/// The response that a file's `means` describes, and how its outputs are wanted.
pub(crate) fn build_response(means: &Value) -> Response {
    Response {
        model: text(&means["model"]).into(),
        version: text(&means["version"]).into(),
        id: means["id"].as_str().map(Into::into),
        outputs: list(&means["outputs"]).map(|output| Output { name: text(&output["name"]).into(), tensor: tensor(output) }).collect(),
    }
}

fn tensor(value: &Value) -> Tensor<'static> {
    let bytes = hex::decode(text(&value["data"])).unwrap();
    Tensor::shared(Datatype::from_name(text(&value["datatype"])).unwrap(), &shape(&value["shape"]), bytes.into())
}

fn shape(value: &Value) -> Shape {
    list(value).map(|dim| dim.as_i64().unwrap()).collect()
}

fn parameter(value: &Value) -> Parameter {
    match value {
        Value::Bool(value) => Parameter::Bool(*value),
        Value::String(value) => Parameter::String(value.clone()),
        value => match (value.as_i64(), value.as_u64()) {
            (Some(value), _) => Parameter::Int(value),
            (None, Some(value)) => Parameter::Uint(value),
            _ => Parameter::Double(value.as_f64().unwrap()),
        },
    }
}

pub(crate) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}
