//! Buffers for message bodies: aligned where the tensors start, grown as bytes arrive, kept for the next large body.
use bytes::Bytes;
use nnrp_core::AlignedBuf;
use nnrp_core::runtime::{Place, Reading};
use parking_lot::Mutex;
use std::sync::Arc;

/// Smaller buffers are cheaper to allocate than to keep.
const KEPT_FROM: usize = 128 << 10;
/// Larger buffers go back to the system, so that one huge request does not cost memory for ever.
const KEPT_TO: usize = 8 << 20;
/// Buffers kept by one pool.
const KEPT: usize = 4;
/// Smaller bodies lie in memory of ours whoever reads them: such a copy costs less than a place of its own.
pub(crate) const PLACED_FROM: usize = 64 << 10;
/// What a claimed length is worth, times the bytes that came first, within these bounds; four times what came, after that.
const TRUST_FACTOR: usize = 128;
const TRUST_LEAST: usize = 4 << 10;
const TRUST_MOST: usize = 1 << 20;

struct Block {
    memory: Memory,
    size: usize,
}

enum Memory {
    Ours(AlignedBuf),
    Theirs(Box<dyn Place>),
}

impl Block {
    fn new(size: usize) -> Self {
        let size = size.next_multiple_of(64);
        Block { memory: Memory::Ours(AlignedBuf::zeroed(size)), size }
    }

    fn bytes(&self) -> &[u8] {
        match &self.memory {
            Memory::Ours(memory) => memory.as_ref(),
            Memory::Theirs(place) => (**place).as_ref(),
        }
    }

    fn room(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Memory::Ours(memory) => memory.as_mut_slice(),
            Memory::Theirs(place) => (**place).as_mut(),
        }
    }
}

/// Where bodies are gathered: in large buffers whose last user is gone, for page faults cost more than filling them (271 → 241 µs for 602 kB, two
/// cores), or where the model that is asked reads them.
#[derive(Clone, Default)]
pub(crate) struct Pool {
    kept: Arc<Mutex<Vec<Block>>>,
    reading: Option<Reading>,
}

impl Pool {
    /// The same, for a body that somebody would read in memory of theirs.
    pub(crate) fn within(&self, reading: Option<Reading>) -> Pool {
        Pool { kept: self.kept.clone(), reading }
    }

    fn take(&self, size: usize) -> Block {
        if size > PLACED_FROM
            && let Some(place) = self.reading.as_ref().and_then(|reading| reading.place(size))
        {
            return Block { memory: Memory::Theirs(place), size };
        }
        if (KEPT_FROM..=KEPT_TO).contains(&size) {
            let mut kept = self.kept.lock();
            if let Some(found) = kept.iter().position(|block| block.size >= size) {
                return kept.swap_remove(found);
            }
        }
        Block::new(size)
    }

    fn give(&self, block: Block) {
        if matches!(block.memory, Memory::Ours(_)) && (KEPT_FROM..=KEPT_TO).contains(&block.size) {
            let mut kept = self.kept.lock();
            if kept.len() == KEPT {
                kept.remove(0);
            }
            kept.push(block);
        }
    }
}

/// A body that is being gathered; the byte after `head` bytes is 64-byte aligned.
pub(crate) struct Gathered {
    pool: Pool,
    block: Option<Block>,
    start: usize,
    length: usize,
    claimed: usize,
}

impl Gathered {
    /// An empty body of which `claimed` bytes are expected; takes memory only as they come.
    pub(crate) fn new(pool: &Pool, head: usize, claimed: usize) -> Self {
        Gathered { pool: pool.clone(), block: None, start: (64 - head % 64) % 64, length: 0, claimed }
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Appends bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        self.room(end).copy_from_slice(bytes);
        self.length = end;
    }

    /// The place of the bytes from the end so far up to `end`.
    fn room(&mut self, end: usize) -> &mut [u8] {
        let size = self.start + end;
        if self.block.as_ref().is_none_or(|block| block.size < size) {
            self.grow(end);
        }
        let (from, to) = (self.start + self.length, size);
        self.block.as_mut().and_then(|block| block.room().get_mut(from..to)).unwrap_or_default()
    }

    fn grow(&mut self, end: usize) {
        let trusted = match self.block {
            None => end.saturating_mul(TRUST_FACTOR).clamp(TRUST_LEAST, TRUST_MOST),
            Some(_) => end.saturating_mul(4),
        };
        let wanted = if end <= self.claimed { self.claimed.min(trusted).max(end) } else { end.next_power_of_two() };
        let mut block = self.pool.take(self.start + wanted);
        if let Some(old) = self.block.take() {
            let written = self.start..self.start + self.length;
            block.room()[written.clone()].copy_from_slice(&old.bytes()[written]);
            self.pool.give(old);
        }
        self.block = Some(block);
    }

    /// The body, shared by count; its memory goes back to the pool with the last of them.
    pub(crate) fn into_bytes(self) -> Bytes {
        if self.length == 0 { Bytes::new() } else { Bytes::from_owner(self) }
    }
}

impl AsRef<[u8]> for Gathered {
    fn as_ref(&self) -> &[u8] {
        let range = self.start..self.start + self.length;
        self.block.as_ref().and_then(|block| block.bytes().get(range)).unwrap_or_default()
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.pool.give(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_after_the_head_is_aligned_however_the_body_comes() {
        for (head, claimed, piece) in [(0, 0, 1000), (199, 300_000, 8000), (64, 10, 10), (77, 0, 100_000)] {
            let pool = Pool::default();
            let mut body = Gathered::new(&pool, head, claimed);
            let bytes: Vec<u8> = (0..300_000).map(|i| (i % 251) as u8).collect();
            bytes.chunks(piece).for_each(|chunk| body.push(chunk));
            let body = body.into_bytes();
            assert_eq!(body, bytes);
            assert_eq!(body[head..].as_ptr() as usize % 64, 0);
        }
    }

    #[test]
    fn a_claim_costs_nothing_before_its_bytes_come_and_little_after_the_first() {
        let pool = Pool::default();
        let mut body = Gathered::new(&pool, 0, 64 << 20);
        assert!(body.block.is_none());
        body.push(b"x");
        assert!(body.block.as_ref().is_some_and(|block| block.size <= TRUST_LEAST + 64));
    }

    #[test]
    fn a_large_body_gives_its_memory_back_with_its_last_reader() {
        let pool = Pool::default();
        let mut body = Gathered::new(&pool, 0, 600_000);
        body.push(&vec![7; 600_000]);
        let bytes = body.into_bytes();
        let (slice, place) = (bytes.slice(100..200), bytes.as_ptr());
        drop(bytes);
        assert_eq!(pool.kept.lock().len(), 0);
        drop(slice);
        let mut next = Gathered::new(&pool, 0, 600_000);
        next.push(&[1; 8_000]);
        assert_eq!(next.as_ref().as_ptr(), place);
        assert_eq!(next.into_bytes(), vec![1; 8_000]);
    }
}
