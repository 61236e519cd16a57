//! The tensors that a plug-in gives: taken over before anything else, so that each is ended once whatever becomes of the run.
use super::fault::Verb;
use crate::c::abi::{DLManagedTensorVersioned, NnrpTensor, Versioned};
use crate::c::dlpack::{Place, import};
use bytes::Bytes;
use nnrp_core::{AlignedBuf, Data, Outputs, Result, Tensor, TensorSpec, check_output, wrong_output};
use smallvec::SmallVec;
use std::cell::UnsafeCell;
use std::ptr::NonNull;

/// Places for a plug-in to put its outputs, again and again where it gives several answers.
pub(super) struct Slots(SmallVec<[UnsafeCell<NnrpTensor>; 2]>);

impl Slots {
    /// `count` empty places.
    #[inline]
    pub(super) fn new(count: usize) -> Slots {
        Slots((0..count).map(|_| UnsafeCell::new(NnrpTensor::sized())).collect())
    }

    /// What the plug-in fills, for as long as `self` stays where it is.
    #[inline]
    pub(super) fn lend(&self) -> SmallVec<[*mut NnrpTensor; 2]> {
        self.0.iter().map(UnsafeCell::get).collect()
    }

    /// Takes over what the plug-in gave and leaves empty places; each tensor once, though it may have given one twice.
    ///
    /// # Safety
    /// The plug-in does not write to them meanwhile: it has returned, or waits on this thread.
    #[inline]
    pub(super) unsafe fn take(&self) -> Given {
        // SAFETY: passed on from this function's caller.
        let slots: SmallVec<[NnrpTensor; 2]> = self.0.iter().map(|slot| unsafe { slot.get().replace(NnrpTensor::sized()) }).collect();
        let mut owned: SmallVec<[Option<Owned>; 2]> = SmallVec::new();
        for (index, slot) in slots.iter().enumerate() {
            let first = slots[..index].iter().all(|before| before.tensor != slot.tensor);
            owned.push(NonNull::new(slot.tensor).filter(|tensor| first && tensor.is_aligned()).map(Owned));
        }
        Given { slots, owned }
    }
}

/// What a plug-in gave; ended unless it is taken out.
pub(super) struct Given {
    slots: SmallVec<[NnrpTensor; 2]>,
    owned: SmallVec<[Option<Owned>; 2]>,
}

impl Given {
    /// Whether nothing was given.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.iter().all(|slot| slot.tensor.is_null())
    }

    /// The outputs, each checked against what the signature says of it, over the plug-in's own memory. What has no owner, or lies in an input of the
    /// run, is copied.
    ///
    /// # Errors
    /// `RUN_FAILED`, naming runtime and output.
    ///
    /// # Safety
    /// What the plug-in gave is as DLPack says, as far as it cannot be checked.
    pub(super) unsafe fn into_outputs<'s>(self, runtime: &str, specs: impl Iterator<Item = &'s TensorSpec>, inputs: &[Option<Tensor<'_>>]) -> Result<Outputs> {
        let mut outputs = Outputs::new();
        for ((slot, owned), spec) in self.slots.iter().zip(self.owned).zip(specs) {
            let place = Place { what: "output", name: &spec.name };
            let Some(owned) = owned else { return Err(not_given(runtime, spec, slot)) };
            // SAFETY: passed on from this function's caller; `owned` keeps it alive.
            let tensor = unsafe { import(place, slot) }.map_err(|error| wrong_output(runtime, &error))?;
            check_output(runtime, spec, &tensor)?;
            outputs.push(keep(runtime, spec, tensor, owned, inputs)?);
        }
        Ok(outputs)
    }
}

#[cold]
fn not_given(runtime: &str, spec: &TensorSpec, slot: &NnrpTensor) -> nnrp_core::NnrpError {
    let got = match slot.tensor {
        tensor if tensor.is_null() => "NULL",
        tensor if !tensor.is_aligned() => "a pointer that is not aligned",
        _ => "the tensor of an output before it",
    };
    let what = format!("output '{}': expected a tensor of its own, got {got}", spec.name);
    Verb::Run.error(runtime, &what).with("output", &*spec.name)
}

/// The tensor with bytes that live as long as anyone needs them.
#[inline]
fn keep(runtime: &str, spec: &TensorSpec, tensor: Tensor<'_>, owned: Owned, inputs: &[Option<Tensor<'_>>]) -> Result<Tensor<'static>> {
    let Tensor { datatype, shape, data } = tensor;
    let bytes = match data {
        // Gathered: a copy already.
        Data::Shared(bytes) => return Ok(Tensor { datatype, shape, data: Data::Shared(bytes) }),
        Data::Borrowed(bytes) => bytes,
    };
    let kept = if bytes.is_empty() {
        Bytes::new()
    } else if !(bytes.as_ptr() as usize).is_multiple_of(datatype.align()) {
        let what = format!("output '{}': expected elements aligned to {} bytes, got an address that is not", spec.name, datatype.align());
        return Err(Verb::Run.error(runtime, &what).with("output", &*spec.name));
    } else if !owned.has_end() || inputs.iter().flatten().any(|input| overlap(input.bytes(), bytes)) {
        let copy = AlignedBuf::try_copy_of(bytes).ok_or_else(|| {
            let what = format!("output '{}': expected elements that there is memory to copy, got {} bytes", spec.name, bytes.len());
            Verb::Run.error(runtime, &what).with("output", &*spec.name).with("got", bytes.len())
        })?;
        copy.into_bytes()
    } else {
        Bytes::from_owner(Elements { first: bytes.as_ptr(), byte_size: bytes.len(), _owned: owned })
    };
    Ok(Tensor { datatype, shape, data: Data::Shared(kept) })
}

fn overlap(one: &[u8], other: &[u8]) -> bool {
    let (one, other) = (one.as_ptr_range(), other.as_ptr_range());
    one.start < other.end && other.start < one.end
}

/// A tensor of a plug-in's, ended by its own deleter.
struct Owned(NonNull<DLManagedTensorVersioned>);

// SAFETY: a plug-in's tensor may be ended on any thread, as the header says.
unsafe impl Send for Owned {}
// SAFETY: as above; nothing of it is changed through a shared reference.
unsafe impl Sync for Owned {}

impl Owned {
    fn has_end(&self) -> bool {
        // SAFETY: alive until its deleter was called, which only `drop` does. The deleter is where it is in every version of DLPack.
        unsafe { (&raw const (*self.0.as_ptr()).deleter).read() }.is_some()
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: as in `has_end`; called once.
        unsafe {
            if let Some(delete) = (&raw const (*self.0.as_ptr()).deleter).read() {
                delete(self.0.as_ptr());
            }
        }
    }
}

/// The elements of an output, in the plug-in's memory.
struct Elements {
    first: *const u8,
    byte_size: usize,
    _owned: Owned,
}

// SAFETY: nobody writes to the elements any more, and their owner may be ended on any thread.
unsafe impl Send for Elements {}

impl AsRef<[u8]> for Elements {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the plug-in said that so many bytes lie there, for as long as the tensor lives.
        unsafe { std::slice::from_raw_parts(self.first, self.byte_size) }
    }
}
