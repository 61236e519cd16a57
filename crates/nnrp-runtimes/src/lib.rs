//! What executes models for NNRP: each runtime behind [`nnrp_core::Runtime`], through its own C library, found where pip put it.
//!
//! Nothing is linked or downloaded at build time, and no library is opened before it is needed.

mod file;
pub mod onnx;
pub mod onnxruntime;

pub use onnx::inspect;
pub use onnxruntime::OnnxRuntime;
