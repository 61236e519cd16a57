//! What is loaded, and what takes requests (spec §6).
use crate::tiny::*;
use nnrp_core::model::ModelSpec;
use nnrp_core::{Concurrency, Reason, Request, Response, Result, Settings};
use std::future::Future;
use std::pin::Pin;

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
