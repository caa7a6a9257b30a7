//! The two sockets of a session, to the component and to the node: non-blocking writes and reads, and the orderly close.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use standin_daemon::linger;
use standin_tls::stream::Stream;

use crate::cause::Cause;
use crate::listener_policy::ComponentTls;
use crate::session::{EndReason, Wires};

/// The two sockets of a session, each with the failure of its connection, if any.
pub(crate) struct Sockets {
    pub(crate) component: Stream,
    /// TLS that the component has not begun yet.
    pub(crate) tls: Option<Box<ComponentTls>>,
    pub(crate) component_broke: bool,
    pub(crate) node: Option<Stream>,
    pub(crate) node_broke: Option<Cause>,
}

impl Sockets {
    /// Closes the connection to the node. With `reset` it is closed by an RST, which discards the bytes in the send buffer.
    /// Without the RST, a frozen node that resumes would receive them and deliver them after newer messages (promise S12).
    /// The node may still read what is already in its receive buffer.
    pub(crate) fn drop_node(&mut self, reset: bool) {
        if let Some(node) = self.node.take()
            && reset
        {
            // A close with a linger time of zero sends an RST instead of a FIN.
            let _ = SockRef::from(node.socket()).set_linger(Some(Duration::ZERO));
        }
    }
}

impl Sockets {
    /// Begins TLS with the component.
    pub(crate) fn begin_tls(&mut self) {
        let begun = self.tls.take().map(|tls| tls.acceptor.begin(&mut self.component));
        self.component_broke |= begun.is_some_and(|begun| begun.is_err());
    }

    /// Writes the bytes to the component that are encrypted already. Returns `Ready` when all of them are written and the
    /// connection takes more, or when it is broken.
    pub(crate) fn poll_component_writable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let writable = poll_writable(&self.component, cx);
        self.component_broke |= matches!(writable, Poll::Ready(Err(_)));
        writable.map(|_| ())
    }

    /// Returns `Ready` if the connection to the node takes bytes, as
    /// [`poll_component_writable`](Self::poll_component_writable) does.
    pub(crate) fn poll_node_writable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(node) = &self.node else {
            return Poll::Pending;
        };
        let writable = ready!(poll_writable(node, cx));
        if writable.is_err() {
            self.node_broke = Some(Cause::WriteError);
        }
        Poll::Ready(())
    }
}

fn poll_writable(stream: &Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    ready!(stream.poll_flush(cx))?;
    stream.poll_write_ready(cx)
}

impl Wires for Sockets {
    fn write_node(&mut self, parts: &[IoSlice<'_>]) -> usize {
        let Some(node) = self.node.as_ref().filter(|_| self.node_broke.is_none()) else {
            return 0;
        };
        try_write(node, parts).unwrap_or_else(|_| {
            self.node_broke = Some(Cause::WriteError);
            0
        })
    }

    fn write_component(&mut self, parts: &[IoSlice<'_>]) -> usize {
        let written = try_write(&self.component, parts).unwrap_or_else(|_| {
            self.component_broke = true;
            0
        });
        // The first bytes to a component are its INFO. All bytes after it are encrypted.
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if written == len && self.tls.as_ref().is_some_and(|tls| !tls.is_optional) {
            self.begin_tls();
        }
        written
    }
}

/// Writes as many bytes as the connection takes now.
fn try_write(stream: &Stream, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    match stream.try_write(parts) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        written => written,
    }
}

/// Turns on TCP keepalive, to detect a lost host. The kernel sends the first probe after `idle` without a segment from the
/// peer, and further probes at the same interval.
pub(crate) fn keep_alive(socket: &SockRef<'_>, idle: Duration) -> io::Result<()> {
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle).with_interval(idle))
}

/// Closes both connections in an orderly way. The connection to the component is only dropped if it is broken, or if the
/// component was evicted, because its place is needed at once.
pub(crate) async fn close(sockets: Sockets, end: EndReason) {
    let Sockets { component, node, .. } = sockets;
    let close_node = async {
        if let Some(node) = node {
            linger::close(node).await;
        }
    };
    let close_component = async {
        if !matches!(end, EndReason::ComponentBroke | EndReason::Evicted) {
            linger::close(component).await;
        }
    };
    tokio::join!(close_node, close_component);
}
