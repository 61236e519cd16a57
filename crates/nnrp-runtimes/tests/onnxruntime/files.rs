//! What ONNX Runtime writes when it is asked to: optimised models and traces.
use super::{load, load_with};
use crate::common::{Scratch, f32s, model, onnxruntime, run, spec, tells_no_path, values};
use nnrp_core::{Reason, Runtime, Session};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("nnrp-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn files(&self) -> Vec<PathBuf> {
        std::fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

fn kept_in(folder: &Folder, name: &str, more: Value) -> Box<dyn Session> {
    let mut options = json!({"optimized_model_cache": folder.0});
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    load_with(name, options).unwrap()
}

fn how(session: &dyn Session) -> &str {
    session.info().settings["optimized_model_cache"].as_str().unwrap()
}

fn doubled(session: &dyn Session) -> Vec<f32> {
    values(&run(session, &[Some(f32s(&[2], &[1.0, 2.0]))], &[0]).unwrap()[0])
}

#[test]
fn an_optimised_model_is_kept_and_read_again_with_the_same_answers() {
    let folder = Folder::new("kept");
    let (first, second) = (kept_in(&folder, "double", json!({})), kept_in(&folder, "double", json!({})));
    assert_eq!((how(&*first), how(&*second)), ("written", "read"));
    assert_eq!(doubled(&*first), doubled(&*load("double")));
    assert_eq!(doubled(&*second), doubled(&*first));
    assert_eq!(second.info().signature.inputs[0].symbols, first.info().signature.inputs[0].symbols);
    assert_eq!(second.info().settings["graph_optimization_level"], "all");
    assert_eq!(folder.files().len(), 1);
}

#[test]
fn other_options_and_other_models_are_kept_apart() {
    let folder = Folder::new("apart");
    assert_eq!(how(&*kept_in(&folder, "double", json!({}))), "written");
    assert_eq!(how(&*kept_in(&folder, "double", json!({"graph_optimization_level": "basic"}))), "written");
    assert_eq!(how(&*kept_in(&folder, "dynamic", json!({}))), "written");
    assert_eq!(folder.files().len(), 3);
}

#[test]
fn weights_beside_a_model_are_kept_beside_the_optimised_one() {
    let folder = Folder::new("weights");
    let x: Vec<f32> = (0..512_u16).map(f32::from).collect();
    let answer = |session: &dyn Session| values(&run(session, &[Some(f32s(&[512], &x))], &[0]).unwrap()[0]);
    let (first, second) = (kept_in(&folder, "external", json!({})), kept_in(&folder, "external", json!({})));
    assert_eq!((how(&*first), how(&*second)), ("written", "read"));
    assert_eq!(answer(&*second), answer(&*load("external")));
    assert_eq!(folder.files().len(), 2);
}

#[test]
fn other_weights_of_the_same_size_and_time_are_other_weights() {
    let (folder, models) = (Folder::new("other-weights"), Folder::new("models"));
    let (copy, weights) = (models.0.join("external.onnx"), models.0.join("weights.bin"));
    for file in [&copy, &weights] {
        std::fs::copy(model("external").with_file_name(file.file_name().unwrap()), file).unwrap();
    }
    let kept = || onnxruntime().load(&spec(&copy, json!({"optimized_model_cache": folder.0}))).unwrap();
    let answer = |session: &dyn Session| values(&run(session, &[Some(f32s(&[512], &[1.0; 512]))], &[0]).unwrap()[0]);
    let (first, was) = (kept(), std::fs::metadata(&weights).unwrap());
    let (was_kept, answered) = (how(&*first).to_owned(), answer(&*first));
    // It may read its weights where they lie.
    drop(first);
    std::fs::write(&weights, 1.0_f32.to_ne_bytes().repeat(was.len() as usize / 4)).unwrap();
    std::fs::File::options().write(true).open(&weights).unwrap().set_modified(was.modified().unwrap()).unwrap();
    let second = kept();
    assert_eq!((&*was_kept, how(&*second)), ("written", "written"));
    assert_ne!(answered, answer(&*second));
}

#[test]
fn a_kept_model_that_cannot_be_read_is_made_again() {
    let folder = Folder::new("again");
    kept_in(&folder, "double", json!({}));
    std::fs::write(&folder.files()[0], b"not a model").unwrap();
    let session = kept_in(&folder, "double", json!({}));
    assert_eq!((how(&*session), doubled(&*session).len()), ("written", 2));
    assert_eq!(how(&*kept_in(&folder, "double", json!({}))), "read");
}

#[test]
fn what_cannot_be_kept_is_refused_and_leaves_nothing_behind() {
    let folder = Folder::new("refused");
    let error = load_with("double", json!({"optimized_model_cache": folder.0.join("no such")})).err().unwrap();
    assert!(error.is(Reason::InvalidOption) && error.details()["path"] == "options.optimized_model_cache", "{error:?}");
    tells_no_path(&error);
    let corrupt = Scratch::new("corrupt.onnx", &std::fs::read(model("double")).unwrap()[..40]);
    assert!(onnxruntime().load(&spec(&corrupt.0, json!({"optimized_model_cache": folder.0}))).is_err());
    assert_eq!(folder.files(), [] as [&Path; 0]);
}

#[test]
fn a_profile_is_written_when_the_session_ends() {
    let folder = Folder::new("profile");
    let session = load_with("double", json!({"enable_profiling": true, "profile_file_prefix": folder.0.join("trace")})).unwrap();
    assert_eq!(session.info().settings["enable_profiling"], true);
    doubled(&*session);
    drop(session);
    let files = folder.files();
    assert!(files.len() == 1 && files[0].file_name().unwrap().to_str().unwrap().starts_with("trace"), "{files:?}");
    let trace: Value = serde_json::from_slice(&std::fs::read(&files[0]).unwrap()).unwrap();
    assert!(trace.as_array().unwrap().iter().any(|event| event["cat"] == "Node"));
}
