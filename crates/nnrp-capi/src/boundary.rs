//! What every call does at the border between C and Rust: arguments in, errors and panics out.
use crate::abi::{NnrpError, OK, Status};
use nnrp_core::{NnrpError as Error, Reason, Result};
pub(crate) use nnrp_runtimes::c::memory::{malformed, optional_text, own, read, refer, refer_all, text, write};
use serde_json::Value;
use std::ffi::{CString, c_char};
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

/// Runs a call's body and tells its outcome to the caller.
///
/// # Safety
/// `error` is NULL, or a struct that was zeroed or filled by this library, with its `struct_size`, that no other thread uses.
pub(crate) unsafe fn call(error: *mut NnrpError, body: impl FnOnce() -> Result<()>) -> Status {
    // SAFETY: passed on from this function's caller.
    if let Err(bad) = unsafe { clear(error) } {
        return bad.code() as Status;
    }
    let Err(failure) = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| Err(bug())) else { return OK };
    if !error.is_null() {
        // SAFETY: `clear` has checked the struct, and has emptied it.
        unsafe { write(error, &fill(&failure)) };
    }
    failure.code() as Status
}

/// Runs the body of a call that cannot fail.
pub(crate) fn call_quietly(body: impl FnOnce()) {
    // A destructor that panics is our defect; there is nobody to tell.
    let _ = catch_unwind(AssertUnwindSafe(body));
}

#[cold]
fn bug() -> Error {
    Error::new(Reason::Bug, "the library reached a state that it rules out; please report what the call was")
}

/// Ends the texts of an error.
///
/// # Safety
/// As [`call`].
pub(crate) unsafe fn clear(error: *mut NnrpError) -> Result<()> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: not NULL; the caller vouches for the rest.
    let held = unsafe { read("error", error)? };
    for text in [held.reason, held.message, held.details_json] {
        // SAFETY: only `fill` puts texts here, by `give`, and they are forgotten below.
        unsafe { end(text.cast_mut()) };
    }
    let empty = NnrpError { code: OK, retryable: 0, reason: ptr::null(), message: ptr::null(), details_json: ptr::null(), ..held };
    // SAFETY: `read` has checked the struct.
    unsafe { write(error, &empty) };
    Ok(())
}

#[cold]
fn fill(failure: &Error) -> NnrpError {
    NnrpError {
        struct_size: size_of::<NnrpError>(),
        code: failure.code() as Status,
        retryable: failure.retryable().into(),
        reason: give(failure.reason()),
        message: give(failure.message()),
        details_json: give(&serde_json::to_string(failure.details()).unwrap_or_else(|_| "{}".to_owned())),
    }
}

/// Text that the caller owns; a NUL inside becomes U+FFFD.
pub(crate) fn give(text: &str) -> *mut c_char {
    own(text).into_raw()
}

/// Ends what [`give`] gave.
///
/// # Safety
/// `text` is NULL or came from [`give`], and is not used again.
pub(crate) unsafe fn end(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: from `CString::into_raw` in `give`.
        drop(unsafe { CString::from_raw(text) });
    }
}

/// A JSON document that the caller owns.
pub(crate) fn give_json(value: &Value) -> *mut c_char {
    give(&value.to_string())
}

/// Puts what `make` gives where a caller wants it; NULL there until then.
///
/// # Safety
/// `slot` is NULL or points to a pointer that no other thread uses.
pub(crate) unsafe fn put<T>(argument: impl Display, slot: *mut *mut T, make: impl FnOnce() -> Result<*mut T>) -> Result<()> {
    // SAFETY: passed on from this function's caller.
    unsafe { refer(argument, slot)? };
    // SAFETY: `refer` has checked it.
    unsafe { *slot = ptr::null_mut() };
    let made = make()?;
    // SAFETY: as above.
    unsafe { *slot = made };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::NnrpEngineOptions;
    use std::ffi::CStr;

    fn empty_error() -> NnrpError {
        NnrpError { struct_size: size_of::<NnrpError>(), code: 0, retryable: 0, reason: ptr::null(), message: ptr::null(), details_json: ptr::null() }
    }

    #[test]
    fn a_panic_becomes_an_internal_error() {
        let mut error = empty_error();
        // SAFETY: a zeroed error of this thread's.
        let status = unsafe { call(&raw mut error, || panic!("for the test")) };
        assert_eq!((status, error.code), (13, 13));
        // SAFETY: filled by `call`.
        assert_eq!(unsafe { CStr::from_ptr(error.reason) }.to_str(), Ok("BUG"));
        // SAFETY: filled by `call`.
        unsafe { clear(&raw mut error) }.unwrap();
        assert!(error.message.is_null());
    }

    #[test]
    fn a_newer_callers_struct_is_taken_while_its_tail_is_zero() {
        #[repr(C)]
        struct Newer(NnrpEngineOptions, u64);
        let mut newer = Newer(NnrpEngineOptions { struct_size: size_of::<Newer>(), settings_json: ptr::null() }, 0);
        // SAFETY: as long as its struct_size.
        assert!(unsafe { read("options", (&raw const newer).cast::<NnrpEngineOptions>()) }.is_ok());
        newer.1 = 1;
        // SAFETY: as long as its struct_size.
        assert!(unsafe { read("options", (&raw const newer).cast::<NnrpEngineOptions>()) }.is_err());
    }

    #[test]
    fn a_struct_that_is_too_short_or_absurdly_long_is_refused_unread() {
        for size in [0, 8, 4097, usize::MAX] {
            let options = NnrpEngineOptions { struct_size: size, settings_json: ptr::null() };
            // SAFETY: only the size is read of a struct with a wrong size.
            assert!(unsafe { read("options", &raw const options) }.err().is_some_and(|error| error.is(Reason::Malformed)), "{size}");
        }
    }

    #[test]
    fn a_nul_inside_a_text_does_not_cut_it() {
        assert_eq!(own("a\0b").to_str(), Ok("a\u{fffd}b"));
    }
}
