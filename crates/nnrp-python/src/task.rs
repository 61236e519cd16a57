//! Answers that come later, brought to the event loop that waits for them.
use crate::model::Model;
use nnrp_core::{Response, Result};
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCFunction, PyDict, PyTuple};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::JoinHandle;

/// An answer on its way; dropping it cancels the request.
pub(crate) type Pending = Pin<Box<dyn Future<Output = Result<Response>> + Send>>;

struct Task {
    pending: Mutex<Option<Pending>>,
    model: Py<Model>,
    id: Option<Box<str>>,
    /// `deliver(answer, error)`, safe to call from any thread.
    deliver: Py<PyAny>,
}

/// Gives the answer if it is there, or else a function that cancels; then `deliver` is called once, from another thread.
pub(crate) fn start<'py>(model: &Bound<'py, Model>, pending: Pending, id: Option<Box<str>>, deliver: Py<PyAny>) -> PyResult<Bound<'py, PyAny>> {
    start_courier(model.py())?;
    let task = Arc::new(Task { pending: Mutex::new(Some(pending)), model: model.clone().unbind(), id, deliver });
    if let Some(result) = task.poll() {
        return Ok(model.get().present(model.py(), result, task.id.as_deref())?.into_any());
    }
    let cancel = move |_: &Bound<'_, _>, _: Option<&Bound<'_, _>>| {
        let pending = task.pending.lock().take();
        drop(pending);
    };
    Ok(PyCFunction::new_closure(model.py(), None, None, cancel)?.into_any())
}

impl Task {
    fn poll(self: &Arc<Self>) -> Option<Result<Response>> {
        let mut slot = self.pending.lock();
        let waker = Waker::from(self.clone());
        let Poll::Ready(result) = slot.as_mut()?.as_mut().poll(&mut Context::from_waker(&waker)) else { return None };
        *slot = None;
        Some(result)
    }

    fn deliver(&self, py: Python<'_>, result: Result<Response>) {
        // An event loop that has been closed wants no answer.
        let _unheard = match self.model.get().present(py, result, self.id.as_deref()) {
            Ok(answer) => self.deliver.call1(py, (answer, py.None())),
            Err(error) => self.deliver.call1(py, (py.None(), error)),
        };
    }
}

impl Wake for Task {
    /// The engine's thread only leaves a note: the courier waits for the interpreter in its stead.
    fn wake(self: Arc<Self>) {
        if let Some(courier) = &*COURIER.lock() {
            let _ = courier.notes.send(self);
        }
    }
}

/// The one thread that brings answers to event loops.
struct Courier {
    notes: Sender<Arc<Task>>,
    thread: JoinHandle<()>,
}

static COURIER: Mutex<Option<Courier>> = Mutex::new(None);

/// Starts the courier, once; it ends before the interpreter does, which no thread of ours may be inside of by then.
fn start_courier(py: Python<'_>) -> PyResult<()> {
    static STARTED: PyOnceLock<()> = PyOnceLock::new();
    STARTED.get_or_try_init(py, || -> PyResult<()> {
        let (notes, received) = channel::<Arc<Task>>();
        let work = move || {
            for task in received {
                if let Some(result) = task.poll() {
                    Python::try_attach(|py| task.deliver(py, result));
                }
            }
        };
        let thread = std::thread::Builder::new().name("nnrp-asyncio".to_owned()).spawn(work)?;
        *COURIER.lock() = Some(Courier { notes, thread });
        let end = |args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| args.py().detach(end_courier);
        py.import("atexit")?.call_method1("register", (PyCFunction::new_closure(py, None, None, end)?,))?;
        Ok(())
    })?;
    Ok(())
}

fn end_courier() {
    let courier = COURIER.lock().take();
    if let Some(Courier { notes, thread }) = courier {
        drop(notes);
        let _ = thread.join();
    }
}
