//! A model that the library has compiled, and its runs.
use super::device::Device;
use super::effective::Effective;
use super::failure::Failure;
use super::library::{Library, Owned};
use super::named::Place;
use super::options::{MOST, Options};
use super::request::{Pool, Taken};
use super::room::{Elsewhere, Places, put_back};
use super::signature::{self, Bound, Told};
use super::table::{Compiled, Dimension, Model, RawPartialShape, TensorHandle};
use super::value::{Found, Trouble, borrowing, check_narrow};
use crate::options::{Texts, name_of};
use crate::placing::Placing;
use crate::{format, onnx};
use nnrp_core::error::excerpt;
use nnrp_core::runtime::Room;
use nnrp_core::{Concurrency, Control, ModelSpec, NnrpError, Outputs, Precision, Reason, Result, Session, SessionInfo, Signature, Tensor, Threads};
use regex_lite::Regex;
use smallvec::SmallVec;
use std::ffi::{CStr, CString, c_char};
use std::path::{Path, PathBuf};
use std::ptr::null;
use std::sync::Arc;

/// One loaded model.
pub(super) struct OpenVinoSession {
    pool: Arc<Pool>,
    info: SessionInfo,
    /// By input: its number to the library; `None` where the model makes nothing of it.
    places: Vec<Option<usize>>,
    bounds: Vec<Bound>,
    /// Computes 64-bit integers in 32 bits.
    narrow: bool,
    /// Outputs lie in memory that belongs to their request alone.
    lends: bool,
    /// By output.
    pub(super) placings: Vec<Placing>,
    /// Stripped from what the library says.
    path: PathBuf,
}

/// Whether a model has a memory, as its file says. It is the request's: such a model has one, which is never lent.
fn remembers(path: &Path, format: &str) -> bool {
    let says = || {
        let text = std::fs::read(path).ok()?;
        let operator = Regex::new(r#"\btype\s*=\s*["'](ReadValue|Assign)["']"#).ok()?;
        Some(operator.is_match(&String::from_utf8_lossy(&text)))
    };
    format == "openvino_ir" && says().unwrap_or(true)
}

/// Refuses, where nothing may be narrowed, what the file shows to be.
fn keeps_its_types(spec: &ModelSpec, format: &str) -> Result<()> {
    if spec.precision != Precision::Strict || format != "onnx" {
        return Ok(());
    }
    let Some(what) = onnx::narrowing::beyond_32_bits(&spec.path) else { return Ok(()) };
    let message = format!("{}: {what}: computed with 32 bits here, which precision 'fast' allows; onnxruntime computes it as it is", super::NAME);
    Err(NnrpError::new(Reason::NotOffered, message).with("precision", name_of(spec.precision)).with("runtime", super::NAME))
}

impl OpenVinoSession {
    /// Loads the file with what its description asks for.
    pub(super) fn load(library: &'static Library, spec: &ModelSpec) -> Result<OpenVinoSession> {
        let format = format::expect(&spec.path, super::NAME, &super::FORMATS)?;
        if spec.precision == Precision::Int8 {
            let message = "precision 'int8': openvino computes in INT8 what the model has in INT8; quantise the model";
            return Err(NnrpError::new(Reason::NotOffered, message).with("precision", name_of(spec.precision)).with("runtime", super::NAME));
        }
        keeps_its_types(spec, format)?;
        let _alone = library.loads.lock();
        let device = Device::find(library, &spec.device)?;
        let options = Options::parse(&spec.options)?;
        device.check_told(&options)?;
        let properties = options.build(library, &device, spec.precision)?;
        let file = if format == "onnx" { onnx::inputs(&spec.path)? } else { Vec::new() };
        let model = read_model(library, &spec.path, format)?;
        reshape(library, &model, &options)?;
        let read = signature::read(library, &model, file, spec.precision == Precision::Strict)?;
        let compiled = compile(library, &model, &device, &properties).map_err(|failure| {
            let without = || Options::default().build(library, &device, spec.precision).is_ok_and(|plain| compile(library, &model, &device, &plain).is_ok());
            compile_error(failure, &options, &spec.path, without)
        })?;
        let effective = Effective::read(library, &compiled);
        effective.check(library, &device, &options, spec.precision)?;
        let (runs_on, remembers) = (effective.devices(), remembers(&spec.path, format));
        let info = SessionInfo {
            signature: read.signature,
            runtime: super::NAME,
            runtime_version: library.version.clone(),
            format: format.to_owned(),
            device: if runs_on == "CPU" { "cpu".to_owned() } else { runs_on },
            concurrency: if remembers { Concurrency::Exclusive } else { Concurrency::Shared },
            threads: Threads::Any,
            cancellable: true,
            streams: false,
            settings: effective.settings(library, &options, spec.precision, remembers),
        };
        let (narrow, lends) = (device.has_cpu(), device.over.is_none() && device.has_cpu() && !remembers);
        let pool = Pool::new(library, compiled);
        let placings = info.signature.outputs.iter().map(|_| Placing::default()).collect();
        Ok(OpenVinoSession { pool, info, places: read.places, bounds: read.bounds, narrow, lends, placings, path: spec.path.clone() })
    }

    pub(super) fn signature(&self) -> &Signature {
        &self.info.signature
    }

    fn check(&self, index: usize, tensor: &Tensor<'_>) -> std::result::Result<(), Trouble> {
        if self.narrow {
            check_narrow(&self.info.signature.inputs[index].name, tensor)?;
        }
        let bound = self.bounds.iter().find(|bound| bound.input == index && tensor.shape.get(bound.axis).is_none_or(|&size| !bound.takes(size)));
        match bound {
            None => Ok(()),
            Some(bound) => Err(Trouble::Ours(self.out_of_bounds(bound, tensor))),
        }
    }

    #[cold]
    fn out_of_bounds(&self, bound: &Bound, tensor: &Tensor<'_>) -> NnrpError {
        let name = excerpt(&self.info.signature.inputs[bound.input].name);
        let most = if bound.most < 0 { "any size".to_owned() } else { bound.most.to_string() };
        let message = format!("input '{name}': expected dimension {} from {} to {most}, got shape {:?}", bound.axis, bound.least, tensor.shape.as_slice());
        NnrpError::new(Reason::ShapeMismatch, message).with("input", name).with("got", tensor.shape.as_slice())
    }

    fn try_run(
        &self,
        inputs: &[Option<Tensor<'_>>],
        outputs: &[usize],
        control: Control<'_>,
        room: Option<&dyn Room>,
    ) -> std::result::Result<Outputs, Trouble> {
        let fits = inputs.len() == self.places.len() && inputs.iter().all(Option::is_some);
        if !fits || outputs.iter().any(|&index| index >= self.info.signature.outputs.len()) {
            return Err(Trouble::Ours(NnrpError::new(Reason::Bug, "a run with other inputs or outputs than the signature's")));
        }
        let mut taken = self.pool.take()?;
        let _held = self.feed(&taken, inputs)?;
        let mut places = room.filter(|_| self.lends).map(|room| self.prepare(&taken, outputs, room)).unwrap_or_default();
        taken.run(control.stop)?;
        if !self.proves_right(&places) {
            self.take_back(&mut taken, &places)?;
            places.clear();
            taken.run(control.stop)?;
        }
        let found = outputs.iter().map(|&index| Found::read(&taken, index)).collect::<std::result::Result<SmallVec<[Found; 4]>, Trouble>>();
        self.take_back(&mut taken, &places)?;
        let found = found?;
        places.resize_with(found.len(), || None);
        let lends = self.lends && found.iter().zip(&places).any(|(found, place)| place.is_none() && found.worth_lending(inputs)) && taken.lend();
        let taken = Arc::new(taken);
        let one = |(found, place): (Found, Option<Elsewhere>)| {
            let keep = (lends && found.worth_lending(inputs)).then_some(&taken);
            place.and_then(|place| place.into_tensor(&found)).unwrap_or_else(|| found.into_tensor(keep))
        };
        Ok(found.into_iter().zip(places).map(one).collect())
    }

    /// Gives a request its own outputs back; one that does not take them is used for nothing more.
    fn take_back(&self, taken: &mut Taken, places: &Places) -> std::result::Result<(), Trouble> {
        put_back(taken, places).inspect_err(|_| taken.spoil())
    }

    /// Gives a request its inputs; they are kept as long as what comes back is.
    fn feed(&self, taken: &Taken, inputs: &[Option<Tensor<'_>>]) -> std::result::Result<SmallVec<[Owned<TensorHandle>; 4]>, Trouble> {
        let library = taken.library();
        let mut held = SmallVec::<[Owned<_>; 4]>::new();
        for (index, (place, tensor)) in self.places.iter().zip(inputs).enumerate() {
            let (Some(place), Some(tensor)) = (place, tensor) else { continue };
            self.check(index, tensor)?;
            let handle = borrowing(library, &self.info.signature.inputs[index].name, tensor)?;
            // SAFETY: the request is ours alone; the tensor and its bytes live until the run is over. The request sees them again only after
            // they were replaced: each run sets every input.
            library.check(unsafe { (library.functions.ov_infer_request_set_input_tensor_by_index)(taken.ptr(), *place, handle.ptr()) })?;
            held.push(handle);
        }
        Ok(held)
    }

    fn told(&self, trouble: Trouble) -> NnrpError {
        match trouble {
            Trouble::Library(failure) => failure.into_run_error(&self.path),
            Trouble::Ours(error) => error,
        }
    }
}

impl Session for OpenVinoSession {
    fn info(&self) -> &SessionInfo {
        &self.info
    }

    fn run(&self, inputs: &[Option<Tensor<'_>>], outputs: &[usize], control: Control<'_>) -> Result<Outputs> {
        self.try_run(inputs, outputs, control, None).map_err(|trouble| self.told(trouble))
    }

    fn run_into(&self, inputs: &[Option<Tensor<'_>>], outputs: &[usize], control: Control<'_>, room: &dyn Room) -> Result<Outputs> {
        self.try_run(inputs, outputs, control, Some(room)).map_err(|trouble| self.told(trouble))
    }
}

fn read_model(library: &'static Library, path: &Path, format: &str) -> Result<Owned<Model>> {
    let place = Place::of(path, format)?;
    let text =
        place.path().to_str().and_then(|text| CString::new(text).ok()).ok_or_else(|| NnrpError::new(Reason::FileNotFound, "model file: no such file"))?;
    // SAFETY: the core is alive, and the text lives through the call; the weights are looked for beside the model.
    let made = library.made(library.functions.ov_model_free, |out| unsafe { (library.functions.ov_core_read_model)(library.core, text.as_ptr(), null(), out) });
    made.map_err(|failure| failure.into_read_error(path, format))
}

/// Fixes or bounds the dimensions that the options name.
fn reshape(library: &'static Library, model: &Owned<Model>, options: &Options) -> Result<()> {
    if options.shapes.is_empty() {
        return Ok(());
    }
    let told = signature::inputs(library, model)?;
    let (mut places, mut shapes) = (Vec::new(), Vec::new());
    for (name, dims) in &options.shapes {
        let place = told.iter().position(|told| told.name == *name).ok_or_else(|| unknown_input(name, &told))?;
        let rank = dims.len() as i64;
        places.push(place);
        shapes.push(RawPartialShape { rank: Dimension { least: rank, most: rank }, dims: dims.as_ptr().cast_mut() });
    }
    // SAFETY: there are as many shapes as places; the library copies them, and reads as many dimensions as each rank says.
    let done = unsafe { (library.functions.ov_model_reshape_by_port_indexes)(model.ptr(), places.as_ptr(), shapes.as_ptr(), places.len()) };
    library
        .check(done)
        .map_err(|failure| failure.error(Reason::InvalidOption, "options.shapes: the model does not take these shapes", None).with("path", "options.shapes"))
}

#[cold]
fn unknown_input(name: &str, told: &[Told]) -> NnrpError {
    let known: Vec<&str> = told.iter().map(|told| told.name.as_str()).take(16).collect();
    let (got, path) = (excerpt(name), format!("options.shapes['{}']", excerpt(name)));
    NnrpError::new(Reason::InvalidOption, format!("{path}: no such input; expected one of {known:?}"))
        .with("path", path)
        .with("got", got)
        .with("expected", known)
}

fn compile(library: &'static Library, model: &Owned<Model>, device: &Device, properties: &Texts) -> std::result::Result<Owned<Compiled>, Failure> {
    // Keys and values in turn; what lies behind them is null, and never read.
    let mut p = [null::<c_char>(); 2 * MOST];
    for (slot, text) in p.iter_mut().zip(properties.iter().flat_map(|(key, value)| [key, value])) {
        *slot = text.as_ptr();
    }
    let given = 2 * properties.len().min(MOST);
    let device: &CStr = &device.name;
    // Only the newest versions take an array; to all of them this is a call with variable arguments, of which it reads `given`.
    // SAFETY: core and model are alive, and the texts live through the call; the compiled model is ours to free.
    library.made(library.functions.ov_compiled_model_free, |out| unsafe {
        #[rustfmt::skip]
        let status = (library.functions.ov_core_compile_model)(library.core, model.ptr(), device.as_ptr(), given, out,
            p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9], p[10], p[11], p[12], p[13], p[14], p[15],
            p[16], p[17], p[18], p[19], p[20], p[21], p[22], p[23], p[24], p[25], p[26], p[27], p[28], p[29], p[30], p[31],
            p[32], p[33], p[34], p[35], p[36], p[37], p[38], p[39], p[40], p[41], p[42], p[43], p[44], p[45], p[46], p[47]);
        status
    })
}

/// The error of a model that does not compile: of its options, when it compiles without them.
#[cold]
fn compile_error(failure: Failure, options: &Options, path: &Path, compiles_without: impl FnOnce() -> bool) -> NnrpError {
    let mut keys = options.properties.keys();
    let named = keys.clone().find(|key| failure.text().contains(key.as_str())).or(keys.next());
    match named {
        Some(key) if compiles_without() => {
            let at = format!("options.{key}");
            failure.error(Reason::InvalidOption, &format!("{at}: openvino refuses it"), Some(path)).with("path", at)
        }
        _ => failure.into_load_error(Some(path)),
    }
}
