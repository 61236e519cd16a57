//! A model that the library has loaded, and its runs.
use super::library::{Library, ort};
use super::options::Options;
use super::value::{Trouble, Value, Values};
use super::{failure::Failure, providers, signature};
use crate::file;
use nnrp_core::{Concurrency, Control, ModelSpec, NnrpError, Outputs, Reason, Result, Session, SessionInfo, Tensor};
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

fn create(library: &'static Library, spec: &ModelSpec, options: &Options) -> Result<std::result::Result<Handle, Failure>> {
    let built = options.build(library)?;
    let path = os_path(&spec.path)?;
    let mut handle = Handle { ptr: null_mut(), library };
    // SAFETY: the environment lives as long as the process; path and options through the call; the session is ours to release.
    let created = unsafe { ort!(library, CreateSession(library.env, path.as_ptr(), built.ptr, &mut handle.ptr)) };
    Ok(created.map(|()| handle))
}

/// One loaded model.
pub(super) struct OnnxSession {
    handle: Arc<Handle>,
    library: &'static Library,
    info: SessionInfo,
    inputs: Vec<CString>,
    outputs: Vec<CString>,
    may_be_none: Vec<bool>,
    cpu_only: bool,
    /// Stripped from what the library says.
    path: PathBuf,
}

type Pointers<T> = SmallVec<[T; 4]>;

impl OnnxSession {
    /// Loads the file with the model's options.
    pub(super) fn load(library: &'static Library, spec: &ModelSpec) -> Result<OnnxSession> {
        let format = file::format(&spec.path)?;
        let mut options = Options::parse(&spec.options, library.threads)?;
        let created = match create(library, spec, &options)? {
            Err(failure) if failure.wants_own_threads() => {
                options.give_own_threads(library.threads);
                create(library, spec, &options)?
            }
            created => created,
        };
        let handle = created.map_err(|failure| failure.into_load_error(Some(&spec.path)))?;
        let read = signature::read(library, handle.ptr)?;
        let info = SessionInfo {
            signature: read.signature,
            runtime: super::NAME,
            runtime_version: library.version.clone(),
            format: format.to_owned(),
            device: providers::device(&options.providers),
            concurrency: Concurrency::Shared,
            cancellable: true,
            settings: options.effective(library),
        };
        Ok(OnnxSession {
            handle: Arc::new(handle),
            library,
            info,
            inputs: read.inputs,
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

    fn try_run(&self, inputs: &[Option<Tensor<'_>>], outputs: &[usize], control: Control<'_>) -> std::result::Result<Outputs, Trouble> {
        let bug = || Trouble::Ours(NnrpError::new(Reason::Bug, "a run with other inputs or outputs than the signature's"));
        if inputs.len() != self.inputs.len() {
            return Err(bug());
        }
        let names = outputs.iter().map(|&index| self.outputs.get(index).map(|name| name.as_ptr()));
        let names = names.collect::<Option<Pointers<*const c_char>>>().ok_or_else(bug)?;
        let feed = self.feed(inputs)?;
        let mut results = Values::none(self.library, outputs.len());
        self.execute(&feed, &names, &mut results, control)?;
        let mut tensors = Outputs::new();
        for (slot, &index) in outputs.iter().enumerate() {
            tensors.push(self.output(results.take(slot), index, inputs)?);
        }
        Ok(tensors)
    }
}

impl Session for OnnxSession {
    fn info(&self) -> &SessionInfo {
        &self.info
    }

    fn run(&self, inputs: &[Option<Tensor<'_>>], outputs: &[usize], control: Control<'_>) -> Result<Outputs> {
        self.try_run(inputs, outputs, control).map_err(|trouble| match trouble {
            Trouble::Library(failure) => failure.into_run_error(&self.path),
            Trouble::Ours(error) => error,
        })
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
fn os_path(path: &Path) -> Result<Vec<os_char>> {
    use std::os::unix::ffi::OsStrExt;
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| NnrpError::new(Reason::FileNotFound, "model file: no such file"))?;
    Ok(path.as_bytes_with_nul().iter().map(|&byte| byte as os_char).collect())
}

#[cfg(windows)]
fn os_path(path: &Path) -> Result<Vec<os_char>> {
    use std::os::windows::ffi::OsStrExt;
    Ok(path.as_os_str().encode_wide().chain([0]).collect())
}
