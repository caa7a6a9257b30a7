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
use standin_tls::stream::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
    sync::{oneshot, watch},
    time::{Instant, Sleep, sleep_until},
};

use super::page_access::PageAccess;
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
    access: watch::Receiver<PageAccess>,
    /// Open connections, oldest first. Dropping a sender evicts its connection. A sender whose connection has ended is
    /// closed.
    open: VecDeque<oneshot::Sender<()>>,
}

impl LimitedListener {
    pub(super) fn new(listener: TcpListener, access: watch::Receiver<PageAccess>) -> Self {
        Self {
            listener,
            access,
            open: VecDeque::with_capacity(CONNECTIONS_MAX),
        }
    }

    /// Adds the limits to a connection. `handshake`: the limit on the time for its TLS handshake.
    fn limited(&mut self, stream: Stream, handshake: Option<Duration>) -> LimitedStream {
        self.open.retain(|connection| !connection.is_closed());
        if self.open.len() >= CONNECTIONS_MAX {
            self.open.pop_front();
        }
        let (keep, evicted) = oneshot::channel();
        self.open.push_back(keep);
        let now = Instant::now();
        let ends_at = now + Duration::from_secs(CONNECTION_SECS_MAX);
        LimitedStream {
            stream,
            evicted,
            deadline: Box::pin(sleep_until(handshake.map_or(ends_at, |limit| now + limit))),
            after_handshake: handshake.map(|_| ends_at),
            read_bytes: 0,
        }
    }
}

impl Listener for LimitedListener {
    type Io = LimitedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (LimitedStream, SocketAddr) {
        let begin = |socket| self.access.borrow().begin(socket);
        let ((stream, handshake), peer) = accept(&self.listener, "HTTP connection", begin, || ()).await;
        (self.limited(stream, handshake), peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection with its limits.
pub(super) struct LimitedStream {
    stream: Stream,
    evicted: oneshot::Receiver<()>,
    deadline: Pin<Box<Sleep>>,
    /// The deadline from the end of the TLS handshake on, which the first byte of the request shows.
    after_handshake: Option<Instant>,
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
        let polled = AsyncRead::poll_read(Pin::new(&mut self.stream), context, buffer);
        self.read_bytes += buffer.filled().len() - before;
        if self.read_bytes > 0
            && let Some(ends_at) = self.after_handshake.take()
        {
            self.deadline.as_mut().reset(ends_at);
        }
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
        AsyncWrite::poll_write(Pin::new(&mut self.stream), context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_limits(context)?;
        AsyncWrite::poll_flush(Pin::new(&mut self.stream), context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.stream), context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpStream;

    use super::*;

    async fn connections() -> (LimitedListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_, access) = watch::channel(PageAccess::default());
        (LimitedListener::new(listener, access), address)
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
