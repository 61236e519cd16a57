//! Requests with any number of answers (spec §7.11).
use crate::tiny::*;
use nnrp_core::clock::Clock;
use nnrp_core::{Answers, Cause, Concurrency, Engine, Reason, Request, Response, Result, Settings, SharedAnswers, Stop};
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::Poll;
use std::time::{Duration, Instant};

/// Answers that may be waiting for their reader, and the one that the session holds.
const AHEAD: usize = 8 + 1;
const MINUTE: Duration = Duration::from_secs(60);

fn streaming(clock: Clock) -> (Engine, Arc<Tiny>) {
    let tiny = Arc::new(Tiny { streams: true, ..Tiny::default() });
    (engine_with(tiny.clone(), Concurrency::Exclusive, Settings { clock, ..Settings::default() }), tiny)
}

fn next(answers: &mut Answers) -> Option<Result<Response>> {
    wait(poll_fn(|context| answers.poll_next(context)))
}

fn all(mut answers: Answers) -> Vec<Result<Vec<f32>>> {
    std::iter::from_fn(|| next(&mut answers)).map(|answer| answer.map(|answer| floats(&answer))).collect()
}

fn until_runs(tiny: &Tiny, count: usize) {
    while tiny.runs.load(SeqCst) < count {
        std::thread::yield_now();
    }
}

#[test]
fn a_stream_gives_each_answer_in_order_and_then_says_that_it_is_over() {
    let (engine, tiny) = streaming(Clock::default());
    let mut answers = engine.stream(Request { id: Some("seven".into()), ..request(&[1.0, 2.0, 3.0]) }).unwrap();
    assert!(answers.streams());
    for expected in [3.0, 5.0, 7.0] {
        assert!(answers.last().is_none());
        let answer = next(&mut answers).unwrap().unwrap();
        assert_eq!((&*answer.model, answer.id.as_deref(), floats(&answer)), ("double", Some("seven"), vec![expected]));
    }
    assert!(next(&mut answers).is_none() && next(&mut answers).is_none());
    let last = answers.last().unwrap();
    assert_eq!((last.id.as_deref(), last.outputs.len()), (Some("seven"), 0));
    assert_ne!(*tiny.thread.lock().unwrap(), Some(std::thread::current().id()));
    assert!(all(engine.stream(request(&[])).unwrap()).is_empty());
    let told = engine.model("double", "").unwrap().metrics.snapshot();
    assert_eq!((&told["success_count"], &told["streams"]["count"], &told["streams"]["answer_count"]), (&2.into(), &2.into(), &3.into()));
    assert!(told["streams"]["first_answer_ns"].as_u64() > Some(0));
}

#[test]
fn a_session_that_streams_is_never_asked_for_one_answer() {
    let (engine, tiny) = streaming(Clock::default());
    for error in [engine.infer(request(&[1.0])).unwrap_err(), wait(engine.infer_async(request(&[1.0]))).unwrap_err()] {
        assert!(error.is(Reason::NotOffered) && error.message().contains("double"), "{error}");
    }
    assert_eq!(tiny.runs.load(SeqCst), 0);
    let loaded = engine.model("double", "").unwrap();
    assert_eq!((&loaded.metadata(&[])["properties"]["decoupled"], &loaded.description()["streams"]), (&"true".into(), &true.into()));
}

#[test]
fn a_session_with_one_answer_gives_it_as_a_stream_too_and_never_where_the_request_was_read() {
    let (engine, tiny) = engine();
    let model = engine.model("double", "").unwrap();
    while !model.schedule.is_quick(4) {
        engine.infer(request(&[1.0])).unwrap();
    }
    let mut answers = engine.stream(request(&[1.0])).unwrap();
    assert!(!answers.streams());
    assert_eq!(floats(&next(&mut answers).unwrap().unwrap()), [3.0]);
    assert!(next(&mut answers).is_none());
    assert_ne!(*tiny.thread.lock().unwrap(), Some(std::thread::current().id()));
    assert!(model.metadata(&[]).get("properties").is_none());
}

#[test]
fn a_slow_reader_holds_the_session_back() {
    let (engine, tiny) = streaming(Clock::default());
    let mut answers = engine.stream(request(&[1.0; 1000])).unwrap();
    for read in 0..1000 {
        until_runs(&tiny, (read + AHEAD).min(1000));
        assert!(tiny.runs.load(SeqCst) <= read + AHEAD);
        assert_eq!(floats(&next(&mut answers).unwrap().unwrap()), [3.0]);
    }
    assert!(next(&mut answers).is_none());
    assert!(tiny.waits.load(SeqCst) > 0, "it waits outside of what the session holds");
}

#[test]
fn a_reader_that_leaves_stops_the_session_and_frees_its_turn() {
    let (engine, tiny) = streaming(Clock::default());
    let mut answers = engine.stream(request(&[1.0; 1000])).unwrap();
    next(&mut answers).unwrap().unwrap();
    drop(answers);
    assert_eq!(all(engine.stream(request(&[1.0])).unwrap()).len(), 1);
    assert!(tiny.runs.load(SeqCst) < 1000);
    assert!(engine.close(MINUTE));
    assert_eq!(engine.model("double", "").unwrap().metrics.snapshot()["failures"]["CLIENT_CANCELLED"], 1);
}

#[test]
fn a_stream_can_be_stopped_by_others_and_ends_with_what_it_had() {
    let (engine, tiny) = streaming(Clock::default());
    let stop = Arc::new(Stop::default());
    let answers = engine.stream(Request { stop: Some(stop.clone()), ..request(&[1.0; 1000]) }).unwrap();
    until_runs(&tiny, AHEAD);
    stop.raise(Cause::Cancelled);
    let given = all(answers);
    assert!(given.last().unwrap().as_ref().unwrap_err().is(Reason::ClientCancelled));
    assert_eq!(given.len(), AHEAD);
}

#[test]
fn a_stream_ends_at_its_deadline_whether_or_not_it_is_read() {
    let clock = Clock::manual();
    let (engine, tiny) = streaming(clock.clone());
    let within_the_hour = || Request { deadline: Some(clock.now() + HOUR), ..request(&[1.0; 1000]) };
    let unread = engine.stream(within_the_hour()).unwrap();
    until_runs(&tiny, AHEAD);
    let waiting = engine.stream(within_the_hour()).unwrap();
    clock.advance(HOUR);
    for (answers, expected) in [(waiting, 1), (unread, AHEAD)] {
        let given = all(answers);
        assert!(given.last().unwrap().as_ref().unwrap_err().is(Reason::Deadline));
        assert_eq!(given.len(), expected);
    }
    assert!(engine.stream(Request { deadline: Some(clock.now()), ..request(&[1.0]) }).err().unwrap().is(Reason::Deadline));
    assert!(engine.close(MINUTE));
}

#[test]
fn what_goes_wrong_within_a_stream_ends_it_and_no_other() {
    let (engine, _) = streaming(Clock::default());
    for (values, says) in [([1.0, 2.0, f32::NAN, 3.0], "not a number"), ([1.0, 2.0, f32::INFINITY, 3.0], "expected 1 outputs, got 0")] {
        let given = all(engine.stream(request(&values)).unwrap());
        assert_eq!(given[..2].iter().map(|answer| answer.as_ref().unwrap()[0]).collect::<Vec<f32>>(), [3.0, 5.0]);
        let error = given[2].as_ref().unwrap_err();
        assert!(given.len() == 3 && error.is(Reason::RunFailed) && error.message().contains(says), "{error}");
    }
    assert!(engine.stream(Request { model: "none".into(), ..request(&[1.0]) }).err().unwrap().is(Reason::ModelNotFound));
    let (plain, _) = crate::tiny::engine();
    assert!(all(plain.stream(request(&[])).unwrap())[0].as_ref().unwrap_err().is(Reason::Bug));
    assert_eq!(all(plain.stream(request(&[1.0])).unwrap()).len(), 1);
}

#[test]
fn whoever_waits_for_an_answer_may_stop_waiting_and_come_again() {
    let (tiny, seen, let_go) = gated();
    let engine = engine_with(tiny, Concurrency::Shared, Settings::default());
    let mut answers = engine.stream(request(&[1.0])).unwrap();
    seen.recv().unwrap();
    assert!(answers.wait_next(Duration::ZERO).is_pending());
    let_go.send(()).unwrap();
    let Poll::Ready(Some(Ok(answer))) = answers.wait_next(MINUTE) else { panic!("an answer comes") };
    assert_eq!(floats(&answer), [3.0]);
    assert!(matches!(answers.wait_next(MINUTE), Poll::Ready(None)));
}

#[test]
fn a_stream_that_threads_share_can_be_closed_while_one_waits_for_an_answer() {
    let (tiny, seen, _let_go) = gated();
    let engine = engine_with(tiny, Concurrency::Shared, Settings::default());
    let answers = SharedAnswers::from(engine.stream(request(&[1.0])).unwrap());
    seen.recv().unwrap();
    assert!(answers.try_next().is_pending());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| answers.wait_next(MINUTE));
        answers.close();
        assert!(!matches!(waiting.join().unwrap(), Poll::Ready(Some(Ok(_))) | Poll::Pending));
    });
    answers.close();
    assert!(matches!(answers.try_next(), Poll::Ready(None)));
}

#[test]
fn what_was_given_ahead_is_not_read_once_it_is_closed() {
    let begun = Instant::now();
    loop {
        let (sink, _end, answers) = Answers::channel(Arc::default());
        let answers = SharedAnswers::from(answers);
        let answer = || Response { model: "double".into(), version: "1".into(), id: None, outputs: Default::default() };
        let got = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| answers.wait_next(MINUTE));
            std::thread::yield_now();
            answers.close();
            // Whoever waits for an answer keeps it from being closed at once.
            let _closed = [sink.try_send(answer()).is_err(), sink.try_send(answer()).is_err()];
            waiting.join().unwrap()
        });
        assert!(matches!(answers.try_next(), Poll::Ready(None)));
        if matches!(got, Poll::Ready(Some(Ok(_)))) {
            return;
        }
        assert!(begun.elapsed() < MINUTE, "nobody waited in time");
    }
}
