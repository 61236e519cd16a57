//! The engine's promises (spec §7), on a real session that computes y = 2x + 1.
use nnrp_core::clock::Clock;
use nnrp_core::model::ModelSpec;
use nnrp_core::runtime::Runtimes;
use nnrp_core::schedule::Limits;
use nnrp_core::{
    Cause, Concurrency, Control, Datatype, Engine, Input, NnrpError, Outputs, Reason, Request, Response, Result, Runtime, RuntimeInfo, Session, SessionInfo,
    Settings, Shape, Signature, Stop, Tensor, TensorSpec,
};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// What the tests see of a session: each run says where it is and waits to be let go, when gated.
#[derive(Default)]
struct Tiny {
    runs: AtomicUsize,
    together: AtomicUsize,
    most_together: AtomicUsize,
    thread: Mutex<Option<ThreadId>>,
    gate: Option<(Sender<()>, Mutex<Receiver<()>>)>,
}

struct TinySession {
    info: SessionInfo,
    tiny: Arc<Tiny>,
}

impl Session for TinySession {
    fn info(&self) -> &SessionInfo {
        &self.info
    }

    fn run(&self, inputs: &[Option<Tensor<'_>>], _outputs: &[usize], control: Control<'_>) -> Result<Outputs> {
        let tiny = &self.tiny;
        tiny.runs.fetch_add(1, SeqCst);
        let now = tiny.together.fetch_add(1, SeqCst) + 1;
        tiny.most_together.fetch_max(now, SeqCst);
        *tiny.thread.lock().unwrap() = Some(std::thread::current().id());
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

struct TinyRuntime {
    tiny: Arc<Tiny>,
    concurrency: Concurrency,
}

impl Runtime for TinyRuntime {
    fn name(&self) -> &'static str {
        "tiny"
    }

    fn info(&self) -> RuntimeInfo {
        RuntimeInfo { name: "tiny", version: "1".into(), formats: vec![], devices: vec!["cpu".into()], options: serde_json::json!({}) }
    }

    fn load(&self, _spec: &ModelSpec) -> Result<Box<dyn Session>> {
        let tensor =
            |name: &str| TensorSpec { name: name.into(), datatype: Datatype::Fp32, shape: Some(Shape::from_slice(&[-1])), symbols: vec![], optional: false };
        let info = SessionInfo {
            signature: Signature { inputs: vec![tensor("x")], outputs: vec![tensor("y")] },
            runtime: "tiny",
            runtime_version: "1".into(),
            format: "tiny".into(),
            device: "cpu".into(),
            concurrency: self.concurrency,
            cancellable: true,
            settings: serde_json::Map::new(),
        };
        Ok(Box::new(TinySession { info, tiny: self.tiny.clone() }))
    }
}

fn spec(version: &str) -> ModelSpec {
    ModelSpec { name: "double".into(), version: version.into(), path: "double".into(), runtime: "tiny".into(), options: serde_json::Map::new() }
}

fn engine_with(tiny: Arc<Tiny>, concurrency: Concurrency, settings: Settings) -> Engine {
    let mut runtimes = Runtimes::default();
    runtimes.add(Arc::new(TinyRuntime { tiny, concurrency }));
    let engine = Engine::new(settings, runtimes);
    engine.load(spec("1")).unwrap();
    engine
}

fn engine() -> (Engine, Arc<Tiny>) {
    let tiny = Arc::new(Tiny::default());
    (engine_with(tiny.clone(), Concurrency::Shared, Settings::default()), tiny)
}

/// A session whose runs wait; with the receiver of "a run began" and the sender of "let it go".
fn gated() -> (Arc<Tiny>, Receiver<()>, Sender<()>) {
    let ((entered, seen), (let_go, go)) = (channel(), channel());
    (Arc::new(Tiny { gate: Some((entered, Mutex::new(go))), ..Tiny::default() }), seen, let_go)
}

fn request(values: &[f32]) -> Request<'static, 'static> {
    let tensor = Tensor::from_values(Datatype::Fp32, &[values.len() as i64], values.to_vec());
    Request { model: "double".into(), inputs: [Input { name: "x".into(), tensor }].into_iter().collect(), ..Request::default() }
}

fn floats(response: &Response) -> Vec<f32> {
    response.outputs[0].tensor.bytes().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn wait<F: Future>(future: F) -> F::Output {
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

#[test]
fn an_answer_has_the_model_the_version_the_id_and_the_numbers() {
    let (engine, _) = engine();
    let response = engine.infer(Request { id: Some("a".into()), ..request(&[1.0, 2.5]) }).unwrap();
    assert_eq!((&*response.model, &*response.version, response.id.as_deref()), ("double", "1", Some("a")));
    assert_eq!(&*response.outputs[0].name, "y");
    assert_eq!(floats(&response), [3.0, 6.0]);
    assert_eq!(floats(&wait(engine.infer_async(request(&[4.0]))).unwrap()), [9.0]);
}

#[test]
fn a_new_session_queues_and_a_quick_one_runs_where_the_request_was_read() {
    let (engine, tiny) = engine();
    let here = Some(std::thread::current().id());
    wait(engine.infer_async(request(&[1.0]))).unwrap();
    assert_ne!(*tiny.thread.lock().unwrap(), here);
    while !engine.model("double", "").unwrap().schedule.is_quick(4) {
        engine.infer(request(&[1.0])).unwrap();
    }
    let mut answer = engine.infer_async(request(&[1.0]));
    assert!(answer.take_ready().is_some());
    assert_eq!(*tiny.thread.lock().unwrap(), here);
}

#[test]
fn a_request_past_its_deadline_never_reaches_the_runtime() {
    let clock = Clock::manual();
    let tiny = Arc::new(Tiny::default());
    let engine = engine_with(tiny.clone(), Concurrency::Shared, Settings { clock: clock.clone(), ..Settings::default() });
    let late = || Request { deadline: Some(clock.now()), ..request(&[1.0]) };
    clock.advance(Duration::from_millis(6));

    assert!(wait(engine.infer_async(late())).unwrap_err().is(Reason::Deadline));
    assert!(engine.infer(late()).unwrap_err().is(Reason::Deadline));
    assert_eq!(tiny.runs.load(SeqCst), 0);
}

#[test]
fn a_run_is_interrupted_when_its_deadline_passes() {
    let (tiny, _seen, _let_go) = gated();
    let engine = engine_with(tiny.clone(), Concurrency::Shared, Settings::default());
    let soon = || Request { deadline: Some(Instant::now() + Duration::from_millis(20)), ..request(&[1.0]) };
    assert!(engine.infer(soon()).unwrap_err().is(Reason::Deadline));
    assert!(wait(engine.infer_async(soon())).unwrap_err().is(Reason::Deadline));
}

#[test]
fn a_request_that_waits_is_answered_at_its_deadline_and_not_when_its_turn_comes() {
    let (tiny, seen, let_go) = gated();
    let engine = engine_with(tiny.clone(), Concurrency::Exclusive, Settings::default());
    let first = engine.infer_async(request(&[1.0]));
    seen.recv().unwrap();
    let second = engine.infer_async(Request { deadline: Some(Instant::now() + Duration::from_millis(20)), ..request(&[1.0]) });
    assert!(wait(second).unwrap_err().is(Reason::Deadline));
    let_go.send(()).unwrap();
    wait(first).unwrap();
    assert_eq!(tiny.runs.load(SeqCst), 1);
}

#[test]
fn an_answer_that_is_dropped_ends_its_run() {
    let (tiny, seen, let_go) = gated();
    let engine = engine_with(tiny.clone(), Concurrency::Exclusive, Settings::default());
    let answer = engine.infer_async(request(&[1.0]));
    seen.recv().unwrap();
    drop(answer);
    let next = engine.infer_async(request(&[2.0]));
    seen.recv().unwrap();
    let_go.send(()).unwrap();
    assert_eq!(floats(&wait(next).unwrap()), [5.0]);
    assert_eq!(engine.model("double", "").unwrap().metrics.snapshot()["failures"]["CLIENT_CANCELLED"], 1);
}

#[test]
fn a_blocking_caller_is_stopped_from_another_thread() {
    let (tiny, seen, _let_go) = gated();
    let engine = engine_with(tiny, Concurrency::Shared, Settings::default());
    let stop = Arc::new(Stop::default());
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| engine.infer(Request { stop: Some(stop.clone()), ..request(&[1.0]) }));
        seen.recv().unwrap();
        stop.raise(Cause::Cancelled);
        assert!(caller.join().unwrap().unwrap_err().is(Reason::ClientCancelled));
    });
}

#[test]
fn a_session_that_takes_one_call_at_a_time_gets_one() {
    let tiny = Arc::new(Tiny::default());
    let engine = engine_with(tiny.clone(), Concurrency::Exclusive, Settings::default());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let engine = &engine;
            scope.spawn(move || {
                for step in 0..500 {
                    let x = (thread * 1000 + step) as f32;
                    let response = if step % 2 == 0 { engine.infer(request(&[x])) } else { wait(engine.infer_async(request(&[x]))) };
                    assert_eq!(floats(&response.unwrap()), [2.0 * x + 1.0]);
                }
            });
        }
    });
    assert_eq!((tiny.runs.load(SeqCst), tiny.most_together.load(SeqCst)), (2000, 1));
}

#[test]
fn a_full_queue_refuses_with_queue_full() {
    let (tiny, seen, let_go) = gated();
    let limits = Limits { queue_capacity: 1, workers: 1, ..Limits::default() };
    let engine = engine_with(tiny, Concurrency::Shared, Settings { limits, ..Settings::default() });
    let running = engine.infer_async(request(&[1.0]));
    seen.recv().unwrap();
    let waiting = engine.infer_async(request(&[2.0]));
    assert!(wait(engine.infer_async(request(&[3.0]))).unwrap_err().is(Reason::QueueFull));
    let_go.send(()).unwrap();
    let_go.send(()).unwrap();
    assert_eq!(floats(&wait(running).unwrap()), [3.0]);
    assert_eq!(floats(&wait(waiting).unwrap()), [5.0]);
}

#[test]
fn a_panic_in_a_runtime_is_one_answer_and_the_engine_lives() {
    let (engine, _) = engine();
    assert!(engine.infer(request(&[])).unwrap_err().is(Reason::Bug));
    assert!(wait(engine.infer_async(request(&[]))).unwrap_err().is(Reason::Bug));
    assert_eq!(floats(&engine.infer(request(&[1.0])).unwrap()), [3.0]);
}

#[test]
fn a_session_that_fails_slowly_is_not_quick() {
    let (engine, _) = engine();
    let model = engine.model("double", "").unwrap();
    while !model.schedule.is_quick(4) {
        engine.infer(request(&[1.0])).unwrap();
    }
    let before = model.schedule.mean();
    assert!(engine.infer(request(&[])).unwrap_err().is(Reason::Bug));
    assert_ne!(model.schedule.mean(), before);
}

#[test]
fn an_answered_request_leaves_its_callers_stop_as_it_was() {
    let (engine, _) = engine();
    let stop = Arc::new(Stop::default());
    wait(engine.infer_async(Request { stop: Some(stop.clone()), ..request(&[1.0]) })).unwrap();
    assert_eq!(stop.cause(), None);
}

#[test]
fn the_latest_version_is_the_largest_number_and_any_can_be_asked_for() {
    let (engine, _) = engine();
    for version in ["10", "9", "beta"] {
        engine.load(spec(version)).unwrap();
    }
    assert_eq!(engine.versions("double").iter().map(|v| &**v).collect::<Vec<_>>(), ["beta", "1", "9", "10"]);
    assert_eq!(&*engine.infer(request(&[1.0])).unwrap().version, "10");
    assert_eq!(&*engine.infer(Request { version: "beta".into(), ..request(&[1.0]) }).unwrap().version, "beta");
    let reason = |model: &'static str, version: &'static str| {
        let refused = engine.infer(Request { model: model.into(), version: version.into(), ..request(&[1.0]) });
        refused.unwrap_err().reason().to_owned()
    };
    assert_eq!(reason("double", "11"), "VERSION_NOT_FOUND");
    assert_eq!(reason("triple", ""), "MODEL_NOT_FOUND");
    assert!(engine.load(spec("9")).err().unwrap().is(Reason::ModelExists));
}

#[test]
fn an_unloaded_model_finishes_what_it_has() {
    let (tiny, seen, let_go) = gated();
    let engine = engine_with(tiny, Concurrency::Exclusive, Settings::default());
    let running = engine.infer_async(request(&[1.0]));
    seen.recv().unwrap();
    let waiting = engine.infer_async(request(&[2.0]));
    engine.unload("double", "").unwrap();
    assert!(engine.infer(request(&[1.0])).unwrap_err().is(Reason::ModelNotFound));
    let_go.send(()).unwrap();
    let_go.send(()).unwrap();
    assert_eq!(floats(&wait(running).unwrap()), [3.0]);
    assert_eq!(floats(&wait(waiting).unwrap()), [5.0]);
    assert!(engine.unload("double", "").unwrap_err().is(Reason::ModelNotFound));
}

#[test]
fn a_draining_engine_takes_nothing_new_and_answers_what_it_has() {
    let (tiny, seen, let_go) = gated();
    let engine = engine_with(tiny, Concurrency::Shared, Settings::default());
    let running = engine.infer_async(request(&[1.0]));
    seen.recv().unwrap();
    engine.drain();
    assert!(!engine.ready());
    assert!(engine.infer(request(&[1.0])).unwrap_err().is(Reason::Draining));
    let_go.send(()).unwrap();
    assert_eq!(floats(&wait(running).unwrap()), [3.0]);
}

#[test]
fn names_with_slashes_dots_or_too_many_letters_are_refused() {
    let (engine, _) = engine();
    for name in ["", "a/b", "..", ".hidden", "a b", &"n".repeat(257)] {
        let refused = engine.load(ModelSpec { name: name.to_owned(), ..spec("1") }).err().unwrap();
        assert!(refused.is(Reason::InvalidOption), "{name}");
    }
}

#[test]
fn a_description_with_an_unknown_field_says_so() {
    let refused = ModelSpec::from_json(r#"{"name": "m", "path": "p", "colour": "red"}"#).unwrap_err();
    assert!(refused.is(Reason::InvalidOption));
    assert!(refused.message().contains("colour"), "{refused}");
}

fn _answers_cross_threads(answer: nnrp_core::Answer) -> Pin<Box<dyn Future<Output = Result<Response>> + Send>> {
    Box::pin(answer)
}
