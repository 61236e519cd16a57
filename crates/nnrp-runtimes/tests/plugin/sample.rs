//! The sample answers, from any thread, and can be stopped.
use super::{added, compiled, sample, spec};
use crate::common::{Scratch, f32s, run, values};
use nnrp_core::{Cause, Control, Engine, Input, ModelSpec, Precision, Reason, Request, Session, Settings, Stop};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

const FOREVER_MS: u64 = 600_000;

fn model(name: &str) -> Scratch {
    Scratch::new(&format!("{name}.sample"), b"nnrp-sample\n")
}

fn load(name: &str, options: Value) -> nnrp_core::Result<Box<dyn Session>> {
    added(&[sample()])?.get("sample").unwrap().load(&spec(&model(name).0, options))
}

#[test]
fn the_sample_tells_what_it_is_and_answers() {
    let info = added(&[sample()]).unwrap().get("sample").unwrap().info();
    assert_eq!((info.version.as_str(), info.formats.as_slice(), info.devices.as_slice()), ("1.0", ["sample".into()].as_slice(), ["cpu".into()].as_slice()));
    assert_eq!(info.options["properties"]["scale"]["default"], 2);
    let session = load("answers", json!({})).unwrap();
    let told = session.info();
    assert_eq!((told.runtime, told.format.as_str(), told.device.as_str(), told.cancellable), ("sample", "sample", "cpu", true));
    assert_eq!((&told.settings["scale"], &told.settings["precision"]), (&json!(2), &json!("strict")));
    assert_eq!(told.signature.inputs[0].symbols, [Some("n".to_owned())]);
    let outputs = run(&*session, &[Some(f32s(&[3], &[1.0, 2.0, 3.0]))], &[0]).unwrap();
    assert_eq!((values(&outputs[0]), outputs[0].shape.as_slice()), (vec![3.0, 5.0, 7.0], [3].as_slice()));
    assert!(values(&run(&*session, &[Some(f32s(&[0], &[]))], &[0]).unwrap()[0]).is_empty());
}

#[test]
fn outputs_outlive_their_session() {
    let session = load("outlives", json!({"scale": -1.5})).unwrap();
    let outputs = run(&*session, &[Some(f32s(&[1], &[2.0]))], &[0]).unwrap();
    drop(session);
    assert_eq!(values(&outputs[0]), [-2.0]);
}

#[test]
fn the_frozen_runtime_of_abi_1_0_answers() {
    let runtimes = added(&[compiled("runtime_v1_0", "plugins/runtime_v1_0.c", &[])]).unwrap();
    let session = runtimes.get("v1_0").unwrap().load(&spec(&model("frozen").0, json!({}))).unwrap();
    assert_eq!((session.info().format.as_str(), session.info().cancellable), ("any", false));
    assert_eq!(values(&run(&*session, &[Some(f32s(&[2], &[1.0, 2.0]))], &[0]).unwrap()[0]), [3.0, 5.0]);
    assert!(session.stats().unwrap_err().is(Reason::NotOffered));
    assert!(session.warm_up().unwrap_err().is(Reason::NotOffered));
    assert!(session.set_option("x", &json!(1)).unwrap_err().is(Reason::NotOffered));
}

#[test]
fn options_are_checked_before_the_plug_in_sees_them() {
    for (options, reason, message) in [
        (json!({"factor": 1}), "UNKNOWN_OPTION", "options: unknown option 'factor'; sample knows scale, delay_ms, stream"),
        (json!({"scale": "2"}), "INVALID_OPTION", "options.scale: "),
        (json!({"delay_ms": -1}), "INVALID_OPTION", "options.delay_ms: "),
        (json!({"delay_ms": 0.5}), "INVALID_OPTION", "options.delay_ms: "),
    ] {
        let error = load("options", options).err().unwrap();
        assert!(error.reason() == reason && error.message().starts_with(message), "{error:?}");
    }
}

#[test]
fn options_change_while_a_session_lives() {
    let session = load("changes", json!({})).unwrap();
    session.set_option("scale", &json!(10)).unwrap();
    assert_eq!(values(&run(&*session, &[Some(f32s(&[1], &[2.0]))], &[0]).unwrap()[0]), [21.0]);
    assert!(session.set_option("scale", &json!("x")).unwrap_err().is(Reason::InvalidOption));
    assert!(session.set_option("factor", &json!(1)).unwrap_err().is(Reason::UnknownOption));
    assert_eq!(session.stats().unwrap(), json!({"runs": 1}));
}

#[test]
fn what_the_plug_in_refuses_names_it_and_no_path() {
    let runtimes = added(&[sample()]).unwrap();
    let load = |path: PathBuf| runtimes.get("sample").unwrap().load(&spec(&path, json!({}))).err().unwrap();
    let missing = load("/no/such.sample".into());
    assert_eq!((missing.reason(), missing.message()), ("FILE_NOT_FOUND", "runtime sample: model file: no such file"));
    let other = Scratch::new("other.sample", b"something else");
    assert!(load(other.0.clone()).is(Reason::InvalidModel));
}

#[test]
fn a_device_or_precision_that_does_not_hold_is_refused() {
    let file = model("honest");
    let runtimes = added(&[sample()]).unwrap();
    let load = |device: &str, precision| {
        let spec = ModelSpec { device: device.into(), precision, ..ModelSpec::new("m", &file.0) };
        runtimes.get("sample").unwrap().load(&spec).err().map(|error| error.reason().to_owned())
    };
    assert_eq!(load("cpu", Precision::Strict), None);
    assert_eq!(load("CPU", Precision::Fast), None);
    assert_eq!(load("cuda:0", Precision::Strict).as_deref(), Some("DEVICE_NOT_FOUND"));
    assert_eq!(load("auto", Precision::Fp16).as_deref(), Some("NOT_OFFERED"));
}

#[test]
fn four_threads_share_a_session() {
    let session = load("threads", json!({})).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let session = &*session;
            scope.spawn(move || {
                for turn in 0..2_000 {
                    let x = [(thread * 10_000 + turn) as f32, 1.0];
                    assert_eq!(values(&run(session, &[Some(f32s(&[2], &x))], &[0]).unwrap()[0]), [2.0 * x[0] + 1.0, 3.0]);
                }
            });
        }
    });
    assert_eq!(session.stats().unwrap(), json!({"runs": 8_000}));
}

#[test]
fn a_run_that_was_stopped_ends_long_before_its_time() {
    let session = load("stopped", json!({"delay_ms": FOREVER_MS})).unwrap();
    let (stop, started) = (Stop::default(), Instant::now());
    let error = std::thread::scope(|scope| {
        let running = scope.spawn(|| session.run(&[Some(f32s(&[1], &[1.0]))], &[0], Control { stop: Some(&stop), ..Control::default() }));
        stop.raise(Cause::Cancelled);
        running.join().unwrap().unwrap_err()
    });
    assert!(error.is(Reason::ClientCancelled), "{error:?}");
    assert!(started.elapsed() < Duration::from_millis(FOREVER_MS / 10));
}

#[test]
fn a_deadline_ends_a_run_of_the_engines() {
    let file = model("deadline");
    let engine = Engine::new(Settings::default(), added(&[sample()]).unwrap());
    engine.load(ModelSpec { runtime: "sample".into(), ..spec(&file.0, json!({"delay_ms": FOREVER_MS})) }).unwrap();
    let x = f32s(&[1], &[1.0]).into_owned();
    let request = |deadline| Request {
        model: "m".into(),
        inputs: [Input { name: "x".into(), tensor: x.clone() }].into_iter().collect(),
        deadline: Some(deadline),
        ..Request::default()
    };
    let error = engine.infer(request(Instant::now() + Duration::from_millis(20))).unwrap_err();
    assert!(error.is(Reason::Deadline), "{error:?}");
}

#[test]
fn a_thousand_loads_leave_no_session_behind() {
    let file = model("thousand");
    let engine = Arc::new(Engine::new(Settings::default(), added(&[sample()]).unwrap()));
    for _ in 0..1_000 {
        engine.load(ModelSpec { runtime: "sample".into(), ..spec(&file.0, json!({})) }).unwrap();
        engine.unload("m", "1").unwrap();
    }
    assert!(engine.models().is_empty());
}
