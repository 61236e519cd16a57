//! Clients that ask for much and never read it: what a server keeps for them is bounded, and given back (spec §7.12).
use crate::grpc_support::{self, Peer, Script, asked, request};
use crate::support::{BODY, INFER, PATIENCE, Reply, Wire, binary, post, serve};
use http_body::Body;
use nnrp_wire::{Server, ServerSettings};
use std::future::poll_fn;
use std::io::Read;
use std::pin::Pin;
use std::time::{Duration, Instant};

/// Values of a large answer, which has more bytes than the system's buffers take.
const MANY: usize = 3 << 20;
const ANSWER: usize = MANY * 4;

/// Room for two of them.
fn narrow() -> ServerSettings {
    ServerSettings { max_unread_bytes: ANSWER * 5 / 2, ..grpc_support::settings() }
}

fn large() -> Vec<u8> {
    let (header, body) = binary(&vec![1.0; MANY]);
    post("/v2/models/echo/infer", &header, body)
}

/// Clients that have read the heads of their answers and nothing else, and those heads.
fn deaf(server: &Server, count: usize) -> Vec<(Wire, Reply)> {
    let asked = large();
    let ask = |_| {
        let mut wire = Wire::narrow(server.http_address().unwrap());
        wire.send(&asked);
        let head = wire.head();
        (wire, head)
    };
    (0..count).map(ask).collect()
}

#[test]
fn rest_answers_that_nobody_reads_are_bounded_and_small_ones_go_out() {
    let (server, _gate) = serve(narrow());
    let mut clients = deaf(&server, 5);
    assert_eq!(clients.iter().map(|(_, head)| head.status).collect::<Vec<u16>>(), [200, 200, 503, 503, 503]);
    assert_eq!(clients[2].1.header("retry-after"), Some("1"));
    // A connection that was refused lives on.
    let (refused, head) = &mut clients[2];
    refused.skip(head.header("content-length").unwrap().parse().unwrap());
    let error = refused.send(large()).reply();
    assert_eq!(error.assert_error(503, "RESOURCE_EXHAUSTED", "UNREAD_ANSWERS")["details"]["limit"], ANSWER * 5 / 2);
    assert_eq!(refused.post(INFER, "", BODY).status, 200);
    // One that reads makes room for another.
    let (reader, head) = &mut clients[0];
    reader.skip(head.header("content-length").unwrap().parse().unwrap());
    assert_eq!(deaf(&server, 1)[0].1.status, 200);
}

#[test]
fn what_the_unread_take_is_given_back_after_the_write_timeout() {
    let (server, _gate) = serve(ServerSettings { write_timeout: Duration::from_millis(300), ..narrow() });
    let mut clients = deaf(&server, 2);
    until(|| deaf(&server, 1)[0].1.status == 200);
    for (wire, _) in &mut clients {
        let mut rest = Vec::new();
        let ended = wire.stream.read_to_end(&mut rest);
        assert!(ended.is_err() || rest.len() < ANSWER, "{} of {ANSWER}", rest.len());
    }
}

/// Until it holds.
fn until(mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE);
    }
}

#[test]
fn a_status_may_say_that_one_client_is_to_slow_down() {
    let (server, _gate) = serve(ServerSettings { queue_full_status: 429, max_unread_bytes: 1, ..grpc_support::settings() });
    // What is larger than all the room has it while nobody else does.
    assert_eq!(deaf(&server, 2).iter().map(|(_, head)| head.status).collect::<Vec<u16>>(), [200, 429]);
}

#[test]
fn grpc_answers_that_nobody_reads_are_bounded_and_small_ones_go_out() {
    let (server, _gate) = serve(narrow());
    let asked_for = asked("echo", &vec![1.0; MANY]);
    let call = |method: &str| request(&format!("/inference.GRPCInferenceService/{method}"), &[], Script::of([asked_for.clone()]));
    let ask = |_| {
        let peer = Peer::that_reads_slowly(&server);
        let mut sender = peer.sender.clone();
        let (head, mut body) = peer.runtime.block_on(async { sender.send_request(call("ModelInfer")).await.unwrap() }).into_parts();
        if !head.headers.contains_key("grpc-status") {
            // The answer was made; its first bytes are all that is read.
            assert!(peer.runtime.block_on(async { poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.unwrap().unwrap().is_data() }));
        }
        (peer, head, body)
    };
    let clients: Vec<_> = (0..4).map(ask).collect();
    let status = |index: usize| clients[index].1.headers.get("grpc-status").map(|status| status.to_str().unwrap().to_owned());
    assert_eq!([0, 1, 2, 3].map(status), [None, None, Some("8".to_owned()), Some("8".to_owned())]);
    let peer = Peer::to(&server);
    peer.infer(&[], Script::of([asked_for.clone()])).assert_error(8, "UNREAD_ANSWERS");
    assert_eq!(peer.infer(&[], Script::of([asked("double", &[1.0])])).status.code(), tonic::Code::Ok);
    let strict = peer.send("/inference.GRPCInferenceService/ModelStreamInfer", &[("triton_grpc_error", "true")], Script::of([asked_for.clone()]));
    strict.assert_error(8, "UNREAD_ANSWERS");
    drop(clients);
    until(|| peer.infer(&[], Script::of([asked_for.clone()])).status.code() == tonic::Code::Ok);
}
