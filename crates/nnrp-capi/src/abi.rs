//! The structs of `spec/nnrp.h`, which is canonical; `tests/header.rs` compiles the comparison.
#![allow(missing_docs, reason = "spec/nnrp.h says what each means")]
use nnrp_core::Stop;
use std::ffi::{c_char, c_void};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub const ABI_MAJOR: u32 = 1;
pub const ABI_MINOR: u32 = 0;

/// `NnrpStatus`: a number of errors.toml, 0 for success.
pub type Status = i32;

/// `NnrpDatatype`: one more than the place in datatypes.toml.
pub type DatatypeNumber = i32;

/// `NnrpEngine`.
pub struct NnrpEngine(pub(crate) nnrp_core::Engine);

/// `NnrpCancel`.
#[derive(Default)]
pub struct NnrpCancel {
    pub(crate) stop: Arc<Stop>,
    pub(crate) busy: AtomicBool,
}

macro_rules! structs {
    ($($name:ident { $($field:ident: $type:ty,)* })*) => {
        $(
            #[derive(Clone, Copy)]
            #[repr(C)]
            pub struct $name { pub struct_size: usize, $(pub $field: $type,)* }

            // SAFETY: repr(C), `struct_size` first, and every field, an integer or a raw pointer, may be all zero bits.
            unsafe impl Versioned for $name { const NAME: &'static str = stringify!($name); }
        )*
    };
}

/// A struct of the header that begins with its size.
///
/// # Safety
/// The type is `repr(C)`, begins with `struct_size: usize`, and all zero bits are a value of it.
pub unsafe trait Versioned: Copy {
    const NAME: &'static str;
    /// Its size in ABI 1.0, the least that a caller may give.
    const FIRST_SIZE: usize = size_of::<Self>();
}

structs! {
    NnrpError {
        code: Status,
        retryable: i32,
        reason: *const c_char,
        message: *const c_char,
        details_json: *const c_char,
    }
    NnrpEngineOptions {
        settings_json: *const c_char,
    }
    NnrpModelSpec {
        name: *const c_char,
        version: *const c_char,
        path: *const c_char,
        runtime: *const c_char,
        options_json: *const c_char,
    }
    NnrpTensorSpec {
        name: *const c_char,
        datatype: DatatypeNumber,
        optional: i32,
        ndim: i32,
        shape: *const i64,
        symbols: *const *const c_char,
    }
    NnrpSignature {
        model: *const c_char,
        version: *const c_char,
        inputs: *const *const NnrpTensorSpec,
        n_inputs: usize,
        outputs: *const *const NnrpTensorSpec,
        n_outputs: usize,
    }
    NnrpTensor {
        name: *const c_char,
        tensor: *mut DLManagedTensorVersioned,
        datatype: DatatypeNumber,
        ndim: i32,
        shape: *const i64,
    }
    NnrpRequest {
        model: *const c_char,
        version: *const c_char,
        id: *const c_char,
        parameters_json: *const c_char,
        inputs: *const *const NnrpTensor,
        n_inputs: usize,
        output_names: *const *const c_char,
        n_outputs: usize,
        deadline_ns: u64,
        cancel: *mut NnrpCancel,
    }
    NnrpResponse {
        model: *const c_char,
        version: *const c_char,
        id: *const c_char,
        outputs: *const *mut NnrpTensor,
        n_outputs: usize,
        owner: *mut c_void,
    }
}

/// DLPack's version of a managed tensor.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct DLPackVersion {
    pub major: u32,
    pub minor: u32,
}

/// An enumeration in C, a number here: a caller may pass any.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct DLDeviceType(pub i32);

/// Where the elements are.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct DLDevice {
    pub device_type: DLDeviceType,
    pub device_id: i32,
}

/// DLPack's element type.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct DLDataType {
    pub code: u8,
    pub bits: u8,
    pub lanes: u16,
}

/// Elements somewhere, with their type and shape.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct DLTensor {
    pub data: *mut c_void,
    pub device: DLDevice,
    pub ndim: i32,
    pub dtype: DLDataType,
    pub shape: *mut i64,
    pub strides: *mut i64,
    pub byte_offset: u64,
}

/// A tensor with its owner and how to end it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct DLManagedTensorVersioned {
    pub version: DLPackVersion,
    pub manager_ctx: *mut c_void,
    pub deleter: Option<unsafe extern "C" fn(*mut DLManagedTensorVersioned)>,
    pub flags: u64,
    pub dl_tensor: DLTensor,
}
