//! A component played by the test: connects, reads INFO, and then sends and expects exactly the bytes of the test.
//!
//! It shows what a client library hides: where a frame was split, how many PONGs came, and in which order.

use crate::conversation::{Conversation, TIMEOUT};
use crate::frame::Frame;
use serde_json::Value;
use std::future::Future;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::Location;
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// The CONNECT of a client library of 2014, without any later option.
pub const CONNECT_OLD: &str = r#"CONNECT {"verbose":false,"pedantic":false}"#;

/// The CONNECT of a current client library, as far as it matters here.
pub const CONNECT_NEW: &str = concat!(
    r#"CONNECT {"verbose":false,"pedantic":false,"protocol":1,"headers":true,"no_responders":true,"#,
    r#""echo":true,"lang":"raw","version":"1"}"#
);

/// A raw client. It has every method of [`Conversation`].
#[derive(Debug)]
pub struct RawClient {
    conversation: Conversation,
    info: Frame,
}

impl RawClient {
    /// Connects, with retries until the listener is there, and reads INFO. Sends nothing.
    pub async fn connect(address: SocketAddr) -> Self {
        let deadline = Instant::now() + TIMEOUT;
        let stream = loop {
            match timeout(TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => break stream,
                other => assert!(
                    Instant::now() < deadline,
                    "cannot connect to {address}: {other:?}"
                ),
            }
            sleep(Duration::from_millis(10)).await;
        };
        Self::greet(stream).await
    }

    /// Does the handshake with [`CONNECT_OLD`] over a connected socket, such as one inside a [`Netns`](crate::Netns).
    pub async fn open_over(stream: TcpStream) -> Self {
        let mut client = Self::greet(stream).await;
        client.send(format!("{CONNECT_OLD}\r\nPING\r\n")).await;
        client.expect_line("PONG").await;
        client
    }

    /// Connects to a Unix socket, and does the handshake with [`CONNECT_OLD`].
    pub async fn open_unix(path: &Path) -> Self {
        Self::open_over(unix_stream(path)).await
    }

    async fn greet(stream: TcpStream) -> Self {
        let mut conversation = Conversation::new("client", stream);
        let info = conversation.read_frame().await;
        assert_eq!(info.verb(), "INFO", "the first frame must be INFO, not {info:?}");
        Self { conversation, info }
    }

    /// Connects, sends [`CONNECT_OLD`] and PING, and waits for the PONG.
    pub async fn open(address: SocketAddr) -> Self {
        Self::open_with(address, CONNECT_OLD).await
    }

    /// Connects, sends `connect` (a line without `\r\n`) and PING, and waits for the PONG. If `connect` asks for verbose, a
    /// `+OK` must come before the PONG.
    pub async fn open_with(address: SocketAddr, connect: &str) -> Self {
        let mut client = Self::connect(address).await;
        client.send(format!("{connect}\r\nPING\r\n")).await;
        if connect.contains(r#""verbose":true"#) {
            client.expect_line("+OK").await;
        }
        client.expect_line("PONG").await;
        client
    }

    /// Returns the first INFO.
    pub fn info_frame(&self) -> &Frame {
        &self.info
    }

    /// Returns the JSON of the first INFO.
    pub fn info(&self) -> Value {
        self.info.json()
    }

    /// Sends `SUB subject sid`.
    #[track_caller]
    pub fn subscribe(&mut self, subject: &str, sid: &str) -> impl Future<Output = ()> {
        self.conversation.send(format!("SUB {subject} {sid}\r\n"))
    }

    /// Subscribes with the sid 1, and returns the client when the server has processed that.
    #[must_use]
    pub async fn subscribed(mut self, subject: &str) -> Self {
        self.subscribe(subject, "1").await;
        self.flush().await;
        self
    }

    /// Sends `PUB subject` with this payload.
    #[track_caller]
    pub fn publish(&mut self, subject: &str, payload: impl AsRef<[u8]>) -> impl Future<Output = ()> {
        self.conversation.send(pub_frame(subject, payload))
    }

    /// Sends PING, takes frames up to its PONG, and returns the frames before it. Answers PINGs of the peer and leaves them out.
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

    /// Takes the next frame, which must be a MSG with this sid, subject and payload. Answers PINGs before it.
    #[track_caller]
    pub fn expect_message(&mut self, sid: &str, subject: &str, payload: &str) -> impl Future<Output = ()> {
        self.conversation.expect_command(msg_frame(sid, subject, payload))
    }

    /// Closes the connection (FIN).
    pub async fn close(self) {
        self.conversation.close().await;
    }

    /// Resets the connection (RST).
    pub fn reset(self) {
        self.conversation.reset();
    }
}

/// Connects to a Unix socket. The result has the type of a TCP socket, so that callers use both kinds in the same way.
pub fn unix_stream(path: &Path) -> TcpStream {
    let connected = UnixStream::connect(path).and_then(|stream| {
        stream.set_nonblocking(true)?;
        TcpStream::from_std(OwnedFd::from(stream).into())
    });
    connected.unwrap_or_else(|error| panic!("cannot connect to {}: {error}", path.display()))
}

/// Returns the bytes of a PUB without reply subject.
pub fn pub_frame(subject: &str, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    [
        format!("PUB {subject} {}\r\n", payload.len()).as_bytes(),
        payload,
        b"\r\n",
    ]
    .concat()
}

/// Returns the bytes of a MSG without reply subject.
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
