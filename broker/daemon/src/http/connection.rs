//! The limits of the HTTP listener: few connections, each short and small.
//!
//! A connection that reaches a limit is cut by an error at its next read or write. When there are too many, the oldest
//! goes: so clients that hold connections open without asking cannot keep a health check out.

use std::{
    collections::VecDeque,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    time::{Sleep, sleep},
};

/// Most connections at the same time.
const CONNECTIONS_MAX: usize = 64;
/// The longest that one connection lasts, in seconds: request, answer and all.
const CONNECTION_SECS_MAX: u64 = 10;
/// The largest request, in bytes. No page takes a body.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// Pause after a failed accept, in milliseconds: out of file descriptors, most likely.
const ACCEPT_PAUSE_MS: u64 = 100;

/// The listener, and the connections it has given out.
pub(super) struct Connections {
    listener: TcpListener,
    /// Oldest first. Dropping one cuts its connection; it is closed when the connection is gone.
    open: VecDeque<oneshot::Sender<()>>,
}

impl Connections {
    pub(super) fn of(listener: TcpListener) -> Self {
        Self {
            listener,
            open: VecDeque::with_capacity(CONNECTIONS_MAX),
        }
    }

    fn take(&mut self, stream: TcpStream) -> Connection {
        self.open.retain(|connection| !connection.is_closed());
        if self.open.len() >= CONNECTIONS_MAX {
            self.open.pop_front();
        }
        let (keep, cut) = oneshot::channel();
        self.open.push_back(keep);
        Connection {
            stream,
            cut,
            deadline: Box::pin(sleep(Duration::from_secs(CONNECTION_SECS_MAX))),
            read_bytes: 0,
        }
    }
}

impl Listener for Connections {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, from)) => return (self.take(stream), from),
                Err(error) => {
                    tracing::debug!(%error, "HTTP accept failed; trying again");
                    sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// One connection, with its limits.
pub(super) struct Connection {
    stream: TcpStream,
    cut: oneshot::Receiver<()>,
    deadline: Pin<Box<Sleep>>,
    read_bytes: usize,
}

impl Connection {
    /// The error that ends the connection, once a limit is reached. Wakes the task when one will be.
    fn limit(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if Pin::new(&mut self.cut).poll(context).is_ready() {
            return Err(io::Error::other(
                "more HTTP connections than are served at once; this was the oldest",
            ));
        }
        if self.deadline.as_mut().poll(context).is_ready() {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "HTTP connection over its time",
            ));
        }
        if self.read_bytes > REQUEST_BYTES_MAX {
            return Err(io::Error::other("HTTP request over its size"));
        }
        Ok(())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.limit(context)?;
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.read_bytes += buffer.filled().len() - before;
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.limit(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.limit(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    async fn connections() -> (Connections, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Connections::of(listener), address)
    }

    #[tokio::test]
    async fn one_connection_too_many_cuts_the_oldest() {
        let (mut connections, address) = connections().await;
        let mut clients = Vec::new();
        let mut served = Vec::new();
        for _ in 0..=CONNECTIONS_MAX {
            clients.push(TcpStream::connect(address).await.unwrap());
            served.push(connections.accept().await.0);
        }
        let error = served[0].read_u8().await.unwrap_err();
        assert!(error.to_string().contains("this was the oldest"), "{error}");
        let second = tokio::time::timeout(Duration::from_millis(1), served[1].read_u8()).await;
        assert!(second.is_err(), "the second oldest stays: {second:?}");
    }

    #[tokio::test]
    async fn ended_connections_make_room() {
        let (mut connections, address) = connections().await;
        let _client = TcpStream::connect(address).await.unwrap();
        let mut first = connections.accept().await.0;
        for _ in 0..CONNECTIONS_MAX * 2 {
            let _client = TcpStream::connect(address).await.unwrap();
            drop(connections.accept().await);
        }
        let read = tokio::time::timeout(Duration::from_millis(1), first.read_u8()).await;
        assert!(read.is_err(), "the first stays: {read:?}");
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_is_cut() {
        let (mut connections, address) = connections().await;
        let _client = TcpStream::connect(address).await.unwrap();
        let mut served = connections.accept().await.0;
        let now = tokio::time::Instant::now();
        let left = served.deadline.deadline() - now;
        assert!(left <= Duration::from_secs(CONNECTION_SECS_MAX), "{left:?}");
        served.deadline.as_mut().reset(now + Duration::from_millis(20));
        let error = served.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
