//! `ModelStreamInfer` (spec §4.8), from our own client.
use crate::grpc_streams::{given, serve, until_ended};
use crate::support::{PATIENCE, floats};
use nnrp_core::{Answers, Cause, Datatype, Input, NnrpError, Reason, Request, Tensor};
use nnrp_wire::{Client, Server};
use std::task::Poll;
use std::time::{Duration, Instant};

fn connect(server: &Server) -> Client {
    Client::connect(&format!("grpc://{}", server.grpc_address().unwrap())).unwrap()
}

fn wanted(model: &'static str, x: &[f32]) -> Request<'static, 'static> {
    let tensor = Tensor::from_values(Datatype::Fp32, &[x.len() as i64], x.to_vec());
    Request { model: model.into(), id: Some("seven".into()), inputs: [Input { name: "x".into(), tensor }].into_iter().collect(), ..Default::default() }
}

fn next(answers: &mut Answers) -> Option<Result<Vec<f32>, NnrpError>> {
    let Poll::Ready(next) = answers.wait_next(PATIENCE) else { panic!("an answer in time") };
    next.map(|answer| answer.map(|answer| floats(answer.outputs[0].tensor.bytes())))
}

#[test]
fn our_client_reads_streams_one_after_the_other_and_their_errors() {
    let (server, _engine, _gate) = serve(|_| ());
    let client = connect(&server);
    for _ in 0..3 {
        let mut answers = client.stream(wanted("each", &[1.0, 2.0])).unwrap();
        assert_eq!([next(&mut answers).unwrap().unwrap(), next(&mut answers).unwrap().unwrap()], [[3.0], [5.0]]);
        assert!(next(&mut answers).is_none());
        assert_eq!(answers.last().unwrap().id.as_deref(), Some("seven"));
        let mut one = client.stream(wanted("double", &[1.0, 2.0])).unwrap();
        assert_eq!(next(&mut one).unwrap().unwrap(), [3.0, 5.0]);
        assert!(next(&mut one).is_none());
    }
    let mut fails = client.stream(wanted("each", &[1.0, f32::NAN])).unwrap();
    assert_eq!(next(&mut fails).unwrap().unwrap(), [3.0]);
    let error = next(&mut fails).unwrap().unwrap_err();
    assert_eq!((error.reason(), error.message(), &error.details()["runtime"]), ("RUN_FAILED", "not a number", &"tiny".into()));
    assert!(next(&mut fails).is_none());
    assert!(next(&mut client.stream(wanted("nope", &[1.0])).unwrap()).unwrap().unwrap_err().is(Reason::ModelNotFound));
    let http = Client::connect(&format!("http://{}", server.http_address().unwrap())).unwrap();
    assert!(http.stream(wanted("each", &[1.0])).err().unwrap().is(Reason::NotOffered));
}

#[test]
fn our_client_stops_the_stream_that_it_leaves() {
    let (server, engine, _gate) = serve(|_| ());
    let client = connect(&server);
    let begin = |deadline| {
        let mut answers = client.stream(Request { deadline, ..wanted("flood", &[1.0]) }).unwrap();
        assert_eq!(next(&mut answers).unwrap().unwrap(), [1.0]);
        answers
    };
    drop(begin(None));
    until_ended(&engine, "CLIENT_CANCELLED", 1);
    let mut stopped = begin(None);
    stopped.stop().raise(Cause::Cancelled);
    until_ended(&engine, "CLIENT_CANCELLED", 2);
    let ended = std::iter::from_fn(|| next(&mut stopped)).last().unwrap();
    assert!(ended.unwrap_err().is(Reason::ClientCancelled));
    let mut late = begin(Some(Instant::now() + Duration::from_secs(3)));
    let ended = std::iter::from_fn(|| next(&mut late)).last().unwrap().unwrap_err();
    assert!(ended.is(Reason::Deadline), "{ended:?}");
    assert_eq!(next(&mut client.stream(wanted("each", &[1.0])).unwrap()).unwrap().unwrap(), [3.0]);
}

#[test]
fn our_client_that_reads_slowly_holds_the_model_back() {
    let (server, engine, _gate) = serve(|_| ());
    let client = connect(&server);
    let mut answers = client.stream(wanted("flood", &vec![1.0; 1 << 18])).unwrap();
    for _ in 0..20 {
        assert_eq!(next(&mut answers).unwrap().unwrap().len(), 1 << 18);
    }
    drop(answers);
    until_ended(&engine, "CLIENT_CANCELLED", 1);
    // Read were 20; the model may be ahead, both ends of the connection hold some, and 4 MB are on their way.
    assert!((20..=60).contains(&given(&engine)), "{} answers of 1 MB", given(&engine));
}
