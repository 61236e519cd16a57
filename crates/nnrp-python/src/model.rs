//! One model, in this process or behind a server: the same class.
use crate::engine::Engine;
use crate::error::{OrRaise, raise, refuse};
use crate::own::Own;
use crate::remote::Client;
use crate::signals;
use crate::stream;
use crate::task;
use crate::tensor::present;
use crate::view::{array, view};
use nnrp_core::error::excerpt;
use nnrp_core::model::{Name, TensorSpec};
use nnrp_core::{Concurrency, Datatype, Engine as Core, Input, Inputs, Loaded, Parameter, Reason, Request, Response, Result, Shape, Threads};
use nnrp_wire::Told;
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use std::borrow::Cow;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// A session whose runs take less on average keeps the interpreter: with another Python thread busy, getting it back takes milliseconds
/// (measured: p90 4 µs kept, 5.3 ms given away), and a run this short holds nobody up.
const KEEP: Duration = Duration::from_micros(50);
/// A run on Python's main thread that is expected to take longer is another thread's, so that signals are heard meanwhile; the way there and back costs 0.1 ms.
const LONG: Duration = Duration::from_millis(5);
/// Larger inputs than this give the interpreter away in any case.
const KEEP_BYTES: usize = 64 << 10;

enum Home {
    /// The version is the engine's to keep: unloaded, it is freed.
    Here(Arc<Core>, Weak<Loaded>),
    /// As `Here`, and Python runs it: with the interpreter kept, since it is needed there and given away where one has to wait.
    HerePython(Arc<Core>, Weak<Loaded>),
    There(Arc<nnrp_wire::Client>, Arc<Told>),
}

/// An input or output, with its name as Python compares it: by identity first.
struct Port {
    name: Py<PyString>,
    text: Name,
    datatype: Datatype,
}

#[pyclass(frozen, subclass, weakref, module = "nnrp._nnrp")]
pub(crate) struct Model {
    home: Own<Home>,
    #[pyo3(get)]
    name: String,
    #[pyo3(get)]
    version: String,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    /// Where no version was named: the one that answered last.
    answered: Mutex<Option<Name>>,
}

type Specs = Vec<(String, String, Vec<i64>)>;

#[pymethods]
impl Model {
    #[new]
    fn new(home: &Bound<'_, PyAny>, name: &str, version: &str, inputs: Specs, outputs: Specs) -> PyResult<Self> {
        let py = home.py();
        let port = |name: Name, datatype| Port { name: PyString::intern(py, &name).unbind(), text: name, datatype };
        if let Ok(engine) = home.cast::<Engine>() {
            let engine = engine.get().0.get(py)?;
            let loaded = engine.model(name, version).or_raise(py)?;
            let ports = |specs: &[TensorSpec]| specs.iter().map(|spec| port(spec.name.clone(), spec.datatype)).collect();
            let (inputs, outputs) = (ports(&loaded.signature().inputs), ports(&loaded.signature().outputs));
            let info = loaded.session.info();
            let home = Own::new(match info.threads {
                // What another process runs needs no interpreter here.
                Threads::Own if info.settings.contains_key("isolation") => Home::Here(engine.clone(), Arc::downgrade(&loaded)),
                Threads::Any => Home::Here(engine.clone(), Arc::downgrade(&loaded)),
                Threads::Own => Home::HerePython(engine.clone(), Arc::downgrade(&loaded)),
            });
            return Ok(Model { home, name: name.into(), version: loaded.version.to_string(), inputs, outputs, answered: Mutex::default() });
        }
        let client = home.cast::<Client>()?.get().0.get(py)?.clone();
        let [inputs, outputs] = [inputs, outputs].map(|specs| specs.into_iter().map(spec).collect::<Result<Vec<_>>>());
        let (inputs, outputs) = (inputs.or_raise(py)?, outputs.or_raise(py)?);
        let [takes, gives] = [&inputs, &outputs].map(|specs| specs.iter().map(|spec| port(spec.name.clone(), spec.datatype)).collect());
        let home = Own::new(Home::There(client, Arc::new(Told::new(name, outputs))));
        Ok(Model { home, name: name.into(), version: version.into(), inputs: takes, outputs: gives, answered: Mutex::default() })
    }

    #[pyo3(signature = (*args, **kwargs))]
    fn __call__<'py>(&self, py: Python<'py>, args: &Bound<'py, PyTuple>, kwargs: Option<&Bound<'py, PyDict>>) -> PyResult<Bound<'py, PyDict>> {
        if let (Home::Here(engine, loaded), None, Some(inputs)) = (self.home.get(py)?, kwargs, self.arrays(args)) {
            let request = self.request(inputs);
            let pace = pace(py, loaded, &request);
            if pace != Pace::Long {
                return self.present(py, infer(py, engine, pace, request)?, None);
            }
        }
        let mut inputs = Inputs::new();
        if args.len() > self.inputs.len() {
            let message = format!("model '{}': expected at most {} inputs, got {}", self.name, self.inputs.len(), args.len());
            return Err(refuse(py, Reason::UnknownInput, message));
        }
        for (port, value) in self.inputs.iter().zip(args.iter()).filter(|(_, value)| !value.is_none()) {
            inputs.push(Input { name: Cow::Borrowed(&port.text), tensor: view(&value, &port.text, Some(port.datatype))? });
        }
        if let Some(named) = kwargs {
            self.read(named, &mut inputs)?;
        }
        self.answer(py, self.request(inputs))
    }

    /// Answers one request; with `deliver`, as [`task::start`] says.
    #[allow(clippy::too_many_arguments, reason = "a request")]
    fn _infer<'py>(
        slf: &Bound<'py, Self>,
        inputs_by_name: &Bound<'py, PyDict>,
        outputs: Option<Vec<String>>,
        timeout: Option<f64>,
        id: Option<String>,
        parameters: Vec<(String, Bound<'py, PyAny>)>,
        deliver: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, model) = (slf.py(), slf.get());
        let request = model.ask(inputs_by_name, outputs, timeout, id, parameters)?;
        let Some(deliver) = deliver else { return model.answer(py, request).map(Bound::into_any) };
        let id = request.id.clone();
        let pending: task::Pending = match model.home.get(py)? {
            Home::Here(engine, loaded) if pace(py, loaded, &request) == Pace::Quick => task::one(engine.infer_async(request)),
            Home::Here(engine, _) => task::one(py.detach(|| engine.infer_async(request))),
            Home::HerePython(engine, _) => task::one(engine.infer_async(request)),
            Home::There(client, told) => {
                let (told, asked) = (told.clone(), owned(&request.outputs));
                let answer = py.detach(|| client.infer_async(request));
                task::one(async move { told.whole(&asked, answer.await?) })
            }
        };
        task::start(slf, pending, id, deliver)
    }

    /// The version that gave the last answer, if that is known.
    fn _answered(&self) -> Option<String> {
        if self.version.is_empty() { self.answered.lock().as_ref().map(ToString::to_string) } else { Some(self.version.clone()) }
    }

    /// Begins a stream of answers, and gives what [`stream::puller`] says.
    fn _stream<'py>(
        slf: &Bound<'py, Self>,
        inputs_by_name: &Bound<'py, PyDict>,
        outputs: Option<Vec<String>>,
        timeout: Option<f64>,
        id: Option<String>,
        parameters: Vec<(String, Bound<'py, PyAny>)>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, model) = (slf.py(), slf.get());
        let request = model.ask(inputs_by_name, outputs, timeout, id, parameters)?;
        let id = request.id.clone();
        let answers = match model.home.get(py)? {
            Home::Here(engine, _) | Home::HerePython(engine, _) => py.detach(|| engine.stream(request)),
            Home::There(client, _) => py.detach(|| client.stream(request)),
        };
        stream::puller(slf, answers.map_err(|error| raise(py, &error, id.as_deref()))?, id)
    }
}

impl Model {
    fn ask<'m>(
        &'m self,
        inputs_by_name: &Bound<'_, PyDict>,
        outputs: Option<Vec<String>>,
        timeout: Option<f64>,
        id: Option<String>,
        parameters: Vec<(String, Bound<'_, PyAny>)>,
    ) -> PyResult<Request<'m, 'static>> {
        let deadline = timeout.map(|seconds| {
            let instant = Duration::try_from_secs_f64(seconds).ok().and_then(|length| Instant::now().checked_add(length));
            let wrong = || format!("timeout: expected seconds from 0, got {seconds}");
            instant.ok_or_else(|| refuse(inputs_by_name.py(), Reason::InvalidParameter, wrong()))
        });
        let mut inputs = Inputs::new();
        self.read(inputs_by_name, &mut inputs)?;
        let outputs = outputs.into_iter().flatten().map(Cow::Owned).collect();
        let parameters = parameters.into_iter().map(parameter).collect::<PyResult<_>>()?;
        let id = id.map(String::into_boxed_str);
        Ok(Request { outputs, parameters, deadline: deadline.transpose()?, id, ..self.request(inputs) })
    }

    /// Named values, read where they lie; None leaves an input out.
    fn read<'m>(&'m self, named: &Bound<'_, PyDict>, inputs: &mut Inputs<'m, 'static>) -> PyResult<()> {
        for (key, value) in named.iter().filter(|(_, value)| !value.is_none()) {
            let key = key.cast_into::<PyString>()?;
            let known = self.inputs.iter().find(|port| port.name.is(&key)).or_else(|| self.inputs.iter().find(|port| key == *port.text));
            let name = if let Some(port) = known { Cow::Borrowed(&*port.text) } else { Cow::Owned(key.to_str()?.to_owned()) };
            let tensor = view(&value, &name, known.map(|port| port.datatype))?;
            inputs.push(Input { name, tensor });
        }
        Ok(())
    }

    /// All inputs as arrays that lie as they should; the tuple holds them.
    #[inline]
    fn arrays<'a>(&'a self, args: &'a Bound<'_, PyTuple>) -> Option<Inputs<'a, 'a>> {
        let mut inputs = Inputs::new();
        if args.len() != self.inputs.len() {
            return None;
        }
        for (port, value) in self.inputs.iter().zip(args.iter_borrowed()) {
            inputs.push(Input { name: Cow::Borrowed(&port.text), tensor: array(value)? });
        }
        Some(inputs)
    }

    #[inline]
    fn request<'a, 'd>(&'a self, inputs: Inputs<'a, 'd>) -> Request<'a, 'd> {
        Request { model: Cow::Borrowed(&self.name), version: Cow::Borrowed(&self.version), inputs, ..Request::default() }
    }

    fn answer<'py>(&self, py: Python<'py>, request: Request<'_, 'static>) -> PyResult<Bound<'py, PyDict>> {
        let id = request.id.clone();
        let result = match self.home.get(py)? {
            Home::Here(engine, loaded) => match pace(py, loaded, &request) {
                Pace::Long => signals::during(py, |look| engine.infer_async(request).wait(look))?,
                pace => infer(py, engine, pace, request)?,
            },
            Home::HerePython(engine, loaded) => {
                // Python cannot be interrupted, so that who wants an answer in time lets another thread run it.
                let timed = request.deadline.is_some() || !request.parameters.is_empty();
                let taken = || loaded.upgrade().is_some_and(|loaded| loaded.schedule.is_taken()) && signals::are_heard_here(py);
                let away = timed || taken();
                if away { signals::during(py, |look| engine.infer_async(request).wait(look))? } else { engine.infer(request) }
            }
            Home::There(client, told) => {
                let asked = request.outputs.clone();
                signals::during(py, |look| client.infer_looking(request, look))?.and_then(|response| told.whole(&asked, response))
            }
        };
        self.present(py, result, id.as_deref())
    }

    /// As `present`; None where there is no more.
    pub(crate) fn present_next<'py>(&self, py: Python<'py>, next: task::Next, id: Option<&str>) -> PyResult<Bound<'py, PyAny>> {
        next.map_or_else(|| Ok(py.None().into_bound(py)), |result| self.present(py, result, id).map(Bound::into_any))
    }

    /// The outputs as a dict, or the error as an exception.
    #[inline]
    pub(crate) fn present<'py>(&self, py: Python<'py>, result: Result<Response>, id: Option<&str>) -> PyResult<Bound<'py, PyDict>> {
        let fits = |response| match self.home.get(py) {
            Ok(Home::There(_, told)) => told.fits(&response).map(|()| response),
            _ => Ok(response),
        };
        let (response, answer) = (result.and_then(fits).map_err(|error| raise(py, &error, id))?, PyDict::new(py));
        if self.version.is_empty() {
            *self.answered.lock() = Some(response.version).filter(|version| !version.is_empty());
        }
        for (index, output) in response.outputs.iter().enumerate() {
            let same = |port: &&Port| port.text == output.name;
            let value = present(py, &output.tensor, true)?;
            match self.outputs.get(index).filter(same).or_else(|| self.outputs.iter().find(same)) {
                Some(port) => answer.set_item(&port.name, value)?,
                None => answer.set_item(&*output.name, value)?,
            }
        }
        Ok(answer)
    }
}

/// As a server tells it.
fn spec((name, datatype, shape): (String, String, Vec<i64>)) -> Result<TensorSpec> {
    let datatype = Datatype::parse(&datatype, &name)?;
    Ok(TensorSpec { name: name.into(), datatype, shape: Some(Shape::from_vec(shape)), symbols: Vec::new(), ranges: Vec::new(), optional: false })
}

fn owned(names: &[Cow<'_, str>]) -> Vec<Cow<'static, str>> {
    names.iter().map(|name| Cow::Owned(name.clone().into_owned())).collect()
}

#[inline]
fn infer(py: Python<'_>, engine: &Core, pace: Pace, request: Request<'_, '_>) -> PyResult<Result<Response>> {
    signals::running(|| if pace == Pace::Quick { engine.infer(request) } else { py.detach(|| engine.infer(request)) })
}

/// How a run goes on.
#[derive(Clone, Copy, PartialEq)]
enum Pace {
    /// Short enough to keep the interpreter meanwhile, and sure not to wait for a thread that may want it.
    Quick,
    /// With the interpreter given away.
    Steady,
    /// So long, or for all that is known so long, that Python's main thread must look for signals meanwhile.
    Long,
}

#[inline]
fn pace(py: Python<'_>, loaded: &Weak<Loaded>, request: &Request<'_, '_>) -> Pace {
    let Some(loaded) = loaded.upgrade() else { return Pace::Steady };
    let (schedule, mean) = (&loaded.schedule, loaded.schedule.expected(0));
    let byte_size = request.inputs.iter().map(|input| input.tensor.bytes().len()).sum::<usize>();
    let plain = request.deadline.is_none() && request.parameters.is_empty();
    // Anybody's code, in a process of its own: how long it took says little of how long it takes.
    let unsure = loaded.session.info().threads == Threads::Own;
    if !unsure && !mean.is_zero() && mean < KEEP && plain && byte_size <= KEEP_BYTES && loaded.session.info().concurrency == Concurrency::Shared {
        return Pace::Quick;
    }
    let long = unsure || mean.is_zero() || schedule.expected(byte_size) >= LONG || schedule.is_taken();
    if long && signals::are_heard_here(py) { Pace::Long } else { Pace::Steady }
}

fn parameter((name, value): (String, Bound<'_, PyAny>)) -> PyResult<(String, Parameter)> {
    let number = || value.extract().map(Parameter::Int).or_else(|_| value.extract().map(Parameter::Uint)).or_else(|_| value.extract().map(Parameter::Double));
    let parsed = value.extract().map(Parameter::Bool).or_else(|_| number()).or_else(|_| value.extract().map(Parameter::String));
    match parsed {
        Ok(value) => Ok((name, value)),
        Err(_) => {
            let message = format!("parameter '{}': expected a boolean, a number or a text, got {}", excerpt(&name), value.get_type().name()?);
            Err(refuse(value.py(), Reason::InvalidParameter, message))
        }
    }
}
