//! Answers that come later, brought to the event loop that waits for them.
use crate::model::Model;
use crate::own::Own;
use nnrp_core::{Response, Result};
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::JoinHandle;

/// An answer on its way; dropping it cancels the request.
pub(crate) type Pending = Pin<Box<dyn Future<Output = Next> + Send>>;

/// An answer; `None` where a stream of them is over.
pub(crate) type Next = Option<Result<Response>>;

/// The one answer of a request as the only one.
pub(crate) fn one(answer: impl Future<Output = Result<Response>> + Send + 'static) -> Pending {
    Box::pin(async { Some(answer.await) })
}

struct Task {
    pending: Own<Mutex<Option<Pending>>>,
    waiting: Mutex<Option<Waiting>>,
    id: Option<Box<str>>,
    notes: Notes,
}

/// What waits for the answer: the model, and `deliver(answer, error)`, safe to call from any thread. Let go of where the interpreter is held: the task
/// itself may go on a thread of the engine, and would leave them to whoever calls the interpreter next.
type Waiting = (Py<Model>, Py<PyAny>);

/// To the courier: a task that has an answer, or that it is time to end.
type Notes = Sender<Option<Arc<Task>>>;

/// Gives the answer if it is there, or else a function that cancels; then `deliver` is called once, from another thread, unless that came first.
pub(crate) fn start<'py>(model: &Bound<'py, Model>, pending: Pending, id: Option<Box<str>>, deliver: Py<PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let notes = courier(model.py())?;
    let task = Arc::new(Task { pending: Own::new(Mutex::new(Some(pending))), waiting: Mutex::new(Some((model.clone().unbind(), deliver))), id, notes });
    if let Some(next) = task.poll() {
        return model.get().present_next(model.py(), next, task.id.as_deref());
    }
    let cancel = move |_: &Bound<'_, _>, _: Option<&Bound<'_, _>>| {
        let pending = task.pending.mine().and_then(|pending| pending.lock().take());
        let waiting = task.waiting.lock().take();
        drop((pending, waiting));
    };
    Ok(PyCFunction::new_closure(model.py(), None, None, cancel)?.into_any())
}

impl Task {
    fn poll(self: &Arc<Self>) -> Option<Next> {
        let mut slot = self.pending.mine()?.lock();
        let waker = Waker::from(self.clone());
        let Poll::Ready(next) = slot.as_mut()?.as_mut().poll(&mut Context::from_waker(&waker)) else { return None };
        *slot = None;
        Some(next)
    }

    fn deliver(&self, py: Python<'_>, next: Next) {
        let waiting = self.waiting.lock().take();
        let Some((model, deliver)) = waiting else { return };
        // An event loop that has been closed wants no answer.
        let _unheard = match model.get().present_next(py, next, self.id.as_deref()) {
            Ok(answer) => deliver.call1(py, (answer, py.None())),
            Err(error) => deliver.call1(py, (py.None(), error)),
        };
    }
}

impl Wake for Task {
    /// The engine's thread only leaves a note: the courier waits for the interpreter in its stead.
    fn wake(self: Arc<Self>) {
        let _gone = self.notes.send(Some(self.clone()));
    }
}

/// The one thread that brings answers to event loops.
type Courier = Own<(Notes, JoinHandle<()>)>;

/// Locked only with the interpreter held and without calling into it, so that no fork and no
/// other thread meets it locked.
static COURIER: Mutex<Option<Courier>> = Mutex::new(None);

/// The way to the courier, which is started once in each process and ends before its interpreter does.
fn courier(py: Python<'_>) -> PyResult<Notes> {
    if let Some((notes, _)) = COURIER.lock().as_ref().and_then(Own::mine) {
        return Ok(notes.clone());
    }
    let (notes, received) = channel::<Option<Arc<Task>>>();
    let work = move || {
        while let Ok(Some(task)) = received.recv() {
            if let Some(next) = task.poll() {
                Python::try_attach(|py| task.deliver(py, next));
            }
        }
    };
    let thread = std::thread::Builder::new().name("nnrp-asyncio".to_owned()).spawn(work)?;
    *COURIER.lock() = Some(Own::new((notes.clone(), thread)));
    let end = |args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| end_courier(args.py());
    py.import("atexit")?.call_method1("register", (PyCFunction::new_closure(py, None, None, end)?,))?;
    Ok(notes)
}

fn end_courier(py: Python<'_>) {
    let courier = COURIER.lock().take();
    if let Some((notes, thread)) = courier.and_then(Own::into_mine) {
        let _gone = notes.send(None);
        let _ = py.detach(|| thread.join());
    }
}
