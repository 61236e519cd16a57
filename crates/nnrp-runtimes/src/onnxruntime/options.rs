//! The options of a session: the names of ONNX Runtime's own Python API, checked here and then given on verbatim.
use super::failure::Failure;
use super::library::{Library, ort};
use super::providers::{self, Provider};
use nnrp_core::error::excerpt;
use nnrp_core::{NnrpError, Reason, Result};
use ort_sys::{ExecutionMode, GraphOptimizationLevel, OrtSessionOptions};
use serde_json::{Map, Value, json};
use std::ffi::CString;
use std::ptr::null_mut;

const KNOWN: [&str; 12] = [
    "enable_cpu_mem_arena",
    "enable_mem_pattern",
    "execution_mode",
    "free_dimension_overrides",
    "graph_optimization_level",
    "inter_op_num_threads",
    "intra_op_num_threads",
    "log_severity_level",
    "providers",
    "session",
    "use_deterministic_compute",
    "use_per_session_threads",
];
const LEVELS: [(&str, GraphOptimizationLevel); 4] = [
    ("disable", GraphOptimizationLevel::ORT_DISABLE_ALL),
    ("basic", GraphOptimizationLevel::ORT_ENABLE_BASIC),
    ("extended", GraphOptimizationLevel::ORT_ENABLE_EXTENDED),
    ("all", GraphOptimizationLevel::ORT_ENABLE_ALL),
];
const MODES: [(&str, ExecutionMode); 2] = [("sequential", ExecutionMode::ORT_SEQUENTIAL), ("parallel", ExecutionMode::ORT_PARALLEL)];
const MOST_THREADS: i64 = 1024;
const INTRA_SPIN: &str = "session.intra_op.allow_spinning";
const INTER_SPIN: &str = "session.inter_op.allow_spinning";

/// Keys and values as the library takes them.
pub(super) type Texts = Vec<(CString, CString)>;

/// What a session is to be given.
#[derive(Debug)]
pub(super) struct Options {
    session: Texts,
    /// Given: the session has threads of its own.
    own_threads: Option<(i32, i32)>,
    mode: (&'static str, ExecutionMode),
    level: (&'static str, GraphOptimizationLevel),
    mem_pattern: bool,
    arena: bool,
    deterministic: bool,
    severity: Option<i32>,
    overrides: Vec<(CString, i64)>,
    /// In order of preference; the CPU comes after all.
    pub(super) providers: Vec<Provider>,
}

/// The JSON Schema of the options.
pub(super) fn schema() -> Value {
    let boolean = |about: &str, default: bool| json!({"type": "boolean", "default": default, "description": about});
    let threads = |about: &str| json!({"type": "integer", "minimum": 0, "maximum": MOST_THREADS, "description": about});
    let texts = json!({"type": "object", "additionalProperties": {"type": ["string", "number"]}});
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "enable_cpu_mem_arena": boolean("keep memory for the next run", true),
            "enable_mem_pattern": boolean("plan memory from the shapes of earlier runs", true),
            "execution_mode": {"enum": ["sequential", "parallel"], "default": "sequential", "description": "parallel: with threads of its own"},
            "free_dimension_overrides": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}, "description": "symbolic dimension: size"},
            "graph_optimization_level": {"enum": ["disable", "basic", "extended", "all"], "default": "all"},
            "inter_op_num_threads": threads("threads of its own that run nodes side by side; 0: the runtime's choice"),
            "intra_op_num_threads": threads("threads of its own within a node; 0: the runtime's choice"),
            "log_severity_level": {"type": "integer", "minimum": 0, "maximum": 4, "default": 4, "description": "0 verbose to 4 fatal, to standard error"},
            "providers": {
                "type": "array",
                "default": ["CPUExecutionProvider"],
                "items": {"anyOf": [{"type": "string"}, {"type": "array", "prefixItems": [{"type": "string"}, texts], "minItems": 1, "maxItems": 2}]},
                "description": "execution providers, the preferred first: a name, or a name and its options",
            },
            "session": texts,
            "use_deterministic_compute": boolean("the same result each time, where the provider can", false),
            "use_per_session_threads": boolean("threads of its own, not those that all sessions share", false),
        },
    })
}

impl Options {
    /// Checks a model's options.
    ///
    /// # Errors
    /// `UNKNOWN_OPTION` with the known ones; `INVALID_OPTION` with the JSON path.
    pub(super) fn parse(options: &Map<String, Value>, cores: i32) -> Result<Options> {
        if let Some(unknown) = options.keys().find(|key| !KNOWN.contains(&key.as_str())) {
            let got = excerpt(unknown);
            let message = format!("options: unknown option '{got}'; onnxruntime knows {}", KNOWN.join(", "));
            return Err(NnrpError::new(Reason::UnknownOption, message).with("path", format!("options.{got}")).with("known", KNOWN.to_vec()));
        }
        let at = |key: &str| options.get(key).map(|value| At { path: format!("options.{key}"), value });
        let flag = |key: &str, default: bool| at(key).map_or(Ok(default), |at| at.boolean());
        let count = |key: &str| at(key).map(|at| at.integer(0, MOST_THREADS)).transpose();
        let session = at("session").map_or(Ok(Texts::new()), |at| at.texts())?;
        let mode = at("execution_mode").map_or(Ok(MODES[0]), |at| at.choice(&MODES))?;
        let (intra, inter) = (count("intra_op_num_threads")?, count("inter_op_num_threads")?);
        let parallel = mode.1 == ExecutionMode::ORT_PARALLEL;
        let spins = session.iter().any(|(key, _)| [INTRA_SPIN, INTER_SPIN].iter().any(|spin| key.as_bytes() == spin.as_bytes()));
        let speaks = intra.is_some() || inter.is_some() || parallel || spins;
        let own = flag("use_per_session_threads", speaks)?;
        if let (true, false, Some(at)) = (speaks, own, at("use_per_session_threads")) {
            return Err(at.wrong("true, because other options ask for threads of its own"));
        }
        Ok(Options {
            own_threads: own.then(|| (narrow(intra, cores), narrow(inter, if parallel { cores } else { 1 }))),
            session,
            mode,
            level: at("graph_optimization_level").map_or(Ok(LEVELS[3]), |at| at.choice(&LEVELS))?,
            mem_pattern: flag("enable_mem_pattern", true)?,
            arena: flag("enable_cpu_mem_arena", true)?,
            deterministic: flag("use_deterministic_compute", false)?,
            severity: at("log_severity_level").map(|at| at.integer(0, 4)).transpose()?.map(|level| narrow(Some(level), 4)),
            overrides: at("free_dimension_overrides").map_or(Ok(Vec::new()), |at| at.sizes())?,
            providers: at("providers").map_or(Ok(Vec::new()), |at| at.providers())?,
        })
    }

    /// Gives the session threads of its own, because there are none to share.
    pub(super) fn give_own_threads(&mut self, cores: i32) {
        self.own_threads.get_or_insert((cores, 1));
    }

    /// The library's session options.
    ///
    /// # Errors
    /// `DEVICE_NOT_FOUND`, `INVALID_OPTION`.
    pub(super) fn build(&self, library: &'static Library) -> Result<SessionOptions> {
        providers::check_available(library, &self.providers)?;
        let built = self.build_plain(library).map_err(|failure| failure.error(Reason::InvalidOption, "onnxruntime refuses the options", None))?;
        for (index, provider) in self.providers.iter().enumerate() {
            providers::append(library, built.ptr, provider, index)?;
        }
        Ok(built)
    }

    fn build_plain(&self, library: &'static Library) -> std::result::Result<SessionOptions, Failure> {
        let mut built = SessionOptions { ptr: null_mut(), library };
        // SAFETY: every function is of the oldest table; `built` owns the options from the first call on; the texts live through the calls.
        unsafe {
            ort!(library, CreateSessionOptions(&mut built.ptr))?;
            match self.own_threads {
                None => ort!(library, DisablePerSessionThreads(built.ptr))?,
                Some((intra, inter)) => {
                    ort!(library, SetIntraOpNumThreads(built.ptr, intra))?;
                    ort!(library, SetInterOpNumThreads(built.ptr, inter))?;
                    for key in [c"session.intra_op.allow_spinning", c"session.inter_op.allow_spinning"] {
                        ort!(library, AddSessionConfigEntry(built.ptr, key.as_ptr(), c"0".as_ptr()))?;
                    }
                }
            }
            ort!(library, SetSessionExecutionMode(built.ptr, self.mode.1))?;
            ort!(library, SetSessionGraphOptimizationLevel(built.ptr, self.level.1))?;
            if !self.mem_pattern {
                ort!(library, DisableMemPattern(built.ptr))?;
            }
            if !self.arena {
                ort!(library, DisableCpuMemArena(built.ptr))?;
            }
            if self.deterministic {
                ort!(library, SetDeterministicCompute(built.ptr, true))?;
            }
            if let Some(level) = self.severity {
                ort!(library, SetSessionLogSeverityLevel(built.ptr, level))?;
            }
            for (name, size) in &self.overrides {
                ort!(library, AddFreeDimensionOverrideByName(built.ptr, name.as_ptr(), *size))?;
            }
            for (key, value) in &self.session {
                ort!(library, AddSessionConfigEntry(built.ptr, key.as_ptr(), value.as_ptr()))?;
            }
        }
        Ok(built)
    }

    /// The settings that hold, under the names of the options, with the library's version.
    pub(super) fn effective(&self, library: &Library) -> Map<String, Value> {
        let (intra, inter) = self.own_threads.unwrap_or((library.threads, 1));
        let mut session = Map::from_iter([INTRA_SPIN, INTER_SPIN].map(|key| (key.to_owned(), json!("0"))));
        session.extend(self.session.iter().map(|(key, value)| (key.to_string_lossy().into_owned(), json!(value.to_string_lossy()))));
        let overrides: Map<String, Value> = self.overrides.iter().map(|(name, size)| (name.to_string_lossy().into_owned(), json!(size))).collect();
        let settings = json!({
            "library_version": library.version,
            "enable_cpu_mem_arena": self.arena,
            "enable_mem_pattern": self.mem_pattern,
            "execution_mode": self.mode.0,
            "free_dimension_overrides": overrides,
            "graph_optimization_level": self.level.0,
            "inter_op_num_threads": inter,
            "intra_op_num_threads": intra,
            "log_severity_level": self.severity.unwrap_or(4),
            "providers": providers::effective(&self.providers),
            "session": session,
            "use_deterministic_compute": self.deterministic,
            "use_per_session_threads": self.own_threads.is_some(),
        });
        if let Value::Object(settings) = settings { settings } else { Map::new() }
    }
}

fn narrow(value: Option<i64>, default: i32) -> i32 {
    value.and_then(|value| i32::try_from(value).ok()).unwrap_or(default)
}

/// The library's session options; released at the end.
pub(super) struct SessionOptions {
    pub(super) ptr: *mut OrtSessionOptions,
    library: &'static Library,
}

impl Drop for SessionOptions {
    fn drop(&mut self) {
        // SAFETY: made by the library, released once; releasing null does nothing.
        unsafe { ((*self.library.api).ReleaseSessionOptions)(self.ptr) }
    }
}

/// A value in the options, and its JSON path.
struct At<'a> {
    path: String,
    value: &'a Value,
}

impl At<'_> {
    #[cold]
    fn wrong(&self, expected: &str) -> NnrpError {
        let got = excerpt(&self.value.to_string());
        let message = format!("{}: expected {expected}, got {got}", self.path);
        NnrpError::new(Reason::InvalidOption, message).with("path", self.path.clone()).with("expected", expected).with("got", got)
    }

    fn boolean(&self) -> Result<bool> {
        self.value.as_bool().ok_or_else(|| self.wrong("true or false"))
    }

    fn integer(&self, least: i64, most: i64) -> Result<i64> {
        let value = self.value.as_i64().filter(|value| (least..=most).contains(value));
        value.ok_or_else(|| self.wrong(&format!("a whole number from {least} to {most}")))
    }

    fn choice<T: Copy>(&self, choices: &[(&'static str, T)]) -> Result<(&'static str, T)> {
        let chosen = choices.iter().find(|(name, _)| self.value.as_str() == Some(name)).copied();
        chosen.ok_or_else(|| self.wrong(&format!("one of {}", choices.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "))))
    }

    fn children(&self) -> Result<impl Iterator<Item = (&String, At<'_>)>> {
        let object = self.value.as_object().ok_or_else(|| self.wrong("an object"))?;
        Ok(object.iter().map(|(key, value)| (key, At { path: format!("{}['{}']", self.path, excerpt(key)), value })))
    }

    fn text(&self) -> Result<CString> {
        let text = match self.value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return Err(self.wrong("a string")),
        };
        CString::new(text).map_err(|_| self.wrong("a string without NUL"))
    }

    fn key(&self, key: &str) -> Result<CString> {
        CString::new(key).map_err(|_| self.wrong("a name without NUL"))
    }

    fn texts(&self) -> Result<Texts> {
        self.children()?.map(|(key, child)| Ok((child.key(key)?, child.text()?))).collect()
    }

    fn sizes(&self) -> Result<Vec<(CString, i64)>> {
        self.children()?.map(|(key, child)| Ok((child.key(key)?, child.integer(0, i64::MAX)?))).collect()
    }

    fn providers(&self) -> Result<Vec<Provider>> {
        let list = self.value.as_array().ok_or_else(|| self.wrong("an array"))?;
        list.iter().enumerate().map(|(index, value)| At { path: format!("{}[{index}]", self.path), value }.provider()).collect()
    }

    fn provider(&self) -> Result<Provider> {
        let expected = "a name, or an array of a name and an object";
        let (name, options) = match self.value {
            Value::String(name) => (name, None),
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(name)] => (name, None),
                [Value::String(name), value] => (name, Some(At { path: format!("{}[1]", self.path), value })),
                _ => return Err(self.wrong(expected)),
            },
            _ => return Err(self.wrong(expected)),
        };
        Ok(Provider { name: name.clone(), options: options.map_or(Ok(Texts::new()), |options| options.texts())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: Value) -> Result<Options> {
        Options::parse(options.as_object().unwrap(), 2)
    }

    #[test]
    fn the_schema_and_the_parser_know_the_same_options() {
        let schema = schema();
        assert!(schema["properties"].as_object().unwrap().keys().eq(KNOWN.iter()));
    }

    #[test]
    fn threads_are_shared_unless_an_option_speaks_of_them() {
        assert_eq!(parse(json!({})).unwrap().own_threads, None);
        assert_eq!(parse(json!({"intra_op_num_threads": 3})).unwrap().own_threads, Some((3, 1)));
        assert_eq!(parse(json!({"execution_mode": "parallel"})).unwrap().own_threads, Some((2, 2)));
        assert_eq!(parse(json!({"session": {INTRA_SPIN: "1"}})).unwrap().own_threads, Some((2, 1)));
        assert_eq!(parse(json!({"use_per_session_threads": true})).unwrap().own_threads, Some((2, 1)));
    }

    #[test]
    fn a_wrong_value_is_named_by_its_path() {
        for (options, path) in [
            (json!({"intra_op_num_threads": -1}), "options.intra_op_num_threads"),
            (json!({"intra_op_num_threads": "2"}), "options.intra_op_num_threads"),
            (json!({"enable_mem_pattern": 1}), "options.enable_mem_pattern"),
            (json!({"graph_optimization_level": "most"}), "options.graph_optimization_level"),
            (json!({"session": {"a": true}}), "options.session['a']"),
            (json!({"session": {"a": "x\0y"}}), "options.session['a']"),
            (json!({"session": []}), "options.session"),
            (json!({"free_dimension_overrides": {"n": 1.5}}), "options.free_dimension_overrides['n']"),
            (json!({"providers": "CPUExecutionProvider"}), "options.providers"),
            (json!({"providers": [7]}), "options.providers[0]"),
            (json!({"providers": ["A", ["B", {"x": null}]]}), "options.providers[1][1]['x']"),
            (json!({"log_severity_level": 5}), "options.log_severity_level"),
            (json!({"use_per_session_threads": false, "intra_op_num_threads": 1}), "options.use_per_session_threads"),
        ] {
            let error = parse(options).unwrap_err();
            assert!(error.is(Reason::InvalidOption), "{error:?}");
            assert_eq!(error.details()["path"], path);
        }
    }

    #[test]
    fn an_unknown_option_is_answered_with_the_known_ones() {
        let error = parse(json!({"threads": 2})).unwrap_err();
        assert!(error.is(Reason::UnknownOption));
        assert!(error.message().contains("'threads'") && error.message().contains("intra_op_num_threads"), "{error}");
    }
}
