//! Sessions that run on threads of their own, and what they are asked there (spec §8.12).
use crate::tiny::*;
use nnrp_core::schedule::Limits;
use nnrp_core::{Concurrency, Engine, NotTaken, Reason, Request, Settings};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

fn own() -> Arc<Tiny> {
    Arc::new(Tiny { own: true, ..Tiny::default() })
}

#[test]
fn a_session_with_threads_of_its_own_never_runs_where_the_request_was_read_however_quick_it_is() {
    let tiny = own();
    let engine = engine_with(tiny.clone(), Concurrency::Shared, Settings::default());
    for _ in 0..100 {
        let mut answer = engine.infer_async(request(&[1.0]));
        assert!(answer.take_ready().is_none());
        wait(answer).unwrap();
        assert_ne!(*tiny.thread.lock().unwrap(), Some(std::thread::current().id()));
    }
    engine.infer(request(&[1.0])).unwrap();
    assert_eq!(*tiny.thread.lock().unwrap(), Some(std::thread::current().id()));
}

#[test]
fn a_worker_lives_inside_the_session_from_its_first_run_to_its_last() {
    let tiny = own();
    let engine = engine_with(tiny.clone(), Concurrency::Exclusive, Settings::default());
    for _ in 0..10 {
        wait(engine.infer_async(request(&[1.0]))).unwrap();
    }
    assert_eq!((tiny.lives.load(SeqCst), tiny.runs.load(SeqCst)), (1, 10));
    assert!(engine.close(Duration::from_secs(60)));
}

#[test]
fn a_caller_waits_outside_of_what_the_session_holds_and_only_when_it_must() {
    let (tiny, seen, let_go) = gated();
    let engine = engine_with(tiny.clone(), Concurrency::Exclusive, Settings::default());
    std::thread::scope(|scope| {
        let calls = [(); 2].map(|()| scope.spawn(|| engine.infer(request(&[1.0]))));
        seen.recv().unwrap();
        until_waiting(&engine, 1);
        (0..2).for_each(|_| let_go.send(()).unwrap());
        calls.into_iter().for_each(|call| drop(call.join().unwrap().unwrap()));
    });
    assert_eq!(tiny.waits.load(SeqCst), 1);
}

#[test]
fn an_exclusive_session_that_calls_itself_is_told_so_and_works_on() {
    let tiny = own();
    let engine = Arc::new(engine_with(tiny.clone(), Concurrency::Exclusive, Settings::default()));
    let (said, weak): (Arc<Mutex<Vec<String>>>, Weak<Engine>) = (Arc::default(), Arc::downgrade(&engine));
    let told = said.clone();
    let first = move || {
        let answer = weak.upgrade().unwrap().infer(request(&[1.0]));
        told.lock().unwrap().push(answer.unwrap_err().reason().to_owned());
    };
    *tiny.first.lock().unwrap() = Some(Box::new(first));
    engine.infer(request(&[1.0])).unwrap();
    wait(engine.infer_async(request(&[1.0]))).unwrap();
    assert_eq!(*said.lock().unwrap(), ["WRONG_STATE", "WRONG_STATE"]);
}

#[test]
fn an_answer_can_be_waited_for() {
    let engine = engine_with(own(), Concurrency::Shared, Settings::default());
    assert_eq!(floats(&engine.infer_async(request(&[1.0])).wait(&mut || false).unwrap()), [3.0]);
    assert!(engine.infer_async(Request { model: "none".into(), ..request(&[1.0]) }).wait(&mut || false).unwrap_err().is(Reason::ModelNotFound));
}

#[test]
fn a_closed_engine_takes_nothing_and_tells_whether_its_threads_are_gone() {
    let (tiny, seen, let_go) = gated();
    let limits = Limits { linger: Duration::from_secs(3600), ..Limits::default() };
    let engine = engine_with(tiny, Concurrency::Shared, Settings { limits, ..Settings::default() });
    let answer = engine.infer_async(request(&[1.0]));
    seen.recv().unwrap();
    assert!(!engine.close(Duration::ZERO));
    assert!(wait(engine.infer_async(request(&[1.0]))).unwrap_err().is(Reason::Draining));
    let_go.send(()).unwrap();
    assert_eq!(floats(&wait(answer).unwrap()), [3.0]);
    assert!(engine.close(Duration::from_secs(60)));
}

#[test]
fn a_description_tells_the_session_its_labels_and_the_choice() {
    let engine = engine_with(own(), Concurrency::Shared, Settings::default());
    let mut wanted = spec("2");
    wanted.runtime = "nowhere, tiny".into();
    wanted.labels.insert("owner".into(), "ada".into());
    let told = engine.load(wanted).unwrap().description();
    assert_eq!((told["runtime"].as_str(), told["labels"]["owner"].as_str()), (Some("tiny"), Some("ada")));
    assert_eq!(told["chosen"]["runtime"], "tiny");
    assert_eq!(told["chosen"]["not_taken"][0]["reason"], "RUNTIME_NOT_INSTALLED");
    assert!(engine.model("double", "2").unwrap().not_taken.iter().map(NotTaken::to_json).all(|one| one["runtime"] == "nowhere"));
}

#[test]
fn a_caller_that_wants_to_wait_no_longer_cancels_its_request() {
    let (tiny, seen, _let_go) = gated();
    let engine = engine_with(tiny, Concurrency::Shared, Settings::default());
    let refused = engine.infer_async(request(&[1.0])).wait(&mut move || seen.try_recv().is_ok()).unwrap_err();
    assert!(refused.is(Reason::ClientCancelled));
    assert!(engine.close(HOUR));
    let told = engine.model("double", "").unwrap().metrics.snapshot();
    assert_eq!(told["failures"]["CLIENT_CANCELLED"], 1);
}
