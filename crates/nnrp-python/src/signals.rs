//! Signals: Python's handlers run on its main thread, and only when that looks. So it looks while it waits, and Ctrl-C ends the wait.
use nnrp_core::stop::Look;
use pyo3::intern;
use pyo3::prelude::*;
use std::cell::RefCell;

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
    /// What a handler raised while this thread loaded something.
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
