//! What a server may be told.
use nnrp_core::{NnrpError, Reason, Result};
use std::time::Duration;
use tokio::sync::Semaphore;

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
    /// Most bytes of answers that clients have not read, all connections together; beside them each connection may have 64 KiB.
    pub max_unread_bytes: usize,
    /// HTTP status of `QUEUE_FULL` and `UNREAD_ANSWERS`: 503 or 429.
    pub queue_full_status: u16,
    /// How long a request may take to send its head once it began, or pause within its body.
    pub read_timeout: Duration,
    /// How long a client may leave its answer unread; one that reads none of it is dropped then, or at the latest after twice as long.
    pub write_timeout: Duration,
    /// How long a connection may have nothing to answer; it is closed then, or at the latest after twice as long.
    pub idle_timeout: Duration,
    /// What each thread that reads sockets does first.
    pub begin: fn(),
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
            max_unread_bytes: 1 << 30,
            queue_full_status: 503,
            read_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            // Longer than the minute for which load balancers keep connections, so that they close first.
            idle_timeout: Duration::from_secs(75),
            begin: || {},
        }
    }
}

impl ServerSettings {
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |name: &str, expected: &str, got: String| {
            Err(NnrpError::new(Reason::InvalidOption, format!("server setting '{name}': expected {expected}, got {got}")).with("setting", name))
        };
        if self.http_port.is_none() && self.grpc_port.is_none() {
            return wrong("http_port, grpc_port", "at least one port", "none".to_owned());
        }
        if !matches!(self.queue_full_status, 503 | 429) {
            return wrong("queue_full_status", "503 or 429", self.queue_full_status.to_string());
        }
        let bounds = [("max_body_bytes", self.max_body_bytes), ("max_connections", self.max_connections), ("max_unread_bytes", self.max_unread_bytes)];
        for (name, value) in bounds {
            if value == 0 || value > Semaphore::MAX_PERMITS {
                return wrong(name, "a number from 1", value.to_string());
            }
        }
        for (name, value) in [("read_timeout", self.read_timeout), ("write_timeout", self.write_timeout), ("idle_timeout", self.idle_timeout)] {
            if value.is_zero() {
                return wrong(name, "more than nothing", format!("{value:?}"));
            }
        }
        Ok(())
    }

    pub(crate) fn thread_count(&self) -> usize {
        if self.threads > 0 { self.threads.min(1024) } else { std::thread::available_parallelism().map_or(1, usize::from) }
    }
}
