//! What executes models for NNRP: each runtime behind [`nnrp_core::Runtime`], through its own C library, found where pip put it.
//!
//! Nothing is linked or downloaded at build time, and no library is opened before it is needed.

mod beside;
pub mod c;
mod digest;
mod foreign;
mod format;
pub mod isolated;
pub mod litert;
pub mod onnx;
pub mod onnxruntime;
pub mod openvino;
mod options;
mod package;
mod placing;
pub mod plugin;
mod prompt;
mod schema;
mod scrub;

pub use beside::check as check_beside;
pub use digest::digest;
pub use format::{OWN_RUNTIMES, format, own_runtime, own_runtime_of};
pub use onnx::inspect;
pub use onnxruntime::OnnxRuntime;
pub use openvino::OpenVino;
pub use package::folder;
pub use prompt::prompt;
pub use schema::Schema;

use nnrp_core::runtime::Runtimes;
use nnrp_core::{NnrpError, Reason, Result};
use std::path::PathBuf;
use std::sync::Arc;

/// The names of the runtimes here, the default first.
pub const NAMES: [&str; 2] = ["onnxruntime", "openvino"];

/// The names of all runtimes that come with NNRP, here or in its package for Python: no plug-in takes one.
pub const COME_WITH_NNRP: [&str; 19] = [
    "callable",
    "coreml",
    "executorch",
    "iree",
    "jax",
    "litert",
    "llama-cpp",
    "mnn",
    "ncnn",
    "onnxruntime",
    "openvino",
    "reference",
    "remote",
    "tensorflow",
    "tensorrt",
    "torch",
    "tract",
    "triton-python",
    "tvm",
];

/// Every runtime here, each with its library where `library` says that it lies, or where it is looked for; none is opened.
pub fn runtimes(mut library: impl FnMut(&str) -> Option<PathBuf>) -> Runtimes {
    let mut runtimes = Runtimes::default();
    runtimes.add(Arc::new(OnnxRuntime::new(library("onnxruntime"))));
    runtimes.add(Arc::new(OpenVino::new(library("openvino"))));
    runtimes.begin_with(own_runtime);
    runtimes.verify_by(digest::check);
    runtimes.name_dimensions_by(onnx::named_dimensions);
    runtimes
}

/// Opens a runtime's library where it is said to lie, and gives its version.
///
/// # Errors
/// `RUNTIME_NOT_INSTALLED`; `UNKNOWN_OPTION` for a runtime that is not here.
pub fn open(runtime: &str, library: PathBuf) -> Result<&'static str> {
    match runtime {
        "onnxruntime" => OnnxRuntime::new(Some(library)).version(),
        "openvino" => OpenVino::new(Some(library)).version(),
        _ => Err(NnrpError::new(Reason::UnknownOption, format!("runtime '{}': expected one of {NAMES:?}", nnrp_core::error::excerpt(runtime)))),
    }
}
