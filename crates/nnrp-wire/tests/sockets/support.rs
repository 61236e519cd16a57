//! A server with tiny models, and a client that speaks HTTP byte by byte.
use nnrp_core::runtime::Runtimes;
use nnrp_core::schedule::Limits;
use nnrp_core::tensor::values_to_bytes;
use nnrp_core::{
    Concurrency, Control, Datatype, Engine, ModelSpec, NnrpError, Outputs, Reason, Result, Runtime, RuntimeInfo, Session, SessionInfo, Settings, Signature,
    Sink, Tensor, TensorSpec, Threads,
};
use nnrp_wire::{Server, ServerSettings};
use serde_json::{Map, Value, json};
use smallvec::smallvec;
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a run at the gate tells the test.
#[derive(Debug, PartialEq)]
pub(crate) enum Told {
    Started,
    Released,
    Stopped,
}

enum Event {
    Release,
    Stop,
}

/// The test's side of the model `gate`, whose runs wait until they are released or stopped.
pub(crate) struct Gate {
    told: Receiver<Told>,
    events: Sender<Event>,
}

impl Gate {
    pub(crate) fn next(&self) -> Told {
        self.told.recv_timeout(PATIENCE).expect("the gate tells something")
    }

    /// What was told already, if anything.
    pub(crate) fn heard(&self) -> Option<Told> {
        self.told.try_recv().ok()
    }

    pub(crate) fn release(&self) {
        self.events.send(Event::Release).unwrap();
    }
}

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The model's side of the gate.
struct Post {
    told: Sender<Told>,
    events: Sender<Event>,
    hears: Mutex<Receiver<Event>>,
}

struct Tiny {
    gate: Mutex<Option<Post>>,
    told: Mutex<Sender<Told>>,
}

/// y = 2x + 1; the model `gate` waits first, `broken` cannot tell the server what it is, `echo` gives x back. `each` streams an answer for each element
/// of x, of which NaN is a failure, and `flood` streams x until nobody wants more, which it tells the gate.
struct TinySession {
    info: SessionInfo,
    told: Sender<Told>,
    flood: bool,
    gate: Option<Post>,
    broken: bool,
    echo: bool,
}

impl Runtime for Tiny {
    fn name(&self) -> &'static str {
        "tiny"
    }

    fn info(&self) -> RuntimeInfo {
        RuntimeInfo { name: "tiny", version: "1".into(), formats: vec!["rs".into()], devices: vec!["cpu".into()], options: json!({}) }
    }

    fn load(&self, spec: &ModelSpec) -> Result<Box<dyn Session>> {
        let tensor = |name: &str| TensorSpec {
            name: name.into(),
            datatype: Datatype::Fp32,
            shape: Some(smallvec![-1]),
            symbols: Vec::new(),
            ranges: vec![],
            optional: false,
        };
        let info = SessionInfo {
            signature: Signature { inputs: vec![tensor("x")], outputs: vec![tensor("y")] },
            runtime: "tiny",
            runtime_version: "1".into(),
            format: "rs".into(),
            device: "cpu".into(),
            concurrency: Concurrency::Shared,
            threads: Threads::Any,
            cancellable: true,
            streams: matches!(&*spec.name, "each" | "flood"),
            settings: Map::new(),
        };
        let gate = (spec.name == "gate").then(|| self.gate.lock().unwrap().take()).flatten();
        let told = self.told.lock().unwrap().clone();
        Ok(Box::new(TinySession { info, told, flood: spec.name == "flood", gate, broken: spec.name == "broken", echo: spec.name == "echo" }))
    }
}

impl TinySession {
    fn wait(&self, control: Control<'_>) {
        let Some(Post { told, events, hears }) = &self.gate else { return };
        told.send(Told::Started).unwrap();
        let wait = || hears.lock().unwrap().recv().unwrap();
        let stop = events.clone();
        let event = match control.stop {
            Some(flag) => flag.during(move || stop.send(Event::Stop).unwrap(), wait),
            None => wait(),
        };
        // The test may have seen enough.
        let _ = told.send(if matches!(event, Event::Stop) { Told::Stopped } else { Told::Released });
    }
}

impl Session for TinySession {
    fn info(&self) -> &SessionInfo {
        let served = std::thread::current().name().is_some_and(|name| name.starts_with("nnrp-"));
        assert!(!(self.broken && served), "at /home/somebody/secret.rs");
        &self.info
    }

    fn stream(&self, inputs: &[Option<Tensor<'_>>], outputs: &[usize], control: Control<'_>, sink: &mut Sink<'_>) -> Result<()> {
        let x = inputs[0].as_ref().unwrap();
        if !self.info.streams {
            return sink(self.run(inputs, outputs, control)?);
        }
        if self.flood {
            let error = std::iter::repeat_with(|| sink(smallvec![x.clone().into_owned()])).find_map(Result::err).unwrap();
            let _ = self.told.send(Told::Stopped);
            return Err(error);
        }
        for value in x.bytes().chunks_exact(4).map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap())) {
            if value.is_nan() {
                return Err(NnrpError::new(Reason::RunFailed, "not a number").with("runtime", "tiny"));
            }
            sink(smallvec![Tensor::from_values(Datatype::Fp32, &[1], vec![value * 2.0 + 1.0])])?;
        }
        Ok(())
    }

    fn run(&self, inputs: &[Option<Tensor<'_>>], _: &[usize], control: Control<'_>) -> Result<Outputs> {
        self.wait(control);
        let x = inputs[0].as_ref().unwrap();
        if self.echo {
            return Ok(smallvec![Tensor::shared(Datatype::Fp32, &x.shape, x.bytes().to_vec().into())]);
        }
        let y: Vec<f32> = x.bytes().chunks_exact(4).map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap()) * 2.0 + 1.0).collect();
        Ok(smallvec![Tensor::shared(Datatype::Fp32, &x.shape, values_to_bytes(y))])
    }
}

/// Loads a tiny model.
pub(crate) fn load(engine: &Engine, name: &str, version: &str) {
    engine.load(ModelSpec::from_json(&json!({"name": name, "version": version, "path": "none", "runtime": "tiny"}).to_string()).unwrap()).unwrap();
}

/// An engine with the models `double` (versions 1 and 2), `gate`, `broken` and `echo`.
pub(crate) fn engine(limits: Limits) -> (Arc<Engine>, Gate) {
    let (told, tells) = channel();
    let (events, hears) = channel();
    let gate = Gate { told: tells, events: events.clone() };
    let mut runtimes = Runtimes::default();
    let says = Mutex::new(told.clone());
    runtimes.add(Arc::new(Tiny { gate: Mutex::new(Some(Post { told, events, hears: Mutex::new(hears) })), told: says }));
    let engine = Engine::new(Settings { limits, ..Settings::default() }, runtimes);
    for (name, version) in [("double", "1"), ("double", "2"), ("gate", "1"), ("broken", "1"), ("echo", "1")] {
        load(&engine, name, version);
    }
    (Arc::new(engine), gate)
}

/// Settings of a test's server: any port, REST only, one thread.
pub(crate) fn settings() -> ServerSettings {
    ServerSettings { http_port: Some(0), grpc_port: None, threads: 1, ..ServerSettings::default() }
}

/// A running server and its gate.
pub(crate) fn serve(settings: ServerSettings) -> (Server, Gate) {
    let (engine, gate) = engine(Limits::default());
    (Server::start(engine, settings).unwrap(), gate)
}

/// A running server whose models have one worker and one place in the queue.
pub(crate) fn serve_narrowly(settings: ServerSettings) -> (Server, Gate) {
    let (engine, gate) = engine(Limits { workers: 1, queue_capacity: 1, ..Limits::default() });
    (Server::start(engine, settings).unwrap(), gate)
}

/// A connection on which a test writes what it likes.
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    rest: Vec<u8>,
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// Asserts an error of the house's shape.
    pub(crate) fn assert_error(&self, status: u16, code: &str, reason: &str) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        let error = self.json();
        assert_eq!((self.status, error["code"].as_str(), error["reason"].as_str()), (status, Some(code), Some(reason)), "{error}");
        assert!(error["error"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
        assert!(error["request_id"].as_str().is_some_and(|id| !id.is_empty() && self.header("x-request-id") == Some(id)), "{self:?}");
        error
    }
}

impl Wire {
    pub(crate) fn open(address: SocketAddr) -> Wire {
        Wire::over(TcpStream::connect(address).unwrap())
    }

    /// One for which the system keeps little that it has not read.
    pub(crate) fn narrow(address: SocketAddr) -> Wire {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(32 << 10).unwrap();
        socket.connect(&address.into()).unwrap();
        Wire::over(socket.into())
    }

    fn over(stream: TcpStream) -> Wire {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Wire { stream, rest: Vec::new() }
    }

    pub(crate) fn to(server: &Server) -> Wire {
        Wire::open(server.http_address().unwrap())
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Wire {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self
    }

    /// Sends nothing more.
    pub(crate) fn end(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Sends a request without a body and reads its answer.
    pub(crate) fn get(&mut self, path: &str) -> Reply {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: t\r\n\r\n")).reply()
    }

    /// Sends a request with a body and reads its answer.
    pub(crate) fn post(&mut self, path: &str, headers: &str, body: impl AsRef<[u8]>) -> Reply {
        self.send(post(path, headers, body)).reply()
    }

    fn more(&mut self) -> usize {
        let mut piece = [0; 64 << 10];
        let count = self.stream.read(&mut piece).expect("an answer in time");
        self.rest.extend_from_slice(&piece[..count]);
        count
    }

    /// Reads a head: the status and the headers.
    pub(crate) fn head(&mut self) -> Reply {
        let end = loop {
            match self.rest.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(end) => break end,
                None => assert_ne!(self.more(), 0, "closed within a head: {:?}", String::from_utf8_lossy(&self.rest)),
            }
        };
        let head = String::from_utf8(self.rest.drain(..end + 4).collect()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        Reply { status, headers, body: Vec::new() }
    }

    /// Reads a whole answer.
    pub(crate) fn reply(&mut self) -> Reply {
        let mut reply = self.head();
        let size: usize = reply.header("content-length").map_or(0, |size| size.parse().unwrap());
        while self.rest.len() < size {
            assert_ne!(self.more(), 0, "closed within a body");
        }
        reply.body = self.rest.drain(..size).collect();
        reply
    }

    /// Reads so many bytes past.
    pub(crate) fn skip(&mut self, mut count: usize) {
        while count > self.rest.len() {
            count -= std::mem::take(&mut self.rest).len();
            assert_ne!(self.more(), 0, "closed within a body");
        }
        self.rest.drain(..count);
    }

    /// Asserts that the server closes.
    pub(crate) fn assert_closed(&mut self) {
        while self.more() > 0 {}
        assert_eq!(self.rest, b"");
    }
}

pub(crate) fn post(path: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut request = format!("POST {path} HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n{headers}\r\n", body.len()).into_bytes();
    request.extend_from_slice(body);
    request
}

pub(crate) const INFER: &str = "/v2/models/double/infer";
pub(crate) const GATE: &str = "/v2/models/gate/infer";

/// x = [1, 2] as JSON; y = [3, 5].
pub(crate) const BODY: &str = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[1,2]}]}"#;

/// A binary request over these values: the header line that it needs, and its body.
pub(crate) fn binary(x: &[f32]) -> (String, Vec<u8>) {
    let size = x.len() * 4;
    let json = json!({
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [x.len()], "parameters": {"binary_data_size": size}}],
        "parameters": {"binary_data_output": true},
    })
    .to_string();
    let header = format!("inference-header-content-length: {}\r\n", json.len());
    let mut body = json.into_bytes();
    x.iter().for_each(|value| body.extend_from_slice(&value.to_le_bytes()));
    (header, body)
}

pub(crate) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap())).collect()
}
