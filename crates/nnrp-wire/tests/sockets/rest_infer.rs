//! Inference over REST: bodies in every form and size, and bodies that are wrong.
use crate::support::{BODY, INFER, Wire, binary, floats, post, serve, settings};
use flate2::Compression;
use flate2::read::{GzDecoder, GzEncoder, ZlibDecoder, ZlibEncoder};
use serde_json::json;
use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

#[test]
fn json_is_answered_with_json() {
    let (server, _gate) = serve(settings());
    let mut wire = Wire::to(&server);
    let body = BODY.replacen('{', r#"{"id":"seven","#, 1);
    let reply = wire.post(INFER, "content-type: application/json\r\n", body);
    assert_eq!(reply.status, 200);
    let output = json!({"name": "y", "datatype": "FP32", "shape": [2], "data": [3.0, 5.0]});
    let answer = reply.json();
    assert_eq!((&answer["model_name"], &answer["model_version"], &answer["id"]), (&json!("double"), &json!("2"), &json!("seven")));
    assert_eq!(answer["outputs"], json!([output]));
    assert_eq!(wire.post("/v2/models/double/versions/1/infer/", "", BODY).json()["model_version"], "1");
}

#[test]
fn tensors_go_both_ways_in_binary() {
    let (server, _gate) = serve(settings());
    let mut wire = Wire::to(&server);
    for count in [1, 3, 16, 5_000, 150_528] {
        let x: Vec<f32> = (0..count).map(|i| i as f32).collect();
        let (header, body) = binary(&x);
        let reply = wire.post(INFER, &header, body);
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/octet-stream")));
        let json_size: usize = reply.header("inference-header-content-length").unwrap().parse().unwrap();
        let y: Vec<f32> = x.iter().map(|x| x * 2.0 + 1.0).collect();
        assert_eq!(floats(&reply.body[json_size..]), y);
    }
}

#[test]
fn a_raw_body_is_the_one_input() {
    let (server, _gate) = serve(settings());
    let body: Vec<u8> = [1.0f32, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let reply = Wire::to(&server).post(INFER, "inference-header-content-length: 0\r\n", body);
    assert_eq!(reply.status, 200, "{reply:?}");
    let json_size: usize = reply.header("inference-header-content-length").unwrap().parse().unwrap();
    assert_eq!(floats(&reply.body[json_size..]), [3.0, 5.0]);
}

#[test]
fn content_types_that_clients_send_are_read_and_foreign_ones_are_not() {
    let (server, _gate) = serve(settings());
    let mut wire = Wire::to(&server);
    let read = [
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/x-www-form-urlencoded",
        "application/octet-stream",
        "application/vnd.api+json",
        "text/plain",
    ];
    for media in read {
        assert_eq!(wire.post(INFER, &format!("content-type: {media}\r\n"), BODY).status, 200, "{media}");
    }
    for media in ["text/xml", "multipart/form-data; boundary=x", "application/x-protobuf", "image/png"] {
        wire.post(INFER, &format!("content-type: {media}\r\n"), BODY).assert_error(415, "INVALID_ARGUMENT", "UNSUPPORTED_MEDIA_TYPE");
    }
    wire.post(INFER, "content-encoding: br\r\n", BODY).assert_error(415, "INVALID_ARGUMENT", "UNSUPPORTED_MEDIA_TYPE");
}

#[test]
fn wrong_sizes_of_the_json_part_are_malformed() {
    let (server, _gate) = serve(settings());
    let mut wire = Wire::to(&server);
    for size in ["abc", "-1", "", "1.5", "99999999999999999999999", "+5", "10000"] {
        wire.post(INFER, &format!("inference-header-content-length: {size}\r\n"), BODY).assert_error(400, "INVALID_ARGUMENT", "MALFORMED");
    }
    assert_eq!(wire.post(INFER, "", BODY).status, 200);
}

#[test]
fn what_is_no_message_is_malformed_and_the_connection_lives_on() {
    let (server, _gate) = serve(settings());
    let mut wire = Wire::to(&server);
    for body in ["", "{", "{}", "[1]", "nope", "\u{0}", &"[".repeat(100_000)] {
        wire.post(INFER, "", body).assert_error(400, "INVALID_ARGUMENT", "MALFORMED");
    }
    assert_eq!(wire.post(INFER, "", BODY).status, 200);
}

#[test]
fn chunked_bodies_of_any_size_are_read() {
    let (server, _gate) = serve(settings());
    let mut wire = Wire::to(&server);
    let (header, body) = binary(&vec![1.5; 100_000]);
    for piece in [1_000, 70_000, 1_000_000] {
        let mut request = format!("POST {INFER} HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n{header}\r\n").into_bytes();
        for chunk in body.chunks(piece) {
            request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            request.extend_from_slice(chunk);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"0\r\ntrailer: x\r\n\r\n");
        let reply = wire.send(request).reply();
        assert_eq!(reply.status, 200);
        assert!(reply.body.ends_with(&4.0f32.to_le_bytes()));
    }
}

#[test]
fn a_chunk_that_cannot_be_read_is_an_error() {
    let (server, _gate) = serve(settings());
    let mut wire = Wire::to(&server);
    wire.send(format!("POST {INFER} HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n"));
    wire.reply().assert_error(400, "INVALID_ARGUMENT", "MALFORMED");
    assert_eq!(Wire::to(&server).post(INFER, "", BODY).status, 200);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (server, _gate) = serve(settings());
    let mut wire = Wire::to(&server);
    let requests: Vec<u8> = (0..20).flat_map(|i| post(INFER, "", BODY.replacen('{', &format!(r#"{{"id":"{i}","#), 1))).collect();
    wire.send(requests);
    for i in 0..20 {
        assert_eq!(wire.reply().json()["id"], i.to_string());
    }
}

#[test]
fn a_client_that_asks_first_is_told_to_go_on() {
    let (server, _gate) = serve(settings());
    let mut wire = Wire::to(&server);
    wire.send(format!("POST {INFER} HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n", BODY.len()));
    assert_eq!(wire.head().status, 100);
    assert_eq!(wire.send(BODY).reply().status, 200);
}

#[test]
fn a_client_that_asks_first_with_too_much_is_refused_before_it_sends() {
    let (server, _gate) = serve(crate::support::settings());
    let mut wire = Wire::to(&server);
    wire.send(format!("POST {INFER} HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 99999999999\r\n\r\n"));
    wire.reply().assert_error(413, "INVALID_ARGUMENT", "BODY_TOO_LARGE");
}

#[test]
fn http_1_0_is_answered_and_closed() {
    let (server, _gate) = serve(settings());
    let mut wire = Wire::to(&server);
    wire.send(format!("POST {INFER} HTTP/1.0\r\ncontent-length: {}\r\n\r\n{BODY}", BODY.len()));
    assert_eq!(wire.reply().status, 200);
    wire.assert_closed();
}

#[test]
fn a_body_over_the_limit_is_refused_by_its_length_and_while_it_comes() {
    let (server, _gate) = serve(nnrp_wire::ServerSettings { max_body_bytes: 100_000, ..settings() });
    let large = vec![b' '; 3_000_000];
    let error = Wire::to(&server).post(INFER, "", &large).assert_error(413, "INVALID_ARGUMENT", "BODY_TOO_LARGE");
    assert_eq!((&error["details"]["limit"], &error["details"]["got"]), (&json!(100_000), &json!(3_000_000)));

    let mut wire = Wire::to(&server);
    wire.send(format!("POST {INFER} HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n", large.len()));
    wire.send(&large).reply().assert_error(413, "INVALID_ARGUMENT", "BODY_TOO_LARGE");
    wire.assert_closed();
    assert_eq!(Wire::to(&server).post(INFER, "", BODY).status, 200);
}

#[test]
fn compressed_bodies_are_read_within_the_limit() {
    let (server, _gate) = serve(nnrp_wire::ServerSettings { max_body_bytes: 1_000_000, ..settings() });
    let mut wire = Wire::to(&server);
    let mut gzip = Vec::new();
    GzEncoder::new(BODY.as_bytes(), Compression::default()).read_to_end(&mut gzip).unwrap();
    assert_eq!(wire.post(INFER, "content-encoding: gzip\r\n", &gzip).status, 200);
    let (header, body) = binary(&[1.0; 1000]);
    let mut zlib = Vec::new();
    ZlibEncoder::new(&body[..], Compression::default()).read_to_end(&mut zlib).unwrap();
    assert_eq!(wire.post(INFER, &format!("content-encoding: deflate\r\n{header}"), &zlib).status, 200);
    assert_eq!(wire.post(INFER, "content-encoding: identity\r\n", BODY).status, 200);

    let mut bomb = Vec::new();
    GzEncoder::new(std::io::repeat(b' ').take(1 << 30), Compression::fast()).take(900_000).read_to_end(&mut bomb).unwrap();
    wire.post(INFER, "content-encoding: gzip\r\n", &bomb).assert_error(413, "INVALID_ARGUMENT", "BODY_TOO_LARGE");
    wire.post(INFER, "content-encoding: gzip\r\n", BODY).assert_error(400, "INVALID_ARGUMENT", "MALFORMED");
    wire.post(INFER, "content-encoding: gzip\r\n", &gzip[..gzip.len() - 6]).assert_error(400, "INVALID_ARGUMENT", "MALFORMED");
    assert_eq!(wire.post(INFER, "", BODY).status, 200);
}

#[test]
fn long_json_answers_are_compressed_when_asked_for() {
    let (server, _gate) = serve(settings());
    let mut wire = Wire::to(&server);
    let body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1000], "data": vec![1.25; 1000]}]}).to_string();
    let plain = wire.post(INFER, "", &body);
    assert_eq!(plain.header("content-encoding"), None);
    let mut text = Vec::new();
    let gzip = wire.post(INFER, "accept-encoding: br, gzip, deflate\r\n", &body);
    assert_eq!(gzip.header("content-encoding"), Some("gzip"));
    GzDecoder::new(&gzip.body[..]).read_to_end(&mut text).unwrap();
    assert_eq!(text, plain.body);
    text.clear();
    let zlib = wire.post(INFER, "accept-encoding: gzip;q=0, deflate\r\n", &body);
    assert_eq!(zlib.header("content-encoding"), Some("deflate"));
    ZlibDecoder::new(&zlib.body[..]).read_to_end(&mut text).unwrap();
    assert_eq!(text, plain.body);
    assert_eq!(wire.post(INFER, "accept-encoding: gzip\r\n", BODY).header("content-encoding"), None);
}

#[test]
fn a_body_that_ends_early_is_the_clients_mistake_and_no_one_elses() {
    let (server, _gate) = serve(settings());
    let mut wire = Wire::to(&server);
    wire.send(format!("POST {INFER} HTTP/1.1\r\nhost: t\r\ncontent-length: 500\r\n\r\n{BODY}"));
    wire.stream.shutdown(std::net::Shutdown::Write).unwrap();
    let error = wire.reply().assert_error(400, "INVALID_ARGUMENT", "MALFORMED");
    assert_eq!(error["details"]["got"], BODY.len());
    assert_eq!(Wire::to(&server).post(INFER, "", BODY).status, 200);
}

#[test]
fn a_body_that_pauses_too_long_is_given_up() {
    let (server, _gate) = serve(nnrp_wire::ServerSettings { read_timeout: Duration::from_millis(50), ..settings() });
    let mut wire = Wire::to(&server);
    wire.send(format!("POST {INFER} HTTP/1.1\r\nhost: t\r\ncontent-length: 500\r\n\r\n{BODY}"));
    wire.reply().assert_error(400, "INVALID_ARGUMENT", "MALFORMED");
    wire.stream.shutdown(std::net::Shutdown::Write).unwrap();
    wire.assert_closed();
}

#[test]
fn a_head_that_drips_is_given_up() {
    let (server, _gate) = serve(nnrp_wire::ServerSettings { read_timeout: Duration::from_millis(100), ..settings() });
    let mut slow = Wire::to(&server);
    slow.stream.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    slow.send("GET /v2 HTTP/1.1\r\nx: ");
    let dripped =
        (0..1_000).take_while(|_| slow.stream.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock) && slow.stream.write_all(b"x").is_ok());
    assert!(dripped.count() < 1_000);
}

#[test]
fn a_head_that_never_ends_is_given_up_and_an_idle_connection_is_not() {
    let (server, _gate) = serve(nnrp_wire::ServerSettings { read_timeout: Duration::from_millis(50), ..settings() });
    let (mut idle, mut used) = (Wire::to(&server), Wire::to(&server));
    assert_eq!(used.get("/v2").status, 200);
    let mut slow = Wire::to(&server);
    slow.send("GET /v2 HT").assert_closed();
    assert_eq!(idle.get("/v2").status, 200);
    assert_eq!(used.get("/v2").status, 200);
}

#[test]
fn bytes_that_are_not_http_are_malformed() {
    let (server, _gate) = serve(settings());
    let twice = format!("POST {INFER} HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{BODY}");
    let lie = format!("POST {INFER} HTTP/1.1\r\nhost: t\r\ncontent-length: abc\r\n\r\n{BODY}");
    for bytes in ["\x16\x03\x01\x02\x00\x01\x00\x01\x7c", "GET / HTTP/9.9\r\n\r\n", "\r\n\r\n \r\n", "nonsense\r\n\r\n", &lie, &twice] {
        let mut wire = Wire::to(&server);
        wire.send(bytes).reply().assert_error(400, "INVALID_ARGUMENT", "MALFORMED");
        wire.assert_closed();
    }
    let many = format!("GET /v2 HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(500));
    Wire::to(&server).send(many).reply().assert_error(413, "INVALID_ARGUMENT", "BODY_TOO_LARGE");
    assert_eq!(Wire::to(&server).post(INFER, "", BODY).status, 200);
}

#[test]
fn an_answer_that_looks_like_the_librarys_own_refusal_goes_through_unchanged_however_slowly_it_is_read() {
    let (server, _gate) = serve(settings());
    let refusal = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\ndate: Sun, 22 Nov 2026 12:00:00 GMT\r\n\r\n";
    // A write of what is left begins somewhere within, so one of the shifts makes it begin like a refusal.
    for (shift, count) in (0..12).map(|shift| (shift, 700_000)).chain([(0, 1)]) {
        let mut text = ".".repeat(shift) + &"HTTP/1.1 400".repeat(count) + refusal;
        text += &".".repeat(4 - text.len() % 4);
        let (header, body) = binary(&floats(text.as_bytes()));
        let mut wire = Wire::to(&server);
        wire.send(post("/v2/models/echo/infer", &header, body));
        let reply = wire.reply();
        assert_eq!(reply.status, 200);
        assert!(reply.body.ends_with(text.as_bytes()));
        wire.send("nonsense\r\n\r\n").reply().assert_error(400, "INVALID_ARGUMENT", "MALFORMED");
    }
}

#[test]
fn what_cannot_be_read_behind_a_request_is_answered_after_it() {
    let (server, _gate) = serve(settings());
    let mut wire = Wire::to(&server);
    wire.send([&post(INFER, "", BODY)[..], b"nonsense\r\n\r\n"].concat());
    assert_eq!(wire.reply().status, 200);
    wire.reply().assert_error(400, "INVALID_ARGUMENT", "MALFORMED");
    wire.assert_closed();
}

#[test]
fn a_length_that_is_too_short_spoils_only_its_own_connection() {
    let (server, _gate) = serve(settings());
    let mut wire = Wire::to(&server);
    wire.send(format!("POST {INFER} HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\n\r\n{BODY}"));
    wire.reply().assert_error(400, "INVALID_ARGUMENT", "MALFORMED");
    wire.reply().assert_error(400, "INVALID_ARGUMENT", "MALFORMED");
    wire.assert_closed();
    assert_eq!(Wire::to(&server).post(INFER, "", BODY).status, 200);
}
