//! Calls that end before their answer: deadlines, resets, clients that go away, a server that stops.
mod grpc_support;
mod support;
use grpc_support::{Answer, Peer, Script, ask, asked, request, serve_both, serve_with};
use nnrp_wire::codec::proto::messages as m;
use std::time::Duration;
use support::{Gate, PATIENCE, Told};
use tokio::task::JoinHandle;

fn gate_call() -> http::Request<Script> {
    request("/inference.GRPCInferenceService/ModelInfer", &[], Script::of([asked("gate", &[1.0])]))
}

/// Starts a run at the gate and returns the call that waits for it.
fn at_the_gate(peer: &Peer, gate: &Gate) -> JoinHandle<Answer> {
    let call = peer.start(gate_call());
    peer.runtime.block_on(async {
        while gate.heard().is_none() {
            tokio::task::yield_now().await;
        }
    });
    call
}

#[test]
fn a_deadline_in_the_header_ends_the_run_and_answers_deadline_exceeded() {
    let (server, gate) = serve_both();
    let answer = Peer::to(&server).infer(&[("grpc-timeout", "50m")], Script::of([asked("gate", &[1.0])]));
    answer.assert_error(4, "DEADLINE");
    assert_eq!([gate.next(), gate.next()], [Told::Started, Told::Stopped]);
}

#[test]
fn the_earlier_of_header_and_parameter_wins() {
    let (server, _gate) = serve_both();
    let peer = Peer::to(&server);
    let with_timeout = |micros| {
        let parameter = m::InferParameter { parameter_choice: Some(m::infer_parameter::ParameterChoice::Int64Param(micros)) };
        let request = m::ModelInferRequest { parameters: [("timeout".to_owned(), parameter)].into(), ..ask("gate", &[1.0]) };
        grpc_support::framed(0, &prost::Message::encode_to_vec(&request))
    };
    peer.infer(&[("grpc-timeout", "1H")], Script::of([with_timeout(50_000)])).assert_error(4, "DEADLINE");
    peer.infer(&[("grpc-timeout", "50m")], Script::of([with_timeout(3_600_000_000)])).assert_error(4, "DEADLINE");
}

#[test]
fn a_deadline_that_has_passed_never_reaches_the_runtime() {
    let (server, gate) = serve_both();
    Peer::to(&server).infer(&[("grpc-timeout", "0n")], Script::of([asked("gate", &[1.0])])).assert_error(4, "DEADLINE");
    assert_eq!(gate.heard(), None);
}

#[test]
fn a_timeout_that_cannot_be_read_is_malformed() {
    let (server, _gate) = serve_both();
    Peer::to(&server).infer(&[("grpc-timeout", "soon")], Script::of([asked("double", &[1.0])])).assert_error(3, "MALFORMED");
}

#[test]
fn a_reset_stream_stops_its_run_and_the_connection_lives_on() {
    let (server, gate) = serve_both();
    let peer = Peer::to(&server);
    let call = at_the_gate(&peer, &gate);
    call.abort();
    assert!(peer.call("ServerLive", &m::ServerLiveRequest {}).message::<m::ServerLiveResponse>().live);
    assert_eq!(gate.next(), Told::Stopped);
}

#[test]
fn a_closed_connection_stops_its_run() {
    let (server, gate) = serve_both();
    let peer = Peer::to(&server);
    let _call = at_the_gate(&peer, &gate);
    drop(peer);
    assert_eq!(gate.next(), Told::Stopped);
    assert!(Peer::to(&server).call("ServerLive", &m::ServerLiveRequest {}).message::<m::ServerLiveResponse>().live);
}

#[test]
fn a_message_that_stops_half_way_ends_with_the_deadline_or_the_pause() {
    let (server, _gate) = serve_with(|settings| settings.read_timeout = Duration::from_millis(50));
    let peer = Peer::to(&server);
    let half = || Script::of([asked("double", &[1.0; 100]).slice(..50)]).that_never_ends();
    peer.infer(&[("grpc-timeout", "10m")], half()).assert_error(4, "DEADLINE");
    peer.infer(&[], half()).assert_error(3, "MALFORMED");
}

#[test]
fn a_full_queue_is_resource_exhausted() {
    let (server, gate) = support::serve_narrowly(grpc_support::settings());
    let peer = Peer::to(&server);
    let _running = at_the_gate(&peer, &gate);
    let (mut first, mut second) = (peer.start(gate_call()), peer.start(gate_call()));
    let refused = peer.runtime.block_on(async {
        tokio::select! {
            answer = &mut first => answer,
            answer = &mut second => answer,
        }
    });
    refused.unwrap().assert_error(8, "QUEUE_FULL");
}

#[test]
fn a_server_that_stops_finishes_what_runs_and_takes_nothing_new() {
    let (server, gate) = serve_both();
    let peer = Peer::to(&server);
    let call = at_the_gate(&peer, &gate);
    let stopper = std::thread::spawn(move || server.stop(PATIENCE));
    gate.release();
    assert_eq!(peer.runtime.block_on(call).unwrap().status.code(), tonic::Code::Ok);
    peer.runtime.block_on(async {
        while !peer.sender.is_closed() {
            tokio::task::yield_now().await;
        }
    });
    stopper.join().unwrap();
}
