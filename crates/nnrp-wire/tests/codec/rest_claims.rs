//! What no vector can say.
use bytes::Bytes;
use nnrp_core::tensor::{Datatype, Tensor, push_bytes_element};
use nnrp_core::{Code, Input, NnrpError, Output, Parameter, Reason, Request, Response};
use nnrp_wire::codec::rest::{Wanted, decode_error, decode_request, decode_response, encode_error, encode_request, encode_response};
use serde_json::Value;
use smallvec::smallvec;
use std::borrow::Cow;
use std::time::{Duration, Instant};

fn response(datatype: Datatype, bytes: Vec<u8>) -> Response {
    let count = if datatype == Datatype::Bytes { 1 } else { bytes.len() * 8 / datatype.bits() };
    let tensor = Tensor::shared(datatype, &[count as i64], bytes.into());
    Response { model: "m".into(), version: "1".into(), id: None, outputs: smallvec![Output { name: "y".into(), tensor }] }
}

#[test]
fn binary_tensors_are_parts_of_the_body_and_names_too() {
    let head = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}],"outputs":[{"name":"y"}]}"#;
    let body = Bytes::from([head.as_bytes(), &[0, 0, 128, 63]].concat());
    let (request, _) = decode_request("m", "", &body, Some(head.len()), Instant::now()).unwrap();
    assert_eq!(request.inputs[0].tensor.bytes().as_ptr(), body[head.len()..].as_ptr());
    assert!(matches!(request.inputs[0].name, Cow::Borrowed("x")));
    assert!(matches!(request.outputs[0], Cow::Borrowed("y")));
}

#[test]
fn minus_zero_is_the_zero_of_every_integer() {
    let read = |datatype: &str, data: &str| {
        let body = format!(r#"{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":[2],"data":[{data}]}}]}}"#).into();
        decode_request("m", "", &body, None, Instant::now()).map(|(request, _)| request.inputs[0].tensor.bytes().to_vec())
    };
    for (datatype, size) in [("UINT8", 1), ("UINT16", 2), ("UINT32", 4), ("UINT64", 8), ("INT8", 1), ("INT64", 8)] {
        let expected = [vec![0; size], [vec![1], vec![0; size - 1]].concat()].concat();
        assert_eq!(read(datatype, "-0,1").unwrap(), expected, "{datatype}");
        for wrong in ["-,1", "-01,1", "-0.5,1", "-0e1,1", "--0,1", "-0-0,1"] {
            assert_eq!(read(datatype, wrong).unwrap_err().code(), Code::InvalidArgument, "{datatype} {wrong}");
        }
    }
    assert!(read("UINT8", "-1,1").unwrap_err().is(Reason::ValueOutOfRange));
}

#[test]
fn elements_out_of_json_are_aligned() {
    let body = Bytes::from_static(br#"{"inputs":[{"name":"x","datatype":"FP64","shape":[1],"data":[1]}]}"#);
    let (request, _) = decode_request("m", "", &body, None, Instant::now()).unwrap();
    assert!((request.inputs[0].tensor.bytes().as_ptr() as usize).is_multiple_of(8));
}

#[test]
fn an_output_that_json_cannot_say_is_refused_by_name_and_goes_as_binary() {
    let mut not_utf8 = Vec::new();
    push_bytes_element(&mut not_utf8, &[0xff]);
    let cases = [
        (Datatype::Fp32, [1.0, f32::NAN].iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>(), Reason::ValueOutOfRange),
        (Datatype::Fp64, f64::NEG_INFINITY.to_le_bytes().to_vec(), Reason::ValueOutOfRange),
        (Datatype::Bytes, not_utf8, Reason::ValueOutOfRange),
        (Datatype::Fp16, vec![0, 60], Reason::DatatypeMismatch),
        (Datatype::Int4, vec![0x21], Reason::DatatypeMismatch),
    ];
    for (datatype, bytes, reason) in cases {
        let response = response(datatype, bytes.clone());
        let error = encode_response(&response, &Wanted::all(false)).unwrap_err();
        assert!(error.is(reason), "{error:?}");
        assert_eq!(error.details()["output"], "y");
        assert!(error.message().contains("binary"), "{error}");
        assert_eq!(encode_response(&response, &Wanted::all(true)).unwrap().tensors[0], bytes);
    }
}

#[test]
fn the_error_of_an_element_says_which_input_which_element_and_what_was_got() {
    let body = Bytes::from_static(br#"{"inputs":[{"name":"pixels","datatype":"UINT8","shape":[2,2],"data":[[1,2],[3,300]]}]}"#);
    let error = decode_request("m", "", &body, None, Instant::now()).err().unwrap();
    assert_eq!(error.message(), "input 'pixels': element 3 of UINT8: expected a whole number within its range, got '300'");
    assert_eq!((&error.details()["input"], &error.details()["index"]), (&Value::from("pixels"), &Value::from(3)));
}

#[test]
fn an_error_of_the_structure_says_where_in_the_message_it_is() {
    let body = Bytes::from_static(br#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1]},{"name":"y","shape":"1"}]}"#);
    let error = decode_request("m", "", &body, None, Instant::now()).err().unwrap();
    assert_eq!(error.message(), "inputs[1].shape: not the JSON that belongs here, at byte 85: expected array but found string");
    assert_eq!(error.details()["path"], "inputs[1].shape");
}

#[test]
fn an_error_repeats_little_of_a_long_text() {
    let body = Bytes::from(format!(r#"{{"inputs":[{{"name":"{0}","datatype":"{0}","shape":[1],"data":["{0}"]}}]}}"#, "n".repeat(100_000)));
    let error = decode_request("m", "", &body, None, Instant::now()).err().unwrap();
    assert!(encode_error(&error, None).len() < 1_000);
}

#[test]
fn every_reason_comes_back_from_the_wire_as_it_was() {
    for reason in Reason::ALL {
        let error = NnrpError::new(*reason, "where: expected \"a\", got 'b'\n").with("input", "x").with("expected", vec![1, 2]);
        let back = decode_error(error.http(), &encode_error(&error, None));
        assert_eq!((back.code(), back.reason(), back.message(), back.details()), (error.code(), error.reason(), error.message(), error.details()));
        assert_eq!(back.http(), error.http());
    }
}

#[test]
fn a_foreign_error_has_the_code_of_its_status() {
    let codes =
        [(400, Code::InvalidArgument), (422, Code::InvalidArgument), (401, Code::Unauthenticated), (404, Code::NotFound), (429, Code::ResourceExhausted)];
    let more = [(500, Code::RuntimeFailure), (501, Code::Unimplemented), (502, Code::Unavailable), (503, Code::Unavailable), (504, Code::DeadlineExceeded)];
    for (status, code) in codes.into_iter().chain(more) {
        for body in [&br#"{"error":"no"}"#[..], br#"{"detail":[{"loc":["body"]}]}"#, b"<html>", b"", b"[1]", b"{\"error\":1}", &[0xff; 300]] {
            let error = decode_error(status, body);
            assert_eq!(error.code(), code);
            assert!(!error.message().is_empty());
        }
    }
}

#[test]
fn a_deadline_travels_as_a_timeout() {
    let deadline_after = |request: &Request<'_, 'static>| {
        let encoded = encode_request(request, false).unwrap();
        let received = Instant::now();
        let (mut back, _) = decode_request("m", "", &encoded.json, None, received).unwrap();
        back.settle(received + Duration::from_secs(1)).unwrap();
        back.deadline.map(|deadline| deadline - received)
    };
    let request = Request { model: "m".into(), deadline: Some(Instant::now() + Duration::from_secs(5)), ..Request::default() };
    let left = deadline_after(&request).unwrap();
    assert!(left <= Duration::from_secs(5) && left > Duration::from_secs(4), "{left:?}");
    let late = Request { deadline: Some(Instant::now()), ..request.clone() };
    assert!(deadline_after(&late).is_some(), "a deadline that has passed is not none");
    let said = Request { parameters: vec![("timeout".to_owned(), Parameter::Int(7))], ..request };
    assert_eq!(deadline_after(&said), Some(Duration::from_micros(7)), "no name is written twice");
}

#[test]
fn a_request_that_json_cannot_say_is_refused_by_name() {
    let tensor = Tensor::from_values(Datatype::Fp32, &[1], vec![f32::INFINITY]);
    let request = Request { inputs: smallvec![Input { name: "x".into(), tensor }], ..Request::default() };
    let error = encode_request(&request, false).unwrap_err();
    assert!(error.is(Reason::ValueOutOfRange) && error.details()["input"] == "x", "{error:?}");
    let request = Request { parameters: vec![("p".to_owned(), Parameter::Double(f64::NAN))], ..Request::default() };
    assert!(encode_request(&request, false).unwrap_err().is(Reason::InvalidParameter));
}

#[test]
fn a_response_of_nothing_but_json_has_no_header() {
    let encoded = encode_response(&response(Datatype::Uint8, vec![1, 2]), &Wanted::default()).unwrap();
    assert!(encoded.tensors.is_empty());
    assert_eq!(decode_response(&encoded.json, None).unwrap().outputs[0].tensor.bytes(), [1, 2]);
}
