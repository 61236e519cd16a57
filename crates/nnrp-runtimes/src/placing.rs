//! Outputs that a library writes where the host wants them, as far as it does: a library may take a place and write elsewhere all the same.
use nnrp_core::runtime::{Place, Room, placed};
use nnrp_core::tensor::element_count;
use nnrp_core::{Data, Datatype, Shape, Tensor};
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;

/// What is known of an output: nobody knows yet; it is written where the library is told to; it never is.
const UNKNOWN: u8 = 0;
const WRITTEN: u8 = 1;
const NEVER: u8 = 2;
/// What a place is full of before anybody knows.
const BLANK: u8 = 0xa5;

/// Whether an output of a session is written where its library is told to.
#[derive(Default)]
pub(crate) struct Placing(AtomicU8);

/// Where one run's output is to be written, and what it is.
pub(crate) struct Prepared {
    datatype: Datatype,
    shape: Shape,
    place: Box<dyn Place>,
}

impl Placing {
    /// Whether the output may be placed at all.
    pub(crate) fn may_be(&self) -> bool {
        self.0.load(Relaxed) != NEVER
    }

    /// Finds a place for the output of a run, whose type and shape are known; `None` where the room has none, or it is never written there.
    pub(crate) fn prepare(&self, datatype: Datatype, shape: Shape, room: &dyn Room) -> Option<Prepared> {
        let state = self.0.load(Relaxed);
        let byte_size = datatype.byte_size(element_count(&shape)?).filter(|_| state != NEVER)?;
        let mut place = room.place(byte_size)?;
        if state == UNKNOWN {
            (*place).as_mut().fill(BLANK);
        }
        Some(Prepared { datatype, shape, place })
    }

    /// Whether a run wrote where it was told to, as far as that was not known; what did not never is told again.
    pub(crate) fn proves_right(&self, prepared: &Prepared) -> bool {
        // Another run may have found out meanwhile that it never is.
        if self.0.load(Relaxed) == WRITTEN {
            return true;
        }
        let written = (*prepared.place).as_ref().iter().any(|byte| *byte != BLANK);
        self.0.store(if written { WRITTEN } else { NEVER }, Relaxed);
        written
    }

    /// Notes that the output is not to be placed.
    pub(crate) fn never(&self) {
        self.0.store(NEVER, Relaxed);
    }
}

impl Prepared {
    /// What to write, and the bytes to write it to.
    pub(crate) fn target(&mut self) -> (Datatype, &Shape, &mut [u8]) {
        (self.datatype, &self.shape, (*self.place).as_mut())
    }

    /// What was to be written, and the bytes: anything until the library is known to have written there.
    pub(crate) fn written(&self) -> (Datatype, &Shape, &[u8]) {
        (self.datatype, &self.shape, (*self.place).as_ref())
    }

    /// The output, which the library has written there.
    pub(crate) fn into_tensor(self) -> Tensor<'static> {
        Tensor { datatype: self.datatype, shape: self.shape, data: Data::Shared(placed(self.place)) }
    }
}
