//! A node played by the test, which decides what the node reads, what it answers, and how and when it dies.
//!
//! It does what a real `nats-server` cannot be made to do, for example die after byte 17 of a MSG, or read ten publishes and
//! confirm three. A connection reads only while the test calls a method that reads. By not calling one, a test plays a node that
//! has stopped reading. [`ScriptedNode::with_receive_buffer_bytes`] limits the bytes that the kernel accepts for such a node.

use crate::conversation::{Conversation, TIMEOUT};
use crate::raw::msg_frame;
use serde_json::{Value, json};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::{Instant, sleep, timeout};

/// Limit on the connections that wait in the kernel until the node accepts them.
const BACKLOG: u32 = 1024;

/// A listener on a free loopback port that hands each connection to the test.
#[derive(Debug)]
pub struct ScriptedNode {
    address: SocketAddr,
    listener: Option<TcpListener>,
    info: Value,
    receive_buffer_bytes: Option<u32>,
    accepted: usize,
}

impl ScriptedNode {
    /// Starts a node on a free port, with an INFO like that of a single `nats-server` 2.x.
    pub async fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), None)
    }

    /// Starts a node on a free port of `address`. A test passes an address that no other test uses: the kernel reuses ports, so
    /// at 127.0.0.1 a client of another test could connect to this node when it retries its own dead node.
    pub async fn start_on(address: IpAddr) -> Self {
        Self::start_at(SocketAddr::from((address, 0)), None)
    }

    /// Starts a node with a kernel receive buffer of about this size, so that its peer is blocked after few bytes when the node
    /// does not read.
    pub async fn with_receive_buffer_bytes(bytes: u32) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), Some(bytes))
    }

    fn start_at(address: SocketAddr, receive_buffer_bytes: Option<u32>) -> Self {
        let listener = listen(address, receive_buffer_bytes)
            .unwrap_or_else(|error| panic!("cannot listen on {address}: {error}"));
        let address = listener.local_addr().unwrap_or(address);
        let info = json!({
            "server_id": format!("SCRIPTED{}", address.port()), "server_name": format!("scripted-{}", address.port()),
            "version": "2.10.0", "proto": 1, "host": address.ip(), "port": address.port(), "headers": true,
            "max_payload": 1_048_576, "client_id": 1, "client_ip": "127.0.0.1",
        });
        Self {
            address,
            listener: Some(listener),
            info,
            receive_buffer_bytes,
            accepted: 0,
        }
    }

    /// Returns the address on which the node listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the [`address`](Self::address) as `nats://HOST:PORT`.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Returns the JSON that later connections get as INFO, to be changed.
    pub fn info_mut(&mut self) -> &mut Value {
        &mut self.info
    }

    /// Returns the number of connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted
    }

    /// Accepts the next connection and sends INFO.
    #[track_caller]
    pub fn accept(&mut self) -> impl Future<Output = NodeConnection> {
        let at = Location::caller();
        async move {
            let info = format!("INFO {}\r\n", self.info);
            let mut connection = self.take(at).await;
            connection.conversation.write(at, info.as_bytes()).await;
            connection
        }
    }

    /// Accepts the next connection and sends nothing.
    #[track_caller]
    pub fn accept_silently(&mut self) -> impl Future<Output = NodeConnection> {
        let at = Location::caller();
        async move { self.take(at).await }
    }

    /// Accepts connections until one sends CONNECT, does the [handshake](NodeConnection::handshake) with it, and returns it with
    /// the JSON of its CONNECT. Connections that send nothing before they end (probes) are skipped.
    #[track_caller]
    pub fn accept_session(&mut self) -> impl Future<Output = (NodeConnection, Value)> {
        let at = Location::caller();
        async move {
            loop {
                let info = format!("INFO {}\r\n", self.info);
                let mut connection = self.take(at).await;
                connection.conversation.write(at, info.as_bytes()).await;
                if connection.conversation.ended_before_a_byte().await {
                    continue;
                }
                let connect = connection.take_handshake(at).await;
                return (connection, connect);
            }
        }
    }

    /// Expects that no connection arrives within `silence`.
    #[track_caller]
    pub fn expect_no_connection(&mut self, silence: Duration) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move {
            let Some(listener) = &self.listener else { return };
            if let Ok(accepted) = timeout(silence, listener.accept()).await {
                panic!(
                    "{at}: node {} expected no connection for {silence:?}, got {accepted:?}",
                    self.address
                );
            }
        }
    }

    /// Stops listening. New connections are refused, and those in the backlog are reset.
    pub fn stop_listening(&mut self) {
        self.listener = None;
    }

    /// Listens again on the same address.
    pub async fn listen_again(&mut self) {
        let deadline = Instant::now() + TIMEOUT;
        while self.listener.is_none() {
            match listen(self.address, self.receive_buffer_bytes) {
                Ok(listener) => self.listener = Some(listener),
                Err(error) => assert!(
                    Instant::now() < deadline,
                    "cannot listen again on {}: {error}",
                    self.address
                ),
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn take(&mut self, at: &'static Location<'static>) -> NodeConnection {
        let Some(listener) = &self.listener else {
            panic!("{at}: node {} is not listening", self.address)
        };
        match timeout(TIMEOUT, listener.accept()).await {
            Ok(Ok((stream, _))) => {
                self.accepted += 1;
                let name = format!("node {} connection {}", self.address, self.accepted);
                NodeConnection {
                    conversation: Conversation::new(name, stream),
                }
            }
            Ok(Err(error)) => panic!("{at}: node {} cannot accept: {error}", self.address),
            Err(_) => panic!(
                "{at}: node {} expected a connection within {TIMEOUT:?}",
                self.address
            ),
        }
    }
}

/// One accepted connection, seen from the node. It has every method of [`Conversation`].
#[derive(Debug)]
pub struct NodeConnection {
    conversation: Conversation,
}

impl NodeConnection {
    /// Takes CONNECT and the PING after it, answers the PING, and returns the JSON of the CONNECT.
    /// With `"verbose":true` in CONNECT it sends `+OK` too.
    #[track_caller]
    pub fn handshake(&mut self) -> impl Future<Output = Value> {
        let at = Location::caller();
        self.take_handshake(at)
    }

    async fn take_handshake(&mut self, at: &'static Location<'static>) -> Value {
        let connect = self.conversation.take_frame(at, "CONNECT").await;
        assert_eq!(
            connect.verb(),
            "CONNECT",
            "{at}: {} expected CONNECT",
            self.conversation.name()
        );
        if connect.json()["verbose"] == true {
            self.conversation.write(at, b"+OK\r\n").await;
        }
        let ping = self.conversation.take_frame(at, "the PING after CONNECT").await;
        assert_eq!(
            ping.verb(),
            "PING",
            "{at}: {} expected PING after CONNECT",
            self.conversation.name()
        );
        self.conversation.write(at, b"PONG\r\n").await;
        connect.json()
    }

    /// Sends a MSG.
    #[track_caller]
    pub fn deliver(
        &mut self,
        sid: &str,
        subject: &str,
        payload: impl AsRef<[u8]>,
    ) -> impl Future<Output = ()> {
        self.conversation.send(msg_frame(sid, subject, payload))
    }

    /// Sends `PONG`.
    #[track_caller]
    pub fn pong(&mut self) -> impl Future<Output = ()> {
        self.conversation.send(b"PONG\r\n")
    }

    /// Takes a PING, which must be the next line, and answers it.
    #[track_caller]
    pub fn answer_ping(&mut self) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move {
            self.conversation.take_exactly(at, b"PING\r\n").await;
            self.conversation.write(at, b"PONG\r\n").await;
        }
    }

    /// Sends `-ERR 'text'`.
    #[track_caller]
    pub fn err(&mut self, text: &str) -> impl Future<Output = ()> {
        self.conversation.send(format!("-ERR '{text}'\r\n"))
    }

    /// Sends INFO with this JSON.
    #[track_caller]
    pub fn inform(&mut self, info: &Value) -> impl Future<Output = ()> {
        self.conversation.send(format!("INFO {info}\r\n"))
    }

    /// Closes the connection (FIN).
    pub async fn close(self) {
        self.conversation.close().await;
    }

    /// Resets the connection (RST). What was not read or sent is lost.
    pub fn reset(self) {
        self.conversation.reset();
    }
}

fn listen(address: SocketAddr, receive_buffer_bytes: Option<u32>) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    if let Some(bytes) = receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Deref for NodeConnection {
    type Target = Conversation;

    fn deref(&self) -> &Conversation {
        &self.conversation
    }
}

impl DerefMut for NodeConnection {
    fn deref_mut(&mut self) -> &mut Conversation {
        &mut self.conversation
    }
}
