//! TCP listener that limits the number of its connections, and the duration and the request size of each.
//!
//! A connection that exceeds a limit fails at its next read or write. When there are too many connections, the oldest is
//! evicted, so that clients with idle connections cannot block a health check.

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

use crate::listen::accept;

/// Maximum number of connections at the same time.
const CONNECTIONS_MAX: usize = 64;
/// Maximum duration of a connection, in seconds.
const CONNECTION_SECS_MAX: u64 = 10;
/// Maximum size of a request, in bytes. No page reads a body.
const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// The listener and its open connections.
pub(super) struct LimitedListener {
    listener: TcpListener,
    /// Open connections, oldest first. Dropping a sender evicts its connection. A sender whose connection has ended is
    /// closed.
    open: VecDeque<oneshot::Sender<()>>,
}

impl LimitedListener {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self {
            listener,
            open: VecDeque::with_capacity(CONNECTIONS_MAX),
        }
    }

    fn limited(&mut self, stream: TcpStream) -> LimitedStream {
        self.open.retain(|connection| !connection.is_closed());
        if self.open.len() >= CONNECTIONS_MAX {
            self.open.pop_front();
        }
        let (keep, evicted) = oneshot::channel();
        self.open.push_back(keep);
        LimitedStream {
            stream,
            evicted,
            deadline: Box::pin(sleep(Duration::from_secs(CONNECTION_SECS_MAX))),
            read_bytes: 0,
        }
    }
}

impl Listener for LimitedListener {
    type Io = LimitedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (LimitedStream, SocketAddr) {
        let (stream, peer) = accept(&self.listener, "HTTP connection", Ok, || ()).await;
        (self.limited(stream), peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection with its limits.
pub(super) struct LimitedStream {
    stream: TcpStream,
    evicted: oneshot::Receiver<()>,
    deadline: Pin<Box<Sleep>>,
    read_bytes: usize,
}

impl LimitedStream {
    /// Returns an error if the connection exceeds a limit. Otherwise registers the task to be woken when the time is over or
    /// the connection is evicted.
    fn check_limits(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        // A receiver that was ready must not be polled again.
        if self.evicted.is_terminated() || Pin::new(&mut self.evicted).poll(context).is_ready() {
            return Err(io::Error::other(
                "evicted: too many HTTP connections, and this was the oldest",
            ));
        }
        if self.deadline.as_mut().poll(context).is_ready() {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "HTTP connection exceeded its time limit",
            ));
        }
        if self.read_bytes > REQUEST_BYTES_MAX {
            return Err(io::Error::other("HTTP request exceeded its size limit"));
        }
        Ok(())
    }
}

impl AsyncRead for LimitedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_limits(context)?;
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.read_bytes += buffer.filled().len() - before;
        polled
    }
}

impl AsyncWrite for LimitedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_limits(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_limits(context)?;
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

    async fn connections() -> (LimitedListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (LimitedListener::new(listener), address)
    }

    #[tokio::test]
    async fn one_connection_too_many_evicts_the_oldest() {
        let (mut connections, address) = connections().await;
        let mut clients = Vec::new();
        let mut served = Vec::new();
        for _ in 0..=CONNECTIONS_MAX {
            clients.push(TcpStream::connect(address).await.unwrap());
            served.push(connections.accept().await.0);
        }
        for _ in 0..2 {
            let error = served[0].read_u8().await.unwrap_err();
            assert!(error.to_string().contains("this was the oldest"), "{error}");
        }
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
    async fn a_client_that_sends_nothing_is_disconnected() {
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
