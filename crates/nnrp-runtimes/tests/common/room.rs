//! Room that a host offers.
use nnrp_core::AlignedBuf;
use nnrp_core::runtime::{Place, Room};
use std::sync::Mutex;

/// Memory of the test's own, and where it was given out.
#[derive(Default)]
pub(crate) struct Heap(Mutex<Vec<usize>>);

struct Slab(AlignedBuf);

impl AsRef<[u8]> for Slab {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref()
    }
}

impl AsMut<[u8]> for Slab {
    fn as_mut(&mut self) -> &mut [u8] {
        self.0.as_mut_slice()
    }
}

impl Place for Slab {}

impl Room for Heap {
    fn place(&self, byte_size: usize) -> Option<Box<dyn Place>> {
        let slab = Slab(AlignedBuf::zeroed(byte_size));
        self.0.lock().unwrap().push(slab.as_ref().as_ptr() as usize);
        Some(Box::new(slab))
    }
}

impl Heap {
    pub(crate) fn given(&self) -> Vec<usize> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}
