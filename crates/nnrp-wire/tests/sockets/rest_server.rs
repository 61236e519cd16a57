//! The server as such: starting, stopping, clients that leave, and bounds.
use crate::support::{BODY, GATE, INFER, PATIENCE, Told, Wire, binary, engine, floats, post, serve, serve_narrowly, settings};
use nnrp_core::Reason;
use nnrp_core::schedule::Limits;
use nnrp_wire::{Server, ServerSettings};
use std::net::TcpListener;
use std::time::{Duration, Instant};

#[test]
fn a_client_that_leaves_stops_its_run() {
    let (server, gate) = serve(settings());
    let mut wire = Wire::to(&server);
    wire.send(post(GATE, "", BODY));
    assert_eq!(gate.next(), Told::Started);
    drop(wire);
    assert_eq!(gate.next(), Told::Stopped);
    assert_eq!(Wire::to(&server).post(INFER, "", BODY).status, 200);
}

#[test]
fn a_client_that_leaves_after_pipelining_stops_its_run() {
    let (server, gate) = serve(settings());
    let mut wire = Wire::to(&server);
    wire.send(post(GATE, "", BODY)).send(post(INFER, "", BODY));
    assert_eq!(gate.next(), Told::Started);
    drop(wire);
    assert_eq!(gate.next(), Told::Stopped);
}

#[test]
fn a_client_that_only_ends_what_it_sends_gets_its_answer() {
    let (server, gate) = serve(settings());
    let mut wire = Wire::to(&server);
    wire.send(post(GATE, "", BODY)).end();
    assert_eq!(gate.next(), Told::Started);
    assert_eq!(wire.head().status, 100);
    gate.release();
    let reply = wire.reply();
    assert_eq!((reply.status, &reply.json()["outputs"][0]["data"]), (200, &serde_json::json!([3.0, 5.0])));
    wire.assert_closed();
    for _ in 0..3 {
        let mut quick = Wire::to(&server);
        quick.send(post(INFER, "", BODY)).end();
        let first = quick.reply();
        assert_eq!(if first.status == 100 { quick.reply().status } else { first.status }, 200);
        quick.assert_closed();
    }
}

#[test]
fn a_client_that_ends_what_it_sends_and_leaves_later_stops_its_run() {
    let (server, gate) = serve(settings());
    let mut wire = Wire::to(&server);
    wire.send(post(GATE, "", BODY)).end();
    assert_eq!(gate.next(), Told::Started);
    assert_eq!(wire.head().status, 100);
    drop(wire);
    assert_eq!(gate.next(), Told::Stopped);
}

#[test]
fn a_client_without_interim_answers_that_ends_what_it_sends_is_gone() {
    let (server, gate) = serve(settings());
    let mut wire = Wire::to(&server);
    wire.send(String::from_utf8(post(GATE, "", BODY)).unwrap().replace("HTTP/1.1", "HTTP/1.0"));
    // Gone before that, its request would never be run.
    assert_eq!(gate.next(), Told::Started);
    wire.end();
    assert_eq!(gate.next(), Told::Stopped);
    wire.assert_closed();
}

#[test]
fn what_comes_while_an_answer_is_made_is_answered_next() {
    let (server, gate) = serve(settings());
    let mut wire = Wire::to(&server);
    wire.send(post(GATE, "", BODY));
    assert_eq!(gate.next(), Told::Started);
    wire.send(post(INFER, "", BODY));
    // Were it not read meanwhile, the end behind it would not be seen.
    wire.end();
    assert_eq!(wire.head().status, 100);
    gate.release();
    assert_eq!((wire.reply().status, wire.reply().status), (200, 200));
    wire.assert_closed();
}

#[test]
fn a_queued_request_whose_client_leaves_is_never_run() {
    let (engine, gate) = engine(Limits { workers: 1, queue_capacity: 1, ..Limits::default() });
    let server = Server::start(engine.clone(), settings()).unwrap();
    let model = engine.model("gate", "").unwrap();
    let mut running = Wire::to(&server);
    running.send(post(GATE, "", BODY));
    assert_eq!(gate.next(), Told::Started);
    let mut queued = Wire::to(&server);
    queued.send(post(GATE, "", BODY));
    let begun = Instant::now();
    while model.schedule.waiting() == 0 {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    Wire::to(&server).post(GATE, "", BODY).assert_error(503, "RESOURCE_EXHAUSTED", "QUEUE_FULL");
    drop(queued);
    let mut last = Wire::to(&server);
    let mut other = Wire::to(&server);
    loop {
        // The place in the queue is free as soon as the server has noticed.
        last.send(post(GATE, "", BODY));
        // Two turns of its one thread later it has seen this request.
        assert_eq!([other.get("/v2").status, other.get("/v2").status], [200, 200]);
        last.stream.set_nonblocking(true).unwrap();
        let refused = last.stream.peek(&mut [0]).is_ok();
        last.stream.set_nonblocking(false).unwrap();
        if !refused {
            break;
        }
        last.reply().assert_error(503, "RESOURCE_EXHAUSTED", "QUEUE_FULL");
    }
    gate.release();
    assert_eq!(running.reply().status, 200);
    assert_eq!((gate.next(), gate.next()), (Told::Released, Told::Started));
    gate.release();
    assert_eq!(last.reply().status, 200);
    assert_eq!(gate.next(), Told::Released);
}

#[test]
fn a_full_queue_has_the_status_that_was_asked_for_and_a_time_to_come_again() {
    for status in [503, 429] {
        let (server, gate) = serve_narrowly(ServerSettings { queue_full_status: status, ..settings() });
        let (mut running, mut queued) = (Wire::to(&server), Wire::to(&server));
        running.send(post(GATE, "", BODY));
        assert_eq!(gate.next(), Told::Started);
        queued.send(post(GATE, "", BODY));
        let mut refused = Wire::to(&server);
        let reply = loop {
            refused.stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let reply = refused.post(GATE, "", BODY);
            if reply.status != 200 {
                break reply;
            }
        };
        reply.assert_error(status, "RESOURCE_EXHAUSTED", "QUEUE_FULL");
        assert_eq!(reply.header("retry-after"), Some("1"));
        gate.release();
        gate.release();
        assert_eq!((running.reply().status, queued.reply().status), (200, 200));
    }
}

#[test]
fn stopping_finishes_what_is_in_flight_and_is_seen_not_to_be_ready_until_then() {
    let (server, gate) = serve(settings());
    let (mut idle, mut used, mut running) = (Wire::to(&server), Wire::to(&server), Wire::to(&server));
    assert_eq!(used.get("/v2").status, 200);
    running.send(post(GATE, "", BODY));
    assert_eq!(gate.next(), Told::Started);
    let address = server.http_address().unwrap();
    server.begin_to_stop(PATIENCE);
    // Until nothing is in flight it says that it lives and is not ready, on connections old and new.
    for path in ["/v2/health/ready", "/v2/models/double/ready"] {
        let ready = Wire::open(address).get(path);
        let error = ready.assert_error(503, "UNAVAILABLE", "DRAINING");
        assert_eq!((error["ready"].as_bool(), ready.header("retry-after")), (Some(false), Some("1")));
    }
    let live = used.get("/v2/health/live");
    assert_eq!((live.status, live.header("connection")), (200, Some("close")));
    used.assert_closed();
    let refused = Wire::open(address).post(INFER, "", BODY);
    refused.assert_error(503, "UNAVAILABLE", "DRAINING");
    assert_eq!((refused.header("retry-after"), refused.header("connection")), (Some("1"), Some("close")));
    gate.release();
    let reply = running.reply();
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    running.assert_closed();
    idle.assert_closed();
    server.stop(PATIENCE);
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn an_engine_outlives_its_server() {
    let (engine, _gate) = engine(Default::default());
    drop(Server::start(engine.clone(), settings()).unwrap());
    assert!(engine.ready());
}

#[test]
fn stopping_waits_no_longer_than_its_grace() {
    let (server, gate) = serve(settings());
    let mut running = Wire::to(&server);
    running.send(post(GATE, "", BODY));
    assert_eq!(gate.next(), Told::Started);
    server.stop(Duration::from_millis(20));
    assert_eq!(gate.next(), Told::Stopped);
    let reply = running.reply();
    reply.assert_error(503, "UNAVAILABLE", "DRAINING");
    assert_eq!((reply.header("retry-after"), reply.header("connection")), (Some("1"), Some("close")));
    running.assert_closed();
}

#[test]
fn a_server_that_is_told_again_to_stop_stops_sooner_and_never_later() {
    let (server, gate) = serve(settings());
    let mut running = Wire::to(&server);
    running.send(post(GATE, "", BODY));
    assert_eq!(gate.next(), Told::Started);
    server.begin_to_stop(PATIENCE);
    assert!(!server.is_stopped_within(Duration::from_millis(20)));
    server.begin_to_stop(Duration::ZERO);
    server.begin_to_stop(PATIENCE);
    running.reply().assert_error(503, "UNAVAILABLE", "DRAINING");
    assert_eq!(gate.next(), Told::Stopped);
    running.assert_closed();
    assert!(server.is_stopped_within(PATIENCE));
}

#[test]
fn a_draining_engine_is_not_ready_and_tells_when_to_come_again() {
    let (engine, _gate) = engine(Default::default());
    let server = Server::start(engine.clone(), settings()).unwrap();
    engine.drain();
    let mut wire = Wire::to(&server);
    let ready = wire.get("/v2/health/ready");
    assert_eq!((ready.status, ready.header("retry-after"), ready.json()["ready"].as_bool()), (503, Some("1"), Some(false)));
    let refused = wire.post(INFER, "", BODY);
    refused.assert_error(503, "UNAVAILABLE", "DRAINING");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(wire.get("/v2/health/live").status, 200);
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let (engine, _gate) = engine(Default::default());
    let start = |settings| Server::start(engine.clone(), settings).err().expect("an error");
    let error = start(ServerSettings { http_port: Some(port), ..settings() });
    assert!(error.is(Reason::InvalidOption) && error.message().contains(&format!("127.0.0.1:{port}")), "{error:?}");

    let (server, _gate) = serve(ServerSettings { threads: 3, ..settings() });
    let port = server.http_address().unwrap().port();
    assert!(start(ServerSettings { http_port: Some(port), ..settings() }).is(Reason::InvalidOption));
    drop(server);
    Server::start(engine.clone(), ServerSettings { http_port: Some(port), ..settings() }).unwrap();
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let (engine, _gate) = engine(Default::default());
    for settings in [
        ServerSettings { http_port: None, ..settings() },
        ServerSettings { host: "no such host".into(), ..settings() },
        ServerSettings { host: "8.8.8.8".into(), ..settings() },
        ServerSettings { queue_full_status: 200, ..settings() },
        ServerSettings { max_body_bytes: 0, ..settings() },
        ServerSettings { max_connections: 0, ..settings() },
        ServerSettings { idle_timeout: Duration::ZERO, ..settings() },
    ] {
        let error = Server::start(engine.clone(), settings).err().expect("an error");
        assert!(error.is(Reason::InvalidOption), "{error:?}");
    }
    assert!(engine.ready());
}

#[test]
fn a_connection_over_the_bound_waits_until_another_ends() {
    let (server, _gate) = serve(ServerSettings { max_connections: 2, ..settings() });
    let (mut first, mut second, mut third) = (Wire::to(&server), Wire::to(&server), Wire::to(&server));
    assert_eq!((first.get("/v2").status, second.get("/v2").status), (200, 200));
    third.send(post(INFER, "", BODY));
    third.stream.set_nonblocking(true).unwrap();
    assert_eq!(first.get("/v2").status, 200);
    assert!(third.stream.peek(&mut [0]).is_err());
    drop(first);
    third.stream.set_nonblocking(false).unwrap();
    assert_eq!(third.reply().status, 200);
}

#[test]
fn a_client_that_never_reads_its_answer_is_dropped() {
    let (server, _gate) = serve(ServerSettings { write_timeout: Duration::from_millis(50), ..settings() });
    let mut wire = Wire::to(&server);
    let (header, body) = binary(&vec![1.0; 4 << 20]);
    wire.send(post(INFER, &header, body));
    let reply = wire.head();
    let size: usize = reply.header("content-length").unwrap().parse().unwrap();
    // What the system's buffers do not hold stays unread until the server has given up.
    server.stop(PATIENCE);
    let mut rest = Vec::new();
    let ended = std::io::Read::read_to_end(&mut wire.stream, &mut rest);
    assert!(ended.is_err() || rest.len() < size, "{} of {size}", rest.len());
}

#[test]
fn many_threads_serve_one_address() {
    let (server, _gate) = serve(ServerSettings { threads: 4, ..settings() });
    std::thread::scope(|scope| {
        for worker in 0..16 {
            let server = &server;
            scope.spawn(move || {
                let mut wire = Wire::to(server);
                for turn in 0..50 {
                    let x = (worker * 100 + turn) as f32;
                    let (header, body) = binary(&[x]);
                    let reply = wire.post(INFER, &header, body);
                    assert_eq!(floats(&reply.body[reply.body.len() - 4..]), [x * 2.0 + 1.0]);
                }
            });
        }
    });
}
