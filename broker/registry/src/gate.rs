//! One dialled connection to one ZooKeeper server, handed to the client library as a loopback address.
//!
//! The library dials without a time limit, and when a server accepts and closes it dials again at once, tens
//! of thousands of times in a few seconds. So it never dials a server: the connection is made here, with a
//! limit, and the library's socket is joined to it through a listener that takes one connection and is gone.
//! A second dial of the library is refused by the loopback, for which it does obey its retry time; by then
//! the end of the first has been seen here and the client is given up. How often servers are dialled is
//! thereby decided in `zookeeper.rs` alone.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::copy;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The library connects to its own host within this, or never.
const ACCEPT_TIMEOUT_MS: u64 = 2_000;

/// An open connection; dropping it closes it.
pub(crate) struct Gate {
    /// What the library is to connect to, once.
    pub(crate) address: SocketAddr,
    relay: JoinHandle<String>,
}

impl Gate {
    /// Connects to `server` within `limit`.
    pub(crate) async fn open(server: SocketAddr, limit: Duration) -> Result<Self, String> {
        let remote = match tokio::time::timeout(limit, TcpStream::connect(server)).await {
            Ok(Ok(remote)) => remote,
            Ok(Err(error)) => return Err(format!("cannot connect: {error}")),
            Err(_) => return Err(format!("no connection within {} ms", limit.as_millis())),
        };
        let (listener, address) = listen()
            .await
            .map_err(|error| format!("cannot listen on the loopback: {error}"))?;
        let relay = tokio::spawn(relay(remote, listener));
        Ok(Self { address, relay })
    }

    /// Returns why the connection ended, when it does. Cancel-safe.
    pub(crate) async fn ended(&mut self) -> String {
        match (&mut self.relay).await {
            Ok(reason) => reason,
            Err(error) => format!("the relay stopped: {error}"),
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.relay.abort();
    }
}

async fn listen() -> io::Result<(TcpListener, SocketAddr)> {
    let loopbacks = [
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
    ];
    let listener = TcpListener::bind(&loopbacks[..]).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

async fn relay(mut remote: TcpStream, listener: TcpListener) -> String {
    let limit = Duration::from_millis(ACCEPT_TIMEOUT_MS);
    let mut local = match tokio::time::timeout(limit, listener.accept()).await {
        Ok(Ok((local, _))) => local,
        Ok(Err(error)) => return format!("the loopback failed: {error}"),
        Err(_) => return "the client did not connect to the loopback".to_owned(),
    };
    drop(listener);
    // Small requests and answers, each waited for.
    let _ = remote.set_nodelay(true);
    let _ = local.set_nodelay(true);
    let (mut from_remote, mut to_remote) = remote.split();
    let (mut from_local, mut to_local) = local.split();
    // One side closing is the end of both: a half-open session serves nobody.
    tokio::select! {
        answer = copy(&mut from_remote, &mut to_local) => match answer {
            Ok(0) => "the server closed the connection without a word (no quorum?)".to_owned(),
            Ok(_) => "the server closed the connection".to_owned(),
            Err(error) => format!("the connection failed: {error}"),
        },
        request = copy(&mut from_local, &mut to_remote) => match request {
            Ok(_) => "the client closed the connection".to_owned(),
            Err(error) => format!("the connection failed: {error}"),
        },
    }
}
