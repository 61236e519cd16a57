//! What a plug-in gives answer by answer: in order, checked like that of a run, for as long as the stream goes on and somebody reads (spec §8.13).
use super::{added, bad, compiled, leaving_nothing, load_bad, one_output, sample, spec, told};
use crate::common::{Scratch, f32s, run, values};
use libloading::Library;
use nnrp_core::{Answers, Cause, Control, Engine, Input, ModelSpec, NnrpError, Outputs, Reason, Request, Response, Result, Runtime, Session, Settings, Stop};
use nnrp_runtimes::plugin::Plugin;
use serde_json::json;
use std::task::Poll;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

fn streaming(does: &str) -> Box<dyn Session> {
    load_bad(&told(&one_output(), &json!({"streams": true})), does).unwrap()
}

/// The answers to 1 and 2, as many as `wanted`, and how they ended.
fn read(session: &dyn Session, wanted: usize) -> (Vec<Vec<f32>>, Result<()>) {
    let (mut answers, stop) = (Vec::new(), Stop::default());
    let mut sink = |outputs: Outputs| {
        answers.push(values(&outputs[0]));
        if answers.len() < wanted { Ok(()) } else { Err(NnrpError::new(Reason::ClientCancelled, "enough")) }
    };
    let ended = session.stream(&[Some(f32s(&[2], &[1.0, 2.0]))], &[0], Control { stop: Some(&stop), ..Control::default() }, &mut sink);
    (answers, ended)
}

#[test]
fn the_sample_gives_an_answer_for_each_element() {
    let model = Scratch::new("each.sample", b"nnrp-sample");
    let runtimes = added(&[sample()]).unwrap();
    let load = |options| runtimes.get("sample").unwrap().load(&spec(&model.0, options)).unwrap();
    let session = load(json!({"stream": true, "scale": 10}));
    assert!(session.info().streams);
    let (answers, ended) = read(&*session, usize::MAX);
    assert_eq!((answers, ended.is_ok()), (vec![vec![11.0], vec![21.0]], true));
    let (answers, ended) = read(&*session, 1);
    assert_eq!((answers, ended.unwrap_err().message()), (vec![vec![11.0]], "enough"));
    let whole = load(json!({}));
    assert!(!whole.info().streams);
    assert_eq!(read(&*whole, usize::MAX).0, [[3.0, 5.0]]);
}

#[test]
fn a_wrong_answer_ends_the_stream_behind_those_before_it() {
    for (does, says) in [
        ("null_tensor", "runtime bad: output 'y': expected a tensor of its own, got NULL"),
        ("rank_2", "runtime bad: output 'y': expected shape [-1], got [2, 1]"),
        ("other_datatype", "runtime bad: output 'y': expected datatype FP32, got FP64"),
        ("leaves_one", "runtime bad: stream: expected each answer to be given, got one that was left"),
        ("tells_a_path", "runtime bad: in …"),
    ] {
        leaving_nothing(|| {
            let (answers, ended) = read(&*streaming(does), usize::MAX);
            let before = match does {
                "leaves_one" => 0,
                "tells_a_path" => 2,
                _ => 1,
            };
            let error = ended.unwrap_err();
            assert_eq!((answers, error.reason()), (vec![vec![3.0, 5.0]; before], "RUN_FAILED"), "{does}");
            assert_eq!(error.message(), says, "{does}");
        });
    }
}

#[test]
fn whoever_wants_no_more_is_given_no_more() {
    for does in ["", "deaf"] {
        leaving_nothing(|| {
            let (answers, ended) = read(&*streaming(does), 1);
            assert_eq!((answers.len(), ended.unwrap_err().message()), (1, "enough"), "{does}");
        });
    }
}

#[test]
fn an_answer_out_of_turn_is_refused_and_harms_nothing() {
    for does in ["gives_nothing", "gives_null", "gives_other", "gives_elsewhere"] {
        leaving_nothing(|| assert!(matches!(read(&*streaming(does), usize::MAX), (answers, Ok(())) if answers.is_empty()), "{does}"));
    }
    leaving_nothing(|| {
        let (answers, ended) = read(&*streaming("deleter_gives"), usize::MAX);
        assert!(answers.is_empty() && ended.unwrap_err().is(Reason::RunFailed));
    });
    leaving_nothing(|| {
        let session = streaming("");
        assert!(read(&*session, usize::MAX).1.is_ok());
        // After the end: the plug-in has kept the function and the run.
        assert_eq!(session.stats().unwrap(), json!({"late": 9}));
    });
}

#[test]
fn a_session_that_says_it_streams_and_cannot_is_refused_and_an_older_table_still_runs() {
    let without = "-DBREAK=table->stream = NULL, table->name = \"without\"";
    let older = "-DBREAK=table->struct_size = offsetof(NnrpRuntimeV1, stream), table->abi_version -= 1, table->name = \"older\"";
    for (name, words) in [("without", without), ("older", older)] {
        let plugin = Plugin::open(&compiled(name, "plugins/bad.c", &[words])).unwrap();
        let load = |streams: bool| {
            let model = Scratch::new(&format!("{name}-{streams}.bad"), told(&one_output(), &json!({"streams": streams})).as_bytes());
            plugin.load(&spec(&model.0, json!({})))
        };
        let error = load(true).err().unwrap();
        assert_eq!(error.reason(), "LOAD_FAILED");
        assert_eq!(error.message(), format!("runtime {name}: session_info: streams: expected a table that has the function stream, got NULL"));
        let session = load(false).unwrap();
        assert_eq!(values(&run(&*session, &[Some(f32s(&[2], &[1.0, 2.0]))], &[0]).unwrap()[0]), [3.0, 5.0]);
        assert_eq!(read(&*session, usize::MAX).0, [[3.0, 5.0]]);
    }
}

fn engine(does: &str) -> Engine {
    let model = Scratch::new(&format!("engine-{does}.bad"), told(&one_output(), &json!({"streams": true})).as_bytes());
    let engine = Engine::new(Settings::default(), added(&[bad()]).unwrap());
    engine.load(ModelSpec { runtime: "bad".into(), ..spec(&model.0, json!({"do": does})) }).unwrap();
    engine
}

fn ask(engine: &Engine, deadline: Option<Instant>) -> Answers {
    let input = Input { name: "x".into(), tensor: f32s(&[1], &[1.0]).into_owned() };
    engine.stream(Request { model: "m".into(), inputs: [input].into_iter().collect(), deadline, ..Request::default() }).unwrap()
}

fn next(answers: &mut Answers) -> Option<Result<Response>> {
    let Poll::Ready(next) = answers.wait_next(MINUTE) else { panic!("no answer within a minute") };
    next
}

#[test]
fn a_stream_that_waits_is_cancelled_by_a_call_and_leaves_its_turn() {
    let engine = engine("waits_for_cancel");
    let mut answers = ask(&engine, None);
    assert!(next(&mut answers).unwrap().is_ok());
    let stop = answers.stop();
    stop.raise(Cause::Cancelled);
    let end = std::iter::from_fn(|| next(&mut answers)).last().unwrap();
    assert!(end.unwrap_err().is(Reason::ClientCancelled));
    drop(ask(&engine, None));
    assert!(engine.close(MINUTE));
}

#[test]
fn a_stream_that_never_ends_is_answered_at_its_deadline_and_holds_only_its_own_model() {
    let engine = engine("never_ends");
    let answers = &mut ask(&engine, Some(Instant::now() + Duration::from_millis(50)));
    let end = std::iter::from_fn(|| next(answers)).last().unwrap();
    assert!(end.unwrap_err().is(Reason::Deadline));
    assert!(next(answers).is_none());
    // SAFETY: the library is the one that is open, and the function takes nothing.
    unsafe { Library::new(bad()).unwrap().get::<unsafe extern "C" fn()>(c"bad_release").unwrap()() };
    assert!(engine.close(MINUTE));
}
