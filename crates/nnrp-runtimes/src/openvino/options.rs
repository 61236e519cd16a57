//! The options of a session: OpenVINO's own properties, verbatim, and the shapes to fix or bound.
use super::device::Device;
use super::library::Library;
use super::table::Dimension;
use crate::options::{At, Texts, unknown};
use nnrp_core::{NnrpError, Precision, Reason, Result};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};

/// What the core takes for every device.
const OF_THE_CORE: [&str; 2] = ["CACHE_DIR", "CACHE_MODE"];
/// What is only told, or takes a pointer where an option is a text.
const NOT_OPTIONS: [&str; 18] = [
    "AVAILABLE_DEVICES",
    "CACHE_ENCRYPTION_CALLBACKS",
    "COMPATIBILITY_CHECK",
    "DEVICE_ARCHITECTURE",
    "DEVICE_GOPS",
    "DEVICE_ID",
    "DEVICE_LUID",
    "DEVICE_THERMAL",
    "DEVICE_TYPE",
    "DEVICE_UUID",
    "EXECUTION_DEVICES",
    "FULL_DEVICE_NAME",
    "MODEL_PTR",
    "OPTIMAL_NUMBER_OF_INFER_REQUESTS",
    "OPTIMIZATION_CAPABILITIES",
    "RANGE_FOR_ASYNC_INFER_REQUESTS",
    "RANGE_FOR_STREAMS",
    "SUPPORTED_PROPERTIES",
];
/// Most properties of one session.
pub(super) const MOST: usize = 24;
const SHAPES: &str = "shapes";
const NESTED: &str = "DEVICE_PROPERTIES";

/// What a session is to be given.
#[derive(Debug, Default)]
pub(super) struct Options {
    /// As they were given.
    pub(super) properties: BTreeMap<String, CString>,
    /// By input: each dimension from the least to the most, the most `-1` where there is none.
    pub(super) shapes: BTreeMap<String, Vec<Dimension>>,
}

/// The JSON Schema of the options for the CPU; other devices add their own.
pub(super) fn schema(library: Option<&Library>) -> Value {
    let mut properties = Map::new();
    for key in library.and_then(|library| of_device(library, c"CPU").ok()).into_iter().flatten().chain(OF_THE_CORE.map(str::to_owned)) {
        properties.insert(key, json!({"type": ["string", "number", "boolean"]}));
    }
    let dim = json!({"anyOf": [{"type": "integer", "minimum": -1}, {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}]});
    let about = "input: its dimensions; -1 for any size, [least, most] for a bounded one";
    let shape = json!({"type": "array", "items": dim});
    properties.insert(SHAPES.to_owned(), json!({"type": "object", "additionalProperties": shape, "description": about}));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        "description": "OpenVINO's own properties, verbatim; devices other than the CPU have others",
    })
}

/// The properties of a device that can be set.
fn of_device(library: &Library, device: &CStr) -> Result<Vec<String>> {
    let known = library.property(device, c"SUPPORTED_PROPERTIES").map_err(|failure| failure.into_load_error(None))?;
    Ok(known.split_ascii_whitespace().filter(|key| !NOT_OPTIONS.contains(key)).map(str::to_owned).collect())
}

impl Options {
    /// Reads a model's options.
    ///
    /// # Errors
    /// `INVALID_OPTION` with the JSON path.
    pub(super) fn parse(given: &Map<String, Value>) -> Result<Options> {
        let mut options = Options::default();
        for (key, value) in given {
            let at = At { path: format!("options.{key}"), value };
            if key == SHAPES {
                options.shapes = at.children()?.map(|(input, at)| Ok((input.clone(), dimensions(&at)?))).collect::<Result<_>>()?;
            } else {
                let text = match value {
                    Value::Bool(yes) => CString::from(if *yes { c"YES" } else { c"NO" }),
                    _ => at.text()?,
                };
                options.properties.insert(key.clone(), text);
            }
        }
        Ok(options)
    }

    /// The properties to compile with: those that were given, and for the rest what the house asks of a runtime.
    ///
    /// # Errors
    /// `UNKNOWN_OPTION` with the known ones; `INVALID_OPTION` when there are too many.
    pub(super) fn build(&self, library: &Library, device: &Device, precision: Precision) -> Result<Texts> {
        let defaults = defaults(library, precision);
        let parts = device.parts.iter().map(|part| Ok((part, of_device(library, part)?))).collect::<Result<Vec<_>>>()?;
        let mut flat = BTreeMap::new();
        let of_all = match &device.over {
            None => parts.iter().flat_map(|(_, known)| known.clone()).collect(),
            Some(over) => of_device(library, over)?.into_iter().chain([NESTED.to_owned()]).collect::<Vec<String>>(),
        };
        self.check_known(&of_all, &parts)?;
        let takes_all = |key: &String| of_all.contains(key) || OF_THE_CORE.contains(&key.as_str());
        flat.extend(self.properties.iter().filter(|(key, _)| takes_all(key)).map(|(key, value)| (key.clone(), value.clone())));
        if device.over.is_none() {
            let missing = defaults.into_iter().filter(|(key, _)| of_all.iter().any(|known| known == key) && !self.properties.contains_key(*key));
            flat.extend(missing.map(|(key, value)| (key.to_owned(), value)));
        } else if !self.properties.contains_key(NESTED) {
            flat.insert(NESTED.to_owned(), self.nested(&parts, &defaults, &takes_all)?);
        }
        if flat.len() > MOST {
            return Err(NnrpError::new(Reason::InvalidOption, format!("options: expected at most {MOST} properties, got {}", flat.len())));
        }
        Ok(flat.into_iter().map(|(key, value)| (CString::new(key).unwrap_or_default(), value)).collect())
    }

    fn check_known(&self, of_all: &[String], parts: &[(&CString, Vec<String>)]) -> Result<()> {
        let mut known: Vec<&str> = of_all.iter().chain(parts.iter().flat_map(|(_, known)| known)).map(String::as_str).chain(OF_THE_CORE).collect();
        known.push(SHAPES);
        known.sort_unstable();
        known.dedup();
        match self.properties.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(unknown(super::NAME, key, &known)),
            None => Ok(()),
        }
    }

    /// The properties of each device below another, as one text: `{CPU:{NUM_STREAMS:2}}`.
    fn nested(&self, parts: &[(&CString, Vec<String>)], defaults: &[(&str, CString)], takes_all: &dyn Fn(&String) -> bool) -> Result<CString> {
        let mut devices = Vec::new();
        for (part, known) in parts {
            let mut pairs = Vec::new();
            for (key, value) in self.properties.iter().filter(|(key, _)| known.contains(key) && !takes_all(key)) {
                let text = value.to_string_lossy();
                if text.contains(['{', '}', ',', ':']) {
                    let message = format!("options.{key}: expected no '{{', '}}', ',' or ':' for a device below another, got '{text}'");
                    return Err(NnrpError::new(Reason::InvalidOption, message).with("path", format!("options.{key}")));
                }
                pairs.push(format!("{key}:{text}"));
            }
            let missing = defaults.iter().filter(|(key, _)| known.iter().any(|known| known == key) && !self.properties.contains_key(*key));
            pairs.extend(missing.map(|(key, value)| format!("{key}:{}", value.to_string_lossy())));
            devices.push(format!("{}:{{{}}}", part.to_string_lossy(), pairs.join(",")));
        }
        Ok(CString::new(format!("{{{}}}", devices.join(","))).unwrap_or_default())
    }
}

/// What holds unless an option says otherwise: arithmetic as exact as was asked for, no more threads than cores, none tied to a core (two
/// models would be tied to the same; and 1.5 µs of each run go into it).
fn defaults(library: &Library, precision: Precision) -> Vec<(&'static str, CString)> {
    let (mode, hint) = match precision {
        Precision::Strict => (c"ACCURACY", Some(c"f32")),
        Precision::Bf16 => (c"ACCURACY", Some(c"bf16")),
        Precision::Fp16 => (c"ACCURACY", Some(c"f16")),
        Precision::Int8 | Precision::Fast => (c"PERFORMANCE", None),
    };
    let mut defaults = vec![
        ("EXECUTION_MODE_HINT", CString::from(mode)),
        ("INFERENCE_NUM_THREADS", CString::new(library.threads.to_string()).unwrap_or_default()),
        ("ENABLE_CPU_PINNING", CString::from(c"NO")),
    ];
    defaults.extend(hint.map(|hint| ("INFERENCE_PRECISION_HINT", CString::from(hint))));
    defaults
}

fn dimensions(at: &At<'_>) -> Result<Vec<Dimension>> {
    let expected = "a size, -1 for any, or [least, most]";
    at.items()?
        .map(|item| match item.value {
            Value::Array(pair) => match (pair.len(), pair.first().and_then(Value::as_i64), pair.get(1).and_then(Value::as_i64)) {
                (2, Some(least), Some(most)) if least >= 0 && (most == -1 || most >= least) => Ok(Dimension { least, most }),
                _ => Err(item.wrong(expected)),
            },
            value => match value.as_i64() {
                Some(-1) => Ok(Dimension { least: 0, most: -1 }),
                Some(size) if size >= 0 => Ok(Dimension { least: size, most: size }),
                _ => Err(item.wrong(expected)),
            },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: Value) -> Result<Options> {
        Options::parse(options.as_object().unwrap())
    }

    #[test]
    fn a_property_is_a_text_however_it_is_written() {
        let options = parse(json!({"NUM_STREAMS": 2, "PERF_COUNT": true, "PERFORMANCE_HINT": "LATENCY"})).unwrap();
        let texts: Vec<_> = options.properties.iter().map(|(key, value)| (key.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(texts, [("NUM_STREAMS", "2"), ("PERFORMANCE_HINT", "LATENCY"), ("PERF_COUNT", "YES")]);
    }

    #[test]
    fn a_dimension_is_fixed_bounded_or_any() {
        let options = parse(json!({"shapes": {"x": [4, -1, [1, 8], [2, -1]]}})).unwrap();
        let dims: Vec<_> = options.shapes["x"].iter().map(|dim| (dim.least, dim.most)).collect();
        assert_eq!(dims, [(4, 4), (0, -1), (1, 8), (2, -1)]);
    }

    #[test]
    fn a_wrong_value_is_named_by_its_path() {
        for (options, path) in [
            (json!({"NUM_STREAMS": null}), "options.NUM_STREAMS"),
            (json!({"NUM_STREAMS": ["2"]}), "options.NUM_STREAMS"),
            (json!({"CACHE_DIR": "a\0b"}), "options.CACHE_DIR"),
            (json!({"shapes": [1]}), "options.shapes"),
            (json!({"shapes": {"x": 4}}), "options.shapes['x']"),
            (json!({"shapes": {"x": [1, -2]}}), "options.shapes['x'][1]"),
            (json!({"shapes": {"x": [[8, 1]]}}), "options.shapes['x'][0]"),
            (json!({"shapes": {"x": [[1, 2, 3]]}}), "options.shapes['x'][0]"),
            (json!({"shapes": {"x": [1.5]}}), "options.shapes['x'][0]"),
        ] {
            let error = parse(options).unwrap_err();
            assert!(error.is(Reason::InvalidOption), "{error:?}");
            assert_eq!(error.details()["path"], path);
        }
    }
}
