//! Runtimes written in Python: what crosses once a batch. What happens once a model, `nnrp.runtimes.host` does.
use crate::alive;
use crate::native;
use crate::tensor::{SMALL, present};
use crate::view::{array, memory, references, view};
use nnrp_core::parameters::to_json;
use nnrp_core::runtime::kept_name;
use nnrp_core::tensor::{AlignedBuf, Data};
use nnrp_core::{
    Control, ModelSpec, NnrpError, Outputs, Reason, Result, Runtime, RuntimeInfo, Session, SessionInfo, Sink, Tensor, TensorSpec, Threads, Verb, check_output,
    wrong_output,
};
use pyo3::exceptions::PyKeyError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyList, PyMapping, PyString, PyTuple};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

/// A Python object with the verbs of `nnrp.runtimes.Runtime`.
pub(crate) struct PyRuntime {
    name: &'static str,
    runtime: Py<PyAny>,
}

impl PyRuntime {
    pub(crate) fn new(name: &str, runtime: Py<PyAny>) -> Self {
        PyRuntime { name: kept_name(name), runtime }
    }
}

/// Does something with Python, and turns what it raises into the error of a runtime.
pub(crate) fn with_python<T>(runtime: &str, reason: Reason, work: impl FnOnce(Python<'_>) -> PyResult<Result<T>>) -> Result<T> {
    let ended = || Err(NnrpError::new(Reason::Draining, "the Python interpreter is about to end"));
    Python::try_attach(|py| staying(|| work(py).unwrap_or_else(|error| Err(fault(py, runtime, reason, error))))).unwrap_or_else(ended)
}

/// Calls into Python, which until 3.14 ends a thread that wants the interpreter back while that ends, by unwinding it: through frames that would give
/// back an interpreter that they do not hold, which takes the process down. Such a thread stays where it is instead, as 3.14 has it, until the process ends.
fn staying<T>(work: impl FnOnce() -> T) -> T {
    struct Stay;
    impl Drop for Stay {
        fn drop(&mut self) {
            while !std::thread::panicking() {
                std::thread::park();
            }
        }
    }
    let stay = Stay;
    let result = work();
    std::mem::forget(stay);
    result
}

/// Calls a function for a long time: nothing of ours lies between it and the frame where its thread stays.
fn call<'py>(function: &Bound<'py, PyAny>, args: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
    type Call = unsafe extern "C-unwind" fn(*mut pyo3::ffi::PyObject, *mut pyo3::ffi::PyObject) -> *mut pyo3::ffi::PyObject;
    // SAFETY: the same function and the same ABI, of which it is known that it may unwind.
    let call: Call = unsafe { std::mem::transmute(pyo3::ffi::PyObject_CallObject as unsafe extern "C" fn(_, _) -> _) };
    // SAFETY: the interpreter is held and both objects live; what comes back is ours, or NULL with an exception set.
    staying(|| unsafe { Bound::from_owned_ptr_or_err(function.py(), call(function.as_ptr(), args.as_ptr())) })
}

#[cold]
fn fault(py: Python<'_>, runtime: &str, reason: Reason, error: PyErr) -> NnrpError {
    let parts = (runtime, reason.name(), error.into_value(py));
    let told = host(py, "fault", parts).and_then(|told| told.extract::<(String, bool)>());
    let (told, again) = told.unwrap_or_default();
    if again {
        // SAFETY: it only notes that a signal came, which Python looks at when it runs next.
        unsafe { pyo3::ffi::PyErr_SetInterrupt() };
    }
    NnrpError::from_json(&told).unwrap_or_else(|| NnrpError::new(reason, format!("runtime {runtime}: failed, and so did telling how")))
}

fn host<'py>(py: Python<'py>, verb: &str, parts: impl pyo3::call::PyCallArgs<'py>) -> PyResult<Bound<'py, PyAny>> {
    py.import(intern!(py, "nnrp.runtimes.host"))?.call_method1(verb, parts)
}

impl Runtime for PyRuntime {
    fn name(&self) -> &'static str {
        self.name
    }

    fn info(&self) -> RuntimeInfo {
        let told = with_python(self.name, Reason::LoadFailed, |py| Ok(Ok(host(py, "info", (&self.runtime,))?.extract::<String>()?)));
        RuntimeInfo::from_json(self.name, &told.unwrap_or_default())
    }

    fn look(&self, spec: &ModelSpec) -> Result<()> {
        with_python(self.name, Reason::LoadFailed, |py| host(py, "look", (&self.runtime, &spec.path, !spec.runtime.0.is_empty())).map(|_| Ok(())))
    }

    fn load(&self, spec: &ModelSpec) -> Result<Box<dyn Session>> {
        let spec = ModelSpec { digests: BTreeMap::new(), ..spec.clone() };
        let spec = serde_json::to_string(&spec).map_err(|error| NnrpError::new(Reason::InvalidOption, format!("model description: {error}")))?;
        with_python(self.name, Reason::LoadFailed, |py| {
            let (verbs, run, idle, told, workers): (Py<PyAny>, Py<PyAny>, Py<PyAny>, String, Option<usize>) =
                host(py, "load", (&self.runtime, spec))?.extract()?;
            let native = native::take(run.bind(py));
            let threads = if native.is_some() { Threads::Any } else { Threads::Own };
            let info = match SessionInfo::from_json(self.name, threads, &told) {
                Ok(info) => info,
                Err(error) => return verbs.call_method0(py, "close").map(|_| Err(error)),
            };
            if let Some(native) = native {
                return Ok(native.session(info, workers.unwrap_or(1)));
            }
            let names = |specs: &[TensorSpec]| specs.iter().map(|spec| PyString::intern(py, &spec.name).unbind()).collect::<Vec<_>>();
            let (inputs, outputs) = (names(&info.signature.inputs), names(&info.signature.outputs));
            let all = PyTuple::new(py, &outputs)?.unbind();
            Ok(Ok(Box::new(PySession { verbs, run, idle, info, workers, inputs, outputs, all }) as Box<dyn Session>))
        })
    }
}

struct PySession {
    /// What it does beside answering requests, `nnrp.runtimes.host.Verbs`.
    verbs: Py<PyAny>,
    /// The verb that answers a request: `run`, or `stream` where the session has it.
    run: Py<PyAny>,
    /// The control of a run that nobody can stop.
    idle: Py<PyAny>,
    info: SessionInfo,
    workers: Option<usize>,
    inputs: Vec<Py<PyString>>,
    outputs: Vec<Py<PyString>>,
    /// The names of all outputs.
    all: Py<PyTuple>,
}

impl Session for PySession {
    fn info(&self) -> &SessionInfo {
        &self.info
    }

    fn run(&self, inputs: &[Option<Tensor<'_>>], outputs: &[usize], control: Control<'_>) -> Result<Outputs> {
        with_python(self.info.runtime, Reason::RunFailed, |py| {
            let Some(stop) = control.stop.filter(|_| self.info.cancellable) else {
                let idle = self.idle.bind(py);
                let plain = control.id.is_none() && control.parameters.is_empty();
                let told = if plain { idle.clone() } else { idle.get_type().call1((py.None(), py.None(), control.id, given(control)))? };
                return self.read(&self.call(py, inputs, outputs, &told)?, outputs);
            };
            let (flag, control) = self.control(py, control)?;
            let result = stop.during(move || flag.store(true, Relaxed), || self.call(py, inputs, outputs, &control))?;
            self.read(&result, outputs)
        })
    }

    fn stream(&self, inputs: &[Option<Tensor<'_>>], outputs: &[usize], control: Control<'_>, sink: &mut Sink<'_>) -> Result<()> {
        let Some(stop) = control.stop.filter(|_| self.info.streams) else { return sink(self.run(inputs, outputs, control)?) };
        with_python(self.info.runtime, Reason::RunFailed, |py| {
            let (flag, control) = self.control(py, control)?;
            stop.during(
                move || flag.store(true, Relaxed),
                || {
                    let answers = self.call(py, inputs, outputs, &control)?;
                    let ended = self.pass_on(&answers, outputs, sink);
                    host(py, "leave", (answers,))?;
                    ended
                },
            )
        })
    }

    /// Attached once, so that the thread keeps its Python state, and detached until there is something to run.
    fn work(&self, turns: &mut (dyn FnMut() + Send)) {
        alive::count();
        Python::try_attach(|py| py.detach(turns));
    }

    fn wait(&self, until: &mut (dyn FnMut() + Send)) {
        Python::try_attach(|py| py.detach(until));
    }

    fn workers(&self) -> Option<usize> {
        self.workers
    }

    fn tend(&self, verb: Verb<'_>) -> Result<Value> {
        let option = if let Verb::SetOption(name, value) = verb { Some((name, value.to_string())) } else { None };
        let told = with_python(self.info.runtime, Reason::RunFailed, |py| Ok(Ok(self.verbs.call1(py, (verb.name(), option))?.extract::<String>(py)?)))?;
        Ok(serde_json::from_str(&told).unwrap_or_default())
    }
}

impl Drop for PySession {
    fn drop(&mut self) {
        let _unheard = with_python(self.info.runtime, Reason::RunFailed, |py| {
            // The last reference may go while an exception is on its way, which is not this one's to see.
            let raised = PyErr::take(py);
            let closed = self.verbs.call_method0(py, "close");
            raised.into_iter().for_each(|raised| raised.restore(py));
            closed.map(|_| Ok(()))
        });
    }
}

impl PySession {
    /// What a run that can be stopped is given, and the flag to stop it by.
    fn control<'py>(&self, py: Python<'py>, control: Control<'_>) -> PyResult<(Arc<AtomicBool>, Bound<'py, PyAny>)> {
        let flag = Arc::new(AtomicBool::new(false));
        let stopped = flag.clone();
        let stopped = PyCFunction::new_closure(py, None, None, move |_, _| stopped.load(Relaxed))?;
        let left = control.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()).as_secs_f64());
        Ok((flag, self.idle.bind(py).get_type().call1((stopped, left, control.id, given(control)))?))
    }

    fn pass_on(&self, answers: &Bound<'_, PyAny>, outputs: &[usize], sink: &mut Sink<'_>) -> PyResult<Result<()>> {
        for answer in answers.try_iter()? {
            if let Err(error) = self.read(&answer?, outputs)?.and_then(&mut *sink) {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    fn call<'py>(&self, py: Python<'py>, inputs: &[Option<Tensor<'_>>], outputs: &[usize], control: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let given = PyDict::new(py);
        for (name, tensor) in self.inputs.iter().zip(inputs) {
            if let Some(tensor) = tensor {
                given.set_item(name, present(py, tensor, false)?)?;
            }
        }
        if outputs.iter().copied().eq(0..self.outputs.len()) {
            return call(self.run.bind(py), &(given, &self.all, control).into_pyobject(py)?);
        }
        let wanted = PyTuple::new(py, outputs.iter().map(|&index| &self.outputs[index]))?;
        call(self.run.bind(py), &(given, wanted, control).into_pyobject(py)?)
    }

    /// The outputs of a run out of a mapping by name, a list or tuple in the order asked for, or the one value that was asked for.
    fn read(&self, result: &Bound<'_, PyAny>, outputs: &[usize]) -> PyResult<Result<Outputs>> {
        let listed = result.is_instance_of::<PyList>() || result.is_instance_of::<PyTuple>();
        // Arrays first: to ask whether something else is a mapping costs a third of a small run.
        let named = !listed && memory(result.as_borrowed()).is_none() && result.cast::<PyMapping>().is_ok();
        let got = if listed { result.len()? } else { 1 };
        if !named && got != outputs.len() {
            let message = format!("expected {} outputs, got {got} of type {}", outputs.len(), result.get_type().name()?);
            return Ok(Err(wrong_output(self.info.runtime, &NnrpError::new(Reason::RunFailed, message))));
        }
        let alone = references(result) == 1;
        let one = |(place, &index): (usize, &usize)| {
            let value = match (named, listed) {
                (true, _) => result.get_item(&self.outputs[index]),
                (_, true) => result.get_item(place),
                _ => Ok(result.clone()),
            };
            let spec = &self.info.signature.outputs[index];
            // One reference is ours; what has the other has no other owner itself.
            let tensor = value.and_then(|value| own(&value, spec, alone && references(&value) == 2));
            let tensor = tensor.map_err(|error| self.misfit(result.py(), spec, error))?;
            check_output(self.info.runtime, spec, &tensor).map(|()| tensor)
        };
        Ok(outputs.iter().enumerate().map(one).collect())
    }

    #[cold]
    fn misfit(&self, py: Python<'_>, spec: &TensorSpec, error: PyErr) -> NnrpError {
        let said = if error.is_instance_of::<PyKeyError>(py) {
            format!("output '{}': expected {} {:?}, got none", spec.name, spec.datatype.name(), spec.wire_shape().as_slice())
        } else {
            let fault = fault(py, self.info.runtime, Reason::RunFailed, error);
            // Which runtime it is, is said once.
            let said = fault.message().strip_prefix(&format!("runtime {}: ", self.info.runtime)).unwrap_or(fault.message());
            said.replacen("input '", "output '", 1)
        };
        wrong_output(self.info.runtime, &NnrpError::new(Reason::RunFailed, said).with("output", &*spec.name))
    }
}

/// The request's parameters as one JSON object, if it has any.
fn given(control: Control<'_>) -> Option<String> {
    (!control.parameters.is_empty()).then(|| to_json(control.parameters).to_string())
}

/// An output's elements, which nobody writes to any more: taken where they lie when nobody else has them, or else copied.
fn own(value: &Bound<'_, PyAny>, spec: &TensorSpec, alone: bool) -> PyResult<Tensor<'static>> {
    // An array that is kept is given back by another thread, mostly, which has this one do it later.
    if let Some(small) = array(value.as_borrowed()).filter(|tensor| tensor.bytes().len() <= SMALL) {
        return Ok(small.into_owned());
    }
    let place = memory(value.as_borrowed());
    let tensor = view(value, &spec.name, Some(spec.datatype))?;
    let taken = place.is_some_and(|(data, owned)| if data == tensor.bytes().as_ptr() { alone && owned } else { true });
    if taken { Ok(tensor) } else { Ok(Tensor { data: Data::Shared(AlignedBuf::copy_of(tensor.bytes()).into_bytes()), ..tensor }) }
}
