//! Sessions of runtimes in Python whose runs are Rust: loaded by a function here, and handed over as the `run` of what the runtime's `load` gives.
use crate::error::OrRaise;
use crate::own::Own;
use crate::view::view;
use bytes::Bytes;
use nnrp_core::Tensor;
use nnrp_runtimes::litert::Compiled;
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyCapsule;
use std::ffi::CStr;
use std::path::PathBuf;

const NAME: &CStr = c"nnrp.session";

/// Until it is taken.
type Handed = Own<Mutex<Option<Compiled>>>;
type Named<'py> = Vec<(String, Bound<'py, PyAny>)>;

/// Compiles a LiteRT model by the C library, which must answer as the example says.
#[pyfunction]
pub(crate) fn compile_litert<'py>(
    py: Python<'py>,
    library: PathBuf,
    content: PyBackedBytes,
    signature: Option<&str>,
    threads: usize,
    inputs: Named<'py>,
    outputs: Named<'py>,
) -> PyResult<Bound<'py, PyCapsule>> {
    let read = |side: Named<'py>| side.into_iter().map(|(name, value)| view(&value, &name, None).map(|tensor| (name, tensor))).collect::<PyResult<Vec<_>>>();
    let (inputs, outputs): (Vec<(String, Tensor<'static>)>, _) = (read(inputs)?, read(outputs)?);
    let load = || Compiled::load(&library, Bytes::from_owner(content), signature, threads, [&inputs, &outputs]);
    let compiled = py.detach(load).or_raise(py)?;
    let handed: Handed = Own::new(Mutex::new(Some(compiled)));
    PyCapsule::new_with_value(py, handed, NAME)
}

/// What `run` hands over, if it is no function.
pub(crate) fn take(run: &Bound<'_, PyAny>) -> Option<Compiled> {
    let handed = run.cast::<PyCapsule>().ok()?.pointer_checked(Some(NAME)).ok()?;
    // SAFETY: a capsule of this name was made above, of this type, and lives as long as it is borrowed; the interpreter is held.
    unsafe { handed.cast::<Handed>().as_ref() }.mine()?.lock().take()
}
