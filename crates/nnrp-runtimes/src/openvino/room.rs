//! Outputs that the library writes where the host wants them: those of fixed shapes, on the CPU.
use super::library::Owned;
use super::request::Taken;
use super::session::OpenVinoSession;
use super::table::TensorHandle;
use super::value::{Found, Trouble, writing};
use crate::placing::Prepared;
use nnrp_core::Tensor;
use nnrp_core::runtime::Room;
use smallvec::SmallVec;

/// An output that is written elsewhere than where its request would have it.
pub(super) struct Elsewhere {
    index: usize,
    prepared: Prepared,
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
        let (spec, placing) = (self.signature().outputs.get(index)?, self.placings.get(index)?);
        let shape = spec.shape.clone().filter(|shape| spec.datatype.bits() >= 8 && shape.iter().all(|&dim| dim >= 0))?;
        let mut prepared = placing.prepare(spec.datatype, shape, room)?;
        let library = taken.library();
        let (datatype, shape, bytes) = prepared.target();
        let there = writing(library, datatype, shape, bytes).ok()?;
        let own = taken.output(index).ok()?;
        // SAFETY: the request is ours alone, and gets its own tensor back before anybody else has it or the place.
        let set = library.check(unsafe { (library.functions.ov_infer_request_set_output_tensor_by_index)(taken.ptr(), index, there.ptr()) });
        if set.is_err() {
            placing.never();
        }
        set.ok().map(|()| Elsewhere { index, prepared, own })
    }

    /// Whether outputs are where the library was told to write them, as far as that was not known; what is not never is told again.
    pub(super) fn proves_right(&self, places: &Places) -> bool {
        places.iter().flatten().fold(true, |right, one| self.placings[one.index].proves_right(&one.prepared) & right)
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
        let (datatype, shape, bytes) = self.prepared.written();
        found.lies_at(bytes, datatype, shape).then(|| self.prepared.into_tensor())
    }
}
