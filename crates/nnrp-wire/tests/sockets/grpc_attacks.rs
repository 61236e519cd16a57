//! What is not gRPC, or means harm: a typed error or a closed connection, and the server lives on.
use crate::grpc_support::{Peer, Script, asked, framed, serve_both};
use crate::support::PATIENCE;
use nnrp_wire::Server;
use nnrp_wire::codec::proto::messages as m;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;

fn assert_lives(server: &Server) {
    assert!(Peer::to(server).call("ServerLive", &m::ServerLiveRequest {}).message::<m::ServerLiveResponse>().live);
}

#[test]
fn every_attack_vector_gets_its_error_over_the_wire() {
    let (server, _gate) = serve_both();
    let peer = Peer::to(&server);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../spec/vectors/attacks/grpc");
    for entry in std::fs::read_dir(folder).unwrap() {
        let vector: Value = serde_json::from_slice(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap();
        let part = |part: &Value| hex::decode(part["hex"].as_str().unwrap()).unwrap().repeat(part["times"].as_u64().unwrap() as usize);
        let message: Vec<u8> = vector["message"].as_array().unwrap().iter().flat_map(part).collect();
        // A smaller limit than the server's belongs to the codec's own test.
        if vector["limit"] == 64 << 20 {
            let reason = vector["reason"].as_str().unwrap();
            peer.infer(&[], Script::of([framed(0, &message)])).assert_error(if reason == "NOT_OFFERED" { 12 } else { 3 }, reason);
        }
    }
    assert_lives(&server);
}

#[test]
fn frames_that_are_not_one_message_are_malformed() {
    let (server, _gate) = serve_both();
    let peer = Peer::to(&server);
    let good = asked("double", &[1.0, 2.0]);
    let twice = [&good[..], &good[..]].concat();
    let longer = |length: u32| [&[0][..], &length.to_be_bytes(), &good[5..]].concat();
    let bodies: Vec<Vec<Vec<u8>>> = vec![
        vec![],
        vec![vec![]],
        vec![vec![0]],
        vec![good[..4].to_vec()],
        vec![good[..good.len() - 1].to_vec()],
        vec![twice.clone()],
        vec![good.to_vec(), good.to_vec()],
        vec![longer(good.len() as u32)],
        vec![longer(60 << 20)],
        vec![framed(2, &good[5..]).to_vec()],
        vec![framed(255, &good[5..]).to_vec()],
    ];
    for body in bodies {
        peer.infer(&[], Script::of(body)).assert_error(3, "MALFORMED");
    }
    assert!(peer.infer(&[], Script::of([good])).status.code() == tonic::Code::Ok);
}

#[test]
fn another_content_type_or_method_is_refused_as_http_and_as_grpc() {
    let (server, _gate) = serve_both();
    let peer = Peer::to(&server);
    for content_type in ["application/json", "application/grpc-web", "application/grpc+json", "", "text/plain"] {
        let answer = peer.infer(&[("content-type", content_type)], Script::of([asked("double", &[1.0])]));
        answer.assert_error(3, "UNSUPPORTED_MEDIA_TYPE");
        assert_eq!(answer.http, 415);
    }
    for content_type in ["application/grpc+proto", "application/grpc;charset=utf-8", "application/grpc+proto;x=y"] {
        assert_eq!(peer.infer(&[("content-type", content_type)], Script::of([asked("double", &[1.0])])).http, 200);
    }
}

#[test]
fn small_methods_take_small_messages_only() {
    let (server, _gate) = serve_both();
    let name = m::ModelReadyRequest { name: "x".repeat(100_000), version: String::new() };
    Peer::to(&server).call("ModelReady", &name).assert_error(3, "BODY_TOO_LARGE");
}

#[test]
fn bytes_that_are_not_http2_close_their_own_connection_only() {
    let (server, _gate) = serve_both();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let endless_frame = [&preface[..], &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1], &[0; 64]].concat();
    let settings_of_five = [&preface[..], &[0, 0, 5, 4, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5]].concat();
    let data_on_stream_0 = [&preface[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0], &[0, 0, 1, 0, 0, 0, 0, 0, 0, 7]].concat();
    let bad_hpack = [&preface[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0], &[0, 0, 2, 1, 5, 0, 0, 0, 1, 0xff, 0xff]].concat();
    let attacks: [&[u8]; 8] = [
        b"GET /v2 HTTP/1.1\r\nhost: t\r\n\r\n",
        b"POST /v2/models/double/infer HTTP/1.1\r\nhost: t\r\ncontent-length: 2\r\n\r\n{}",
        &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
        &[0; 1_000],
        &endless_frame,
        &settings_of_five,
        &data_on_stream_0,
        &bad_hpack,
    ];
    for attack in attacks {
        let mut stream = TcpStream::connect(server.grpc_address().unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(attack).unwrap();
        // A reset, however early, is as good an end as any.
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.len() < 1_000);
        assert_lives(&server);
    }
}

#[test]
fn headers_without_end_close_the_connection_before_they_take_memory() {
    let (server, _gate) = serve_both();
    let mut stream = TcpStream::connect(server.grpc_address().unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    // HEADERS without END_HEADERS, then CONTINUATION after CONTINUATION of indexed fields.
    stream.write_all(&[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82]).unwrap();
    let continuation = [&[0, 0x40, 0, 9, 0, 0, 0, 0, 1][..], &[0x82; 0x4000]].concat();
    let refused = (0..10_000).any(|_| stream.write_all(&continuation).is_err());
    assert!(refused);
    assert_lives(&server);
}

#[test]
fn streams_that_are_opened_and_reset_for_ever_harm_nobody_else() {
    let (server, _gate) = serve_both();
    let peer = Peer::to(&server);
    let reset = async {
        for _ in 0..20_000 {
            if peer.sender.is_closed() {
                return;
            }
            let mut sender = peer.sender.clone();
            let call =
                tokio::spawn(
                    async move { sender.send_request(crate::grpc_support::request("/x/y", &[], Script::of([vec![0]]).that_never_ends())).await.map(drop) },
                );
            tokio::task::yield_now().await;
            call.abort();
        }
    };
    peer.runtime.block_on(async { tokio::time::timeout(PATIENCE, reset).await }).unwrap();
    assert_lives(&server);
}
