//! What `ModelStreamInfer` answers, one message after the other (spec §4.8).
use super::grpc::{Parts, frame, frame_within};
use super::status;
use crate::codec::UNSPECIFIED;
use crate::codec::proto::{self, messages as m};
use m::infer_parameter::ParameterChoice;
use nnrp_core::{Code, NnrpError, Parameter, Parameters, Request, Response, Result};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Whether an answer is the last of its request.
const FINAL: &str = "triton_final_response";
/// Asks for one without outputs where the last has to be told apart.
const EMPTY_FINAL: &str = "triton_enable_empty_final_response";
/// Metadata that asks for an error to end the call as its status.
pub(crate) const STATUS_ERRORS: &str = "triton_grpc_error";

const CODE: &str = "nnrp_code";
const REASON: &str = "nnrp_reason";
const DETAILS: &str = "nnrp_details";

/// Whether a request wants an empty answer as its last.
pub(crate) fn wants_empty_final(parameters: &Parameters) -> bool {
    parameters.iter().any(|(name, value)| name == EMPTY_FINAL && *value == Parameter::Bool(true))
}

/// A request that has its last answer told apart.
pub(crate) fn encode_request(request: &Request<'_, 'static>) -> m::ModelInferRequest {
    let mut message = proto::encode_request(request);
    message.parameters.insert(EMPTY_FINAL.to_owned(), flag(true));
    message
}

/// One answer, framed.
///
/// # Errors
/// `BODY_TOO_LARGE`: more than 4 GiB.
pub(crate) fn encode(response: &Response, last: bool) -> Result<Parts> {
    let mut message = proto::encode_response(response);
    message.parameters.insert(FINAL.to_owned(), flag(last));
    let raws = std::mem::take(&mut message.raw_output_contents);
    frame_within(Some(2), &message, 6, raws)
}

/// The error that a request ended with, framed.
pub(crate) fn encode_error(id: Option<&str>, error: &NnrpError) -> Result<Parts> {
    let text = |text: &str| m::InferParameter { parameter_choice: Some(ParameterChoice::StringParam(text.to_owned())) };
    let mut parameters =
        BTreeMap::from([(FINAL.to_owned(), flag(true)), (CODE.to_owned(), text(error.code().name())), (REASON.to_owned(), text(error.reason()))]);
    let details = Value::from(error.details().clone()).to_string();
    if error.code() != Code::Internal && details.len() <= status::DETAIL_BYTES {
        parameters.insert(DETAILS.to_owned(), text(&details));
    }
    let empty = m::ModelInferResponse { id: id.unwrap_or_default().to_owned(), parameters, ..Default::default() };
    frame(&m::ModelStreamInferResponse { error_message: status::told(error), infer_response: Some(empty) })
}

/// One answer as it came, and whether it is the last of its request; `None` where that is all that it says.
///
/// # Errors
/// What the request ended with.
pub(crate) fn answer(message: m::ModelStreamInferResponse) -> Result<(m::ModelInferResponse, bool)> {
    let mut answer = message.infer_response.unwrap_or_default();
    let parameters = std::mem::take(&mut answer.parameters);
    if !message.error_message.is_empty() {
        return Err(error(message.error_message, &parameters));
    }
    let last = parameters.get(FINAL).is_some_and(|value| *value == flag(true));
    Ok((answer, last))
}

#[cold]
fn error(message: String, parameters: &BTreeMap<String, m::InferParameter>) -> NnrpError {
    let text = |name: &str| match parameters.get(name).and_then(|value| value.parameter_choice.as_ref()) {
        Some(ParameterChoice::StringParam(text)) => Some(text.as_str()),
        _ => None,
    };
    let details: Map<String, Value> = text(DETAILS).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    match text(CODE).and_then(Code::from_name) {
        Some(code) => NnrpError::from_wire(code, text(REASON).unwrap_or(UNSPECIFIED), message, details),
        // Another server's words, which have no code.
        None => NnrpError::from_wire(Code::RuntimeFailure, UNSPECIFIED, message, details),
    }
}

fn flag(value: bool) -> m::InferParameter {
    m::InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(value)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use nnrp_core::{Datatype, Output, Reason, Tensor};

    fn decode(message: Bytes, limit: usize) -> Result<(Response, bool)> {
        let (answer, last) = answer(proto::read_stream_response(message, limit)?)?;
        Ok((proto::decode_response(answer)?, last))
    }

    fn joined(parts: Parts) -> Bytes {
        parts.concat()[5..].to_vec().into()
    }

    #[test]
    fn an_answer_survives_small_and_large() {
        for count in [1, 100_000] {
            let tensor = Tensor::from_values(Datatype::Fp32, &[count], vec![1.5f32; count as usize]);
            let outputs = [Output { name: "y".into(), tensor }].into_iter().collect();
            let sent = Response { model: "m".into(), version: "1".into(), id: Some("seven".into()), outputs };
            let (came, last) = decode(joined(encode(&sent, count > 1).unwrap()), 1 << 20).unwrap();
            assert_eq!((last, came.id.as_deref(), came.outputs[0].tensor.bytes()), (count > 1, Some("seven"), sent.outputs[0].tensor.bytes()));
        }
    }

    #[test]
    fn an_error_survives_with_code_reason_and_details() {
        let sent = NnrpError::new(Reason::QueueFull, "come again").with("capacity", 5);
        let came = decode(joined(encode_error(Some("seven"), &sent).unwrap()), 1 << 20).unwrap_err();
        assert_eq!((came.code(), came.reason(), came.message(), came.details()), (sent.code(), sent.reason(), sent.message(), sent.details()));
        let bug = decode(joined(encode_error(None, &NnrpError::new(Reason::Bug, "at secret.rs").with("inside", 1)).unwrap()), 1 << 20).unwrap_err();
        assert_eq!((bug.code(), bug.message(), bug.details().len()), (Code::Internal, "internal error", 0));
        let foreign = m::ModelStreamInferResponse { error_message: "no".into(), infer_response: None };
        let came = decode(prost::Message::encode_to_vec(&foreign).into(), 1 << 20).unwrap_err();
        assert_eq!((came.code(), came.reason()), (Code::RuntimeFailure, UNSPECIFIED));
    }
}
