//! A model that the library has loaded, and its runs.
use super::cache::Kept;
use super::library::{Library, ort};
use super::options::{Form, Options};
use super::value::{Trouble, Value, Values};
use super::{failure::Failure, providers, signature};
use crate::format;
use crate::onnx::division;
use crate::placing::Placing;
use nnrp_core::runtime::Room;
use nnrp_core::{Concurrency, Control, ModelSpec, NnrpError, Outputs, Reason, Result, Session, SessionInfo, Tensor, Threads};
use ort_sys::{OrtRunOptions, OrtSession, os_char};
use smallvec::SmallVec;
use std::ffi::{CString, c_char};
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};
use std::sync::Arc;

/// The library's session; released when the last output that lies in its memory is gone.
pub(super) struct Handle {
    ptr: *mut OrtSession,
    library: &'static Library,
}

// SAFETY: the library's sessions may be run, read and released on any thread, and run on several at once.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: made by the library, released once; releasing null does nothing.
        unsafe { ((*self.library.api).ReleaseSession)(self.ptr) }
    }
}

fn create(library: &'static Library, path: &Path, options: &Options, form: Form<'_>) -> Result<std::result::Result<Handle, Failure>> {
    let built = options.build(library, form)?;
    let path = os_path(path)?;
    let mut handle = Handle { ptr: null_mut(), library };
    // SAFETY: the environment lives as long as the process; path and options through the call; the session is ours to release.
    let created = unsafe { ort!(library, CreateSession(library.env, path.as_ptr(), built.ptr, &mut handle.ptr)) };
    Ok(created.map(|()| handle))
}

/// Loads the model; with threads of its own where the process has none to share.
fn open(library: &'static Library, path: &Path, options: &mut Options, form: Form<'_>) -> Result<std::result::Result<Handle, Failure>> {
    match create(library, path, options, form)? {
        Err(failure) if failure.wants_own_threads() => {
            options.give_own_threads(library.threads);
            create(library, path, options, form)
        }
        created => Ok(created),
    }
}

/// Loads the model as it was optimised before, or optimises it and keeps that; tells which.
fn open_kept(library: &'static Library, spec: &ModelSpec, options: &mut Options, kept: &Kept) -> Result<(Handle, &'static str)> {
    if let Some(path) = kept.found() {
        if let Ok(handle) = open(library, path, options, Form::Optimised)? {
            return Ok((handle, "read"));
        }
        kept.forget();
    }
    let draft = kept.draft();
    let opened = open(library, &spec.path, options, Form::Model(Some(&draft)))?;
    let handle = opened.map_err(|failure| failure.into_load_error(Some(&spec.path)))?;
    kept.keep(draft)?;
    Ok((handle, "written"))
}

/// One loaded model.
pub(super) struct OnnxSession {
    handle: Arc<Handle>,
    pub(super) library: &'static Library,
    pub(super) info: SessionInfo,
    inputs: Vec<CString>,
    outputs: Vec<CString>,
    pub(super) may_be_none: Vec<bool>,
    pub(super) cpu_only: bool,
    /// Stripped from what the library says.
    path: PathBuf,
    /// By output.
    pub(super) placings: Vec<Placing>,
}

/// What holds: the options, what the cache did, and whether a request's values can end the process (spec §8.18).
fn settings(options: &Options, library: &Library, spec: &ModelSpec, format: &str, cached: Option<&'static str>) -> serde_json::Map<String, serde_json::Value> {
    let mut settings = options.effective(library);
    settings.extend(cached.map(|how| ("optimized_model_cache".to_owned(), how.into())));
    if format == "onnx" && division::by_a_requests_values(&spec.path) {
        settings.insert("values_checked".to_owned(), false.into());
    }
    settings
}

type Pointers<T> = SmallVec<[T; 4]>;

impl OnnxSession {
    /// Loads the file with the model's options.
    pub(super) fn load(library: &'static Library, spec: &ModelSpec) -> Result<OnnxSession> {
        let format = format::expect(&spec.path, super::NAME, &super::FORMATS)?;
        let mut options = Options::parse(&spec.options, library.threads)?;
        options.agree(library, spec)?;
        let (handle, cached) = match options.cache.clone() {
            None => {
                let opened = open(library, &spec.path, &mut options, Form::Model(None))?;
                (opened.map_err(|failure| failure.into_load_error(Some(&spec.path)))?, None)
            }
            Some(folder) => {
                let kept = Kept::of(&folder, &spec.path, format, &options.effective(library).into())?;
                let (handle, how) = open_kept(library, spec, &mut options, &kept)?;
                (handle, Some(how))
            }
        };
        let read = signature::read(library, handle.ptr)?;
        let info = SessionInfo {
            signature: read.signature,
            runtime: super::NAME,
            runtime_version: library.version.clone(),
            format: format.to_owned(),
            device: providers::device(&options.providers),
            concurrency: Concurrency::Shared,
            threads: Threads::Any,
            cancellable: true,
            streams: false,
            settings: settings(&options, library, spec, format, cached),
        };
        Ok(OnnxSession {
            handle: Arc::new(handle),
            library,
            info,
            inputs: read.inputs,
            placings: read.outputs.iter().map(|_| Placing::default()).collect(),
            outputs: read.outputs,
            may_be_none: read.may_be_none,
            cpu_only: providers::cpu_only(&options.providers),
            path: spec.path.clone(),
        })
    }

    /// Calls the library; a stop raises the terminate flag of this run.
    fn execute(&self, feed: &Feed, names: &[*const c_char], results: &mut Values, control: Control<'_>) -> std::result::Result<(), Failure> {
        let run = |options: *const OrtRunOptions, results: &mut Values| {
            let (inputs, input_names, given) = (feed.values.as_ptr(), feed.names.as_ptr(), feed.names.len());
            // SAFETY: the session is alive; every array has the length that goes with it; the names live in `self`, the values in `feed`.
            unsafe {
                let outputs = results.as_mut_ptr();
                ort!(self.library, Run(self.handle.ptr, options, input_names, inputs, given, names.as_ptr(), names.len(), outputs))
            }
        };
        let Some(stop) = control.stop else { return run(null(), results) };
        let options = Arc::new(RunOptions::new(self.library)?);
        let raised = options.clone();
        stop.during(move || raised.terminate(), || run(options.ptr, results))
    }

    fn feed(&self, inputs: &[Option<Tensor<'_>>]) -> std::result::Result<Feed, Trouble> {
        let mut feed = Feed { names: SmallVec::new(), values: Values::none(self.library, 0) };
        for (name, tensor) in self.inputs.iter().zip(inputs) {
            if let Some(tensor) = tensor {
                let value = Value::borrowing(self.library, tensor)?;
                feed.names.push(name.as_ptr());
                feed.values.push(value);
            }
        }
        Ok(feed)
    }

    fn output(&self, value: Value, index: usize, inputs: &[Option<Tensor<'_>>]) -> std::result::Result<Tensor<'static>, Trouble> {
        if self.may_be_none.get(index) == Some(&true) && !value.is_some()? {
            return Err(Trouble::Ours(self.refused(index, "the model gave none this time; ask for the other outputs alone")));
        }
        if !self.cpu_only && !value.is_on_cpu()? {
            return Err(Trouble::Ours(self.refused(index, "the provider left it in its device's memory")));
        }
        value.into_tensor(&self.handle, inputs)
    }

    #[cold]
    fn refused(&self, index: usize, what: &str) -> NnrpError {
        let name = self.info.signature.outputs.get(index).map_or_else(String::new, |spec| nnrp_core::error::excerpt(&spec.name));
        NnrpError::new(Reason::NotOffered, format!("output '{name}': {what}")).with("output", name)
    }

    fn try_run(
        &self,
        inputs: &[Option<Tensor<'_>>],
        outputs: &[usize],
        control: Control<'_>,
        room: Option<&dyn Room>,
    ) -> std::result::Result<Outputs, Trouble> {
        let bug = || Trouble::Ours(NnrpError::new(Reason::Bug, "a run with other inputs or outputs than the signature's"));
        if inputs.len() != self.inputs.len() {
            return Err(bug());
        }
        let names = outputs.iter().map(|&index| self.outputs.get(index).map(|name| name.as_ptr()));
        let names = names.collect::<Option<Pointers<*const c_char>>>().ok_or_else(bug)?;
        let feed = self.feed(inputs)?;
        let mut results = Values::none(self.library, outputs.len());
        let mut prepared = room.map(|room| self.prepare(inputs, outputs, room, &mut results)).unwrap_or_default();
        let mut ran = self.execute(&feed, &names, &mut results, control);
        if !self.proves_right(outputs, &prepared, ran.is_ok()) && control.stop.is_none_or(|stop| stop.cause().is_none()) {
            prepared.clear();
            results = Values::none(self.library, outputs.len());
            let failed = ran.is_err();
            ran = self.execute(&feed, &names, &mut results, control);
            if failed && ran.is_ok() {
                self.place_never(outputs);
            }
        }
        ran?;
        let mut tensors = Outputs::new();
        for (slot, &index) in outputs.iter().enumerate() {
            let value = results.take(slot);
            tensors.push(match prepared.get_mut(slot).and_then(Option::take) {
                Some(prepared) if value.lies_at(prepared.written().2)? => prepared.into_tensor(),
                _ => self.output(value, index, inputs)?,
            });
        }
        Ok(tensors)
    }

    fn told(&self, trouble: Trouble) -> NnrpError {
        match trouble {
            Trouble::Library(failure) => failure.into_run_error(&self.path),
            Trouble::Ours(error) => error,
        }
    }
}

impl Session for OnnxSession {
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

/// The names and values that go into a run.
struct Feed {
    names: Pointers<*const c_char>,
    values: Values,
}

/// The options of one run that can be ended.
struct RunOptions {
    ptr: *mut OrtRunOptions,
    library: &'static Library,
}

// SAFETY: the terminate flag is there to be raised from another thread; nothing else of the options changes after they are made.
unsafe impl Send for RunOptions {}
// SAFETY: as above.
unsafe impl Sync for RunOptions {}

impl RunOptions {
    fn new(library: &'static Library) -> std::result::Result<RunOptions, Failure> {
        let mut options = RunOptions { ptr: null_mut(), library };
        // SAFETY: the options are ours to release.
        unsafe { ort!(library, CreateRunOptions(&mut options.ptr)) }?;
        Ok(options)
    }

    fn terminate(&self) {
        // SAFETY: the options are alive. A failure here cannot be told to anyone; the run goes on to its end.
        let _unheard = unsafe { ort!(self.library, RunOptionsSetTerminate(self.ptr)) };
    }
}

impl Drop for RunOptions {
    fn drop(&mut self) {
        // SAFETY: made by the library, released once, after the run that used it; releasing null does nothing.
        unsafe { ((*self.library.api).ReleaseRunOptions)(self.ptr) }
    }
}

#[cfg(unix)]
pub(super) fn os_path(path: &Path) -> Result<Vec<os_char>> {
    use std::os::unix::ffi::OsStrExt;
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| NnrpError::new(Reason::FileNotFound, "model file: no such file"))?;
    Ok(path.as_bytes_with_nul().iter().map(|&byte| byte as os_char).collect())
}

#[cfg(windows)]
pub(super) fn os_path(path: &Path) -> Result<Vec<os_char>> {
    use std::os::windows::ffi::OsStrExt;
    Ok(path.as_os_str().encode_wide().chain([0]).collect())
}
