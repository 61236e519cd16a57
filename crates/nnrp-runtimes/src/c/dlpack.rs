//! Tensors across the border: DLPack in, borrowed or gathered; DLPack out, without a copy.
use super::abi::{DLDataType, DLDevice, DLDeviceType, DLManagedTensorVersioned, DLPackVersion, DLTensor, DatatypeNumber, NnrpTensor, Versioned, number_of};
use super::memory::{malformed, refer, refer_all};
use bytes::Bytes;
use nnrp_core::tensor::element_count;
use nnrp_core::{Data, Datatype, NnrpError as Error, Reason, Result, Shape, Tensor};
use std::ffi::{CStr, c_void};
use std::fmt;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

/// Most dimensions that a tensor may have.
pub const DIMENSION_LIMIT: usize = 64;

/// Largest copy in bytes of elements that are repeated by their strides: those cost the caller no memory.
const REPEATED_LIMIT: usize = 1 << 30;

const DLPACK_MAJOR: u32 = 1;
/// Every tensor we give has its strides, as this version wants.
const DLPACK_MINOR: u32 = 2;
const READ_ONLY: u64 = 1;
const SUBBYTE_TYPE_PADDED: u64 = 4;

const CPU: DLDeviceType = DLDeviceType(1);
/// Memory of the CPU that a device driver has pinned, for CUDA and for ROCm.
const PINNED: [DLDeviceType; 2] = [DLDeviceType(3), DLDeviceType(11)];

const UNSIGNED_BYTE: (u8, u8) = (1, 8);

fn datatype_of(number: DatatypeNumber) -> Option<Datatype> {
    Datatype::ALL.iter().copied().find(|datatype| number_of(*datatype) == number)
}

/// Which tensor: an input or an output, and its name.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// `input` or `output`.
    pub what: &'static str,
    /// Its name.
    pub name: &'a str,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} '{}'", self.what, self.name)
    }
}

#[cold]
fn refused(reason: Reason, place: Place<'_>, message: impl fmt::Display) -> Error {
    Error::new(reason, format!("{place}: {message}")).with(place.what, place.name)
}

/// The tensor that the other side describes: its elements where they lie when they are C-contiguous, a copy otherwise.
///
/// # Safety
/// What the tensor points to is as DLPack says and lives, unchanged by others, for `'a`.
pub unsafe fn import<'a>(place: Place<'_>, given: &NnrpTensor) -> Result<Tensor<'a>> {
    let argument = format_args!("{place}: tensor");
    // SAFETY: passed on from this function's caller. Only the version may be read before it is known.
    let version = unsafe { refer(argument, given.tensor.cast::<DLPackVersion>())? };
    if version.major != DLPACK_MAJOR {
        return Err(malformed(argument, "DLPack 1", format_args!("DLPack {}", version.major)));
    }
    // SAFETY: of a version whose layout we know; the caller vouches for the rest.
    let managed = unsafe { refer(argument, given.tensor)? };
    let tensor = &managed.dl_tensor;
    check_device(place, tensor.device)?;
    let stored = stored_datatype(place, tensor.dtype, managed.flags)?;
    // SAFETY: passed on from this function's caller.
    let lying = unsafe { shape(place, "tensor.shape", tensor.ndim, tensor.shape)? };
    // SAFETY: passed on from this function's caller.
    let (datatype, shape) = unsafe { meaning(place, given, stored, lying)? };
    // SAFETY: passed on from this function's caller.
    let data = unsafe { elements(place, tensor, stored, lying)? };
    Ok(Tensor { datatype, shape, data })
}

fn check_device(place: Place<'_>, device: DLDevice) -> Result<()> {
    if device.device_type == CPU || PINNED.contains(&device.device_type) {
        return Ok(());
    }
    let message = format_args!("expected memory of the CPU (DLPack device 1), got device {}", device.device_type.0);
    Err(refused(Reason::NotOffered, place, message).with("got", device.device_type.0))
}

fn stored_datatype(place: Place<'_>, dtype: DLDataType, flags: u64) -> Result<Datatype> {
    let DLDataType { code, bits, lanes } = dtype;
    if lanes != 1 {
        return Err(refused(Reason::UnknownDatatype, place, format_args!("expected one lane, got {lanes}")).with("got", lanes));
    }
    let known = Datatype::ALL.iter().copied().find(|datatype| datatype.dlpack() == Some((code, bits)));
    let datatype = known.ok_or_else(|| refused(Reason::UnknownDatatype, place, format_args!("no datatype is DLPack's code {code} of {bits} bits")))?;
    if datatype.bits() < 8 && flags & SUBBYTE_TYPE_PADDED != 0 {
        return Err(refused(Reason::NotOffered, place, format_args!("expected packed {}, got one element a byte", datatype.name())));
    }
    Ok(datatype)
}

/// What the elements mean to the model: BYTES lie as UINT8; all others are what they lie as.
///
/// # Safety
/// `given.shape` is NULL or points to `given.ndim` dimensions that live for the call.
unsafe fn meaning(place: Place<'_>, given: &NnrpTensor, stored: Datatype, lying: &[i64]) -> Result<(Datatype, Shape)> {
    let stated = match given.datatype {
        0 => stored,
        number => {
            datatype_of(number).ok_or_else(|| refused(Reason::UnknownDatatype, place, format_args!("no datatype has number {number}")).with("got", number))?
        }
    };
    // SAFETY: passed on from this function's caller.
    let stated_shape = unsafe { shape(place, "shape", given.ndim, given.shape)? };
    if stated == Datatype::Bytes {
        if stored.dlpack() != Some(UNSIGNED_BYTE) || lying.len() != 1 {
            let message = format_args!("BYTES: expected UINT8 of one dimension, got {} {lying:?}", stored.name());
            return Err(refused(Reason::DatatypeMismatch, place, message));
        }
        return Ok((stated, Shape::from_slice(stated_shape)));
    }
    if stated != stored {
        let message = format_args!("expected its tensor to be {}, got {}", stated.name(), stored.name());
        return Err(refused(Reason::DatatypeMismatch, place, message).with("expected", stated.name()).with("got", stored.name()));
    }
    if !given.shape.is_null() && stated_shape != lying {
        return Err(refused(Reason::ShapeMismatch, place, format_args!("expected its tensor to have shape {stated_shape:?}, got {lying:?}")));
    }
    Ok((stored, Shape::from_slice(lying)))
}

/// # Safety
/// `pointer` is NULL or points to `ndim` dimensions that live, unchanged by others, for `'a`.
unsafe fn shape<'a>(place: Place<'_>, field: &str, ndim: i32, pointer: *const i64) -> Result<&'a [i64]> {
    let count = usize::try_from(ndim).ok().filter(|count| *count <= DIMENSION_LIMIT);
    let count = count.ok_or_else(|| refused(Reason::InvalidShape, place, format_args!("expected 0 to {DIMENSION_LIMIT} dimensions, got {ndim}")))?;
    // SAFETY: passed on from this function's caller.
    unsafe { refer_all(format_args!("{place}: {field}"), pointer, count) }
}

/// # Safety
/// `tensor` is as DLPack says, of that datatype and shape, and its elements live, unchanged by others, for `'a`.
unsafe fn elements<'a>(place: Place<'_>, tensor: &DLTensor, datatype: Datatype, shape: &[i64]) -> Result<Data<'a>> {
    let invalid = || refused(Reason::InvalidShape, place, format_args!("shape {shape:?} has a negative dimension or too many elements")).with("got", shape);
    let count = element_count(shape).ok_or_else(invalid)?;
    let byte_size = datatype.byte_size(count).filter(|size| isize::try_from(*size).is_ok()).ok_or_else(invalid)?;
    if byte_size == 0 {
        return Ok(Data::Borrowed(&[]));
    }
    if tensor.data.is_null() {
        return Err(malformed(format_args!("{place}: tensor.data"), format_args!("{byte_size} bytes"), "NULL"));
    }
    let offset = usize::try_from(tensor.byte_offset).ok();
    let last = offset.and_then(|offset| tensor.data.addr().checked_add(offset)?.checked_add(byte_size));
    let address = offset.filter(|_| last.is_some_and(|last| isize::try_from(last).is_ok()));
    let offset = address.ok_or_else(|| refused(Reason::InvalidShape, place, format_args!("byte_offset {} runs past the end of memory", tensor.byte_offset)))?;
    let first = tensor.data.cast_const().cast::<u8>().wrapping_add(offset);
    let strides = if tensor.strides.is_null() {
        None
    } else {
        // SAFETY: passed on from this function's caller.
        Some(unsafe { refer_all(format_args!("{place}: tensor.strides"), tensor.strides, shape.len())? })
    };
    match strides {
        Some(strides) if !is_contiguous(shape, strides) => {
            // SAFETY: passed on from this function's caller.
            unsafe { gather(place, first, datatype, shape, strides, byte_size) }
        }
        // SAFETY: `byte_size` bytes begin there, which the caller vouches for.
        _ => Ok(Data::Borrowed(unsafe { std::slice::from_raw_parts(first, byte_size) })),
    }
}

/// Whether elements of that shape, of which there is at least one, lie in row-major order without gaps.
fn is_contiguous(shape: &[i64], strides: &[i64]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(dimension, stride)| {
        let fits = *dimension == 1 || *stride == expected;
        expected *= dimension;
        fits
    })
}

/// Distances in bytes from one element to the next, for each axis.
type Steps = smallvec::SmallVec<[isize; 6]>;

/// Copies elements that lie anywhere into row-major order.
///
/// # Safety
/// As [`elements`]; `first` is the element of index zero.
unsafe fn gather(place: Place<'_>, first: *const u8, datatype: Datatype, shape: &[i64], strides: &[i64], byte_size: usize) -> Result<Data<'static>> {
    let size = datatype.bits() / 8;
    if size == 0 {
        return Err(refused(Reason::NotOffered, place, format_args!("{} elements of less than a byte must be C-contiguous", datatype.name())));
    }
    let outside = || refused(Reason::InvalidShape, place, format_args!("strides {strides:?} reach past the end of memory"));
    let steps = strides.iter().map(|stride| isize::try_from(*stride).ok()?.checked_mul(size.cast_signed())).collect::<Option<Steps>>().ok_or_else(outside)?;
    let reach = shape.iter().zip(&steps).try_fold(0isize, |sum, (dimension, step)| {
        let last = isize::try_from(*dimension).ok()?.checked_sub(1)?;
        sum.checked_add(step.checked_mul(last)?.checked_abs()?)
    });
    let repeats = reach.ok_or_else(outside)?.unsigned_abs() < byte_size - size;
    let too_large = || refused(Reason::InvalidShape, place, format_args!("its C-contiguous copy of {byte_size} bytes is too large"));
    let mut copy = Vec::new();
    if repeats && byte_size > REPEATED_LIMIT || copy.try_reserve_exact(byte_size).is_err() {
        return Err(too_large());
    }
    // SAFETY: no step leaves what the caller vouches for.
    unsafe { gather_axis(&mut copy, first, size, shape, &steps) };
    Ok(Data::Shared(Bytes::from(copy)))
}

/// # Safety
/// Every element of that shape, `steps` bytes apart, is there to read, `size` bytes each.
unsafe fn gather_axis(copy: &mut Vec<u8>, first: *const u8, size: usize, shape: &[i64], steps: &[isize]) {
    let (Some((dimension, shape)), Some((step, steps))) = (shape.split_first(), steps.split_first()) else {
        // SAFETY: the element is there to read.
        copy.extend_from_slice(unsafe { std::slice::from_raw_parts(first, size) });
        return;
    };
    if shape.is_empty() && *step == size.cast_signed() {
        // SAFETY: this axis' elements lie one after another.
        copy.extend_from_slice(unsafe { std::slice::from_raw_parts(first, *dimension as usize * size) });
        return;
    }
    let mut at = first;
    for _ in 0..*dimension {
        // SAFETY: passed on from this function's caller.
        unsafe { gather_axis(copy, at, size, shape, steps) };
        at = at.wrapping_offset(*step);
    }
}

/// How elements lie, as DLPack says it: BYTES as UINT8 of one dimension.
struct Lying {
    dtype: DLDataType,
    shape: Shape,
    strides: Shape,
}

impl Lying {
    fn of(tensor: &Tensor<'_>) -> Lying {
        let ((code, bits), shape) = match tensor.datatype.dlpack() {
            Some(stored) => (stored, tensor.shape.clone()),
            None => (UNSIGNED_BYTE, Shape::from_slice(&[tensor.bytes().len() as i64])),
        };
        let mut strides = Shape::from_elem(1, shape.len());
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis].saturating_mul(shape[axis].max(1));
        }
        Lying { dtype: DLDataType { code, bits, lanes: 1 }, shape, strides }
    }

    /// DLPack's tensor over `bytes`; it points into `self`.
    fn over(&mut self, bytes: &[u8]) -> DLTensor {
        DLTensor {
            data: if bytes.is_empty() { ptr::null_mut() } else { bytes.as_ptr().cast_mut().cast::<c_void>() },
            device: DLDevice { device_type: CPU, device_id: 0 },
            ndim: self.shape.len() as i32,
            dtype: self.dtype,
            shape: self.shape.as_mut_ptr(),
            strides: self.strides.as_mut_ptr(),
            byte_offset: 0,
        }
    }
}

const VERSION: DLPackVersion = DLPackVersion { major: DLPACK_MAJOR, minor: DLPACK_MINOR };

/// A tensor that C reads during a call and does not own.
pub struct Lent<'a> {
    tensor: &'a Tensor<'a>,
    lying: Lying,
    managed: MaybeUninit<DLManagedTensorVersioned>,
    face: NnrpTensor,
}

impl<'a> Lent<'a> {
    /// The tensor, under that name.
    #[inline]
    pub fn new(name: &'a CStr, tensor: &'a Tensor<'a>) -> Lent<'a> {
        let (datatype, ndim) = (number_of(tensor.datatype), tensor.shape.len() as i32);
        let face = NnrpTensor { name: name.as_ptr(), datatype, ndim, shape: tensor.shape.as_ptr(), ..NnrpTensor::sized() };
        Lent { tensor, lying: Lying::of(tensor), managed: MaybeUninit::uninit(), face }
    }

    /// What C reads, for as long as `self` stays where it is and is not touched.
    #[inline]
    pub fn lend(&mut self) -> *const NnrpTensor {
        let dl_tensor = self.lying.over(self.tensor.bytes());
        let managed = DLManagedTensorVersioned { version: VERSION, manager_ctx: ptr::null_mut(), deleter: None, flags: READ_ONLY, dl_tensor };
        self.face.tensor = self.managed.write(managed);
        &raw const self.face
    }
}

/// A tensor that C owns, and what keeps it alive.
#[repr(C)]
struct Exported {
    managed: MaybeUninit<DLManagedTensorVersioned>,
    lying: Lying,
    bytes: Bytes,
}

/// Hands a tensor out without a copy; its own deleter ends it. BYTES come as the UINT8 that they lie as.
pub fn export(tensor: Tensor<'static>) -> *mut DLManagedTensorVersioned {
    let lying = Lying::of(&tensor);
    let bytes = match tensor.data {
        Data::Shared(bytes) => bytes,
        Data::Borrowed(bytes) => Bytes::from_static(bytes),
    };
    let mut exported = Box::new(Exported { managed: MaybeUninit::uninit(), lying, bytes });
    let dl_tensor = exported.lying.over(&exported.bytes);
    exported.managed.write(DLManagedTensorVersioned { version: VERSION, manager_ctx: ptr::null_mut(), deleter: Some(delete), flags: READ_ONLY, dl_tensor });
    Box::into_raw(exported).cast::<DLManagedTensorVersioned>()
}

/// # Safety
/// `managed` is NULL or came from [`export`], and is not used again.
unsafe extern "C" fn delete(managed: *mut DLManagedTensorVersioned) {
    if !managed.is_null() {
        // SAFETY: `export` made it from a box of `Exported`, whose first field it is.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(unsafe { Box::from_raw(managed.cast::<Exported>()) })));
    }
}
