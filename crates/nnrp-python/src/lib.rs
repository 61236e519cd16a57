//! The Python form: five classes over the one engine. The package `nnrp` dresses them: names, defaults, docstrings, and what needs no speed.
mod alive;
mod engine;
mod error;
mod model;
mod native;
mod own;
mod remote;
mod runtime;
mod signals;
mod stream;
mod task;
mod tensor;
mod view;

use error::OrRaise;
use nnrp_runtimes::Schema;
use pyo3::prelude::*;
use std::path::PathBuf;

/// The engine room of the package `nnrp`.
#[pymodule]
mod _nnrp {
    #[pymodule_export]
    use super::alive::wait_for_threads;
    #[pymodule_export]
    use super::engine::Engine;
    #[pymodule_export]
    use super::model::Model;
    #[pymodule_export]
    use super::native::compile_litert;
    #[pymodule_export]
    use super::own::forked;
    #[pymodule_export]
    use super::remote::{Client, Server};
    #[pymodule_export]
    use super::tensor::Tensor;
    #[pymodule_export]
    use super::{check_beside, check_options, digest, format, in_turn, inspect, own_runtime};
    #[pymodule_export]
    const OWN_RUNTIMES: [(&str, &str); nnrp_runtimes::OWN_RUNTIMES.len()] = nnrp_runtimes::OWN_RUNTIMES;
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
}

/// What a model file is and needs, as one JSON document.
#[pyfunction]
fn inspect(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    py.detach(|| nnrp_runtimes::inspect(&path)).map(|told| told.to_string()).or_raise(py)
}

/// The format of a model's file or folder.
#[pyfunction]
fn format(py: Python<'_>, path: PathBuf) -> PyResult<&'static str> {
    py.detach(|| nnrp_runtimes::format(&path)).or_raise(py)
}

/// Refuses a model of that format whose files lie elsewhere than with it.
#[pyfunction]
fn check_beside(py: Python<'_>, path: PathBuf, format: &str) -> PyResult<()> {
    py.detach(|| nnrp_runtimes::check_beside(&path, format)).or_raise(py)
}

/// The SHA-256 digest of a file, or of a folder's list.
#[pyfunction]
fn digest(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    Ok(py.detach(|| nnrp_runtimes::digest(&path))?)
}

/// The runtime that is asked first for a file.
#[pyfunction]
fn own_runtime(py: Python<'_>, path: PathBuf) -> Option<&'static str> {
    py.detach(|| nnrp_runtimes::own_runtime(&path))
}

/// The runtimes of those names, in the order in which they are asked for a file of the format.
#[pyfunction]
fn in_turn(format: &str, mut runtimes: Vec<String>) -> Vec<String> {
    nnrp_core::choose::in_turn(&mut runtimes, nnrp_runtimes::own_runtime_of(format), String::as_str);
    runtimes
}

/// Refuses options that do not fit a runtime's JSON Schema.
#[pyfunction]
fn check_options(py: Python<'_>, runtime: &str, schema: &str, options: &str) -> PyResult<()> {
    Schema::check_texts(runtime, schema, options).or_raise(py)
}
