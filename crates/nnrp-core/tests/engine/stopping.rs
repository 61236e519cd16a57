//! Deadlines and cancelling (spec §7.4).
use crate::tiny::*;
use nnrp_core::clock::Clock;
use nnrp_core::{Cause, Concurrency, Parameter, Reason, Request, Settings, Stop};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

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
    let clock = Clock::manual();
    let (engine, _tiny, seen, _let_go) = gated_by(&clock, Concurrency::Shared);
    let within_the_hour = || Request { deadline: Some(clock.now() + HOUR), ..request(&[1.0]) };
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| engine.infer(within_the_hour()));
        seen.recv().unwrap();
        clock.advance(HOUR);
        assert!(caller.join().unwrap().unwrap_err().is(Reason::Deadline));
    });
    let answer = engine.infer_async(within_the_hour());
    seen.recv().unwrap();
    clock.advance(HOUR);
    assert!(wait(answer).unwrap_err().is(Reason::Deadline));
}

#[test]
fn a_run_where_the_request_was_read_is_interrupted_when_its_deadline_passes() {
    let clock = Clock::manual();
    let (engine, tiny, seen, let_go) = gated_by(&clock, Concurrency::Shared);
    let model = engine.model("double", "").unwrap();
    while !model.schedule.is_quick(4) {
        let_go.send(()).unwrap();
        engine.infer(request(&[1.0])).unwrap();
        seen.recv().unwrap();
    }
    std::thread::scope(|scope| {
        let ends = clock.clone();
        scope.spawn(move || {
            seen.recv().unwrap();
            ends.advance(HOUR);
        });
        let mut answer = engine.infer_async(Request { deadline: Some(clock.now() + HOUR), ..request(&[1.0]) });
        assert!(answer.take_ready().unwrap().unwrap_err().is(Reason::Deadline));
    });
    assert_eq!(*tiny.thread.lock().unwrap(), Some(std::thread::current().id()));
    assert!(!model.schedule.is_quick(4), "a run that took an hour is not quick");
}

#[test]
fn a_run_that_holds_the_thread_which_read_it_too_long_is_ended_there_and_begins_again_in_the_queue() {
    for deadline in [None, Some(HOUR)] {
        let clock = Clock::manual();
        let (engine, tiny, seen, let_go) = gated_by(&clock, Concurrency::Shared);
        let model = engine.model("double", "").unwrap();
        while !model.schedule.is_quick(4) {
            let_go.send(()).unwrap();
            engine.infer(request(&[1.0])).unwrap();
            seen.recv().unwrap();
        }
        let failures = model.metrics.snapshot()["failures"].clone();
        std::thread::scope(|scope| {
            let passes = clock.clone();
            let here = scope.spawn(move || {
                seen.recv().unwrap();
                passes.advance(Duration::from_millis(100));
                // The same request, once more.
                seen.recv().unwrap();
                let_go.send(()).unwrap();
            });
            let answer = engine.infer_async(Request { deadline: deadline.map(|time| clock.now() + time), ..request(&[1.0]) });
            assert!(answer.stop().is_some(), "it waits");
            assert_eq!(floats(&wait(answer).unwrap()), [3.0]);
            here.join().unwrap();
        });
        assert_ne!(*tiny.thread.lock().unwrap(), Some(std::thread::current().id()));
        assert!(!model.schedule.is_quick(4));
        assert_eq!(model.metrics.snapshot()["failures"], failures);
    }
}

#[test]
fn a_request_that_waits_is_answered_at_its_deadline_and_not_when_its_turn_comes() {
    let clock = Clock::manual();
    let (engine, tiny, seen, let_go) = gated_by(&clock, Concurrency::Exclusive);
    let first = engine.infer_async(request(&[1.0]));
    seen.recv().unwrap();
    let within_the_hour = || Request { deadline: Some(clock.now() + HOUR), ..request(&[1.0]) };
    let second = engine.infer_async(within_the_hour());
    std::thread::scope(|scope| {
        let third = scope.spawn(|| engine.infer(within_the_hour()));
        until_waiting(&engine, 2);
        clock.advance(HOUR);
        assert!(third.join().unwrap().unwrap_err().is(Reason::Deadline));
    });
    assert!(wait(second).unwrap_err().is(Reason::Deadline));
    let_go.send(()).unwrap();
    wait(first).unwrap();
    assert_eq!(tiny.runs.load(SeqCst), 1);
}

#[test]
fn the_parameter_timeout_is_a_deadline_in_every_form() {
    let clock = Clock::manual();
    let (engine, tiny, seen, _let_go) = gated_by(&clock, Concurrency::Shared);
    let with = |name: &str, value: Parameter| Request { parameters: vec![(name.to_owned(), value)], ..request(&[1.0]) };
    let answer = engine.infer_async(with("timeout", Parameter::Int(3_600_000_000)));
    seen.recv().unwrap();
    clock.advance(HOUR);
    assert!(wait(answer).unwrap_err().is(Reason::Deadline));
    let received = Some(clock.now() - HOUR);
    assert!(engine.infer(Request { received, ..with("timeout", Parameter::Int(1)) }).unwrap_err().is(Reason::Deadline));
    assert!(engine.infer(with("timeout", Parameter::Int(-1))).unwrap_err().is(Reason::InvalidParameter));
    assert!(wait(engine.infer_async(with("sequence_id", Parameter::Int(7)))).unwrap_err().is(Reason::NotOffered));
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
fn a_blocking_caller_that_waits_for_its_turn_can_be_stopped() {
    let (tiny, seen, let_go) = gated();
    let engine = engine_with(tiny, Concurrency::Exclusive, Settings::default());
    let first = engine.infer_async(request(&[1.0]));
    seen.recv().unwrap();
    let stop = Arc::new(Stop::default());
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| engine.infer(Request { stop: Some(stop.clone()), ..request(&[1.0]) }));
        until_waiting(&engine, 1);
        stop.raise(Cause::Cancelled);
        assert!(caller.join().unwrap().unwrap_err().is(Reason::ClientCancelled));
    });
    let_go.send(()).unwrap();
    assert_eq!(floats(&wait(first).unwrap()), [3.0]);
}

#[test]
fn an_answered_request_leaves_its_callers_stop_as_it_was() {
    let (engine, _) = engine();
    let stop = Arc::new(Stop::default());
    wait(engine.infer_async(Request { stop: Some(stop.clone()), ..request(&[1.0]) })).unwrap();
    assert_eq!(stop.cause(), None);
}
