//! A model that the library runs, and proof that it does so as its interpreter.
use super::instance::{Instance, Spare};
use super::library::{Library, failed, made};
use super::signature::{self, Place};
use super::table::{Model, Options};
use crate::foreign::Owned;
use bytes::Bytes;
use nnrp_core::runtime::{Room, placed};
use nnrp_core::{Control, Data, NnrpError, Outputs, Reason, Result, Session, SessionInfo, Shape, Tensor};
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;

/// Most instances that wait for a run, where not more of them are workers': callers whose runs are short run themselves, and compiling takes longer than any.
const MOST_IDLE: usize = 16;

/// What goes in and what comes out, by name: how a signature is told, and what a run of the interpreter gave.
pub type Example<'a> = [(String, Tensor<'a>)];

/// A model of fixed shapes that keeps nothing between its runs, compiled.
pub struct Compiled {
    /// Instances that wait for a run; they go before what they are made of.
    idle: Mutex<Vec<Instance>>,
    library: &'static Library,
    options: Owned<Options>,
    model: Owned<Model>,
    signature: usize,
    /// With the bytes of each.
    inputs: Vec<(Place, usize)>,
    outputs: Vec<(Place, usize)>,
    names: [Vec<String>; 2],
    /// Of the outputs: their specs may leave open what the model's description fixes.
    shapes: Vec<Shape>,
    /// The file, which the library reads where it lies.
    _content: Bytes,
}

impl Compiled {
    /// Loads a model that the interpreter has read before, and runs it once.
    ///
    /// # Errors
    /// `LOAD_FAILED` where the library cannot have it, or answers otherwise than the example says.
    pub fn load(library: &Path, content: Bytes, key: Option<&str>, threads: usize, [inputs, outputs]: [&Example<'_>; 2]) -> Result<Compiled> {
        let library = Library::open(library)?;
        let functions = &library.functions;
        let alone = library.loads.lock();
        let model = made(functions.LiteRtDestroyModel, |out| {
            // SAFETY: the bytes stay where they are as long as the model lives.
            unsafe { (functions.LiteRtCreateModelFromBuffer)(library.environment, content.as_ptr().cast(), content.len(), out) }
        })?;
        let found = signature::find(library, &model, key, inputs, outputs)?;
        let options = library.options(threads)?;
        drop(alone);
        let sized = |places: Vec<Place>, known: &Example<'_>| places.into_iter().zip(known).map(|(place, (_, tensor))| (place, tensor.bytes().len())).collect();
        let shapes = outputs.iter().map(|(_, tensor)| tensor.shape.clone()).collect();
        let names = [inputs, outputs].map(|side| side.iter().map(|(name, _)| name.clone()).collect());
        let (of_inputs, of_outputs) = (sized(found.inputs, inputs), sized(found.outputs, outputs));
        let idle = Mutex::new(Vec::new());
        let compiled =
            Compiled { idle, library, options, model, signature: found.index, inputs: of_inputs, outputs: of_outputs, names, shapes, _content: content };
        let mut first = compiled.make()?;
        first.prove(library, inputs, outputs)?;
        compiled.idle.lock().push(first);
        Ok(compiled)
    }

    /// The session, as it is told of, for so many workers.
    ///
    /// # Errors
    /// `LOAD_FAILED` when it is told of with other inputs or outputs.
    pub fn session(self, info: SessionInfo, most: usize) -> Result<Box<dyn Session>> {
        let told = [&info.signature.inputs, &info.signature.outputs];
        if told.iter().zip(&self.names).all(|(specs, names)| specs.iter().map(|spec| &*spec.name).eq(names.iter().map(String::as_str))) {
            let spare = self.outputs.iter().map(|_| Spare::new(most)).collect();
            Ok(Box::new(LiteRtSession { compiled: self, info, most, spare }))
        } else {
            Err(failed("a session of other inputs or outputs than were compiled"))
        }
    }

    fn make(&self) -> Result<Instance> {
        let _alone = self.library.loads.lock();
        Instance::new(self.library, &self.model, &self.options, self.signature, [&self.inputs, &self.outputs])
    }
}

impl Instance {
    /// Runs the example. What its outputs were full of before shows where the library leaves one alone: of a shape that the run decides, or an input.
    fn prove(&mut self, library: &Library, inputs: &Example<'_>, outputs: &Example<'_>) -> Result<()> {
        for (index, (_, tensor)) in inputs.iter().enumerate() {
            self.put(index, tensor)?;
        }
        self.blank();
        self.run(library)?;
        let right = outputs.iter().enumerate().all(|(index, (_, tensor))| self.output(index) == Some(tensor.bytes()));
        if right { Ok(()) } else { Err(failed("its C library answers otherwise than its interpreter")) }
    }
}

/// A compiled model, as it is told of.
struct LiteRtSession {
    compiled: Compiled,
    info: SessionInfo,
    most: usize,
    /// By output.
    spare: Vec<Arc<Spare>>,
}

impl LiteRtSession {
    fn try_run(&self, inputs: &[Option<Tensor<'_>>], outputs: &[usize], room: Option<&dyn Room>) -> Result<Outputs> {
        if inputs.len() != self.compiled.inputs.len() {
            return Err(NnrpError::new(Reason::Bug, "a run with other inputs than the signature's"));
        }
        let waiting = self.compiled.idle.lock().pop();
        let mut instance = waiting.map_or_else(|| self.compiled.make(), Ok)?;
        for (index, tensor) in inputs.iter().enumerate() {
            let tensor = tensor.as_ref().ok_or_else(|| NnrpError::new(Reason::Bug, "a run without an input of the signature"))?;
            instance.put(index, tensor)?;
        }
        // An instance whose run failed goes.
        instance.run(self.compiled.library)?;
        let mut found = Outputs::new();
        for (place, &index) in outputs.iter().enumerate() {
            // An output goes out once.
            let before = outputs[..place].iter().position(|known| *known == index);
            let tensor = before.map_or_else(|| self.output(&mut instance, index, room), |before| Ok(found[before].clone()))?;
            found.push(tensor);
        }
        let mut idle = self.compiled.idle.lock();
        if idle.len() < self.most.max(MOST_IDLE) {
            idle.push(instance);
        }
        Ok(found)
    }

    /// An output. The library does not write into the room itself, because XNNPACK may read past the end of it.
    #[inline]
    fn output(&self, instance: &mut Instance, index: usize, room: Option<&dyn Room>) -> Result<Tensor<'static>> {
        let compiled = &self.compiled;
        let (Some(spec), Some(shape), Some(bytes)) = (self.info.signature.outputs.get(index), compiled.shapes.get(index), instance.output(index)) else {
            return Err(NnrpError::new(Reason::Bug, "a run for other outputs than the signature's"));
        };
        let data = match room.and_then(|room| room.place(bytes.len())) {
            Some(mut place) => {
                (*place).as_mut().copy_from_slice(bytes);
                placed(place)
            }
            None => instance.keep(compiled.library, index, &compiled.outputs[index], &self.spare[index])?,
        };
        Ok(Tensor { datatype: spec.datatype, shape: shape.clone(), data: Data::Shared(data) })
    }
}

impl Session for LiteRtSession {
    fn info(&self) -> &SessionInfo {
        &self.info
    }

    fn run(&self, inputs: &[Option<Tensor<'_>>], outputs: &[usize], _control: Control<'_>) -> Result<Outputs> {
        self.try_run(inputs, outputs, None)
    }

    fn run_into(&self, inputs: &[Option<Tensor<'_>>], outputs: &[usize], _control: Control<'_>, room: &dyn Room) -> Result<Outputs> {
        self.try_run(inputs, outputs, Some(room))
    }

    fn workers(&self) -> Option<usize> {
        Some(self.most)
    }
}
