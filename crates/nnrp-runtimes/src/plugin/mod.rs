//! Plug-ins: runtimes in shared libraries of other people's, behind the table `nnrp_runtime_v1` of `spec/nnrp.h`.
//!
//! Nothing that a plug-in gives is trusted further than memory allows: tables, texts, statuses and tensors are checked, and what is wrong is an error
//! that names the plug-in. A library that was opened stays open until the process ends.
mod documents;
mod fault;
mod library;
mod outputs;
mod session;
mod stream;
mod whole;

pub use library::Plugin;

use crate::c::abi::ABI_MAJOR;
use nnrp_core::runtime::{Runtimes, kept_name};
use nnrp_core::{ModelSpec, NnrpError, Reason, Result, Runtime, RuntimeInfo, Session};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Names a folder whose plug-ins every engine opens.
pub const VARIABLE: &str = "NNRP_PLUGINS";

/// Adds the plug-ins at `files`, and those in the folder that [`VARIABLE`] names. Of the latter, one that cannot be used tells why when it is
/// asked for, and in [`Runtimes::to_json`].
///
/// # Errors
/// `RUNTIME_NOT_INSTALLED` for one of `files` that cannot be opened, or whose name is another runtime's.
pub fn add(runtimes: &mut Runtimes, files: &[PathBuf]) -> Result<()> {
    let mut opened = Vec::new();
    for file in files {
        add_one(runtimes, &mut opened, file)?;
    }
    let Some(folder) = std::env::var_os(VARIABLE).filter(|folder| !folder.is_empty()) else { return Ok(()) };
    let Some(files) = libraries(Path::new(&folder)) else {
        let error = NnrpError::new(Reason::RuntimeNotInstalled, format!("{VARIABLE}: expected a folder that can be read"));
        runtimes.add(Arc::new(Unusable { name: VARIABLE, error }));
        return Ok(());
    };
    for file in files {
        let name = kept_name(&library::file_name(&file));
        if let Err(error) = add_one(runtimes, &mut opened, &file)
            && runtimes.get(name).is_none()
        {
            runtimes.add(Arc::new(Unusable { name, error }));
        }
    }
    Ok(())
}

fn add_one(runtimes: &mut Runtimes, opened: &mut Vec<&'static Plugin>, file: &Path) -> Result<()> {
    let plugin = Plugin::open(file)?;
    if opened.iter().any(|known| std::ptr::eq(*known, plugin)) {
        return Ok(());
    }
    if runtimes.get(plugin.name).is_some() || crate::COME_WITH_NNRP.contains(&plugin.name) {
        return Err(library::refused(plugin.name, "its name is another runtime's").with("plugin", library::file_name(file)));
    }
    opened.push(plugin);
    runtimes.add(Arc::new(plugin));
    Ok(())
}

/// The shared libraries in a folder, by name; `None` when it cannot be read.
fn libraries(folder: &Path) -> Option<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).ok()?;
    let is_library = |path: &PathBuf| path.extension().is_some_and(|ending| ending == std::env::consts::DLL_EXTENSION);
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_library).collect();
    found.sort();
    Some(found)
}

impl Runtime for &'static Plugin {
    fn name(&self) -> &'static str {
        self.name
    }

    fn info(&self) -> RuntimeInfo {
        let about = &self.about;
        RuntimeInfo {
            name: self.name,
            version: about.version.clone(),
            formats: about.formats.clone(),
            devices: about.devices.clone(),
            options: about.options.clone(),
        }
    }

    fn load(&self, spec: &ModelSpec) -> Result<Box<dyn Session>> {
        Ok(Box::new(session::PluginSession::load(self, spec)?))
    }
}

/// A plug-in of the folder that cannot be used.
struct Unusable {
    name: &'static str,
    error: NnrpError,
}

impl Runtime for Unusable {
    fn name(&self) -> &'static str {
        self.name
    }

    fn info(&self) -> RuntimeInfo {
        RuntimeInfo { name: self.name, version: String::new(), formats: Vec::new(), devices: Vec::new(), options: serde_json::json!({}) }
    }

    fn unusable(&self) -> Option<NnrpError> {
        Some(self.error.clone())
    }

    fn look(&self, _spec: &ModelSpec) -> Result<()> {
        Err(self.error.clone())
    }

    fn load(&self, _spec: &ModelSpec) -> Result<Box<dyn Session>> {
        Err(self.error.clone())
    }
}

/// The major version of a table that was compiled for another ABI.
const fn major(abi_version: u32) -> u32 {
    abi_version >> 16
}

const _: () = assert!(ABI_MAJOR == 1, "a new major version has an entry of its own");
