//! One raw NATS conversation over a socket: every byte that came is kept, every expectation has a deadline.
//!
//! Both ends of the sidecar are tested with it: [`RawClient`](crate::RawClient) is a conversation seen from the
//! component, [`NodeConnection`](crate::NodeConnection) one seen from the node. Nothing is read in the background:
//! a conversation that is not asked to read does not read, which is how a test plays a peer that has stopped.
//! A failed expectation panics with the test's own line, what was expected and what came, in escaped bytes.

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

/// How long an expectation waits before it fails, unless [`Conversation::set_patience`] says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The most bytes one conversation keeps; a test that gets more is running away.
pub const RECEIVED_BYTES_MAX: usize = 256 * 1024 * 1024;

const PING: &[u8] = b"PING\r\n";
const READ_BYTES: usize = 64 * 1024;
const SHOWN_BYTES_MAX: usize = 600;

type Place = &'static Location<'static>;

/// How the other side ended a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// End of stream (FIN).
    Closed,
    /// Reset (RST) or any other socket error.
    Reset,
}

/// A socket, the bytes that came over it, and how far the test has taken them.
#[derive(Debug)]
pub struct Conversation {
    name: String,
    stream: TcpStream,
    received: Vec<u8>,
    taken: usize,
    ending: Option<Ending>,
    patience: Duration,
    answers_pings: bool,
}

impl Conversation {
    /// Wraps a connected socket; `name` appears in every failure.
    pub fn new(name: impl Into<String>, stream: TcpStream) -> Self {
        // A socket that is already dead refuses the option; the first read then tells the story.
        let _ = stream.set_nodelay(true);
        Self {
            name: name.into(),
            stream,
            received: Vec::new(),
            taken: 0,
            ending: None,
            patience: PATIENCE,
            answers_pings: false,
        }
    }

    /// From now on a PING between two expectations is answered and left out, unless a PING is what is expected: for a test that
    /// takes longer than the peer's keep-alive.
    pub fn answer_pings(&mut self) {
        self.answers_pings = true;
    }

    /// Sets how long each later expectation waits.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// The name given at the start.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address of this end, while the socket still has one.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.stream.local_addr().ok()
    }

    /// The address of the other end, while the socket still has one.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.stream.peer_addr().ok()
    }

    /// Every byte that came since the start, taken or not.
    pub fn received(&self) -> &[u8] {
        &self.received
    }

    /// The bytes that came and that no expectation has taken yet.
    pub fn untaken(&self) -> &[u8] {
        &self.received[self.taken..]
    }

    /// How the peer ended the conversation, as far as reading has noticed.
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Writes all of `bytes`; fails the test when the peer does not take them in time or is gone.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move { self.write(at, bytes.as_ref()).await }
    }

    /// Writes `bytes` cut in two at `cut`, each part in a write of its own (so in a segment of its own, on loopback).
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

    /// Writes until the peer has taken nothing for `wait` (it stopped reading) or all is written; the bytes written.
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
        let at = Location::caller();
        let line = format!("{expected}\r\n");
        async move { self.take_exactly(at, line.as_bytes()).await }
    }

    /// Takes the next control line and returns it without its `\r\n`.
    #[track_caller]
    pub fn read_line(&mut self) -> impl Future<Output = String> {
        let at = Location::caller();
        async move {
            let deadline = Instant::now() + self.patience;
            loop {
                if let Some(end) = self.untaken().windows(2).position(|pair| pair == b"\r\n") {
                    let line = String::from_utf8_lossy(&self.untaken()[..end]).into_owned();
                    self.taken += end + 2;
                    return line;
                }
                self.must_fill(at, deadline, "a line").await;
            }
        }
    }

    /// Takes the next whole frame of either direction, PING and PONG included.
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

    /// Takes the next frame that is not a PING; each PING on the way is answered with a PONG.
    #[track_caller]
    pub fn read_command(&mut self) -> impl Future<Output = Frame> {
        let at = Location::caller();
        async move { self.take_command(at, "a frame other than PING").await }
    }

    /// Takes the next frame that is not a PING (each of those is answered), which must be exactly `expected`.
    #[track_caller]
    pub fn expect_command(&mut self, expected: impl AsRef<[u8]>) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move {
            let frame = self.take_command(at, &escaped(expected.as_ref())).await;
            self.must_equal(at, &frame, expected.as_ref());
        }
    }

    /// Takes frames up to and without the next one with this verb, which is taken too; the frames before it.
    /// Nothing is answered on the way.
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

    /// Expects the peer to end the conversation, with nothing left that no expectation has taken; how it ended.
    #[track_caller]
    pub fn expect_end(&mut self) -> impl Future<Output = Ending> {
        let at = Location::caller();
        async move {
            let deadline = Instant::now() + self.patience;
            while self.fill(deadline).await {}
            match self.ending {
                Some(ending) if self.untaken().is_empty() => ending,
                _ => self.fail(at, "the end of the connection and nothing before it"),
            }
        }
    }

    /// Reads whatever comes until the peer ends the conversation; all untaken bytes, and how it ended.
    #[track_caller]
    pub fn read_to_end(&mut self) -> impl Future<Output = (Vec<u8>, Ending)> {
        let at = Location::caller();
        async move {
            let deadline = Instant::now() + self.patience;
            while self.fill(deadline).await {}
            let Some(ending) = self.ending else {
                self.fail(at, "the end of the connection")
            };
            let rest = self.untaken().to_vec();
            self.taken = self.received.len();
            (rest, ending)
        }
    }

    /// Expects that nothing comes within `silence`. Prefer a PING as a fence where the peer answers one: it is exact.
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

    /// Takes into [`received`](Self::received) what comes within `wait`, without any expectation.
    pub async fn listen_for(&mut self, wait: Duration) {
        let deadline = Instant::now() + wait;
        while self.fill(deadline).await {}
    }

    /// Takes the whole frames that come within `wait`, without any expectation; PINGs are answered and left out.
    pub async fn frames_for(&mut self, wait: Duration) -> Vec<Frame> {
        self.listen_for(wait).await;
        let mut frames = Vec::new();
        while let Ok(Some(frame)) = Frame::at_head(self.untaken()) {
            self.taken += frame.bytes().len();
            if frame.verb() == "PING" {
                self.send_until_blocked(b"PONG\r\n", PATIENCE).await;
            } else {
                frames.push(frame);
            }
        }
        frames
    }

    /// Ends the conversation in the ordinary way (FIN).
    pub async fn close(mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Ends the sending half only (FIN) and keeps reading.
    pub async fn half_close(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Ends the conversation with a reset (RST), as a machine that lost its process does; unsent bytes are lost.
    pub fn reset(self) {
        // Without it the drop sends a FIN instead, which the test's next expectation shows.
        let _ = self.stream.set_zero_linger();
    }

    pub(crate) async fn write(&mut self, at: Place, bytes: &[u8]) {
        match timeout(self.patience, self.stream.write_all(bytes)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.fail(at, &format!("to send {}: {error}", escaped(bytes))),
            Err(_) => self.fail(
                at,
                &format!("the peer to take the {} bytes sent to it", bytes.len()),
            ),
        }
    }

    async fn take_exactly(&mut self, at: Place, expected: &[u8]) {
        let deadline = Instant::now() + self.patience;
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
        let deadline = Instant::now() + self.patience;
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

    /// Waits for the first byte; true when the conversation ended without one.
    pub(crate) async fn ended_before_a_byte(&mut self) -> bool {
        let deadline = Instant::now() + self.patience;
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

    /// Reads once; false when the deadline passed or the conversation has ended.
    async fn fill(&mut self, deadline: Instant) -> bool {
        if self.ending.is_some() {
            return false;
        }
        assert!(
            self.received.len() < RECEIVED_BYTES_MAX,
            "{}: more than {RECEIVED_BYTES_MAX} bytes came",
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
        let came = if self.untaken().is_empty() {
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
            "{at}: {name} expected {wanted}\n  came:   {came}\n  before: {before}\n  state:  {state}, patience {patience:?}",
            name = self.name,
            patience = self.patience,
        );
    }
}

/// `bytes` in quotes with everything unprintable escaped, cut in the middle when long.
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
