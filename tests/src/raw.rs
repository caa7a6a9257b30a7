//! A component played byte by byte: connects, reads INFO, and then says and expects exactly what the test writes.
//!
//! For promises that no client library lets one see: where a frame was cut, how many PONGs came, in which order.

use crate::conversation::{Conversation, PATIENCE};
use crate::frame::Frame;
use serde_json::Value;
use std::future::Future;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// What a client library of 2014 says: no protocol, nothing optional.
pub const CONNECT_OLD: &str = r#"CONNECT {"verbose":false,"pedantic":false}"#;

/// What a current client library says, as far as it matters here.
pub const CONNECT_NEW: &str = concat!(
    r#"CONNECT {"verbose":false,"pedantic":false,"protocol":1,"headers":true,"no_responders":true,"#,
    r#""echo":true,"lang":"raw","version":"1"}"#
);

/// A raw client; everything of [`Conversation`] can be called on it.
#[derive(Debug)]
pub struct RawClient {
    conversation: Conversation,
    info: Frame,
}

impl RawClient {
    /// Connects, trying again until the listener is there, and reads INFO; nothing is sent.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_named("client", address).await
    }

    /// [`connect`](Self::connect) with a name of its own for failures.
    pub async fn connect_named(name: &str, address: SocketAddr) -> Self {
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            match timeout(PATIENCE, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => break stream,
                other => assert!(
                    Instant::now() < deadline,
                    "{name} cannot connect to {address}: {other:?}"
                ),
            }
            sleep(Duration::from_millis(10)).await;
        };
        Self::greet(name, stream).await
    }

    /// Says [`CONNECT_OLD`] over a socket that is connected already, as from inside a [`Netns`](crate::Netns).
    pub async fn open_over(stream: TcpStream) -> Self {
        let mut client = Self::greet("client", stream).await;
        client.send(format!("{CONNECT_OLD}\r\nPING\r\n")).await;
        client.expect_line("PONG").await;
        client
    }

    async fn greet(name: &str, stream: TcpStream) -> Self {
        let mut conversation = Conversation::new(name, stream);
        let info = conversation.read_frame().await;
        assert_eq!(
            info.verb(),
            "INFO",
            "{name}: the first frame must be INFO, not {info:?}"
        );
        Self { conversation, info }
    }

    /// Connects, says [`CONNECT_OLD`] and PING, and waits for the PONG.
    pub async fn open(address: SocketAddr) -> Self {
        Self::open_with(address, CONNECT_OLD).await
    }

    /// Connects, says `connect` (a whole line without `\r\n`) and PING, and waits for the PONG (and the `+OK` before
    /// it, if `connect` asks for verbose).
    pub async fn open_with(address: SocketAddr, connect: &str) -> Self {
        let mut client = Self::connect(address).await;
        client.send(format!("{connect}\r\nPING\r\n")).await;
        if connect.contains(r#""verbose":true"#) {
            client.expect_line("+OK").await;
        }
        client.expect_line("PONG").await;
        client
    }

    /// The first INFO, whole.
    pub fn info_frame(&self) -> &Frame {
        &self.info
    }

    /// The first INFO's JSON.
    pub fn info(&self) -> Value {
        self.info.json()
    }

    /// Sends `SUB subject sid`.
    #[track_caller]
    pub fn subscribe(&mut self, subject: &str, sid: &str) -> impl Future<Output = ()> {
        self.conversation.send(format!("SUB {subject} {sid}\r\n"))
    }

    /// Sends `PUB subject` with this payload.
    #[track_caller]
    pub fn publish(&mut self, subject: &str, payload: impl AsRef<[u8]>) -> impl Future<Output = ()> {
        self.conversation.send(pub_frame(subject, payload))
    }

    /// Sends PING and takes all up to its PONG; what came before it, keep-alive PINGs left out (they are answered).
    #[track_caller]
    pub fn flush(&mut self) -> impl Future<Output = Vec<Frame>> {
        let at = Location::caller();
        async move {
            self.conversation.write(at, b"PING\r\n").await;
            let mut before = Vec::new();
            loop {
                let frame = self.conversation.take_command(at, "the PONG of a flush").await;
                if frame.verb() == "PONG" {
                    return before;
                }
                before.push(frame);
            }
        }
    }

    /// Takes the next MSG, which must be for this sid, subject and payload; PINGs on the way are answered.
    #[track_caller]
    pub fn expect_message(&mut self, sid: &str, subject: &str, payload: &str) -> impl Future<Output = ()> {
        self.conversation.expect_command(msg_frame(sid, subject, payload))
    }

    /// Ends the connection in the ordinary way.
    pub async fn close(self) {
        self.conversation.close().await;
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        self.conversation.reset();
    }
}

/// The bytes of a PUB without reply subject.
pub fn pub_frame(subject: &str, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    [
        format!("PUB {subject} {}\r\n", payload.len()).as_bytes(),
        payload,
        b"\r\n",
    ]
    .concat()
}

/// The bytes of a MSG without reply subject.
pub fn msg_frame(sid: &str, subject: &str, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    [
        format!("MSG {subject} {sid} {}\r\n", payload.len()).as_bytes(),
        payload,
        b"\r\n",
    ]
    .concat()
}

impl Deref for RawClient {
    type Target = Conversation;

    fn deref(&self) -> &Conversation {
        &self.conversation
    }
}

impl DerefMut for RawClient {
    fn deref_mut(&mut self) -> &mut Conversation {
        &mut self.conversation
    }
}
