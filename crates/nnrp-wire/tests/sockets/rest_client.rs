//! The REST client against the server, and against servers that misbehave.
use crate::support::{Told, floats, serve, settings};
use nnrp_core::tensor::values_to_bytes;
use nnrp_core::{Cause, Code, Datatype, Input, Reason, Request, Stop, Tensor};
use nnrp_wire::{Client, Server};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn client(server: &Server) -> Client {
    Client::connect(&format!("http://{}", server.http_address().unwrap())).unwrap()
}

fn request(model: &str, x: Vec<f32>) -> Request<'_, 'static> {
    let tensor = Tensor::shared(Datatype::Fp32, &[x.len() as i64], values_to_bytes(x));
    Request { model: model.into(), inputs: [Input { name: "x".into(), tensor }].into_iter().collect(), ..Request::default() }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
fn a_client_infers_and_asks() {
    let (server, _gate) = serve(settings());
    let client = client(&server);
    for count in [0, 1, 16, 150_528] {
        let mut request = request("double", vec![3.0; count]);
        request.id = Some("seven".into());
        let response = client.infer(request).unwrap();
        assert_eq!((&*response.model, &*response.version, response.id.as_deref()), ("double", "2", Some("seven")));
        assert_eq!(floats(response.outputs[0].tensor.bytes()), vec![7.0; count]);
    }
    assert_eq!(client.server_metadata().unwrap()["name"], "nnrp");
    assert_eq!(client.model_metadata("double", "").unwrap()["versions"], json!(["1", "2"]));
    assert_eq!(client.index().unwrap()[0]["name"], "broken");
    assert!(client.server_live().unwrap() && client.server_ready().unwrap());
    assert!(client.model_ready("double", "1").unwrap());
    assert!(!client.model_ready("double", "9").unwrap() && !client.model_ready("a/../b", "").unwrap());
}

#[test]
fn the_servers_errors_arrive_as_they_were() {
    let (server, _gate) = serve(settings());
    let client = client(&server);
    let error = client.infer(request("nope", vec![1.0])).unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::NotFound, "MODEL_NOT_FOUND"));
    let mut wrong = request("double", vec![1.0]);
    wrong.inputs[0].name = "z".into();
    assert_eq!(client.infer(wrong).unwrap_err().code(), Code::InvalidArgument);
    let mut wrong = request("double", vec![1.0]);
    wrong.outputs.push("z".into());
    assert!(client.infer(wrong).unwrap_err().is(Reason::UnknownOutput));
    assert!(client.model_metadata("nope", "").unwrap_err().is(Reason::ModelNotFound));
}

#[test]
fn answers_come_asynchronously_and_many_at_once() {
    let (server, _gate) = serve(settings());
    let client = client(&server);
    let pending: Vec<_> = (0..40).map(|i| client.infer_async(request("double", vec![i as f32]))).collect();
    block_on(async {
        for (i, pending) in pending.into_iter().enumerate() {
            assert_eq!(floats(pending.await.unwrap().outputs[0].tensor.bytes()), [i as f32 * 2.0 + 1.0]);
        }
    });
}

#[test]
fn dropping_an_answer_cancels_its_run() {
    let (server, gate) = serve(settings());
    let client = client(&server);
    let pending = client.infer_async(request("gate", vec![1.0]));
    assert_eq!(gate.next(), Told::Started);
    drop(pending);
    assert_eq!(gate.next(), Told::Stopped);
}

#[test]
fn a_deadline_ends_the_call_and_the_run() {
    let (server, gate) = serve(settings());
    let client = client(&server);
    let mut late = request("gate", vec![1.0]);
    // Long enough for the run to begin, however busy the machine is.
    late.deadline = Some(Instant::now() + Duration::from_secs(3));
    let error = client.infer(late).unwrap_err();
    assert!(error.is(Reason::Deadline), "{error:?}");
    assert_eq!((gate.next(), gate.next()), (Told::Started, Told::Stopped));
}

#[test]
fn a_raised_stop_ends_a_blocking_call() {
    let (server, gate) = serve(settings());
    let client = client(&server);
    let stop = Arc::new(Stop::default());
    let mut request = request("gate", vec![1.0]);
    request.stop = Some(stop.clone());
    std::thread::scope(|scope| {
        let call = scope.spawn(|| client.infer(request));
        assert_eq!(gate.next(), Told::Started);
        stop.raise(Cause::Cancelled);
        assert!(call.join().unwrap().unwrap_err().is(Reason::ClientCancelled));
    });
    assert_eq!(gate.next(), Told::Stopped);
}

#[test]
fn a_client_reconnects_when_the_server_came_back() {
    let (server, _gate) = serve(settings());
    let client = client(&server);
    client.infer(request("double", vec![1.0])).unwrap();
    let port = server.http_address().unwrap().port();
    server.stop(Duration::ZERO);
    let error = client.infer(request("double", vec![1.0])).unwrap_err();
    assert!(error.is(Reason::ConnectionFailed) && error.message().contains(&format!("127.0.0.1:{port}")), "{error:?}");
    let (_server, _gate) = serve(nnrp_wire::ServerSettings { http_port: Some(port), ..settings() });
    client.infer(request("double", vec![1.0])).unwrap();
}

const LIVE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{\"live\":true}";

/// A server that answers the requests of each connection with these bytes, in turn, and closes it; tells how many requests came.
fn scripted(connections: Vec<Vec<&'static str>>) -> (Client, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    std::thread::spawn(move || {
        for answers in connections {
            let (mut stream, _) = listener.accept().unwrap();
            for answer in answers {
                let mut piece = [0; 4096];
                if stream.read(&mut piece).is_ok_and(|size| size > 0) {
                    counted.fetch_add(1, Ordering::SeqCst);
                }
                let _ = stream.write_all(answer.as_bytes());
            }
        }
    });
    (Client::connect(&format!("http://{address}")).unwrap(), count)
}

fn fake(answers: Vec<&'static str>) -> Client {
    scripted(answers.into_iter().map(|answer| vec![answer]).collect()).0
}

#[test]
fn a_server_that_closes_a_kept_connection_is_asked_once_more() {
    let client = fake(vec![LIVE, LIVE]);
    assert!(client.server_live().unwrap() && client.server_live().unwrap());
}

#[test]
fn what_a_kept_connection_lost_unheard_is_sent_again_once() {
    let (client, count) = scripted(vec![vec![LIVE, ""], vec![LIVE]]);
    assert!(client.server_live().unwrap() && client.server_live().unwrap());
    assert_eq!(count.load(Ordering::SeqCst), 3);
    let (client, count) = scripted(vec![vec![LIVE, ""], vec![""], vec![LIVE]]);
    assert!(client.server_live().unwrap());
    assert!(client.server_live().unwrap_err().is(Reason::ConnectionFailed));
    assert_eq!(count.load(Ordering::SeqCst), 3);
}

#[test]
fn nothing_is_sent_again_once_an_answer_began_or_on_a_new_connection() {
    let (client, count) = scripted(vec![vec![LIVE, "HTTP/1.1 200 O"], vec![LIVE]]);
    assert!(client.server_live().unwrap());
    assert!(client.server_live().unwrap_err().is(Reason::ConnectionFailed));
    assert_eq!(count.load(Ordering::SeqCst), 2);
    let (client, count) = scripted(vec![vec![""], vec![LIVE]]);
    assert!(client.server_live().unwrap_err().is(Reason::ConnectionFailed));
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[test]
fn an_answer_comes_once() {
    let (server, _gate) = serve(settings());
    let client = client(&server);
    let good = client.infer_async(request("double", vec![1.0]));
    // Too long for a path, so it fails before it is sent.
    let bad = client.infer_async(Request { model: "m".repeat(100_000).into(), ..request("", vec![1.0]) });
    for (mut pending, answered) in [(good, true), (bad, false)] {
        assert_eq!(block_on(&mut pending).is_ok(), answered);
        block_on(&mut pending).unwrap_err();
    }
}

/// One element of two.
const TOO_FEW: &str = "HTTP/1.1 200 OK\r\ncontent-length: 104\r\n\r\n{\"model_name\":\"m\",\"model_version\":\"1\",\"outputs\":[{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[2],\"data\":[1]}]}";

#[test]
fn answers_that_cannot_be_read_are_errors_that_name_the_server() {
    for answer in ["", "nonsense\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{\"mod", "HTTP/1.1 200 OK\r\nconte"] {
        let error = fake(vec![answer, answer]).infer(request("m", vec![1.0])).unwrap_err();
        assert!(error.is(Reason::ConnectionFailed) && error.message().contains("127.0.0.1:"), "{answer:?}: {error:?}");
    }
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\ninference-header-content-length: 9999\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\ninference-header-content-length: x\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>",
        TOO_FEW,
    ] {
        let client = fake(vec![answer, answer]);
        let error = client.infer(request("m", vec![1.0])).unwrap_err();
        assert!(error.is(Reason::ConnectionFailed) && error.message().contains("127.0.0.1:"), "{answer:?}: {error:?}");
    }
    let told = fake(vec!["HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>"]).model_metadata("m", "").unwrap_err();
    assert!(told.is(Reason::ConnectionFailed), "{told:?}");
    fake(vec!["HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno"]).infer(request("m", vec![1.0])).unwrap_err();
}

#[test]
fn an_address_is_a_scheme_a_host_and_a_port() {
    for url in ["http://localhost:8000", "http://127.0.0.1", "grpc://[::1]:9", "http://h:1/"] {
        assert!(Client::connect(url).is_ok(), "{url}");
    }
    for url in ["", "localhost:8000", "https://h", "http://h:99999", "http://h:x", "http://u:p@h", "http://h/v2", "ftp://h"] {
        assert!(Client::connect(url).err().expect(url).is(Reason::InvalidOption), "{url}");
    }
}
