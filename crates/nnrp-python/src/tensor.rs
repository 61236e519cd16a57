//! Tensors as Python sees them: the class for types that NumPy lacks, and outputs as NumPy arrays over the runtime's own memory.
use crate::error::{OrRaise, refuse};
use crate::view::{View, numpy_type};
use bytes::Bytes;
use dlpark::ffi::{DLDataType, DLDataTypeCode, DLDevice};
use dlpark::metadata::Dynamic;
use dlpark::python::{DlpackExporter, ExportRequest, export_dlpack};
use dlpark::{DlpackFlags, Managed, ManagedTensorBase};
use nnrp_core::tensor::{Data, bytes_elements, element_count, push_bytes_element};
use nnrp_core::{Datatype, Reason};
use numpy::npyffi::{self, NpyTypes, PY_ARRAY_API, npy_intp};
use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};
use std::ptr::null_mut;

/// Outputs up to this size are copied into memory of NumPy's own: cheaper than keeping the runtime's (measured: 0.1 µs less a call).
const SMALL: usize = 1024;

/// A datatype, a shape and bytes, for types that NumPy lacks: BF16, FP8, INT4, and BYTES.
///
/// Args:
///     datatype: a name of the Open Inference Protocol, such as "BF16" or "BYTES".
///     shape: dimensions, none negative.
///     data: the elements, row-major and little-endian, as anything with the buffer protocol; not copied. For BYTES also a flat sequence of
///         str and bytes. INT4 and UINT4 lie two to a byte, the first in the low half.
///
/// Raises:
///     UnknownDatatype, InvalidShape, ByteSizeMismatch.
///
/// Example:
///     >>> nnrp.Tensor("BF16", [2], b"\x80\x3f\x00\x40")
///     Tensor('BF16', (2,))
#[pyclass(frozen, module = "nnrp")]
pub(crate) struct Tensor {
    pub(crate) inner: nnrp_core::Tensor<'static>,
    readonly: bool,
}

#[pymethods]
impl Tensor {
    #[new]
    fn new(py: Python<'_>, datatype: &str, shape: Vec<i64>, data: &Bound<'_, PyAny>) -> PyResult<Self> {
        let datatype = Datatype::parse(datatype, "Tensor").or_raise(py)?;
        let count = element_count(&shape).ok_or_else(|| refuse(py, Reason::InvalidShape, format!("tensor: shape {shape:?} cannot be")))?;
        let elements = datatype == Datatype::Bytes && (data.is_instance_of::<PyList>() || data.is_instance_of::<PyTuple>());
        let bytes = if elements { encode(data)? } else { shared(View::of(data, "data", None)?.share()) };
        let fits = match datatype {
            Datatype::Bytes => bytes_elements(&bytes).all(|element| element.is_some()) && bytes_elements(&bytes).count() == count,
            _ => datatype.byte_size(count) == Some(bytes.len()),
        };
        if !fits {
            let message = format!("tensor: {} bytes do not hold {} of shape {shape:?}", bytes.len(), datatype.name());
            return Err(refuse(py, Reason::ByteSizeMismatch, message));
        }
        Ok(Tensor { inner: nnrp_core::Tensor::shared(datatype, &shape, bytes), readonly: true })
    }

    /// The element type, as the Open Inference Protocol names it.
    #[getter]
    fn datatype(&self) -> &'static str {
        self.inner.datatype.name()
    }

    /// The dimensions.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.inner.shape)
    }

    /// The bytes as they go over the wire; a copy.
    fn tobytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.inner.bytes())
    }

    /// The elements as a NumPy array, read-only where the data was the caller's: without a copy, except for BYTES (an array of bytes objects) and four-bit types (one element a byte).
    ///
    /// Raises:
    ///     NotOffered: the type is one of the package ml_dtypes, which is not installed.
    fn numpy<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        match numpy_type(slf.get().inner.datatype) {
            Some(number) => array(py, &slf.get().inner, number, !slf.get().readonly),
            None => helper(py)?.call_method1(intern!(py, "as_numpy"), (slf, slf.get().plain(py)?)),
        }
    }

    #[pyo3(signature = (dtype=None, copy=None))]
    fn __array__<'py>(slf: &Bound<'py, Self>, dtype: Option<&Bound<'py, PyAny>>, copy: Option<bool>) -> PyResult<Bound<'py, PyAny>> {
        let array = Self::numpy(slf)?;
        match dtype {
            Some(dtype) => array.call_method1(intern!(slf.py(), "astype"), (dtype,)),
            None if copy == Some(true) => array.call_method0(intern!(slf.py(), "copy")),
            None => Ok(array),
        }
    }

    #[pyo3(signature = (*, stream=None, max_version=None, dl_device=None, copy=None))]
    fn __dlpack__(
        &self,
        py: Python<'_>,
        stream: Option<&Bound<'_, PyAny>>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(u32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Py<PyAny>> {
        if stream.is_some() {
            return Err(PyBufferError::new_err("a tensor in CPU memory has no stream"));
        }
        export_dlpack(self, py, ExportRequest::parse(None, max_version, dl_device, copy)?)
    }

    fn __dlpack_device__(&self) -> (u32, i32) {
        (DLDevice::CPU.device_type.0, DLDevice::CPU.device_id)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("Tensor('{}', {})", self.datatype(), self.shape(py)?.repr()?))
    }
}

impl Tensor {
    /// What Python's helpers work on: an array of plain bytes, or a list of BYTES elements.
    fn plain<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if self.inner.datatype == Datatype::Bytes {
            let elements = bytes_elements(self.inner.bytes()).flatten().map(|element| PyBytes::new(py, element));
            return Ok(PyList::new(py, elements.collect::<Vec<_>>())?.into_any());
        }
        let bytes = shared(self.inner.clone());
        let whole = nnrp_core::Tensor::shared(Datatype::Uint8, &[bytes.len() as i64], bytes);
        array(py, &whole, numpy_type(Datatype::Uint8).unwrap_or_default(), !self.readonly)
    }

    fn managed<M: ManagedTensorBase>(&self) -> PyResult<Managed<M>> {
        let datatype = self.inner.datatype;
        let (code, bits) = datatype.dlpack().ok_or_else(|| PyBufferError::new_err(format!("DLPack has no type for {}", datatype.name())))?;
        let failed = |error: &dyn std::fmt::Display| PyBufferError::new_err(error.to_string());
        let bytes = Box::new(self.inner.data.clone());
        let data = self.inner.bytes().as_ptr();
        let mut tensor = Dynamic::compact(self.inner.shape.as_slice()).initialize_as::<M>(bytes).map_err(|error| failed(&error))?;
        tensor.set_data(data.cast_mut().cast()).set_device(DLDevice::CPU).set_dtype(DLDataType::scalar(DLDataTypeCode(code), bits));
        tensor.set_flags(self.flags()).map_err(|error| failed(&error))?;
        // SAFETY: shape and strides are the allocation's own; the bytes are kept by its context, and not moved by moving the handle to them.
        Ok(unsafe { tensor.finish() })
    }
}

impl DlpackExporter for Tensor {
    fn device(&self) -> DLDevice {
        DLDevice::CPU
    }

    fn flags(&self) -> DlpackFlags {
        if self.readonly { DlpackFlags::READ_ONLY } else { DlpackFlags::empty() }
    }

    fn prepare_export(&self, _py: Python<'_>, _request: &ExportRequest<'_>) -> PyResult<()> {
        Ok(())
    }

    fn export_legacy(&self, _py: Python<'_>) -> PyResult<Managed<dlpark::ffi::DLManagedTensor>> {
        self.managed()
    }

    fn export_versioned(&self, _py: Python<'_>) -> PyResult<Managed<dlpark::ffi::DLManagedTensorVersioned>> {
        self.managed()
    }
}

fn helper(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import(intern!(py, "nnrp.tensor"))
}

fn shared(tensor: nnrp_core::Tensor<'static>) -> Bytes {
    match tensor.data {
        Data::Shared(bytes) => bytes,
        Data::Borrowed(bytes) => Bytes::from_static(bytes),
    }
}

fn encode(elements: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    let mut out = Vec::new();
    for element in elements.try_iter()? {
        let element = element?;
        if let Ok(text) = element.cast::<PyString>() {
            push_bytes_element(&mut out, text.to_str()?.as_bytes());
        } else if let Ok(bytes) = element.cast::<PyBytes>() {
            push_bytes_element(&mut out, bytes.as_bytes());
        } else {
            return Err(PyTypeError::new_err(format!("BYTES element: expected str or bytes, got {}", element.get_type().name()?)));
        }
    }
    Ok(out.into())
}

/// An output as the caller gets it: a NumPy array where NumPy, or ml_dtypes, has the type, or else a [`Tensor`].
#[inline]
pub(crate) fn present<'py>(py: Python<'py>, tensor: &nnrp_core::Tensor<'static>) -> PyResult<Bound<'py, PyAny>> {
    if let Some(number) = numpy_type(tensor.datatype) {
        return array(py, tensor, number, true);
    }
    let tensor = Bound::new(py, Tensor { inner: tensor.clone(), readonly: false })?;
    helper(py)?.call_method1(intern!(py, "present"), (tensor,))
}

/// A NumPy array over a tensor's bytes, which it keeps; small or unaligned ones are copied.
#[inline]
fn array<'py>(py: Python<'py>, tensor: &nnrp_core::Tensor<'static>, number: i32, writable: bool) -> PyResult<Bound<'py, PyAny>> {
    let (shape, rank) = (tensor.shape.as_ptr().cast_mut().cast::<npy_intp>(), tensor.shape.len() as i32);
    let (data, byte_size) = (tensor.bytes().as_ptr(), tensor.bytes().len());
    let copied = byte_size <= SMALL && writable || !(data as usize).is_multiple_of(tensor.datatype.align());
    let memory = if copied { null_mut() } else { data.cast_mut().cast() };
    // Without memory, flags would ask for Fortran's order.
    let flags = if copied {
        0
    } else if writable {
        npyffi::NPY_ARRAY_CARRAY
    } else {
        npyffi::NPY_ARRAY_CARRAY_RO
    };
    // SAFETY: NumPy takes the descriptor over, copies the shape, and allocates the memory or is given as much as the shape needs, which the
    // engine checked; the base keeps it. The bytes of an answer belong to it alone, so they may be written to.
    unsafe {
        let kind = npyffi::get_type_object(py, NpyTypes::PyArray_Type);
        let descr = PY_ARRAY_API.PyArray_DescrFromType(py, number);
        let made = PY_ARRAY_API.PyArray_NewFromDescr(py, kind, descr, rank, shape, null_mut(), memory, flags, null_mut());
        let made = Bound::from_owned_ptr_or_err(py, made)?;
        let object = made.as_ptr().cast::<npyffi::PyArrayObject>();
        if copied {
            std::ptr::copy_nonoverlapping(data, (*object).fields.data.cast(), byte_size);
        } else {
            let base = Bound::new(py, Tensor { inner: tensor.clone(), readonly: !writable })?;
            if PY_ARRAY_API.PyArray_SetBaseObject(py, object, base.into_ptr()) != 0 {
                return Err(PyErr::fetch(py));
            }
        }
        Ok(made)
    }
}
