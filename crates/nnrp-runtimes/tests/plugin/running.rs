//! What a plug-in gives for a run is checked, ended once whatever becomes of it, and wrong answers name runtime and output.
use super::{leaving_nothing, load_bad, one_output, told};
use crate::common::{f32s, run, values};
use nnrp_core::{Cause, Control, NnrpError, Outputs, Parameter, Reason, Result, Stop};
use serde_json::{Value, json};

fn answer(outputs: &Value, does: &str) -> Result<Outputs> {
    let session = load_bad(&told(outputs, &json!({})), does)?;
    let all: Vec<usize> = (0..session.info().signature.outputs.len()).collect();
    run(&*session, &[Some(f32s(&[2], &[1.0, 2.0]))], &all)
}

fn refused(outputs: &Value, does: &str) -> NnrpError {
    let mut error = None;
    leaving_nothing(|| error = answer(outputs, does).err());
    error.unwrap_or_else(|| panic!("{does} was taken"))
}

fn of_datatype(datatype: &str, shape: Value) -> Value {
    json!([{"name": "y", "datatype": datatype, "shape": shape}])
}

#[test]
fn a_good_answer_is_taken() {
    leaving_nothing(|| assert_eq!(values(&answer(&one_output(), "").unwrap()[0]), [3.0, 5.0]));
}

#[test]
fn every_wrong_tensor_is_an_error_that_names_runtime_and_output() {
    for (does, says) in [
        ("null_tensor", "expected a tensor of its own, got NULL"),
        ("no_pointer", "expected a tensor of its own, got a pointer that is not aligned"),
        ("null_data", "tensor.data: expected 8 bytes, got NULL"),
        ("other_dlpack", "tensor: expected DLPack 1, got DLPack 2"),
        ("foreign_device", "expected memory of the CPU (DLPack device 1), got device 2"),
        ("lanes", "expected one lane, got 4"),
        ("other_datatype", "expected datatype FP32, got FP64"),
        ("no_datatype", "no datatype is DLPack's code 200 of 32 bits"),
        ("claims_datatype", "expected its tensor to be INT64, got FP32"),
        ("claims_no_datatype", "no datatype has number 77"),
        ("claims_shape", "expected its tensor to have shape [1], got [2]"),
        ("rank_2", "expected shape [-1], got [2, 1]"),
        ("negative_dim", "shape [-2] has a negative dimension or too many elements"),
        ("huge_dim", "shape [9223372036854775807] has a negative dimension or too many elements"),
        ("null_shape", "tensor.shape: expected a pointer, got NULL"),
        ("many_dims", "expected 0 to 64 dimensions, got 65"),
        ("negative_ndim", "expected 0 to 64 dimensions, got -1"),
        ("strides_outside", "strides [9223372036854775807] reach past the end of memory"),
        ("strides_repeat", "its C-contiguous copy of 4398046511104 bytes is too large"),
        ("byte_offset", "byte_offset 18446744073709551615 runs past the end of memory"),
        ("half_offset", "byte_offset 9223372036854775808 runs past the end of memory"),
        ("no_owner_huge", "expected elements that there is memory to copy, got 140737488355328 bytes"),
        ("misaligned", "expected elements aligned to 4 bytes, got an address that is not"),
    ] {
        let error = refused(&one_output(), does);
        assert!(error.is(Reason::RunFailed), "{does}: {error:?}");
        let message = error.message().replace("'y': ", "'y' ").replace("'y' ", "'y': ");
        assert_eq!(message, format!("runtime bad: output 'y': {says}"), "{does}");
        assert_eq!((&error.details()["runtime"], error.details().get("output").or(error.details().get("argument")).is_some()), (&json!("bad"), true), "{does}");
    }
}

#[test]
fn an_answer_is_checked_against_the_signature_and_its_elements_too() {
    for (outputs, does, says) in [
        (of_datatype("FP32", json!([3])), "", "expected shape [3], got [2]"),
        (of_datatype("FP32", json!([])), "", "expected shape [], got [2]"),
        (of_datatype("INT64", Value::Null), "", "expected datatype INT64, got FP32"),
        (of_datatype("BOOL", json!([-1])), "bool_2", "element 1 of BOOL: expected 0 or 1, got 2"),
        (of_datatype("BYTES", json!([])), "bytes_long", "the length of BYTES element 0 runs past the end of its 6 bytes"),
        (of_datatype("BYTES", json!([])), "", "expected datatype BYTES, got FP32"),
    ] {
        assert_eq!(refused(&outputs, does).message(), format!("runtime bad: output 'y': {says}"));
    }
    leaving_nothing(|| assert_eq!(answer(&of_datatype("BYTES", json!([])), "bytes").unwrap()[0].bytes(), b"\x02\0\0\0hi"));
}

#[test]
fn outputs_that_are_missing_or_given_twice_are_refused() {
    let two = json!([{"name": "a", "datatype": "FP32", "shape": [-1]}, {"name": "b", "datatype": "FP32", "shape": [-1]}]);
    assert_eq!(refused(&two, "first_only").message(), "runtime bad: output 'b': expected a tensor of its own, got NULL");
    assert_eq!(refused(&two, "twice").message(), "runtime bad: output 'b': expected a tensor of its own, got the tensor of an output before it");
    leaving_nothing(|| assert_eq!(answer(&two, "").unwrap().len(), 2));
}

#[test]
fn elements_may_lie_anywhere_and_belong_to_anyone() {
    for (does, expected) in [
        ("strides_back", vec![5.0, 3.0]),
        ("offset", vec![5.0]),
        ("no_elements", vec![]),
        ("no_owner", vec![3.0, 5.0]),
        ("input_back", vec![1.0, 2.0]),
        ("input_memory", vec![1.0, 2.0]),
    ] {
        // Kept beyond the inputs and the session.
        leaving_nothing(|| assert_eq!(values(&answer(&one_output(), does).unwrap()[0]), expected, "{does}"));
    }
}

#[test]
fn a_failed_run_is_an_error_of_the_table_with_the_plug_ins_words() {
    for (does, reason, says) in [
        ("says_nothing", "RUN_FAILED", "runtime bad: run failed and said nothing of it"),
        ("status_77", "RUN_FAILED", "runtime bad: seventy-seven"),
        ("status_minus_1", "RUN_FAILED", "runtime bad: run failed and said nothing of it"),
        ("our_defect", "RUN_FAILED", "runtime bad: blames the host"),
        ("tells_a_path", "RUN_FAILED", "runtime bad: in …"),
        ("busy", "QUEUE_FULL", "runtime bad: all beads are in use"),
        ("fails_at_last", "RUN_FAILED", "runtime bad: after all"),
    ] {
        let error = refused(&one_output(), does);
        assert_eq!((error.reason(), error.message()), (reason, says));
    }
    let unterminated = refused(&one_output(), "unterminated");
    assert!(unterminated.is(Reason::RunFailed) && unterminated.message().starts_with("runtime bad: aaaa"));
    assert_eq!(refused(&one_output(), "status_77").details()["runtime_code"], 77);
}

#[test]
fn a_run_is_told_its_requests_id_and_parameters() {
    let parameters = [("beam".to_owned(), Parameter::Int(4)), ("voice".to_owned(), Parameter::String("low".to_owned()))];
    for (control, says) in [
        (Control::default(), "runtime bad: id NULL, parameters NULL"),
        (Control { id: Some("a-1"), parameters: &parameters, ..Control::default() }, r#"runtime bad: id a-1, parameters {"beam":4,"voice":"low"}"#),
    ] {
        for streams in [false, true] {
            let session = load_bad(&told(&one_output(), &json!({"streams": streams})), "tells_its_request").unwrap();
            let error = session.stream(&[Some(f32s(&[1], &[1.0]))], &[0], control, &mut |_| Ok(())).unwrap_err();
            assert_eq!(error.message(), says);
        }
    }
}

#[test]
fn a_run_that_cannot_look_is_cancelled_by_a_call() {
    let session = load_bad(&told(&one_output(), &json!({"cancellable": true})), "waits_for_cancel").unwrap();
    for raised_before in [false, true] {
        let stop = Stop::default();
        std::thread::scope(|scope| {
            if raised_before {
                stop.raise(Cause::Deadline);
            }
            let running = scope.spawn(|| session.run(&[Some(f32s(&[1], &[1.0]))], &[0], Control { stop: Some(&stop), ..Control::default() }));
            stop.raise(Cause::Cancelled);
            assert!(running.join().unwrap().unwrap_err().is(Reason::RunFailed));
        });
    }
}

#[test]
fn an_exclusive_session_is_called_by_one_thread_at_a_time() {
    let session = load_bad(&told(&one_output(), &json!({"exclusive": true})), "wants_to_be_alone").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..20).for_each(|_| assert!(run(&*session, &[Some(f32s(&[1], &[1.0]))], &[0]).is_ok())));
        }
    });
}
