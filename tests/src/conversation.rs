//! One raw NATS conversation over a socket. Every received byte is kept, and every expectation has a deadline.
//!
//! [`RawClient`](crate::RawClient) is a conversation from the component's end, [`NodeConnection`](crate::NodeConnection) one from
//! the node's end. Nothing is read in the background, so a test that calls no reading method plays a peer that has stopped
//! reading. A failed expectation panics with the line of the test, the expected and the received bytes, escaped.

use crate::frame::Frame;
use std::fmt::Write as _;
use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::panic::Location;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

/// How long an expectation waits before it fails, unless [`Conversation::set_timeout`] says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// Limit on the bytes that one conversation keeps. A test that receives more fails.
pub const RECEIVED_BYTES_MAX: usize = 256 * 1024 * 1024;

const PING: &[u8] = b"PING\r\n";
const READ_BYTES: usize = 64 * 1024;
const SHOWN_BYTES_MAX: usize = 600;

type Place = &'static Location<'static>;

/// How the peer ended a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// End of stream (FIN).
    Closed,
    /// Reset (RST) or any other socket error.
    Reset,
}

/// A socket, the bytes received from it, and how many of them the test has taken.
#[derive(Debug)]
pub struct Conversation {
    name: String,
    stream: TcpStream,
    received: Vec<u8>,
    taken: usize,
    ending: Option<Ending>,
    timeout: Duration,
    answers_pings: bool,
}

impl Conversation {
    /// Wraps a connected socket. Every failure message contains `name`.
    pub fn new(name: impl Into<String>, stream: TcpStream) -> Self {
        // The option cannot be set on a socket that is already closed. The first read then reports the end.
        let _ = stream.set_nodelay(true);
        Self {
            name: name.into(),
            stream,
            received: Vec::new(),
            taken: 0,
            ending: None,
            timeout: TIMEOUT,
            answers_pings: false,
        }
    }

    /// Makes every later expectation answer the PINGs before the expected bytes and skip them. Only [`expect`](Self::expect) and
    /// [`expect_line`](Self::expect_line) can still take a PING. For tests longer than the peer's keep-alive interval.
    pub fn answer_pings(&mut self) {
        self.answers_pings = true;
    }

    /// Sets the timeout of every later expectation.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Returns the name for failure messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the address of this end; `None` once the socket is closed.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.stream.local_addr().ok()
    }

    /// Returns the address of the peer; `None` once the socket is closed.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.stream.peer_addr().ok()
    }

    /// Returns every byte received since the start, taken or not.
    pub fn received(&self) -> &[u8] {
        &self.received
    }

    /// Returns the received bytes that no expectation has taken yet.
    pub fn untaken(&self) -> &[u8] {
        &self.received[self.taken..]
    }

    /// Returns how the peer ended the conversation; `None` while no read has seen the end.
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Writes `bytes`. Fails the test if the peer does not take them in time, or has closed.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move { self.write(at, bytes.as_ref()).await }
    }

    /// Writes `bytes` in two parts, split at `cut`. Each part is one write, which is one TCP segment on loopback.
    #[track_caller]
    pub fn send_cut_at(&mut self, bytes: impl AsRef<[u8]>, cut: usize) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move {
            let (head, tail) = bytes.as_ref().split_at(cut);
            self.write(at, head).await;
            tokio::task::yield_now().await;
            self.write(at, tail).await;
        }
    }

    /// Writes until all of `bytes` is written or the peer has taken nothing for `wait`. Returns the number of bytes written.
    pub async fn send_until_blocked(&mut self, bytes: impl AsRef<[u8]>, wait: Duration) -> usize {
        let bytes = bytes.as_ref();
        let mut written = 0;
        while written < bytes.len() {
            match timeout(wait, self.stream.write(&bytes[written..])).await {
                Ok(Ok(count)) if count > 0 => written += count,
                _ => break,
            }
        }
        written
    }

    /// Takes the next bytes, which must be exactly `expected`.
    #[track_caller]
    pub fn expect(&mut self, expected: impl AsRef<[u8]>) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move { self.take_exactly(at, expected.as_ref()).await }
    }

    /// Takes the next control line, which must be `expected` (given without its `\r\n`).
    #[track_caller]
    pub fn expect_line(&mut self, expected: &str) -> impl Future<Output = ()> {
        self.expect(format!("{expected}\r\n"))
    }

    /// Takes the next frame, which may be a PING or a PONG.
    #[track_caller]
    pub fn read_frame(&mut self) -> impl Future<Output = Frame> {
        let at = Location::caller();
        async move { self.take_frame(at, "a whole frame").await }
    }

    /// Takes the next frame, which must be exactly `expected`.
    #[track_caller]
    pub fn expect_frame(&mut self, expected: impl AsRef<[u8]>) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move {
            let frame = self.take_frame(at, &escaped(expected.as_ref())).await;
            self.must_equal(at, &frame, expected.as_ref());
        }
    }

    /// Takes the next frame that is not a PING. Answers each PING before it.
    #[track_caller]
    pub fn read_command(&mut self) -> impl Future<Output = Frame> {
        let at = Location::caller();
        async move { self.take_command(at, "a frame other than PING").await }
    }

    /// Takes the next frame that is not a PING, which must be exactly `expected`. Answers each PING before it.
    #[track_caller]
    pub fn expect_command(&mut self, expected: impl AsRef<[u8]>) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move {
            let frame = self.take_command(at, &escaped(expected.as_ref())).await;
            self.must_equal(at, &frame, expected.as_ref());
        }
    }

    /// Takes the frames of `expected`, one by one. Answers each PING before and between them.
    #[track_caller]
    pub fn expect_commands(&mut self, expected: impl AsRef<[u8]>) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move {
            let mut rest = expected.as_ref();
            while let Ok(Some(next)) = Frame::at_head(rest) {
                let frame = self.take_command(at, "the next frame").await;
                self.must_equal(at, &frame, next.bytes());
                rest = &rest[next.bytes().len()..];
            }
            assert!(rest.is_empty(), "{at}: {} is not a frame", escaped(rest));
        }
    }

    /// Takes frames up to the next one with this verb, and returns those before it. Answers no PING.
    #[track_caller]
    pub fn read_until(&mut self, verb: &str) -> impl Future<Output = Vec<Frame>> {
        let at = Location::caller();
        async move {
            let wanted = format!("a frame {verb}");
            let mut before = Vec::new();
            loop {
                let frame = self.take_frame(at, &wanted).await;
                if frame.verb() == verb {
                    return before;
                }
                before.push(frame);
            }
        }
    }

    /// Expects the peer to end the conversation and to send nothing before. Returns how it ended.
    #[track_caller]
    pub fn expect_end(&mut self) -> impl Future<Output = Ending> {
        let at = Location::caller();
        async move {
            let deadline = Instant::now() + self.timeout;
            while self.fill(deadline).await {}
            match self.ending {
                Some(ending) if self.untaken().is_empty() => ending,
                _ => self.fail(at, "the end of the connection and nothing before it"),
            }
        }
    }

    /// Reads until the peer ends the conversation. Returns all bytes that were not taken before, and how it ended.
    #[track_caller]
    pub fn read_to_end(&mut self) -> impl Future<Output = (Vec<u8>, Ending)> {
        let at = Location::caller();
        async move {
            let deadline = Instant::now() + self.timeout;
            while self.fill(deadline).await {}
            let Some(ending) = self.ending else {
                self.fail(at, "the end of the connection")
            };
            let rest = self.untaken().to_vec();
            self.taken = self.received.len();
            (rest, ending)
        }
    }

    /// Expects that nothing arrives within `silence`. If the peer answers PINGs, use a PING as a barrier instead: that is exact.
    #[track_caller]
    pub fn expect_silence(&mut self, silence: Duration) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move {
            let deadline = Instant::now() + silence;
            loop {
                self.pass_over_pings(at).await;
                if !self.untaken().is_empty() || self.ending.is_some() {
                    self.fail(at, &format!("nothing at all for {silence:?}"));
                }
                if !self.fill(deadline).await && self.ending.is_none() {
                    return;
                }
            }
        }
    }

    /// Reads for the duration `wait` and takes nothing. What arrives is in [`received`](Self::received).
    pub async fn listen_for(&mut self, wait: Duration) {
        let deadline = Instant::now() + wait;
        while self.fill(deadline).await {}
    }

    /// Takes all frames that arrive within `wait`; there may be none. Answers each PING and leaves it out.
    pub async fn frames_for(&mut self, wait: Duration) -> Vec<Frame> {
        self.listen_for(wait).await;
        let mut frames = Vec::new();
        while let Ok(Some(frame)) = Frame::at_head(self.untaken()) {
            self.taken += frame.bytes().len();
            if frame.verb() == "PING" {
                self.send_until_blocked(b"PONG\r\n", TIMEOUT).await;
            } else {
                frames.push(frame);
            }
        }
        frames
    }

    /// Closes the connection (FIN).
    pub async fn close(mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Closes the sending half (FIN). Reading goes on.
    pub async fn half_close(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Resets the connection (RST), as the kernel does for a killed process with unread bytes. Unsent bytes are lost.
    pub fn reset(self) {
        // If this fails, the drop sends a FIN instead, and the next expectation of the test fails.
        let _ = self.stream.set_zero_linger();
    }

    pub(crate) async fn write(&mut self, at: Place, bytes: &[u8]) {
        match timeout(self.timeout, self.stream.write_all(bytes)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.fail(at, &format!("to send {}: {error}", escaped(bytes))),
            Err(_) => self.fail(
                at,
                &format!("the peer to take the {} bytes sent to it", bytes.len()),
            ),
        }
    }

    pub(crate) async fn take_exactly(&mut self, at: Place, expected: &[u8]) {
        let deadline = Instant::now() + self.timeout;
        loop {
            if !expected.starts_with(PING) {
                self.pass_over_pings(at).await;
            }
            let common = self.untaken().len().min(expected.len());
            if self.untaken()[..common] != expected[..common] {
                self.fail(at, &escaped(expected));
            }
            if common == expected.len() {
                self.taken += common;
                return;
            }
            self.must_fill(at, deadline, &escaped(expected)).await;
        }
    }

    pub(crate) async fn take_frame(&mut self, at: Place, wanted: &str) -> Frame {
        let deadline = Instant::now() + self.timeout;
        loop {
            self.pass_over_pings(at).await;
            match Frame::at_head(self.untaken()) {
                Ok(Some(frame)) => {
                    self.taken += frame.bytes().len();
                    return frame;
                }
                Ok(None) => self.must_fill(at, deadline, wanted).await,
                Err(reason) => self.fail(at, &format!("{wanted} ({reason})")),
            }
        }
    }

    async fn pass_over_pings(&mut self, at: Place) {
        while self.answers_pings && self.untaken().starts_with(PING) {
            self.taken += PING.len();
            self.write(at, b"PONG\r\n").await;
        }
    }

    pub(crate) async fn take_command(&mut self, at: Place, wanted: &str) -> Frame {
        loop {
            let frame = self.take_frame(at, wanted).await;
            if frame.verb() != "PING" {
                return frame;
            }
            self.write(at, b"PONG\r\n").await;
        }
    }

    /// Waits for the first byte. Returns whether the conversation ended without one.
    pub(crate) async fn ended_before_a_byte(&mut self) -> bool {
        let deadline = Instant::now() + self.timeout;
        !self.fill(deadline).await && self.ending.is_some() && self.received.is_empty()
    }

    fn must_equal(&mut self, at: Place, frame: &Frame, expected: &[u8]) {
        if frame.bytes() != expected {
            self.taken -= frame.bytes().len();
            self.fail(at, &escaped(expected));
        }
    }

    async fn must_fill(&mut self, at: Place, deadline: Instant, wanted: &str) {
        if !self.fill(deadline).await {
            self.fail(at, wanted);
        }
    }

    /// Reads once. Returns false at the deadline and at the end of the conversation.
    async fn fill(&mut self, deadline: Instant) -> bool {
        if self.ending.is_some() {
            return false;
        }
        assert!(
            self.received.len() < RECEIVED_BYTES_MAX,
            "{}: received more than {RECEIVED_BYTES_MAX} bytes",
            self.name
        );
        self.received.reserve(READ_BYTES);
        match timeout_at(deadline, self.stream.read_buf(&mut self.received)).await {
            Ok(Ok(0)) => self.ending = Some(Ending::Closed),
            Ok(Ok(_)) => return true,
            Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => return true,
            Ok(Err(_)) => self.ending = Some(Ending::Reset),
            Err(_) => {}
        }
        false
    }

    fn fail(&self, at: Place, wanted: &str) -> ! {
        let got = if self.untaken().is_empty() {
            "nothing".to_owned()
        } else {
            escaped(self.untaken())
        };
        let state = match self.ending {
            None => "open",
            Some(Ending::Closed) => "closed by the peer",
            Some(Ending::Reset) => "reset by the peer",
        };
        let before = escaped_tail(&self.received[..self.taken]);
        panic!(
            "{at}: {name} expected {wanted}\n  got:    {got}\n  before: {before}\n  state:  {state}, timeout {timeout:?}",
            name = self.name,
            timeout = self.timeout,
        );
    }
}

/// Returns `bytes` in quotes, with unprintable ones escaped and with the middle of long ones left out.
pub fn escaped(bytes: &[u8]) -> String {
    if bytes.len() <= SHOWN_BYTES_MAX {
        return format!("\"{}\"", bytes.escape_ascii());
    }
    let (head, tail) = (
        &bytes[..SHOWN_BYTES_MAX / 2],
        &bytes[bytes.len() - SHOWN_BYTES_MAX / 2..],
    );
    let mut shown = format!("\"{}\"", head.escape_ascii());
    let _ = write!(
        shown,
        " …{} bytes… \"{}\"",
        bytes.len() - SHOWN_BYTES_MAX,
        tail.escape_ascii()
    );
    shown
}

fn escaped_tail(bytes: &[u8]) -> String {
    let start = bytes.len().saturating_sub(SHOWN_BYTES_MAX / 3);
    format!(
        "{}\"{}\"",
        if start > 0 { "…" } else { "" },
        bytes[start..].escape_ascii()
    )
}
