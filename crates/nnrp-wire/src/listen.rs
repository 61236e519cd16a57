//! Listening sockets: one address, one socket for each thread.
use nnrp_core::error::excerpt;
use nnrp_core::{NnrpError, Reason, Result};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

const BACKLOG: i32 = 4096;

/// Sockets that listen on one address; the system spreads connections over them.
pub(crate) struct Listeners {
    pub(crate) address: SocketAddr,
    pub(crate) sockets: Vec<TcpListener>,
}

/// Listens on the first address of `host` that can be had.
///
/// # Errors
/// `INVALID_OPTION`, naming the address: in use, not ours, or not to be found.
pub(crate) fn bind(setting: &str, host: &str, port: u16, threads: usize) -> Result<Listeners> {
    let failed = |what: &str| {
        let shown = excerpt(host);
        NnrpError::new(Reason::InvalidOption, format!("server setting '{setting}': cannot listen on {shown}:{port}: {what}"))
            .with("setting", setting)
            .with("port", port)
    };
    let addresses = (host, port).to_socket_addrs().map_err(|_| failed("no such host"))?;
    let mut last = None;
    for address in addresses {
        match bind_all(address, threads) {
            Ok(listeners) => return Ok(listeners),
            Err(error) => last = Some(error),
        }
    }
    Err(failed(&match last.as_ref().map(io::Error::kind) {
        Some(ErrorKind::AddrInUse) => "the address is in use by another server".to_owned(),
        Some(kind) => kind.to_string(),
        None => "no such host".to_owned(),
    }))
}

fn bind_all(address: SocketAddr, threads: usize) -> io::Result<Listeners> {
    // The first socket is bound alone, so that a port which another server shares out is not shared with us.
    let first = socket(address)?;
    first.bind(&SockAddr::from(address))?;
    let address = first.local_addr()?.as_socket().ok_or(ErrorKind::Unsupported)?;
    let sockets = spread(first, address, threads)?;
    sockets.iter().try_for_each(|socket| socket.listen(BACKLOG))?;
    Ok(Listeners { address, sockets: sockets.into_iter().map(TcpListener::from).collect() })
}

#[cfg(target_os = "linux")]
fn spread(first: Socket, address: SocketAddr, threads: usize) -> io::Result<Vec<Socket>> {
    first.set_reuse_port(true)?;
    let mut sockets = vec![first];
    for _ in 1..threads {
        let socket = socket(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&SockAddr::from(address))?;
        sockets.push(socket);
    }
    Ok(sockets)
}

#[cfg(not(target_os = "linux"))]
fn spread(first: Socket, _: SocketAddr, threads: usize) -> io::Result<Vec<Socket>> {
    let mut sockets = (1..threads).map(|_| first.try_clone()).collect::<io::Result<Vec<Socket>>>()?;
    sockets.push(first);
    Ok(sockets)
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // Old connections of a server that has ended do not keep its address.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// Whether accepting failed only for one connection.
pub(crate) fn of_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused | ErrorKind::Interrupted)
}
