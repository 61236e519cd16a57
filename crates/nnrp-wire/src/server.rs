//! The sockets: one single-threaded runtime per core, each with its own listeners, all in front of one engine.
use crate::buffer::Pool;
use crate::listen::{self, Listeners};
use nnrp_core::error::excerpt;
use nnrp_core::{Engine, NnrpError, Reason, Result};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Once, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

/// What a server listens on and what it bounds.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// Name or address to listen on.
    pub host: String,
    /// Port of the REST form; 0 picks one, `None` leaves the form out.
    pub http_port: Option<u16>,
    /// Port of the gRPC form; 0 picks one, `None` leaves the form out.
    pub grpc_port: Option<u16>,
    /// Threads that read sockets; 0 is one per core.
    pub threads: usize,
    /// Largest message, in bytes, also after decompression.
    pub max_body_bytes: usize,
    /// Most connections at once, both forms together; more wait in the backlog.
    pub max_connections: usize,
    /// HTTP status of `QUEUE_FULL`: 503 or 429.
    pub queue_full_status: u16,
    /// How long a request may take to send its head once it began, or pause within its body.
    pub read_timeout: Duration,
    /// How long a client may leave its answer unread.
    pub write_timeout: Duration,
}

impl Default for ServerSettings {
    fn default() -> Self {
        ServerSettings {
            host: "127.0.0.1".to_owned(),
            http_port: Some(8000),
            grpc_port: Some(8001),
            threads: 0,
            max_body_bytes: 64 << 20,
            max_connections: 65_536,
            queue_full_status: 503,
            read_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
        }
    }
}

impl ServerSettings {
    fn check(&self) -> Result<()> {
        let wrong = |name: &str, expected: &str, got: String| {
            Err(NnrpError::new(Reason::InvalidOption, format!("server setting '{name}': expected {expected}, got {got}")).with("setting", name))
        };
        if self.http_port.is_none() && self.grpc_port.is_none() {
            return wrong("http_port, grpc_port", "at least one port", "none".to_owned());
        }
        if !matches!(self.queue_full_status, 503 | 429) {
            return wrong("queue_full_status", "503 or 429", self.queue_full_status.to_string());
        }
        for (name, value) in [("max_body_bytes", self.max_body_bytes), ("max_connections", self.max_connections)] {
            if value == 0 || value > Semaphore::MAX_PERMITS {
                return wrong(name, "a number from 1", value.to_string());
            }
        }
        Ok(())
    }

    fn thread_count(&self) -> usize {
        if self.threads > 0 { self.threads.min(1024) } else { std::thread::available_parallelism().map_or(1, usize::from) }
    }
}

/// As both forms tell it: only extensions of the Open Inference Protocol that the server honours.
pub(crate) fn server_metadata() -> Value {
    json!({"name": "nnrp", "version": env!("CARGO_PKG_VERSION"), "extensions": EXTENSIONS})
}

/// Extensions that the server honours.
pub(crate) const EXTENSIONS: [&str; 1] = ["binary_tensor_data"];

/// What every connection needs.
pub struct Shared {
    /// Answers requests.
    pub engine: Arc<Engine>,
    /// Bounds.
    pub settings: ServerSettings,
    connections: Arc<Semaphore>,
    end: OnceLock<Instant>,
}

impl Shared {
    /// Whether new requests are welcome: the server is not stopping, and its engine is not draining.
    pub(crate) fn ready(&self) -> bool {
        self.end.get().is_none() && self.engine.ready()
    }
}

/// Turns true once, when the server stops: no new requests, end when idle.
pub type Stopping = watch::Receiver<bool>;

/// Waits until the server stops.
pub(crate) async fn stopped(stopping: &mut Stopping) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// A running server; it stops when it is dropped.
pub struct Server {
    http: Option<SocketAddr>,
    grpc: Option<SocketAddr>,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Server {
    /// Listens and answers, on threads of its own.
    ///
    /// # Errors
    /// `INVALID_OPTION`: a setting that cannot be, or an address that cannot be listened on, which the message names.
    pub fn start(engine: Arc<Engine>, settings: ServerSettings) -> Result<Server> {
        settings.check()?;
        quiet_panics();
        let threads = settings.thread_count();
        let mut http = settings.http_port.map(|port| listen::bind("http_port", &settings.host, port, threads)).transpose()?;
        let mut grpc = settings.grpc_port.map(|port| listen::bind("grpc_port", &settings.host, port, threads)).transpose()?;
        let (stop, stopping) = watch::channel(false);
        let connections = Arc::new(Semaphore::new(settings.max_connections));
        let shared = Arc::new(Shared { engine, settings, connections, end: OnceLock::new() });
        let address = |listeners: &Option<Listeners>| listeners.as_ref().map(|listeners| listeners.address);
        let server = Server { http: address(&http), grpc: address(&grpc), shared, stop, threads: Mutex::new(Vec::new()) };
        for index in 0..threads {
            let next = |listeners: &mut Option<Listeners>| listeners.as_mut().and_then(|listeners| listeners.sockets.pop());
            let thread = Thread { shared: server.shared.clone(), stopping: stopping.clone(), pool: Pool::default() };
            let handle = thread.start(index, next(&mut http), next(&mut grpc))?;
            server.threads.lock().push(handle);
        }
        Ok(server)
    }

    /// Where the REST form listens.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Where the gRPC form listens.
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.grpc
    }

    /// Takes nothing new, finishes what is in flight within `grace`, and returns when all threads have ended.
    pub fn stop(&self, grace: Duration) {
        let now = Instant::now();
        self.shared.end.get_or_init(|| now.checked_add(grace).unwrap_or(now));
        self.stop.send_replace(true);
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

#[derive(Clone, Copy)]
enum Form {
    Http,
    Grpc,
}

/// What one thread works with.
#[derive(Clone)]
struct Thread {
    shared: Arc<Shared>,
    stopping: Stopping,
    pool: Pool,
}

/// Held by whatever must end before its thread does.
type Alive = mpsc::Sender<Infallible>;

impl Thread {
    fn start(self, index: usize, http: Option<std::net::TcpListener>, grpc: Option<std::net::TcpListener>) -> Result<JoinHandle<()>> {
        let failed = |what: &str, error: std::io::Error| NnrpError::new(Reason::InvalidOption, format!("server: {what} failed: {}", error.kind()));
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| failed("starting a runtime", error))?;
        let listeners = {
            let _context = runtime.enter();
            let listener = |socket: Option<std::net::TcpListener>| socket.map(TcpListener::from_std).transpose().map_err(|error| failed("listening", error));
            [(Form::Http, listener(http)?), (Form::Grpc, listener(grpc)?)]
        };
        std::thread::Builder::new()
            .name(format!("{THREAD_PREFIX}{index}"))
            .stack_size(8 << 20)
            .spawn(move || self.run(&runtime, listeners))
            .map_err(|error| failed("starting a thread", error))
    }

    fn run(mut self, runtime: &Runtime, listeners: [(Form, Option<TcpListener>); 2]) {
        runtime.block_on(async {
            let (alive, mut ended) = mpsc::channel(1);
            for (form, listener) in listeners {
                if let Some(listener) = listener {
                    tokio::spawn(self.clone().accept(form, listener, alive.clone()));
                }
            }
            drop(alive);
            stopped(&mut self.stopping).await;
            let end = self.shared.end.get().copied().unwrap_or_else(Instant::now);
            let _ = tokio::time::timeout_at(end.into(), ended.recv()).await;
        });
    }

    async fn accept(mut self, form: Form, listener: TcpListener, alive: Alive) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = stopped(&mut self.stopping) => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    let Ok(permit) = self.permit().await else { return };
                    self.serve(form, stream, permit, alive.clone());
                }
                Err(error) if listen::of_one_connection(&error) => {}
                // No descriptors, no memory: others must end first.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn permit(&mut self) -> std::result::Result<OwnedSemaphorePermit, ()> {
        if let Ok(permit) = self.shared.connections.clone().try_acquire_owned() {
            return Ok(permit);
        }
        tokio::select! {
            () = stopped(&mut self.stopping) => Err(()),
            permit = self.shared.connections.clone().acquire_owned() => permit.map_err(|_| ()),
        }
    }

    fn serve(&self, form: Form, stream: TcpStream, permit: OwnedSemaphorePermit, alive: Alive) {
        let Thread { shared, stopping, pool } = self.clone();
        match form {
            Form::Http => {
                tokio::spawn(async move {
                    let _held = (permit, alive);
                    crate::rest::serve_connection(stream, shared, pool, stopping).await;
                });
            }
            Form::Grpc => {
                tokio::spawn(async move {
                    let _held = (permit, alive);
                    crate::grpc::serve_connection(stream, shared, pool, stopping).await;
                });
            }
        }
    }
}

const THREAD_PREFIX: &str = "nnrp-";

/// Prefixes of the names of our threads: the sockets' and the models'.
const OURS: [&str; 2] = [THREAD_PREFIX, "nnrp:"];

/// Makes a panic on a server's thread one line without a path; other threads keep their hook.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !std::thread::current().name().is_some_and(|name| OURS.iter().any(|ours| name.starts_with(ours))) {
                return others(panic);
            }
            let payload = panic.payload();
            let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
            eprintln!("nnrp: a request handler failed: {}", excerpt(text));
        }));
    });
}
