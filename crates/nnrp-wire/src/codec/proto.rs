//! The protobuf form: between the messages of `inference.proto` and the engine's (spec §4.5).
//!
//! Raw contents stay slices of the message they came in.
use super::parameters::{take_binary, tensor_parameter};
use super::proto_bounds;
pub(crate) use super::proto_bounds::malformed;
use super::proto_contents;
use bytes::Bytes;
use messages::infer_parameter::ParameterChoice;
use messages::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use messages::model_infer_response::InferOutputTensor;
use messages::{InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use nnrp_core::error::excerpt;
use nnrp_core::{Data, Datatype, Input, NnrpError, Output, Parameter, Parameters, Reason, Request, Response, Result, Shape, Tensor};
use prost::Message;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Instant;

/// The messages of `inference.proto`, as prost makes them.
#[allow(missing_docs, reason = "spec/proto/inference.proto says what each is")]
#[allow(clippy::all)]
pub mod messages {
    include!(concat!(env!("OUT_DIR"), "/inference.rs"));
}

/// What `inference.proto` says, for reflection: a serialized FileDescriptorSet.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inference.bin"));

/// Reads the bytes of a request, of which nothing is believed before it is counted.
///
/// # Errors
/// `MALFORMED`, `INVALID_SHAPE` for too many dimensions, `BODY_TOO_LARGE` when it would unfold to more than `limit` bytes.
pub fn read_request(message: Bytes, limit: usize) -> Result<ModelInferRequest> {
    proto_bounds::check_request(&message, limit)?;
    ModelInferRequest::decode(message).map_err(malformed)
}

/// Reads the bytes of an answer.
///
/// # Errors
/// As [`read_request`].
pub fn read_response(message: Bytes, limit: usize) -> Result<ModelInferResponse> {
    proto_bounds::check_response(&message, limit)?;
    ModelInferResponse::decode(message).map_err(malformed)
}

/// Reads the bytes of an answer within a stream.
///
/// # Errors
/// As [`read_request`].
pub fn read_stream_response(message: Bytes, limit: usize) -> Result<ModelStreamInferResponse> {
    proto_bounds::check_stream_response(&message, limit)?;
    ModelStreamInferResponse::decode(message).map_err(malformed)
}

/// The request that a message means; it began to come at `received`.
///
/// # Errors
/// `MALFORMED`, `UNKNOWN_DATATYPE`, `INVALID_SHAPE`, `BYTE_SIZE_MISMATCH`, `VALUE_OUT_OF_RANGE`, `INVALID_PARAMETER`, `NOT_OFFERED`.
pub fn decode_request(message: ModelInferRequest, received: Instant) -> Result<Request<'static, 'static>> {
    let mut parameters = decode_parameters("request", message.parameters)?;
    // Answers are raw whatever was asked for.
    take_binary(&mut parameters)?;
    let entries = message.inputs.into_iter().map(|input| Entry {
        kind: "input",
        name: input.name,
        datatype: input.datatype,
        shape: Shape::from_vec(input.shape),
        parameters: input.parameters,
        contents: input.contents,
    });
    let mut inputs = SmallVec::new();
    decode_tensors(entries, message.raw_input_contents, |name, tensor| inputs.push(Input { name: Cow::Owned(name), tensor }))?;
    for output in &message.outputs {
        check_tensor_parameters("output", &output.name, &output.parameters)?;
    }
    Ok(Request {
        model: Cow::Owned(message.model_name),
        version: Cow::Owned(message.model_version),
        id: decode_id(message.id),
        parameters,
        inputs,
        outputs: message.outputs.into_iter().map(|output| Cow::Owned(output.name)).collect(),
        received: Some(received),
        ..Request::default()
    })
}

/// The message of an answer; tensors in `raw_output_contents`, not copied.
pub fn encode_response(response: &Response) -> ModelInferResponse {
    let entry = |output: &Output| InferOutputTensor {
        name: (*output.name).to_owned(),
        datatype: output.tensor.datatype.name().to_owned(),
        shape: output.tensor.shape.to_vec(),
        ..Default::default()
    };
    ModelInferResponse {
        model_name: (*response.model).to_owned(),
        model_version: (*response.version).to_owned(),
        id: encode_id(response.id.as_deref()),
        parameters: BTreeMap::new(),
        outputs: response.outputs.iter().map(entry).collect(),
        raw_output_contents: response.outputs.iter().map(|output| raw(&output.tensor)).collect(),
    }
}

/// The message of a request; tensors in `raw_input_contents`, not copied. The deadline travels beside it.
pub fn encode_request(request: &Request<'_, 'static>) -> ModelInferRequest {
    let entry = |input: &Input<'_, 'static>| InferInputTensor {
        name: (*input.name).to_owned(),
        datatype: input.tensor.datatype.name().to_owned(),
        shape: input.tensor.shape.to_vec(),
        ..Default::default()
    };
    ModelInferRequest {
        model_name: (*request.model).to_owned(),
        model_version: (*request.version).to_owned(),
        id: encode_id(request.id.as_deref()),
        parameters: request.parameters.iter().map(|(name, value)| (name.clone(), encode_parameter(value))).collect(),
        inputs: request.inputs.iter().map(entry).collect(),
        outputs: request.outputs.iter().map(|name| InferRequestedOutputTensor { name: (**name).to_owned(), ..Default::default() }).collect(),
        raw_input_contents: request.inputs.iter().map(|input| raw(&input.tensor)).collect(),
    }
}

/// The answer that a message means, whether raw or typed.
///
/// # Errors
/// As [`decode_request`].
pub fn decode_response(message: ModelInferResponse) -> Result<Response> {
    let entries = message.outputs.into_iter().map(|output| Entry {
        kind: "output",
        name: output.name,
        datatype: output.datatype,
        shape: Shape::from_vec(output.shape),
        parameters: BTreeMap::new(),
        contents: output.contents,
    });
    let mut outputs = SmallVec::new();
    decode_tensors(entries, message.raw_output_contents, |name, tensor| outputs.push(Output { name: name.into(), tensor }))?;
    Ok(Response { model: message.model_name.into(), version: message.model_version.into(), id: decode_id(message.id), outputs })
}

/// An input of a request or an output of an answer.
struct Entry {
    kind: &'static str,
    name: String,
    datatype: String,
    shape: Shape,
    parameters: BTreeMap<String, InferParameter>,
    contents: Option<InferTensorContents>,
}

fn decode_tensors(entries: impl ExactSizeIterator<Item = Entry>, raws: Vec<Bytes>, mut push: impl FnMut(String, Tensor<'static>)) -> Result<()> {
    let typed = raws.is_empty();
    if !typed && raws.len() != entries.len() {
        return Err(wrong_raw_count(entries.len(), raws.len()));
    }
    let mut raws = raws.into_iter();
    for entry in entries {
        let Entry { kind, name, datatype, shape, parameters, contents } = entry;
        check_tensor_parameters(kind, &name, &parameters)?;
        let datatype = Datatype::parse(&datatype, &name)?;
        let bytes = match raws.next() {
            Some(_) if contents.is_some() => return Err(raw_and_typed(kind, &name)),
            Some(raw) => raw,
            None => proto_contents::decode(kind, &name, datatype, &shape, contents.unwrap_or_default())?,
        };
        push(name, Tensor { datatype, shape, data: Data::Shared(bytes) });
    }
    Ok(())
}

#[cold]
fn wrong_raw_count(expected: usize, got: usize) -> NnrpError {
    let message = format!("raw contents: expected {expected} entries, one for each tensor, got {got}");
    NnrpError::new(Reason::Malformed, message).with("expected", expected).with("got", got)
}

#[cold]
fn raw_and_typed(kind: &str, name: &str) -> NnrpError {
    let name = excerpt(name);
    NnrpError::new(Reason::Malformed, format!("{kind} '{name}': expected raw contents or typed contents, got both")).with(kind, name)
}

fn check_tensor_parameters(kind: &str, tensor: &str, parameters: &BTreeMap<String, InferParameter>) -> Result<()> {
    if parameters.is_empty() {
        return Ok(());
    }
    let place = format!("{kind} '{}'", excerpt(tensor));
    parameters.iter().try_for_each(|(name, value)| tensor_parameter(&place, name, &decode_parameter(&place, name, value.clone())?))
}

fn decode_parameters(place: &str, parameters: BTreeMap<String, InferParameter>) -> Result<Parameters> {
    parameters.into_iter().map(|(name, value)| decode_parameter(place, &name, value).map(|value| (name, value))).collect()
}

fn decode_parameter(place: &str, name: &str, value: InferParameter) -> Result<Parameter> {
    match value.parameter_choice {
        Some(ParameterChoice::BoolParam(value)) => Ok(Parameter::Bool(value)),
        Some(ParameterChoice::Int64Param(value)) => Ok(Parameter::Int(value)),
        Some(ParameterChoice::StringParam(value)) => Ok(Parameter::String(value)),
        Some(ParameterChoice::DoubleParam(value)) => Ok(Parameter::Double(value)),
        Some(ParameterChoice::Uint64Param(value)) => Ok(Parameter::Uint(value)),
        None => {
            let name = excerpt(name);
            Err(NnrpError::new(Reason::InvalidParameter, format!("{place}: parameter '{name}': expected a value, got none")).with("parameter", name))
        }
    }
}

fn encode_parameter(value: &Parameter) -> InferParameter {
    let choice = match value {
        Parameter::Bool(value) => ParameterChoice::BoolParam(*value),
        Parameter::Int(value) => ParameterChoice::Int64Param(*value),
        Parameter::Uint(value) => ParameterChoice::Uint64Param(*value),
        Parameter::Double(value) => ParameterChoice::DoubleParam(*value),
        Parameter::String(value) => ParameterChoice::StringParam(value.clone()),
    };
    InferParameter { parameter_choice: Some(choice) }
}

fn decode_id(id: String) -> Option<Box<str>> {
    (!id.is_empty()).then(|| id.into_boxed_str())
}

fn encode_id(id: Option<&str>) -> String {
    id.unwrap_or_default().to_owned()
}

fn raw(tensor: &Tensor<'static>) -> Bytes {
    match &tensor.data {
        Data::Borrowed(bytes) => Bytes::from_static(bytes),
        Data::Shared(bytes) => bytes.clone(),
    }
}
