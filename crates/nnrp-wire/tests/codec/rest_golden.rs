//! The vectors, both directions.
use crate::vectors::{Vector, build_request, build_response, decode, expected, list, load, text};
use nnrp_wire::codec::rest::{Wanted, decode_error, decode_request, encode_error, encode_request, encode_response};
use serde_json::{Value, json};
use std::time::Instant;

fn canonical(vectors: Vec<Vector>, direction: &str) -> impl Iterator<Item = Vector> {
    vectors.into_iter().filter(move |vector| vector.document["canonical"] == true && vector.document["direction"] == direction)
}

#[test]
fn each_message_means_what_its_vector_says() {
    for vector in load("rest").iter().filter(|vector| vector.document["direction"] != "error") {
        let means = decode(vector).unwrap_or_else(|error| panic!("{}: {error:?}", vector.name));
        assert_eq!(means, expected(vector), "{}", vector.name);
    }
}

#[test]
fn each_canonical_request_is_what_a_client_writes() {
    for vector in canonical(load("rest"), "request") {
        let encoded = encode_request(&build_request(&vector.document["means"]), vector.json_size.is_some()).unwrap();
        let body = [encoded.json.clone()].into_iter().chain(encoded.tensors.clone()).flatten().collect::<Vec<u8>>();
        assert_eq!(String::from_utf8_lossy(&body), String::from_utf8_lossy(&vector.body), "{}", vector.name);
        assert_eq!((!encoded.tensors.is_empty()).then_some(encoded.json.len()), vector.json_size, "{}", vector.name);
    }
}

#[test]
fn each_canonical_response_is_what_a_server_writes() {
    for vector in canonical(load("rest"), "response") {
        let means = &vector.document["means"];
        let (outputs, binary): (Vec<Value>, Vec<bool>) = list(&means["outputs"])
            .map(|output| (json!({"name": output["name"], "parameters": {"binary_data": output["binary"] == true}}), output["binary"] == true))
            .unzip();
        let asking = json!({"inputs": [], "outputs": outputs}).to_string().into_bytes().into();
        let (_, wanted) = decode_request("m", "", &asking, None, Instant::now()).unwrap();
        let encoded = encode_response(&build_response(means), &wanted).unwrap();
        let body = [encoded.json.clone()].into_iter().chain(encoded.tensors.clone()).flatten().collect::<Vec<u8>>();
        assert_eq!(String::from_utf8_lossy(&body), String::from_utf8_lossy(&vector.body), "{}", vector.name);
        assert_eq!((!encoded.tensors.is_empty()).then_some(encoded.json.len()), vector.json_size, "{}", vector.name);
        if binary.iter().all(|binary| !binary) {
            assert_eq!(encoded, encode_response(&build_response(means), &Wanted::all(false)).unwrap(), "{}", vector.name);
        }
    }
}

#[test]
fn each_error_means_what_its_vector_says_and_is_written_so() {
    for vector in load("rest").iter().filter(|vector| vector.document["direction"] == "error") {
        let means = &vector.document["means"];
        let error = decode_error(means["http"].as_u64().unwrap() as u16, &vector.body);
        let mut details = means["details"].clone();
        if means["request_id"].is_string() {
            details["request_id"] = means["request_id"].clone();
        }
        let got = (error.code().name(), error.reason(), error.message(), Value::Object(error.details().clone()));
        assert_eq!(got, (text(&means["code"]), text(&means["reason"]), text(&means["message"]), details), "{}", vector.name);
        if vector.document["canonical"] == true {
            assert_eq!(u64::from(error.http()), means["http"].as_u64().unwrap(), "{}", vector.name);
            let fields = means["details"].as_object().unwrap().clone();
            let error = nnrp_core::NnrpError::from_wire(error.code(), error.reason(), error.message(), fields);
            assert_eq!(encode_error(&error, means["request_id"].as_str()), vector.body, "{}", vector.name);
        }
    }
}
