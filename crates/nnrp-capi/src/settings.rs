//! An engine's settings out of one JSON document.
use nnrp_core::error::excerpt;
use nnrp_core::runtime::Runtimes;
use nnrp_core::{NnrpError as Error, Reason, Result};
use nnrp_runtimes::OnnxRuntime;
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::sync::Arc;

/// The runtimes that the settings name; without settings, those that can be found.
///
/// # Errors
/// `INVALID_OPTION` or `UNKNOWN_OPTION` with the JSON path; `RUNTIME_NOT_INSTALLED` for a library that is named and cannot be used.
pub(crate) fn runtimes(json: Option<&str>) -> Result<Runtimes> {
    let settings = json.map(parse).transpose()?.unwrap_or_default();
    let mut library = None;
    for (key, value) in object("settings", settings, &["runtimes"])? {
        for (runtime, value) in object(&format!("settings.{key}"), value, &["onnxruntime"])? {
            for (option, value) in object(&format!("settings.{key}.{runtime}"), value, &["library"])? {
                let path = format!("settings.{key}.{runtime}.{option}");
                library = Some(PathBuf::from(value.as_str().ok_or_else(|| invalid(&path, "the path of a library", &value))?));
            }
        }
    }
    let named = library.is_some();
    let onnxruntime = OnnxRuntime::new(library);
    if named {
        onnxruntime.version()?;
    }
    let mut runtimes = Runtimes::default();
    runtimes.add(Arc::new(onnxruntime));
    Ok(runtimes)
}

fn parse(json: &str) -> Result<Value> {
    serde_json::from_str(json).map_err(|error| Error::new(Reason::InvalidOption, format!("settings: expected a JSON object: {error}")))
}

fn object(path: &str, value: Value, known: &[&str]) -> Result<Map<String, Value>> {
    let object = match value {
        Value::Object(object) => object,
        Value::Null if path == "settings" => Map::new(),
        other => return Err(invalid(path, "an object", &other)),
    };
    if let Some(key) = object.keys().find(|key| !known.contains(&key.as_str())) {
        let got = excerpt(key);
        let message = format!("{path}: unknown key '{got}': expected one of {known:?}");
        return Err(Error::new(Reason::UnknownOption, message).with("path", path).with("got", got));
    }
    Ok(object)
}

fn invalid(path: &str, expected: &str, got: &Value) -> Error {
    let got = excerpt(&got.to_string());
    Error::new(Reason::InvalidOption, format!("{path}: expected {expected}, got {got}")).with("path", path).with("got", got)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(json: &str) -> String {
        runtimes(Some(json)).err().map(|error| error.reason().to_owned()).unwrap_or_default()
    }

    #[test]
    fn unknown_keys_and_wrong_values_are_told_apart_at_every_level() {
        for unknown in [r#"{"runtime": {}}"#, r#"{"runtimes": {"onnx": {}}}"#, r#"{"runtimes": {"onnxruntime": {"path": ""}}}"#] {
            assert_eq!(reason(unknown), "UNKNOWN_OPTION", "{unknown}");
        }
        for invalid in ["", "[]", "5", r#"{"runtimes": 5}"#, r#"{"runtimes": {"onnxruntime": null}}"#, r#"{"runtimes": {"onnxruntime": {"library": 5}}}"#] {
            assert_eq!(reason(invalid), "INVALID_OPTION", "{invalid}");
        }
    }

    #[test]
    fn a_library_that_is_named_and_not_there_is_an_error_at_once() {
        assert_eq!(reason(r#"{"runtimes": {"onnxruntime": {"library": "/nowhere/libonnxruntime.so"}}}"#), "RUNTIME_NOT_INSTALLED");
        assert_eq!(reason("{}"), "");
    }
}
