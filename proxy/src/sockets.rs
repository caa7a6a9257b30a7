//! The two sockets of a session: written without waiting, read when ready, closed in order.

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

/// The sockets of a session, and whether and why they broke.
pub(crate) struct Sockets {
    pub(crate) component: TcpStream,
    pub(crate) component_broke: bool,
    pub(crate) node: Option<TcpStream>,
    pub(crate) node_broke: Option<Cause>,
}

impl Sockets {
    /// Drops the connection to the node. With `reset`, the node discards bytes that it has not read yet. Otherwise a
    /// frozen node that resumes would deliver messages that were counted as lost, after newer ones (promise S12).
    pub(crate) fn drop_node(&mut self, reset: bool) {
        if let Some(node) = self.node.take()
            && reset
        {
            // Without it the node gets an orderly close and continues to read.
            let _ = SockRef::from(&node).set_linger(Some(Duration::ZERO));
        }
    }
}

impl Wires for Sockets {
    fn write_node(&mut self, parts: &[IoSlice<'_>]) -> usize {
        let Some(node) = self.node.as_ref().filter(|_| self.node_broke.is_none()) else {
            return 0;
        };
        match try_write(node, parts) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.node_broke = Some(Cause::WriteError);
                0
            }
        }
    }

    fn write_component(&mut self, parts: &[IoSlice<'_>]) -> usize {
        match try_write(&self.component, parts) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.component_broke = true;
                0
            }
        }
    }
}

/// Writes as many bytes as the socket takes. Nearly always there is one part, and `send` is cheaper in the kernel
/// than `writev`.
fn try_write(stream: &TcpStream, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    match parts {
        [part] => stream.try_write(part),
        _ => stream.try_write_vectored(parts),
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

/// Turns on TCP keep-alive: the kernel probes a silent peer after `idle`, and then at the same interval, to detect a
/// lost host.
pub(crate) fn keep_alive(socket: &SockRef<'_>, idle: Duration) -> io::Result<()> {
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle).with_interval(idle))
}

/// Closes both sockets in order, except a broken socket of the component.
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
