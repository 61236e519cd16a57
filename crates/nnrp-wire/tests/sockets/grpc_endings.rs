//! Calls that end before their answer: deadlines, resets, clients that go away, a server that stops.
use crate::grpc_support::{Answer, Peer, Script, ask, asked, request, serve_both, serve_with};
use crate::support::{Gate, PATIENCE, Told};
use http_body::Body;
use nnrp_wire::codec::proto::messages as m;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tonic_health::pb::HealthCheckResponse;
use tonic_health::pb::health_check_response::ServingStatus;

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
    let answer = Peer::to(&server).infer(&[("grpc-timeout", "3S")], Script::of([asked("gate", &[1.0])]));
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
        crate::grpc_support::framed(0, &prost::Message::encode_to_vec(&request))
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
    let half = || Script::of([asked("double", &[1.0; 100]).slice(..50)]).that_never_ends();
    // The other of the two is far away.
    for (pause, deadline, code, reason) in [(60_000, "10m", 4, "DEADLINE"), (50, "1M", 3, "MALFORMED")] {
        let (server, _gate) = serve_with(|settings| settings.read_timeout = Duration::from_millis(pause));
        Peer::to(&server).infer(&[("grpc-timeout", deadline)], half()).assert_error(code, reason);
    }
}

#[test]
fn a_full_queue_is_resource_exhausted() {
    let (server, gate) = crate::support::serve_narrowly(crate::grpc_support::settings());
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
    server.begin_to_stop(PATIENCE);
    // Until nothing is in flight it says that it lives and is not ready, on connections old and new.
    for peer in [&peer, &Peer::to(&server)] {
        assert!(peer.call("ServerLive", &m::ServerLiveRequest {}).message::<m::ServerLiveResponse>().live);
        assert!(!peer.call("ServerReady", &m::ServerReadyRequest {}).message::<m::ServerReadyResponse>().ready);
        let health = peer.send("/grpc.health.v1.Health/Check", &[], Script::of([crate::grpc_support::framed(0, b"")]));
        assert_eq!(health.message::<HealthCheckResponse>().status, ServingStatus::NotServing as i32);
        peer.infer(&[], Script::of([asked("double", &[1.0])])).assert_error(14, "DRAINING");
        let stream = peer.send("/inference.GRPCInferenceService/ModelStreamInfer", &[], Script::of([asked("double", &[1.0])]));
        stream.assert_error(14, "DRAINING");
    }
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

#[test]
fn what_is_not_answered_within_the_grace_is_told_so() {
    let (server, gate) = serve_both();
    let peer = Peer::to(&server);
    let call = at_the_gate(&peer, &gate);
    let stopper = std::thread::spawn(move || server.stop(Duration::from_millis(20)));
    peer.runtime.block_on(call).unwrap().assert_error(14, "DRAINING");
    assert_eq!(gate.next(), Told::Stopped);
    stopper.join().unwrap();
}

#[test]
fn a_client_that_never_opens_its_window_is_dropped() {
    let (server, _gate) = serve_with(|settings| settings.write_timeout = Duration::from_millis(50));
    let peer = Peer::that_reads_slowly(&server);
    let mut sender = peer.sender.clone();
    let call = request("/inference.GRPCInferenceService/ModelInfer", &[], Script::of([asked("double", &vec![1.0; 4 << 20])]));
    let _unread = peer.runtime.block_on(async { sender.send_request(call).await.unwrap() });
    peer.runtime.block_on(async {
        while !peer.sender.is_closed() {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_client_that_reads_only_what_it_asks_for_later_is_dropped() {
    let (server, _gate) = serve_with(|settings| settings.write_timeout = Duration::from_millis(50));
    let peer = Peer::to(&server);
    let mut sender = peer.sender.clone();
    let call = request("/inference.GRPCInferenceService/ModelInfer", &[], Script::of([asked("double", &vec![1.0; 4 << 20])]));
    let _unread = peer.runtime.block_on(async { sender.send_request(call).await.unwrap() });
    let live = || request("/inference.GRPCInferenceService/ServerLive", &[], Script::of([crate::grpc_support::framed(0, b"")]));
    let begun = Instant::now();
    while peer.runtime.block_on(async { sender.send_request(live()).await.is_ok() }) {
        assert!(begun.elapsed() < PATIENCE);
    }
}

#[test]
fn a_client_whose_windows_are_shut_from_the_start_is_dropped() {
    let (server, _gate) = serve_with(|settings| settings.write_timeout = Duration::from_millis(50));
    for method in ["ModelInfer", "ModelStreamInfer"] {
        let peer = Peer::that_never_reads(&server);
        let mut sender = peer.sender.clone();
        let call = request(&format!("/inference.GRPCInferenceService/{method}"), &[], Script::of([asked("double", &[1.0])]));
        let _unread = peer.runtime.block_on(async { sender.send_request(call).await.unwrap() });
        peer.runtime.block_on(async {
            while !peer.sender.is_closed() {
                tokio::task::yield_now().await;
            }
        });
    }
}

#[test]
fn a_server_that_stops_lets_a_slow_reader_read_to_the_end() {
    let (server, _gate) = serve_both();
    let peer = Peer::that_reads_slowly(&server);
    let mut stranger = crate::support::Wire::open(server.grpc_address().unwrap());
    stranger.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    let mut sender = peer.sender.clone();
    let call = request("/inference.GRPCInferenceService/ModelInfer", &[], Script::of([asked("double", &vec![1.0; 4 << 20])]));
    let mut body = peer.runtime.block_on(async { sender.send_request(call).await.unwrap().into_body() });
    let stopper = std::thread::spawn(move || server.stop(PATIENCE));
    // The server has given up on one that never answers its goodbye.
    std::io::Read::read_to_end(&mut stranger.stream, &mut Vec::new()).unwrap();
    let mut size = 0;
    let ended = peer.runtime.block_on(async {
        loop {
            match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.expect("trailers").unwrap().into_data() {
                Ok(data) => size += data.len(),
                Err(trailers) => return trailers.into_trailers().unwrap(),
            }
        }
    });
    assert_eq!(ended["grpc-status"], "0");
    assert!(size > 16 << 20);
    drop(peer);
    stopper.join().unwrap();
}
