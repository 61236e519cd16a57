//! libnnrp: the engine behind `spec/nnrp.h`, which is canonical.
//!
//! Each function here is one of the header's; what is asked of a caller is said there.
#![allow(clippy::missing_safety_doc, reason = "each says that the header says it")]

pub mod abi;
mod boundary;
mod clock;
mod engine;
pub mod host;
mod infer;
mod model;
mod settings;
mod stream;

pub use clock::nnrp_now_ns;
pub use engine::{nnrp_engine_create, nnrp_engine_free, nnrp_load, nnrp_load_json, nnrp_models, nnrp_runtimes, nnrp_unload};
pub use infer::{nnrp_cancel_create, nnrp_cancel_free, nnrp_cancel_raise, nnrp_infer, nnrp_response_clear};
pub use model::{nnrp_metadata, nnrp_signature, nnrp_signature_free};
pub use stream::{nnrp_stream_close, nnrp_stream_next, nnrp_stream_open};

use abi::{ABI_MAJOR, ABI_MINOR, NnrpError, Status};
use std::ffi::c_char;

/// The library's ABI version.
#[unsafe(no_mangle)]
pub extern "C" fn nnrp_abi_version() -> u32 {
    (ABI_MAJOR << 16) | ABI_MINOR
}

/// The library's own version.
#[unsafe(no_mangle)]
pub extern "C" fn nnrp_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

macro_rules! status_names {
    ($($code:ident $name:literal),* $(,)?) => {
        const STATUS_NAMES: &[(nnrp_core::Code, &std::ffi::CStr)] = &[$((nnrp_core::Code::$code, $name)),*];
    };
}

status_names! {
    Cancelled c"CANCELLED",
    RuntimeFailure c"RUNTIME_FAILURE",
    InvalidArgument c"INVALID_ARGUMENT",
    DeadlineExceeded c"DEADLINE_EXCEEDED",
    NotFound c"NOT_FOUND",
    AlreadyExists c"ALREADY_EXISTS",
    PermissionDenied c"PERMISSION_DENIED",
    ResourceExhausted c"RESOURCE_EXHAUSTED",
    FailedPrecondition c"FAILED_PRECONDITION",
    Unimplemented c"UNIMPLEMENTED",
    Internal c"INTERNAL",
    Unavailable c"UNAVAILABLE",
    Unauthenticated c"UNAUTHENTICATED",
}

/// The name of a status.
#[unsafe(no_mangle)]
pub extern "C" fn nnrp_status_name(status: Status) -> *const c_char {
    if status == abi::OK {
        return c"OK".as_ptr();
    }
    let known = STATUS_NAMES.iter().find(|(code, _)| *code as Status == status);
    known.map_or(std::ptr::null(), |(_, name)| name.as_ptr())
}

/// Ends the texts of an error.
///
/// # Safety
/// `spec/nnrp.h` says what the pointer must be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nnrp_error_clear(error: *mut NnrpError) {
    // An error of a wrong size cannot be ours to end.
    // SAFETY: the caller keeps what the header says.
    boundary::call_quietly(|| drop(unsafe { boundary::clear(error) }));
}

/// Ends a text that a call gave out.
///
/// # Safety
/// `spec/nnrp.h` says what the pointer must be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nnrp_string_free(text: *mut c_char) {
    // SAFETY: the caller keeps what the header says.
    boundary::call_quietly(|| unsafe { boundary::end(text) });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_name_in_c() {
        assert_eq!(STATUS_NAMES.len(), nnrp_core::Code::ALL.len());
        for (code, name) in STATUS_NAMES {
            assert_eq!(name.to_str(), Ok(code.name()));
        }
    }
}
