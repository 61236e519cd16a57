//! Connections on which nothing is asked: closed in time, and missed by nobody.
use crate::grpc_support::{self, Peer, Script, asked, framed, request};
use crate::support::{BODY, GATE, INFER, Told, Wire, post, serve, settings};
use http_body::Body;
use nnrp_core::{Datatype, Input, Request, Tensor};
use nnrp_wire::codec::proto::messages as m;
use nnrp_wire::{Client, ServerSettings};
use prost::Message;
use std::future::poll_fn;
use std::io::Read;
use std::pin::Pin;
use std::time::Duration;
use tonic_health::pb::HealthCheckRequest;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn impatient() -> ServerSettings {
    ServerSettings { idle_timeout: Duration::from_millis(800), ..grpc_support::settings() }
}

/// Waits for as long as a connection may be idle.
fn outlast_an_idle_one(server: &nnrp_wire::Server) {
    Wire::to(server).assert_closed();
}

#[test]
fn an_idle_connection_is_closed_and_one_that_waits_for_its_answer_is_not() {
    let (server, gate) = serve(impatient());
    let mut running = Wire::to(&server);
    running.send(post(GATE, "", BODY));
    assert_eq!(gate.next(), Told::Started);
    for _ in 0..3 {
        outlast_an_idle_one(&server);
    }
    gate.release();
    assert_eq!(running.reply().status, 200);
    running.assert_closed();
}

#[test]
fn idle_connections_make_room_for_others() {
    let (server, _gate) = serve(ServerSettings { max_connections: 2, ..impatient() });
    let _strangers = [Wire::open(server.grpc_address().unwrap()), Wire::to(&server)];
    assert_eq!(Wire::to(&server).post(INFER, "", BODY).status, 200);
    assert_eq!(Peer::to(&server).call("ServerLive", &m::ServerLiveRequest {}).http, 200);
}

#[test]
fn a_head_that_came_along_with_another_request_and_never_ends_is_given_up() {
    let (server, _gate) = serve(ServerSettings { read_timeout: Duration::from_millis(50), ..settings() });
    let mut wire = Wire::to(&server);
    wire.send([&post(INFER, "", BODY)[..], b"GET /v2 HT"].concat());
    assert_eq!(wire.reply().status, 200);
    wire.assert_closed();
}

#[test]
fn a_grpc_connection_without_calls_is_closed_however_far_it_came() {
    let (server, _gate) = serve(impatient());
    let streams = [&PREFACE[..0], &PREFACE[..10], &PREFACE[..24], PREFACE].map(|said| {
        let mut wire = Wire::open(server.grpc_address().unwrap());
        wire.send(said);
        wire.stream
    });
    for mut stream in streams {
        // What it says at parting does not matter.
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
}

#[test]
fn a_grpc_connection_with_a_call_or_a_watch_lives_on() {
    let (server, gate) = serve(impatient());
    let peer = Peer::to(&server);
    let call = peer.start(request("/inference.GRPCInferenceService/ModelInfer", &[], Script::of([asked("gate", &[1.0])])));
    let other = Peer::to(&server);
    let watch = request("/grpc.health.v1.Health/Watch", &[], Script::of([framed(0, &HealthCheckRequest::default().encode_to_vec())]));
    let mut sender = other.sender.clone();
    let mut statuses = other.runtime.block_on(async { sender.send_request(watch).await.unwrap().into_body() });
    peer.runtime.block_on(async {
        while gate.heard().is_none() {
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..3 {
        outlast_an_idle_one(&server);
    }
    gate.release();
    assert_eq!(peer.runtime.block_on(call).unwrap().status.code(), tonic::Code::Ok);
    other.runtime.block_on(async {
        let first = poll_fn(|cx| Pin::new(&mut statuses).poll_frame(cx)).await;
        assert!(first.unwrap().unwrap().is_data());
        assert!(!sender.is_closed());
    });
}

#[test]
fn clients_do_not_notice_that_their_connection_was_closed() {
    let (server, _gate) = serve(impatient());
    let tensor = || Tensor::from_values(Datatype::Fp32, &[1], vec![1f32]);
    let ask = || Request { model: "double".into(), inputs: [Input { name: "x".into(), tensor: tensor() }].into_iter().collect(), ..Request::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for url in [format!("http://{}", server.http_address().unwrap()), format!("grpc://{}", server.grpc_address().unwrap())] {
        let client = Client::connect(&url).unwrap();
        for _ in 0..2 {
            client.infer(ask()).unwrap();
            runtime.block_on(client.infer_async(ask())).unwrap();
            outlast_an_idle_one(&server);
        }
    }
}
