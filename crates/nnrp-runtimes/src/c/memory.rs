//! Reading what the other side's pointers point to: nothing is NULL, misaligned or of a size that is not believed.
use super::abi::Versioned;
use nnrp_core::{NnrpError as Error, Reason, Result};
use std::ffi::{CStr, CString, c_char};
use std::fmt::Display;
use std::ptr;

/// Largest `struct_size` that is believed: the unknown tail of a newer caller's struct is read.
const LARGEST_STRUCT: usize = 4096;

/// Text for C; a NUL inside becomes U+FFFD.
pub fn own(text: &str) -> CString {
    CString::new(text).or_else(|_| CString::new(text.replace('\0', "\u{fffd}"))).unwrap_or_default()
}

/// The error of an argument that cannot be read.
#[cold]
pub fn malformed(argument: impl Display, expected: impl Display, got: impl Display) -> Error {
    Error::new(Reason::Malformed, format!("{argument}: expected {expected}, got {got}")).with("argument", argument.to_string())
}

/// What a pointer points to.
///
/// # Safety
/// `pointer` is NULL or points to a `T` that lives, unchanged by others, for `'a`.
pub unsafe fn refer<'a, T>(argument: impl Display, pointer: *const T) -> Result<&'a T> {
    if pointer.is_null() {
        return Err(malformed(argument, "a pointer", "NULL"));
    }
    if !pointer.is_aligned() {
        return Err(malformed(argument, "a pointer aligned to its type", "one that is not"));
    }
    // SAFETY: not NULL and aligned; the caller vouches for the rest.
    Ok(unsafe { &*pointer })
}

/// The `count` elements at a pointer.
///
/// # Safety
/// `pointer` is NULL or points to `count` elements that live, unchanged by others, for `'a`.
pub unsafe fn refer_all<'a, T>(argument: impl Display, pointer: *const T, count: usize) -> Result<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    if count > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(malformed(argument, "a count of elements that memory can hold", count));
    }
    // SAFETY: passed on from this function's caller.
    let first = unsafe { refer(argument, pointer)? };
    // SAFETY: not NULL, aligned, no larger than memory; the caller vouches for the rest.
    Ok(unsafe { std::slice::from_raw_parts(first, count) })
}

/// A copy of a caller's struct, with zeros where an older caller's ends; a newer caller's must have zeros where ours ends.
///
/// # Safety
/// `pointer` is NULL or points to `struct_size` bytes that live, unchanged by others, for this call.
pub unsafe fn read<T: Versioned>(argument: impl Display, pointer: *const T) -> Result<T> {
    // SAFETY: passed on from this function's caller.
    let given = unsafe { sized(&argument, pointer)? };
    if given.iter().skip(size_of::<T>()).any(|byte| *byte != 0) {
        let expected = format!("zeros after the {} bytes of {} that this library knows", size_of::<T>(), T::NAME);
        return Err(malformed(argument, &expected, "a field of a newer version").with("struct_size", given.len()));
    }
    Ok(copy(given))
}

/// A copy of a struct whose fields the other side offers: those that are not known here are passed over.
///
/// # Safety
/// As [`read`].
pub unsafe fn read_offer<T: Versioned>(argument: impl Display, pointer: *const T) -> Result<T> {
    // SAFETY: passed on from this function's caller.
    unsafe { sized(argument, pointer) }.map(copy)
}

/// # Safety
/// As [`read`], for `'a`.
unsafe fn sized<'a, T: Versioned>(argument: impl Display, pointer: *const T) -> Result<&'a [u8]> {
    // SAFETY: every versioned struct begins with its size.
    let size = *unsafe { refer(&argument, pointer.cast::<usize>())? };
    if size < T::FIRST_SIZE || size > LARGEST_STRUCT {
        let expected = format!("struct_size of {} to be {}", T::NAME, size_of::<T>());
        return Err(malformed(argument, &expected, size).with("struct_size", size));
    }
    // SAFETY: the caller vouches for `struct_size` bytes.
    Ok(unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), size) })
}

fn copy<T: Versioned>(given: &[u8]) -> T {
    // SAFETY: all zero bits are a value of `T`.
    let mut copy: T = unsafe { std::mem::zeroed() };
    // SAFETY: both are at least that long and do not overlap.
    unsafe { ptr::copy_nonoverlapping(given.as_ptr(), (&raw mut copy).cast::<u8>(), given.len().min(size_of::<T>())) };
    copy
}

/// Fills the fields that a caller's struct has; its `struct_size` stays.
///
/// # Safety
/// [`read`] took the struct at `pointer`, and no other thread uses it.
pub unsafe fn write<T: Versioned>(pointer: *mut T, value: &T) {
    let head = size_of::<usize>();
    // SAFETY: every versioned struct begins with its size, which `read` has checked.
    let size = unsafe { *pointer.cast::<usize>() }.min(size_of::<T>());
    // SAFETY: both are at least `size` long, which is more than `head`, and do not overlap.
    unsafe { ptr::copy_nonoverlapping((&raw const *value).cast::<u8>().add(head), pointer.cast::<u8>().add(head), size - head) };
}

/// Text of the caller's.
///
/// # Safety
/// `pointer` is NULL or points to bytes that end with NUL and live, unchanged by others, for `'a`.
pub unsafe fn text<'a>(argument: impl Display, pointer: *const c_char) -> Result<&'a str> {
    // SAFETY: passed on from this function's caller.
    unsafe { optional_text(&argument, pointer)? }.ok_or_else(|| malformed(argument, "text", "NULL"))
}

/// Text of the caller's, or nothing.
///
/// # Safety
/// As [`text`].
pub unsafe fn optional_text<'a>(argument: impl Display, pointer: *const c_char) -> Result<Option<&'a str>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: not NULL; the caller vouches for the rest.
    let bytes = unsafe { CStr::from_ptr(pointer) };
    bytes.to_str().map(Some).map_err(|error| malformed(argument, "UTF-8", format_args!("a wrong byte at {}", error.valid_up_to())))
}
