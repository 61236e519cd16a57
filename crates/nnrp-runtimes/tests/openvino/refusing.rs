use super::{load, load_with};
use crate::common::{Scratch, corrupted, file, openvino, spec, tells_no_path};
use nnrp_core::{Control, Datatype, NnrpError, Reason, Runtime, Tensor};
use serde_json::json;
use std::path::Path;

fn refused(path: &Path) -> NnrpError {
    openvino().load(&spec(path, json!({}))).err().expect("the file is refused")
}

#[test]
fn what_is_not_there_is_not_found_and_what_is_empty_is_no_model() {
    let error = refused(&std::env::temp_dir().join("no-such-folder/no-such.xml"));
    assert!(error.is(Reason::FileNotFound), "{error:?}");
    tells_no_path(&error);
    let empty = Scratch::new("empty.xml", b"");
    for path in [std::env::temp_dir(), empty.0.clone()] {
        let error = refused(&path);
        assert!(error.is(Reason::InvalidModel), "{error:?}");
        tells_no_path(&error);
    }
}

#[test]
fn a_format_that_the_runtime_does_not_read_is_named_with_those_that_it_reads() {
    for (name, bytes, format) in
        [("a.onnx", &b"GGUF\x03\0\0\0 and more"[..], "gguf"), ("b.tflite", b"7767517\n1 1\n", "ncnn"), ("c.xml", b"\x18\0\0\0ORTM\0\0\0\0", "ort")]
    {
        let scratch = Scratch::new(name, bytes);
        let error = refused(&scratch.0);
        assert!(error.is(Reason::NotOffered) && error.message().contains(format) && error.message().contains("openvino_ir"), "{error:?}");
        assert_eq!(error.details()["format"], format);
    }
}

#[test]
fn weights_that_are_missing_are_a_file_that_is_not_found() {
    let alone = Scratch::new("alone.xml", &std::fs::read(file("external.xml")).unwrap());
    for (error, missing) in [(load_with("external_missing", json!({})).err().unwrap(), "no-such-weights.bin"), (refused(&alone.0), "alone.bin")] {
        assert!(error.is(Reason::FileNotFound), "{error:?}");
        assert!(error.details()["file"].as_str().is_some_and(|file| file.ends_with(missing)), "{error:?}");
    }
}

#[test]
fn a_file_of_another_name_that_cannot_be_read_is_refused_and_leaves_no_link_behind() {
    let whole = std::fs::read(file("double.tflite")).unwrap();
    let scratch = Scratch::new("cut.onnx", &whole[..whole.len() / 2]);
    let whole_path = scratch.0.canonicalize().unwrap();
    let ours = |entry: &std::fs::DirEntry| entry.path().join("model.tflite").canonicalize().is_ok_and(|file| file == whole_path);
    let links = || std::fs::read_dir(std::env::temp_dir()).unwrap().flatten().filter(ours).count();
    let error = refused(&scratch.0);
    assert!(error.is(Reason::InvalidModel), "{error:?}");
    tells_no_path(&error);
    assert_eq!(links(), 0);
}

#[test]
fn weights_that_lie_in_no_file_beside_the_model_are_refused() {
    for (name, got) in [("outside", "outside its folder"), ("memory", "in the memory of the process"), ("folder", "in what is no file")] {
        for hidden in ["", "_hidden"] {
            let error = load_with(&format!("external_{name}{hidden}"), json!({})).err().unwrap();
            assert!(error.is(Reason::InvalidModel) && error.message().ends_with(got), "{error:?}");
        }
    }
}

#[test]
fn strings_and_any_rank_are_refused_before_they_can_do_harm() {
    for name in ["identity_BYTES", "split"] {
        let error = load_with(name, json!({})).err().unwrap();
        assert!(error.is(Reason::NotOffered) && error.message().contains("input 'x'") && error.message().contains("string"), "{error:?}");
    }
    let error = load_with("any_rank", json!({})).err().unwrap();
    assert!(error.is(Reason::NotOffered) && error.message().contains("options.shapes"), "{error:?}");
}

#[test]
fn what_openvino_has_not_is_not_offered() {
    for name in ["sequence", "optional_input", "optional_output", "unknown_operator", "complex"] {
        let error = load_with(name, json!({})).err().unwrap();
        assert!(error.is(Reason::NotOffered) || error.is(Reason::InvalidModel), "{name}: {error:?}");
        tells_no_path(&error);
    }
}

#[test]
fn a_failed_run_tells_the_runtimes_code_and_text_and_no_path() {
    let session = load("add");
    let numbers = |count: i64| Some(Tensor::from_values(Datatype::Fp32, &[count], vec![1.0_f32; usize::try_from(count).unwrap()]));
    let error = session.run(&[numbers(2), numbers(3)], &[0], Control::default()).unwrap_err();
    assert!(error.is(Reason::RunFailed), "{error:?}");
    assert_eq!(error.details()["runtime"], "openvino");
    assert!(error.details()["runtime_code"].as_i64() < Some(0));
    assert!(error.details()["runtime_message"].as_str().is_some_and(|text| !text.is_empty()), "{:?}", error.details());
    tells_no_path(&error);
    assert!(session.run(&[numbers(2), numbers(2)], &[0], Control::default()).is_ok(), "the session runs on");
}

#[test]
fn a_model_that_is_cut_off_or_corrupt_never_crashes_and_its_error_tells_no_path() {
    // Before, its reader of TFLite did not verify what it reads.
    let verifies = openvino().version().unwrap() >= "2026.4";
    for name in ["double.onnx", "loop.onnx", "double.xml", "double.tflite", "double.pb", "double.pdmodel"] {
        if name == "double.tflite" && !verifies {
            continue;
        }
        let whole = std::fs::read(file(name)).unwrap();
        let cut = (1..whole.len()).step_by(1 + whole.len() / 60).map(|length| whole[..length].to_vec());
        for bytes in cut.chain(corrupted(&whole, 60)) {
            let scratch = Scratch::new(&format!("corrupt-{name}"), &bytes);
            if let Err(error) = openvino().load(&spec(&scratch.0, json!({}))) {
                let known = [Reason::InvalidModel, Reason::LoadFailed, Reason::NotOffered, Reason::FileNotFound];
                assert!(known.iter().any(|&reason| error.is(reason)), "{error:?}");
                tells_no_path(&error);
            }
            let _never_panics = nnrp_runtimes::inspect(&scratch.0);
        }
    }
}
