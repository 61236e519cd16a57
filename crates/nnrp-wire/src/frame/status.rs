//! Errors as gRPC carries them: status and message in headers or trailers, the rest in a `google.rpc.ErrorInfo` (spec §5.3).
use crate::codec::UNSPECIFIED;
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, HeaderName, HeaderValue};
use nnrp_core::{Code, NnrpError};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, percent_encode};
use prost::Message;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

pub(crate) const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

const DOMAIN: &str = "nnrp";
const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";

/// Metadata that is not a detail of the error.
const CODE: &str = "nnrp_code";
const RETRYABLE: &str = "nnrp_retryable";
const REQUEST_ID: &str = "nnrp_request_id";

/// Clients refuse trailers of more than 8 kB, so a message and all details together stay well below.
const MESSAGE_CHARACTERS: usize = 1_000;
pub(crate) const DETAIL_BYTES: usize = 2_048;

const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.ErrorInfo`.
#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: BTreeMap<String, String>,
}

/// Writes an error as the status of a call. An internal one tells nobody what went wrong inside.
#[cold]
pub(crate) fn insert(headers: &mut HeaderMap, error: &NnrpError, request_id: &str) {
    headers.insert(STATUS, HeaderValue::from(error.code() as i32));
    let message = told(error);
    let escaped = percent_encode(message.as_bytes(), ESCAPED).to_string();
    if let Ok(value) = HeaderValue::try_from(escaped) {
        headers.insert(MESSAGE, value);
    }
    if let Ok(value) = HeaderValue::try_from(BASE64.encode(details(error, message, request_id))) {
        headers.insert(DETAILS, value);
    }
}

/// What people are told of an error.
pub(crate) fn told(error: &NnrpError) -> String {
    if error.code() == Code::Internal {
        return "internal error".to_owned();
    }
    let mut message: String = error.message().chars().take(MESSAGE_CHARACTERS).collect();
    if message.len() < error.message().len() {
        message.push('…');
    }
    message
}

fn details(error: &NnrpError, message: String, request_id: &str) -> Vec<u8> {
    let mut metadata = BTreeMap::new();
    let mut room = if error.code() == Code::Internal { 0 } else { DETAIL_BYTES };
    for (key, value) in error.details() {
        let text = value.to_string();
        if let Some(left) = room.checked_sub(key.len() + text.len()) {
            room = left;
            metadata.insert(key.clone(), text);
        }
    }
    metadata.insert(CODE.to_owned(), error.code().name().to_owned());
    metadata.insert(RETRYABLE.to_owned(), error.retryable().to_string());
    metadata.insert(REQUEST_ID.to_owned(), request_id.to_owned());
    let info = ErrorInfo { reason: error.reason().to_owned(), domain: DOMAIN.to_owned(), metadata };
    let detail = Any { type_url: ERROR_INFO.to_owned(), value: info.encode_to_vec() };
    RpcStatus { code: error.code() as i32, message, details: vec![detail] }.encode_to_vec()
}

/// What headers or trailers say of a call: `None` without a status, `Ok` for success.
pub(crate) fn read(headers: &HeaderMap) -> Option<Result<(), NnrpError>> {
    let number = headers.get(STATUS)?.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    if number == 0 {
        return Some(Ok(()));
    }
    let message = headers.get(MESSAGE).map_or_else(String::new, |value| percent_decode(value.as_bytes()).decode_utf8_lossy().into_owned());
    Some(Err(decode(number, message, headers.get(DETAILS))))
}

fn decode(number: i32, message: String, details: Option<&HeaderValue>) -> NnrpError {
    let code = code_of(number);
    let info = details.and_then(|value| error_info(value.as_bytes()));
    match info {
        Some(info) if info.domain == DOMAIN => {
            let text = |(key, text): (String, String)| serde_json::from_str(&text).ok().map(|value| (key, value));
            let own = |(key, _): &(String, String)| ![CODE, RETRYABLE, REQUEST_ID].contains(&key.as_str());
            let details: Map<String, Value> = info.metadata.into_iter().filter(own).filter_map(text).collect();
            NnrpError::from_wire(code, info.reason, message, details)
        }
        // Another server's words.
        Some(info) => NnrpError::from_wire(code, info.reason, message, info.metadata.into_iter().map(|(key, text)| (key, text.into())).collect()),
        None => NnrpError::from_wire(code, UNSPECIFIED, message, Map::new()),
    }
}

fn error_info(header: &[u8]) -> Option<ErrorInfo> {
    let status = RpcStatus::decode(&*BASE64.decode(header).ok()?).ok()?;
    let info = status.details.into_iter().find(|detail| detail.type_url == ERROR_INFO)?;
    ErrorInfo::decode(&*info.value).ok()
}

/// The code of a status; those that the table has not count as their nearest.
fn code_of(number: i32) -> Code {
    Code::from_number(number).unwrap_or(match number {
        10 => Code::FailedPrecondition,
        11 => Code::InvalidArgument,
        _ => Code::RuntimeFailure,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nnrp_core::Reason;

    fn travelled(error: &NnrpError) -> NnrpError {
        let mut headers = HeaderMap::new();
        insert(&mut headers, error, "r-1");
        read(&headers).unwrap().unwrap_err()
    }

    #[test]
    fn every_error_survives_the_headers() {
        for reason in Reason::ALL.iter().filter(|reason| reason.code() != Code::Internal) {
            let error = NnrpError::new(*reason, "input 'größe': 100 % wrong\n").with("input", "größe").with("expected", vec![-1, 3]).with("code", 7);
            let got = travelled(&error);
            assert_eq!((got.code(), got.reason(), got.message()), (error.code(), error.reason(), error.message()));
            assert_eq!(got.details(), error.details());
        }
    }

    #[test]
    fn an_internal_error_tells_nothing_of_the_inside() {
        let got = travelled(&NnrpError::new(Reason::Bug, "index 7 of /src/x.rs").with("path", "/src/x.rs"));
        assert_eq!((got.code(), got.message(), got.details().len()), (Code::Internal, "internal error", 0));
    }

    #[test]
    fn an_error_with_much_to_say_stays_below_what_clients_take() {
        let error = NnrpError::new(Reason::UnknownInput, "ü".repeat(100_000)).with("known", vec!["x"; 10_000]).with("input", "y");
        let mut headers = HeaderMap::new();
        insert(&mut headers, &error, "r-1");
        assert!(headers.values().map(HeaderValue::len).sum::<usize>() < 16_000);
        assert_eq!(read(&headers).unwrap().unwrap_err().details().len(), 1);
    }

    #[test]
    fn another_servers_status_keeps_its_words() {
        let mut headers = HeaderMap::new();
        headers.insert(STATUS, HeaderValue::from_static("11"));
        headers.insert(MESSAGE, HeaderValue::from_static("too%20far"));
        headers.insert(DETAILS, HeaderValue::from_static("?not base64?"));
        let error = read(&headers).unwrap().unwrap_err();
        assert_eq!((error.code(), error.reason(), error.message()), (Code::InvalidArgument, UNSPECIFIED, "too far"));
    }
}
