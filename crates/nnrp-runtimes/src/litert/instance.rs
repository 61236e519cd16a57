//! What one run at a time uses: a compiled model, and memory for its inputs and outputs.
use super::library::{Library, check, made};
use super::signature::Place;
use super::table::{Buffer, CompiledModel, Model, Options};
use crate::foreign::Owned;
use bytes::Bytes;
use nnrp_core::{AlignedBuf, NnrpError, Reason, Result, Tensor};
use parking_lot::Mutex;
use std::sync::Arc;

/// Bytes behind each tensor: XNNPACK reads past the end of what it is given.
const BEHIND: usize = 128;
/// What outputs are full of before they are proved to be written.
const BLANK: u8 = 0xa5;
/// Outputs up to here are copied, which costs less than memory that stays out.
const COPIED: usize = 8 << 10;

/// One, for one run at a time: the library answers wrongly when two threads use it.
pub(super) struct Instance {
    compiled: Owned<CompiledModel>,
    signature: usize,
    inputs: Vec<Slot>,
    outputs: Vec<Slot>,
    /// In the order that the library wants.
    into: Vec<*mut Buffer>,
    from: Vec<*mut Buffer>,
}

// SAFETY: the pointers are to buffers of its own, and it is used by one thread at a time.
unsafe impl Send for Instance {}

/// Memory of one tensor, and the library's name for it, which goes first.
pub(super) struct Slot {
    buffer: Owned<Buffer>,
    data: *mut u8,
    byte_size: usize,
    _memory: AlignedBuf,
}

// SAFETY: the pointer is to memory of its own, which is written only by who has the slot for itself.
unsafe impl Send for Slot {}

impl Slot {
    fn new(library: &Library, place: &Place, byte_size: usize) -> Result<Slot> {
        let mut memory = AlignedBuf::zeroed(byte_size + BEHIND);
        let data = memory.as_mut_slice().as_mut_ptr();
        let functions = &library.functions;
        let buffer = made(functions.LiteRtDestroyTensorBuffer, |out| {
            // SAFETY: the library copies the type; the memory is 64-byte aligned, outlives the buffer, and is freed by nobody else.
            unsafe { (functions.LiteRtCreateTensorBufferFromHostMemory)(&place.kind, data.cast(), byte_size, None, out) }
        })?;
        Ok(Slot { buffer, data, byte_size, _memory: memory })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: so many bytes are there, and nobody writes to them while this is borrowed: a run borrows its instance for itself.
        unsafe { std::slice::from_raw_parts(self.data, self.byte_size) }
    }
}

/// Memory for an output, which waits to be written to.
pub(super) struct Spare {
    slots: Mutex<Vec<Slot>>,
    most: usize,
}

impl Spare {
    pub(super) fn new(most: usize) -> Arc<Spare> {
        Arc::new(Spare { slots: Mutex::new(Vec::new()), most })
    }
}

/// An output that somebody reads; its memory waits for another run when nobody does any more.
struct Lent {
    slot: Option<Slot>,
    home: Arc<Spare>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.slot.as_ref().map_or(&[], Slot::bytes)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut slots = self.home.slots.lock();
        if slots.len() < self.home.most {
            slots.extend(self.slot.take());
        }
    }
}

impl Instance {
    /// Compiles the model once more; the caller holds the library's `loads`.
    pub(super) fn new(library: &Library, model: &Owned<Model>, options: &Owned<Options>, signature: usize, sides: [&[(Place, usize)]; 2]) -> Result<Instance> {
        let functions = &library.functions;
        let compiled = made(functions.LiteRtDestroyCompiledModel, |out| {
            // SAFETY: all are alive, and the model outlives what is made of it; the options are used by nobody else meanwhile.
            unsafe { (functions.LiteRtCreateCompiledModel)(library.environment, model.ptr(), options.ptr(), out) }
        })?;
        let [inputs, outputs] = sides.map(|side| side.iter().map(|(place, byte_size)| Slot::new(library, place, *byte_size)).collect::<Result<Vec<_>>>());
        let (inputs, outputs) = (inputs?, outputs?);
        let in_order = |slots: &[Slot], side: &[(Place, usize)]| {
            let mut buffers: Vec<_> = slots.iter().zip(side).map(|(slot, (place, _))| (place.index, slot.buffer.ptr())).collect();
            buffers.sort_unstable_by_key(|(index, _)| *index);
            buffers.into_iter().map(|(_, buffer)| buffer).collect::<Vec<_>>()
        };
        let (into, from) = (in_order(&inputs, sides[0]), in_order(&outputs, sides[1]));
        Ok(Instance { compiled, signature, inputs, outputs, into, from })
    }

    /// Copies an input to where the model reads it: it lies as the library wants it, and nobody else has it.
    #[inline]
    pub(super) fn put(&mut self, index: usize, tensor: &Tensor<'_>) -> Result<()> {
        let bytes = tensor.bytes();
        match self.inputs.get(index).filter(|slot| slot.byte_size == bytes.len()) {
            // SAFETY: as many bytes are there, and the memory is the slot's alone.
            Some(slot) => unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), slot.data, bytes.len()) },
            None => return Err(NnrpError::new(Reason::Bug, "a run with other inputs than the signature's")),
        }
        Ok(())
    }

    /// Runs the model on what was put.
    ///
    /// # Errors
    /// `RUN_FAILED`; then it must not be used again, because nobody says what state it is in.
    pub(super) fn run(&mut self, library: &Library) -> Result<()> {
        let (into, from) = (&self.into, &self.from);
        // SAFETY: the compiled model is ours alone; each buffer holds what its tensor needs, and no input is missing.
        let status =
            unsafe { (library.functions.LiteRtRunCompiledModel)(self.compiled.ptr(), self.signature, into.len(), into.as_ptr(), from.len(), from.as_ptr()) };
        check(status).map_err(|_| self.failed(library, status))
    }

    #[cold]
    fn failed(&self, library: &Library, status: i32) -> NnrpError {
        let said = library.said(&self.compiled);
        let told = if said.is_empty() { format!("status {status}") } else { said.clone() };
        let message = format!("runtime {}: {told}", super::NAME);
        NnrpError::new(Reason::RunFailed, message).with("runtime", super::NAME).with("status", status).with("text", said)
    }

    /// An output of a run that went well.
    #[inline]
    pub(super) fn output(&self, index: usize) -> Option<&[u8]> {
        self.outputs.get(index).map(Slot::bytes)
    }

    /// The same, to keep: a copy, or the memory itself, for which the instance gets other memory.
    #[inline]
    pub(super) fn keep(&mut self, library: &Library, index: usize, (place, byte_size): &(Place, usize), spare: &Arc<Spare>) -> Result<Bytes> {
        let slot = &mut self.outputs[index];
        if *byte_size <= COPIED {
            return Ok(AlignedBuf::copy_of(slot.bytes()).into_bytes());
        }
        let waiting = spare.slots.lock().pop();
        let other = waiting.map_or_else(|| Slot::new(library, place, *byte_size), Ok)?;
        self.from[place.index] = other.buffer.ptr();
        let full = std::mem::replace(slot, other);
        Ok(Bytes::from_owner(Lent { slot: Some(full), home: spare.clone() }))
    }

    /// Fills the outputs with what no run leaves there.
    pub(super) fn blank(&mut self) {
        for slot in &mut self.outputs {
            // SAFETY: so many bytes are there, and the memory is the slot's alone.
            unsafe { std::ptr::write_bytes(slot.data, BLANK, slot.byte_size) };
        }
    }
}
