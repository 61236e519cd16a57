//! The options of a session: the names of ONNX Runtime's own Python API, checked here and then given on verbatim.
use super::cache::Draft;
use super::failure::Failure;
use super::library::{Library, ort};
use super::providers::{self, Provider};
use super::session::os_path;
use super::signature;
use crate::options::{self, At, Texts};
use nnrp_core::{ModelSpec, NnrpError, Precision, Reason, Result};
use ort_sys::{ExecutionMode, GraphOptimizationLevel, OrtSessionOptions, os_char};
use serde_json::{Map, Value, json};
use std::ffi::{CStr, CString};
use std::path::PathBuf;
use std::ptr::null_mut;

const KNOWN: [&str; 15] = [
    "enable_cpu_mem_arena",
    "enable_mem_pattern",
    "enable_profiling",
    "execution_mode",
    "free_dimension_overrides",
    "graph_optimization_level",
    "inter_op_num_threads",
    "intra_op_num_threads",
    "log_severity_level",
    "optimized_model_cache",
    "profile_file_prefix",
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
const PROFILE: &str = "onnxruntime_profile_";
const INTRA_SPIN: &str = "session.intra_op.allow_spinning";
const INTER_SPIN: &str = "session.inter_op.allow_spinning";

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
    /// Given: each run's nodes are timed, and written to a file that begins so.
    profile: Option<PathBuf>,
    /// The folder of optimised models.
    pub(super) cache: Option<PathBuf>,
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
            "enable_profiling": boolean("time each node, and write it as a Chrome trace when the session ends", false),
            "execution_mode": {"enum": ["sequential", "parallel"], "default": "sequential", "description": "parallel: with threads of its own"},
            "free_dimension_overrides": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}, "description": "symbolic dimension: size"},
            "graph_optimization_level": {"enum": ["disable", "basic", "extended", "all"], "default": "all"},
            "inter_op_num_threads": threads("threads of its own that run nodes side by side; 0: the physical cores"),
            "intra_op_num_threads": threads("threads of its own within a node; 0: the physical cores"),
            "log_severity_level": {"type": "integer", "minimum": 0, "maximum": 4, "default": 4, "description": "0 verbose to 4 fatal, to standard error"},
            "optimized_model_cache": {"type": "string", "description": "a folder: the optimised model is kept there, and the next load reads it"},
            "profile_file_prefix": {"type": "string", "default": PROFILE, "description": "the trace's file, before its time and .json"},
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
    pub(super) fn parse(given: &Map<String, Value>, cores: i32) -> Result<Options> {
        if let Some(unknown) = given.keys().find(|key| !KNOWN.contains(&key.as_str())) {
            return Err(options::unknown(super::NAME, unknown, &KNOWN));
        }
        let at = |key: &str| given.get(key).map(|value| At { path: format!("options.{key}"), value });
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
            severity: at("log_severity_level").map(|at| at.integer(0, 4)).transpose()?.and_then(|level| i32::try_from(level).ok()),
            overrides: at("free_dimension_overrides").map_or(Ok(Vec::new()), |at| at.sizes())?,
            profile: profile_at(flag("enable_profiling", false)?, at("profile_file_prefix"))?,
            cache: at("optimized_model_cache").map(|at| path_at(&at)).transpose()?,
            providers: at("providers").map_or(Ok(Vec::new()), |at| providers_at(&at))?,
        })
    }

    /// Holds the options against what else the description says.
    ///
    /// # Errors
    /// `INVALID_OPTION` for a device that the providers contradict and a dimension that no input has, `DEVICE_NOT_FOUND`; `NOT_OFFERED` for a precision that is not the model's own.
    pub(super) fn agree(&mut self, library: &Library, spec: &ModelSpec) -> Result<()> {
        if !matches!(spec.precision, Precision::Strict | Precision::Fast) {
            let asked = options::name_of(spec.precision);
            let message = format!(
                "precision '{asked}': onnxruntime computes in the model's own types; convert the model to {asked}, or give a provider that has it the option for it"
            );
            return Err(NnrpError::new(Reason::NotOffered, message).with("precision", asked).with("runtime", super::NAME));
        }
        signature::fit(&spec.path, &self.overrides)?;
        providers::place(library, &mut self.providers, &spec.device)
    }

    /// Gives the session threads of its own, because there are none to share.
    pub(super) fn give_own_threads(&mut self, cores: i32) {
        self.own_threads.get_or_insert((cores, 1));
    }

    /// The library's session options, to load the model in that form.
    ///
    /// # Errors
    /// `DEVICE_NOT_FOUND`, `INVALID_OPTION`.
    pub(super) fn build(&self, library: &'static Library, form: Form<'_>) -> Result<SessionOptions> {
        providers::check_available(library, &self.providers)?;
        let draft = form.draft();
        let paths = Paths {
            model: draft.map(|draft| os_path(&draft.model)).transpose()?,
            weights: draft.and_then(|draft| CString::new(draft.weights.as_deref()?).ok()),
            profile: self.profile.as_deref().map(os_path).transpose()?,
        };
        let built = self
            .build_plain(library, form)
            .and_then(|built| paths.give(built))
            .map_err(|failure| failure.error(Reason::InvalidOption, "onnxruntime refuses the options", None))?;
        for (index, provider) in self.providers.iter().enumerate() {
            providers::append(library, built.ptr, provider, index)?;
        }
        Ok(built)
    }

    fn build_plain(&self, library: &'static Library, form: Form<'_>) -> std::result::Result<SessionOptions, Failure> {
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
            let level = if matches!(form, Form::Optimised) { GraphOptimizationLevel::ORT_DISABLE_ALL } else { self.level.1 };
            ort!(library, SetSessionGraphOptimizationLevel(built.ptr, level))?;
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
            "precision": "strict",
            "device": providers::device(&self.providers),
            "threads": intra,
            "enable_cpu_mem_arena": self.arena,
            "enable_mem_pattern": self.mem_pattern,
            "enable_profiling": self.profile.is_some(),
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

fn path_at(at: &At<'_>) -> Result<PathBuf> {
    let text = at.value.as_str().filter(|text| !text.is_empty() && !text.contains('\0'));
    text.map(PathBuf::from).ok_or_else(|| at.wrong("a path"))
}

fn profile_at(wanted: bool, prefix: Option<At<'_>>) -> Result<Option<PathBuf>> {
    match prefix {
        Some(at) if !wanted => Err(at.wrong("it only with enable_profiling")),
        Some(at) => path_at(&at).map(Some),
        None => Ok(wanted.then(|| PathBuf::from(PROFILE))),
    }
}

/// As many as were asked for; 0 and nothing are the default.
fn narrow(value: Option<i64>, default: i32) -> i32 {
    value.and_then(|value| i32::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default)
}

/// What of a model is loaded.
#[derive(Clone, Copy)]
pub(super) enum Form<'a> {
    /// The model as it is; optimised, it is also written there.
    Model(Option<&'a Draft>),
    /// The model as it was optimised before.
    Optimised,
}

impl<'a> Form<'a> {
    fn draft(self) -> Option<&'a Draft> {
        if let Form::Model(draft) = self { draft } else { None }
    }
}

/// Files that the library writes to, as it takes their names.
struct Paths {
    model: Option<Vec<os_char>>,
    weights: Option<CString>,
    profile: Option<Vec<os_char>>,
}

impl Paths {
    fn give(&self, built: SessionOptions) -> std::result::Result<SessionOptions, Failure> {
        const WEIGHTS: &CStr = c"session.optimized_model_external_initializers_file_name";
        // SAFETY: the options are alive, and the names live through the calls.
        unsafe {
            if let Some(model) = &self.model {
                ort!(built.library, SetOptimizedModelFilePath(built.ptr, model.as_ptr()))?;
            }
            if let Some(weights) = &self.weights {
                ort!(built.library, AddSessionConfigEntry(built.ptr, WEIGHTS.as_ptr(), weights.as_ptr()))?;
            }
            if let Some(profile) = &self.profile {
                ort!(built.library, EnableProfiling(built.ptr, profile.as_ptr()))?;
            }
        }
        Ok(built)
    }
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

fn providers_at(at: &At<'_>) -> Result<Vec<Provider>> {
    at.items()?.map(|item| provider_at(&item)).collect()
}

fn provider_at(at: &At<'_>) -> Result<Provider> {
    let expected = "a name, or an array of a name and an object";
    let (name, options) = match at.value {
        Value::String(name) => (name, None),
        Value::Array(pair) => match pair.as_slice() {
            [Value::String(name)] => (name, None),
            [Value::String(name), value] => (name, Some(At { path: format!("{}[1]", at.path), value })),
            _ => return Err(at.wrong(expected)),
        },
        _ => return Err(at.wrong(expected)),
    };
    Ok(Provider { name: name.clone(), options: options.map_or(Ok(Texts::new()), |options| options.texts())? })
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
        assert_eq!(parse(json!({"intra_op_num_threads": 0, "inter_op_num_threads": 0})).unwrap().own_threads, Some((2, 1)));
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
            (json!({"optimized_model_cache": ""}), "options.optimized_model_cache"),
            (json!({"enable_profiling": true, "profile_file_prefix": "a\0"}), "options.profile_file_prefix"),
            (json!({"profile_file_prefix": "p"}), "options.profile_file_prefix"),
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
