//! A relay in front of a ZooKeeper server, by which a connection is reset or falls silent while the server lives.

use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::free_port;

/// The relay; what it passes ends with it.
pub(crate) struct Proxy {
    port: u16,
    server: u16,
    fate: watch::Sender<Fate>,
    accepting: JoinHandle<()>,
}

/// What becomes of the connections that are there when it is ordered. Later ones are passed.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Pass,
    Reset,
    Swallow,
}

impl Proxy {
    pub(crate) async fn before(server: u16) -> Self {
        let port = free_port();
        let (fate, _) = watch::channel(Fate::Pass);
        let accepting = accept(port, server, fate.clone()).await;
        Self {
            port,
            server,
            fate,
            accepting,
        }
    }

    pub(crate) fn hosts(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Resets every connection, on both sides.
    pub(crate) fn reset(&self) {
        self.fate.send_replace(Fate::Reset);
    }

    /// Passes nothing any more on every connection that is there, and closes none.
    pub(crate) fn swallow(&self) {
        self.fate.send_replace(Fate::Swallow);
    }

    /// As [`swallow`](Self::swallow), and refuses new ones.
    pub(crate) fn close(&self) {
        self.accepting.abort();
        self.swallow();
    }

    /// Takes new connections again.
    pub(crate) async fn open(&mut self) {
        self.accepting = accept(self.port, self.server, self.fate.clone()).await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(port: u16, server: u16, fate: watch::Sender<Fate>) -> JoinHandle<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            // Only what is ordered from now on.
            let fates = fate.subscribe();
            tokio::spawn(async move {
                if let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await {
                    pass(client, server, fates).await;
                }
            });
        }
    })
}

async fn pass(mut client: TcpStream, mut server: TcpStream, mut fates: watch::Receiver<Fate>) {
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
        changed = fates.changed() => if changed.is_err() { return },
    }
    if *fates.borrow() == Fate::Reset {
        for stream in [&client, &server] {
            SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        return;
    }
    // Silent for as long as the test runs.
    std::future::pending().await
}
