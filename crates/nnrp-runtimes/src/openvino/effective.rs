//! What a compiled model really does, read back from it: the library lowers some of what it is asked for without a word.
use super::device::Device;
use super::library::{Library, Owned};
use super::options::Options;
use super::table::Compiled;
use crate::options::name_of;
use nnrp_core::error::excerpt;
use nnrp_core::{NnrpError, Precision, Reason, Result};
use serde_json::{Map, Value, json};
use std::ffi::CString;

const HINT: &str = "INFERENCE_PRECISION_HINT";
/// The properties of the devices below another.
const NESTED: &str = "DEVICE_PROPERTIES";
/// What says nothing of how a model runs, or is told otherwise.
const UNTOLD: [&str; 4] = ["SUPPORTED_PROPERTIES", "NETWORK_NAME", "RUNTIME_REQUIREMENTS", NESTED];
/// What else must hold where nothing is to be narrowed.
const EXACT: [(&str, &str); 5] = [
    ("EXECUTION_MODE_HINT", "ACCURACY"),
    ("DYNAMIC_QUANTIZATION_GROUP_SIZE", "0"),
    ("KV_CACHE_PRECISION", "f32"),
    ("KEY_CACHE_PRECISION", "f32"),
    ("VALUE_CACHE_PRECISION", "f32"),
];

/// The properties that hold.
pub(super) struct Effective {
    flat: Map<String, Value>,
    /// Those of the devices below another, as one text.
    nested: String,
}

impl Effective {
    /// Reads all that the compiled model tells.
    pub(super) fn read(library: &Library, compiled: &Owned<Compiled>) -> Effective {
        let get = |key: &str| {
            let key = CString::new(key).ok()?;
            // SAFETY: the compiled model is alive, and the text lives through the call.
            library.text(|out| unsafe { (library.functions.ov_compiled_model_get_property)(compiled.ptr(), key.as_ptr(), out) }).ok()
        };
        let known = get("SUPPORTED_PROPERTIES").unwrap_or_default();
        let known: Vec<&str> = known.split_ascii_whitespace().collect();
        let told = known.iter().filter(|key| !UNTOLD.contains(key)).chain(&["LOADED_FROM_CACHE"]);
        let flat = told.filter_map(|key| Some(((*key).to_owned(), Value::String(get(key)?)))).collect();
        let nested = if known.contains(&NESTED) { get(NESTED) } else { None };
        Effective { flat, nested: nested.unwrap_or_default() }
    }

    /// What a property is, on each device that has it.
    fn all(&self, key: &str) -> Vec<&str> {
        if let Some(value) = self.flat.get(key).and_then(Value::as_str) {
            return vec![value];
        }
        let starts = self.nested.match_indices(key).filter(|(start, _)| self.nested[..*start].ends_with(['{', ',']));
        let values = starts.filter_map(|(start, _)| self.nested[start + key.len()..].strip_prefix(':'));
        values.map(|rest| rest.split([',', '}']).next().unwrap_or_default()).collect()
    }

    /// The devices that run it, `CPU`.
    pub(super) fn devices(&self) -> String {
        self.all("EXECUTION_DEVICES").join(" ")
    }

    /// Holds what was asked for against what is.
    ///
    /// # Errors
    /// `NOT_OFFERED` for a precision that the device has not; `INVALID_OPTION` for an option that contradicts the precision, or that the library
    /// made something else of.
    pub(super) fn check(&self, library: &Library, device: &Device, options: &Options, precision: Precision) -> Result<()> {
        let wanted = match precision {
            Precision::Strict => "f32",
            Precision::Bf16 => "bf16",
            Precision::Fp16 => "f16",
            Precision::Int8 | Precision::Fast => return self.check_options(options),
        };
        let hints = self.all(HINT);
        let narrowed = EXACT.iter().copied().find(|(key, value)| self.all(key).iter().any(|got| got != value));
        let wrong = if hints.iter().any(|hint| *hint != wanted) { Some((HINT, wanted)) } else { narrowed };
        let asked = name_of(precision);
        let given = |key: &str| options.properties.contains_key(key) || options.properties.contains_key(NESTED);
        match wrong {
            Some((key, value)) if given(key) => {
                let got = excerpt(&self.all(key).join(" "));
                let message = format!("options.{key}: precision '{asked}' needs {value}, got {got}; say with 'precision' how exact the numbers must be");
                Err(NnrpError::new(Reason::InvalidOption, message).with("path", format!("options.{key}")).with("precision", asked))
            }
            None if !hints.is_empty() => self.check_options(options),
            _ => Err(not_offered(library, device, asked, hints.first().copied())),
        }
    }

    /// A number that was given is the number that holds, or the option was not honoured.
    fn check_options(&self, options: &Options) -> Result<()> {
        for (key, asked) in &options.properties {
            let asked = asked.to_string_lossy();
            let Ok(number) = asked.parse::<f64>() else { continue };
            if let Some(got) = self.all(key).into_iter().find(|got| got.parse::<f64>().is_ok_and(|got| (got - number).abs() > f64::EPSILON)) {
                let (asked, got) = (excerpt(&asked), excerpt(got));
                let message = format!("options.{key}: {asked} is not to be had here; the most that openvino gives is {got}");
                return Err(NnrpError::new(Reason::InvalidOption, message).with("path", format!("options.{key}")).with("got", asked).with("expected", got));
            }
        }
        Ok(())
    }

    /// The settings that hold, with the library's version.
    pub(super) fn settings(&self, library: &Library, options: &Options, precision: Precision, stateful: bool) -> Map<String, Value> {
        let arithmetic = match (precision, self.all(HINT).first().copied()) {
            (Precision::Fast, Some("bf16")) => "bf16",
            (Precision::Fast, Some("f16")) => "fp16",
            _ => name_of(precision),
        };
        let number = |key: &str| self.all(key).first().and_then(|value| value.parse::<u64>().ok());
        let shapes: Map<String, Value> =
            options.shapes.iter().map(|(name, dims)| (name.clone(), dims.iter().map(|dim| json!([dim.least, dim.most])).collect())).collect();
        let settings = json!({
            "library_version": library.version,
            "precision": arithmetic,
            "device": self.devices(),
            "threads": number("INFERENCE_NUM_THREADS"),
            "shapes": shapes,
            "stateful": stateful,
            "properties": self.flat,
            // What a model makes of fitting inputs is not seen (spec §8.6).
            "narrows": {"FP64": "FP32", "INT64": "INT32", "UINT32": "INT32", "UINT64": "INT32"},
            // Its kernels look at no index that a request gives (spec §8.18).
            "values_checked": false,
        });
        if let Value::Object(settings) = settings { settings } else { Map::new() }
    }
}

#[cold]
fn not_offered(library: &Library, device: &Device, asked: &str, got: Option<&str>) -> NnrpError {
    let has: Vec<String> = device.parts.iter().filter_map(|part| library.property(part, c"OPTIMIZATION_CAPABILITIES").ok()).collect();
    let got = got.map_or_else(|| "it does not tell how it computes".to_owned(), |got| format!("it would compute in {got}"));
    let message = format!("precision '{asked}': {} cannot, {got}; it has {}", device.name.to_string_lossy(), has.join(", "));
    NnrpError::new(Reason::NotOffered, message).with("precision", asked).with("runtime", super::NAME).with("capabilities", has)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_of_the_devices_below_is_found_by_its_whole_name() {
        let nested = "{CPU:{KV_CACHE_PRECISION:f32,CACHE_PRECISION:u8,A:},GPU:{CACHE_PRECISION:f16}}".to_owned();
        let effective = Effective { flat: Map::from_iter([("NUM_STREAMS".to_owned(), json!("2"))]), nested };
        assert_eq!(effective.all("NUM_STREAMS"), ["2"]);
        assert_eq!(effective.all("CACHE_PRECISION"), ["u8", "f16"]);
        assert_eq!(effective.all("A"), [""]);
        assert!(effective.all("PRECISION").is_empty());
    }
}
