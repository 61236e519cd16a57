//! Bytes that Python holds, and outputs as NumPy arrays over the runtime's own memory.
use crate::error::{OrRaise, refuse};
use crate::view::{numpy_type, view};
use dlpark::ffi::{DLDataType, DLDataTypeCode, DLDevice};
use dlpark::metadata::Dynamic;
use dlpark::python::ExportRequest;
use dlpark::{DlpackFlags, Managed, ManagedTensorBase};
use nnrp_core::tensor::{bytes_elements, element_count, push_bytes_element};
use nnrp_core::{Datatype, Reason};
use numpy::npyffi::{self, NpyTypes, PY_ARRAY_API};
use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};
use std::ffi::c_void;
use std::ptr::null_mut;

/// Elements up to this size are copied, into memory of NumPy's own or out of it: cheaper than keeping whose they are (measured: 0.1 µs less a call).
pub(crate) const SMALL: usize = 1024;

#[pyclass(frozen, subclass, module = "nnrp._nnrp")]
pub(crate) struct Tensor {
    pub(crate) inner: nnrp_core::Tensor<'static>,
    readonly: bool,
}

#[pymethods]
impl Tensor {
    /// A tensor over a buffer of the caller's, which it keeps; BYTES also from a list of str and bytes.
    #[new]
    fn new(py: Python<'_>, datatype: &str, shape: Vec<i64>, data: &Bound<'_, PyAny>) -> PyResult<Self> {
        let datatype = Datatype::parse(datatype, "data").or_raise(py)?;
        let mut inner = match data.cast::<PyList>() {
            Ok(elements) if datatype == Datatype::Bytes => nnrp_core::Tensor::shared(datatype, &[], encode(elements)?.into()),
            _ => view(data, "data", None)?,
        };
        let count = element_count(&shape).ok_or_else(|| refuse(py, Reason::InvalidShape, format!("tensor: {shape:?} is no shape")))?;
        let bytes = inner.bytes();
        let fits = match datatype {
            Datatype::Bytes => bytes_elements(bytes).all(|element| element.is_some()) && count == bytes_elements(bytes).count(),
            _ => datatype.byte_size(count) == Some(bytes.len()),
        };
        if !fits {
            let message = format!("tensor: {} bytes do not hold {} of shape {shape:?}", bytes.len(), datatype.name());
            return Err(refuse(py, Reason::ByteSizeMismatch, message));
        }
        (inner.datatype, inner.shape) = (datatype, shape.into());
        Ok(Tensor { inner, readonly: true })
    }

    fn _about(&self) -> (&'static str, &[i64]) {
        (self.inner.datatype.name(), &self.inner.shape)
    }

    /// What Python's helpers work on: an array where NumPy has the type, or else an array of plain bytes, or a list of BYTES elements.
    fn _plain<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        plain(py, &self.inner, !self.readonly, if self.readonly { 0 } else { SMALL })
    }

    fn tobytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.inner.bytes())
    }

    fn _dlpack(&self, py: Python<'_>, max_version: Option<(u32, u32)>, device: Option<(u32, i32)>, copy: Option<bool>) -> PyResult<Py<PyAny>> {
        let request = ExportRequest::parse(None, max_version, device, copy)?;
        request.export_zero_copy(py, DLDevice::CPU, self.flags(), || self.managed(), || self.managed())
    }
}

impl Tensor {
    fn flags(&self) -> DlpackFlags {
        if self.readonly { DlpackFlags::READ_ONLY } else { DlpackFlags::empty() }
    }

    fn managed<M: ManagedTensorBase>(&self) -> PyResult<Managed<M>> {
        let failed = |error: &dyn std::fmt::Display| PyBufferError::new_err(error.to_string());
        let datatype = self.inner.datatype;
        let (code, bits) = datatype.dlpack().ok_or_else(|| failed(&format_args!("DLPack has no type for {}", datatype.name())))?;
        let (data, owner) = (self.inner.bytes().as_ptr(), Box::new(self.inner.data.clone()));
        let mut tensor = Dynamic::compact(self.inner.shape.as_slice()).initialize_as::<M>(owner).map_err(|error| failed(&error))?;
        tensor.set_data(data.cast_mut().cast()).set_device(DLDevice::CPU).set_dtype(DLDataType::scalar(DLDataTypeCode(code), bits));
        tensor.set_flags(self.flags()).map_err(|error| failed(&error))?;
        // SAFETY: shape and strides are the allocation's own; the bytes are kept by its context, and not moved by moving the handle to them.
        Ok(unsafe { tensor.finish() })
    }
}

fn encode(elements: &Bound<'_, PyList>) -> PyResult<Vec<u8>> {
    let mut out = Vec::new();
    for element in elements {
        match (element.cast::<PyString>(), element.cast::<PyBytes>()) {
            (Ok(text), _) => push_bytes_element(&mut out, text.to_str()?.as_bytes()),
            (_, Ok(bytes)) => push_bytes_element(&mut out, bytes.as_bytes()),
            _ => return Err(PyTypeError::new_err(format!("BYTES element: expected str or bytes, got {}", element.get_type().name()?))),
        }
    }
    Ok(out)
}

/// Elements as Python gets them: a NumPy array where NumPy, or ml_dtypes, has the type, or else a tensor.
#[inline]
pub(crate) fn present<'py>(py: Python<'py>, tensor: &nnrp_core::Tensor<'_>, writable: bool) -> PyResult<Bound<'py, PyAny>> {
    let value = plain(py, tensor, writable, SMALL)?;
    if numpy_type(tensor.datatype).is_some() {
        return Ok(value);
    }
    let parts = (tensor.datatype.name(), tensor.shape.as_slice(), value);
    py.import(intern!(py, "nnrp.tensor"))?.call_method1(intern!(py, "present"), parts)
}

#[inline]
fn plain<'py>(py: Python<'py>, tensor: &nnrp_core::Tensor<'_>, writable: bool, small: usize) -> PyResult<Bound<'py, PyAny>> {
    match (numpy_type(tensor.datatype), &tensor.data) {
        (Some(number), _) => array(py, tensor, number, writable, small),
        (None, _) if tensor.datatype == Datatype::Bytes => {
            let elements = bytes_elements(tensor.bytes()).flatten().map(|element| PyBytes::new(py, element));
            Ok(PyList::new(py, elements.collect::<Vec<_>>())?.into_any())
        }
        (None, data) => {
            let whole = nnrp_core::Tensor { datatype: Datatype::Uint8, shape: [data.as_slice().len() as i64].into_iter().collect(), data: data.clone() };
            array(py, &whole, numpy_type(Datatype::Uint8).unwrap_or_default(), writable, small)
        }
    }
}

/// A NumPy array over a tensor's bytes, which it keeps; up to `small` of them, or unaligned ones, are copied.
#[inline]
fn array<'py>(py: Python<'py>, tensor: &nnrp_core::Tensor<'_>, number: i32, writable: bool, small: usize) -> PyResult<Bound<'py, PyAny>> {
    let bytes = tensor.bytes();
    if bytes.len() > small && (bytes.as_ptr() as usize).is_multiple_of(tensor.datatype.align()) {
        return kept(py, tensor.clone().into_owned(), number, writable);
    }
    // Without memory, flags would ask for Fortran's order.
    let made = new_array(py, tensor, number, null_mut(), 0)?;
    // SAFETY: a new array, which nobody else has seen, of as many bytes.
    unsafe {
        let array = &mut (*made.as_ptr().cast::<npyffi::PyArrayObject>()).fields;
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), array.data.cast(), bytes.len());
        if !writable {
            array.flags &= !npyffi::NPY_ARRAY_WRITEABLE;
        }
    }
    Ok(made)
}

fn kept<'py>(py: Python<'py>, tensor: nnrp_core::Tensor<'static>, number: i32, writable: bool) -> PyResult<Bound<'py, PyAny>> {
    let flags = if writable { npyffi::NPY_ARRAY_CARRAY } else { npyffi::NPY_ARRAY_CARRAY_RO };
    let made = new_array(py, &tensor, number, tensor.bytes().as_ptr().cast_mut().cast(), flags)?;
    let base = Bound::new(py, Tensor { inner: tensor, readonly: !writable })?;
    // SAFETY: a new array; the base keeps the bytes where they lie. Those of an answer belong to it alone, so they may be written to.
    if unsafe { PY_ARRAY_API.PyArray_SetBaseObject(py, made.as_ptr().cast(), base.into_ptr()) } != 0 {
        return Err(PyErr::fetch(py));
    }
    Ok(made)
}

#[inline]
fn new_array<'py>(py: Python<'py>, tensor: &nnrp_core::Tensor<'_>, number: i32, memory: *mut c_void, flags: i32) -> PyResult<Bound<'py, PyAny>> {
    let (shape, rank) = (tensor.shape.as_ptr().cast_mut().cast(), tensor.shape.len() as i32);
    // SAFETY: NumPy takes the descriptor over, copies the shape, and allocates the memory or is given as much as the shape needs, which the
    // engine checked.
    unsafe {
        let kind = npyffi::get_type_object(py, NpyTypes::PyArray_Type);
        let descr = PY_ARRAY_API.PyArray_DescrFromType(py, number);
        Bound::from_owned_ptr_or_err(py, PY_ARRAY_API.PyArray_NewFromDescr(py, kind, descr, rank, shape, null_mut(), memory, flags, null_mut()))
    }
}
