//! What a model says that it takes and gives, held against what its interpreter says.
use super::library::{Library, check, failed};
use super::table::{Count, Graph, MOST_DIMENSIONS, Model, NameOf, Nth, RankedType, Signature, TensorHandle};
use crate::foreign::Owned;
use nnrp_core::{Datatype, Result, Tensor};
use std::ffi::{CStr, c_int};
use std::ptr::{null, null_mut};

/// Where an input or an output belongs.
pub(super) struct Place {
    /// In the order that a run wants.
    pub(super) index: usize,
    pub(super) kind: RankedType,
}

/// What is asked of one side, the inputs or the outputs.
struct Side {
    of_signature: Count<Signature>,
    name: NameOf,
    tensor: Nth<Signature>,
    of_graph: Count<Graph>,
    nth: Nth<Graph>,
}

/// The number of a signature, and the places of its inputs and outputs.
pub(super) struct Found {
    pub(super) index: usize,
    pub(super) inputs: Vec<Place>,
    pub(super) outputs: Vec<Place>,
}

/// Finds a signature, `None` for that of a file without any, which takes and gives tensors like these, and no others.
pub(super) fn find(
    library: &Library,
    model: &Owned<Model>,
    key: Option<&str>,
    inputs: &[(String, Tensor<'_>)],
    outputs: &[(String, Tensor<'_>)],
) -> Result<Found> {
    let functions = &library.functions;
    let (mut count, mut graph) = (0, null_mut());
    // SAFETY: the model is alive, and everything that is asked of it lives as long.
    unsafe {
        check((functions.LiteRtGetNumModelSignatures)(model.ptr(), &mut count))?;
        for index in 0..count {
            let (mut signature, mut name) = (null_mut(), null());
            check((functions.LiteRtGetModelSignature)(model.ptr(), index, &mut signature))?;
            check((functions.LiteRtGetSignatureKey)(signature, &mut name))?;
            if key.is_some_and(|key| name.is_null() || CStr::from_ptr(name).to_bytes() != key.as_bytes()) || (key.is_none() && count != 1) {
                continue;
            }
            check((functions.LiteRtGetSignatureSubgraph)(signature, &mut graph))?;
            let into = Side {
                of_signature: functions.LiteRtGetNumSignatureInputs,
                name: functions.LiteRtGetSignatureInputName,
                tensor: functions.LiteRtGetSignatureInputTensorByIndex,
                of_graph: functions.LiteRtGetNumSubgraphInputs,
                nth: functions.LiteRtGetSubgraphInput,
            };
            let out = Side {
                of_signature: functions.LiteRtGetNumSignatureOutputs,
                name: functions.LiteRtGetSignatureOutputName,
                tensor: functions.LiteRtGetSignatureOutputTensorByIndex,
                of_graph: functions.LiteRtGetNumSubgraphOutputs,
                nth: functions.LiteRtGetSubgraphOutput,
            };
            let place = |side: &Side, known: &[(String, Tensor<'_>)]| places(library, side, signature, graph, known);
            return Ok(Found { index, inputs: place(&into, inputs)?, outputs: place(&out, outputs)? });
        }
    }
    Err(failed("its C library does not know the signature"))
}

/// The places of the tensors that are known, one for each.
///
/// # Safety
/// Signature and graph belong to a model that is alive.
unsafe fn places(library: &Library, side: &Side, signature: *const Signature, graph: *const Graph, known: &[(String, Tensor<'_>)]) -> Result<Vec<Place>> {
    let (mut named, mut there) = (0, 0);
    // SAFETY: as the caller says.
    let handles = unsafe {
        check((side.of_signature)(signature, &mut named))?;
        check((side.of_graph)(graph, &mut there))?;
        if (named, there) != (known.len(), known.len()) {
            return Err(failed("its C library counts other tensors than its interpreter"));
        }
        (0..there).map(|index| tensor(side.nth, graph, index)).collect::<Result<Vec<_>>>()?
    };
    let mut places: Vec<Option<Place>> = known.iter().map(|_| None).collect();
    for number in 0..named {
        let mut name = null();
        // SAFETY: as above; the name ends with NUL.
        let (name, handle) = unsafe {
            check((side.name)(signature, number, &mut name))?;
            if name.is_null() {
                return Err(failed("its C library has a tensor without a name"));
            }
            (CStr::from_ptr(name), tensor(side.tensor, signature, number)?)
        };
        let slot = known.iter().position(|(known, _)| known.as_bytes() == name.to_bytes());
        let index = handles.iter().position(|one| *one == handle);
        let (Some(slot), Some(index)) = (slot, index) else { return Err(failed("its C library names other tensors than its interpreter")) };
        places[slot] = Some(Place { index, kind: kind(library, handle, &known[slot].1)? });
    }
    let mut taken: Vec<usize> = places.iter().flatten().map(|place| place.index).collect();
    taken.sort_unstable();
    taken.dedup();
    let places: Vec<Place> = places.into_iter().flatten().collect();
    if taken.len() == known.len() && places.len() == known.len() { Ok(places) } else { Err(failed("its C library has a tensor under two names")) }
}

/// # Safety
/// What it belongs to is alive.
unsafe fn tensor<T>(nth: Nth<T>, of: *const T, index: usize) -> Result<*mut TensorHandle> {
    let mut handle = null_mut();
    // SAFETY: as the caller says.
    check(unsafe { nth(of, index, &mut handle) })?;
    Ok(handle)
}

/// The type of a tensor, which is that of the one that is known.
fn kind(library: &Library, handle: *mut TensorHandle, known: &Tensor<'_>) -> Result<RankedType> {
    let mut kind = RankedType { element: 0, rank: 0, dims: [0; MOST_DIMENSIONS], strides: [0; MOST_DIMENSIONS] };
    // SAFETY: the handle belongs to a model that is alive.
    check(unsafe { (library.functions.LiteRtGetRankedTensorType)(handle, &mut kind) })?;
    let rank = (kind.rank & 0x7f) as usize;
    let same = kind.dims.get(..rank).is_some_and(|dims| dims.iter().map(|&dim| i64::from(dim)).eq(known.shape.iter().copied()));
    if !same || element_of(known.datatype) != Some(kind.element) {
        return Err(failed("its C library tells other types or shapes than its interpreter"));
    }
    // Rows lie one after the other.
    Ok(RankedType { rank: rank as u32, ..kind })
}

/// `LiteRtElementType`; `None` where a tensor has no fixed size, or no word of ours.
fn element_of(datatype: Datatype) -> Option<c_int> {
    Some(match datatype {
        Datatype::Fp32 => 1,
        Datatype::Int32 => 2,
        Datatype::Uint8 => 3,
        Datatype::Int64 => 4,
        Datatype::Bool => 6,
        Datatype::Int16 => 7,
        Datatype::Int8 => 9,
        Datatype::Fp16 => 10,
        Datatype::Fp64 => 11,
        Datatype::Uint64 => 13,
        Datatype::Uint32 => 16,
        Datatype::Uint16 => 17,
        _ => return None,
    })
}
