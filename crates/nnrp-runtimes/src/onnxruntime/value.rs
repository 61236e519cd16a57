//! Tensors in and out of the library: bytes in are borrowed, bytes out stay where the library put them; strings are copied once.
use super::failure::Failure;
use super::library::{Library, ort};
use super::session::Handle;
use crate::onnx::datatype_of;
use bytes::Bytes;
use nnrp_core::tensor::{bytes_elements, element_count};
use nnrp_core::{AlignedBuf, Data, Datatype, NnrpError, Reason, Shape, Tensor};
use ort_sys::{ONNXTensorElementDataType, OrtValue};
use smallvec::{SmallVec, smallvec};
use std::ptr::{null, null_mut};
use std::sync::Arc;

/// A tensor of the library; released at the end.
pub(super) struct Value {
    ptr: *mut OrtValue,
    library: &'static Library,
}

// SAFETY: the library may read and release a value on any thread.
unsafe impl Send for Value {}

impl Drop for Value {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: made by the library, released once; releasing null does nothing.
        unsafe { ((*self.library.api).ReleaseValue)(self.ptr) }
    }
}

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

impl Value {
    /// A value over the tensor's bytes, which must outlive it; strings are copied.
    #[inline]
    pub(super) fn borrowing(library: &'static Library, tensor: &Tensor<'_>) -> std::result::Result<Value, Trouble> {
        if tensor.datatype == Datatype::Bytes {
            return Value::of_strings(library, tensor);
        }
        let mut value = Value { ptr: null_mut(), library };
        let (bytes, shape) = (tensor.bytes(), &tensor.shape);
        // SAFETY: the library reads the bytes only, checks their length against the shape, and the caller keeps them alive.
        unsafe {
            let (data, element) = (bytes.as_ptr().cast_mut().cast(), element_of(tensor.datatype));
            ort!(library, CreateTensorWithDataAsOrtValue(library.cpu, data, bytes.len(), shape.as_ptr(), shape.len(), element, &mut value.ptr))?;
        }
        Ok(value)
    }

    /// A value over bytes that a run will write to, which must outlive it.
    pub(super) fn writing(library: &'static Library, datatype: Datatype, shape: &Shape, bytes: &mut [u8]) -> std::result::Result<Value, Failure> {
        let mut value = Value { ptr: null_mut(), library };
        // SAFETY: the library writes to the bytes only while it runs, checks their length against the shape, and the caller keeps them alive.
        unsafe {
            let (data, element) = (bytes.as_mut_ptr().cast(), element_of(datatype));
            ort!(library, CreateTensorWithDataAsOrtValue(library.cpu, data, bytes.len(), shape.as_ptr(), shape.len(), element, &mut value.ptr))?;
        }
        Ok(value)
    }

    fn of_strings(library: &'static Library, tensor: &Tensor<'_>) -> std::result::Result<Value, Trouble> {
        let wrong = || Trouble::Ours(NnrpError::new(Reason::ByteSizeMismatch, "BYTES elements do not add up to the shape"));
        let count = element_count(&tensor.shape).ok_or_else(wrong)?;
        if bytes_elements(tensor.bytes()).take(count.saturating_add(1)).filter(Option::is_some).count() != count {
            return Err(wrong());
        }
        let mut value = Value { ptr: null_mut(), library };
        // SAFETY: the library allocates the strings; each buffer that it gives has the length asked for, and is filled before the next is asked.
        unsafe {
            let (shape, rank, element) = (tensor.shape.as_ptr(), tensor.shape.len(), element_of(Datatype::Bytes));
            ort!(library, CreateTensorAsOrtValue(library.allocator, shape, rank, element, &mut value.ptr))?;
            for (index, content) in bytes_elements(tensor.bytes()).flatten().enumerate() {
                let mut buffer = null_mut();
                ort!(library, GetResizedStringTensorElementBuffer(value.ptr, index, content.len(), &mut buffer))?;
                if !content.is_empty() {
                    std::ptr::copy_nonoverlapping(content.as_ptr(), buffer.cast(), content.len());
                }
            }
        }
        Ok(value)
    }

    /// Whether an optional holds a value.
    pub(super) fn is_some(&self) -> std::result::Result<bool, Failure> {
        if self.ptr.is_null() {
            return Ok(false);
        }
        let mut has = 0;
        // SAFETY: the value is alive.
        unsafe { ort!(self.library, HasValue(self.ptr, &mut has)) }?;
        Ok(has != 0)
    }

    /// Whether the elements begin there.
    pub(super) fn lies_at(&self, bytes: &[u8]) -> std::result::Result<bool, Failure> {
        let mut data = null_mut();
        // SAFETY: the value is alive and holds numbers.
        unsafe { ort!(self.library, GetTensorMutableData(self.ptr, &mut data)) }?;
        Ok(data.cast_const().cast() == bytes.as_ptr())
    }

    /// Whether the CPU can read the elements.
    pub(super) fn is_on_cpu(&self) -> std::result::Result<bool, Failure> {
        let (mut memory, mut device) = (null(), 0_i32);
        // SAFETY: the value is alive, and the description lives as long; a device type is a C int.
        unsafe {
            ort!(self.library, GetTensorMemoryInfo(self.ptr, &mut memory))?;
            ((*self.library.api).MemoryInfoGetDeviceType)(memory, (&raw mut device).cast());
        }
        Ok(device == 0)
    }

    /// The tensor, over the library's own memory. `inputs` are those of the run: what lies in one of them is copied.
    #[inline]
    pub(super) fn into_tensor(self, session: &Arc<Handle>, inputs: &[Option<Tensor<'_>>]) -> std::result::Result<Tensor<'static>, Trouble> {
        let (element, shape) = self.element_and_shape()?;
        let unknown = || Trouble::Ours(NnrpError::new(Reason::NotOffered, format!("an output has elements of ONNX type {element}")));
        let datatype = datatype_of(i64::from(element)).ok_or_else(unknown)?;
        let count = element_count(&shape).ok_or_else(unknown)?;
        let data = match datatype.byte_size(count) {
            None => self.strings(count)?,
            Some(0) => Bytes::new(),
            Some(byte_size) => self.into_bytes(byte_size, session, inputs)?,
        };
        Ok(Tensor { datatype, shape, data: Data::Shared(data) })
    }

    #[inline]
    fn element_and_shape(&self) -> std::result::Result<(i32, Shape), Failure> {
        let mut element = 0_i32;
        // SAFETY: the value is alive and a tensor; the dimensions belong to it and are copied at once; none may be a null pointer.
        unsafe {
            if self.library.since(24) {
                let (mut dims, mut rank) = (null(), 0);
                ort!(self.library, GetTensorElementTypeAndShapeDataReference(self.ptr, (&raw mut element).cast(), &mut dims, &mut rank))?;
                let shape = if rank == 0 { Shape::new() } else { Shape::from_slice(std::slice::from_raw_parts(dims, rank)) };
                return Ok((element, shape));
            }
        }
        self.element_and_shape_by_handle()
    }

    fn element_and_shape_by_handle(&self) -> std::result::Result<(i32, Shape), Failure> {
        let (mut info, mut element, mut rank) = (null_mut(), 0_i32, 0);
        // SAFETY: the value is alive and a tensor; `info` is released whatever happens; the array has the length that goes with it.
        unsafe {
            ort!(self.library, GetTensorTypeAndShape(self.ptr, &mut info))?;
            let mut shape = Shape::new();
            let read = ort!(self.library, GetTensorElementType(info, (&raw mut element).cast()))
                .and_then(|()| ort!(self.library, GetDimensionsCount(info, &mut rank)))
                .and_then(|()| {
                    shape.resize(rank, 0);
                    ort!(self.library, GetDimensions(info, shape.as_mut_ptr(), rank))
                });
            ((*self.library.api).ReleaseTensorTypeAndShapeInfo)(info);
            read.map(|()| (element, shape))
        }
    }

    #[inline]
    fn into_bytes(self, byte_size: usize, session: &Arc<Handle>, inputs: &[Option<Tensor<'_>>]) -> std::result::Result<Bytes, Failure> {
        let mut data = null_mut();
        // SAFETY: the value is alive and holds numbers.
        unsafe { ort!(self.library, GetTensorMutableData(self.ptr, &mut data)) }?;
        let start = data as usize;
        let lies_in = |input: &Tensor<'_>| {
            let bytes = input.bytes().as_ptr_range();
            start < bytes.end as usize && bytes.start as usize <= start.saturating_add(byte_size - 1)
        };
        let owned = Elements { data: data.cast_const().cast(), byte_size, _value: self, _session: session.clone() };
        // A model may give back an input as it is; that memory is the caller's, and only for the length of the call.
        if inputs.iter().flatten().any(lies_in) {
            return Ok(AlignedBuf::copy_of(owned.as_ref()).into_bytes());
        }
        Ok(Bytes::from_owner(owned))
    }

    /// The strings as BYTES elements, put in their places within one buffer.
    fn strings(&self, count: usize) -> std::result::Result<Bytes, Trouble> {
        if count == 0 {
            return Ok(Bytes::new());
        }
        let too_large = || Trouble::Ours(NnrpError::new(Reason::NotOffered, "an output has strings beyond what BYTES can carry"));
        let (mut content, mut offsets) = (0, vec![0_usize; count]);
        // SAFETY: the value is alive and holds strings.
        unsafe { ort!(self.library, GetStringTensorDataLength(self.ptr, &mut content)) }?;
        let heads = count.checked_mul(4).ok_or_else(too_large)?;
        let mut buffer = vec![0_u8; heads.checked_add(content).ok_or_else(too_large)?];
        // SAFETY: the buffers have the lengths that go with them.
        unsafe { ort!(self.library, GetStringTensorContent(self.ptr, buffer[heads..].as_mut_ptr().cast(), content, offsets.as_mut_ptr(), count)) }?;
        // Contents lie behind all the heads; each moves towards the front, never over one that has not moved yet.
        let ends = offsets.iter().skip(1).copied().chain([content]);
        for (index, (start, end)) in offsets.iter().copied().zip(ends).enumerate() {
            let length = end.checked_sub(start).and_then(|length| u32::try_from(length).ok()).ok_or_else(too_large)?;
            let head = 4 * index + start;
            buffer.copy_within(heads + start..heads + end, head + 4);
            buffer[head..head + 4].copy_from_slice(&length.to_le_bytes());
        }
        Ok(buffer.into())
    }
}

/// Values side by side, as a run takes and gives them; those that are not taken are released at the end.
pub(super) struct Values {
    ptrs: SmallVec<[*mut OrtValue; 4]>,
    library: &'static Library,
}

impl Values {
    /// `count` places for values to come.
    #[inline]
    pub(super) fn none(library: &'static Library, count: usize) -> Values {
        Values { ptrs: smallvec![null_mut(); count], library }
    }

    #[inline]
    pub(super) fn push(&mut self, mut value: Value) {
        self.ptrs.push(std::mem::replace(&mut value.ptr, null_mut()));
    }

    /// Puts a value at a place, for a run to write to.
    pub(super) fn put(&mut self, place: usize, mut value: Value) {
        drop(self.take(place));
        if let Some(ptr) = self.ptrs.get_mut(place) {
            std::mem::swap(ptr, &mut value.ptr);
        }
    }

    /// The value at a place, which is empty from then on.
    #[inline]
    pub(super) fn take(&mut self, place: usize) -> Value {
        let ptr = self.ptrs.get_mut(place).map_or(null_mut(), |ptr| std::mem::replace(ptr, null_mut()));
        Value { ptr, library: self.library }
    }

    pub(super) fn as_ptr(&self) -> *const *const OrtValue {
        self.ptrs.as_ptr().cast()
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut *mut OrtValue {
        self.ptrs.as_mut_ptr()
    }
}

impl Drop for Values {
    #[inline]
    fn drop(&mut self) {
        for place in 0..self.ptrs.len() {
            drop(self.take(place));
        }
    }
}

/// The elements of an output, in the library's memory.
struct Elements {
    data: *const u8,
    byte_size: usize,
    _value: Value,
    /// The memory came from its allocator.
    _session: Arc<Handle>,
}

// SAFETY: nobody writes to the elements any more, and the value may be released on any thread.
unsafe impl Send for Elements {}

impl AsRef<[u8]> for Elements {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the value owns that many bytes there, for as long as it lives.
        unsafe { std::slice::from_raw_parts(self.data, self.byte_size) }
    }
}

#[inline]
fn element_of(datatype: Datatype) -> ONNXTensorElementDataType {
    use ONNXTensorElementDataType as Onnx;
    match datatype {
        Datatype::Bool => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        Datatype::Uint8 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        Datatype::Uint16 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        Datatype::Uint32 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        Datatype::Uint64 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        Datatype::Int8 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        Datatype::Int16 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        Datatype::Int32 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        Datatype::Int64 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        Datatype::Fp16 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        Datatype::Fp32 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        Datatype::Fp64 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        Datatype::Bf16 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        Datatype::Bytes => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
        Datatype::Fp8E4m3 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E4M3FN,
        Datatype::Fp8E5m2 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT8E5M2,
        Datatype::Int4 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT4,
        Datatype::Uint4 => Onnx::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_datatype_comes_back_from_its_onnx_number() {
        for &datatype in Datatype::ALL {
            assert_eq!(datatype_of(element_of(datatype) as i64), Some(datatype));
        }
    }
}
