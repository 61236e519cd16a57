//! A model's signature: names, datatypes and shapes as the library reads them from the file, and what of an ONNX file it does not keep.
use super::failure::Failure;
use super::library::{Library, Owned};
use super::table::{Dimension, Model, Port, RawPartialShape, Status};
use nnrp_core::error::excerpt;
use nnrp_core::{Datatype, NnrpError, Reason, Result, Shape, Signature, TensorSpec};
use std::ptr::null_mut;

/// The signature, and where its inputs and outputs are to the library.
pub(super) struct Read {
    pub(super) signature: Signature,
    /// By input: its number to the library; `None` where the model makes nothing of it.
    pub(super) places: Vec<Option<usize>>,
    pub(super) bounds: Vec<Bound>,
}

/// A dimension of an input that takes some sizes only.
pub(super) struct Bound {
    pub(super) input: usize,
    pub(super) axis: usize,
    pub(super) least: i64,
    pub(super) most: i64,
}

impl Bound {
    pub(super) fn takes(&self, size: i64) -> bool {
        size >= self.least && (self.most < 0 || size <= self.most)
    }
}

const STRING: i32 = 23;
const NAMES: [&str; 26] = [
    "dynamic", "boolean", "bf16", "f16", "f32", "f64", "i4", "i8", "i16", "i32", "i64", "u1", "u2", "u3", "u4", "u6", "u8", "u16", "u32", "u64", "nf4",
    "f8e4m3", "f8e5m2", "string", "f4e2m1", "f8e8m0",
];

/// The datatype of an element type of the library.
pub(super) fn datatype_of(element: i32) -> Option<Datatype> {
    Some(match element {
        1 => Datatype::Bool,
        2 => Datatype::Bf16,
        3 => Datatype::Fp16,
        4 => Datatype::Fp32,
        5 => Datatype::Fp64,
        6 => Datatype::Int4,
        7 => Datatype::Int8,
        8 => Datatype::Int16,
        9 => Datatype::Int32,
        10 => Datatype::Int64,
        14 => Datatype::Uint4,
        16 => Datatype::Uint8,
        17 => Datatype::Uint16,
        18 => Datatype::Uint32,
        19 => Datatype::Uint64,
        21 => Datatype::Fp8E4m3,
        22 => Datatype::Fp8E5m2,
        _ => return None,
    })
}

/// The library's number of a datatype; BYTES have one too, and never get this far.
pub(super) fn element_of(datatype: Datatype) -> i32 {
    match datatype {
        Datatype::Bool => 1,
        Datatype::Bf16 => 2,
        Datatype::Fp16 => 3,
        Datatype::Fp32 => 4,
        Datatype::Fp64 => 5,
        Datatype::Int4 => 6,
        Datatype::Int8 => 7,
        Datatype::Int16 => 8,
        Datatype::Int32 => 9,
        Datatype::Int64 => 10,
        Datatype::Uint4 => 14,
        Datatype::Uint8 => 16,
        Datatype::Uint16 => 17,
        Datatype::Uint32 => 18,
        Datatype::Uint64 => 19,
        Datatype::Fp8E4m3 => 21,
        Datatype::Fp8E5m2 => 22,
        Datatype::Bytes => STRING,
    }
}

/// An input or output as the library tells it.
pub(super) struct Told {
    pub(super) name: String,
    element: i32,
    /// `None`: any rank.
    dims: Option<Vec<Dimension>>,
}

type Count = unsafe extern "C" fn(*const Model, *mut usize) -> Status;
type PortOf = unsafe extern "C" fn(*const Model, usize, *mut *mut Port) -> Status;

/// The inputs, in the library's order.
pub(super) fn inputs(library: &'static Library, model: &Owned<Model>) -> Result<Vec<Told>> {
    all(library, model, "input", library.functions.ov_model_inputs_size, library.functions.ov_model_const_input_by_index)
}

fn outputs(library: &'static Library, model: &Owned<Model>) -> Result<Vec<Told>> {
    all(library, model, "output", library.functions.ov_model_outputs_size, library.functions.ov_model_const_output_by_index)
}

fn all(library: &'static Library, model: &Owned<Model>, kind: &str, count: Count, port_of: PortOf) -> Result<Vec<Told>> {
    let failed = |failure: Failure| failure.into_load_error(None);
    let mut total = 0;
    // SAFETY: the model is alive.
    library.check(unsafe { count(model.ptr(), &mut total) }).map_err(failed)?;
    let mut found: Vec<Told> = Vec::new();
    for index in 0..total {
        // SAFETY: as above; the port is ours to free.
        let port = library.made(library.functions.ov_output_const_port_free, |out| unsafe { port_of(model.ptr(), index, out) }).map_err(failed)?;
        let mut told = tell(library, &port).map_err(failed)?;
        // Two that share a tensor may be told by the same of its names; some have none.
        if told.name.is_empty() || found.iter().any(|other| other.name == told.name) {
            told.name = format!("{kind}_{index}");
        }
        found.push(told);
    }
    Ok(found)
}

fn tell(library: &Library, port: &Owned<Port>) -> std::result::Result<Told, Failure> {
    let functions = &library.functions;
    // SAFETY: the port is alive. A port without a name is a failure to the library, and none here.
    let name = library.text(|out| unsafe { (functions.ov_port_get_any_name)(port.ptr(), out) }).unwrap_or_default();
    let mut element = 0;
    let mut raw = RawPartialShape { rank: Dimension { least: 0, most: 0 }, dims: null_mut() };
    // SAFETY: as above; the shape is read while it is there, and taken back once; a rank that is known comes with as many dimensions.
    unsafe {
        library.check((functions.ov_port_get_element_type)(port.ptr(), &mut element))?;
        library.check((functions.ov_port_get_partial_shape)(port.ptr(), &mut raw))?;
        let known = raw.rank.least == raw.rank.most;
        let rank = usize::try_from(raw.rank.least).unwrap_or(0);
        let dims = known.then(|| if rank == 0 || raw.dims.is_null() { Vec::new() } else { std::slice::from_raw_parts(raw.dims, rank).to_vec() });
        (functions.ov_partial_shape_free)(&mut raw);
        Ok(Told { name, element, dims })
    }
}

impl Told {
    fn spec(&self, kind: &str, strict: bool) -> Result<TensorSpec> {
        let refused = |what: &str| {
            let name = excerpt(&self.name);
            Err(NnrpError::new(Reason::NotOffered, format!("{kind} '{name}': {what}")).with(kind, name).with("runtime", super::NAME))
        };
        let Some(datatype) = datatype_of(self.element) else {
            let element = usize::try_from(self.element).ok().and_then(|element| NAMES.get(element)).copied().unwrap_or("unknown");
            return if self.element == STRING {
                refused("openvino's string tensors break the memory of the process; run this model on onnxruntime")
            } else {
                refused(&format!("its elements have no datatype here, openvino type {element}"))
            };
        };
        if strict && datatype == Datatype::Fp64 {
            return refused("openvino computes FP64 in FP32; precision 'fast' allows it, and onnxruntime computes in FP64");
        }
        if kind == "input" && self.dims.is_none() {
            return refused("openvino takes no input of any rank; options.shapes can fix its rank");
        }
        let shape = self.dims.as_ref().map(|dims| dims.iter().map(|dim| if dim.least == dim.most { dim.least } else { -1 }).collect::<Shape>());
        let symbols = vec![None; shape.as_ref().map_or(0, |shape| shape.len())];
        Ok(TensorSpec { name: self.name.as_str().into(), datatype, shape, symbols, ranges: vec![], optional: false })
    }
}

/// Reads the signature. `file` is what the file itself says of its inputs, where that can be read without the library: names of dimensions,
/// and inputs that the model makes nothing of, which callers give to other runtimes and may give to this one.
///
/// # Errors
/// `NOT_OFFERED` for an input or output that cannot be served.
pub(super) fn read(library: &'static Library, model: &Owned<Model>, file: Vec<TensorSpec>, strict: bool) -> Result<Read> {
    let mut told = inputs(library, model)?;
    name_the_rest(&mut told, &file);
    let mut read = Read { signature: Signature::default(), places: Vec::new(), bounds: Vec::new() };
    let mut waiting: Vec<Option<(usize, &Told)>> = told.iter().enumerate().map(Some).collect();
    for spec in file {
        let known = waiting.iter_mut().find(|slot| slot.is_some_and(|(_, told)| *told.name == *spec.name)).and_then(Option::take);
        match known {
            Some((place, told)) => read.push(place, told, spec.symbols, strict)?,
            None => {
                read.signature.inputs.push(spec);
                read.places.push(None);
            }
        }
    }
    for (place, told) in waiting.into_iter().flatten() {
        read.push(place, told, Vec::new(), strict)?;
    }
    read.signature.outputs = outputs(library, model)?.iter().map(|told| told.spec("output", strict)).collect::<Result<_>>()?;
    Ok(read)
}

/// Gives inputs whose names the library lost those of the file, in order, where as many are left on both sides.
fn name_the_rest(told: &mut [Told], file: &[TensorSpec]) {
    let lost: Vec<&TensorSpec> = file.iter().filter(|spec| !told.iter().any(|told| *told.name == *spec.name)).collect();
    let unknown: Vec<&mut Told> = told.iter_mut().filter(|told| !file.iter().any(|spec| *told.name == *spec.name)).collect();
    if lost.len() == unknown.len() {
        unknown.into_iter().zip(lost).for_each(|(told, spec)| told.name = spec.name.to_string());
    }
}

impl Read {
    fn push(&mut self, place: usize, told: &Told, symbols: Vec<Option<String>>, strict: bool) -> Result<()> {
        let mut spec = told.spec("input", strict)?;
        let dims = spec.shape.iter().flatten();
        if symbols.len() == spec.symbols.len() {
            spec.symbols = symbols.into_iter().zip(dims).map(|(symbol, &dim)| symbol.filter(|_| dim == -1)).collect();
        }
        let input = self.places.len();
        let bounded = told.dims.iter().flatten().enumerate().filter(|(_, dim)| dim.least != dim.most && (dim.least > 0 || dim.most >= 0));
        self.bounds.extend(bounded.map(|(axis, dim)| Bound { input, axis, least: dim.least, most: dim.most }));
        self.signature.inputs.push(spec);
        self.places.push(Some(place));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: &str) -> Told {
        Told { name: name.to_owned(), element: 4, dims: None }
    }

    fn spec(name: &str) -> TensorSpec {
        TensorSpec { name: name.into(), datatype: Datatype::Fp32, shape: None, symbols: vec![], ranges: vec![], optional: false }
    }

    #[test]
    fn names_that_the_library_lost_come_from_the_file() {
        let names = |told: &[Told]| told.iter().map(|told| told.name.clone()).collect::<Vec<_>>();
        let mut inputs = [told("input_0"), told("b"), told("input_2")];
        name_the_rest(&mut inputs, &[spec("a"), spec("b"), spec("c")]);
        assert_eq!(names(&inputs), ["a", "b", "c"]);
        let mut inputs = [told("input_0")];
        name_the_rest(&mut inputs, &[spec("a"), spec("unused")]);
        assert_eq!(names(&inputs), ["input_0"]);
    }

    #[test]
    fn every_datatype_but_strings_comes_back_from_its_number() {
        for &datatype in Datatype::ALL {
            let expected = Some(datatype).filter(|&datatype| datatype != Datatype::Bytes);
            assert_eq!(datatype_of(element_of(datatype)), expected);
        }
    }
}
