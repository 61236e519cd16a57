//! The structs of `spec/nnrp.h` that cross in both directions, and those of plug-ins. The header is canonical; nnrp-capi's `tests/header.rs` compiles
//! the comparison.
#![allow(missing_docs, reason = "spec/nnrp.h says what each means")]
use nnrp_core::Datatype;
use std::ffi::{c_char, c_void};
use std::sync::atomic::AtomicI32;

pub const ABI_MAJOR: u32 = 1;
pub const ABI_MINOR: u32 = 2;

/// `NnrpStatus`: a number of errors.toml, 0 for success.
pub type Status = i32;

pub const OK: Status = 0;

/// `NnrpDatatype`: one more than the place in datatypes.toml.
pub type DatatypeNumber = i32;

/// The number of a datatype in C.
pub fn number_of(datatype: Datatype) -> DatatypeNumber {
    DatatypeNumber::from(datatype as u8) + 1
}

/// A struct of the header that begins with its size.
///
/// # Safety
/// The type is `repr(C)`, begins with `struct_size: usize`, and all zero bits are a value of it.
pub unsafe trait Versioned: Copy {
    const NAME: &'static str;
    /// Its size in ABI 1.0, the least that may be given.
    const FIRST_SIZE: usize = size_of::<Self>();

    /// Zeros, but for its size.
    fn sized() -> Self {
        // SAFETY: all zero bits are a value of it.
        let mut made: Self = unsafe { std::mem::zeroed() };
        // SAFETY: it begins with its size.
        unsafe { *(&raw mut made).cast::<usize>() = size_of::<Self>() };
        made
    }
}

/// Declares structs of the header: `struct_size` goes before what is said.
#[macro_export]
#[doc(hidden)]
macro_rules! versioned_structs {
    ($($name:ident $(, of which ABI 1.0 has $first:literal words,)? { $($field:ident: $type:ty,)* })*) => {
        $(
            #[derive(Clone, Copy)]
            #[repr(C)]
            pub struct $name { pub struct_size: usize, $(pub $field: $type,)* }

            // SAFETY: repr(C), `struct_size` first, and every field, an integer, a pointer or an optional function, may be all zero bits.
            unsafe impl $crate::c::abi::Versioned for $name {
                const NAME: &'static str = stringify!($name);
                $(const FIRST_SIZE: usize = $first * size_of::<usize>();)?
            }
        )*
    };
}

/// `NnrpSession`: a plug-in's own.
#[repr(C)]
pub struct NnrpSession([u8; 0]);

versioned_structs! {
    NnrpModelSpec, of which ABI 1.0 has 8 words, {
        name: *const c_char,
        version: *const c_char,
        path: *const c_char,
        runtime: *const c_char,
        options_json: *const c_char,
        device: *const c_char,
        precision: *const c_char,
        isolation: *const c_char,
    }
    NnrpTensor {
        name: *const c_char,
        tensor: *mut DLManagedTensorVersioned,
        datatype: DatatypeNumber,
        ndim: i32,
        shape: *const i64,
    }
    NnrpFault {
        reason: [c_char; 64],
        message: [c_char; 1024],
        details_json: [c_char; 1024],
    }
    NnrpRun, of which ABI 1.0 has 8 words, {
        inputs: *const *const NnrpTensor,
        n_inputs: usize,
        outputs: *const usize,
        n_outputs: usize,
        results: *const *mut NnrpTensor,
        stop: *const AtomicI32,
        deadline_ns: u64,
        give: Option<unsafe extern "C" fn(*const NnrpRun) -> Status>,
        id: *const c_char,
        parameters_json: *const c_char,
    }
    NnrpRuntimeV1, of which ABI 1.0 has 12 words, {
        abi_version: u32,
        name: *const c_char,
        info: Option<unsafe extern "C" fn(*mut *const c_char, *mut NnrpFault) -> Status>,
        load: Option<unsafe extern "C" fn(*const NnrpModelSpec, *mut *mut NnrpSession, *mut NnrpFault) -> Status>,
        session_info: Option<unsafe extern "C" fn(*mut NnrpSession, *mut *const c_char, *mut NnrpFault) -> Status>,
        run: Option<unsafe extern "C" fn(*mut NnrpSession, *const NnrpRun, *mut NnrpFault) -> Status>,
        close: Option<unsafe extern "C" fn(*mut NnrpSession)>,
        cancel: Option<unsafe extern "C" fn(*mut NnrpSession, *const NnrpRun)>,
        stats: Option<unsafe extern "C" fn(*mut NnrpSession, *mut *const c_char, *mut NnrpFault) -> Status>,
        set_option: Option<unsafe extern "C" fn(*mut NnrpSession, *const c_char, *const c_char, *mut NnrpFault) -> Status>,
        warm_up: Option<unsafe extern "C" fn(*mut NnrpSession, *mut NnrpFault) -> Status>,
        stream: Option<unsafe extern "C" fn(*mut NnrpSession, *const NnrpRun, *mut NnrpFault) -> Status>,
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
