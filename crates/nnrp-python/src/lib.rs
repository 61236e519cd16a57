//! The Python form: five classes over the one engine. What needs no speed is in Python, beside this module.
mod engine;
mod error;
mod model;
mod remote;
mod task;
mod tensor;
mod view;

use error::{OrRaise, from_json};
use pyo3::prelude::*;
use std::path::PathBuf;

/// The engine room of the package `nnrp`.
#[pymodule]
mod _nnrp {
    #[pymodule_export]
    use super::engine::Engine;
    #[pymodule_export]
    use super::inspect;
    #[pymodule_export]
    use super::model::Model;
    #[pymodule_export]
    use super::remote::{Client, Server};
    #[pymodule_export]
    use super::tensor::Tensor;
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
}

/// Tell what a model file is and needs, without loading it: format, signature, operator sets, operators, sizes.
///
/// Raises:
///     FileNotFound, InvalidModel, NotOffered.
#[pyfunction]
fn inspect<'py>(py: Python<'py>, path: PathBuf) -> PyResult<Bound<'py, PyAny>> {
    from_json(py, &py.detach(|| nnrp_runtimes::inspect(&path)).or_raise(py)?)
}
