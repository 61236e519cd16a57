//! Where the process of an isolated model puts what it replies.
use super::arena::Arena;
use super::crossing::{ALIGN, LONGEST};
use super::region::{BLOCKS, Region, Slab, reply_arena};
use super::words::{ANSWER, END, ERROR, OUTPUTS, Placed, Words, head, length, say};
use nnrp_core::runtime::{Place, Room};
use nnrp_core::{Datatype, NnrpError, Outputs, Reason, Result};
use parking_lot::Mutex;
use smallvec::{SmallVec, smallvec};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Larger outputs are read where they lie, smaller ones copied out: what is held for each costs more than such a copy.
const IN_PLACE: usize = 64 << 10;

/// Places of outputs that the engine may still read.
pub(super) struct Blocks {
    arena: Arena,
    used: Vec<(usize, Range<usize>)>,
    free: Vec<usize>,
}

impl Default for Blocks {
    fn default() -> Self {
        Blocks { arena: Arena::new(reply_arena()), used: Vec::new(), free: (0..BLOCKS).rev().collect() }
    }
}

impl Blocks {
    /// A place of that size and its number, which the engine gives back.
    fn take(&mut self, region: &Region, byte_size: usize) -> Option<(usize, usize)> {
        let Blocks { arena, used, free } = self;
        used.retain(|(block, place)| {
            let needed = region.table().freed[*block].load(Ordering::Acquire) == 0;
            if !needed {
                region.forget(place);
                arena.give(place.clone());
                free.push(*block);
            }
            needed
        });
        let block = free.pop()?;
        let Some(place) = arena.take(byte_size, 0) else {
            free.push(block);
            return None;
        };
        region.table().freed[block].store(0, Ordering::Relaxed);
        used.push((block, place.clone()));
        Some((block, place.start))
    }
}

/// Where the words of a reply are, how many, and in which block, which is not the engine's to give back.
pub(super) struct Said {
    pub(super) at: usize,
    pub(super) count: usize,
    pub(super) block: Option<usize>,
}

#[cold]
fn no_place(byte_size: usize) -> NnrpError {
    NnrpError::new(Reason::RunFailed, format!("outputs of {byte_size} bytes find no place in the memory that is shared with the engine"))
}

/// Refuses outputs of more bytes than all of a run may have.
///
/// # Errors
/// `RUN_FAILED`.
#[inline]
pub(super) fn check_size(runtime: &str, expected: usize, got: usize) -> Result<()> {
    if got <= expected { Ok(()) } else { Err(too_large(runtime, expected, got)) }
}

#[cold]
fn too_large(runtime: &str, expected: usize, got: usize) -> NnrpError {
    let message = format!("runtime {runtime}: outputs of {got} bytes: expected at most the {expected} that a process may give at once");
    NnrpError::new(Reason::RunFailed, message).with("runtime", runtime).with("expected", expected).with("got", got)
}

/// What one run replies.
pub(super) struct Laid<'a> {
    runtime: &'static str,
    /// Most bytes of all outputs.
    most: usize,
    region: &'a Arc<Region>,
    blocks: &'a Mutex<Blocks>,
    /// The seat's room, and what is left of it.
    all: Range<usize>,
    room: Range<usize>,
    /// Blocks of what was put down.
    taken: SmallVec<[usize; 2]>,
    /// Places that the runtime was given, and their blocks.
    given: Mutex<Vec<(Range<usize>, usize)>>,
}

impl Room for Laid<'_> {
    fn place(&self, byte_size: usize) -> Option<Box<dyn Place>> {
        let given = || self.given.lock().iter().map(|(place, _)| place.len()).sum::<usize>();
        if byte_size <= IN_PLACE || byte_size.saturating_add(given()) > self.most {
            return None;
        }
        let (block, at) = self.blocks.lock().take(self.region, byte_size)?;
        self.given.lock().push((at..at + byte_size, block));
        Some(Box::new(Slab::new(self.region, at..at + byte_size)))
    }
}

impl Drop for Laid<'_> {
    fn drop(&mut self) {
        // What was given and is in no reply.
        for (_, block) in self.given.get_mut().drain(..) {
            self.region.table().freed[block].store(1, Ordering::Release);
        }
    }
}

impl<'a> Laid<'a> {
    pub(super) fn new(region: &'a Arc<Region>, blocks: &'a Mutex<Blocks>, room: Range<usize>, runtime: &'static str, most: usize) -> Self {
        Laid { runtime, most, region, blocks, all: room.clone(), room, taken: SmallVec::new(), given: Mutex::default() }
    }

    /// Puts the outputs of a run down and what is said about them, and tells where.
    pub(super) fn outputs(&mut self, outputs: &Outputs) -> Result<Said> {
        self.tensors(OUTPUTS, outputs)
    }

    /// Likewise, an answer of a stream.
    pub(super) fn answer(&mut self, outputs: &Outputs) -> Result<Said> {
        self.tensors(ANSWER, outputs).inspect_err(|_unsaid| self.withdraw())
    }

    /// Says that a stream is over.
    pub(super) fn end(&mut self) -> Result<Said> {
        let said = self.room_for(1)?;
        self.region.write_words(said.at, &[head(END, 0)]);
        Ok(said)
    }

    fn tensors(&mut self, what: u64, outputs: &Outputs) -> Result<Said> {
        // Before anything is copied: what is too large is there once, where the runtime made it.
        check_size(self.runtime, self.most, outputs.iter().map(|tensor| tensor.bytes().len()).sum())?;
        // Its words first: they lie beside the word that the engine looks at.
        let count = 1 + outputs.iter().map(|tensor| length(Some(tensor))).sum::<usize>();
        let said = self.room_for(count)?;
        let mut words: Words = smallvec![head(what, outputs.len())];
        for tensor in outputs {
            let bytes = tensor.bytes();
            let (at, block) = match self.written(bytes) {
                Some((at, block)) => {
                    self.taken.push(block);
                    (at, Some(block))
                }
                None => self.copy(bytes)?,
            };
            say(&mut words, Some(&Placed { at, byte_size: bytes.len(), block, datatype: tensor.datatype, shape: tensor.shape.clone() }));
        }
        self.region.write_words(said.at, &words);
        Ok(said)
    }

    /// Takes back what was put down, for it is not replied.
    fn withdraw(&mut self) {
        for block in self.taken.drain(..) {
            self.region.table().freed[block].store(1, Ordering::Release);
        }
    }

    fn room_for(&mut self, count: usize) -> Result<Said> {
        let (at, block) = self.put(8 * count, false).ok_or_else(|| no_place(8 * count))?;
        Ok(Said { at, count, block })
    }

    /// Where an output lies that the runtime wrote into a place it was given.
    fn written(&self, bytes: &[u8]) -> Option<(usize, usize)> {
        let at = self.region.place_of(bytes)?;
        let mut given = self.given.lock();
        let index = given.iter().position(|(place, _)| *place == (at..at + bytes.len()))?;
        Some((at, given.swap_remove(index).1))
    }

    fn copy(&mut self, bytes: &[u8]) -> Result<(usize, Option<usize>)> {
        let (at, block) = self.put(bytes.len(), bytes.len() > IN_PLACE).ok_or_else(|| no_place(bytes.len()))?;
        self.region.write(at, bytes);
        Ok((at, block))
    }

    /// Puts an error down in place of anything else, and tells where.
    pub(super) fn error(&mut self, error: &NnrpError) -> Said {
        let document = error.to_json().to_string();
        let mut words: Words = smallvec![head(ERROR, 1)];
        self.withdraw();
        // A document that finds no place or is too long is none, which makes no sense to the engine.
        self.room = self.all.clone();
        let said = Said { at: self.room.start, count: 5, block: None };
        self.room.start = (said.at + 8 * said.count).next_multiple_of(ALIGN);
        let (at, block) =
            Some(document.len()).filter(|length| *length <= LONGEST).and_then(|length| self.put(length, false)).unwrap_or((self.room.start, None));
        let bytes = if block.is_some() || at + document.len() <= self.room.end { document.as_bytes() } else { &[] };
        self.region.write(at, bytes);
        say(&mut words, Some(&Placed { at, byte_size: bytes.len(), block, datatype: Datatype::Uint8, shape: smallvec![bytes.len() as i64] }));
        self.region.write_words(said.at, &words);
        said
    }

    /// A place in the seat's room, or else, or when it has to be, a block of its own.
    fn put(&mut self, byte_size: usize, alone: bool) -> Option<(usize, Option<usize>)> {
        let at = self.room.start;
        if !alone && byte_size <= self.room.len() {
            self.room.start = (at + byte_size).next_multiple_of(ALIGN).min(self.room.end);
            return Some((at, None));
        }
        let (block, at) = self.blocks.lock().take(self.region, byte_size)?;
        self.taken.push(block);
        Some((at, Some(block)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_was_given_back_is_used_again_and_what_is_held_is_not() {
        let (region, _fd) = Region::create().unwrap();
        let mut blocks = Blocks::default();
        let held = blocks.take(&region, 1 << 30).unwrap();
        for _ in 0..2 * BLOCKS {
            let (block, at) = blocks.take(&region, 1 << 30).unwrap();
            assert_ne!(at, held.1);
            region.table().freed[block].store(1, Ordering::Release);
        }
        assert!(blocks.take(&region, 1 << 32).is_none());
    }
}
