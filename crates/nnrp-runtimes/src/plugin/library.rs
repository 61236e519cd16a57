//! Opening a plug-in's library: everything that its table says is checked before anything of it is called.
use super::documents::{self, About};
use super::{fault, major, whole};
use crate::Schema;
use crate::c::abi::{ABI_MAJOR, NnrpFault, NnrpModelSpec, NnrpRun, NnrpRuntimeV1, NnrpSession, Status, Versioned};
use crate::c::memory::{read_offer, refer, text};
use crate::scrub::scrub;
use libloading::Library as Handle;
use nnrp_core::error::excerpt;
use nnrp_core::runtime::kept_name;
use nnrp_core::{NnrpError, Reason, Result};
use parking_lot::Mutex;
use std::ffi::c_char;
use std::mem::{ManuallyDrop, offset_of};
use std::path::{Path, PathBuf};

/// The longest name of a runtime, in bytes.
const NAME_LIMIT: usize = 64;

/// A plug-in that was opened; lives as long as the process.
pub struct Plugin {
    pub(super) name: &'static str,
    pub(super) about: About,
    pub(super) schema: Schema,
    pub(super) verbs: Verbs,
    _handle: ManuallyDrop<Handle>,
}

/// The functions of a table that must be there, and those that may.
pub(super) struct Verbs {
    pub(super) load: unsafe extern "C" fn(*const NnrpModelSpec, *mut *mut NnrpSession, *mut NnrpFault) -> Status,
    pub(super) session_info: unsafe extern "C" fn(*mut NnrpSession, *mut *const c_char, *mut NnrpFault) -> Status,
    pub(super) run: unsafe extern "C" fn(*mut NnrpSession, *const NnrpRun, *mut NnrpFault) -> Status,
    pub(super) close: unsafe extern "C" fn(*mut NnrpSession),
    /// The whole table, for what is optional.
    pub(super) table: NnrpRuntimeV1,
}

// SAFETY: a table and its texts are constant, and its functions may be called from any thread.
unsafe impl Send for Verbs {}
// SAFETY: as above.
unsafe impl Sync for Verbs {}

static OPENED: Mutex<Vec<(PathBuf, &'static Plugin)>> = Mutex::new(Vec::new());

impl Plugin {
    /// The plug-in at `file`, opened once.
    ///
    /// # Errors
    /// `RUNTIME_NOT_INSTALLED`, naming the plug-in by its own name, or by its file's as long as that is not known.
    pub fn open(file: &Path) -> Result<&'static Plugin> {
        let name = file_name(file);
        let whole = file.canonicalize().ok().filter(|file| file.is_file()).ok_or_else(|| unopened(&name, "no such file"))?;
        let mut opened = OPENED.lock();
        if let Some((_, plugin)) = opened.iter().find(|(known, _)| *known == whole) {
            return Ok(plugin);
        }
        let plugin: &'static Plugin = Box::leak(Box::new(Plugin::load(&whole, &name).map_err(|error| error.with("plugin", name))?));
        opened.push((whole, plugin));
        Ok(plugin)
    }

    fn load(file: &Path, file_name: &str) -> Result<Plugin> {
        if !whole::is_whole(file).map_err(|error| unopened(file_name, &format!("it cannot be read: {}", error.kind())))? {
            return Err(unopened(file_name, "it is cut off"));
        }
        // SAFETY: its initialisers are its own; whoever can name a library here runs code as us anyway. It is never closed: what it gave may be in
        // use anywhere, and threads of its own may run.
        let handle = unsafe { Handle::new(file) }.map(ManuallyDrop::new);
        let handle = handle.map_err(|error| unopened(file_name, "it cannot be opened").with("loader_message", scrub(&told(&error), Some(file))))?;
        // SAFETY: the type is that of the header.
        let entry = unsafe { handle.get::<unsafe extern "C" fn() -> *const NnrpRuntimeV1>(c"nnrp_runtime_v1") };
        let entry = entry.map_err(|_| unopened(file_name, "it does not export nnrp_runtime_v1"))?;
        // SAFETY: takes nothing, and gives a constant.
        let table = unsafe { entry() };
        // SAFETY: passed on from the plug-in, which keeps what the header says.
        let (name, table) = unsafe { (name_of(file_name, table)?, read_offer("table", table).map_err(|error| unopened(file_name, error.message()))?) };
        Plugin::of(name, table, handle)
    }

    fn of(name: &'static str, table: NnrpRuntimeV1, handle: ManuallyDrop<Handle>) -> Result<Plugin> {
        let missing = |verb: &str| refused(name, &format!("table: {verb}: expected a function, got NULL"));
        let info = table.info.ok_or_else(|| missing("info"))?;
        let verbs = Verbs {
            load: table.load.ok_or_else(|| missing("load"))?,
            session_info: table.session_info.ok_or_else(|| missing("session_info"))?,
            run: table.run.ok_or_else(|| missing("run"))?,
            close: table.close.ok_or_else(|| missing("close"))?,
            table,
        };
        // SAFETY: both pointers are there to be filled.
        let call = |json: *mut *const c_char, fault: *mut NnrpFault| unsafe { info(json, fault) };
        let told = documents::read(name, "info", call, fault::Verb::Open)?;
        let about = About::of(told).map_err(|wrong| refused(name, &format!("info: {wrong}")))?;
        let schema = Schema::new(name, about.schema.as_ref()).map_err(|wrong| refused(name, &format!("info: options: {wrong}")))?;
        Ok(Plugin { name, about, schema, verbs, _handle: handle })
    }
}

/// A plug-in's own name, once its table is known to be one that has it.
///
/// # Safety
/// `table` is NULL, or as the header says.
unsafe fn name_of(file_name: &str, table: *const NnrpRuntimeV1) -> Result<&'static str> {
    let wrong = |error: NnrpError| unopened(file_name, error.message());
    // SAFETY: a table begins with its size.
    let size = *unsafe { refer("table", table.cast::<usize>()) }.map_err(wrong)?;
    if size < offset_of!(NnrpRuntimeV1, name) {
        return Err(unopened(file_name, &format!("table: expected struct_size to be {}, got {size}", size_of::<NnrpRuntimeV1>())));
    }
    // SAFETY: it is at least that long, whatever its version.
    let version = unsafe { (&raw const (*table).abi_version).read() };
    if major(version) != ABI_MAJOR {
        let (expected, got) = (ABI_MAJOR, major(version));
        return Err(unopened(file_name, &format!("table: expected ABI {expected}, got {got}")).with("expected", expected).with("got", got));
    }
    if size < NnrpRuntimeV1::FIRST_SIZE {
        return Err(unopened(file_name, &format!("table: expected struct_size to be {}, got {size}", size_of::<NnrpRuntimeV1>())));
    }
    // SAFETY: of a version and size that has it; a text that ends with NUL.
    let name = unsafe { text("table: name", (*table).name) }.map_err(wrong)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > NAME_LIMIT || name.starts_with('.') || !name.chars().all(allowed) {
        let got = excerpt(name);
        let what = format!("table: name: expected 1 to {NAME_LIMIT} letters, digits, '.', '_' or '-', not starting with '.', got '{got}'");
        return Err(unopened(file_name, &what).with("got", got));
    }
    Ok(kept_name(name))
}

/// The name of a file, for errors: without its folder.
pub(super) fn file_name(file: &Path) -> String {
    excerpt(&file.file_name().unwrap_or_default().to_string_lossy())
}

/// What the system's loader said, with what lies behind it.
fn told(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| source.to_string())
}

#[cold]
fn unopened(file_name: &str, what: &str) -> NnrpError {
    NnrpError::new(Reason::RuntimeNotInstalled, format!("plug-in '{file_name}': {what}")).with("plugin", file_name)
}

/// The error of a plug-in that cannot be used, by its own name.
#[cold]
pub(super) fn refused(name: &str, what: &str) -> NnrpError {
    NnrpError::new(Reason::RuntimeNotInstalled, format!("runtime {name}: {what}")).with("runtime", name)
}
