//! The sockets: one single-threaded runtime per core, each with its own listeners, all in front of one engine.
use crate::buffer::Pool;
use crate::listen::{self, Listeners};
use crate::settings::ServerSettings;
use crate::shared::{Shared, Signal, Signals, closing, over};
use crate::{grpc, rest};
use nnrp_core::condvar::Condvar;
use nnrp_core::error::excerpt;
use nnrp_core::{Engine, NnrpError, Reason, Result};
use parking_lot::Mutex;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Once};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

/// A running server; it stops when it is dropped.
pub struct Server {
    http: Option<SocketAddr>,
    grpc: Option<SocketAddr>,
    shared: Arc<Shared>,
    tell: watch::Sender<Signal>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    living: Arc<Living>,
}

/// How many threads have not ended.
#[derive(Default)]
struct Living {
    count: Mutex<usize>,
    ended: Condvar,
}

/// Counts as long as it is kept.
struct Life(Arc<Living>);

impl Living {
    fn one_more(self: &Arc<Self>) -> Life {
        *self.count.lock() += 1;
        Life(self.clone())
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        *self.0.count.lock() -= 1;
        self.0.ended.notify_all();
    }
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
        let (tell, signals) = watch::channel(Signal::default());
        let connections = Arc::new(Semaphore::new(settings.max_connections));
        let shared = Arc::new(Shared::new(engine, settings));
        let address = |listeners: &Option<Listeners>| listeners.as_ref().map(|listeners| listeners.address);
        let server = Server { http: address(&http), grpc: address(&grpc), shared, tell, threads: Mutex::default(), living: Arc::default() };
        for index in 0..threads {
            let next = |listeners: &mut Option<Listeners>| listeners.as_mut().and_then(|listeners| listeners.sockets.pop());
            let thread = Thread { shared: server.shared.clone(), signals: signals.clone(), pool: Pool::default(), connections: connections.clone() };
            let life = server.living.one_more();
            let handle = thread.start(index, life, next(&mut http), next(&mut grpc))?;
            server.threads.lock().push(handle);
        }
        server.threads.lock().push(server.look()?);
        Ok(server)
    }

    /// Tells connections now and then to look whether they are idle or stuck, and to close once the server stops and nothing is in flight; from a thread of its
    /// own: a timer in the threads that read sockets would make each of their waits dearer (15.4 instead of 14.5 µs a request).
    fn look(&self) -> Result<JoinHandle<()>> {
        let (shared, tell, life) = (self.shared.clone(), self.tell.clone(), self.living.one_more());
        let work = move || {
            let _life = life;
            let (idle, unread) = (shared.settings.idle_timeout, shared.settings.write_timeout);
            let start = Instant::now();
            let (mut look, mut doubt) = (idle, unread);
            loop {
                let Signal { end, closing, .. } = *tell.borrow();
                let now = start.elapsed();
                let end = end.map(|end| end.saturating_duration_since(start));
                if closing {
                    break;
                } else if end.is_some_and(|end| end <= now || shared.is_done()) {
                    tell.send_modify(|signal| signal.closing = true);
                } else if now < look.min(doubt) {
                    std::thread::park_timeout(end.unwrap_or(Duration::MAX).min(look).min(doubt) - now);
                } else if look <= doubt {
                    look = now + idle;
                    tell.send_modify(|signal| signal.looks += 1);
                } else {
                    doubt = now + unread;
                    tell.send_modify(|signal| signal.doubts += 1);
                }
            }
        };
        let look = std::thread::Builder::new().name(format!("{THREAD_PREFIX}idle")).spawn(work).map_err(|error| failed("starting a thread", &error))?;
        let _ = self.shared.keeper.set(look.thread().clone());
        Ok(look)
    }

    /// Where the REST form listens.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Where the gRPC form listens.
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.grpc
    }

    /// Takes nothing new from now on, and finishes what is in flight within `grace`; said again it may end sooner, and not later. What is not finished then
    /// is answered `DRAINING` where that can be written. Until nothing is in flight any more it goes on to answer that it is not ready, and new requests
    /// likewise.
    pub fn begin_to_stop(&self, grace: Duration) {
        let now = Instant::now();
        let end = now.checked_add(grace).unwrap_or(now);
        self.shared.stop();
        self.tell.send_modify(|signal| {
            signal.end = Some(signal.end.map_or(end, |before| before.min(end)));
            signal.closing |= grace.is_zero() || self.shared.is_done();
        });
        self.threads.lock().iter().for_each(|thread| thread.thread().unpark());
    }

    /// Waits until it is stopped, but no longer than that; tells whether it is.
    pub fn is_stopped_within(&self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        let mut count = self.living.count.lock();
        while *count > 0 {
            if self.living.ended.wait_until(&mut count, until).timed_out() {
                return *count == 0;
            }
        }
        true
    }

    /// Stops, and returns when all threads have ended.
    pub fn stop(&self, grace: Duration) {
        self.begin_to_stop(grace);
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

#[cold]
fn failed(what: &str, error: &std::io::Error) -> NnrpError {
    NnrpError::new(Reason::InvalidOption, format!("server: {what} failed: {}", error.kind()))
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
    signals: Signals,
    pool: Pool,
    connections: Arc<Semaphore>,
}

/// Held by whatever must end before its thread does.
type Alive = mpsc::Sender<Infallible>;

impl Thread {
    fn start(self, index: usize, life: Life, http: Option<std::net::TcpListener>, grpc: Option<std::net::TcpListener>) -> Result<JoinHandle<()>> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| failed("starting a runtime", &error))?;
        let listeners = {
            let _context = runtime.enter();
            let listener = |socket: Option<std::net::TcpListener>| socket.map(TcpListener::from_std).transpose().map_err(|error| failed("listening", &error));
            [(Form::Http, listener(http)?), (Form::Grpc, listener(grpc)?)]
        };
        std::thread::Builder::new()
            .name(format!("{THREAD_PREFIX}{index}"))
            .stack_size(8 << 20)
            .spawn(move || {
                let _life = life;
                // Its sockets close before that ends.
                let runtime = runtime;
                (self.shared.settings.begin)();
                self.run(&runtime, listeners);
            })
            .map_err(|error| failed("starting a thread", &error))
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
            closing(&mut self.signals).await;
            tokio::select! {
                _ = ended.recv() => return,
                () = over(&mut self.signals) => {}
            }
            let _ = tokio::time::timeout(PARTING, ended.recv()).await;
        });
    }

    async fn accept(mut self, form: Form, listener: TcpListener, alive: Alive) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = closing(&mut self.signals) => return,
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
        if let Ok(permit) = self.connections.clone().try_acquire_owned() {
            return Ok(permit);
        }
        tokio::select! {
            () = closing(&mut self.signals) => Err(()),
            permit = self.connections.clone().acquire_owned() => permit.map_err(|_| ()),
        }
    }

    fn serve(&self, form: Form, stream: TcpStream, permit: OwnedSemaphorePermit, alive: Alive) {
        let Thread { shared, signals, pool, .. } = self.clone();
        match form {
            Form::Http => {
                tokio::spawn(async move {
                    let _held = (permit, alive);
                    rest::serve_connection(stream, shared, pool, signals).await;
                });
            }
            Form::Grpc => {
                tokio::spawn(async move {
                    let _held = (permit, alive);
                    grpc::serve_connection(stream, shared, pool, signals).await;
                });
            }
        }
    }
}

/// How long what was not finished in time has to say so.
const PARTING: Duration = Duration::from_millis(500);

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
