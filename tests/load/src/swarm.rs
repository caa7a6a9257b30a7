//! Many components on one thread, each with one connection and one subscription. Also reads a measurement's commands from
//! standard input.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::Outcome;
use crate::access::{self, Access, User};
use crate::incoming::{Arrival, Incoming, MessageFrame};

/// Size of a component's read buffer. The longest frame is a server's first INFO.
const BUFFER_BYTES: usize = 8 * 1024;
/// Limit on the connections being opened at the same time.
const OPENING_MAX: usize = 64;
/// Limit on the components with one source address, which has about 28,000 ephemeral ports.
const COMPONENTS_PER_SOURCE: usize = 5_000;
/// Timeout for a component to connect and subscribe.
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);

/// One of the many connections.
#[derive(Debug)]
pub(crate) struct Component {
    /// Its local address, under which the server lists it.
    pub(crate) address: SocketAddr,
    stream: TcpStream,
    /// Bytes that the socket has not accepted yet.
    unsent: RefCell<Vec<u8>>,
    /// Number of messages received since the last [`mark`](Self::mark).
    pub(crate) messages: Cell<u64>,
    /// Time of the last message or of the last mark, whichever is later.
    last: Cell<Instant>,
    /// Longest silence that ended with a message since the last mark.
    longest: Cell<Duration>,
    /// Whether the connection has ended.
    pub(crate) is_lost: Cell<bool>,
}

impl Component {
    /// Connects, subscribes to `subject`, and waits until the server has processed the subscription.
    pub(crate) async fn open(
        server: SocketAddr,
        source: Option<IpAddr>,
        subject: &str,
    ) -> io::Result<(Self, Incoming)> {
        Self::open_as(server, source, subject, Access::current().user.as_ref()).await
    }

    /// Does the same as [`open`](Self::open), as this user.
    pub(crate) async fn open_as(
        server: SocketAddr,
        source: Option<IpAddr>,
        subject: &str,
        user: Option<&User>,
    ) -> io::Result<(Self, Incoming)> {
        if Access::current().tls.is_some() {
            return Err(io::Error::other("this measurement cannot use TLS"));
        }
        let socket = TcpSocket::new_v4()?;
        if let Some(source) = source {
            socket.bind((source, 0).into())?;
        }
        let stream = socket.connect(server).await?;
        stream.set_nodelay(true)?;
        let component = Self {
            address: stream.local_addr()?,
            stream,
            unsent: RefCell::default(),
            messages: Cell::default(),
            last: Cell::new(Instant::now()),
            longest: Cell::default(),
            is_lost: Cell::default(),
        };
        let mut incoming = Incoming::new(BUFFER_BYTES);
        component.send(&access::connect(user, false))?;
        component.send(format!("SUB {subject} 1\r\nPING\r\n").as_bytes())?;
        loop {
            while let Some(arrival) = incoming.next()? {
                if arrival == Arrival::Pong {
                    return Ok((component, incoming));
                }
            }
            component.read(&mut incoming).await?;
        }
    }

    /// Sends whole frames. Bytes that the socket does not accept are kept for the next call, and for [`receive`](Self::receive).
    pub(crate) fn send(&self, frames: &[u8]) -> io::Result<()> {
        let mut unsent = self.unsent.borrow_mut();
        unsent.extend_from_slice(frames);
        match self.stream.try_write(&unsent) {
            Ok(written) => drop(unsent.drain(..written)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Returns the number of bytes that the socket has not accepted.
    pub(crate) fn unsent_bytes(&self) -> usize {
        self.unsent.borrow().len()
    }

    /// Resets the number of messages and the longest silence. A silence that has already begun counts from now.
    pub(crate) fn mark(&self) {
        self.last.set(Instant::now());
        self.longest.set(Duration::ZERO);
        self.messages.set(0);
    }

    /// Returns the longest silence since the last mark. Includes the present silence.
    pub(crate) fn longest_silence(&self) -> Duration {
        self.longest.get().max(self.last.get().elapsed())
    }

    /// Counts messages until the connection ends.
    async fn listen(self: Rc<Self>, mut incoming: Incoming) {
        while self.receive(&mut incoming, |_| self.hear()).await.is_ok() {}
        self.is_lost.set(true);
    }

    /// Counts a message.
    pub(crate) fn hear(&self) {
        let now = Instant::now();
        let silence = now - self.last.replace(now);
        self.longest.set(self.longest.get().max(silence));
        self.messages.set(self.messages.get() + 1);
    }

    /// Reads once, calls `take` for every message, and answers PINGs. Sends unsent bytes while it waits.
    pub(crate) async fn receive(
        &self,
        incoming: &mut Incoming,
        mut take: impl FnMut(&MessageFrame<'_>),
    ) -> io::Result<()> {
        self.read(incoming).await?;
        while let Some(arrival) = incoming.next()? {
            match arrival {
                Arrival::Message(message) => take(&message),
                Arrival::Ping => self.send(b"PONG\r\n")?,
                Arrival::Pong | Arrival::Other => {}
            }
        }
        Ok(())
    }

    async fn read(&self, incoming: &mut Incoming) -> io::Result<()> {
        loop {
            let is_sending = self.unsent_bytes() > 0;
            let interest = if is_sending {
                Interest::READABLE | Interest::WRITABLE
            } else {
                Interest::READABLE
            };
            self.stream.ready(interest).await?;
            if is_sending {
                self.send(b"")?;
            }
            match self.stream.try_read(incoming.space()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
                Ok(read) => return incoming.came(read),
            }
        }
    }
}

/// Opens `count` components at `server`. Component `n` subscribes to `PREFIX.n`.
pub(crate) async fn open(
    server: SocketAddr,
    count: usize,
    prefix: &str,
) -> Outcome<Vec<(Rc<Component>, Incoming)>> {
    let room = Rc::new(Semaphore::new(OPENING_MAX));
    let open_one = |number| {
        let (room, subject) = (Rc::clone(&room), format!("{prefix}.{number}"));
        tokio::task::spawn_local(async move {
            let _permit = room.acquire().await;
            let opening = Component::open(server, source(server, number), &subject);
            let opened = tokio::time::timeout(OPEN_TIMEOUT, opening).await;
            opened.unwrap_or_else(|late| Err(late.into()))
        })
    };
    let opening: Vec<_> = (0..count).map(open_one).collect();
    let mut open = Vec::new();
    for (number, opened) in opening.into_iter().enumerate() {
        let opened = opened
            .await?
            .map_err(|error| format!("component {number}: {error}"));
        let (component, incoming) = opened?;
        open.push((Rc::new(component), incoming));
    }
    Ok(open)
}

/// Opens components as [`open`] does. Each of them then counts its messages.
pub(crate) async fn open_listening(
    server: SocketAddr,
    count: usize,
    prefix: &str,
) -> Outcome<Vec<Rc<Component>>> {
    let opened = open(server, count, prefix).await?.into_iter();
    let listening = opened.map(|(component, incoming)| {
        tokio::task::spawn_local(Rc::clone(&component).listen(incoming));
        component
    });
    Ok(listening.collect())
}

/// Returns the source address of component number `number` if the server is on the loopback, where every 127.0.0.x can be used.
/// Otherwise returns `None`, and the system chooses the address.
fn source(server: SocketAddr, number: usize) -> Option<IpAddr> {
    let last = u8::try_from(2 + number / COMPONENTS_PER_SOURCE).unwrap_or(u8::MAX);
    server
        .ip()
        .is_loopback()
        .then_some(Ipv4Addr::new(127, 0, 0, last).into())
}

/// Returns a channel with the lines of standard input. The channel closes at the end of the input.
pub(crate) fn commands() -> UnboundedReceiver<String> {
    let (sender, commands) = unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    commands
}

/// Runs `measurement` and its tasks on this thread.
pub(crate) fn block_on<T>(measurement: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, measurement)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

    /// Starts a server that accepts one component, and runs `serve` on its connection.
    pub(crate) fn server(serve: impl FnOnce(std::net::TcpStream) + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut hello = Vec::new();
            while !hello.ends_with(b"PING\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                hello.extend(byte);
            }
            stream.write_all(b"PONG\r\n").unwrap();
            serve(stream);
        });
        address
    }

    pub(crate) async fn open_one(server: SocketAddr) -> (Component, Incoming) {
        Component::open(server, None, "s").await.unwrap()
    }

    #[tokio::test]
    async fn unsent_bytes_of_a_request_are_sent_while_the_component_waits_for_the_reply() {
        const REQUEST_BYTES: usize = 32 * 1024 * 1024;
        let address = server(|mut stream| {
            stream.read_exact(&mut vec![0; REQUEST_BYTES]).unwrap();
            stream.write_all(b"MSG s 1 2\r\nhi\r\n").unwrap();
        });
        let (component, mut incoming) = open_one(address).await;
        component.send(&vec![b'x'; REQUEST_BYTES]).unwrap();
        assert!(component.unsent_bytes() > 0, "the socket took the whole request");
        let mut replies = 0;
        let receiving = component.receive(&mut incoming, |_| replies += 1);
        tokio::time::timeout(TIMEOUT, receiving).await.unwrap().unwrap();
        assert_eq!(replies, 1);
    }

    #[tokio::test]
    async fn a_silence_counts_from_the_last_mark() {
        let (component, _) = open_one(server(drop)).await;
        component.last.set(Instant::now() - TIMEOUT);
        component.mark();
        assert!(component.longest_silence() < TIMEOUT);
    }
}
