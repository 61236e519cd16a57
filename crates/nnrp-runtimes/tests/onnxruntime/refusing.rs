use super::{load, load_with};
use crate::common::{Scratch, corrupted, model, onnxruntime, spec, tells_no_path};
use nnrp_core::{Control, Datatype, NnrpError, Reason, Runtime, Tensor};
use serde_json::json;
use std::path::Path;

fn refused(path: &Path) -> NnrpError {
    onnxruntime().load(&spec(path, json!({}))).err().expect("the file is refused")
}

#[test]
fn a_file_that_is_not_there_is_not_found() {
    let error = refused(&std::env::temp_dir().join("no-such-folder/no-such.onnx"));
    assert!(error.is(Reason::FileNotFound), "{error:?}");
    tells_no_path(&error);
}

#[test]
fn a_folder_and_an_empty_file_are_no_models() {
    let empty = Scratch::new("empty.onnx", b"");
    for path in [std::env::temp_dir(), empty.0.clone()] {
        let error = refused(&path);
        assert!(error.is(Reason::InvalidModel), "{error:?}");
        tells_no_path(&error);
    }
}

#[test]
fn a_file_of_something_else_is_no_model() {
    for (name, bytes) in [("text", &b"hello, this is text\n"[..]), ("zeros", &[0; 4096]), ("ort", b"\x20\0\0\0ORTM garbage garbage garbage")] {
        let scratch = Scratch::new(&format!("{name}.onnx"), bytes);
        let error = refused(&scratch.0);
        assert!(error.is(Reason::InvalidModel), "{name}: {error:?}");
        assert_eq!(error.details()["runtime"], "onnxruntime");
        tells_no_path(&error);
    }
}

#[test]
fn a_truncated_model_is_refused_wherever_it_ends() {
    let whole = std::fs::read(model("double")).unwrap();
    for length in 1..whole.len() {
        let file = Scratch::new("truncated.onnx", &whole[..length]);
        // What is cut off at the end of the graph may be no more than the opset or the metadata.
        if let Err(error) = onnxruntime().load(&spec(&file.0, json!({}))) {
            assert!(error.is(Reason::InvalidModel), "{length}: {error:?} {:?}", error.details());
            tells_no_path(&error);
        } else {
            assert!(length > whole.len() / 2, "{length} of {} bytes are no model", whole.len());
        }
    }
}

#[test]
fn a_corrupt_model_never_crashes_and_its_error_tells_no_path() {
    for name in ["double", "loop", "described", "optional_output"] {
        let whole = std::fs::read(model(name)).unwrap();
        for bytes in corrupted(&whole, 150) {
            let file = Scratch::new("corrupt.onnx", &bytes);
            if let Err(error) = onnxruntime().load(&spec(&file.0, json!({}))) {
                let known = [Reason::InvalidModel, Reason::LoadFailed, Reason::NotOffered];
                assert!(known.iter().any(|&reason| error.is(reason)), "{error:?}");
                tells_no_path(&error);
            }
            let _never_panics = nnrp_runtimes::inspect(&file.0);
        }
    }
}

#[test]
fn weights_that_are_missing_are_a_file_that_is_not_found() {
    let error = load_with("external_missing", json!({})).err().unwrap();
    assert!(error.is(Reason::FileNotFound), "{error:?}");
    assert_eq!(error.details()["file"], "no-such-weights.bin");
    tells_no_path(&error);
}

#[test]
fn what_is_no_tensor_cannot_be_served() {
    let error = load_with("sequence", json!({})).err().unwrap();
    assert!(error.is(Reason::NotOffered), "{error:?}");
    assert!(error.message().contains("output 'y'") && error.message().contains("sequence"), "{error}");
}

#[test]
fn elements_that_no_runtime_here_has_are_refused() {
    let error = load_with("complex", json!({})).err().unwrap();
    assert!(error.is(Reason::InvalidModel) || error.is(Reason::NotOffered), "{error:?}");
    tells_no_path(&error);
}

#[test]
fn a_failed_run_tells_the_runtimes_code_and_text_and_no_path() {
    let session = load("add");
    let numbers = |count: i64| Some(Tensor::from_values(Datatype::Fp32, &[count], vec![1.0_f32; usize::try_from(count).unwrap()]));
    let error = session.run(&[numbers(2), numbers(3)], &[0], Control::default()).unwrap_err();
    assert!(error.is(Reason::RunFailed), "{error:?}");
    assert_eq!(error.details()["runtime"], "onnxruntime");
    assert!(error.details()["runtime_code"].as_i64() > Some(0));
    assert!(error.details()["runtime_code_name"].is_string());
    assert!(error.details()["runtime_message"].as_str().is_some_and(|text| text.contains("'/model/Add'")), "{:?}", error.details());
    tells_no_path(&error);
}
