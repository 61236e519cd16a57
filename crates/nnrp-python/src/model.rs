//! One model, in this process or behind a server: the same class.
use crate::engine::Engine;
use crate::error::{OrRaise, raise, refuse};
use crate::remote::Client;
use crate::task;
use crate::tensor::present;
use crate::view::{array, view};
use nnrp_core::model::Name;
use nnrp_core::{Concurrency, Datatype, Input, Inputs, Loaded, Parameter, Reason, Request, Response, Result};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A session whose runs take less on average keeps the interpreter: with another Python thread busy, getting it back takes milliseconds
/// (measured: p90 4 µs kept, 5.3 ms given away), and a run this short holds nobody up.
const KEEP: Duration = Duration::from_micros(50);
/// Larger inputs than this give the interpreter away in any case.
const KEEP_BYTES: usize = 64 << 10;

enum Home {
    Here(Arc<nnrp_core::Engine>, Arc<Loaded>),
    There(Arc<nnrp_wire::Client>),
}

/// An input or output, with its name as Python compares it: by identity first.
struct Port {
    name: Py<PyString>,
    text: Name,
    datatype: Datatype,
}

#[pyclass(frozen, subclass, weakref, module = "nnrp._nnrp")]
pub(crate) struct Model {
    home: Home,
    #[pyo3(get)]
    name: String,
    #[pyo3(get)]
    version: String,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

type Specs = Vec<(String, String)>;

#[pymethods]
impl Model {
    #[new]
    fn new(home: &Bound<'_, PyAny>, name: &str, version: &str, inputs: Specs, outputs: Specs) -> PyResult<Self> {
        let py = home.py();
        let home = match home.cast::<Engine>() {
            Ok(engine) => Home::Here(engine.get().0.clone(), engine.get().0.model(name, version).or_raise(py)?),
            Err(_) => Home::There(home.cast::<Client>()?.get().0.clone()),
        };
        let port = |(name, datatype): (String, String)| {
            Ok(Port { datatype: Datatype::parse(&datatype, &name).or_raise(py)?, name: PyString::intern(py, &name).unbind(), text: name.into() })
        };
        let ports = |specs: Specs| specs.into_iter().map(port).collect::<PyResult<Vec<Port>>>();
        Ok(Model { home, name: name.into(), version: version.into(), inputs: ports(inputs)?, outputs: ports(outputs)? })
    }

    #[pyo3(signature = (*args, **kwargs))]
    fn __call__<'py>(&self, py: Python<'py>, args: &Bound<'py, PyTuple>, kwargs: Option<&Bound<'py, PyDict>>) -> PyResult<Bound<'py, PyDict>> {
        if let (Home::Here(engine, loaded), None, Some(inputs)) = (&self.home, kwargs, self.arrays(args)) {
            return self.run(py, engine, loaded, self.request(inputs));
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
        let deadline = timeout.map(|seconds| {
            let instant = Duration::try_from_secs_f64(seconds).ok().and_then(|length| Instant::now().checked_add(length));
            instant.ok_or_else(|| refuse(py, Reason::InvalidParameter, format!("timeout: expected seconds from 0, got {seconds}")))
        });
        let mut inputs = Inputs::new();
        model.read(inputs_by_name, &mut inputs)?;
        let outputs = outputs.into_iter().flatten().map(Cow::Owned).collect();
        let parameters = parameters.into_iter().map(parameter).collect::<PyResult<_>>()?;
        let id = id.map(String::into_boxed_str);
        let request = Request { outputs, parameters, deadline: deadline.transpose()?, id: id.clone(), ..model.request(inputs) };
        let Some(deliver) = deliver else { return model.answer(py, request).map(Bound::into_any) };
        let pending: task::Pending = match &model.home {
            Home::Here(engine, loaded) if keeps_interpreter(loaded, &request) => Box::pin(engine.infer_async(request)),
            Home::Here(engine, _) => Box::pin(py.detach(|| engine.infer_async(request))),
            Home::There(client) => Box::pin(py.detach(|| client.infer_async(request))),
        };
        task::start(slf, pending, id, deliver)
    }
}

impl Model {
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
        match &self.home {
            Home::Here(engine, loaded) => self.run(py, engine, loaded, request),
            Home::There(client) => {
                let id = request.id.clone();
                self.present(py, py.detach(|| client.infer(request)), id.as_deref())
            }
        }
    }

    #[inline]
    fn run<'py>(&self, py: Python<'py>, engine: &nnrp_core::Engine, loaded: &Loaded, request: Request<'_, '_>) -> PyResult<Bound<'py, PyDict>> {
        let (keep, id) = (keeps_interpreter(loaded, &request), request.id.clone());
        let result = if keep { engine.infer(request) } else { py.detach(|| engine.infer(request)) };
        self.present(py, result, id.as_deref())
    }

    /// The outputs as a dict, or the error as an exception.
    #[inline]
    pub(crate) fn present<'py>(&self, py: Python<'py>, result: Result<Response>, id: Option<&str>) -> PyResult<Bound<'py, PyDict>> {
        let (response, answer) = (result.map_err(|error| raise(py, &error, id))?, PyDict::new(py));
        for (index, output) in response.outputs.iter().enumerate() {
            let same = |port: &&Port| port.text == output.name;
            let value = present(py, &output.tensor)?;
            match self.outputs.get(index).filter(same).or_else(|| self.outputs.iter().find(same)) {
                Some(port) => answer.set_item(&port.name, value)?,
                None => answer.set_item(&*output.name, value)?,
            }
        }
        Ok(answer)
    }
}

/// Whether a run is short enough to keep the interpreter meanwhile, and sure not to wait for a thread that may want it.
#[inline]
fn keeps_interpreter(loaded: &Loaded, request: &Request<'_, '_>) -> bool {
    let mean = loaded.schedule.mean();
    !mean.is_zero()
        && mean < KEEP
        && request.deadline.is_none()
        && request.inputs.iter().map(|input| input.tensor.bytes().len()).sum::<usize>() <= KEEP_BYTES
        && loaded.session.info().concurrency == Concurrency::Shared
}

fn parameter((name, value): (String, Bound<'_, PyAny>)) -> PyResult<(String, Parameter)> {
    let number = || value.extract().map(Parameter::Int).or_else(|_| value.extract().map(Parameter::Uint)).or_else(|_| value.extract().map(Parameter::Double));
    let parsed = value.extract().map(Parameter::Bool).or_else(|_| number()).or_else(|_| value.extract().map(Parameter::String));
    parsed.map(|value| (name, value))
}
