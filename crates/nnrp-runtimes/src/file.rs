//! The first look at a model's file, before any runtime sees it.
use nnrp_core::{NnrpError, Reason, Result};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;

/// The file format by the file's first bytes: `onnx`, or `ort` for ONNX Runtime's own.
///
/// # Errors
/// `FILE_NOT_FOUND`; `INVALID_MODEL` when it is no regular file or is empty; `LOAD_FAILED` when it cannot be read.
pub(crate) fn format(path: &Path) -> Result<&'static str> {
    let found = fs::metadata(path).map_err(|error| refused(&error))?;
    if !found.is_file() {
        let got = if found.is_dir() { "a folder" } else { "something else" };
        return Err(NnrpError::new(Reason::InvalidModel, format!("model file: expected a file, got {got}")).with("got", got));
    }
    if found.len() == 0 {
        return Err(NnrpError::new(Reason::InvalidModel, "model file: expected a model, got an empty file").with("byte_size", 0));
    }
    let mut head = Vec::with_capacity(8);
    File::open(path).and_then(|file| file.take(8).read_to_end(&mut head)).map_err(|error| refused(&error))?;
    Ok(if head.get(4..8) == Some(b"ORTM") { "ort" } else { "onnx" })
}

/// The error of a file that cannot be opened or read; names no path.
pub(crate) fn refused(error: &std::io::Error) -> NnrpError {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => NnrpError::new(Reason::FileNotFound, "model file: no such file"),
        kind => NnrpError::new(Reason::LoadFailed, format!("model file: cannot be read: {kind}")).with("kind", kind.to_string()),
    }
}
