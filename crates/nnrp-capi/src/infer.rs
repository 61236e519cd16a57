//! One request through the engine: C structs in, C structs out.
use crate::abi::{NnrpCancel, NnrpEngine, NnrpError, NnrpRequest, NnrpResponse, NnrpTensor, Status, number_of};
use crate::boundary::{call, call_quietly, malformed, optional_text, own, put, read, refer, refer_all, text, write};
use nnrp_core::{Cause, Input, NnrpError as Error, Output, Parameter, Parameters, Reason, Request, Response, Result, Shape, Tensor};
use nnrp_runtimes::c::clock;
use nnrp_runtimes::c::dlpack::{Place, export, import};
use serde_json::{Map, Value};
use std::ffi::CString;
use std::ptr;
use std::sync::atomic::Ordering;

/// Runs one request on the calling thread.
///
/// # Safety
/// `spec/nnrp.h` says what each pointer must be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nnrp_infer(engine: *mut NnrpEngine, request: *const NnrpRequest, response: *mut NnrpResponse, error: *mut NnrpError) -> Status {
    let body = || {
        // SAFETY: the caller keeps what the header says.
        unsafe { read("response", response)? };
        // SAFETY: as above.
        let answered = unsafe { answer(engine, request) };
        // What the response held may have been this request's input, so it ends only now.
        // SAFETY: as above.
        unsafe { clear("response", response)? };
        // SAFETY: `clear` has checked the struct.
        unsafe { write(response, &give(answered?)) };
        Ok(())
    };
    // SAFETY: as above.
    unsafe { call(error, body) }
}

/// Ends a response.
///
/// # Safety
/// `spec/nnrp.h` says what the pointer must be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nnrp_response_clear(response: *mut NnrpResponse) {
    if !response.is_null() {
        // A response of a wrong size cannot be ours to end.
        // SAFETY: the caller keeps what the header says.
        call_quietly(|| drop(unsafe { clear("response", response) }));
    }
}

/// # Safety
/// The engine and the request, and what that points to, are as the header says.
unsafe fn answer(engine: *mut NnrpEngine, request: *const NnrpRequest) -> Result<Response> {
    // SAFETY: passed on from this function's caller.
    let (engine, given) = unsafe { (refer("engine", engine)?, read("request", request)?) };
    // SAFETY: as above.
    let (busy, mut request) = unsafe { (Busy::take(given.cancel)?, decode(&given, |tensor| tensor)?) };
    request.stop = busy.as_ref().map(|busy| busy.0.stop.clone());
    engine.0.infer(request)
}

/// The request, with its tensors as `keep` makes them.
///
/// # Safety
/// What the request points to is as the header says and lives for `'a`.
pub(crate) unsafe fn decode<'a, 'd>(given: &NnrpRequest, keep: impl Fn(Tensor<'a>) -> Tensor<'d>) -> Result<Request<'a, 'd>> {
    // SAFETY: the caller vouches for every pointer of the request.
    unsafe {
        let version = optional_text("request.version", given.version)?.unwrap_or_default();
        let parameters = optional_text("request.parameters_json", given.parameters_json)?.map_or(Ok(Parameters::new()), parameters)?;
        let mut request = Request {
            model: text("request.model", given.model)?.into(),
            version: version.into(),
            id: optional_text("request.id", given.id)?.map(Box::from),
            parameters,
            deadline: clock::instant(given.deadline_ns),
            ..Request::default()
        };
        for tensor in refer_all("request.inputs", given.inputs, given.n_inputs)? {
            let tensor = read("request.inputs: input", *tensor)?;
            let name = text("request.inputs: name", tensor.name)?;
            request.inputs.push(Input { name: name.into(), tensor: keep(import(Place { what: "input", name }, &tensor)?) });
        }
        for name in refer_all("request.output_names", given.output_names, given.n_outputs)? {
            request.outputs.push(text("request.output_names: name", *name)?.into());
        }
        Ok(request)
    }
}

fn parameters(json: &str) -> Result<Parameters> {
    let object: Map<String, Value> = serde_json::from_str(json).map_err(|error| malformed("request.parameters_json", "a JSON object", error))?;
    object.into_iter().map(|(name, value)| parameter(&name, value).map(|value| (name, value))).collect()
}

fn parameter(name: &str, value: Value) -> Result<Parameter> {
    Ok(match value {
        Value::Bool(value) => Parameter::Bool(value),
        Value::String(value) => Parameter::String(value),
        Value::Number(value) => match (value.as_i64(), value.as_u64(), value.as_f64()) {
            (Some(value), _, _) => Parameter::Int(value),
            (None, Some(value), _) => Parameter::Uint(value),
            (None, None, value) => Parameter::Double(value.unwrap_or(f64::NAN)),
        },
        Value::Null | Value::Array(_) | Value::Object(_) => {
            let name = nnrp_core::error::excerpt(name);
            let message = format!("parameter '{name}': expected a boolean, a number or a text, got {value}");
            return Err(Error::new(Reason::InvalidParameter, nnrp_core::error::excerpt(&message)).with("parameter", name));
        }
    })
}

/// What a response points to.
struct Owner {
    _texts: [CString; 3],
    outputs: Vec<*mut NnrpTensor>,
}

/// An output of C's with the texts that it points to.
#[repr(C)]
struct Named {
    tensor: NnrpTensor,
    name: CString,
    shape: Shape,
}

pub(crate) fn give(response: Response) -> NnrpResponse {
    let texts = [own(&response.model), own(&response.version), own(response.id.as_deref().unwrap_or_default())];
    let [model, version, id] = texts.each_ref().map(|text| text.as_ptr());
    let id = if response.id.is_some() { id } else { ptr::null() };
    let owner = Box::new(Owner { _texts: texts, outputs: response.outputs.into_iter().map(give_output).collect() });
    let (outputs, n_outputs) = (owner.outputs.as_ptr(), owner.outputs.len());
    NnrpResponse { struct_size: size_of::<NnrpResponse>(), model, version, id, outputs, n_outputs, owner: Box::into_raw(owner).cast() }
}

fn give_output(output: Output) -> *mut NnrpTensor {
    let (datatype, shape, name) = (number_of(output.tensor.datatype), output.tensor.shape.clone(), own(&output.name));
    let tensor = NnrpTensor {
        struct_size: size_of::<NnrpTensor>(),
        name: name.as_ptr(),
        tensor: export(output.tensor),
        datatype,
        ndim: shape.len() as i32,
        shape: ptr::null(),
    };
    let mut named = Box::new(Named { tensor, name, shape });
    named.tensor.shape = named.shape.as_ptr();
    Box::into_raw(named).cast()
}

/// Ends what a response holds and empties it.
///
/// # Safety
/// `response` was zeroed or filled by this library and no other thread uses it.
pub(crate) unsafe fn clear(argument: &str, response: *mut NnrpResponse) -> Result<()> {
    // SAFETY: passed on from this function's caller.
    let held = unsafe { read(argument, response)? };
    let empty = NnrpResponse { model: ptr::null(), version: ptr::null(), id: ptr::null(), outputs: ptr::null(), n_outputs: 0, owner: ptr::null_mut(), ..held };
    // SAFETY: `read` has checked the struct.
    unsafe { write(response, &empty) };
    if held.owner.is_null() {
        return Ok(());
    }
    // SAFETY: `give` made it, and the response has just forgotten it.
    let owner = unsafe { Box::from_raw(held.owner.cast::<Owner>()) };
    for output in &owner.outputs {
        // SAFETY: `give_output` made it; the caller changes nothing of it but `tensor`, and that to NULL.
        let named = unsafe { Box::from_raw(output.cast::<Named>()) };
        let tensor = named.tensor.tensor;
        // SAFETY: not taken, so still ours.
        if let Some(delete) = unsafe { tensor.as_ref() }.and_then(|managed| managed.deleter) {
            // SAFETY: `export` made it, with its own deleter.
            unsafe { delete(tensor) };
        }
    }
    Ok(())
}

/// A handle while a request carries it: what interrupts a run has room for one.
pub(crate) struct Busy<'a>(pub(crate) &'a NnrpCancel);

impl<'a> Busy<'a> {
    /// # Safety
    /// `cancel` is NULL or lives for `'a`.
    pub(crate) unsafe fn take(cancel: *mut NnrpCancel) -> Result<Option<Busy<'a>>> {
        if cancel.is_null() {
            return Ok(None);
        }
        // SAFETY: passed on from this function's caller.
        let cancel = unsafe { refer::<NnrpCancel>("request.cancel", cancel)? };
        if cancel.busy.swap(true, Ordering::Acquire) {
            return Err(malformed("request.cancel", "a handle that no other request carries", "one that is in use"));
        }
        Ok(Some(Busy(cancel)))
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}

/// Makes a handle that stops a request.
///
/// # Safety
/// `spec/nnrp.h` says what each pointer must be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nnrp_cancel_create(cancel: *mut *mut NnrpCancel, error: *mut NnrpError) -> Status {
    let body = || {
        // SAFETY: the caller keeps what the header says.
        unsafe { put("cancel", cancel, || Ok(Box::into_raw(Box::default()))) }
    };
    // SAFETY: as above.
    unsafe { call(error, body) }
}

/// Stops the request that carries the handle.
///
/// # Safety
/// `spec/nnrp.h` says what the pointer must be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nnrp_cancel_raise(cancel: *mut NnrpCancel) {
    // SAFETY: the caller keeps what the header says.
    if let Some(cancel) = unsafe { cancel.as_ref() } {
        call_quietly(|| cancel.stop.raise(Cause::Cancelled));
    }
}

/// Ends a handle.
///
/// # Safety
/// `spec/nnrp.h` says what the pointer must be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nnrp_cancel_free(cancel: *mut NnrpCancel) {
    if !cancel.is_null() {
        // SAFETY: `nnrp_cancel_create` made it from a box.
        call_quietly(|| drop(unsafe { Box::from_raw(cancel) }));
    }
}
