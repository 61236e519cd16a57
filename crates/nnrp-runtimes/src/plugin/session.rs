//! A model that a plug-in has loaded, and its runs.
use super::documents::{self, SessionTold};
use super::fault::{Verb, check};
use super::library::Plugin;
use super::outputs::{Given, Slots};
use super::stream::{Giving, give};
use crate::c::abi::{NnrpFault, NnrpModelSpec, NnrpRun, NnrpSession, Versioned};
use crate::c::clock::deadline_ns;
use crate::c::dlpack::Lent;
use crate::c::memory::own;
use crate::options::name_of;
use nnrp_core::error::excerpt;
use nnrp_core::parameters::to_json;
use nnrp_core::runtime::{Threads, Verb as Tended};
use nnrp_core::{Concurrency, Control, ModelSpec, NnrpError, Outputs, Precision, Reason, Result, Session, SessionInfo, Sink, Stop, Tensor, TensorSpec};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use smallvec::SmallVec;
use std::ffi::{CStr, CString, c_char};
use std::path::PathBuf;
use std::ptr::{NonNull, null, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Instant;

/// One loaded model.
pub(super) struct PluginSession {
    handle: Handle,
    info: SessionInfo,
    names: Vec<CString>,
    /// The options that hold. Held during every call but `run`, which a plug-in takes one at a time.
    options: Mutex<Map<String, Value>>,
    path: PathBuf,
}

/// A plug-in's session; closed at the end.
struct Handle {
    plugin: &'static Plugin,
    ptr: NonNull<NnrpSession>,
}

// SAFETY: the header says that sessions are used from any thread; what of them is used by one at a time is said where it is done.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the plug-in made it; nothing uses it any more.
        unsafe { (self.plugin.verbs.close)(self.ptr.as_ptr()) }
    }
}

impl PluginSession {
    /// Loads the file with what its description asks for.
    pub(super) fn load(plugin: &'static Plugin, spec: &ModelSpec) -> Result<PluginSession> {
        plugin.schema.check(&spec.options)?;
        let handle = open(plugin, spec)?;
        // SAFETY: the session is alive; both pointers are there to be filled.
        let tell = |json: *mut *const c_char, fault: *mut NnrpFault| unsafe { (plugin.verbs.session_info)(handle.ptr.as_ptr(), json, fault) };
        let told = documents::read(plugin.name, "session_info", tell, Verb::Load)?;
        let (told, signature) = SessionTold::of(told).map_err(|wrong| Verb::Load.error(plugin.name, &format!("session_info: {wrong}")))?;
        let device = told.device.unwrap_or_else(|| "cpu".to_owned());
        let precision = told.precision.unwrap_or_else(|| name_of(Precision::Strict).to_owned());
        honoured(plugin.name, spec, &device, &precision)?;
        // What it says among its settings is held to what was asked for, too.
        let said = |key: &str, holds: &str| told.settings.get(key).and_then(Value::as_str).unwrap_or(holds).to_owned();
        honoured(plugin.name, spec, &said("device", &device), &said("precision", &precision))?;
        if told.streams && plugin.verbs.table.stream.is_none() {
            return Err(Verb::Load.error(plugin.name, "session_info: streams: expected a table that has the function stream, got NULL"));
        }
        let mut settings = told.settings;
        settings.insert("precision".to_owned(), precision.into());
        let info = SessionInfo {
            signature,
            runtime: plugin.name,
            runtime_version: plugin.about.version.clone(),
            format: told.format.or_else(|| plugin.about.formats.first().cloned()).unwrap_or_else(|| "unknown".to_owned()),
            device,
            concurrency: if told.exclusive { Concurrency::Exclusive } else { Concurrency::Shared },
            threads: Threads::Any,
            cancellable: told.cancellable,
            streams: told.streams,
            settings,
        };
        let names = info.signature.inputs.iter().map(|input| own(&input.name)).collect();
        Ok(PluginSession { handle, info, names, options: Mutex::new(spec.options.clone()), path: spec.path.clone() })
    }

    /// Calls what runs such that `stop` ends it.
    fn call_watched(&self, mut run: NnrpRun, stop: Option<&Stop>, deadline: Option<Instant>, call: impl FnOnce(&NnrpRun) -> i32) -> i32 {
        let Some(stop) = stop else { return call(&run) };
        let signal = Arc::new(Signal { flag: AtomicI32::new(0), goes_on: Mutex::new(None) });
        run.stop = &raw const signal.flag;
        run.deadline_ns = deadline_ns(deadline);
        *signal.goes_on.lock() = self.handle.plugin.verbs.table.cancel.map(|cancel| Cancel { cancel, session: self.handle.ptr, run: &raw const run });
        let raised = signal.clone();
        let status = stop.during(move || raised.raise(), || call(&run));
        // Waits for a `cancel` that goes on: none comes after this.
        signal.goes_on.lock().take();
        status
    }

    /// Describes what is to be run to `work`, which calls the plug-in. What it gave may be the inputs' until `work` is over.
    fn lending<T>(
        &self,
        inputs: &[Option<Tensor<'_>>],
        outputs: &[usize],
        control: Control<'_>,
        slots: &Slots,
        work: impl FnOnce(NnrpRun) -> Result<T>,
    ) -> Result<T> {
        static GOES_ON: AtomicI32 = AtomicI32::new(0);
        if inputs.len() != self.names.len() || outputs.iter().any(|&index| index >= self.info.signature.outputs.len()) {
            return Err(NnrpError::new(Reason::Bug, "a run with other inputs or outputs than the signature's"));
        }
        let named = self.names.iter().zip(inputs);
        let mut lent: SmallVec<[Option<Lent<'_>>; 2]> = named.map(|(name, tensor)| tensor.as_ref().map(|tensor| Lent::new(name, tensor))).collect();
        let pointers: SmallVec<[_; 2]> = lent.iter_mut().map(|lent| lent.as_mut().map_or(null(), Lent::lend)).collect();
        let (results, id) = (slots.lend(), control.id.map(own));
        let parameters = (!control.parameters.is_empty()).then(|| own(&to_json(control.parameters).to_string()));
        work(NnrpRun {
            struct_size: size_of::<NnrpRun>(),
            inputs: pointers.as_ptr(),
            n_inputs: pointers.len(),
            outputs: outputs.as_ptr(),
            n_outputs: outputs.len(),
            results: results.as_ptr(),
            stop: &raw const GOES_ON,
            deadline_ns: 0,
            give: None,
            id: id.as_deref().map_or(null(), CStr::as_ptr),
            parameters_json: parameters.as_deref().map_or(null(), CStr::as_ptr),
        })
    }

    /// Calls a verb that the plug-in may not have, while it has no other but `run`.
    fn verb(&self, name: &str, call: impl FnOnce(*mut NnrpSession, *mut NnrpFault) -> i32) -> Result<()> {
        let mut fault = NnrpFault::sized();
        let status = call(self.handle.ptr.as_ptr(), &raw mut fault);
        check(self.info.runtime, Verb::Run, name, status, &fault, Some(&self.path))
    }

    fn specs(&self, outputs: &[usize]) -> impl Iterator<Item = &TensorSpec> {
        outputs.iter().map(|&index| &self.info.signature.outputs[index])
    }

    fn exclusive(&self) -> bool {
        self.info.concurrency == Concurrency::Exclusive
    }
}

impl Session for PluginSession {
    fn info(&self) -> &SessionInfo {
        &self.info
    }

    fn run(&self, inputs: &[Option<Tensor<'_>>], outputs: &[usize], control: Control<'_>) -> Result<Outputs> {
        let (slots, mut fault) = (Slots::new(outputs.len()), NnrpFault::sized());
        let turn = self.exclusive().then(|| self.options.lock());
        let stop = control.stop.filter(|_| self.info.cancellable);
        let made = self.lending(inputs, outputs, control, &slots, |run| {
            // SAFETY: the session is alive, and all that `run` points to lives until the call is over.
            let call = |run: &NnrpRun| unsafe { (self.handle.plugin.verbs.run)(self.handle.ptr.as_ptr(), run, &raw mut fault) };
            let status = self.call_watched(run, stop, control.deadline, call);
            // SAFETY: the plug-in has returned.
            let given = unsafe { slots.take() };
            check(self.info.runtime, Verb::Run, "run", status, &fault, Some(&self.path))?;
            // SAFETY: the plug-in says that it gave what the header asks for.
            unsafe { given.into_outputs(self.info.runtime, self.specs(outputs), inputs) }
        });
        drop(turn);
        made
    }

    fn stream(&self, inputs: &[Option<Tensor<'_>>], outputs: &[usize], control: Control<'_>, sink: &mut Sink<'_>) -> Result<()> {
        let verb = self.handle.plugin.verbs.table.stream.filter(|_| self.info.streams);
        let Some(verb) = verb else { return sink(self.run(inputs, outputs, control)?) };
        let (slots, mut fault) = (Slots::new(outputs.len()), NnrpFault::sized());
        let _turn = self.exclusive().then(|| self.options.lock());
        // SAFETY: the plug-in says that it gave what the header asks for.
        let mut take = |given: Given| sink(unsafe { given.into_outputs(self.info.runtime, self.specs(outputs), inputs)? });
        let giving = Giving::new(&slots, &mut take);
        // SAFETY: as in `run`.
        let call = |run: &NnrpRun| giving.during(run, |run| unsafe { verb(self.handle.ptr.as_ptr(), run, &raw mut fault) });
        let watched = |run| Ok(self.call_watched(NnrpRun { give: Some(give), ..run }, control.stop, control.deadline, call));
        let status = self.lending(inputs, outputs, control, &slots, watched)?;
        // SAFETY: the plug-in has returned.
        let left = unsafe { slots.take() };
        giving.ended()?;
        check(self.info.runtime, Verb::Run, "stream", status, &fault, Some(&self.path))?;
        if left.is_empty() { Ok(()) } else { Err(Verb::Run.error(self.info.runtime, "stream: expected each answer to be given, got one that was left")) }
    }

    fn tend(&self, verb: Tended<'_>) -> Result<Value> {
        match verb {
            Tended::Stats => self.stats(),
            Tended::WarmUp => self.warm_up().map(|()| Value::Null),
            Tended::SetOption(name, value) => self.set_option(name, value).map(|()| Value::Null),
        }
    }
}

impl PluginSession {
    fn stats(&self) -> Result<Value> {
        let stats = self.handle.plugin.verbs.table.stats.ok_or_else(|| self.not_offered("stats"))?;
        let _turn = self.options.lock();
        // SAFETY: the session is alive; both pointers are there to be filled.
        let tell = |json: *mut *const c_char, fault: *mut NnrpFault| unsafe { stats(self.handle.ptr.as_ptr(), json, fault) };
        documents::read(self.info.runtime, "stats", tell, Verb::Run).map(Value::Object)
    }

    fn set_option(&self, name: &str, value: &Value) -> Result<()> {
        let set = self.handle.plugin.verbs.table.set_option.ok_or_else(|| self.not_offered("set_option"))?;
        let mut options = self.options.lock();
        let mut wanted = options.clone();
        wanted.insert(name.to_owned(), value.clone());
        self.handle.plugin.schema.check(&wanted)?;
        let (name, value) = (own(name), own(&value.to_string()));
        // SAFETY: the session is alive, and the texts live until the call is over.
        self.verb("set_option", |session, fault| unsafe { set(session, name.as_ptr(), value.as_ptr(), fault) })?;
        *options = wanted;
        Ok(())
    }

    fn warm_up(&self) -> Result<()> {
        let warm_up = self.handle.plugin.verbs.table.warm_up.ok_or_else(|| self.not_offered("warm_up"))?;
        let _turn = self.options.lock();
        // SAFETY: the session is alive.
        self.verb("warm_up", |session, fault| unsafe { warm_up(session, fault) })
    }
}

/// Tells a run that nobody waits for it any more.
struct Signal {
    flag: AtomicI32,
    /// How to end the run, while it goes on.
    goes_on: Mutex<Option<Cancel>>,
}

struct Cancel {
    cancel: unsafe extern "C" fn(*mut NnrpSession, *const NnrpRun),
    session: NonNull<NnrpSession>,
    run: *const NnrpRun,
}

// SAFETY: the header says that `cancel` is called by another thread; session and run are alive while the run goes on.
unsafe impl Send for Cancel {}

impl Signal {
    fn raise(&self) {
        self.flag.store(1, Ordering::Release);
        if let Some(Cancel { cancel, session, run }) = self.goes_on.lock().take() {
            // SAFETY: the run goes on: it waits for this lock before it is over.
            unsafe { cancel(session.as_ptr(), run) };
        }
    }
}

fn open(plugin: &'static Plugin, spec: &ModelSpec) -> Result<Handle> {
    let path = spec.path.to_str().ok_or_else(|| NnrpError::new(Reason::FileNotFound, "model file: no such file"))?;
    let options = Value::Object(spec.options.clone()).to_string();
    // Where it is isolated, this is the process that it has for itself.
    let texts = [&spec.name, &spec.version, path, plugin.name, &options, &spec.device, name_of(spec.precision), "none"].map(own);
    let [name, version, path, runtime, options_json, device, precision, isolation] = texts.each_ref().map(|text| text.as_ptr());
    let given = NnrpModelSpec { struct_size: size_of::<NnrpModelSpec>(), name, version, path, runtime, options_json, device, precision, isolation };
    let (mut session, mut fault) = (null_mut(), NnrpFault::sized());
    // SAFETY: every text lives until the call is over; the session is the plug-in's to make.
    let status = unsafe { (plugin.verbs.load)(&raw const given, &raw mut session, &raw mut fault) };
    check(plugin.name, Verb::Load, "load", status, &fault, Some(&spec.path))?;
    let ptr = NonNull::new(session).ok_or_else(|| Verb::Load.error(plugin.name, "load: expected a session, got NULL"))?;
    Ok(Handle { plugin, ptr })
}

/// Whether a session has the device and the precision that its model asked for.
fn honoured(runtime: &str, spec: &ModelSpec, device: &str, precision: &str) -> Result<()> {
    let wrong = |reason, what: &str, expected: &str, got: &str| {
        let (expected, got) = (excerpt(expected), excerpt(got));
        let message = format!("runtime {runtime}: expected {what} '{expected}', got '{got}'");
        NnrpError::new(reason, message).with("runtime", runtime).with("expected", expected).with("got", got)
    };
    if spec.device != "auto" && !spec.device.eq_ignore_ascii_case(device) {
        return Err(wrong(Reason::DeviceNotFound, "device", &spec.device, device));
    }
    let asked = name_of(spec.precision);
    if spec.precision != Precision::Fast && asked != precision {
        return Err(wrong(Reason::NotOffered, "precision", asked, precision));
    }
    Ok(())
}
