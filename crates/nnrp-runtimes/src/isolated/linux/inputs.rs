//! Places for large inputs, which only the engine writes to.
use super::life::Life;
use nnrp_core::runtime::{Place, Room};
use std::ops::Range;
use std::sync::Arc;

/// A place in the arena for inputs, given back at its end.
pub(super) struct Block {
    life: Arc<Life>,
    place: Range<usize>,
    byte_size: usize,
}

impl Block {
    /// A place of that size, of which at least `free` bytes of the arena stay free.
    pub(super) fn take(life: &Arc<Life>, byte_size: usize, free: usize) -> Option<Block> {
        let place = life.arena.lock().take(byte_size, free)?;
        Some(Block { life: life.clone(), place, byte_size })
    }

    /// Where it begins.
    pub(super) fn at(&self) -> usize {
        self.place.start
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.life.region.forget(&self.place);
        self.life.arena.lock().give(self.place.clone());
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        self.life.region.bytes(self.place.start, self.byte_size)
    }
}

impl AsMut<[u8]> for Block {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: nobody else has the place, and the other process reads it only once this one has become an input, which nobody writes to.
        unsafe { self.life.region.bytes_mut(self.place.start, self.byte_size) }
    }
}

impl Place for Block {}

/// Room in which requests are gathered that are for one process: no other sees it, and that one cannot write to it by mistake.
pub(super) struct Desk(pub(super) Arc<Life>);

impl Room for Desk {
    fn place(&self, byte_size: usize) -> Option<Box<dyn Place>> {
        // Requests that never end must leave room for those that do.
        let half = super::region::ask_arena().len() / 2;
        Some(Box::new(Block::take(&self.0, byte_size, half)?))
    }
}
