//! A session's signature: names, datatypes and shapes with their symbolic dimensions, as the library reads them from the file.
use super::failure::Failure;
use super::library::{Library, ort};
use crate::onnx::{self, datatype_of};
use nnrp_core::error::excerpt;
use nnrp_core::{NnrpError, Reason, Result, Shape, Signature, TensorSpec};
use ort_sys::{OrtSession, OrtTensorTypeAndShapeInfo, OrtTypeInfo};
use std::ffi::{CStr, CString, c_char};
use std::path::Path;
use std::ptr::{null, null_mut};

const TENSOR: i32 = 1;
const OPTIONAL: i32 = 6;

/// The signature, and its names as the library takes them.
pub(super) struct Read {
    pub(super) signature: Signature,
    pub(super) inputs: Vec<CString>,
    pub(super) outputs: Vec<CString>,
    /// By output: of ONNX's optional type, so that a run may give none.
    pub(super) may_be_none: Vec<bool>,
}

type Count = unsafe extern "system" fn(*const OrtSession, *mut usize) -> ort_sys::OrtStatusPtr;
type NameOf = unsafe extern "system" fn(*const OrtSession, usize, *mut ort_sys::OrtAllocator, *mut *mut c_char) -> ort_sys::OrtStatusPtr;
type TypeOf = unsafe extern "system" fn(*const OrtSession, usize, *mut *mut OrtTypeInfo) -> ort_sys::OrtStatusPtr;

/// Refuses the size of a dimension that no input has, which the library would pass over.
///
/// # Errors
/// `INVALID_OPTION` with the dimensions that there are.
pub(super) fn fit(path: &Path, sizes: &[(CString, i64)]) -> Result<()> {
    let known = (!sizes.is_empty()).then(|| onnx::symbols(path)).flatten();
    let unknown = known.as_ref().and_then(|known| sizes.iter().map(|(name, _)| name.to_string_lossy()).find(|name| !known.contains(&**name)));
    let (Some(known), Some(name)) = (known.as_ref(), unknown) else { return Ok(()) };
    let listed: Vec<String> = known.iter().take(16).map(|one| excerpt(one)).collect();
    let there = if listed.is_empty() { "none".to_owned() } else { listed.join(", ") };
    let name = excerpt(&name);
    let message = format!("options.free_dimension_overrides: expected names of the inputs' dimensions, got '{name}'; there are: {there}");
    Err(NnrpError::new(Reason::InvalidOption, message).with("path", "options.free_dimension_overrides").with("got", name).with("dimensions", listed))
}

/// Reads the signature; inputs that the model has a value for come last, as optional.
///
/// # Errors
/// `NOT_OFFERED` for an input or output that is no tensor, or whose elements have no datatype of ours.
pub(super) fn read(library: &Library, session: *const OrtSession) -> Result<Read> {
    let reader = Reader { library, session };
    // SAFETY: the table is that of the oldest version at least, where these fields are.
    let (inputs, initializers, outputs) = unsafe {
        let api = library.api;
        (
            reader.all("input", (*api).SessionGetInputCount, (*api).SessionGetInputName, (*api).SessionGetInputTypeInfo)?,
            reader.all(
                "input",
                (*api).SessionGetOverridableInitializerCount,
                (*api).SessionGetOverridableInitializerName,
                (*api).SessionGetOverridableInitializerTypeInfo,
            )?,
            reader.all("output", (*api).SessionGetOutputCount, (*api).SessionGetOutputName, (*api).SessionGetOutputTypeInfo)?,
        )
    };
    let may_be_none = outputs.iter().map(|(spec, _)| spec.optional).collect();
    let initializers = initializers.into_iter().map(|(spec, name)| (TensorSpec { optional: true, ..spec }, name));
    let outputs = outputs.into_iter().map(|(spec, name)| (TensorSpec { optional: false, ..spec }, name));
    let (in_specs, inputs) = inputs.into_iter().chain(initializers).unzip();
    let (out_specs, outputs) = outputs.unzip();
    Ok(Read { signature: Signature { inputs: in_specs, outputs: out_specs }, inputs, outputs, may_be_none })
}

struct Reader<'l> {
    library: &'l Library,
    session: *const OrtSession,
}

impl Reader<'_> {
    fn all(&self, kind: &str, count: Count, name: NameOf, type_of: TypeOf) -> Result<Vec<(TensorSpec, CString)>> {
        let failed = |failure: Failure| failure.into_load_error(None);
        let mut total = 0;
        // SAFETY: the session is alive, and `count` is the library's.
        self.library.check(unsafe { count(self.session, &mut total) }).map_err(failed)?;
        let one = |index| {
            let name = self.name(index, name).map_err(failed)?;
            let mut info = TypeInfo { ptr: null_mut(), library: self.library };
            // SAFETY: as above; the information is ours to release.
            self.library.check(unsafe { type_of(self.session, index, &mut info.ptr) }).map_err(failed)?;
            let spec = self.spec(kind, &name.to_string_lossy(), &info)?;
            Ok((spec, name))
        };
        (0..total).map(one).collect()
    }

    fn name(&self, index: usize, name: NameOf) -> std::result::Result<CString, Failure> {
        let mut text = null_mut();
        // SAFETY: the library gives a string that ends with NUL, and takes it back into the allocator it came from.
        unsafe {
            self.library.check(name(self.session, index, self.library.allocator, &mut text))?;
            let owned = CStr::from_ptr(text).to_owned();
            ort!(self.library, AllocatorFree(self.library.allocator, text.cast()))?;
            Ok(owned)
        }
    }

    fn spec(&self, kind: &str, name: &str, info: &TypeInfo<'_>) -> Result<TensorSpec> {
        let failed = |failure: Failure| failure.into_load_error(None);
        let what = info.kind().map_err(failed)?;
        if what == OPTIONAL {
            let contained = info.contained().map_err(failed)?;
            return if contained.kind().map_err(failed)? == TENSOR {
                Ok(TensorSpec { optional: true, ..self.spec(kind, name, &contained)? })
            } else {
                Err(not_a_tensor(kind, name, "optional of something else"))
            };
        }
        if what != TENSOR {
            let names = ["unknown", "tensor", "sequence", "map", "opaque", "sparse tensor"];
            let got = usize::try_from(what).ok().and_then(|what| names.get(what)).unwrap_or(&"unknown");
            return Err(not_a_tensor(kind, name, got));
        }
        let (element, shape, symbols) = info.tensor().map_err(failed)?;
        let datatype = datatype_of(i64::from(element)).ok_or_else(|| {
            let name = excerpt(name);
            let message = format!("{kind} '{name}': its elements have no datatype here, ONNX type {element}");
            NnrpError::new(Reason::NotOffered, message).with(kind, name).with("onnx_type", element)
        })?;
        Ok(TensorSpec { name: name.into(), datatype, shape, symbols, ranges: vec![], optional: false })
    }
}

fn not_a_tensor(kind: &str, name: &str, got: &str) -> NnrpError {
    let name = excerpt(name);
    NnrpError::new(Reason::NotOffered, format!("{kind} '{name}': expected a tensor, got {got}; such models cannot be served")).with(kind, name).with("got", got)
}

/// The library's description of a type; released at the end.
struct TypeInfo<'l> {
    ptr: *mut OrtTypeInfo,
    library: &'l Library,
}

impl Drop for TypeInfo<'_> {
    fn drop(&mut self) {
        // SAFETY: made by the library, released once; releasing null does nothing.
        unsafe { ((*self.library.api).ReleaseTypeInfo)(self.ptr) }
    }
}

type Elements = (i32, Option<Shape>, Vec<Option<String>>);

impl TypeInfo<'_> {
    fn kind(&self) -> std::result::Result<i32, Failure> {
        let mut kind = 0_i32;
        // SAFETY: the information is alive; a kind is a C int, taken as one because newer libraries may have kinds that the enum has not.
        unsafe { ort!(self.library, GetOnnxTypeFromTypeInfo(self.ptr, (&raw mut kind).cast())) }?;
        Ok(kind)
    }

    /// What an optional holds.
    fn contained(&self) -> std::result::Result<TypeInfo<'_>, Failure> {
        let (mut optional, mut contained) = (null(), TypeInfo { ptr: null_mut(), library: self.library });
        // SAFETY: the information is alive and of the optional kind; `contained` is ours to release.
        unsafe {
            ort!(self.library, CastTypeInfoToOptionalTypeInfo(self.ptr, &mut optional))?;
            ort!(self.library, GetOptionalContainedTypeInfo(optional, &mut contained.ptr))?;
        }
        Ok(contained)
    }

    /// Element type, shape and symbolic names. Before 1.24 the library cannot tell a scalar from a tensor of any rank; both are any rank then.
    fn tensor(&self) -> std::result::Result<Elements, Failure> {
        let (mut info, mut element, mut rank): (*const OrtTensorTypeAndShapeInfo, i32, usize) = (null(), 0, 0);
        // SAFETY: the information is alive and of the tensor kind; arrays have the length that goes with them; names live as long as it does.
        unsafe {
            ort!(self.library, CastTypeInfoToTensorInfo(self.ptr, &mut info))?;
            ort!(self.library, GetTensorElementType(info, (&raw mut element).cast()))?;
            ort!(self.library, GetDimensionsCount(info, &mut rank))?;
            let known = if self.library.since(24) { ((*self.library.api).TensorTypeAndShape_HasShape)(info) } else { rank > 0 };
            if !known {
                return Ok((element, None, Vec::new()));
            }
            let mut shape = Shape::from_elem(0, rank);
            let mut names: Vec<*const c_char> = vec![null(); rank];
            ort!(self.library, GetDimensions(info, shape.as_mut_ptr(), rank))?;
            ort!(self.library, GetSymbolicDimensions(info, names.as_mut_ptr(), rank))?;
            let named = |name: &*const c_char| Some(CStr::from_ptr(*name).to_string_lossy().into_owned()).filter(|name| !name.is_empty());
            let symbols: Vec<Option<String>> = names.iter().map(|name| if name.is_null() { None } else { named(name) }).collect();
            Ok((element, Some(shape), symbols))
        }
    }
}
