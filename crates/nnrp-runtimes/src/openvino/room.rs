//! Outputs that the library writes where the host wants them: those of fixed shapes, on the CPU.
use super::library::Owned;
use super::request::Taken;
use super::session::OpenVinoSession;
use super::table::TensorHandle;
use super::value::{Found, Trouble, writing};
use nnrp_core::runtime::{Place, Room, placed};
use nnrp_core::tensor::element_count;
use nnrp_core::{Data, Datatype, Shape, Tensor};
use smallvec::SmallVec;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;

/// Whether an output is written where the library is told to: nobody knows yet; it is; it never is.
const UNKNOWN: u8 = 0;
const WRITTEN: u8 = 1;
const NEVER: u8 = 2;
/// What a place is full of before anybody knows.
const BLANK: u8 = 0xa5;

/// Of an output of the signature.
pub(super) type State = AtomicU8;

/// An output that is written elsewhere than where its request would have it.
pub(super) struct Elsewhere {
    index: usize,
    datatype: Datatype,
    shape: Shape,
    place: Box<dyn Place>,
    /// The request's own tensor, which it gets back.
    own: Owned<TensorHandle>,
}

/// In the order of the outputs that were asked for.
pub(super) type Places = SmallVec<[Option<Elsewhere>; 2]>;

impl OpenVinoSession {
    /// Has outputs written into the room, as far as it has places for them.
    pub(super) fn prepare(&self, taken: &Taken, outputs: &[usize], room: &dyn Room) -> Places {
        outputs.iter().map(|&index| self.prepare_one(taken, index, room)).collect()
    }

    fn prepare_one(&self, taken: &Taken, index: usize, room: &dyn Room) -> Option<Elsewhere> {
        let (spec, state) = (self.signature().outputs.get(index)?, self.states.get(index)?);
        let shape = spec.shape.clone().filter(|shape| spec.datatype.bits() >= 8 && shape.iter().all(|&dim| dim >= 0))?;
        if state.load(Relaxed) == NEVER {
            return None;
        }
        let mut place = room.place(spec.datatype.byte_size(element_count(&shape)?)?)?;
        if state.load(Relaxed) == UNKNOWN {
            (*place).as_mut().fill(BLANK);
        }
        let library = taken.library();
        let there = writing(library, spec.datatype, &shape, (*place).as_mut()).ok()?;
        let own = taken.output(index).ok()?;
        // SAFETY: the request is ours alone, and gets its own tensor back before anybody else has it or the place.
        let set = library.check(unsafe { (library.functions.ov_infer_request_set_output_tensor_by_index)(taken.ptr(), index, there.ptr()) });
        if set.is_err() {
            state.store(NEVER, Relaxed);
        }
        set.ok().map(|()| Elsewhere { index, datatype: spec.datatype, shape, place, own })
    }

    /// Whether outputs are where the library was told to write them, as far as that was not known; what is not never is told again.
    pub(super) fn proves_right(&self, places: &Places) -> bool {
        let mut right = true;
        for elsewhere in places.iter().flatten() {
            let state = &self.states[elsewhere.index];
            // Another run may have found out meanwhile that it never is.
            if state.load(Relaxed) != WRITTEN {
                let written = (*elsewhere.place).as_ref().iter().any(|byte| *byte != BLANK);
                state.store(if written { WRITTEN } else { NEVER }, Relaxed);
                right &= written;
            }
        }
        right
    }
}

/// Gives the request its own tensors back.
///
/// # Errors
/// What the library says; then the request must not be used again.
pub(super) fn put_back(taken: &Taken, places: &Places) -> Result<(), Trouble> {
    let library = taken.library();
    for Elsewhere { index, own, .. } in places.iter().flatten() {
        // SAFETY: the request is ours alone, and the tensor was its own before.
        library.check(unsafe { (library.functions.ov_infer_request_set_output_tensor_by_index)(taken.ptr(), *index, own.ptr()) })?;
    }
    Ok(())
}

impl Elsewhere {
    /// The tensor, if what was found lies there.
    pub(super) fn into_tensor(self, found: &Found) -> Option<Tensor<'static>> {
        let Elsewhere { datatype, shape, place, .. } = self;
        found.lies_at((*place).as_ref(), datatype, &shape).then(|| Tensor { datatype, shape, data: Data::Shared(placed(place)) })
    }
}
