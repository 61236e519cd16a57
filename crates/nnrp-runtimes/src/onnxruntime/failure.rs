//! What the library says when it fails, mapped to our errors in one place; never with a file path.
use super::library::Library;
use crate::onnx;
use nnrp_core::error::excerpt;
use nnrp_core::{NnrpError, Reason};
use ort_sys::{OrtStatus, OrtStatusPtr};
use regex_lite::{Captures, Regex};
use std::ffi::CStr;
use std::path::Path;
use std::sync::LazyLock;

/// Longest text of the library that an error repeats, in bytes.
const TEXT_LIMIT: usize = 2048;

/// A status that is not OK.
#[derive(Debug)]
pub(super) struct Failure {
    code: i32,
    text: String,
}

impl Failure {
    /// Whether another part of this process made the library's one environment first, without threads for all sessions to share.
    pub(super) fn wants_own_threads(&self) -> bool {
        self.text.contains("EnvCreatedWithGlobalThreadPools() was false")
    }

    /// Reads a status and ends it.
    #[cold]
    pub(super) fn take(library: &Library, status: OrtStatusPtr) -> Failure {
        // SAFETY: the status is not null and ours; a code is a C int, read as one because newer libraries may have codes that the enum has not.
        unsafe {
            let read: unsafe extern "system" fn(*const OrtStatus) -> i32 = std::mem::transmute((*library.api).GetErrorCode);
            let code = read(status.0);
            let text = CStr::from_ptr(((*library.api).GetErrorMessage)(status.0)).to_string_lossy().into_owned();
            ((*library.api).ReleaseStatus)(status.0);
            Failure { code, text }
        }
    }

    /// The library's name for the code.
    pub(super) fn code_name(&self) -> &'static str {
        const NAMES: [&str; 16] = [
            "OK",
            "FAIL",
            "INVALID_ARGUMENT",
            "NO_SUCHFILE",
            "NO_MODEL",
            "ENGINE_ERROR",
            "RUNTIME_EXCEPTION",
            "INVALID_PROTOBUF",
            "MODEL_LOADED",
            "NOT_IMPLEMENTED",
            "INVALID_GRAPH",
            "EP_FAIL",
            "MODEL_LOAD_CANCELED",
            "MODEL_REQUIRES_COMPILATION",
            "NOT_FOUND",
            "DEVICE_RESET",
        ];
        usize::try_from(self.code).ok().and_then(|code| NAMES.get(code)).copied().unwrap_or("UNKNOWN")
    }

    /// Whether the library calls what it was given wrong.
    pub(super) fn is_invalid_argument(&self) -> bool {
        self.code == 2
    }

    /// The error of a model that does not load.
    #[cold]
    pub(super) fn into_load_error(self, model: Option<&Path>) -> NnrpError {
        // Weights that are not there come back under several codes, by version; so the model is asked for its files.
        let missing = model.and_then(onnx::missing_file);
        match (self.code_name(), model) {
            (name, _) if name == "NO_SUCHFILE" || missing.is_some() => {
                let error = self.error(Reason::FileNotFound, "a file that the model needs is not there", model);
                missing.into_iter().fold(error, |error, file| error.with("file", excerpt(&file)))
            }
            // The file is there and can be read, so what the library complains of in its own check is in the file.
            ("FAIL" | "INVALID_ARGUMENT" | "NO_MODEL" | "INVALID_PROTOBUF" | "INVALID_GRAPH", Some(_)) => {
                self.error(Reason::InvalidModel, "not a model that onnxruntime can read", model)
            }
            _ => self.error(Reason::LoadFailed, "onnxruntime failed to load it", model),
        }
    }

    /// The error of a run.
    #[cold]
    pub(super) fn into_run_error(self, model: &Path) -> NnrpError {
        self.error(Reason::RunFailed, "onnxruntime failed to run it", Some(model))
    }

    /// An error with that reason, and the library's code and text in its details.
    #[cold]
    pub(super) fn error(self, reason: Reason, what: &str, model: Option<&Path>) -> NnrpError {
        let (code, name, text) = (self.code, self.code_name(), scrub(&self.text, model));
        NnrpError::new(reason, format!("model: {what}: {text}"))
            .with("runtime", super::NAME)
            .with("runtime_code", code)
            .with("runtime_code_name", name)
            .with("runtime_message", text)
    }
}

/// The text without file paths: the model's own, whatever looks like one, and the source files of the library.
fn scrub(text: &str, model: Option<&Path>) -> String {
    // An absolute path on Unix or Windows, or a relative one; with a line number when it has one.
    static PATH: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r#"(?:[A-Za-z]:[\\/]|[~.]{0,2}[\\/]|[\w@+-][\w.@+-]*)(?:[^\s'"`()<>\[\]{},;|:]*)(?::\d+)?"#).ok());
    let mut text = text.to_owned();
    // The model's folder too, for what lies beside it; first the longer, and a folder only when it is no plain word.
    let folder = model.and_then(Path::parent).filter(|folder| folder.is_absolute());
    for path in [model, folder].into_iter().flatten().filter_map(Path::to_str).filter(|path| path.len() > 1) {
        text = text.replace(path, "…");
    }
    let Some(pattern) = &*PATH else { return String::new() };
    let text = limit(&text, 4 * TEXT_LIMIT);
    let scrubbed = pattern.replace_all(&text, |found: &Captures<'_>| {
        let (token, before) = (&found[0], found.get(0).map_or("", |all| text.get(..all.start()).unwrap_or_default()));
        if is_path(token, before) { "…".to_owned() } else { token.to_owned() }
    });
    limit(scrubbed.replace("……", "…").trim(), TEXT_LIMIT)
}

fn is_path(token: &str, before: &str) -> bool {
    const FILES: [&str; 15] = [".cc", ".h", ".hpp", ".cpp", ".cu", ".cuh", ".inc", ".py", ".so", ".dll", ".dylib", ".onnx", ".ort", ".bin", ".data"];
    let name = token.rsplit_once(':').filter(|(_, line)| line.bytes().all(|c| c.is_ascii_digit())).map_or(token, |(name, _)| name);
    if FILES.iter().any(|ending| name.ends_with(ending)) || name.contains(".so.") {
        return true;
    }
    // Exporters name nodes like paths, `/encoder/MatMul`; the library tells them in these ways.
    let is_node = ["Name:'", "name:'", "node '", "Node (", "node (", "Node:", "node:", "name: "].iter().any(|mark| before.ends_with(mark));
    let drive = token.as_bytes().get(1) == Some(&b':') && matches!(token.as_bytes().get(2), Some(b'\\' | b'/'));
    !is_node && (drive || (token.len() > 1 && token.trim_start_matches(['~', '.']).starts_with(['/', '\\'])))
}

fn limit(text: &str, bytes: usize) -> String {
    let end = (0..=bytes.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    if end < text.len() { format!("{}…", &text[..end]) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_model_and_of_the_librarys_sources_are_stripped() {
        let model = Path::new("/srv/my models/a/model.onnx");
        for (text, expected) in [
            ("Load model from /srv/my models/a/model.onnx failed:Protobuf parsing failed.", "Load model from … failed:Protobuf parsing failed."),
            ("/onnxruntime_src/onnxruntime/core/framework/x.cc:173 Status foo(int) bad", "… Status foo(int) bad"),
            ("External data path: /srv/my models/a/w.bin is missing", "External data path: … is missing"),
            ("error in 'C:\\src\\ort\\x.cpp:12': no", "error in '…': no"),
            ("onnxruntime/core/x.h:5 and conv_op.cc:9", "… and …"),
            ("dlopen ../lib/libcudart.so.12: cannot open", "dlopen …: cannot open"),
            ("see ~/models/x and /etc/passwd", "see … and …"),
        ] {
            assert_eq!(scrub(text, Some(model)), expected);
        }
    }

    #[test]
    fn names_of_nodes_and_plain_words_stay() {
        for text in [
            "Non-zero status code returned while running Add node. Name:'/encoder/Add' Status Message: 3 by 4",
            "Node (/model/MatMul) Op (MatMul) [ShapeInferenceError] Incompatible dimensions",
            "Type 'tensor(float16)' of input parameter (x.1) of operator (Add) in node (/a/Add) is invalid. 1/2 and float/double",
        ] {
            assert_eq!(scrub(text, None), text);
        }
    }

    #[test]
    fn a_text_is_cut_at_its_limit_between_characters() {
        assert!(scrub(&"é ".repeat(5_000), None).len() <= TEXT_LIMIT + '…'.len_utf8());
    }
}
