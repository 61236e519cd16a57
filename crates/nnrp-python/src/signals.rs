//! Signals: Python's handlers run on its main thread, and only when that looks. So it looks while it waits, and Ctrl-C ends the wait.
use nnrp_core::stop::Look;
use pyo3::intern;
use pyo3::prelude::*;
use std::cell::{Cell, RefCell};

/// Whether handlers run on this thread; no other has to look.
#[cold]
pub(crate) fn are_heard_here(py: Python<'_>) -> bool {
    let ask = || {
        let threading = py.import(intern!(py, "threading"))?;
        threading.call_method0(intern!(py, "main_thread"))?.getattr(intern!(py, "ident"))?.eq(threading.call_method0(intern!(py, "get_ident"))?)
    };
    ask().unwrap_or(false)
}

/// Waits with the interpreter given away; once a handler has raised something, `look` tells to wait no longer.
pub(crate) fn during<T: Send>(py: Python<'_>, wait: impl FnOnce(Look<'_>) -> T + Send) -> PyResult<T> {
    let mut raised = None;
    let mut look = || {
        raised = Python::try_attach(|py| py.check_signals().err()).flatten();
        raised.is_some()
    };
    let result = py.detach(|| wait(&mut look));
    raised.map_or(Ok(result), Err)
}

thread_local! {
    /// Whether this thread is Python's and runs a request.
    static RUNS: Cell<bool> = const { Cell::new(false) };
    /// What a handler raised while this thread loaded something, or ran a request.
    static RAISED: RefCell<Option<PyErr>> = const { RefCell::new(None) };
}

/// Whether a handler has raised something since this thread began to load, which ends the wait for a process.
pub(crate) fn look() -> bool {
    // Handlers are anybody's code, and may load: nothing is borrowed meanwhile.
    if RAISED.with_borrow(Option::is_some) {
        return true;
    }
    let raised = Python::try_attach(|py| py.check_signals().err()).flatten();
    let any = raised.is_some();
    if any {
        RAISED.set(raised);
    }
    any
}

/// Loads, and raises what a handler raised where that ended it.
pub(crate) fn looking<T>(load: impl FnOnce() -> T) -> PyResult<T> {
    let result = load();
    RAISED.take().map_or(Ok(result), Err)
}

/// Runs a request on this thread of Python's, and raises what a handler raised where that ended it.
#[inline]
pub(crate) fn running<T>(run: impl FnOnce() -> T) -> PyResult<T> {
    let before = RUNS.replace(true);
    let result = run();
    RUNS.set(before);
    RAISED.take().map_or(Ok(result), Err)
}

/// Waits within such a run for what takes a while: with the interpreter given away, and handlers heard. Other threads just wait.
pub(crate) fn aside(wait: &mut (dyn FnMut(Look<'_>) + Send)) {
    if !RUNS.get() {
        return wait(&mut || false);
    }
    let _other = Python::try_attach(|py| during(py, wait).unwrap_or_else(|raised| RAISED.set(Some(raised))));
}
