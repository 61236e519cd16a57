//! What the library says when it fails, mapped to our errors in one place; never with a file path.
use super::library::Library;
use crate::onnx;
use crate::scrub::scrub;
use nnrp_core::error::excerpt;
use nnrp_core::{NnrpError, Reason};
use std::ffi::CStr;
use std::path::Path;

const INVALID_C_PARAM: i32 = -14;

/// A status that is not OK.
#[derive(Debug)]
pub(super) struct Failure {
    code: i32,
    text: String,
}

impl Failure {
    /// Reads what the library says about a status.
    ///
    /// The library keeps one last text for the process, so two runs that fail at the same moment may tell each other's.
    #[cold]
    pub(super) fn take(library: &Library, code: i32) -> Failure {
        // A call that is refused for its arguments leaves the text of another there.
        if code == INVALID_C_PARAM {
            return Failure { code, text: "the call was refused for its arguments".to_owned() };
        }
        // SAFETY: the library gives a copy that ends with NUL and takes it back once, or null.
        let text = unsafe {
            let text = (library.functions.ov_get_last_err_msg)();
            if text.is_null() {
                String::new()
            } else {
                let copy = CStr::from_ptr(text).to_string_lossy().into_owned();
                (library.functions.ov_free)(text);
                copy
            }
        };
        Failure { code, text: without_places(&text) }
    }

    /// A call that is said to have gone well, and gave nothing.
    #[cold]
    pub(super) fn nothing() -> Failure {
        Failure { code: -7, text: "the call gave nothing".to_owned() }
    }

    /// What the library said.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    fn code_name(&self) -> &'static str {
        const NAMES: [&str; 18] = [
            "OK",
            "GENERAL_ERROR",
            "NOT_IMPLEMENTED",
            "NETWORK_NOT_LOADED",
            "PARAMETER_MISMATCH",
            "NOT_FOUND",
            "OUT_OF_BOUNDS",
            "UNEXPECTED",
            "REQUEST_BUSY",
            "RESULT_NOT_READY",
            "NOT_ALLOCATED",
            "INFER_NOT_STARTED",
            "NETWORK_NOT_READ",
            "INFER_CANCELLED",
            "INVALID_C_PARAM",
            "UNKNOWN_C_ERROR",
            "NOT_IMPLEMENT_C_METHOD",
            "UNKNOW_EXCEPTION",
        ];
        self.code.checked_neg().and_then(|code| usize::try_from(code).ok()).and_then(|code| NAMES.get(code)).copied().unwrap_or("UNKNOWN")
    }

    /// The error of a file that cannot be read as a model.
    #[cold]
    pub(super) fn into_read_error(self, model: &Path, format: &str) -> NnrpError {
        if let Some(file) = self.missing_beside(model, format) {
            return self.error(Reason::FileNotFound, "a file that the model needs is not there", Some(model)).with("file", file);
        }
        if self.text.contains("No conversion rule") || self.text.contains("not supported") {
            return self.error(Reason::NotOffered, "openvino has not all of its operators", Some(model));
        }
        self.error(Reason::InvalidModel, "not a model that openvino can read", Some(model))
    }

    /// The file that the weights should be in, by its own name, when it is not there.
    fn missing_beside(&self, model: &Path, format: &str) -> Option<String> {
        let beside = match format {
            "onnx" => return onnx::weights::missing(model).map(|file| excerpt(&file)),
            "openvino_ir" if self.text.contains("bin file") => model.with_extension("bin"),
            "paddle" if self.text.contains("params") => model.with_extension("pdiparams"),
            _ => return None,
        };
        if beside.exists() { None } else { beside.file_name()?.to_str().map(excerpt) }
    }

    /// The error of a model that does not load.
    #[cold]
    pub(super) fn into_load_error(self, model: Option<&Path>) -> NnrpError {
        self.error(Reason::LoadFailed, "openvino failed to load it", model)
    }

    /// The error of a run.
    #[cold]
    pub(super) fn into_run_error(self, model: &Path) -> NnrpError {
        self.error(Reason::RunFailed, "openvino failed to run it", Some(model))
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

/// The text without the lines that only say where in the library's sources it was thrown.
fn without_places(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("Exception from "));
    lines.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_in_the_librarys_sources_are_left_out() {
        let text = "Exception from src/inference/src/cpp/core.cpp:84:\nCheck 'x' failed at src/a/b.cpp:12:\nUnable to read\n\n";
        let failure = Failure { code: -1, text: without_places(text) };
        let error = failure.into_load_error(None);
        assert_eq!(error.details()["runtime_message"], "Check 'x' failed at …:; Unable to read");
        assert_eq!(error.details()["runtime_code_name"], "GENERAL_ERROR");
    }

    #[test]
    fn a_code_that_the_header_does_not_have_is_unknown() {
        for code in [-99, 1, i32::MIN] {
            assert_eq!(Failure { code, text: String::new() }.code_name(), "UNKNOWN");
        }
    }
}
