//! A slow link for a test.

use crate::port::free_port;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A relay on loopback. It ends when it is dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    task: JoinHandle<std::io::Result<()>>,
}

impl Relay {
    /// Starts a relay to `target` that delays each byte by `delay`, in both directions. `target` need not listen yet.
    pub async fn start(target: SocketAddr, delay: Duration) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let listener = TcpListener::bind(address).await.expect("the relay's port");
        let task = tokio::spawn(load::relay::serve(listener, target.to_string(), delay));
        Self { address, task }
    }

    /// Returns the address on which the relay listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}
