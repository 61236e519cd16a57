//! The protobuf codec against its vectors, both directions, and against bytes that mean harm.
use bytes::Bytes;
use nnrp_core::tensor::{bytes_elements, push_bytes_element};
use nnrp_core::{Datatype, Input, Output, Parameter, Reason, Request, Response, Result, Tensor};
use nnrp_wire::codec::check_elements;
use nnrp_wire::codec::proto;
use proptest::prelude::*;
use prost::Message;
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

const LIMIT: usize = 64 << 20;

fn vectors(folder: &str) -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../spec/vectors").join(folder);
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        (path.file_stem().unwrap().to_str().unwrap().to_owned(), serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
    };
    let mut vectors: Vec<_> = std::fs::read_dir(folder).unwrap().map(read).collect();
    vectors.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(!vectors.is_empty());
    vectors
}

/// The request that a message means, with what the engine makes of its parameters.
fn decode_request(message: impl Into<Bytes>, limit: usize) -> Result<Request<'static, 'static>> {
    let now = Instant::now();
    let mut request = proto::decode_request(proto::read_request(message.into(), limit)?, now)?;
    check_elements(&request, limit)?;
    request.settle(now).map(|()| request)
}

fn decode_response(message: impl Into<Bytes>) -> Result<Response> {
    proto::decode_response(proto::read_response(message.into(), LIMIT)?)
}

fn tensor(name: &str, tensor: &Tensor<'_>) -> Value {
    json!({"name": name, "datatype": tensor.datatype.name(), "shape": tensor.shape.as_slice(), "bytes": hex::encode(tensor.bytes())})
}

fn request_means(request: &Request<'_, '_>) -> Value {
    let parameter = |(name, value): &(String, Parameter)| {
        let value = match value {
            Parameter::Bool(value) => json!(value),
            Parameter::Int(value) => json!(value),
            Parameter::Uint(value) => json!(value),
            Parameter::Double(value) => json!(value),
            Parameter::String(value) => json!(value),
        };
        (name.clone(), value)
    };
    json!({
        "model": request.model,
        "version": request.version,
        "id": request.id,
        "parameters": request.parameters.iter().map(parameter).collect::<Value>(),
        "inputs": request.inputs.iter().map(|input| tensor(&input.name, &input.tensor)).collect::<Value>(),
        "outputs": request.outputs.as_slice(),
    })
}

fn response_means(response: &Response) -> Value {
    json!({
        "model": &*response.model,
        "version": &*response.version,
        "id": response.id,
        "outputs": response.outputs.iter().map(|output| tensor(&output.name, &output.tensor)).collect::<Value>(),
    })
}

#[test]
fn every_vector_is_read_as_it_is_meant_and_the_canonical_ones_are_written_so() {
    for (name, vector) in vectors("grpc") {
        let message = hex::decode(vector["message"].as_str().unwrap()).unwrap();
        let (means, written) = if vector["kind"] == "request" {
            let request = decode_request(message.clone(), LIMIT).unwrap();
            (request_means(&request), proto::encode_request(&request).encode_to_vec())
        } else {
            let response = decode_response(message.clone()).unwrap();
            (response_means(&response), proto::encode_response(&response).encode_to_vec())
        };
        assert_eq!(means, vector["means"], "{name}");
        assert_eq!(written == message, vector["canonical"].as_bool().unwrap(), "{name}");
    }
}

#[test]
fn every_attack_gets_its_error() {
    for (name, vector) in vectors("attacks/grpc") {
        let part = |part: &Value| hex::decode(part["hex"].as_str().unwrap()).unwrap().repeat(part["times"].as_u64().unwrap() as usize);
        let message: Vec<u8> = vector["message"].as_array().unwrap().iter().flat_map(part).collect();
        let error = decode_request(message, vector["limit"].as_u64().unwrap() as usize).err().unwrap_or_else(|| panic!("{name} was taken"));
        assert_eq!(error.reason(), vector["reason"].as_str().unwrap(), "{name}: {error:?}");
        assert!(error.message().len() < 1_000 && !error.message().contains(".rs"), "{name}: {error:?}");
    }
}

#[test]
fn raw_contents_are_slices_of_the_message() {
    let tensor = Tensor::from_values(Datatype::Fp32, &[1_000], vec![1f32; 1_000]);
    let request = Request { inputs: [Input { name: "x".into(), tensor }].into_iter().collect(), ..Default::default() };
    let message = Bytes::from(proto::encode_request(&request).encode_to_vec());
    let decoded = decode_request(message.clone(), LIMIT).unwrap();
    assert!(message.as_ptr_range().contains(&decoded.inputs[0].tensor.bytes().as_ptr()));
}

#[test]
fn a_timeout_parameter_becomes_a_deadline_from_when_the_message_began_to_come() {
    let request = Request { parameters: vec![("timeout".to_owned(), Parameter::Int(5_000))], ..Default::default() };
    let received = Instant::now();
    let mut decoded = proto::decode_request(proto::encode_request(&request), received).unwrap();
    decoded.settle(received + Duration::from_secs(1)).unwrap();
    assert_eq!((decoded.deadline, decoded.parameters.len()), (Some(received + Duration::from_millis(5)), 0));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let (_, vector) = vectors("attacks/grpc").into_iter().find(|(name, _)| name == "uint8_300").unwrap();
    let error = decode_request(hex::decode(vector["message"][0]["hex"].as_str().unwrap()).unwrap(), LIMIT).err().unwrap();
    assert_eq!(error.message(), "input 'x': element 1: expected UINT8, got 300");
    assert!(error.is(Reason::ValueOutOfRange));
    assert_eq!(json!(error.details()), json!({"input": "x", "index": 1, "datatype": "UINT8", "got": 300}));
}

fn any_tensor() -> impl Strategy<Value = Tensor<'static>> {
    let fixed = (prop::sample::select(Datatype::ALL), prop::collection::vec(0i64..4, 0..4), any::<u8>()).prop_map(|(datatype, shape, fill)| {
        let count = shape.iter().product::<i64>() as usize;
        let mut bytes = Vec::new();
        match datatype.byte_size(count) {
            Some(size) => bytes.resize(size, fill),
            None => (0..count).for_each(|index| push_bytes_element(&mut bytes, &vec![fill; index])),
        }
        Tensor::shared(datatype, &shape, bytes.into())
    });
    fixed.prop_filter("elements are whole", |tensor| tensor.datatype != Datatype::Bytes || bytes_elements(tensor.bytes()).all(|element| element.is_some()))
}

fn any_parameter() -> impl Strategy<Value = Parameter> {
    prop_oneof![
        any::<bool>().prop_map(Parameter::Bool),
        any::<i64>().prop_map(Parameter::Int),
        any::<u64>().prop_map(Parameter::Uint),
        (-1e9f64..1e9).prop_map(Parameter::Double),
        ".{0,9}".prop_map(Parameter::String),
    ]
}

/// A request that proptest can print.
struct Shown(Request<'static, 'static>);

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", request_means(&self.0))
    }
}

fn any_request() -> impl Strategy<Value = Shown> {
    let names = || ".{0,9}";
    let inputs = prop::collection::vec((names(), any_tensor()), 0..4);
    let outputs = prop::collection::vec(names(), 0..4);
    let parameters = prop::collection::btree_map("own_.{0,9}", any_parameter(), 0..4);
    (names(), names(), prop::option::of(".{1,9}"), parameters, inputs, outputs).prop_map(|(model, version, id, parameters, inputs, outputs)| {
        Shown(Request {
            model: model.into(),
            version: version.into(),
            id: id.map(String::into_boxed_str),
            parameters: parameters.into_iter().collect(),
            inputs: inputs.into_iter().map(|(name, tensor)| Input { name: name.into(), tensor }).collect(),
            outputs: outputs.into_iter().map(Into::into).collect(),
            ..Default::default()
        })
    })
}

proptest! {
    #[test]
    fn a_request_survives_the_wire(Shown(request) in any_request()) {
        let decoded = decode_request(proto::encode_request(&request).encode_to_vec(), LIMIT).unwrap();
        prop_assert_eq!(&decoded.parameters, &request.parameters);
        prop_assert_eq!(request_means(&decoded), request_means(&request));
    }

    #[test]
    fn a_response_survives_the_wire(Shown(request) in any_request()) {
        let outputs = request.inputs.iter().map(|input| Output { name: (*input.name).into(), tensor: input.tensor.clone() });
        let response = Response { model: (*request.model).into(), version: (*request.version).into(), id: request.id.clone(), outputs: outputs.collect() };
        let decoded = decode_response(proto::encode_response(&response).encode_to_vec()).unwrap();
        prop_assert_eq!(response_means(&decoded), response_means(&response));
    }

    #[test]
    fn a_mutated_vector_is_read_or_refused_and_never_more(
        pick in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 1..8),
    ) {
        let vectors = vectors("grpc");
        let mut message = hex::decode(pick.get(&vectors).1["message"].as_str().unwrap()).unwrap();
        for (place, byte, kind) in changes {
            if message.is_empty() { break }
            let at = place.index(message.len());
            match kind {
                0 => message[at] = byte,
                1 => message.insert(at, byte),
                _ => { message.truncate(at); }
            }
        }
        for result in [decode_request(message.clone(), 1 << 16).map(|_| ()), decode_response(message).map(|_| ())] {
            if let Err(error) = result {
                prop_assert!(error.message().len() < 1_000, "{:?}", error);
            }
        }
    }
}
