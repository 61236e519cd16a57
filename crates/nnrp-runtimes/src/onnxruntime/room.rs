//! Outputs that the library writes where the host wants them: those whose shapes are known before the run.
use super::session::OnnxSession;
use super::value::{Value, Values};
use crate::placing::{Placing, Prepared};
use nnrp_core::runtime::Room;
use nnrp_core::{Datatype, Shape, Tensor};
use smallvec::SmallVec;

impl OnnxSession {
    /// Has outputs written into the room, as far as it has places for them; in `results`, and in the order of `outputs`.
    pub(super) fn prepare(&self, inputs: &[Option<Tensor<'_>>], outputs: &[usize], room: &dyn Room, results: &mut Values) -> SmallVec<[Option<Prepared>; 2]> {
        let mut one = |(slot, &index): (usize, &usize)| {
            let placing = self.placings.get(index).filter(|placing| placing.may_be())?;
            let (datatype, shape) = self.known_before(index, inputs)?;
            let mut prepared = placing.prepare(datatype, shape, room)?;
            let (datatype, shape, bytes) = prepared.target();
            results.put(slot, Value::writing(self.library, datatype, shape, bytes).ok()?);
            Some(prepared)
        };
        outputs.iter().enumerate().map(&mut one).collect()
    }

    /// Whether a run that was told where to write did so, as far as that was not known; what did not never is told again. The library fails where
    /// an output has another shape than its model's names say, and leaves a place as it is where an output is an input, or a constant.
    pub(super) fn proves_right(&self, outputs: &[usize], prepared: &[Option<Prepared>], ran: bool) -> bool {
        let placed = prepared.iter().zip(outputs).filter_map(|(one, &index)| Some((one.as_ref()?, self.placings.get(index)?)));
        placed.fold(true, |right, (one, placing)| ran && placing.proves_right(one) & right)
    }

    /// Notes that outputs are not to be placed: a run failed that placed them, and one that did not was well.
    pub(super) fn place_never(&self, outputs: &[usize]) {
        outputs.iter().filter_map(|&index| self.placings.get(index)).for_each(Placing::never);
    }

    /// The type and shape that an output will have: dimensions that are fixed, or have the name of an input's.
    fn known_before(&self, index: usize, inputs: &[Option<Tensor<'_>>]) -> Option<(Datatype, Shape)> {
        let signature = &self.info.signature;
        let spec = signature.outputs.get(index).filter(|spec| spec.datatype != Datatype::Bytes)?;
        if !self.cpu_only || self.may_be_none.get(index) == Some(&true) {
            return None;
        }
        let named = |axis: usize| {
            let name = spec.symbols.get(axis)?.as_deref()?;
            signature.inputs.iter().zip(inputs).find_map(|(input, tensor)| {
                let axis = input.symbols.iter().position(|symbol| symbol.as_deref() == Some(name))?;
                tensor.as_ref()?.shape.get(axis).copied()
            })
        };
        let dims = spec.shape.as_ref()?.iter().enumerate().map(|(axis, &dim)| if dim < 0 { named(axis) } else { Some(dim) });
        Some((spec.datatype, dims.collect::<Option<Shape>>()?))
    }
}
