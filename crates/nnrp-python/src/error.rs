//! Errors, carried to the other language.
use nnrp_core::{NnrpError, Reason};
use pyo3::intern;
use pyo3::prelude::*;
use serde_json::Value;

/// Turns the core's results into Python's.
pub(crate) trait OrRaise<T> {
    fn or_raise(self, py: Python<'_>) -> PyResult<T>;
}

impl<T> OrRaise<T> for nnrp_core::Result<T> {
    #[inline]
    fn or_raise(self, py: Python<'_>) -> PyResult<T> {
        self.map_err(|error| raise(py, &error, None))
    }
}

/// The Python exception of an error: the class of its reason, with code, message and details, and the request's id.
#[cold]
pub(crate) fn raise(py: Python<'_>, error: &NnrpError, id: Option<&str>) -> PyErr {
    let details = Value::from(error.details().clone()).to_string();
    let parts = (error.code().name(), error.reason(), error.message(), details, id);
    let made = py.import(intern!(py, "nnrp.errors")).and_then(|errors| errors.call_method1(intern!(py, "from_core"), parts));
    made.map_or_else(|failure| failure, PyErr::from_value)
}

/// An error that has no fields.
#[cold]
pub(crate) fn refuse(py: Python<'_>, reason: Reason, message: impl Into<String>) -> PyErr {
    raise(py, &NnrpError::new(reason, message), None)
}
