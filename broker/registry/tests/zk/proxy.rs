//! A proxy in front of a ZooKeeper server. It can reset connections or make them silent, while the server runs.

use std::time::Duration;

use e2e::port::free_port;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The proxy. Dropping it ends the connections that it forwards. Silent ones stay open until the end of the test.
pub(crate) struct Proxy {
    port: u16,
    server: u16,
    order: watch::Sender<Order>,
    accepting: JoinHandle<()>,
}

/// Order for the connections that exist when it is given. Later connections are forwarded.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    Pass,
    Reset,
    Swallow,
}

impl Proxy {
    pub(crate) async fn before(server: u16) -> Self {
        let port = free_port();
        let (order, _) = watch::channel(Order::Pass);
        let accepting = accept(port, server, order.clone()).await;
        Self {
            port,
            server,
            order,
            accepting,
        }
    }

    pub(crate) fn hosts(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Resets every forwarded connection, on both sides.
    pub(crate) fn reset(&self) {
        self.order.send_replace(Order::Reset);
    }

    /// Stops forwarding on all existing connections, without closing them.
    pub(crate) fn swallow(&self) {
        self.order.send_replace(Order::Swallow);
    }

    /// Like [`swallow`](Self::swallow). Also refuses new connections.
    pub(crate) fn close(&self) {
        self.accepting.abort();
        self.swallow();
    }

    /// Accepts new connections again.
    pub(crate) async fn open(&mut self) {
        self.accepting = accept(self.port, self.server, self.order.clone()).await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(port: u16, server: u16, order: watch::Sender<Order>) -> JoinHandle<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            // Only orders from now on.
            let orders = order.subscribe();
            tokio::spawn(async move {
                if let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await {
                    pass(client, server, orders).await;
                }
            });
        }
    })
}

async fn pass(mut client: TcpStream, mut server: TcpStream, mut orders: watch::Receiver<Order>) {
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
        changed = orders.changed() => if changed.is_err() { return },
    }
    if *orders.borrow() == Order::Reset {
        for stream in [&client, &server] {
            SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        return;
    }
    // Silent until the end of the test.
    std::future::pending().await
}
