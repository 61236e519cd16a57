//! A real session that computes y = 2x + 1.
use nnrp_core::clock::Clock;
use nnrp_core::model::ModelSpec;
use nnrp_core::runtime::Runtimes;
use nnrp_core::{
    Concurrency, Control, Datatype, Engine, Input, NnrpError, Outputs, Reason, Request, Response, Result, Runtime, RuntimeInfo, Session, SessionInfo, Settings,
    Shape, Signature, Sink, Stop, Tensor, TensorSpec, Threads,
};
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::thread::ThreadId;
use std::time::Duration;

/// What the tests see of a session: each run says where it is and waits to be let go, when gated.
#[derive(Default)]
pub(crate) struct Tiny {
    pub(crate) runs: AtomicUsize,
    pub(crate) together: AtomicUsize,
    pub(crate) most_together: AtomicUsize,
    pub(crate) thread: Mutex<Option<ThreadId>>,
    pub(crate) gate: Option<(Sender<()>, Mutex<Receiver<()>>)>,
    /// Gives one answer for each element of x; infinity is a run without outputs, NaN one that fails.
    pub(crate) streams: bool,
    /// Runs on threads of its own only.
    pub(crate) own: bool,
    /// How many workers lived, and how many callers waited.
    pub(crate) lives: AtomicUsize,
    pub(crate) waits: AtomicUsize,
    /// What a run does first.
    pub(crate) first: Mutex<Option<Box<dyn FnMut() + Send>>>,
}

pub(crate) struct TinySession {
    pub(crate) info: SessionInfo,
    pub(crate) tiny: Arc<Tiny>,
}

impl Session for TinySession {
    fn work(&self, turns: &mut (dyn FnMut() + Send)) {
        self.tiny.lives.fetch_add(1, SeqCst);
        turns();
    }

    fn wait(&self, until: &mut (dyn FnMut() + Send)) {
        self.tiny.waits.fetch_add(1, SeqCst);
        until();
    }

    fn info(&self) -> &SessionInfo {
        &self.info
    }

    fn stream(&self, inputs: &[Option<Tensor<'_>>], outputs: &[usize], control: Control<'_>, sink: &mut Sink<'_>) -> Result<()> {
        if self.info.streams { self.each(inputs[0].as_ref().unwrap(), sink) } else { sink(self.run(inputs, outputs, control)?) }
    }

    fn run(&self, inputs: &[Option<Tensor<'_>>], _outputs: &[usize], control: Control<'_>) -> Result<Outputs> {
        let tiny = &self.tiny;
        tiny.runs.fetch_add(1, SeqCst);
        let now = tiny.together.fetch_add(1, SeqCst) + 1;
        tiny.most_together.fetch_max(now, SeqCst);
        *tiny.thread.lock().unwrap() = Some(std::thread::current().id());
        if let Some(first) = &mut *tiny.first.lock().unwrap() {
            first();
        }
        if let Some((entered, go)) = &tiny.gate {
            let (interrupted, woken) = channel();
            entered.send(()).unwrap();
            let wait = || {
                let go = go.lock().unwrap();
                while go.recv_timeout(Duration::from_millis(1)).is_err() && woken.try_recv().is_err() {}
            };
            match control.stop {
                Some(stop) => stop.during(move || interrupted.send(()).unwrap_or(()), wait),
                None => wait(),
            }
        }
        tiny.together.fetch_sub(1, SeqCst);
        if control.stop.and_then(Stop::cause).is_some() {
            return Err(NnrpError::new(Reason::RunFailed, "interrupted"));
        }
        let x = inputs[0].as_ref().unwrap();
        if x.bytes().is_empty() {
            panic!("a runtime's defect");
        }
        let y: Vec<f32> = x.bytes().chunks_exact(4).map(|b| 2.0 * f32::from_le_bytes(b.try_into().unwrap()) + 1.0).collect();
        Ok([Tensor::from_values(Datatype::Fp32, &x.shape, y)].into_iter().collect())
    }
}

impl TinySession {
    fn each(&self, x: &Tensor<'_>, sink: &mut Sink<'_>) -> Result<()> {
        for value in x.bytes().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())) {
            *self.tiny.thread.lock().unwrap() = Some(std::thread::current().id());
            self.tiny.runs.fetch_add(1, SeqCst);
            match value {
                f32::INFINITY => sink(Outputs::new())?,
                _ if value.is_nan() => return Err(NnrpError::new(Reason::RunFailed, "not a number")),
                _ => sink([Tensor::from_values(Datatype::Fp32, &[1], vec![2.0 * value + 1.0])].into_iter().collect())?,
            }
        }
        Ok(())
    }
}

pub(crate) struct TinyRuntime {
    pub(crate) tiny: Arc<Tiny>,
    pub(crate) concurrency: Concurrency,
}

impl Runtime for TinyRuntime {
    fn name(&self) -> &'static str {
        "tiny"
    }

    fn info(&self) -> RuntimeInfo {
        RuntimeInfo { name: "tiny", version: "1".into(), formats: vec![], devices: vec!["cpu".into()], options: serde_json::json!({}) }
    }

    fn load(&self, _spec: &ModelSpec) -> Result<Box<dyn Session>> {
        let tensor = |name: &str| TensorSpec {
            name: name.into(),
            datatype: Datatype::Fp32,
            shape: Some(Shape::from_slice(&[-1])),
            symbols: vec![],
            ranges: vec![],
            optional: false,
        };
        let info = SessionInfo {
            signature: Signature { inputs: vec![tensor("x")], outputs: vec![tensor("y")] },
            runtime: "tiny",
            runtime_version: "1".into(),
            format: "tiny".into(),
            device: "cpu".into(),
            concurrency: self.concurrency,
            threads: if self.tiny.own { Threads::Own } else { Threads::Any },
            cancellable: true,
            streams: self.tiny.streams,
            settings: serde_json::Map::new(),
        };
        Ok(Box::new(TinySession { info, tiny: self.tiny.clone() }))
    }
}

pub(crate) fn spec(version: &str) -> ModelSpec {
    ModelSpec { version: version.into(), runtime: "tiny".into(), ..ModelSpec::new("double", "double") }
}

pub(crate) fn engine_with(tiny: Arc<Tiny>, concurrency: Concurrency, settings: Settings) -> Engine {
    let mut runtimes = Runtimes::default();
    runtimes.add(Arc::new(TinyRuntime { tiny, concurrency }));
    let engine = Engine::new(settings, runtimes);
    engine.load(spec("1")).unwrap();
    engine
}

pub(crate) fn engine() -> (Engine, Arc<Tiny>) {
    let tiny = Arc::new(Tiny::default());
    (engine_with(tiny.clone(), Concurrency::Shared, Settings::default()), tiny)
}

/// A session whose runs wait; with the receiver of "a run began" and the sender of "let it go".
pub(crate) fn gated() -> (Arc<Tiny>, Receiver<()>, Sender<()>) {
    let ((entered, seen), (let_go, go)) = (channel(), channel());
    (Arc::new(Tiny { gate: Some((entered, Mutex::new(go))), ..Tiny::default() }), seen, let_go)
}

pub(crate) fn request(values: &[f32]) -> Request<'static, 'static> {
    let tensor = Tensor::from_values(Datatype::Fp32, &[values.len() as i64], values.to_vec());
    Request { model: "double".into(), inputs: [Input { name: "x".into(), tensor }].into_iter().collect(), ..Request::default() }
}

pub(crate) fn floats(response: &Response) -> Vec<f32> {
    response.outputs[0].tensor.bytes().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        std::thread::park();
    }
}

/// A gated session under a clock that moves when told to.
pub(crate) fn gated_by(clock: &Clock, concurrency: Concurrency) -> (Engine, Arc<Tiny>, Receiver<()>, Sender<()>) {
    let (tiny, seen, let_go) = gated();
    let engine = engine_with(tiny.clone(), concurrency, Settings { clock: clock.clone(), ..Settings::default() });
    (engine, tiny, seen, let_go)
}

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// Until so many requests wait.
pub(crate) fn until_waiting(engine: &Engine, count: usize) {
    let model = engine.model("double", "").unwrap();
    while model.schedule.waiting() != count {
        std::thread::yield_now();
    }
}
