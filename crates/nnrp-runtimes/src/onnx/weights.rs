//! The files beside an ONNX model that it keeps its weights in.
use super::read;
use crate::beside;
use nnrp_core::Result;
use std::collections::BTreeSet;
use std::path::{Component, Path};

/// What runtimes take for the address of weights that the program itself has put there; in a file it reads anybody's memory.
const MEMORY: &str = "_ORT_MEM_ADDR_";

/// A file that the model keeps weights in and that is not there, by its own name; `None` also when the model cannot be read.
pub(crate) fn missing(path: &Path) -> Option<String> {
    let (model, _) = read(path).ok()?;
    let folder = path.parent()?;
    let missing = model.external.into_iter().find(|location| !folder.join(location).exists())?;
    Path::new(&missing).file_name()?.to_str().map(str::to_owned)
}

/// The files beside the model that it keeps weights in; none when it cannot be read.
pub(crate) fn files(path: &Path) -> BTreeSet<String> {
    read(path).map(|(model, _)| model.external).unwrap_or_default()
}

/// Refuses weights that lie elsewhere; whether the files are there is for the runtime to say.
///
/// # Errors
/// `INVALID_MODEL`.
pub(super) fn check(model: &Path, locations: &BTreeSet<String>) -> Result<()> {
    match locations.iter().find_map(|location| misplaced(model, location)) {
        None => Ok(()),
        Some(got) => Err(beside::refused(got)),
    }
}

/// Where weights lie that a file must not name; `None` for those of a file beside the model, be it there or missing.
fn misplaced(model: &Path, location: &str) -> Option<&'static str> {
    let is_beside = Path::new(location).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if location.contains(MEMORY) {
        Some("in the memory of the process")
    } else if !is_beside || beside::is_elsewhere(model, &model.parent()?.join(location)) {
        Some("outside its folder")
    } else {
        let found = model.parent()?.join(location).metadata().ok()?;
        (!found.is_file()).then_some("in what is no file")
    }
}
