//! `ModelStreamInfer` (spec §4.8), from a client that sends what it likes.
use crate::grpc_support::{Answer, Peer, Script, ask, asked, framed, read, request};
use crate::support::{Gate, PATIENCE, engine, floats, load};
use bytes::{Buf, Bytes};
use http_body::Body;
use m::infer_parameter::ParameterChoice;
use nnrp_core::Engine;
use nnrp_core::schedule::Limits;
use nnrp_wire::codec::proto::messages as m;
use nnrp_wire::{Server, ServerSettings};
use prost::Message;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATH: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

pub(crate) fn serve(change: impl FnOnce(&mut ServerSettings)) -> (Server, Arc<Engine>, Gate) {
    let (engine, gate) = engine(Limits::default());
    ["each", "flood"].iter().for_each(|name| load(&engine, name, "1"));
    let mut settings = crate::grpc_support::settings();
    change(&mut settings);
    (Server::start(engine.clone(), settings).unwrap(), engine, gate)
}

/// Until so many requests of the endless model have ended for a reason.
pub(crate) fn until_ended(engine: &Engine, reason: &str, count: usize) {
    let model = engine.model("flood", "").unwrap();
    let begun = Instant::now();
    while model.metrics.snapshot()["failures"][reason] != count {
        assert!(begun.elapsed() < PATIENCE, "{reason}: {:?}", model.metrics.snapshot());
        std::thread::yield_now();
    }
}

/// How many answers it gave.
pub(crate) fn given(engine: &Engine) -> u64 {
    engine.model("flood", "").unwrap().metrics.snapshot()["streams"]["answer_count"].as_u64().unwrap()
}

fn with(id: &str, parameters: &[(&str, ParameterChoice)], asked: m::ModelInferRequest) -> Bytes {
    let parameter = |(name, value): &(&str, ParameterChoice)| ((*name).to_owned(), m::InferParameter { parameter_choice: Some(value.clone()) });
    framed(0, &m::ModelInferRequest { id: id.into(), parameters: parameters.iter().map(parameter).collect(), ..asked }.encode_to_vec())
}

fn streamed(peer: &Peer, headers: &[(&'static str, &str)], pieces: Vec<Bytes>) -> Answer {
    peer.send(PATH, headers, Script::of(pieces))
}

fn streamed_for_ever(peer: &Peer, pieces: Vec<Bytes>) -> Answer {
    peer.send(PATH, &[], Script::of(pieces).that_never_ends())
}

/// What came of one request: its id, whether it was the last, and its values or its error.
type Came = (String, bool, Result<Vec<f32>, (String, String)>);

fn came(answer: &Answer) -> Vec<Came> {
    let mut rest = answer.body.clone();
    let mut all = Vec::new();
    while rest.has_remaining() {
        assert_eq!(rest.get_u8(), 0);
        let length = rest.get_u32() as usize;
        let message = m::ModelStreamInferResponse::decode(rest.split_to(length)).unwrap();
        let inner = message.infer_response.unwrap();
        let parameter = |name: &str| inner.parameters[name].parameter_choice.clone().unwrap();
        let text = |name: &str| if let ParameterChoice::StringParam(text) = parameter(name) { text } else { panic!("{name} is no text") };
        let last = parameter("triton_final_response") == ParameterChoice::BoolParam(true);
        let values = inner.raw_output_contents.iter().flat_map(|raw| floats(raw)).collect();
        all.push((inner.id.clone(), last, if message.error_message.is_empty() { Ok(values) } else { Err((message.error_message, text("nnrp_reason"))) }));
    }
    all
}

fn refused(came: &Came, id: &str, reason: &str) {
    assert!(came.0 == id && came.1 && came.2.as_ref().unwrap_err().1 == reason, "{came:?}");
}

#[test]
fn each_answer_is_a_message_and_the_last_is_told_apart_where_that_is_wanted() {
    let (server, _engine, _gate) = serve(|_| ());
    let peer = Peer::to(&server);
    let answer = streamed(&peer, &[], vec![with("a", &[], ask("each", &[1.0, 2.0]))]);
    assert_eq!(came(&answer), [("a".to_owned(), false, Ok(vec![3.0])), ("a".to_owned(), false, Ok(vec![5.0]))]);
    assert_eq!((answer.status.code(), answer.headers["content-type"].as_bytes()), (tonic::Code::Ok, &b"application/grpc"[..]));
    let told = with("b", &[("triton_enable_empty_final_response", ParameterChoice::BoolParam(true))], ask("each", &[1.0]));
    assert_eq!(came(&streamed(&peer, &[], vec![told])), [("b".to_owned(), false, Ok(vec![3.0])), ("b".to_owned(), true, Ok(vec![]))]);
    assert!(came(&streamed(&peer, &[], vec![with("c", &[], ask("each", &[]))])).is_empty());
    assert!(came(&streamed(&peer, &[], vec![])).is_empty());
    peer.call("ModelInfer", &ask("each", &[1.0])).assert_error(12, "NOT_OFFERED");
}

#[test]
fn requests_with_one_answer_are_answered_in_order_and_streams_beside_them() {
    let (server, _engine, gate) = serve(|_| ());
    let peer = Peer::to(&server);
    let asked = vec![with("gate", &[], ask("gate", &[1.0])), with("double", &[], ask("double", &[2.0])), with("each", &[], ask("each", &[3.0, 4.0]))];
    let call = peer.start(request(PATH, &[], Script::of(asked)));
    peer.runtime.block_on(async {
        while gate.heard().is_none() {
            tokio::task::yield_now().await;
        }
    });
    gate.release();
    let all = came(&peer.runtime.block_on(call).unwrap());
    let single: Vec<&str> = all.iter().filter(|came| came.1).map(|came| &*came.0).collect();
    let streamed: Vec<&Came> = all.iter().filter(|came| came.0 == "each").collect();
    assert_eq!((single, streamed[0].2.as_ref().unwrap(), streamed[1].2.as_ref().unwrap()), (vec!["gate", "double"], &vec![7.0], &vec![9.0]));
    assert_eq!(all.len(), 4);
}

#[test]
fn an_error_is_told_with_its_request_and_the_call_goes_on() {
    let (server, _engine, _gate) = serve(|_| ());
    let peer = Peer::to(&server);
    let shape = m::ModelInferRequest { inputs: vec![], raw_input_contents: vec![], ..ask("double", &[]) };
    let all = came(&streamed(
        &peer,
        &[],
        vec![
            with("a", &[], ask("nope", &[1.0])),
            with("b", &[], shape),
            framed(0, b"\xff\xff"),
            with("c", &[("triton_x", ParameterChoice::BoolParam(true))], ask("double", &[1.0])),
            with("d", &[], ask("double", &[1.0])),
        ],
    ));
    for (came, (id, reason)) in all.iter().zip([("a", "MODEL_NOT_FOUND"), ("b", "MISSING_INPUT"), ("", "MALFORMED"), ("c", "INVALID_PARAMETER")]) {
        refused(came, id, reason);
    }
    assert_eq!(all[4..], [("d".to_owned(), true, Ok(vec![3.0]))]);
    let all = came(&streamed(&peer, &[], vec![with("e", &[], ask("each", &[1.0, f32::NAN, 2.0]))]));
    assert_eq!(all[0], ("e".to_owned(), false, Ok(vec![3.0])));
    refused(&all[1], "e", "RUN_FAILED");
    assert_eq!(all.len(), 2);
}

#[test]
fn an_error_is_the_status_of_the_call_where_that_is_wanted() {
    let (server, engine, _gate) = serve(|_| ());
    let peer = Peer::to(&server);
    let asked = vec![with("b", &[], ask("flood", &[1.0])), with("a", &[], ask("each", &[1.0, f32::NAN]))];
    let answer = streamed(&peer, &[("triton_grpc_error", "true")], asked);
    assert_eq!(answer.assert_error(2, "RUN_FAILED")["runtime"], "\"tiny\"");
    assert!(came(&answer).iter().all(|came| came.2.is_ok()));
    until_ended(&engine, "CLIENT_CANCELLED", 1);
}

#[test]
fn what_is_no_message_ends_the_call_and_what_it_had() {
    let (server, engine, _gate) = serve(|settings| settings.max_body_bytes = 1000);
    let peer = Peer::to(&server);
    let garbage = [(&b"\x07garbage"[..], "MALFORMED"), (b"\0\0\0\x03\xe9", "BODY_TOO_LARGE"), (b"\0\0\0", "MALFORMED"), (b"\x01\0\0\0\0", "MALFORMED")];
    for (count, (garbage, reason)) in garbage.into_iter().enumerate() {
        let answer = streamed(&peer, &[], vec![asked("flood", &[1.0]), Bytes::from_static(garbage)]);
        answer.assert_error(3, reason);
        until_ended(&engine, "CLIENT_CANCELLED", count + 1);
    }
    assert!(peer.call("ServerLive", &m::ServerLiveRequest {}).message::<m::ServerLiveResponse>().live);
    let (server, _engine, _gate) = serve(|settings| settings.read_timeout = Duration::from_millis(50));
    let hangs = Script::of([asked("double", &[1.0; 100]).slice(..50)]).that_never_ends();
    Peer::to(&server).send(PATH, &[], hangs).assert_error(3, "MALFORMED");
}

#[test]
fn a_client_that_does_not_read_costs_a_few_answers_and_is_given_up() {
    let (server, engine, gate) = serve(|settings| settings.write_timeout = Duration::from_millis(50));
    let peer = Peer::that_reads_slowly(&server);
    let mut sender = peer.sender.clone();
    let call = request(PATH, &[], Script::of([asked("flood", &vec![1.0; 1 << 18])]).that_never_ends());
    let unread = peer.runtime.block_on(async { sender.send_request(call).await.unwrap() });
    // The connection is driven and the answer is not read.
    peer.runtime.block_on(async {
        while gate.heard().is_none() {
            tokio::task::yield_now().await;
        }
    });
    drop(unread);
    until_ended(&engine, "CLIENT_CANCELLED", 1);
    assert!((1..=16).contains(&given(&engine)), "{} answers of 1 MB", given(&engine));
}

#[test]
fn answers_that_wait_for_their_turn_count_as_unread() {
    let (server, engine, _gate) = serve(|settings| settings.max_unread_bytes = 10 << 20);
    let peer = Peer::that_reads_slowly(&server);
    let mut sender = peer.sender.clone();
    let large = vec![1.0; 1 << 20];
    let call = request(PATH, &[], Script::of(["a", "b", "c", "d"].map(|id| with(id, &[], ask("echo", &large)))));
    let unread = peer.runtime.block_on(async { sender.send_request(call).await.unwrap() });
    let metrics = &engine.model("echo", "").unwrap().metrics;
    // The connection is driven and the answers are not read.
    peer.runtime.block_on(async {
        while metrics.snapshot()["success_count"] != 4 {
            tokio::task::yield_now().await;
        }
    });
    let other = Peer::to(&server);
    for _ in 0..2 {
        assert!(other.call("ServerLive", &m::ServerLiveRequest {}).message::<m::ServerLiveResponse>().live);
    }
    let answer = peer.runtime.block_on(async { tokio::time::timeout(PATIENCE, read(unread)).await.unwrap() });
    let all = came(&answer);
    assert!(all[..2].iter().all(|came| came.2.as_ref().is_ok_and(|values| values.len() == 1 << 20)));
    refused(&all[2], "c", "UNREAD_ANSWERS");
    refused(&all[3], "d", "UNREAD_ANSWERS");
}

#[test]
fn a_client_that_leaves_stops_its_streams() {
    let (server, engine, _gate) = serve(|_| ());
    let peer = Peer::to(&server);
    let begin = || {
        let mut sender = peer.sender.clone();
        let call = request(PATH, &[], Script::of([asked("flood", &[1.0])]));
        peer.runtime.block_on(async {
            let mut body = sender.send_request(call).await.unwrap().into_body();
            assert!(poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await.unwrap().unwrap().is_data());
            body
        })
    };
    drop(begin());
    assert!(peer.call("ServerLive", &m::ServerLiveRequest {}).message::<m::ServerLiveResponse>().live);
    until_ended(&engine, "CLIENT_CANCELLED", 1);
    let _body = begin();
    drop(peer);
    until_ended(&engine, "CLIENT_CANCELLED", 2);
}

#[test]
fn deadlines_of_the_call_and_of_a_request_are_kept() {
    let (server, engine, _gate) = serve(|_| ());
    let peer = Peer::to(&server);
    streamed(&peer, &[("grpc-timeout", "500m")], vec![asked("flood", &[1.0])]).assert_error(4, "DEADLINE");
    until_ended(&engine, "DEADLINE", 1);
    let timeout = [("timeout", ParameterChoice::Int64Param(500_000))];
    let all = came(&streamed(&peer, &[], vec![with("a", &timeout, ask("flood", &[1.0])), with("b", &[], ask("double", &[1.0]))]));
    refused(all.last().unwrap(), "a", "DEADLINE");
    assert!(all.contains(&("b".to_owned(), true, Ok(vec![3.0]))));
    until_ended(&engine, "DEADLINE", 2);
}

#[test]
fn so_many_requests_of_one_call_are_taken_and_no_more_until_some_are_answered() {
    let (server, engine, gate) = serve(|_| ());
    let peer = Peer::to(&server);
    let model = engine.model("gate", "").unwrap();
    let call = peer.start(request(PATH, &[], Script::of((0..300).map(|id| with(&id.to_string(), &[], ask("gate", &[1.0]))))));
    peer.runtime.block_on(async {
        while model.schedule.waiting() < 128 - Limits::default().workers {
            tokio::task::yield_now().await;
        }
        for _ in 0..1000 {
            assert!(model.schedule.waiting() <= 128);
            tokio::task::yield_now().await;
        }
    });
    (0..300).for_each(|_| gate.release());
    let all = came(&peer.runtime.block_on(call).unwrap());
    assert!(all.iter().map(|came| came.0.parse::<usize>().unwrap()).eq(0..300));
}

#[test]
fn a_call_that_asks_nothing_ends_with_the_idle_timeout_and_one_that_waits_for_its_answer_does_not() {
    let (server, _engine, gate) = serve(|settings| settings.idle_timeout = Duration::from_secs(1));
    let peer = Peer::to(&server);
    let waiting = peer.start(request(PATH, &[], Script::of([with("a", &[], ask("gate", &[1.0]))]).that_never_ends()));
    streamed_for_ever(&peer, vec![]).assert_error(1, "CLIENT_CANCELLED");
    let answer = streamed_for_ever(&peer, vec![with("b", &[], ask("each", &[1.0]))]);
    assert_eq!(came(&answer), [("b".to_owned(), false, Ok(vec![3.0]))]);
    answer.assert_error(1, "CLIENT_CANCELLED");
    assert!(!waiting.is_finished());
    gate.release();
    let answer = peer.runtime.block_on(waiting).unwrap();
    assert_eq!(came(&answer), [("a".to_owned(), true, Ok(vec![3.0]))]);
    answer.assert_error(1, "CLIENT_CANCELLED");
}

#[test]
fn a_request_that_comes_slowly_is_not_idle() {
    let (server, _engine, _gate) = serve(|settings| settings.idle_timeout = Duration::from_secs(1));
    let message = with("a", &[], ask("double", &[1.0]));
    let pieces = message.chunks(message.len().div_ceil(10)).map(Bytes::copy_from_slice);
    let answer = Peer::to(&server).send(PATH, &[], Script::of(pieces).that_pauses(Duration::from_millis(250)));
    assert_eq!(came(&answer), [("a".to_owned(), true, Ok(vec![3.0]))]);
}

#[test]
fn an_answer_that_waits_for_the_one_before_it_drops_nobody() {
    let (server, _engine, gate) = serve(|settings| settings.write_timeout = Duration::from_millis(50));
    let peer = Peer::to(&server);
    let call = peer.start(request(PATH, &[], Script::of([with("a", &[], ask("gate", &[1.0])), with("b", &[], ask("double", &[1.0]))])));
    peer.runtime.block_on(async {
        while gate.heard().is_none() {
            tokio::task::yield_now().await;
        }
    });
    // The server looks often enough to drop two that do not read, one after the other.
    for _ in 0..2 {
        let other = Peer::that_never_reads(&server);
        let mut sender = other.sender.clone();
        let unread = request(PATH, &[], Script::of([with("", &[], ask("double", &[1.0]))]));
        let _unread = other.runtime.block_on(async { sender.send_request(unread).await.unwrap() });
        other.runtime.block_on(async {
            while !sender.is_closed() {
                tokio::task::yield_now().await;
            }
        });
    }
    gate.release();
    let answer = peer.runtime.block_on(call).unwrap();
    assert_eq!(came(&answer).iter().map(|came| came.0.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(answer.status.code(), tonic::Code::Ok);
}

#[test]
fn calls_of_the_services_beside_it_that_say_nothing_end_too() {
    let (server, _engine, _gate) = serve(|settings| {
        settings.idle_timeout = Duration::from_secs(1);
        settings.read_timeout = Duration::from_millis(50);
    });
    let peer = Peer::to(&server);
    let silent = |path: &str| peer.send(path, &[], Script::of(Vec::<Bytes>::new()).that_never_ends());
    silent("/grpc.health.v1.Health/Check").assert_error(3, "MALFORMED");
    silent("/grpc.health.v1.Health/Watch").assert_error(3, "MALFORMED");
    silent("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo").assert_error(1, "CLIENT_CANCELLED");
}

#[test]
fn a_server_that_stops_answers_what_it_has_and_ends_the_call() {
    let (server, _engine, gate) = serve(|_| ());
    let peer = Peer::to(&server);
    let call = peer.start(request(PATH, &[], Script::of([with("a", &[], ask("gate", &[1.0]))]).that_never_ends()));
    peer.runtime.block_on(async {
        while gate.heard().is_none() {
            tokio::task::yield_now().await;
        }
    });
    let stopper = std::thread::spawn(move || server.stop(PATIENCE));
    gate.release();
    let answer = peer.runtime.block_on(call).unwrap();
    assert_eq!(came(&answer), [("a".to_owned(), true, Ok(vec![3.0]))]);
    answer.assert_error(14, "DRAINING");
    drop(peer);
    stopper.join().unwrap();
}
