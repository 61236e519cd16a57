//! The C library: where it lies, whether its version will do, and the one environment of the process.
use super::failure::Failure;
use crate::package::{Package, physical_cores};
use libloading::Library as Handle;
use nnrp_core::Result;
use ort_sys::{OrtAllocator, OrtAllocatorType, OrtApi, OrtApiBase, OrtEnv, OrtLoggingLevel, OrtMemType, OrtMemoryInfo, OrtStatusPtr, OrtThreadingOptions};
use parking_lot::Mutex;
use std::ffi::CStr;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;

/// Names the library, or the folder that it lies in.
pub const VARIABLE: &str = "NNRP_ONNXRUNTIME_LIBRARY";

pub(crate) const PACKAGE: Package = Package {
    runtime: super::NAME,
    title: "ONNX Runtime",
    // The first whose wheel brings the C library.
    minimum: "1.19",
    variable: VARIABLE,
    folder: "capi",
    stem: "onnxruntime",
    system_ending: ".so.1",
};

/// The oldest and the newest function table that is asked for; version 1.N has table N.
const TABLES: std::ops::RangeInclusive<u32> = 19..=24;

/// Calls a function of the table and turns its status into a `Result`.
macro_rules! ort {
    ($library:expr, $function:ident($($argument:expr),* $(,)?)) => {
        $library.check(((*$library.api).$function)($($argument),*))
    };
}
pub(super) use ort;

/// An opened library with its environment; lives as long as the process.
pub(super) struct Library {
    /// As far as `table` says: the fields behind it are not there to be read.
    pub(super) api: *const OrtApi,
    pub(super) table: u32,
    pub(super) version: String,
    pub(super) env: *mut OrtEnv,
    pub(super) cpu: *mut OrtMemoryInfo,
    pub(super) allocator: *mut OrtAllocator,
    /// Intra-op threads that all sessions share.
    pub(super) threads: i32,
    _handle: ManuallyDrop<Handle>,
}

// SAFETY: the table is constant, and the environment, the memory description and the default allocator may be used from any thread.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

static OPENED: Mutex<Vec<(PathBuf, &'static Library)>> = Mutex::new(Vec::new());

impl Library {
    /// The library, opened once for each file.
    pub(super) fn open(hint: Option<&Path>) -> Result<&'static Library> {
        let path = PACKAGE.find(hint)?;
        let mut opened = OPENED.lock();
        if let Some((_, library)) = opened.iter().find(|(known, _)| *known == path) {
            return Ok(library);
        }
        let library: &'static Library = Box::leak(Box::new(Library::load(&path)?));
        opened.push((path, library));
        Ok(library)
    }

    fn load(path: &Path) -> Result<Library> {
        // SAFETY: its initialisers are ONNX Runtime's own; whoever can place a library here or set the variable runs code as us anyway.
        let handle = unsafe { Handle::new(path) }.map_err(|_| PACKAGE.not_installed("its library cannot be opened"))?;
        // SAFETY: the type is that of the C header, the same in every version.
        let base = unsafe { handle.get::<unsafe extern "system" fn() -> *const OrtApiBase>(c"OrtGetApiBase") };
        let base = base.map_err(|_| PACKAGE.not_installed("what was found is another library"))?;
        // SAFETY: takes nothing, and gives a constant.
        let base = unsafe { base() };
        if base.is_null() {
            return Err(PACKAGE.not_installed("its library gives no functions"));
        }
        // SAFETY: `base` is not null; the string is constant and ends with NUL.
        let version = unsafe { CStr::from_ptr(((*base).GetVersionString)()) }.to_string_lossy().into_owned();
        let table = table_of(&version).ok_or_else(|| PACKAGE.too_old(&version))?;
        // SAFETY: `base` is not null.
        let api = unsafe { ((*base).GetApi)(table) };
        if api.is_null() {
            return Err(PACKAGE.too_old(&version));
        }
        let threads = i32::try_from(physical_cores()).unwrap_or(1);
        let handle = ManuallyDrop::new(handle);
        let mut library = Library { api, table, version, env: null_mut(), cpu: null_mut(), allocator: null_mut(), threads, _handle: handle };
        library.set_up().map_err(|failure| failure.into_load_error(None))?;
        Ok(library)
    }

    /// Makes the environment with its thread pools, and what every run needs.
    fn set_up(&mut self) -> std::result::Result<(), Failure> {
        let mut pools: *mut OrtThreadingOptions = null_mut();
        let (mut env, mut cpu, mut allocator) = (null_mut(), null_mut(), null_mut());
        // SAFETY: each function is of the oldest table, each pointer is ours; what is made here lives as long as the process, but `pools`.
        unsafe {
            ort!(self, CreateThreadingOptions(&mut pools))?;
            let made = ort!(self, SetGlobalIntraOpNumThreads(pools, self.threads))
                .and_then(|()| ort!(self, SetGlobalInterOpNumThreads(pools, 1)))
                .and_then(|()| ort!(self, SetGlobalSpinControl(pools, 0)))
                // Every failure comes back as a status; what the library would print besides is for those who ask for it.
                .and_then(|()| {
                    let level = OrtLoggingLevel::ORT_LOGGING_LEVEL_FATAL;
                    ort!(self, CreateEnvWithGlobalThreadPools(level, c"nnrp".as_ptr(), pools, &mut env))
                });
            ((*self.api).ReleaseThreadingOptions)(pools);
            made?;
            ort!(self, DisableTelemetryEvents(env))?;
            ort!(self, CreateCpuMemoryInfo(OrtAllocatorType::OrtDeviceAllocator, OrtMemType::OrtMemTypeDefault, &mut cpu))?;
            ort!(self, GetAllocatorWithDefaultOptions(&mut allocator))?;
        }
        (self.env, self.cpu, self.allocator) = (env, cpu, allocator);
        Ok(())
    }

    /// What a status says; ends it.
    #[inline]
    pub(super) fn check(&self, status: OrtStatusPtr) -> std::result::Result<(), Failure> {
        if status.0.is_null() { Ok(()) } else { Err(Failure::take(self, status)) }
    }

    /// Whether the table has the functions that came with 1.N.
    #[inline]
    pub(super) fn since(&self, table: u32) -> bool {
        self.table >= table
    }
}

/// The table to ask a version for; `None` when it is too old.
fn table_of(version: &str) -> Option<u32> {
    let mut numbers = version.split(['.', '-', '+']).map(str::parse::<u32>);
    let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    let table = if major > 1 { *TABLES.end() } else { minor.min(*TABLES.end()) };
    (major >= 1 && TABLES.contains(&table)).then_some(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_chooses_the_table_and_too_old_ones_have_none() {
        assert_eq!(table_of("1.32.0"), Some(24));
        assert_eq!(table_of("1.20.1"), Some(20));
        assert_eq!(table_of("1.19.0-rc1"), Some(19));
        assert_eq!(table_of("2.0.0"), Some(24));
        for old in ["1.18.1", "0.99", "", "1", "x.y"] {
            assert_eq!(table_of(old), None, "{old}");
        }
    }
}
