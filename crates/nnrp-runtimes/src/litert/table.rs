//! The functions of LiteRT's C library as the headers of 2.3 declare them; only those that are called here.
use crate::foreign::{functions, opaque};
use std::ffi::{c_char, c_int, c_void};

/// What every function that can fail returns; 0 is OK.
pub(super) type Status = c_int;

opaque! {
    /// `LiteRtEnvironment`
    Environment;
    /// `LiteRtModel`
    Model;
    /// `LiteRtSignature`, part of its model
    Signature;
    /// `LiteRtSubgraph`, part of its model
    Graph;
    /// `LiteRtTensor`, part of its model
    TensorHandle;
    /// `LiteRtOptions`
    Options;
    /// `LiteRtOpaqueOptions`
    Texts;
    /// `LiteRtCompiledModel`
    CompiledModel;
    /// `LiteRtTensorBuffer`
    Buffer;
}

/// `LiteRtEnvOption`, with an integer in it.
#[repr(C)]
pub(super) struct EnvironmentOption {
    pub(super) tag: c_int,
    /// 2: an integer.
    pub(super) kind: i64,
    pub(super) value: i64,
}

/// Most dimensions that [`RankedType`] holds.
pub(super) const MOST_DIMENSIONS: usize = 8;

/// `LiteRtRankedTensorType`
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct RankedType {
    pub(super) element: c_int,
    /// The rank in seven bits, and one that says whether there are strides.
    pub(super) rank: u32,
    pub(super) dims: [i32; MOST_DIMENSIONS],
    pub(super) strides: [u32; MOST_DIMENSIONS],
}

const _: () = assert!(size_of::<RankedType>() == 72 && size_of::<EnvironmentOption>() == 24);

/// Of the inputs, and likewise of the outputs.
pub(super) type Count<T> = unsafe extern "C" fn(*const T, *mut usize) -> Status;
pub(super) type Nth<T> = unsafe extern "C" fn(*const T, usize, *mut *mut TensorHandle) -> Status;
pub(super) type NameOf = unsafe extern "C" fn(*const Signature, usize, *mut *const c_char) -> Status;

functions! {
    LiteRtCreateEnvironment(c_int, *const EnvironmentOption, *mut *mut Environment) -> Status;

    LiteRtCreateModelFromBuffer(*mut Environment, *const c_void, usize, *mut *mut Model) -> Status;
    LiteRtDestroyModel(*mut Model);
    LiteRtGetNumModelSignatures(*const Model, *mut usize) -> Status;
    LiteRtGetModelSignature(*const Model, usize, *mut *mut Signature) -> Status;
    LiteRtGetSignatureKey(*const Signature, *mut *const c_char) -> Status;
    LiteRtGetSignatureSubgraph(*const Signature, *mut *mut Graph) -> Status;
    LiteRtGetNumSignatureInputs(*const Signature, *mut usize) -> Status;
    LiteRtGetNumSignatureOutputs(*const Signature, *mut usize) -> Status;
    LiteRtGetSignatureInputName(*const Signature, usize, *mut *const c_char) -> Status;
    LiteRtGetSignatureOutputName(*const Signature, usize, *mut *const c_char) -> Status;
    LiteRtGetSignatureInputTensorByIndex(*const Signature, usize, *mut *mut TensorHandle) -> Status;
    LiteRtGetSignatureOutputTensorByIndex(*const Signature, usize, *mut *mut TensorHandle) -> Status;
    LiteRtGetNumSubgraphInputs(*const Graph, *mut usize) -> Status;
    LiteRtGetNumSubgraphOutputs(*const Graph, *mut usize) -> Status;
    LiteRtGetSubgraphInput(*const Graph, usize, *mut *mut TensorHandle) -> Status;
    LiteRtGetSubgraphOutput(*const Graph, usize, *mut *mut TensorHandle) -> Status;
    LiteRtGetRankedTensorType(*const TensorHandle, *mut RankedType) -> Status;

    LiteRtCreateOptions(*mut *mut Options) -> Status;
    LiteRtDestroyOptions(*mut Options);
    LiteRtSetOptionsHardwareAccelerators(*mut Options, c_int) -> Status;
    LiteRtCreateOpaqueOptions(*const c_char, *mut c_void, unsafe extern "C" fn(*mut c_void), *mut *mut Texts) -> Status;
    LiteRtAddOpaqueOptions(*mut Options, *mut Texts) -> Status;

    LiteRtCreateCompiledModel(*mut Environment, *mut Model, *mut Options, *mut *mut CompiledModel) -> Status;
    LiteRtDestroyCompiledModel(*mut CompiledModel);
    LiteRtRunCompiledModel(*mut CompiledModel, usize, usize, *const *mut Buffer, usize, *const *mut Buffer) -> Status;
    LiteRtCompiledModelGetErrorMessages(*mut CompiledModel, *mut *mut c_char) -> Status;

    LiteRtCreateTensorBufferFromHostMemory(*const RankedType, *mut c_void, usize, Option<unsafe extern "C" fn(*mut c_void)>, *mut *mut Buffer) -> Status;
    LiteRtDestroyTensorBuffer(*mut Buffer);
}
