//! Who runs when, and on which thread (spec §7.2).
use crate::tiny::*;
use nnrp_core::schedule::Limits;
use nnrp_core::{Concurrency, Reason, Request, Settings};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

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
fn blocking_callers_that_wait_for_their_turns_count_like_a_queue() {
    let (tiny, seen, let_go) = gated();
    let limits = Limits { queue_capacity: 3, ..Limits::default() };
    let engine = engine_with(tiny.clone(), Concurrency::Exclusive, Settings { limits, ..Settings::default() });
    std::thread::scope(|scope| {
        let ask = |x: f32| {
            let engine = &engine;
            scope.spawn(move || floats(&engine.infer(request(&[x])).unwrap()))
        };
        let first = ask(1.0);
        seen.recv().unwrap();
        let waiting: Vec<_> = [2.0, 3.0, 4.0].map(ask).into();
        until_waiting(&engine, 3);
        assert!(engine.infer(request(&[9.0])).unwrap_err().is(Reason::QueueFull));
        assert!(wait(engine.infer_async(request(&[9.0]))).unwrap_err().is(Reason::QueueFull));
        (0..4).for_each(|_| let_go.send(()).unwrap());
        let answers: Vec<_> = [first].into_iter().chain(waiting).map(|caller| caller.join().unwrap()).collect();
        assert_eq!(answers, [[3.0], [5.0], [7.0], [9.0]]);
    });
    assert_eq!(tiny.most_together.load(SeqCst), 1);
    until_waiting(&engine, 0);
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
    let before = model.schedule.expected(0);
    assert!(engine.infer(request(&[])).unwrap_err().is(Reason::Bug));
    assert_ne!(model.schedule.expected(0), before);
}
