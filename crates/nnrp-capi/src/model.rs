//! What a loaded model takes and gives.
use crate::abi::{NnrpEngine, NnrpError, NnrpSignature, NnrpTensorSpec, Status, number_of};
use crate::boundary::{call, call_quietly, give_json, optional_text, own, put, refer, text};
use nnrp_core::{Loaded, Shape, TensorSpec};
use std::ffi::{CString, c_char};
use std::ptr;

/// Tells a model's metadata.
///
/// # Safety
/// `spec/nnrp.h` says what each pointer must be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nnrp_metadata(
    engine: *mut NnrpEngine,
    name: *const c_char,
    version: *const c_char,
    json: *mut *mut c_char,
    error: *mut NnrpError,
) -> Status {
    let make = || {
        // SAFETY: the caller keeps what the header says.
        let (engine, name, version) = unsafe { (refer("engine", engine)?, text("name", name)?, optional_text("version", version)?) };
        let loaded = engine.0.model(name, version.unwrap_or_default())?;
        Ok(give_json(&loaded.metadata(&engine.0.versions(name))))
    };
    // SAFETY: as above.
    unsafe { call(error, || put("json", json, make)) }
}

/// Gives a model's signature.
///
/// # Safety
/// `spec/nnrp.h` says what each pointer must be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nnrp_signature(
    engine: *mut NnrpEngine,
    name: *const c_char,
    version: *const c_char,
    signature: *mut *const NnrpSignature,
    error: *mut NnrpError,
) -> Status {
    let make = || {
        // SAFETY: the caller keeps what the header says.
        let (engine, name, version) = unsafe { (refer("engine", engine)?, text("name", name)?, optional_text("version", version)?) };
        Ok(Signed::of(&*engine.0.model(name, version.unwrap_or_default())?))
    };
    // SAFETY: as above.
    unsafe { call(error, || put("signature", signature.cast(), make)) }
}

/// Ends a signature.
///
/// # Safety
/// `spec/nnrp.h` says what the pointer must be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nnrp_signature_free(signature: *const NnrpSignature) {
    if !signature.is_null() {
        // SAFETY: `Signed::of` made it from a box of `Signed`, whose first field it is.
        call_quietly(|| drop(unsafe { Box::from_raw(signature.cast_mut().cast::<Signed>()) }));
    }
}

/// A signature of C's with all that it points to.
#[repr(C)]
struct Signed {
    signature: NnrpSignature,
    _texts: [CString; 2],
    _inputs: Specs,
    _outputs: Specs,
}

impl Signed {
    fn of(loaded: &Loaded) -> *mut NnrpSignature {
        let texts = [own(&loaded.name), own(&loaded.version)];
        let (inputs, outputs) = (Specs::of(&loaded.signature().inputs), Specs::of(&loaded.signature().outputs));
        let signature = NnrpSignature {
            struct_size: size_of::<NnrpSignature>(),
            model: texts[0].as_ptr(),
            version: texts[1].as_ptr(),
            inputs: inputs.pointers.as_ptr(),
            n_inputs: inputs.pointers.len(),
            outputs: outputs.pointers.as_ptr(),
            n_outputs: outputs.pointers.len(),
        };
        Box::into_raw(Box::new(Signed { signature, _texts: texts, _inputs: inputs, _outputs: outputs })).cast()
    }
}

struct Specs {
    pointers: Vec<*const NnrpTensorSpec>,
}

impl Specs {
    fn of(specs: &[TensorSpec]) -> Specs {
        Specs { pointers: specs.iter().map(Spec::of).collect() }
    }
}

impl Drop for Specs {
    fn drop(&mut self) {
        for pointer in self.pointers.drain(..) {
            // SAFETY: `Spec::of` made it from a box of `Spec`, whose first field it is.
            drop(unsafe { Box::from_raw(pointer.cast_mut().cast::<Spec>()) });
        }
    }
}

/// An input or output of C's with all that it points to.
#[repr(C)]
struct Spec {
    face: NnrpTensorSpec,
    _name: CString,
    shape: Shape,
    _symbols: Vec<Option<CString>>,
    symbols: Vec<*const c_char>,
}

impl Spec {
    fn of(spec: &TensorSpec) -> *const NnrpTensorSpec {
        let name = own(&spec.name);
        let shape = spec.shape.clone().unwrap_or_default();
        let texts: Vec<Option<CString>> = (0..shape.len()).map(|axis| spec.symbols.get(axis)?.as_deref().map(own)).collect();
        let symbols = texts.iter().map(|text| text.as_ref().map_or(ptr::null(), |text| text.as_ptr())).collect();
        let face = NnrpTensorSpec {
            struct_size: size_of::<NnrpTensorSpec>(),
            name: name.as_ptr(),
            datatype: number_of(spec.datatype),
            optional: spec.optional.into(),
            ndim: if spec.shape.is_some() { shape.len() as i32 } else { -1 },
            shape: ptr::null(),
            symbols: ptr::null(),
        };
        let mut boxed = Box::new(Spec { face, _name: name, shape, _symbols: texts, symbols });
        if spec.shape.is_some() {
            (boxed.face.shape, boxed.face.symbols) = (boxed.shape.as_ptr(), boxed.symbols.as_ptr());
        }
        Box::into_raw(boxed).cast()
    }
}
