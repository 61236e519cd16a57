//! Streams of answers, pulled one by one.
use crate::model::Model;
use crate::own::Own;
use crate::task;
use nnrp_core::{Answers, SharedAnswers};
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// How long a thread waits before it looks for signals.
const LOOK: Duration = Duration::from_millis(200);

/// The model of a stream. PyO3 ends a closure without saying that the interpreter is held, and would leave what it has to whoever calls next.
struct Owner(Option<Py<Model>>);

impl Drop for Owner {
    fn drop(&mut self) {
        Python::try_attach(|_| drop(self.0.take()));
    }
}

/// A function `pull(close, deliver)`: closes the stream, or gives the next answer, None at the end; with `deliver`, as [`task::start`] says.
pub(crate) fn puller<'py>(model: &Bound<'py, Model>, answers: Answers, id: Option<Box<str>>) -> PyResult<Bound<'py, PyAny>> {
    let (answers, owner) = (Arc::new(Own::new(SharedAnswers::from(answers))), Owner(Some(model.clone().unbind())));
    let pull = move |args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
        let (py, here) = (args.py(), answers.get(args.py())?);
        let Some(model) = owner.0.as_ref().map(|model| model.bind(py)) else { return Ok(py.None()) };
        let (close, deliver): (bool, Option<Py<PyAny>>) = args.extract()?;
        if close {
            here.close();
            return Ok(py.None());
        }
        if let Some(deliver) = deliver {
            let answers = answers.clone();
            let next = poll_fn(move |context| answers.mine().map_or(Poll::Ready(None), |here| here.poll_next(context)));
            return task::start(model, Box::pin(next), id.clone(), deliver).map(Bound::unbind);
        }
        let mut next = here.try_next();
        loop {
            if let Poll::Ready(next) = next {
                return model.get().present_next(py, next, id.as_deref()).map(Bound::unbind);
            }
            next = py.detach(|| here.wait_next(LOOK));
            py.check_signals()?;
        }
    };
    Ok(PyCFunction::new_closure(model.py(), None, None, pull)?.into_any())
}
