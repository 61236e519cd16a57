//! Answers that come later, brought to the event loop that waits for them.
use crate::model::Model;
use nnrp_core::{Response, Result};
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::PyCFunction;
use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};

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
    /// The engine's thread only leaves a note: one thread of ours waits for the interpreter in its stead.
    fn wake(self: Arc<Self>) {
        static NOTES: OnceLock<Sender<Arc<Task>>> = OnceLock::new();
        let notes = NOTES.get_or_init(|| {
            let (sender, receiver) = channel::<Arc<Task>>();
            let work = move || {
                for task in receiver {
                    if let Some(result) = task.poll() {
                        Python::try_attach(|py| task.deliver(py, result));
                    }
                }
            };
            // Without the thread nothing is delivered, which a caller meets as its own timeout.
            let _ = std::thread::Builder::new().name("nnrp-asyncio".to_owned()).spawn(work);
            sender
        });
        let _ = notes.send(self);
    }
}
