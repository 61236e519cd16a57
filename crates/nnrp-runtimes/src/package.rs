//! Runtimes' C libraries: where they lie, and how people get them.
use nnrp_core::{NnrpError, Reason, Result};
use std::path::{Path, PathBuf};

/// A runtime's C library and the Python package that brings it.
pub(crate) struct Package {
    /// The runtime's name, which is also the package's and that of our extra.
    pub(crate) runtime: &'static str,
    /// What people call it.
    pub(crate) title: &'static str,
    /// The oldest version that will do.
    pub(crate) minimum: &'static str,
    /// Names the library, or the folder that it lies in.
    pub(crate) variable: &'static str,
    /// Where the package keeps it.
    pub(crate) folder: &'static str,
    /// The library's name, without what each system puts around it.
    pub(crate) stem: &'static str,
    /// How the file ends on Linux when it is the system's.
    pub(crate) system_ending: &'static str,
}

impl Package {
    /// Where the library lies: at `hint` (a file, or the folder that holds it), where the environment variable says, in the active virtual
    /// environment, beside our own package, or wherever the system's loader looks.
    ///
    /// # Errors
    /// `RUNTIME_NOT_INSTALLED` when there is nothing where `hint` or the variable points.
    pub(crate) fn find(&self, hint: Option<&Path>) -> Result<PathBuf> {
        if let Some(told) = hint.map(Path::to_owned).or_else(|| std::env::var_os(self.variable).map(PathBuf::from)) {
            let found = if told.is_dir() { self.in_folder(&told) } else { told.is_file().then_some(told) };
            return found.ok_or_else(|| self.not_installed("no library where it was said to be"));
        }
        let found = site_packages().into_iter().chain(beside_us()).find_map(|packages| self.in_folder(&packages.join(self.runtime).join(self.folder)));
        Ok(found.unwrap_or_else(|| PathBuf::from(self.system_name())))
    }

    /// The error of a library that is not there or will not do.
    #[cold]
    pub(crate) fn not_installed(&self, what: &str) -> NnrpError {
        let Package { runtime, title, minimum, .. } = self;
        let message = format!("runtime {runtime}: {what}; needed: {title} {minimum} or newer: pip install nnrp[{runtime}]");
        NnrpError::new(Reason::RuntimeNotInstalled, message).with("runtime", *runtime).with("needed", *minimum)
    }

    /// The error of a library that is too old.
    #[cold]
    pub(crate) fn too_old(&self, version: &str) -> NnrpError {
        let found = nnrp_core::error::excerpt(version);
        self.not_installed(&format!("found version {found}")).with("found", found)
    }

    fn system_name(&self) -> String {
        let stem = self.stem;
        if cfg!(windows) {
            format!("{stem}.dll")
        } else if cfg!(target_os = "macos") {
            format!("lib{stem}.dylib")
        } else {
            format!("lib{stem}{}", self.system_ending)
        }
    }

    fn in_folder(&self, folder: &Path) -> Option<PathBuf> {
        let stem = self.stem;
        let is_library = |name: &str| {
            if cfg!(windows) {
                name == format!("{stem}.dll")
            } else if cfg!(target_os = "macos") {
                name.starts_with(&format!("lib{stem}.")) && name.ends_with(".dylib")
            } else {
                name.starts_with(&format!("lib{stem}.so"))
            }
        };
        let names = std::fs::read_dir(folder).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| is_library(name)).max().map(|name| folder.join(name))
    }
}

/// Cores that this process may use, counting a core with two hardware threads once.
pub(crate) fn physical_cores() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    num_cpus::get_physical().clamp(1, allowed)
}

fn site_packages() -> Vec<PathBuf> {
    let Some(environment) = std::env::var_os("VIRTUAL_ENV").map(PathBuf::from) else { return Vec::new() };
    if cfg!(windows) {
        return vec![environment.join("Lib").join("site-packages")];
    }
    let pythons = std::fs::read_dir(environment.join("lib")).into_iter().flatten().flatten().map(|entry| entry.path());
    pythons.map(|python| python.join("site-packages")).filter(|packages| packages.is_dir()).collect()
}

/// The folder that holds the package that our own shared library lies in.
fn beside_us() -> Option<PathBuf> {
    folder()?.parent().map(Path::to_owned)
}

/// The folder of the shared library, or else the program, that this code lies in.
#[cfg(unix)]
pub fn folder() -> Option<PathBuf> {
    use std::ffi::CStr;
    use std::os::unix::ffi::OsStrExt;
    let mut found = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: the address is of our own code; `found` is only read when the call says that it was filled.
    let name = unsafe {
        if libc::dladdr(physical_cores as *const std::ffi::c_void, found.as_mut_ptr()) == 0 || found.assume_init_ref().dli_fname.is_null() {
            return None;
        }
        CStr::from_ptr(found.assume_init_ref().dli_fname)
    };
    Some(Path::new(std::ffi::OsStr::from_bytes(name.to_bytes())).parent()?.to_owned())
}

/// The folder of the shared library, or else the program, that this code lies in.
#[cfg(not(unix))]
pub fn folder() -> Option<PathBuf> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_where_it_was_said_to_be_is_not_installed() {
        for (package, extra) in [(&crate::onnxruntime::PACKAGE, "nnrp[onnxruntime]"), (&crate::openvino::PACKAGE, "nnrp[openvino]")] {
            let error = package.find(Some(Path::new("/nowhere/library.so"))).unwrap_err();
            assert!(error.is(Reason::RuntimeNotInstalled));
            assert!(error.message().contains(&format!("pip install {extra}")) && !error.message().contains("nowhere"), "{error}");
        }
    }
}
