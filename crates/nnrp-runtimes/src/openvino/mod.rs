//! OpenVINO, through the C library inside its Python wheel.
mod device;
mod effective;
mod failure;
mod library;
mod named;
mod options;
mod request;
mod room;
mod session;
mod signature;
mod table;
mod value;

#[cfg(test)]
pub(crate) use library::PACKAGE;
pub use library::VARIABLE;

use crate::format;
use library::Library;
use nnrp_core::{ModelSpec, Result, Runtime, RuntimeInfo, Session};
use std::path::PathBuf;

const NAME: &str = "openvino";
const FORMATS: [&str; 6] = ["onnx", "openvino_ir", "tflite", "saved_model", "tensorflow", "paddle"];

/// OpenVINO. The library is opened by the first call that needs it, once a process.
#[derive(Clone, Debug, Default)]
pub struct OpenVino {
    hint: Option<PathBuf>,
}

impl OpenVino {
    /// OpenVINO from the C library at `hint`, a file or a folder; without one, where the variable says, in the active virtual environment,
    /// beside our own package, or wherever the system's loader looks.
    pub fn new(hint: Option<PathBuf>) -> Self {
        OpenVino { hint }
    }

    /// Opens the library now and gives its version.
    ///
    /// # Errors
    /// `RUNTIME_NOT_INSTALLED`, saying which version was found and what is needed.
    pub fn version(&self) -> Result<&'static str> {
        Ok(&self.library()?.version)
    }

    fn library(&self) -> Result<&'static Library> {
        Library::open(self.hint.as_deref())
    }
}

impl Runtime for OpenVino {
    fn name(&self) -> &'static str {
        NAME
    }

    /// Opens the library; where there is none, the version and the devices are empty.
    fn info(&self) -> RuntimeInfo {
        let library = self.library().ok();
        RuntimeInfo {
            name: NAME,
            version: library.map(|library| library.version.clone()).unwrap_or_default(),
            formats: FORMATS.map(str::to_owned).to_vec(),
            devices: library.and_then(|library| library.devices().ok()).unwrap_or_default(),
            options: options::schema(library),
        }
    }

    fn look(&self, spec: &ModelSpec) -> Result<()> {
        library::PACKAGE.find(self.hint.as_deref())?;
        format::expect(&spec.path, NAME, &FORMATS).map(drop)
    }

    fn load(&self, spec: &ModelSpec) -> Result<Box<dyn Session>> {
        Ok(Box::new(session::OpenVinoSession::load(self.library()?, spec)?))
    }
}
