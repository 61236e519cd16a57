//! Engines and what is loaded in them.
use crate::abi::{NnrpEngine, NnrpEngineOptions, NnrpError, NnrpModelSpec, Status};
use crate::boundary::{call, call_quietly, give_json, optional_text, put, read, refer, text};
use crate::settings;
use nnrp_core::{Engine, Loaded, ModelSpec, NnrpError as Error, Reason, Result, Settings};
use serde_json::{Map, Value, json};
use std::ffi::c_char;

/// Makes an engine without models.
///
/// # Safety
/// `spec/nnrp.h` says what each pointer must be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nnrp_engine_create(options: *const NnrpEngineOptions, engine: *mut *mut NnrpEngine, error: *mut NnrpError) -> Status {
    let make = || {
        let settings_json = if options.is_null() {
            None
        } else {
            // SAFETY: the caller keeps what the header says.
            unsafe { optional_text("options.settings_json", read("options", options)?.settings_json)? }
        };
        let engine = Engine::new(Settings::default(), settings::runtimes(settings_json)?);
        Ok(Box::into_raw(Box::new(NnrpEngine(engine))))
    };
    // SAFETY: as above.
    unsafe { call(error, || put("engine", engine, make)) }
}

/// Ends an engine.
///
/// # Safety
/// `spec/nnrp.h` says what the pointer must be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nnrp_engine_free(engine: *mut NnrpEngine) {
    if !engine.is_null() {
        // SAFETY: `nnrp_engine_create` made it from a box.
        call_quietly(|| drop(unsafe { Box::from_raw(engine) }));
    }
}

/// Tells the engine's runtimes.
///
/// # Safety
/// `spec/nnrp.h` says what each pointer must be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nnrp_runtimes(engine: *mut NnrpEngine, json: *mut *mut c_char, error: *mut NnrpError) -> Status {
    let make = || {
        // SAFETY: the caller keeps what the header says.
        let engine = unsafe { refer("engine", engine)? };
        Ok(give_json(&engine.0.runtimes().to_json()))
    };
    // SAFETY: as above.
    unsafe { call(error, || put("json", json, make)) }
}

/// Loads one model version.
///
/// # Safety
/// `spec/nnrp.h` says what each pointer must be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nnrp_load(engine: *mut NnrpEngine, spec: *const NnrpModelSpec, error: *mut NnrpError) -> Status {
    let body = || {
        // SAFETY: the caller keeps what the header says.
        let (engine, spec) = unsafe { (refer("engine", engine)?, describe(&read("spec", spec)?)?) };
        engine.0.load(spec).map(drop)
    };
    // SAFETY: as above.
    unsafe { call(error, body) }
}

/// Loads what a JSON document describes.
///
/// # Safety
/// `spec/nnrp.h` says what each pointer must be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nnrp_load_json(engine: *mut NnrpEngine, description: *const c_char, error: *mut NnrpError) -> Status {
    let body = || {
        // SAFETY: the caller keeps what the header says.
        let (engine, description) = unsafe { (refer("engine", engine)?, text("description", description)?) };
        engine.0.load(ModelSpec::from_json(description)?).map(drop)
    };
    // SAFETY: as above.
    unsafe { call(error, body) }
}

/// The engine's description of a model, read by the engine's own reader.
///
/// # Safety
/// What the struct points to is as the header says.
unsafe fn describe(given: &NnrpModelSpec) -> Result<ModelSpec> {
    let mut spec = Map::new();
    // SAFETY: passed on from this function's caller.
    unsafe {
        spec.insert("name".to_owned(), text("spec.name", given.name)?.into());
        spec.insert("path".to_owned(), text("spec.path", given.path)?.into());
        let optional = [
            ("version", "spec.version", given.version),
            ("runtime", "spec.runtime", given.runtime),
            ("device", "spec.device", given.device),
            ("precision", "spec.precision", given.precision),
            ("isolation", "spec.isolation", given.isolation),
        ];
        for (key, argument, given) in optional {
            if let Some(given) = optional_text(argument, given)? {
                spec.insert(key.to_owned(), given.into());
            }
        }
        if let Some(options) = optional_text("spec.options_json", given.options_json)? {
            let options: Map<String, Value> = serde_json::from_str(options)
                .map_err(|error| Error::new(Reason::InvalidOption, format!("spec.options_json: expected a JSON object: {error}")))?;
            spec.insert("options".to_owned(), options.into());
        }
    }
    ModelSpec::from_json(&Value::Object(spec).to_string())
}

/// Unloads a model version, or all of a model's.
///
/// # Safety
/// `spec/nnrp.h` says what each pointer must be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nnrp_unload(engine: *mut NnrpEngine, name: *const c_char, version: *const c_char, error: *mut NnrpError) -> Status {
    let body = || {
        // SAFETY: the caller keeps what the header says.
        let (engine, name, version) = unsafe { (refer("engine", engine)?, text("name", name)?, optional_text("version", version)?) };
        engine.0.unload(name, version.unwrap_or_default())
    };
    // SAFETY: as above.
    unsafe { call(error, body) }
}

/// Tells what is loaded.
///
/// # Safety
/// `spec/nnrp.h` says what each pointer must be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nnrp_models(engine: *mut NnrpEngine, json: *mut *mut c_char, error: *mut NnrpError) -> Status {
    let make = || {
        // SAFETY: the caller keeps what the header says.
        let engine = unsafe { refer("engine", engine)? };
        Ok(give_json(&engine.0.models().iter().map(|loaded| tell(loaded)).collect()))
    };
    // SAFETY: as above.
    unsafe { call(error, || put("json", json, make)) }
}

fn tell(loaded: &Loaded) -> Value {
    let info = loaded.session.info();
    json!({
        "name": &*loaded.name,
        "version": &*loaded.version,
        "runtime": info.runtime,
        "runtime_version": info.runtime_version,
        "format": info.format,
        "device": info.device,
        "settings": info.settings,
        "streams": info.streams,
    })
}
