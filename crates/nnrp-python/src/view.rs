//! Python values as inputs, read where they lie: NumPy arrays, `__dlpack__`, and our own tensors. Everything else becomes one of these, in Python.
use crate::error::refuse;
use bytes::Bytes;
use dlpark::DlpackFlags;
use dlpark::ffi::DLDeviceType;
use dlpark::python::ImportedDlpack;
use dlpark::python::consumer::ImportRequest;
use nnrp_core::tensor::{Data, Shape};
use nnrp_core::{Datatype, Reason, Tensor};
use numpy::npyffi::{self, NPY_TYPES, PyArrayObject};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::{Borrowed, intern};
use std::ffi::c_long;

/// Memory of a Python object.
struct Memory {
    data: *const u8,
    byte_size: usize,
    _owner: Owner,
}

/// What keeps it alive. A `Py` that is dropped on a thread without Python waits for the next one that has it.
enum Owner {
    Object(#[allow(dead_code, reason = "held, not read")] Py<PyAny>),
    Dlpack(#[allow(dead_code, reason = "held, not read")] ImportedDlpack),
}

// SAFETY: the memory is plain bytes, kept by `_owner`, which may be dropped on any thread.
unsafe impl Send for Memory {}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the owner told that so many bytes lie there. As with every library that reads NumPy's memory, the caller does not write to an
        // input while it is being read.
        if self.byte_size == 0 { &[] } else { unsafe { std::slice::from_raw_parts(self.data, self.byte_size) } }
    }
}

/// The elements of `value`, kept as long as anyone needs them. What cannot be read in place, for an input that the signature knows as `wanted`,
/// is converted once, in Python.
pub(crate) fn view(value: &Bound<'_, PyAny>, name: &str, wanted: Option<Datatype>) -> PyResult<Tensor<'static>> {
    if let Some(tensor) = in_place(value)? {
        return Ok(tensor);
    }
    let py = value.py();
    let adapted = py.import(intern!(py, "nnrp.tensor"))?.call_method1(intern!(py, "adapt"), (value, name, wanted.map(Datatype::name)))?;
    in_place(&adapted)?.ok_or_else(|| refuse(py, Reason::Bug, format!("input '{name}': the conversion gave nothing that can be read")))
}

fn in_place(value: &Bound<'_, PyAny>) -> PyResult<Option<Tensor<'static>>> {
    if is_array(value.as_borrowed()) {
        Ok(array(value.as_borrowed()).map(|Tensor { datatype, shape, data }| {
            let (bytes, owner) = (data.as_slice(), Owner::Object(value.clone().unbind()));
            let memory = Memory { data: bytes.as_ptr(), byte_size: bytes.len(), _owner: owner };
            Tensor { datatype, shape, data: Data::Shared(Bytes::from_owner(memory)) }
        }))
    } else if let Ok(tensor) = value.cast::<crate::tensor::Tensor>() {
        Ok(Some(tensor.get().inner.clone()))
    } else if value.hasattr(intern!(value.py(), "__dlpack__"))? {
        of_dlpack(value)
    } else {
        Ok(None)
    }
}

fn of_dlpack(value: &Bound<'_, PyAny>) -> PyResult<Option<Tensor<'static>>> {
    use DLDeviceType as Device;
    let (py, request) = (value.py(), ImportRequest::new(value.as_borrowed())?);
    let device = request.device().map_or(Device::CPU, |device| device.device_type);
    if !matches!(device, Device::CPU | Device::CUDAHOST | Device::ROCMHOST | Device::CUDAMANAGED) {
        return Err(refuse(py, Reason::NotOffered, format!("expected a tensor in CPU memory, got one on DLPack device type {}", device.0)));
    }
    let imported = match request.import(None, None) {
        // A producer from before DLPack had versions: NumPy knows how to ask it.
        Err(error) if error.is_instance_of::<PyTypeError>(py) => return Ok(None),
        imported => imported?,
    };
    let padded = matches!(&imported, ImportedDlpack::Versioned(managed) if managed.flags().contains(DlpackFlags::IS_SUBBYTE_TYPE_PADDED));
    let invalid = |error: dlpark::tensor::Error| refuse(py, Reason::Malformed, format!("DLPack tensor: {error}"));
    let tensor = imported.validate().map_err(invalid)?;
    let kind = (tensor.dtype().code.0, tensor.dtype().bits);
    let datatype = Datatype::ALL.iter().find(|datatype| datatype.dlpack() == Some(kind)).filter(|_| tensor.dtype().lanes == 1 && !padded);
    let (Some(&datatype), true) = (datatype, tensor.is_compact().map_err(invalid)?) else { return Ok(None) };
    let shape = Shape::from_slice(tensor.shape());
    // SAFETY: the producer says that its memory begins there.
    let data = unsafe { tensor.offset_bytes_ptr() }.map_err(invalid)?;
    let memory = Memory { data, byte_size: tensor.num_bytes(), _owner: Owner::Dlpack(imported) };
    Ok(Some(Tensor { datatype, shape, data: Data::Shared(Bytes::from_owner(memory)) }))
}

#[inline]
fn is_array(value: Borrowed<'_, '_, PyAny>) -> bool {
    // SAFETY: `value` is a live object; NumPy is imported here if it was not.
    unsafe { npyffi::PyArray_Check(value.py(), value.as_ptr()) != 0 }
}

/// Whether an array may have elements that do not count; which, Python looks.
#[inline]
fn is_masked(array: Borrowed<'_, '_, PyAny>) -> bool {
    // SAFETY: `array` is a live object.
    let is_plain = unsafe { npyffi::PyArray_CheckExact(array.py(), array.as_ptr()) != 0 };
    !is_plain && array.hasattr(intern!(array.py(), "_mask")).unwrap_or(true)
}

const _: () = assert!(size_of::<npyffi::npy_intp>() == size_of::<i64>(), "NumPy's dimensions have 64 bits");

/// A NumPy array that can be read as it lies, for as long as the caller holds a reference to it.
#[inline]
pub(crate) fn array<'a>(value: Borrowed<'a, '_, PyAny>) -> Option<Tensor<'a>> {
    const READABLE: i32 = npyffi::NPY_ARRAY_C_CONTIGUOUS | npyffi::NPY_ARRAY_ALIGNED;
    if !is_array(value) || is_masked(value) {
        return None;
    }
    // SAFETY: it is an array; its fields are constant while there is a second reference, because NumPy refuses to resize what others refer
    // to. As with every library that reads NumPy's memory, the caller does not write to an input while it is being read.
    unsafe {
        let array = &(*value.as_ptr().cast::<PyArrayObject>()).fields;
        let descr = &(*array.descr).fields;
        let datatype = NUMPY.iter().find(|(number, _)| *number as i32 == descr.type_num)?.1;
        if array.flags & READABLE != READABLE || descr.byteorder as u8 == b'>' {
            return None;
        }
        let rank = usize::try_from(array.nd).ok()?;
        let dims: &[i64] = if rank == 0 { &[] } else { std::slice::from_raw_parts(array.dimensions.cast(), rank) };
        // The array exists, so the product is below the size of memory.
        let byte_size = dims.iter().product::<i64>() as usize * datatype.bits() / 8;
        let bytes = if byte_size == 0 { &[] } else { std::slice::from_raw_parts(array.data.cast::<u8>(), byte_size) };
        Some(Tensor::borrowed(datatype, dims, bytes))
    }
}

/// Where a NumPy array's elements begin, and whether it has them for itself.
pub(crate) fn memory(value: Borrowed<'_, '_, PyAny>) -> Option<(*const u8, bool)> {
    is_array(value).then(|| {
        // SAFETY: it is an array, whose fields are read only.
        let array = unsafe { &(*value.as_ptr().cast::<PyArrayObject>()).fields };
        (array.data.cast_const().cast(), array.base.is_null() && array.flags & npyffi::NPY_ARRAY_OWNDATA != 0)
    })
}

/// How many references an object has, the caller's own among them.
pub(crate) fn references(value: &Bound<'_, PyAny>) -> isize {
    // SAFETY: `value` is a live object, and the interpreter is held.
    unsafe { pyo3::ffi::Py_REFCNT(value.as_ptr()) }
}

const LONG_IS_64: bool = size_of::<c_long>() == 8;

/// NumPy's numeric types; where two are the same, the one that NumPy itself would make comes first.
const NUMPY: [(NPY_TYPES, Datatype); 14] = [
    (NPY_TYPES::NPY_FLOAT, Datatype::Fp32),
    (NPY_TYPES::NPY_INT, Datatype::Int32),
    (NPY_TYPES::NPY_LONG, if LONG_IS_64 { Datatype::Int64 } else { Datatype::Int32 }),
    (NPY_TYPES::NPY_LONGLONG, Datatype::Int64),
    (NPY_TYPES::NPY_UBYTE, Datatype::Uint8),
    (NPY_TYPES::NPY_BOOL, Datatype::Bool),
    (NPY_TYPES::NPY_BYTE, Datatype::Int8),
    (NPY_TYPES::NPY_SHORT, Datatype::Int16),
    (NPY_TYPES::NPY_USHORT, Datatype::Uint16),
    (NPY_TYPES::NPY_UINT, Datatype::Uint32),
    (NPY_TYPES::NPY_ULONG, if LONG_IS_64 { Datatype::Uint64 } else { Datatype::Uint32 }),
    (NPY_TYPES::NPY_ULONGLONG, Datatype::Uint64),
    (NPY_TYPES::NPY_HALF, Datatype::Fp16),
    (NPY_TYPES::NPY_DOUBLE, Datatype::Fp64),
];

/// The NumPy type number of a datatype; `None` where NumPy has no such type.
#[inline]
pub(crate) fn numpy_type(datatype: Datatype) -> Option<i32> {
    NUMPY.iter().find(|(_, known)| *known == datatype).map(|(number, _)| *number as i32)
}
