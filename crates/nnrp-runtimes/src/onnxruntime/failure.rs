//! What the library says when it fails, mapped to our errors in one place; never with a file path.
use super::library::Library;
use crate::onnx;
use crate::scrub::scrub;
use nnrp_core::error::excerpt;
use nnrp_core::{NnrpError, Reason};
use ort_sys::{OrtStatus, OrtStatusPtr};
use std::ffi::CStr;
use std::path::Path;

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
        let missing = model.and_then(onnx::weights::missing);
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
