//! Python values as inputs, read where they lie: NumPy arrays, `__dlpack__`, the buffer protocol, and our own tensors.
use crate::error::refuse;
use crate::tensor::Tensor;
use bytes::Bytes;
use dlpark::ffi::DLDeviceType;
use dlpark::python::ImportedDlpack;
use dlpark::python::consumer::ImportRequest;
use dlpark::{DlpackFlags, TensorRef};
use nnrp_core::tensor::{Data, Shape};
use nnrp_core::{Datatype, Reason, TensorSpec};
use numpy::npyffi::{self, NPY_TYPES, PyArrayObject};
use pyo3::Borrowed;
use pyo3::buffer::{ElementType, PyUntypedBuffer};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView};
use std::ffi::c_long;

/// The elements of a Python value, in place.
pub(crate) struct View {
    datatype: Datatype,
    shape: Shape,
    data: *const u8,
    byte_size: usize,
    _owner: Owner,
}

/// What keeps the memory alive. A `Py` that is dropped on a thread without Python waits for the next one that has it.
enum Owner {
    Object(#[allow(dead_code, reason = "held, not read")] Py<PyAny>),
    Dlpack(#[allow(dead_code, reason = "held, not read")] ImportedDlpack),
}

// SAFETY: the memory is plain bytes, kept by `_owner`, which may be dropped on any thread.
unsafe impl Send for View {}
// SAFETY: as above; nothing here writes to it.
unsafe impl Sync for View {}

impl AsRef<[u8]> for View {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        if self.byte_size == 0 {
            return &[];
        }
        // SAFETY: whoever made the view was told by the owner that so many bytes lie there. As with every library that reads NumPy's memory,
        // the caller does not write to an input while it is being read.
        unsafe { std::slice::from_raw_parts(self.data, self.byte_size) }
    }
}

impl View {
    /// A tensor for the length of the call.
    #[inline]
    pub(crate) fn borrow(&self) -> nnrp_core::Tensor<'_> {
        nnrp_core::Tensor::borrowed(self.datatype, &self.shape, self.as_ref())
    }

    /// A tensor that keeps the Python object as long as anyone needs it.
    pub(crate) fn share(mut self) -> nnrp_core::Tensor<'static> {
        nnrp_core::Tensor { datatype: self.datatype, shape: std::mem::take(&mut self.shape), data: Data::Shared(Bytes::from_owner(self)) }
    }

    /// The elements of `value`, for an input that the signature describes as `spec`.
    ///
    /// Lists, scalars, strings, and arrays that are big-endian, strided or of a type that NumPy lacks, are converted once, in Python.
    #[inline]
    pub(crate) fn of(value: &Bound<'_, PyAny>, name: &str, spec: Option<&TensorSpec>) -> PyResult<View> {
        if let Some(view) = View::in_place(value, spec)? {
            return Ok(view);
        }
        let py = value.py();
        let adapted = py.import(intern!(py, "nnrp.tensor"))?.call_method1(intern!(py, "adapt"), (value, name, spec.map(|spec| spec.datatype.name())))?;
        View::in_place(&adapted, spec)?.ok_or_else(|| refuse(py, Reason::Bug, format!("input '{name}': the conversion gave nothing that can be read")))
    }

    #[inline]
    fn in_place(value: &Bound<'_, PyAny>, spec: Option<&TensorSpec>) -> PyResult<Option<View>> {
        if is_array(value.as_borrowed()) {
            return Ok(View::of_array(value));
        }
        if let Ok(tensor) = value.cast::<Tensor>() {
            let inner = &tensor.get().inner;
            let bytes = inner.bytes();
            let owner = Owner::Object(value.clone().unbind());
            return Ok(Some(View { datatype: inner.datatype, shape: inner.shape.clone(), data: bytes.as_ptr(), byte_size: bytes.len(), _owner: owner }));
        }
        if value.hasattr(intern!(value.py(), "__dlpack__"))? {
            return View::of_dlpack(value);
        }
        let text = spec.is_some_and(|spec| spec.datatype == Datatype::Bytes) && (value.is_instance_of::<PyBytes>() || value.is_instance_of::<PyByteArray>());
        if text { Ok(None) } else { View::of_buffer(value) }
    }

    fn of_array(value: &Bound<'_, PyAny>) -> Option<View> {
        let nnrp_core::Tensor { datatype, shape, data } = array(value.as_borrowed())?;
        let (data, owner) = (data.as_slice(), Owner::Object(value.clone().unbind()));
        Some(View { datatype, shape, data: data.as_ptr(), byte_size: data.len(), _owner: owner })
    }

    fn of_dlpack(value: &Bound<'_, PyAny>) -> PyResult<Option<View>> {
        let py = value.py();
        let request = ImportRequest::new(value.as_borrowed())?;
        if let Ok(device) = request.device()
            && !matches!(device.device_type, DLDeviceType::CPU | DLDeviceType::CUDAHOST | DLDeviceType::ROCMHOST | DLDeviceType::CUDAMANAGED)
        {
            let message = format!("a tensor in CPU memory was expected, got one on DLPack device type {}", device.device_type.0);
            return Err(refuse(py, Reason::NotOffered, message));
        }
        let imported = request.import(None, None)?;
        let (described, flags) = match &imported {
            ImportedDlpack::Versioned(managed) => (managed.validate(), managed.flags()),
            ImportedDlpack::Legacy(managed) => (managed.validate(), DlpackFlags::empty()),
        };
        let invalid = |error: dlpark::tensor::Error| refuse(py, Reason::Malformed, format!("DLPack tensor: {error}"));
        let tensor = described.map_err(invalid)?;
        let Some(datatype) = dlpack_datatype(&tensor, flags) else { return Ok(None) };
        if !tensor.is_compact().map_err(invalid)? {
            return Ok(None);
        }
        // SAFETY: the producer says that its memory begins there.
        let data = unsafe { tensor.offset_bytes_ptr() }.map_err(invalid)?;
        let (shape, byte_size) = (Shape::from_slice(tensor.shape()), tensor.num_bytes());
        Ok(Some(View { datatype, shape, data, byte_size, _owner: Owner::Dlpack(imported) }))
    }

    fn of_buffer(value: &Bound<'_, PyAny>) -> PyResult<Option<View>> {
        let Ok(memory) = PyMemoryView::from(value) else { return Ok(None) };
        let buffer = PyUntypedBuffer::get(&memory)?;
        let datatype = match (ElementType::from_format(buffer.format()), buffer.item_size()) {
            (ElementType::Bool, 1) => Datatype::Bool,
            (ElementType::Float { bytes: 2 }, 2) => Datatype::Fp16,
            (ElementType::Float { bytes: 4 }, 4) => Datatype::Fp32,
            (ElementType::Float { bytes: 8 }, 8) => Datatype::Fp64,
            (ElementType::SignedInteger { bytes }, size) if bytes == size => integer(size, true),
            (ElementType::UnsignedInteger { bytes }, size) if bytes == size => integer(size, false),
            _ => return Ok(None),
        };
        // Python's own order marks: a foreign byte order is converted, not read.
        if matches!(buffer.format().to_bytes().first(), Some(b'>' | b'!')) || !buffer.is_c_contiguous() {
            return Ok(None);
        }
        let shape: Shape = buffer.shape().iter().map(|dim| *dim as i64).collect();
        let (data, byte_size) = (buffer.buf_ptr().cast_const().cast(), buffer.len_bytes());
        buffer.release(value.py());
        // The memoryview, which nobody else knows, keeps the exporter's buffer.
        Ok(Some(View { datatype, shape, data, byte_size, _owner: Owner::Object(memory.into_any().unbind()) }))
    }
}

#[inline]
fn is_array(value: Borrowed<'_, '_, PyAny>) -> bool {
    // SAFETY: `value` is a live object; NumPy is imported here if it was not.
    unsafe { npyffi::PyArray_Check(value.py(), value.as_ptr()) != 0 }
}

/// A NumPy array that can be read as it lies, for as long as the caller holds a reference to it.
#[inline]
pub(crate) fn array<'a>(value: Borrowed<'a, '_, PyAny>) -> Option<nnrp_core::Tensor<'a>> {
    const READABLE: i32 = npyffi::NPY_ARRAY_C_CONTIGUOUS | npyffi::NPY_ARRAY_ALIGNED;
    if !is_array(value) {
        return None;
    }
    // SAFETY: it is an array; its fields are constant while there is a second reference, because NumPy refuses to resize what others refer
    // to. As with every library that reads NumPy's memory, the caller does not write to an input while it is being read.
    unsafe {
        let array = &(*value.as_ptr().cast::<PyArrayObject>()).fields;
        let descr = &(*array.descr).fields;
        let datatype = datatype_of(descr.type_num)?;
        if array.flags & READABLE != READABLE || descr.byteorder as u8 == b'>' {
            return None;
        }
        let rank = usize::try_from(array.nd).ok()?;
        let dims: &[i64] = if rank == 0 { &[] } else { std::slice::from_raw_parts(array.dimensions.cast(), rank) };
        // The array exists, so the product is below the size of memory.
        let byte_size = dims.iter().product::<i64>() as usize * datatype.bits() / 8;
        let bytes = if byte_size == 0 { &[] } else { std::slice::from_raw_parts(array.data.cast::<u8>(), byte_size) };
        Some(nnrp_core::Tensor::borrowed(datatype, dims, bytes))
    }
}

const _: () = assert!(size_of::<npyffi::npy_intp>() == size_of::<i64>(), "NumPy's dimensions have 64 bits");

const fn integer(byte_size: usize, signed: bool) -> Datatype {
    match (byte_size, signed) {
        (1, true) => Datatype::Int8,
        (1, false) => Datatype::Uint8,
        (2, true) => Datatype::Int16,
        (2, false) => Datatype::Uint16,
        (4, true) => Datatype::Int32,
        (4, false) => Datatype::Uint32,
        (_, true) => Datatype::Int64,
        (_, false) => Datatype::Uint64,
    }
}

/// NumPy's numeric types; where two are the same, the one that NumPy itself would make comes first.
const NUMPY: [(NPY_TYPES, Datatype); 14] = [
    (NPY_TYPES::NPY_FLOAT, Datatype::Fp32),
    (NPY_TYPES::NPY_INT, Datatype::Int32),
    (NPY_TYPES::NPY_LONG, integer(size_of::<c_long>(), true)),
    (NPY_TYPES::NPY_LONGLONG, Datatype::Int64),
    (NPY_TYPES::NPY_UBYTE, Datatype::Uint8),
    (NPY_TYPES::NPY_BOOL, Datatype::Bool),
    (NPY_TYPES::NPY_BYTE, Datatype::Int8),
    (NPY_TYPES::NPY_SHORT, Datatype::Int16),
    (NPY_TYPES::NPY_USHORT, Datatype::Uint16),
    (NPY_TYPES::NPY_UINT, Datatype::Uint32),
    (NPY_TYPES::NPY_ULONG, integer(size_of::<c_long>(), false)),
    (NPY_TYPES::NPY_ULONGLONG, Datatype::Uint64),
    (NPY_TYPES::NPY_HALF, Datatype::Fp16),
    (NPY_TYPES::NPY_DOUBLE, Datatype::Fp64),
];

/// The datatype of a NumPy type number; `None` for those that are converted in Python.
#[inline]
fn datatype_of(number: i32) -> Option<Datatype> {
    NUMPY.iter().find(|(known, _)| *known as i32 == number).map(|(_, datatype)| *datatype)
}

/// The NumPy type number of a datatype; `None` where NumPy has no such type.
#[inline]
pub(crate) fn numpy_type(datatype: Datatype) -> Option<i32> {
    NUMPY.iter().find(|(_, known)| *known == datatype).map(|(number, _)| *number as i32)
}

fn dlpack_datatype(tensor: &TensorRef<'_>, flags: DlpackFlags) -> Option<Datatype> {
    let dtype = tensor.dtype();
    let packed = dtype.bits >= 8 || !flags.contains(DlpackFlags::IS_SUBBYTE_TYPE_PADDED);
    let known = || Datatype::ALL.iter().copied().find(|datatype| datatype.dlpack() == Some((dtype.code.0, dtype.bits)));
    (dtype.lanes == 1 && packed).then(known).flatten()
}
