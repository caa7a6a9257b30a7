//! The two sockets of a session, to the component and to the node: non-blocking writes and reads, and the orderly close.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use standin_daemon::linger;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use crate::cause::Cause;
use crate::session::{EndReason, Wires};

/// The two sockets of a session, each with the failure of its connection, if any.
pub(crate) struct Sockets {
    pub(crate) component: TcpStream,
    pub(crate) component_broke: bool,
    pub(crate) node: Option<TcpStream>,
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
            let _ = SockRef::from(&node).set_linger(Some(Duration::ZERO));
        }
    }
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
        try_write(&self.component, parts).unwrap_or_else(|_| {
            self.component_broke = true;
            0
        })
    }
}

/// Writes as many bytes as the send buffer of the socket takes. A single part, the usual case, is written with `send`, which
/// costs the kernel less than `writev`.
fn try_write(stream: &TcpStream, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    let written = match parts {
        [part] => stream.try_write(part),
        _ => stream.try_write_vectored(parts),
    };
    match written {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        written => written,
    }
}

/// Reads the available bytes, up to the length of `buffer`.
pub(crate) fn read(
    stream: &mut TcpStream,
    buffer: &mut [u8],
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut buffer = ReadBuf::new(buffer);
    let read = Pin::new(stream).poll_read(cx, &mut buffer);
    read.map_ok(|()| buffer.filled().len())
}

/// Turns on TCP keepalive, to detect a lost host. The kernel sends the first probe after `idle` without a segment from the
/// peer, and further probes at the same interval.
pub(crate) fn keep_alive(socket: &SockRef<'_>, idle: Duration) -> io::Result<()> {
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle).with_interval(idle))
}

/// Closes both connections in an orderly way. A broken connection to the component is only dropped.
pub(crate) async fn close(sockets: Sockets, end: EndReason) {
    let Sockets { component, node, .. } = sockets;
    let close_node = async {
        if let Some(node) = node {
            linger::close(node).await;
        }
    };
    let close_component = async {
        if end != EndReason::ComponentBroke {
            linger::close(component).await;
        }
    };
    tokio::join!(close_node, close_component);
}
