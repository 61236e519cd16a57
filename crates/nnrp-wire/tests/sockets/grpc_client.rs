//! Our own client of the gRPC form against our own server: the same answers and the same errors as in process.
use crate::grpc_support::{framed, serve_both};
use crate::support::{PATIENCE, Told, floats};
use nnrp_core::{Cause, Code, Datatype, Input, Reason, Request, Stop, Tensor};
use nnrp_wire::{Client, Server};
use serde_json::json;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn connect(server: &Server) -> Client {
    Client::connect(&format!("grpc://{}", server.grpc_address().unwrap())).unwrap()
}

fn request(model: &'static str, x: &[f32]) -> Request<'static, 'static> {
    let tensor = Tensor::from_values(Datatype::Fp32, &[x.len() as i64], x.to_vec());
    Request { model: model.into(), inputs: [Input { name: "x".into(), tensor }].into_iter().collect(), ..Default::default() }
}

#[test]
fn metadata_and_health_are_those_of_rest() {
    let (server, _gate) = serve_both();
    let (grpc, http) = (connect(&server), Client::connect(&format!("http://{}", server.http_address().unwrap())).unwrap());
    assert_eq!(grpc.server_metadata().unwrap(), http.server_metadata().unwrap());
    assert_eq!(grpc.model_metadata("double", "").unwrap(), http.model_metadata("double", "").unwrap());
    assert_eq!(grpc.index().unwrap(), http.index().unwrap());
    assert!(grpc.server_live().unwrap() && grpc.server_ready().unwrap() && grpc.model_ready("double", "1").unwrap());
    assert!(!grpc.model_ready("double", "9").unwrap() && !grpc.model_ready("nope", "").unwrap());
}

#[test]
fn an_answer_is_the_same_blocking_and_awaited_small_and_large() {
    let (server, _gate) = serve_both();
    let client = connect(&server);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for count in [0, 1, 5_000, 3_000_000] {
        let x: Vec<f32> = (0..count).map(|value| value as f32).collect();
        let request = || Request { id: Some("7".into()), ..request("double", &x) };
        for answer in [client.infer(request()).unwrap(), runtime.block_on(client.infer_async(request())).unwrap()] {
            assert_eq!((&*answer.model, &*answer.version, answer.id.as_deref()), ("double", "2", Some("7")));
            let y = floats(answer.outputs[0].tensor.bytes());
            assert!(y.len() == count && y.iter().zip(&x).all(|(y, x)| *y == x * 2.0 + 1.0));
        }
    }
}

#[test]
fn an_error_arrives_as_it_was_raised() {
    let (server, _gate) = serve_both();
    let wrong = || Request {
        inputs: [Input { name: "z".into(), tensor: Tensor::from_values(Datatype::Fp32, &[1], vec![1f32]) }].into_iter().collect(),
        ..request("double", &[])
    };
    let raised = crate::support::engine(Default::default()).0.infer(wrong()).unwrap_err();
    let arrived = connect(&server).infer(wrong()).unwrap_err();
    assert_eq!((arrived.code(), arrived.reason(), arrived.message(), arrived.details()), (raised.code(), raised.reason(), raised.message(), raised.details()));
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let client = Client::connect(&format!("grpc://127.0.0.1:{port}")).unwrap();
    let error = client.infer(request("double", &[1.0])).unwrap_err();
    assert!(error.is(Reason::ConnectionFailed) && error.message().contains(&format!("127.0.0.1:{port}")), "{error:?}");
    assert_eq!(json!(error.details()), json!({"host": "127.0.0.1", "port": port}));
}

#[test]
fn a_server_of_another_protocol_is_an_error_and_no_panic() {
    let (server, _gate) = serve_both();
    let client = Client::connect(&format!("grpc://{}", server.http_address().unwrap())).unwrap();
    assert_eq!(client.infer(request("double", &[1.0])).unwrap_err().code(), Code::Unavailable);
}

#[test]
fn a_connection_that_the_server_closed_is_made_anew() {
    let (server, _gate) = serve_both();
    let address = server.grpc_address().unwrap();
    let client = connect(&server);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    client.infer(request("double", &[1.0])).unwrap();
    runtime.block_on(client.infer_async(request("double", &[1.0]))).unwrap();
    server.stop(Duration::ZERO);
    let (engine, _gate) = crate::support::engine(Default::default());
    let settings = nnrp_wire::ServerSettings { grpc_port: Some(address.port()), ..crate::support::settings() };
    let _server = Server::start(engine, settings).unwrap();
    client.infer(request("double", &[1.0])).unwrap();
    runtime.block_on(client.infer_async(request("double", &[1.0]))).unwrap();
}

/// A server that answers so many calls on each connection and breaks it off at the next; tells how many calls came.
fn scripted(connections: &'static [usize]) -> (Client, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let serving = async move {
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        for &answers in connections {
            let mut connection = h2::server::handshake(listener.accept().await.unwrap().0).await.unwrap();
            for turn in 0.. {
                let Some(Ok((_, mut call))) = connection.accept().await else { break };
                counted.fetch_add(1, Ordering::SeqCst);
                if turn == answers {
                    break;
                }
                let mut body = call.send_response(http::Response::new(()), false).unwrap();
                body.send_data(framed(0, &[8, 1]), false).unwrap();
                body.send_trailers([(http::HeaderName::from_static("grpc-status"), http::HeaderValue::from_static("0"))].into_iter().collect()).unwrap();
            }
        }
    };
    std::thread::spawn(|| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(serving));
    (Client::connect(&format!("grpc://{address}")).unwrap(), count)
}

#[test]
fn what_a_kept_connection_lost_is_sent_again_once_and_what_a_new_one_lost_is_not() {
    let (client, count) = scripted(&[1, 1]);
    assert!(client.server_live().unwrap() && client.server_live().unwrap());
    assert_eq!(count.load(Ordering::SeqCst), 3);
    let (client, count) = scripted(&[1, 0, 1]);
    assert!(client.server_live().unwrap());
    assert!(client.server_live().unwrap_err().is(Reason::ConnectionFailed));
    assert_eq!(count.load(Ordering::SeqCst), 3);
    let (client, count) = scripted(&[0, 1]);
    assert!(client.server_live().unwrap_err().is(Reason::ConnectionFailed));
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[test]
fn a_deadline_travels_and_ends_the_run() {
    let (server, gate) = serve_both();
    let late = Request { deadline: Some(Instant::now() + Duration::from_secs(3)), ..request("gate", &[1.0]) };
    assert_eq!(connect(&server).infer(late).unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!([gate.next(), gate.next()], [Told::Started, Told::Stopped]);
}

#[test]
fn a_stop_from_another_thread_ends_the_call_and_the_run() {
    let (server, gate) = serve_both();
    let stop = Arc::new(Stop::default());
    let stopped = Request { stop: Some(stop.clone()), ..request("gate", &[1.0]) };
    let client = connect(&server);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| client.infer(stopped));
        assert_eq!(gate.next(), Told::Started);
        stop.raise(Cause::Cancelled);
        assert_eq!(call.join().unwrap().unwrap_err().code(), Code::Cancelled);
    });
    assert_eq!(gate.next(), Told::Stopped);
}

#[test]
fn an_awaited_answer_that_is_dropped_ends_its_run() {
    let (server, gate) = serve_both();
    let client = connect(&server);
    let pending = client.infer_async(request("gate", &[1.0]));
    assert_eq!(gate.next(), Told::Started);
    drop(pending);
    assert_eq!(gate.next(), Told::Stopped);
}

#[test]
fn many_threads_share_one_client() {
    let (server, _gate) = serve_both();
    let client = connect(&server);
    let end = Instant::now() + PATIENCE;
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let client = &client;
            scope.spawn(move || {
                for turn in 0..200 {
                    let x = (thread * 1_000 + turn) as f32;
                    let answer = client.infer(Request { deadline: Some(end), ..request("double", &[x]) }).unwrap();
                    assert_eq!(floats(answer.outputs[0].tensor.bytes()), [x * 2.0 + 1.0]);
                }
            });
        }
    });
}
