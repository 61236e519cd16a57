//! The structs of `spec/nnrp.h`, which is canonical; `tests/header.rs` compiles the comparison.
#![allow(missing_docs, reason = "spec/nnrp.h says what each means")]
use nnrp_core::Stop;
pub use nnrp_runtimes::c::abi::*;
use std::ffi::{c_char, c_void};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

/// `NnrpEngine`.
pub struct NnrpEngine(pub(crate) nnrp_core::Engine);

/// `NnrpNext`.
pub type Next = i32;

pub const NEXT_END: Next = 0;
pub const NEXT_ANSWER: Next = 1;
pub const NEXT_WAIT: Next = 2;

/// `NnrpStream`.
pub struct NnrpStream(pub(crate) Mutex<crate::stream::Reading>);

/// `NnrpCancel`.
#[derive(Default)]
pub struct NnrpCancel {
    pub(crate) stop: Arc<Stop>,
    pub(crate) busy: AtomicBool,
}

nnrp_runtimes::versioned_structs! {
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
