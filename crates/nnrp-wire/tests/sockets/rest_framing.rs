//! Where one request ends and the next begins, whatever was put together or cut on its way (spec §4.7).
use crate::support::{BODY, INFER, Wire, post, serve, settings};
use crate::vectors::{load, text};
use nnrp_core::Reason;

#[test]
fn every_attack_on_the_framing_gets_its_answers() {
    let (server, _gate) = serve(settings());
    for vector in load("attacks/http") {
        let mut wire = Wire::to(&server);
        wire.send(&vector.body);
        for expected in vector.document["answers"].as_array().unwrap() {
            let (reply, status) = (wire.reply(), expected["http"].as_u64().unwrap());
            assert_eq!(u64::from(reply.status), status, "{}: {reply:?}", vector.name);
            if let Some(reason) = expected["reason"].as_str() {
                let error = reply.assert_error(reply.status, text(&expected["code"]), reason);
                for (key, value) in expected["details"].as_object().into_iter().flatten() {
                    assert_eq!(&error["details"][key], value, "{}: {error}", vector.name);
                }
                assert!(Reason::from_name(reason).is_some());
            }
        }
        if vector.document["closes"] == true {
            wire.assert_closed();
        } else {
            assert_eq!(wire.post(INFER, "", BODY).status, 200, "{}", vector.name);
        }
    }
}

#[test]
fn a_head_that_cannot_be_read_has_the_requests_own_id_in_its_error() {
    let (server, _gate) = serve(settings());
    let mut wire = Wire::to(&server);
    let reply = wire.send("POST /v2 HTTP/1.1\r\nhost: t\r\nX-Request-Id: mine\r\ncontent-length: -1\r\n\r\n").reply();
    assert_eq!(reply.assert_error(400, "INVALID_ARGUMENT", "MALFORMED")["request_id"], "mine");
}

#[test]
fn an_older_client_needs_no_host() {
    let (server, _gate) = serve(settings());
    assert_eq!(Wire::to(&server).send("GET /v2 HTTP/1.0\r\n\r\n").reply().status, 200);
}

#[test]
fn a_thousand_requests_in_one_piece_are_answered_in_order() {
    let (server, _gate) = serve(settings());
    let mut wire = Wire::to(&server);
    let body = |value: usize| format!(r#"{{"id":"{value}","inputs":[{{"name":"x","datatype":"FP32","shape":[1],"data":[{value}]}}]}}"#);
    let chunked = |value: usize| {
        let body = body(value);
        format!("POST {INFER} HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).into_bytes()
    };
    let all: Vec<u8> = (0..1_000).flat_map(|value| if value % 3 == 0 { chunked(value) } else { post(INFER, "", body(value)) }).collect();
    wire.send(all);
    for value in 0..1_000 {
        assert_eq!(wire.reply().json()["id"], value.to_string());
    }
}
