//! Tensors in and out of the library: bytes in are borrowed, large outputs stay where the library put them.
use super::failure::Failure;
use super::library::{Library, Owned};
use super::request::Taken;
use super::signature::{datatype_of, element_of};
use super::table::{RawShape, TensorHandle};
use bytes::Bytes;
use nnrp_core::tensor::element_count;
use nnrp_core::{AlignedBuf, Data, Datatype, NnrpError, Reason, Shape, Tensor};
use std::ptr::null_mut;
use std::sync::Arc;

/// Outputs up to here are copied, which costs less than a request that stays out.
const COPIED: usize = 8 << 10;

/// Why a tensor could not go in or come out.
pub(super) enum Trouble {
    /// The library failed.
    Library(Failure),
    /// It was refused here.
    Ours(NnrpError),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Trouble::Library(failure)
    }
}

/// A tensor of the library over the bytes, which must outlive its use.
pub(super) fn borrowing(library: &'static Library, name: &str, tensor: &Tensor<'_>) -> Result<Owned<TensorHandle>, Trouble> {
    let bytes = tensor.bytes();
    let needed = element_count(&tensor.shape).and_then(|count| tensor.datatype.byte_size(count));
    // The library is told no length, so this is the last that is checked before it reads.
    if needed != Some(bytes.len()) {
        let message = format!("input '{name}': shape {:?} and {} bytes of {} do not fit", tensor.shape.as_slice(), bytes.len(), tensor.datatype.name());
        return Err(Trouble::Ours(NnrpError::new(Reason::ByteSizeMismatch, message).with("input", name)));
    }
    let shape = RawShape { rank: tensor.shape.len().cast_signed() as i64, dims: tensor.shape.as_ptr().cast_mut() };
    let data = bytes.as_ptr().cast_mut().cast();
    // SAFETY: the library copies the shape, reads as many bytes as it says, which were counted, and writes none: inputs are only read.
    Ok(library.made(library.functions.ov_tensor_free, |out| unsafe {
        (library.functions.ov_tensor_create_from_host_ptr)(element_of(tensor.datatype), shape, data, out)
    })?)
}

/// A tensor of the library over bytes to be written, which must outlive its use; there are as many as the shape says.
pub(super) fn writing(library: &'static Library, datatype: Datatype, shape: &Shape, bytes: &mut [u8]) -> Result<Owned<TensorHandle>, Failure> {
    let raw = RawShape { rank: shape.len().cast_signed() as i64, dims: shape.as_ptr().cast_mut() };
    // SAFETY: the library copies the shape, and writes no more bytes than it says.
    library.made(library.functions.ov_tensor_free, |out| unsafe {
        (library.functions.ov_tensor_create_from_host_ptr)(element_of(datatype), raw, bytes.as_mut_ptr().cast(), out)
    })
}

/// Refuses what the CPU would cut to 32 bits: it computes 64-bit and unsigned 32-bit integers as INT32, and wraps the others without a word.
pub(super) fn check_narrow(name: &str, tensor: &Tensor<'_>) -> Result<(), Trouble> {
    let bytes = tensor.bytes();
    let words = |fits: fn(u64) -> bool| bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default())).position(|word| !fits(word));
    let index = match tensor.datatype {
        Datatype::Int64 => words(|word| i32::try_from(word.cast_signed()).is_ok()),
        Datatype::Uint64 => words(|word| i32::try_from(word).is_ok()),
        Datatype::Uint32 => bytes.chunks_exact(4).position(|word| word[3] >= 0x80),
        _ => None,
    };
    let Some(index) = index else { return Ok(()) };
    let datatype = tensor.datatype.name();
    let message = format!("input '{name}': element {index} of {datatype}: openvino computes {datatype} as INT32, expected a value that fits");
    Err(Trouble::Ours(NnrpError::new(Reason::ValueOutOfRange, message).with("input", name).with("index", index)))
}

/// An output of a run that went well.
pub(super) struct Found {
    _handle: Owned<TensorHandle>,
    datatype: Datatype,
    shape: Shape,
    data: *const u8,
    byte_size: usize,
}

impl Found {
    /// Finds out what a run gave.
    pub(super) fn read(taken: &Taken, index: usize) -> Result<Found, Trouble> {
        let library = taken.library();
        let functions = &library.functions;
        let handle = taken.output(index)?;
        let (mut element, mut raw, mut held, mut data) = (0, RawShape { rank: 0, dims: null_mut() }, 0, null_mut());
        // SAFETY: the tensor is alive; the shape is copied and taken back once.
        let shape = unsafe {
            library.check((functions.ov_tensor_get_element_type)(handle.ptr(), &mut element))?;
            let shaped = library.check((functions.ov_tensor_get_shape)(handle.ptr(), &mut raw));
            let mut count = 0;
            match shaped {
                Ok(()) => {
                    let rank = usize::try_from(raw.rank).unwrap_or(0);
                    let shape = if rank == 0 || raw.dims.is_null() { Shape::new() } else { Shape::from_slice(std::slice::from_raw_parts(raw.dims, rank)) };
                    (functions.ov_shape_free)(&mut raw);
                    shape
                }
                // The library refuses to write down the shape of a scalar.
                Err(_) if (functions.ov_tensor_get_size)(handle.ptr(), &mut count) == 0 && count == 1 => Shape::new(),
                Err(failure) => return Err(failure.into()),
            }
        };
        let unknown = || Trouble::Ours(NnrpError::new(Reason::NotOffered, format!("an output has elements of openvino type {element}")));
        let datatype = datatype_of(element).ok_or_else(unknown)?;
        let byte_size = element_count(&shape).and_then(|count| datatype.byte_size(count)).ok_or_else(unknown)?;
        if byte_size > 0 {
            // SAFETY: as above.
            unsafe {
                library.check((functions.ov_tensor_get_byte_size)(handle.ptr(), &mut held))?;
                library.check((functions.ov_tensor_data)(handle.ptr(), &mut data))?;
            }
            if held < byte_size || data.is_null() {
                return Err(Trouble::Ours(NnrpError::new(Reason::RunFailed, "an output holds fewer bytes than its shape says")));
            }
        }
        Ok(Found { _handle: handle, datatype, shape, data: data.cast_const().cast(), byte_size })
    }

    /// Whether it is those bytes, of that type and shape.
    pub(super) fn lies_at(&self, bytes: &[u8], datatype: Datatype, shape: &Shape) -> bool {
        self.data == bytes.as_ptr() && self.byte_size == bytes.len() && self.datatype == datatype && self.shape == *shape
    }

    /// Whether it is worth keeping the request out for it. What lies in an input is the caller's, and only for the length of the call.
    pub(super) fn worth_lending(&self, inputs: &[Option<Tensor<'_>>]) -> bool {
        let start = self.data as usize;
        let lies_in = |input: &Tensor<'_>| {
            let bytes = input.bytes().as_ptr_range();
            start < bytes.end as usize && (bytes.start as usize) < start.saturating_add(self.byte_size)
        };
        self.byte_size > COPIED && !inputs.iter().flatten().any(lies_in)
    }

    /// The tensor: over the library's own memory while the request is kept, or else a copy.
    pub(super) fn into_tensor(self, keep: Option<&Arc<Taken>>) -> Tensor<'static> {
        let (datatype, shape) = (self.datatype, self.shape.clone());
        let data = match keep {
            _ if self.byte_size == 0 => Bytes::new(),
            Some(taken) => Bytes::from_owner(Elements { found: self, _taken: taken.clone() }),
            None => AlignedBuf::copy_of(self.bytes()).into_bytes(),
        };
        Tensor { datatype, shape, data: Data::Shared(data) }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the handle keeps that many bytes there, and no run writes to them while this is borrowed: the request is ours.
        unsafe { std::slice::from_raw_parts(self.data, self.byte_size) }
    }
}

/// The elements of an output, in the memory of a request that is used for nothing else meanwhile.
struct Elements {
    found: Found,
    _taken: Arc<Taken>,
}

// SAFETY: nobody writes to the elements while they are here, and the library frees a tensor on any thread.
unsafe impl Send for Elements {}

impl AsRef<[u8]> for Elements {
    fn as_ref(&self) -> &[u8] {
        self.found.bytes()
    }
}
