//! The Python form: five classes over the one engine. The package `nnrp` dresses them: names, defaults, docstrings, and what needs no speed.
mod engine;
mod error;
mod model;
mod remote;
mod task;
mod tensor;
mod view;

use error::OrRaise;
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

/// What a model file is and needs, as one JSON document.
#[pyfunction]
fn inspect(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    py.detach(|| nnrp_runtimes::inspect(&path)).map(|told| told.to_string()).or_raise(py)
}
