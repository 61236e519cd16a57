//! One model, in this process or behind a server: the same class.
use crate::error::{OrRaise, from_json, raise, refuse};
use crate::task;
use crate::tensor::present;
use crate::view::{View, array};
use nnrp_core::model::Name;
use nnrp_core::{Concurrency, Engine, Input, Loaded, NnrpError, Parameter, Parameters, Reason, Request, Response, TensorSpec};
use nnrp_wire::Client;
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyString, PyTuple};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A session whose runs take less on average keeps the interpreter: with another Python thread busy, getting it back takes milliseconds
/// (measured: p90 4 µs kept, 5.3 ms given away), and a run this short holds nobody up.
const KEEP: Duration = Duration::from_micros(50);
/// Larger inputs than this give the interpreter away in any case.
const KEEP_BYTES: usize = 64 << 10;

/// Where a model runs.
pub(crate) enum Home {
    Here { engine: Arc<Engine>, loaded: Arc<Loaded> },
    There { client: Arc<Client> },
}

/// An input or output, with its name as Python compares it: by identity first.
struct Port {
    name: Py<PyString>,
    spec: TensorSpec,
}

/// A model that answers: loaded in this process by `nnrp.load`, or served elsewhere and found by `nnrp.connect`.
///
/// Call it with its inputs, by position in the signature's order or by name. NumPy arrays, objects with `__dlpack__` in CPU memory and
/// buffers are read in place, without a copy; big-endian, strided and unaligned arrays are copied once. An array's type must be the
/// signature's: nothing is cast. Lists and Python numbers take the signature's type where every value fits it. Do not write to an input
/// before the call returns.
///
/// The answer is a dict of NumPy arrays in the signature's order. They own their memory and may be written to. BYTES come as arrays of bytes
/// objects; BF16, FP8 and four-bit integers as arrays of ml_dtypes where that package is installed, else as `nnrp.Tensor`.
///
/// Any number of threads may call at once.
///
/// Raises:
///     InvalidArgument: the inputs do not fit the signature; the subclass tells how (ShapeMismatch, DatatypeMismatch, MissingInput …).
///     NnrpError: any other error of the specification.
///
/// Example:
///     >>> model = nnrp.load("double.onnx")
///     >>> model(np.array([1, 2, 3], np.float32))
///     {'y': array([3., 5., 7.], dtype=float32)}
#[pyclass(frozen, module = "nnrp", weakref)]
pub(crate) struct Model {
    home: Home,
    name: Name,
    version: Name,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

/// What a request says beside its inputs.
#[derive(Default)]
struct Ask {
    outputs: Vec<String>,
    deadline: Option<Instant>,
    id: Option<Box<str>>,
    parameters: Parameters,
}

type Views<'m> = SmallVec<[(Cow<'m, str>, View); 2]>;

#[pymethods]
impl Model {
    #[pyo3(signature = (*args, **kwargs))]
    fn __call__<'py>(&self, py: Python<'py>, args: &Bound<'py, PyTuple>, kwargs: Option<&Bound<'py, PyDict>>) -> PyResult<Bound<'py, PyDict>> {
        if let (Home::Here { engine, loaded }, None, Some(inputs)) = (&self.home, kwargs, self.arrays(args)) {
            let keep = keeps_interpreter(loaded, inputs.iter().map(|input| input.tensor.bytes().len()).sum());
            return self.run(py, engine, keep, self.request(inputs, Ask::default()));
        }
        let mut views = Views::new();
        if args.len() > self.inputs.len() {
            let message = format!("model '{}': expected at most {} inputs, got {}", self.name, self.inputs.len(), args.len());
            return Err(refuse(py, Reason::UnknownInput, message));
        }
        for (port, value) in self.inputs.iter().zip(args.iter_borrowed()) {
            if !value.is_none() {
                views.push((Cow::Borrowed(&*port.spec.name), View::of(&value, &port.spec.name, Some(&port.spec))?));
            }
        }
        if let Some(named) = kwargs {
            self.read(named, &mut views)?;
        }
        self.answer(py, views, Ask::default())
    }

    /// Answer one request.
    ///
    /// Args:
    ///     inputs: input name → value, as the class describes them. None leaves an optional input out.
    ///     outputs: the names of the outputs wanted, in the order wanted; default: all.
    ///     timeout: seconds after which nobody wants the answer.
    ///     id: an id for the request, for logs and errors.
    ///     parameters: request parameters for a server: bool, int, float and str.
    ///
    /// Returns:
    ///     Output name → array, in the order asked for.
    ///
    /// Raises:
    ///     DeadlineExceeded: the timeout passed first.
    ///     NnrpError: as a call does.
    #[pyo3(signature = (inputs, outputs=None, *, timeout=None, id=None, parameters=None))]
    fn infer<'py>(
        &self,
        py: Python<'py>,
        inputs: &Bound<'py, PyDict>,
        outputs: Option<Vec<String>>,
        timeout: Option<f64>,
        id: Option<String>,
        parameters: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let ask = Ask::new(py, outputs, timeout, id, parameters)?;
        let mut views = Views::new();
        self.read(inputs, &mut views)?;
        self.answer(py, views, ask)
    }

    /// Answer one request without blocking the event loop; takes what `infer` takes.
    ///
    /// Cancelling the task cancels the request. The inputs are kept until the answer is there.
    #[pyo3(signature = (inputs, outputs=None, *, timeout=None, id=None, parameters=None))]
    fn infer_async<'py>(
        slf: &Bound<'py, Self>,
        inputs: &Bound<'py, PyDict>,
        outputs: Option<&Bound<'py, PyAny>>,
        timeout: Option<f64>,
        id: Option<&str>,
        parameters: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let helper = slf.py().import(intern!(slf.py(), "nnrp.model"))?;
        helper.call_method1(intern!(slf.py(), "infer_async"), (slf, inputs, outputs, timeout, id, parameters))
    }

    /// Start a request: gives the answer when it is there at once, or else a function that cancels; `deliver(answer, error)` comes later.
    #[pyo3(signature = (inputs, outputs, timeout, id, parameters, deliver))]
    #[allow(clippy::too_many_arguments, reason = "as `infer`, and whom to tell")]
    fn _start<'py>(
        slf: &Bound<'py, Self>,
        inputs: &Bound<'py, PyDict>,
        outputs: Option<Vec<String>>,
        timeout: Option<f64>,
        id: Option<String>,
        parameters: Option<&Bound<'py, PyDict>>,
        deliver: Py<PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, model) = (slf.py(), slf.get());
        let ask = Ask::new(py, outputs, timeout, id.clone(), parameters)?;
        let mut views = Views::new();
        model.read(inputs, &mut views)?;
        let size = byte_size(&views);
        let request = model.request(views.into_iter().map(|(name, view)| Input { name, tensor: view.share() }).collect(), ask);
        let pending: task::Pending = match &model.home {
            Home::Here { engine, loaded } if keeps_interpreter(loaded, size) => Box::pin(engine.infer_async(request)),
            Home::Here { engine, .. } => Box::pin(py.detach(|| engine.infer_async(request))),
            Home::There { client } => Box::pin(py.detach(|| client.infer_async(request))),
        };
        task::start(slf, pending, id, deliver)
    }

    /// The model's name.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// The version that answers.
    #[getter]
    fn version(&self) -> &str {
        &self.version
    }

    /// What it takes: one TensorSpec for each input, in the model's order.
    #[getter]
    fn inputs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        specs(py, &self.inputs)
    }

    /// What it gives: one TensorSpec for each output, in the model's order.
    #[getter]
    fn outputs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        specs(py, &self.outputs)
    }

    /// How it was loaded, as the runtime honoured it: a Session; None for a model behind a server.
    #[getter]
    fn session<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Home::Here { loaded, .. } = &self.home else { return Ok(None) };
        let info = loaded.session.info();
        let settings = from_json(py, &info.settings.clone().into())?;
        let exclusive = info.concurrency == Concurrency::Exclusive;
        let parts = (info.runtime, &info.runtime_version, &info.format, &info.device, exclusive, info.cancellable, settings);
        py.import(intern!(py, "nnrp.model"))?.call_method1(intern!(py, "Session"), parts).map(Some)
    }

    /// The model metadata of the Open Inference Protocol: name, versions, platform, inputs, outputs.
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let metadata = match &self.home {
            Home::Here { engine, loaded } => loaded.metadata(&engine.versions(&self.name)),
            Home::There { client } => py.detach(|| client.model_metadata(&self.name, &self.version)).or_raise(py)?,
        };
        from_json(py, &metadata)
    }

    /// What its requests came to: counts, nanoseconds, quantiles, failures by reason.
    ///
    /// Raises:
    ///     NotOffered: the model is behind a server, whose statistics are its own.
    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match &self.home {
            Home::Here { loaded, .. } => from_json(py, &loaded.metrics.snapshot()),
            Home::There { .. } => Err(refuse(py, Reason::NotOffered, "statistics: expected a model in this process, got one behind a server")),
        }
    }

    /// The engine that holds it; None for a model behind a server.
    #[getter]
    fn engine(&self) -> Option<crate::engine::Engine> {
        match &self.home {
            Home::Here { engine, .. } => Some(crate::engine::Engine(engine.clone())),
            Home::There { .. } => None,
        }
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        let list = |ports: &[Port]| ports.iter().map(|port| port.name.bind(py).to_string()).collect::<Vec<_>>().join(", ");
        let place = if matches!(self.home, Home::Here { .. }) { "here" } else { "remote" };
        format!("<nnrp.Model '{}' version '{}' ({}) → ({}), {place}>", self.name, self.version, list(&self.inputs), list(&self.outputs))
    }
}

impl Model {
    pub(crate) fn new(py: Python<'_>, home: Home, name: Name, version: Name, signature: &nnrp_core::Signature) -> Model {
        let ports = |specs: &[TensorSpec]| specs.iter().map(|spec| Port { name: PyString::intern(py, &spec.name).unbind(), spec: spec.clone() }).collect();
        Model { home, name, version, inputs: ports(&signature.inputs), outputs: ports(&signature.outputs) }
    }

    pub(crate) fn here(py: Python<'_>, engine: Arc<Engine>, loaded: Arc<Loaded>) -> Model {
        let (name, version, session) = (loaded.name.clone(), loaded.version.clone(), loaded.clone());
        Model::new(py, Home::Here { engine, loaded }, name, version, session.signature())
    }

    fn read<'m>(&'m self, named: &Bound<'_, PyDict>, views: &mut Views<'m>) -> PyResult<()> {
        for (key, value) in named.iter() {
            let key = key.cast_into::<PyString>()?;
            let known = self.inputs.iter().find(|port| port.name.is(&key)).or_else(|| self.inputs.iter().find(|port| key == *port.spec.name));
            let name = match known {
                Some(port) => Cow::Borrowed(&*port.spec.name),
                None => Cow::Owned(key.to_str()?.to_owned()),
            };
            if !value.is_none() {
                let view = View::of(&value, &name, known.map(|port| &port.spec))?;
                views.push((name, view));
            }
        }
        Ok(())
    }

    #[inline]
    fn request<'a, 'd>(&'a self, inputs: SmallVec<[Input<'a, 'd>; 2]>, ask: Ask) -> Request<'a, 'd> {
        let Ask { outputs, deadline, id, parameters } = ask;
        let outputs = outputs.into_iter().map(Cow::Owned).collect();
        Request { model: Cow::Borrowed(&self.name), version: Cow::Borrowed(&self.version), id, parameters, inputs, outputs, deadline, stop: None }
    }

    /// All inputs as arrays that lie as they should; the tuple holds them.
    #[inline]
    fn arrays<'a>(&'a self, args: &'a Bound<'_, PyTuple>) -> Option<SmallVec<[Input<'a, 'a>; 2]>> {
        if args.len() != self.inputs.len() {
            return None;
        }
        let mut inputs = SmallVec::new();
        for (port, value) in self.inputs.iter().zip(args.iter_borrowed()) {
            inputs.push(Input { name: Cow::Borrowed(&*port.spec.name), tensor: array(value)? });
        }
        Some(inputs)
    }

    fn answer<'py>(&self, py: Python<'py>, views: Views<'_>, ask: Ask) -> PyResult<Bound<'py, PyDict>> {
        match &self.home {
            Home::Here { engine, loaded } => {
                let inputs = views.iter().map(|(name, view)| Input { name: Cow::Borrowed(name), tensor: view.borrow() }).collect();
                let keep = ask.deadline.is_none() && keeps_interpreter(loaded, byte_size(&views));
                self.run(py, engine, keep, self.request(inputs, ask))
            }
            Home::There { client } => {
                let request = self.request(views.into_iter().map(|(name, view)| Input { name, tensor: view.share() }).collect(), ask);
                let id = request.id.clone();
                let response = py.detach(|| client.infer(request)).map_err(|error| failed(py, &error, id.as_deref()))?;
                self.present(py, &response)
            }
        }
    }

    #[inline]
    fn run<'py>(&self, py: Python<'py>, engine: &Engine, keep: bool, request: Request<'_, '_>) -> PyResult<Bound<'py, PyDict>> {
        let id = request.id.clone();
        match if keep { engine.infer(request) } else { py.detach(|| engine.infer(request)) } {
            Ok(response) => self.present(py, &response),
            Err(error) => Err(failed(py, &error, id.as_deref())),
        }
    }

    /// The outputs as a dict.
    #[inline]
    pub(crate) fn present<'py>(&self, py: Python<'py>, response: &Response) -> PyResult<Bound<'py, PyDict>> {
        let answer = PyDict::new(py);
        for (index, output) in response.outputs.iter().enumerate() {
            let same = |port: &&Port| Arc::ptr_eq(&port.spec.name, &output.name) || port.spec.name == output.name;
            let value = present(py, &output.tensor)?;
            match self.outputs.get(index).filter(same).or_else(|| self.outputs.iter().find(same)) {
                Some(port) => answer.set_item(&port.name, value)?,
                None => answer.set_item(&*output.name, value)?,
            }
        }
        Ok(answer)
    }
}

/// Whether a run is short enough to keep the interpreter meanwhile.
#[inline]
fn keeps_interpreter(loaded: &Loaded, byte_size: usize) -> bool {
    let mean = loaded.schedule.mean();
    // A session that takes one call at a time may make us wait for another thread, which may want the interpreter.
    !mean.is_zero() && mean < KEEP && byte_size <= KEEP_BYTES && loaded.session.info().concurrency == Concurrency::Shared
}

fn byte_size(views: &Views<'_>) -> usize {
    views.iter().map(|(_, view)| view.as_ref().len()).sum()
}

/// The exception of a request's error, which knows the request's id.
#[cold]
pub(crate) fn failed(py: Python<'_>, error: &NnrpError, id: Option<&str>) -> PyErr {
    let raised = raise(py, error);
    if let Some(id) = id {
        // The error itself matters more than its id.
        let _ = raised.value(py).setattr(intern!(py, "request_id"), id);
    }
    raised
}

fn specs<'py>(py: Python<'py>, ports: &[Port]) -> PyResult<Bound<'py, PyTuple>> {
    let make = py.import(intern!(py, "nnrp.model"))?.getattr(intern!(py, "TensorSpec"))?;
    let one = |port: &Port| {
        let shape = PyTuple::new(py, port.spec.wire_shape())?;
        make.call1((&port.name, port.spec.datatype.name(), shape, port.spec.optional))
    };
    PyTuple::new(py, ports.iter().map(one).collect::<PyResult<Vec<_>>>()?)
}

impl Ask {
    fn new(py: Python<'_>, outputs: Option<Vec<String>>, timeout: Option<f64>, id: Option<String>, parameters: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let until = |seconds: f64| {
            let length = Duration::try_from_secs_f64(seconds).ok();
            length
                .and_then(|length| Instant::now().checked_add(length))
                .ok_or_else(|| refuse(py, Reason::InvalidParameter, format!("timeout: expected seconds from 0, got {seconds}")))
        };
        Ok(Ask {
            outputs: outputs.unwrap_or_default(),
            deadline: timeout.map(until).transpose()?,
            id: id.map(String::into_boxed_str),
            parameters: parameters.map_or(Ok(Parameters::new()), |parameters| parameters.iter().map(|(key, value)| parameter(&key, &value)).collect())?,
        })
    }
}

fn parameter(key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<(String, Parameter)> {
    let value = if value.is_instance_of::<PyBool>() {
        Parameter::Bool(value.extract()?)
    } else if value.is_instance_of::<PyInt>() {
        value.extract().map(Parameter::Int).or_else(|_| value.extract().map(Parameter::Uint))?
    } else if value.is_instance_of::<PyFloat>() {
        Parameter::Double(value.extract()?)
    } else if value.is_instance_of::<PyString>() {
        Parameter::String(value.extract()?)
    } else {
        return Err(PyTypeError::new_err(format!("parameter {key}: expected bool, int, float or str, got {}", value.get_type().name()?)));
    };
    Ok((key.extract()?, value))
}
