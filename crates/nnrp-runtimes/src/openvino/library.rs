//! The C library: opened once, with the one core of the process.
use super::failure::Failure;
use super::table::{Core, Functions, RawDevices, RawVersion, Status};
pub(super) use crate::foreign::Owned;
use crate::package::{Package, physical_cores};
use nnrp_core::{NnrpError, Result};
use parking_lot::Mutex;
use std::ffi::{CStr, c_char};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::ptr::{NonNull, null, null_mut};

/// Names the library, or the folder that it lies in.
pub const VARIABLE: &str = "NNRP_OPENVINO_LIBRARY";

pub(crate) const PACKAGE: Package = Package {
    runtime: super::NAME,
    title: "OpenVINO",
    // The numbers of the element types were others before.
    minimum: "2025.1",
    variable: VARIABLE,
    folder: "libs",
    stem: "openvino_c",
    system_ending: ".so",
};

/// An opened library with its core; lives as long as the process.
pub(super) struct Library {
    pub(super) functions: Functions,
    pub(super) core: *mut Core,
    pub(super) version: String,
    /// Threads of one run, unless an option says otherwise.
    pub(super) threads: usize,
    /// One load at a time: what is made of a failure depends on its text, and the library keeps one text for the process.
    pub(super) loads: Mutex<()>,
    _handle: ManuallyDrop<libloading::Library>,
}

// SAFETY: the functions are constant, and a core may be used from any thread, and from several at once.
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
        // SAFETY: its initialisers are OpenVINO's own; whoever can place a library here or set the variable runs code as us anyway.
        let handle = unsafe { libloading::Library::new(path) }.map_err(|_| PACKAGE.not_installed("its library cannot be opened"))?;
        // SAFETY: the handle is kept as long as the functions; they are called only after the version was checked.
        let functions = unsafe { Functions::of(&handle) }.ok_or_else(|| PACKAGE.not_installed("what was found is another library"))?;
        let version = version_of(&functions).ok_or_else(|| PACKAGE.not_installed("its library gives no version"))?;
        if !will_do(&version) {
            return Err(PACKAGE.too_old(&version));
        }
        let handle = ManuallyDrop::new(handle);
        let mut library = Library { functions, core: null_mut(), version, threads: physical_cores(), loads: Mutex::new(()), _handle: handle };
        let mut core = null_mut();
        // SAFETY: `core` is ours to fill, and lives as long as the process.
        library.check(unsafe { (library.functions.ov_core_create)(&mut core) }).map_err(|failure| failure.into_load_error(None))?;
        library.core = core;
        Ok(library)
    }

    /// What a status says.
    #[inline]
    pub(super) fn check(&self, status: Status) -> std::result::Result<(), Failure> {
        if status == 0 { Ok(()) } else { Err(Failure::take(self, status)) }
    }

    /// What a function makes through its last argument, freed at the end.
    #[inline]
    pub(super) fn made<T>(
        &'static self,
        free: unsafe extern "C" fn(*mut T),
        make: impl FnOnce(*mut *mut T) -> Status,
    ) -> std::result::Result<Owned<T>, Failure> {
        let mut made = null_mut();
        self.check(make(&mut made))?;
        NonNull::new(made).map(|ptr| Owned::of(ptr, free)).ok_or_else(Failure::nothing)
    }

    /// A text that a function makes through its last argument.
    pub(super) fn text(&self, make: impl FnOnce(*mut *mut c_char) -> Status) -> std::result::Result<String, Failure> {
        let mut made = null_mut();
        self.check(make(&mut made))?;
        if made.is_null() {
            return Ok(String::new());
        }
        // SAFETY: the library gave a text that ends with NUL, and takes it back once.
        unsafe {
            let text = CStr::from_ptr(made).to_string_lossy().into_owned();
            (self.functions.ov_free)(made);
            Ok(text)
        }
    }

    /// A property of a device.
    pub(super) fn property(&self, device: &CStr, key: &CStr) -> std::result::Result<String, Failure> {
        // SAFETY: the core is alive, and the texts live through the call.
        self.text(|out| unsafe { (self.functions.ov_core_get_property)(self.core, device.as_ptr(), key.as_ptr(), out) })
    }

    /// The devices of this machine.
    pub(super) fn devices(&self) -> std::result::Result<Vec<String>, Failure> {
        let mut raw = RawDevices { names: null_mut(), count: 0 };
        // SAFETY: the core is alive; the library gives `count` texts that end with NUL, and takes the array back.
        unsafe {
            self.check((self.functions.ov_core_get_available_devices)(self.core, &mut raw))?;
            let names = (0..raw.count).map(|index| CStr::from_ptr(*raw.names.add(index)).to_string_lossy().into_owned()).collect();
            (self.functions.ov_available_devices_free)(&mut raw);
            Ok(names)
        }
    }

    /// [`Library::devices`], or the error of a load.
    pub(super) fn devices_for_load(&self) -> std::result::Result<Vec<String>, NnrpError> {
        self.devices().map_err(|failure| failure.into_load_error(None))
    }
}

/// `2026.4.1`, of what the library calls `2026.4.1-22982-e213a147257-releases/2026/4`.
fn version_of(functions: &Functions) -> Option<String> {
    let mut raw = RawVersion { build: null(), description: null() };
    // SAFETY: the library fills `raw` with texts that end with NUL, and takes them back once.
    unsafe {
        if (functions.ov_get_openvino_version)(&mut raw) != 0 || raw.build.is_null() {
            return None;
        }
        let build = CStr::from_ptr(raw.build).to_string_lossy().into_owned();
        (functions.ov_version_free)(&mut raw);
        Some(build.split('-').next().unwrap_or_default().to_owned())
    }
}

fn will_do(version: &str) -> bool {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    matches!((numbers.next(), numbers.next()), (Some(Ok(year)), Some(Ok(release))) if (year, release) >= (2025, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_before_the_element_types_had_their_numbers_are_too_old() {
        for version in ["2025.1.0", "2026.4.1", "2025.4", "2027.0"] {
            assert!(will_do(version), "{version}");
        }
        for version in ["2025.0.0", "2024.6.0", "", "custom", "2025"] {
            assert!(!will_do(version), "{version}");
        }
    }
}
