//! The C library: opened once, with the one environment of the process.
use super::table::{CompiledModel, Environment, EnvironmentOption, Functions, Options, Status};
use crate::foreign::Owned;
use crate::scrub::scrub;
use nnrp_core::{NnrpError, Reason, Result};
use parking_lot::Mutex;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::ptr::{NonNull, null_mut};

/// The one accelerator that is used.
const CPU: c_int = 1;
/// Which accelerators an environment looks for: it would open the libraries of graphics cards.
const ACCELERATORS: c_int = 24;
/// From which severity on it writes to the standard error; 4: nothing.
const SEVERITY: c_int = 25;
const INTEGER: i64 = 2;

/// An opened library with its environment; lives as long as the process.
pub(super) struct Library {
    pub(super) functions: Functions,
    pub(super) environment: *mut Environment,
    /// One at a time is compiled: the library adds to the options meanwhile, and takes away again.
    pub(super) loads: Mutex<()>,
    _handle: ManuallyDrop<libloading::Library>,
}

// SAFETY: the functions are constant, and the environment is only used under `loads`.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

static OPENED: Mutex<Vec<(PathBuf, &'static Library)>> = Mutex::new(Vec::new());

impl Library {
    /// The library, opened once for each file. Who calls knows that it is of a version that the table is made for: it has no call that tells.
    pub(super) fn open(path: &Path) -> Result<&'static Library> {
        let mut opened = OPENED.lock();
        if let Some((_, library)) = opened.iter().find(|(known, _)| *known == path) {
            return Ok(library);
        }
        // SAFETY: its initialisers are LiteRT's own, whose Python package was imported before.
        let handle = unsafe { libloading::Library::new(path) }.map_err(|_| failed("its C library cannot be opened"))?;
        // SAFETY: the handle is kept as long as the functions.
        let functions = unsafe { Functions::of(&handle) }.ok_or_else(|| failed("its C library lacks functions"))?;
        let mut library = Library { functions, environment: null_mut(), loads: Mutex::new(()), _handle: ManuallyDrop::new(handle) };
        let options = [(ACCELERATORS, i64::from(CPU)), (SEVERITY, 4)].map(|(tag, value)| EnvironmentOption { tag, kind: INTEGER, value });
        // SAFETY: the library copies the options; the environment lives as long as the process.
        check(unsafe { (library.functions.LiteRtCreateEnvironment)(options.len() as c_int, options.as_ptr(), &mut library.environment) })?;
        let library: &'static Library = Box::leak(Box::new(library));
        opened.push((path.to_owned(), library));
        Ok(library)
    }

    /// The options of a model: the CPU, so many threads, and errors that are kept to be asked for.
    pub(super) fn options(&self, threads: usize) -> Result<Owned<Options>> {
        let functions = &self.functions;
        let options = made(functions.LiteRtDestroyOptions, |out| {
            // SAFETY: the options are ours to free.
            unsafe { (functions.LiteRtCreateOptions)(out) }
        })?;
        // SAFETY: the options are alive.
        check(unsafe { (functions.LiteRtSetOptionsHardwareAccelerators)(options.ptr(), CPU) })?;
        for (name, text) in [(c"xnnpack", format!("num_threads = {threads}\n")), (c"runtime_options_string", "error_reporter_mode = 2\n".to_owned())] {
            let text = CString::new(text).unwrap_or_default().into_raw();
            let mut texts = null_mut();
            // SAFETY: the library copies the name and gives the text back to the function; what it makes of them it takes over.
            unsafe {
                check((functions.LiteRtCreateOpaqueOptions)(name.as_ptr(), text.cast(), free_text, &mut texts))?;
                check((functions.LiteRtAddOpaqueOptions)(options.ptr(), texts))?;
            }
        }
        Ok(options)
    }

    /// What a compiled model says of its failures, in one line and without paths.
    #[cold]
    pub(super) fn said(&self, compiled: &Owned<CompiledModel>) -> String {
        let mut text: *mut c_char = null_mut();
        // SAFETY: the compiled model is alive and not running; the text ends with NUL, and is ours to free as the header says.
        let said = unsafe {
            if (self.functions.LiteRtCompiledModelGetErrorMessages)(compiled.ptr(), &mut text) != 0 || text.is_null() {
                return String::new();
            }
            let said = CStr::from_ptr(text).to_string_lossy().into_owned();
            libc_free(text.cast());
            said
        };
        scrub(&said.split_whitespace().collect::<Vec<_>>().join(" "), None)
    }
}

unsafe extern "C" {
    #[link_name = "free"]
    fn libc_free(memory: *mut c_void);
}

unsafe extern "C" fn free_text(text: *mut c_void) {
    // SAFETY: it came out of `CString::into_raw`, and comes back once.
    drop(unsafe { CString::from_raw(text.cast()) });
}

/// What a status says.
#[inline]
pub(super) fn check(status: Status) -> Result<()> {
    if status == 0 { Ok(()) } else { Err(failed(&format!("its C library answers with status {status}"))) }
}

/// What a function makes through its last argument, freed at the end.
pub(super) fn made<T>(free: unsafe extern "C" fn(*mut T), make: impl FnOnce(*mut *mut T) -> Status) -> Result<Owned<T>> {
    let mut made = null_mut();
    check(make(&mut made))?;
    NonNull::new(made).map(|ptr| Owned::of(ptr, free)).ok_or_else(|| failed("its C library made nothing"))
}

/// The error of a load.
#[cold]
pub(super) fn failed(what: &str) -> NnrpError {
    NnrpError::new(Reason::LoadFailed, format!("runtime {}: {what}", super::NAME)).with("runtime", super::NAME)
}
