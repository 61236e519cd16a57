//! Errors: `{"error", "code", "reason", "details", "retryable", "request_id"?}`, a superset of the Open Inference Protocol's (spec §5.2).
use crate::codec::{UNSPECIFIED, write};
use bytes::Bytes;
use nnrp_core::error::excerpt;
use nnrp_core::{Code, NnrpError};
use serde_json::{Map, Value};

/// Writes the JSON object of an error.
pub fn encode_error(error: &NnrpError, request_id: Option<&str>) -> Bytes {
    let mut out = Vec::with_capacity(256);
    write::raw(&mut out, "{\"error\":");
    write::value(&mut out, error.message());
    write::raw(&mut out, ",\"code\":");
    write::value(&mut out, error.code().name());
    write::raw(&mut out, ",\"reason\":");
    write::value(&mut out, error.reason());
    write::raw(&mut out, ",\"details\":");
    write::value(&mut out, error.details());
    write::raw(&mut out, if error.retryable() { ",\"retryable\":true" } else { ",\"retryable\":false" });
    if let Some(id) = request_id {
        write::raw(&mut out, ",\"request_id\":");
        write::value(&mut out, id);
    }
    out.push(b'}');
    Bytes::from(out)
}

/// Reads the error of a server, be it one of ours or one that says `{"error": "…"}`, `{"detail": …}` or no JSON at all.
///
/// What a foreign server leaves out follows from the HTTP status; a request id is kept in the details.
pub fn decode_error(http_status: u16, body: &[u8]) -> NnrpError {
    let mut fields = match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => fields,
        _ => return foreign(http_status, &format!("HTTP {http_status}: {}", excerpt(&String::from_utf8_lossy(body)))),
    };
    let Some(Value::String(message)) = fields.remove("error") else {
        let said = fields.get("detail").map_or_else(|| Value::Object(fields.clone()).to_string(), Value::to_string);
        return foreign(http_status, &format!("HTTP {http_status}: {}", excerpt(&said)));
    };
    let Some(code) = fields.get("code").and_then(Value::as_str).and_then(Code::from_name) else { return foreign(http_status, &message) };
    let reason = match fields.remove("reason") {
        Some(Value::String(reason)) => reason,
        _ => UNSPECIFIED.to_owned(),
    };
    let mut details = match fields.remove("details") {
        Some(Value::Object(details)) => details,
        _ => Map::new(),
    };
    if let Some(id @ Value::String(_)) = fields.remove("request_id") {
        details.entry("request_id").or_insert(id);
    }
    NnrpError::from_wire(code, reason, message, details)
}

fn foreign(http_status: u16, message: &str) -> NnrpError {
    let details = Map::from_iter([("http".to_owned(), Value::from(http_status))]);
    NnrpError::from_wire(code_of(http_status), UNSPECIFIED, message, details)
}

/// The code that comes nearest to a status of a server that names none.
fn code_of(http_status: u16) -> Code {
    match http_status {
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 | 410 => Code::NotFound,
        405 | 501 => Code::Unimplemented,
        408 | 504 => Code::DeadlineExceeded,
        409 => Code::AlreadyExists,
        412 | 424 | 428 => Code::FailedPrecondition,
        429 => Code::ResourceExhausted,
        499 => Code::Cancelled,
        400..=499 => Code::InvalidArgument,
        502 | 503 => Code::Unavailable,
        _ => Code::RuntimeFailure,
    }
}
