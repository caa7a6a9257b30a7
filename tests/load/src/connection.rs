//! A blocking connection of one component, for measurements with few busy connections and a thread for each.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::access::{self, Access};
use crate::incoming::{Arrival, Incoming, MessageFrame};
use crate::stream::Stream;

/// Size of the read buffer. Large reads keep the load generator cheaper than the server under test.
const BUFFER_BYTES: usize = 1024 * 1024;

/// Timeout of a read. After it the measurement fails, because the server has lost messages.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// A connection that blocks until it has read or written.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    incoming: Incoming,
}

impl Connection {
    /// Connects, and waits until the server has accepted the CONNECT.
    pub(crate) fn open(server: SocketAddr) -> io::Result<Self> {
        Self::open_for(server, false)
    }

    /// Connects as [`open`](Self::open) does, for messages with `headers` or without.
    pub(crate) fn open_for(server: SocketAddr, headers: bool) -> io::Result<Self> {
        let stream = Stream::open(server)?;
        stream.socket().set_read_timeout(Some(SILENCE_MAX))?;
        let mut connection = Self {
            stream,
            incoming: Incoming::new(BUFFER_BYTES),
        };
        connection.send(&access::connect(Access::current().user.as_ref(), headers))?;
        connection.flush()?;
        Ok(connection)
    }

    /// Makes the connection's only subscription, and waits until the server has processed it.
    pub(crate) fn subscribe(&mut self, subject: &str) -> io::Result<()> {
        self.subscribe_as(1, subject)
    }

    /// Makes one of many subscriptions. The `sid` must be new: a server ignores a SUB with a `sid` in use.
    pub(crate) fn subscribe_as(&mut self, sid: u64, subject: &str) -> io::Result<()> {
        self.send(format!("SUB {subject} {sid}\r\n").as_bytes())?;
        self.flush()
    }

    /// Waits until the server has processed everything sent before. Drops messages that arrive meanwhile. For use before the
    /// first message, and before a publisher is closed: closing a socket with an unread PING discards its unsent bytes.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.send(b"PING\r\n")?;
        loop {
            while let Some(arrival) = self.incoming.next()? {
                if arrival == Arrival::Pong {
                    return Ok(());
                }
            }
            self.read()?;
        }
    }

    /// Sends whole frames.
    pub(crate) fn send(&mut self, frames: &[u8]) -> io::Result<()> {
        self.stream.write_all(frames)
    }

    /// Reads once, and gives every message to `take`.
    pub(crate) fn receive(&mut self, mut take: impl FnMut(MessageFrame<'_>)) -> io::Result<()> {
        self.read()?;
        let mut pings = 0;
        while let Some(arrival) = self.incoming.next()? {
            match arrival {
                Arrival::Message(message) => take(message),
                Arrival::Ping => pings += 1,
                Arrival::Pong | Arrival::Other => {}
            }
        }
        for _ in 0..pings {
            self.send(b"PONG\r\n")?;
        }
        Ok(())
    }

    /// Receives as [`receive`](Self::receive) does, but waits at most for `timeout`.
    pub(crate) fn receive_within(
        &mut self,
        timeout: Duration,
        take: impl FnMut(MessageFrame<'_>),
    ) -> io::Result<()> {
        self.stream.socket().set_read_timeout(Some(timeout))?;
        let received = self.receive(take);
        self.stream.socket().set_read_timeout(Some(SILENCE_MAX))?;
        match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            received => received,
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let read = self.stream.read(self.incoming.space())?;
        self.incoming.came(read)
    }
}

/// Returns the bytes of a PUB.
pub(crate) fn publish(subject: &str, reply: Option<&str>, payload: &[u8]) -> Vec<u8> {
    let reply = reply.map(|reply| format!(" {reply}")).unwrap_or_default();
    let mut frame = format!("PUB {subject}{reply} {}\r\n", payload.len()).into_bytes();
    frame.extend_from_slice(payload);
    frame.extend_from_slice(b"\r\n");
    frame
}

/// Returns the bytes of an HPUB with one short header.
pub(crate) fn publish_with_headers(subject: &str, payload: &[u8]) -> Vec<u8> {
    const HEADERS: &[u8] = b"NATS/1.0\r\nTrace: 0123456789abcdef\r\n\r\n";
    let sizes = format!("{} {}", HEADERS.len(), HEADERS.len() + payload.len());
    let mut frame = format!("HPUB {subject} {sizes}\r\n").into_bytes();
    frame.extend_from_slice(HEADERS);
    frame.extend_from_slice(payload);
    frame.extend_from_slice(b"\r\n");
    frame
}
