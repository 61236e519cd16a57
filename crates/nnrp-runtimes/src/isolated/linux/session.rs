//! An isolated model as the engine holds it: a session like any other.
use super::frame::Told;
use super::home::Home;
use super::inputs::Desk;
use super::output::check_size;
use nnrp_core::runtime::Reading;
use nnrp_core::tensor::element_count;
use nnrp_core::{Concurrency, Control, NnrpError, Outputs, Reason, Result, Session, SessionInfo, Sink, Stop, Tensor, TensorSpec, Threads, Verb};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::thread::JoinHandle;

/// One loaded model in a process of its own; ended with it.
pub(super) struct IsolatedSession {
    home: Arc<Home>,
    supervisor: Option<JoinHandle<()>>,
    info: SessionInfo,
    workers: Option<usize>,
    /// Bytes of each output, as far as its shape fixes them.
    fixed: Vec<usize>,
}

impl IsolatedSession {
    pub(super) fn new(home: Arc<Home>, supervisor: JoinHandle<()>, told: Told) -> Result<IsolatedSession> {
        let threads = if told.own_threads { Threads::Own } else { Threads::Any };
        let read = SessionInfo::from_json(home.runtime, threads, &told.session.to_string());
        // Whoever refuses it closes it: from here on there is something to drop.
        let empty = || SessionInfo {
            signature: Default::default(),
            runtime: home.runtime,
            runtime_version: String::new(),
            format: String::new(),
            device: String::new(),
            concurrency: Concurrency::Shared,
            threads,
            cancellable: false,
            streams: false,
            settings: Map::new(),
        };
        let (info, error) = read.map_or_else(|error| (empty(), Some(error)), |info| (info, None));
        let fixed = info.signature.outputs.iter().map(|spec| fixed(spec).unwrap_or(0)).collect();
        let mut session = IsolatedSession { home, supervisor: Some(supervisor), info, workers: told.workers.filter(|count| *count > 0), fixed };
        if let Some(error) = error {
            return Err(error);
        }
        session.info.settings.insert("isolation".to_owned(), "process".into());
        // The engine's part of a run can always be ended; the process, should its run go on for too long, too.
        session.info.cancellable = true;
        Ok(session)
    }

    fn fits(&self, inputs: &[Option<Tensor<'_>>], outputs: &[usize]) -> Result<()> {
        let signature = &self.info.signature;
        if inputs.len() != signature.inputs.len() || outputs.iter().any(|&index| index >= signature.outputs.len()) {
            return Err(NnrpError::new(Reason::Bug, "a run with other inputs or outputs than the signature's"));
        }
        // What is known to be too large is not even begun there.
        let byte_size = outputs.iter().fold(0_usize, |sum, &index| sum.saturating_add(self.fixed[index]));
        check_size(self.home.runtime, self.home.settings.max_output_bytes, byte_size)
    }
}

/// Bytes of a tensor of that kind, where its shape fixes them.
fn fixed(spec: &TensorSpec) -> Option<usize> {
    spec.datatype.byte_size(element_count(spec.shape.as_ref()?)?)
}

impl Session for IsolatedSession {
    fn info(&self) -> &SessionInfo {
        &self.info
    }

    fn run(&self, inputs: &[Option<Tensor<'_>>], outputs: &[usize], control: Control<'_>) -> Result<Outputs> {
        if self.info.streams {
            return Err(self.not_offered("run"));
        }
        self.fits(inputs, outputs)?;
        let answer = self.home.life()?.run(&self.info.signature, inputs, outputs, control);
        if control.stop.is_some_and(|stop| stop.cause().is_some()) {
            // A run may have been left to itself, which somebody has to look after.
            self.home.poke();
        }
        answer
    }

    fn stream(&self, inputs: &[Option<Tensor<'_>>], outputs: &[usize], control: Control<'_>, sink: &mut Sink<'_>) -> Result<()> {
        if !self.info.streams {
            return sink(self.run(inputs, outputs, control)?);
        }
        self.fits(inputs, outputs)?;
        // Whatever ended it before its end, what goes on there has to be looked after.
        self.home.life()?.stream(&self.info.signature, inputs, outputs, control, sink).inspect_err(|_| self.home.poke())
    }

    fn back(&self, stop: &Stop) -> Result<bool> {
        self.home.back(stop).map(|()| true)
    }

    fn reading(&self) -> Option<Reading> {
        Some(Arc::new(Desk(self.home.life().ok()?)))
    }

    fn workers(&self) -> Option<usize> {
        self.workers
    }

    fn tend(&self, verb: Verb<'_>) -> Result<Value> {
        let told = self.home.life()?.ask_for(verb, self.home.settings.load_limit);
        // Where it took too long, what goes on has to be looked after.
        let told = told.inspect_err(|_| self.home.poke())?;
        if let Verb::SetOption(name, value) = verb {
            // The next process, should there be one, loads with it.
            self.home.spec.lock().options.insert(name.to_owned(), value.clone());
        }
        Ok(told)
    }

    fn state(&self) -> Map<String, Value> {
        self.home.told()
    }
}

impl Drop for IsolatedSession {
    fn drop(&mut self) {
        self.home.close();
        if let Some(supervisor) = self.supervisor.take() {
            let _panicked = supervisor.join();
        }
    }
}
