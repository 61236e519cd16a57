//! An engine's settings out of one JSON document.
use nnrp_core::error::excerpt;
use nnrp_core::runtime::Runtimes;
use nnrp_core::{NnrpError as Error, Reason, Result};
use nnrp_runtimes::isolated;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The runtimes that the settings name; without settings, those that can be found.
///
/// # Errors
/// `INVALID_OPTION` or `UNKNOWN_OPTION` with the JSON path; `RUNTIME_NOT_INSTALLED` for a library that is named and cannot be used.
pub(crate) fn runtimes(json: Option<&str>) -> Result<Runtimes> {
    let settings = json.map(parse).transpose()?.unwrap_or_default();
    let (mut libraries, mut plugins, mut processes) = (HashMap::new(), Vec::new(), isolated::Settings::default());
    for (key, value) in object("settings", settings, &["runtimes", "isolation"])? {
        if key == "isolation" {
            isolation(&mut processes, value)?;
            continue;
        }
        for (runtime, value) in object(&format!("settings.{key}"), value, &[&nnrp_runtimes::NAMES[..], &["plugins"]].concat())? {
            let path = format!("settings.{key}.{runtime}");
            if runtime == "plugins" {
                plugins = files(&path, value)?;
                continue;
            }
            for (option, value) in object(&path, value, &["library"])? {
                let library = file(&format!("{path}.{option}"), &value)?;
                nnrp_runtimes::open(&runtime, library.clone())?;
                libraries.insert(runtime.clone(), library);
            }
        }
    }
    let mut runtimes = nnrp_runtimes::runtimes(|name| libraries.remove(name));
    nnrp_runtimes::plugin::add(&mut runtimes, &plugins)?;
    let command = &mut processes.command;
    if command.program.is_empty() {
        command.program = program();
    }
    command.words.push(json.unwrap_or("{}").to_owned());
    runtimes.isolate_by(Arc::new(isolated::Processes::new(processes)));
    Ok(runtimes)
}

fn isolation(processes: &mut isolated::Settings, value: Value) -> Result<()> {
    for (key, value) in object("settings.isolation", value, &["command", "load_timeout_ms", "stop_grace_ms", "max_output_bytes"])? {
        let path = format!("settings.isolation.{key}");
        if key == "command" {
            let words: Option<Vec<String>> = value.as_array().and_then(|words| words.iter().map(|word| word.as_str().map(str::to_owned)).collect());
            let words = words.filter(|words| words.first().is_some_and(|program| !program.is_empty()));
            let mut words = words.ok_or_else(|| invalid(&path, "an array of texts, the first a program", &value))?;
            processes.command = isolated::Command { program: words.remove(0), words, environment: Vec::new() };
            continue;
        }
        if key == "max_output_bytes" {
            let most = value.as_u64().and_then(|most| usize::try_from(most).ok()).filter(|most| *most > 0);
            processes.max_output_bytes = most.ok_or_else(|| invalid(&path, "a number of bytes from 1", &value))?;
            continue;
        }
        let time = value.as_u64().map(Duration::from_millis).ok_or_else(|| invalid(&path, "a whole number of milliseconds", &value))?;
        *(if key == "load_timeout_ms" { &mut processes.load_limit } else { &mut processes.stop_grace }) = time;
    }
    Ok(())
}

/// The program that hosts isolated models: where the environment says, or beside us; none when it is not there.
fn program() -> String {
    let beside = || nnrp_runtimes::folder().map(|folder| folder.join(format!("nnrp-host{}", std::env::consts::EXE_SUFFIX)));
    let found = std::env::var_os("NNRP_HOST").map(PathBuf::from).or_else(beside).filter(|program| program.is_file());
    found.and_then(|program| program.to_str().map(str::to_owned)).unwrap_or_default()
}

fn file(path: &str, value: &Value) -> Result<PathBuf> {
    value.as_str().map(PathBuf::from).ok_or_else(|| invalid(path, "the path of a library", value))
}

fn files(path: &str, value: Value) -> Result<Vec<PathBuf>> {
    let Value::Array(items) = value else { return Err(invalid(path, "an array of paths", &value)) };
    items.iter().enumerate().map(|(index, item)| file(&format!("{path}[{index}]"), item)).collect()
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
        for unknown in [r#"{"runtime": {}}"#, r#"{"runtimes": {"onnx": {}}}"#, r#"{"runtimes": {"onnxruntime": {"path": ""}}}"#, r#"{"isolation": {"x": 1}}"#] {
            assert_eq!(reason(unknown), "UNKNOWN_OPTION", "{unknown}");
        }
        for invalid in [
            "",
            "[]",
            "5",
            r#"{"runtimes": 5}"#,
            r#"{"runtimes": {"onnxruntime": null}}"#,
            r#"{"runtimes": {"onnxruntime": {"library": 5}}}"#,
            r#"{"runtimes": {"plugins": "x"}}"#,
            r#"{"runtimes": {"plugins": [5]}}"#,
            r#"{"isolation": 5}"#,
            r#"{"isolation": {"command": []}}"#,
            r#"{"isolation": {"command": ["nnrp-host", 5]}}"#,
            r#"{"isolation": {"load_timeout_ms": -1}}"#,
            r#"{"isolation": {"max_output_bytes": 0}}"#,
        ] {
            assert_eq!(reason(invalid), "INVALID_OPTION", "{invalid}");
        }
    }

    #[test]
    fn a_library_that_is_named_and_not_there_is_an_error_at_once() {
        for runtime in nnrp_runtimes::NAMES {
            assert_eq!(reason(&format!(r#"{{"runtimes": {{"{runtime}": {{"library": "/nowhere/library.so"}}}}}}"#)), "RUNTIME_NOT_INSTALLED");
        }
        assert_eq!(reason(r#"{"runtimes": {"plugins": ["/nowhere/library.so"]}}"#), "RUNTIME_NOT_INSTALLED");
        assert_eq!(reason(r#"{"runtimes": {"plugins": []}}"#), "");
        assert_eq!(reason("{}"), "");
    }
}
