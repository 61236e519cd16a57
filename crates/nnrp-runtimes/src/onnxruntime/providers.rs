//! Execution providers: which there are, and how each is asked for. One that is asked for and cannot be had is an error, never a fallback.
use super::failure::Failure;
use super::library::{Library, ort};
use crate::options::Texts;
use nnrp_core::error::excerpt;
use nnrp_core::{NnrpError, Reason, Result};
use ort_sys::{OrtSessionOptions, OrtStatusPtr, c_char};
use serde_json::{Map, Value, json};
use std::ffi::{CStr, CString};
use std::ptr::null_mut;

const CPU: &str = "CPUExecutionProvider";
/// Calls models that run elsewhere, where a model has nodes for that; all other nodes are the CPU's.
const AZURE: &str = "AzureExecutionProvider";

/// A provider by the name of ONNX Runtime's Python API, and its options.
#[derive(Debug)]
pub(super) struct Provider {
    pub(super) name: String,
    pub(super) options: Texts,
}

/// Names of the providers that the library was built with.
pub(super) fn available(library: &Library) -> std::result::Result<Vec<String>, Failure> {
    let (mut names, mut count) = (null_mut(), 0);
    // SAFETY: the library gives `count` strings that end with NUL, and takes the array back.
    unsafe {
        ort!(library, GetAvailableProviders(&mut names, &mut count))?;
        let found = (0..usize::try_from(count).unwrap_or(0)).map(|index| CStr::from_ptr(*names.add(index)).to_string_lossy().into_owned()).collect();
        ort!(library, ReleaseAvailableProviders(names, count))?;
        Ok(found)
    }
}

/// Brings the providers together with the device that was asked for: without providers, the one that has the device.
///
/// # Errors
/// `INVALID_OPTION` when they contradict each other; `DEVICE_NOT_FOUND` for a device that no provider of the library has.
pub(super) fn place(library: &Library, providers: &mut Vec<Provider>, asked: &str) -> Result<()> {
    if asked == "auto" {
        return Ok(());
    }
    let (kind, id) = asked.split_once(':').map_or((asked, None), |(kind, id)| (kind, Some(id)));
    let name = match kind {
        "cpu" if id.is_none() => CPU,
        "cuda" => "CUDAExecutionProvider",
        "rocm" => "ROCMExecutionProvider",
        name => name,
    };
    let Some(first) = providers.first() else {
        let available = available(library).map_err(|failure| failure.into_load_error(None))?;
        let number = id.map(|id| id.parse::<u16>().map(|id| (c"device_id".to_owned(), CString::new(id.to_string()).unwrap_or_default())));
        return match number.transpose() {
            Ok(id) if name != AZURE && available.iter().any(|known| known == name) => {
                providers.extend((name != CPU).then(|| Provider { name: name.to_owned(), options: id.into_iter().collect() }));
                Ok(())
            }
            _ => {
                let asked = excerpt(asked);
                let message = format!("device '{asked}' is not there; available to onnxruntime: cpu, {}", available.join(", "));
                Err(NnrpError::new(Reason::DeviceNotFound, message).with("device", asked).with("available", available))
            }
        };
    };
    let held = device(providers);
    if (first.name == asked && asked != AZURE) || held == asked || (id.is_none() && held.strip_suffix(":0") == Some(asked)) {
        return Ok(());
    }
    let (asked, first) = (excerpt(asked), excerpt(&first.name));
    let message = format!("device '{asked}' and options.providers, which begin with '{first}' on '{held}', contradict each other: give one of them");
    Err(NnrpError::new(Reason::InvalidOption, message).with("path", "options.providers").with("device", asked).with("got", first))
}

/// Refuses what the library was not built with.
pub(super) fn check_available(library: &Library, asked: &[Provider]) -> Result<()> {
    if asked.iter().all(|provider| provider.name == CPU) {
        return Ok(());
    }
    let available = available(library).map_err(|failure| failure.into_load_error(None))?;
    match asked.iter().position(|provider| !available.contains(&provider.name)) {
        None => Ok(()),
        Some(index) => {
            let got = excerpt(&asked[index].name);
            let message = format!("options.providers[{index}]: '{got}' is not there; available: {}", available.join(", "));
            Err(NnrpError::new(Reason::DeviceNotFound, message).with("provider", got).with("available", available))
        }
    }
}

/// Appends a provider whose options are made, filled and released by functions of its own; in the table since 1.15.
macro_rules! append_v2 {
    ($library:expr, $session:expr, $keys:expr, $values:expr, $create:ident, $update:ident, $append:ident, $release:ident) => {{
        let api = $library.api;
        // SAFETY: the session options and the texts are alive, and there are as many values as keys.
        unsafe {
            append_v2(
                $library,
                |out| ((*api).$create)(out),
                |options| ((*api).$update)(options, $keys.as_ptr(), $values.as_ptr(), $keys.len()),
                |options| ((*api).$append)($session, options),
                (*api).$release,
            )
        }
    }};
}

/// Asks for one provider.
#[rustfmt::skip]
pub(super) fn append(library: &Library, session: *mut OrtSessionOptions, provider: &Provider, index: usize) -> Result<()> {
    let keys: Vec<*const c_char> = provider.options.iter().map(|(key, _)| key.as_ptr()).collect();
    let values: Vec<*const c_char> = provider.options.iter().map(|(_, value)| value.as_ptr()).collect();
    let appended = match provider.name.as_str() {
        CPU if keys.is_empty() => Ok(()),
        CPU => {
            let message = format!("options.providers[{index}][1]: {CPU} takes no options");
            return Err(NnrpError::new(Reason::UnknownOption, message).with("path", format!("options.providers[{index}][1]")));
        }
        "CUDAExecutionProvider" => append_v2!(library, session, keys, values,
            CreateCUDAProviderOptions, UpdateCUDAProviderOptions, SessionOptionsAppendExecutionProvider_CUDA_V2, ReleaseCUDAProviderOptions),
        "TensorrtExecutionProvider" => append_v2!(library, session, keys, values,
            CreateTensorRTProviderOptions, UpdateTensorRTProviderOptions, SessionOptionsAppendExecutionProvider_TensorRT_V2, ReleaseTensorRTProviderOptions),
        "ROCMExecutionProvider" => append_v2!(library, session, keys, values,
            CreateROCMProviderOptions, UpdateROCMProviderOptions, SessionOptionsAppendExecutionProvider_ROCM, ReleaseROCMProviderOptions),
        name => append_by_name(library, session, name, &keys, &values),
    };
    appended.map_err(|failure| {
        let reason = if failure.is_invalid_argument() { Reason::InvalidOption } else { Reason::DeviceNotFound };
        let what = format!("options.providers[{index}]: '{}' cannot be had", excerpt(&provider.name));
        failure.error(reason, &what, None).with("provider", excerpt(&provider.name))
    })
}

/// Makes a provider's options, fills them, appends the provider, and releases the options.
fn append_v2<T>(
    library: &Library,
    create: impl FnOnce(*mut *mut T) -> OrtStatusPtr,
    update: impl FnOnce(*mut T) -> OrtStatusPtr,
    append: impl FnOnce(*mut T) -> OrtStatusPtr,
    release: unsafe extern "system" fn(*mut T),
) -> std::result::Result<(), Failure> {
    let mut options = null_mut();
    library.check(create(&mut options))?;
    let done = library.check(update(options)).and_then(|()| library.check(append(options)));
    // SAFETY: made by `create`, released once.
    unsafe { release(options) };
    done
}

fn append_by_name(
    library: &Library,
    session: *mut OrtSessionOptions,
    name: &str,
    keys: &[*const c_char],
    values: &[*const c_char],
) -> std::result::Result<(), Failure> {
    // The C API's names are the Python API's without the ending, but for these.
    let short = match name.strip_suffix("ExecutionProvider").unwrap_or(name) {
        "Xnnpack" => "XNNPACK",
        "Azure" => "AZURE",
        "Dml" => "DML",
        "WebGpu" => "WebGPU",
        "NvTensorRTRTX" => "NvTensorRtRtx",
        other => other,
    };
    let short = CString::new(short).unwrap_or_default();
    // SAFETY: the texts are alive, and there are as many values as keys.
    unsafe { ort!(library, SessionOptionsAppendExecutionProvider(session, short.as_ptr(), keys.as_ptr(), values.as_ptr(), keys.len())) }
}

/// The providers in force: what was asked for, and the CPU, which takes what the others do not.
pub(super) fn effective(providers: &[Provider]) -> Value {
    let mut all: Vec<Value> = providers
        .iter()
        .map(|provider| {
            let options: Map<String, Value> =
                provider.options.iter().map(|(key, value)| (key.to_string_lossy().into_owned(), json!(value.to_string_lossy()))).collect();
            json!([provider.name, options])
        })
        .collect();
    if !providers.iter().any(|provider| provider.name == CPU) {
        all.push(json!([CPU, {}]));
    }
    Value::Array(all)
}

/// Whether the CPU alone runs the model.
pub(super) fn cpu_only(providers: &[Provider]) -> bool {
    providers.iter().all(|provider| provider.name == CPU)
}

/// The device of the preferred provider: `cpu`, `cuda:0`.
pub(super) fn device(providers: &[Provider]) -> String {
    let Some(first) = providers.first() else { return "cpu".to_owned() };
    let option = |name: &str| first.options.iter().find(|(key, _)| key.as_bytes() == name.as_bytes()).map(|(_, value)| value.to_string_lossy());
    let id = option("device_id").unwrap_or("0".into());
    match first.name.as_str() {
        CPU | "XnnpackExecutionProvider" | "DnnlExecutionProvider" | AZURE => "cpu".to_owned(),
        "OpenVINOExecutionProvider" if option("device_type").is_none_or(|kind| kind == "CPU") => "cpu".to_owned(),
        "CUDAExecutionProvider" | "TensorrtExecutionProvider" | "NvTensorRTRTXExecutionProvider" => format!("cuda:{id}"),
        "ROCMExecutionProvider" | "MIGraphXExecutionProvider" => format!("rocm:{id}"),
        name => name.strip_suffix("ExecutionProvider").unwrap_or(name).to_ascii_lowercase(),
    }
}
