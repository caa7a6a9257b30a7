//! The handshake, by which a connection becomes a route. Both sides send HELLO. Then the node with the higher id agrees and sends
//! WELCOME. Finally, the node with the lower id decides and sends WELCOME too. Either side may send REFUSE instead.
//!
//! Before the route is accepted, a peer may send only handshake frames of up to 64 KiB each, within the timeout.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use standin_daemon::listen::plain;
use standin_tls::stream::Stream;
use standin_wire::encode;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::Sender;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::frame::{self, Frame, FrameError, GREETING_BYTES_MAX, PREAMBLE};
use super::hello::{Hello, Refusal, RefusalReason, json_frame};

/// Time for the peer to read the last message and close the connection.
const LAST_READ_TIMEOUT: Duration = Duration::from_millis(500);
/// Maximum number of characters of a refused node's id in the error.
const ID_CHARS_SHOWN: usize = 256;

/// Maximum number of bytes read of another server's INFO.
const INFO_BYTES_MAX: usize = 16 << 10;

/// Reason why a connection did not become a route.
#[derive(Debug, Error)]
pub(crate) enum HandshakeError {
    #[error("{0}")]
    Connect(io::Error),
    #[error("TLS handshake failed: {0}")]
    Tls(io::Error),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error("the peer closed the connection during the handshake")]
    Closed,
    #[error("the peer is not a mesh node: it sent {0:?}")]
    Stranger(String),
    #[error(
        "the peer is not a mesh node: it is the port for clients of a NATS server, which sent {0:?}; give the port for \
         other nodes (--cluster of that node, such as 6222)"
    )]
    ClientPort(String),
    #[error(
        "the peer is not a mesh node: it is the port for routes of a nats-server, which sent {0:?}; a cluster cannot mix \
         standin-broker and nats-server"
    )]
    RoutePort(String),
    #[error("a NATS client connected to the port for other nodes; clients connect to {0}")]
    Client(String),
    #[error("the peer sent no preamble within {0:?}")]
    Silent(Duration),
    #[error("invalid frame: {0}")]
    Frame(#[from] FrameError),
    #[error("invalid HELLO: {0}")]
    Hello(serde_json::Error),
    #[error("unexpected frame during the handshake")]
    Disorder,
    #[error("{0}")]
    Refused(RefusedRoute),
    #[error("this node is shutting down")]
    Ending,
}

/// A route that one of the two nodes refused.
#[derive(Debug, Error)]
#[error("{}: {text}", if *.by_peer { format!("node {id:?} refused the route") } else { format!("refused node {id:?}") })]
pub(crate) struct RefusedRoute {
    pub(crate) by_peer: bool,
    pub(crate) id: String,
    pub(crate) run: String,
    /// Mesh address of the peer.
    pub(crate) mesh: String,
    pub(crate) why: RefusalReason,
    /// Text of the reason, for the operator.
    pub(crate) text: String,
}

impl HandshakeError {
    /// Returns whether the connection was refused (ECONNREFUSED): the host is up, and no process listens on the port.
    pub(crate) fn is_connection_refused(&self) -> bool {
        matches!(self, Self::Connect(error) if error.kind() == io::ErrorKind::ConnectionRefused)
    }

    /// Returns whether the peer answered but is not a usable mesh node. Retries do not help.
    pub(crate) fn is_foreign(&self) -> bool {
        matches!(
            self,
            Self::Stranger(_)
                | Self::ClientPort(_)
                | Self::RoutePort(_)
                | Self::Frame(_)
                | Self::Hello(_)
                | Self::Disorder
        )
    }
}

/// The side that opened the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// This node, by dialling the address.
    Dialled(String),
    /// The peer, from the address.
    Accepted(SocketAddr),
}

impl Origin {
    /// Returns the address, if this node dialled.
    pub(crate) fn dialled(&self) -> Option<&str> {
        match self {
            Self::Dialled(at) => Some(at),
            Self::Accepted(_) => None,
        }
    }
}

/// The keeper's verdict on a connection whose peer has sent HELLO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The connection becomes the route. The route with the number `replaces` is closed.
    Accept { replaces: Option<u64> },
    /// This node agrees, and waits for the peer's WELCOME.
    Wait,
    /// The connection does not become a route. A PING is sent over the present route with the number `probe`.
    Refuse { why: RefusalReason, probe: Option<u64> },
}

/// Request to the keeper about a connection.
#[derive(Debug)]
pub(crate) struct VerdictRequest {
    pub(crate) hello: Hello,
    /// Whether the peer has also sent WELCOME.
    pub(crate) welcome: bool,
    pub(crate) origin: Origin,
    pub(crate) answer: oneshot::Sender<(Verdict, u64)>,
}

/// A connection that has become a route.
#[derive(Debug)]
pub(crate) struct AcceptedRoute {
    pub(crate) number: u64,
    pub(crate) stream: Stream,
    pub(crate) hello: Hello,
    pub(crate) address: SocketAddr,
    /// Bytes received after the handshake.
    pub(crate) rest: Vec<u8>,
}

/// Performs the handshake over `stream`. Returns when the connection has become a route.
pub(crate) async fn perform(
    mut stream: Stream,
    own: &Hello,
    origin: &Origin,
    limit: Duration,
    verdict_requests: Sender<VerdictRequest>,
) -> Result<AcceptedRoute, HandshakeError> {
    let address = plain(stream.socket().peer_addr()?);
    let handshaking = async {
        let mut handshake = Handshake::new(own.clone());
        let greeting = [&PREAMBLE[..], &handshake.hello()].concat();
        let mut received = Vec::new();
        if matches!(origin, Origin::Accepted(_)) {
            // The dialling side sends first. A client that connects here by mistake gets an -ERR instead of binary frames.
            receive_preamble(&mut stream, &mut received, &own.client, limit / 2).await?;
        }
        send(&mut stream, &greeting).await?;
        if origin.dialled().is_some() {
            read_preamble(&mut stream, &mut received).await?;
        }
        loop {
            let Some((is_welcome, length)) = handshake.take(&received)? else {
                read_more(&mut stream, &mut received).await?;
                continue;
            };
            received.drain(..length);
            let (Some(welcome), Some(peer)) = (is_welcome, handshake.peer()) else {
                continue;
            };
            let (answer, answered) = oneshot::channel();
            let request = VerdictRequest {
                hello: peer.clone(),
                welcome,
                origin: origin.clone(),
                answer,
            };
            let sent = verdict_requests.send(request).await;
            sent.map_err(|_| HandshakeError::Ending)?;
            let (verdict, number) = answered.await.map_err(|_| HandshakeError::Ending)?;
            let mut reply = Vec::new();
            match handshake.apply_verdict(verdict, &mut reply) {
                Ok(None) => send(&mut stream, &reply).await?,
                Ok(Some(hello)) => return Ok((hello, number, reply, received)),
                Err(error) => {
                    send_last(&mut stream, &reply).await;
                    return Err(error);
                }
            }
        }
    };
    let (hello, number, reply, rest) = timeout(limit, handshaking)
        .await
        .map_err(|_| HandshakeError::Timeout(limit))??;
    // From here on the connection is registered as route `number`. No error may be returned: the caller must install the route.
    // If this write fails, the route ends at once, like any broken route.
    let _ = timeout(limit, send(&mut stream, &reply)).await;
    Ok(AcceptedRoute {
        number,
        stream,
        hello,
        address,
        rest,
    })
}

async fn send(stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// State of one side's handshake after the preamble. A value without sockets.
#[derive(Debug)]
pub(crate) struct Handshake {
    own: Hello,
    /// The peer's HELLO, once received.
    peer: Option<Hello>,
}

impl Handshake {
    pub(crate) const fn new(own: Hello) -> Self {
        Self { own, peer: None }
    }

    /// Returns this side's HELLO.
    pub(crate) fn hello(&self) -> Vec<u8> {
        json_frame(frame::HELLO, &self.own)
    }

    pub(crate) const fn peer(&self) -> Option<&Hello> {
        self.peer.as_ref()
    }

    /// Takes the frame at the head of `bytes`. For a frame that the keeper judges, the first value is whether it is WELCOME
    /// (`Some(true)`) or HELLO (`Some(false)`). The second value is the frame's length. Returns `None` if more bytes are needed.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<Option<(Option<bool>, usize)>, HandshakeError> {
        let Some((frame, length)) = frame::decode(bytes, GREETING_BYTES_MAX)? else {
            return Ok(None);
        };
        let is_welcome = match (frame, &self.peer) {
            (Frame::Hello(json), None) => {
                self.peer = Some(serde_json::from_slice(json).map_err(HandshakeError::Hello)?);
                Some(false)
            }
            (Frame::Welcome, Some(_)) => Some(true),
            (Frame::Refuse(json), Some(peer)) => {
                let refusal: Result<Refusal, _> = serde_json::from_slice(json);
                let why = refusal.map_or(RefusalReason::Other, |refusal| refusal.why);
                return Err(self.refused(peer, why, true));
            }
            (Frame::Unknown(_), _) => None,
            _ => return Err(HandshakeError::Disorder),
        };
        Ok(Some((is_welcome, length)))
    }

    /// Takes the keeper's verdict, and appends the frame for the peer. Returns the peer's HELLO if the connection becomes the route.
    pub(crate) fn apply_verdict(
        &mut self,
        verdict: Verdict,
        out: &mut Vec<u8>,
    ) -> Result<Option<Hello>, HandshakeError> {
        let Some(peer) = &self.peer else { return Ok(None) };
        if let Verdict::Refuse { why, .. } = verdict {
            out.extend(json_frame(frame::REFUSE, &Refusal { why }));
            return Err(self.refused(peer, why, false));
        }
        let is_accepted = matches!(verdict, Verdict::Accept { .. });
        // The deciding node sends WELCOME when it accepts. The other node has sent WELCOME before, when it agreed.
        if self.own.decides_with(peer) == is_accepted {
            out.extend(frame::bare(frame::WELCOME));
        }
        Ok(if is_accepted { self.peer.take() } else { None })
    }

    fn refused(&self, peer: &Hello, why: RefusalReason, by_peer: bool) -> HandshakeError {
        HandshakeError::Refused(RefusedRoute {
            by_peer,
            id: peer.id.chars().take(ID_CHARS_SHOWN).collect(),
            run: peer.run.clone(),
            mesh: peer.mesh.clone(),
            why,
            text: why.text(&self.own, peer),
        })
    }
}

/// Sends the last message and closes the write side. Then waits for the peer's close, at most for [`LAST_READ_TIMEOUT`].
async fn send_last(stream: &mut Stream, bytes: &[u8]) {
    // If the write fails, the peer no longer reads.
    let _ = send(stream, bytes).await;
    let _ = stream.shutdown().await;
    // Unread input would cause a reset, and the peer could lose this last message. So the input is read.
    let discarding = async {
        let mut received = Vec::new();
        while let Ok(1..) = stream.read_buf(&mut received).await {
            received.clear();
        }
    };
    // After the timeout the peer has had time to read the message.
    let _ = timeout(LAST_READ_TIMEOUT, discarding).await;
}

/// Reads the preamble of an accepted connection. If it is wrong, or not complete within `limit`, the peer gets an -ERR with the
/// address for clients.
async fn receive_preamble(
    stream: &mut Stream,
    received: &mut Vec<u8>,
    client_address: &str,
    limit: Duration,
) -> Result<(), HandshakeError> {
    let error = match timeout(limit, read_preamble(stream, received)).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error @ HandshakeError::Stranger(_))) => error,
        Ok(Err(error)) => return Err(error),
        Err(_) => HandshakeError::Silent(limit),
    };
    let text = format!("attempted to connect to route port; clients connect to {client_address}");
    let mut line = Vec::new();
    encode::err(text.as_bytes(), &mut line);
    send_last(stream, &line).await;
    let verbs: [&[u8]; 5] = [b"CONNECT", b"PING", b"SUB", b"PUB", b"UNSUB"];
    let is_client = verbs.iter().any(|verb| {
        let head = received.get(..verb.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(verb))
    });
    if is_client {
        return Err(HandshakeError::Client(client_address.to_owned()));
    }
    Err(error)
}

async fn read_preamble(stream: &mut Stream, received: &mut Vec<u8>) -> Result<(), HandshakeError> {
    while received.len() < PREAMBLE.len() && PREAMBLE.starts_with(received) {
        read_more(stream, received).await?;
    }
    if received.starts_with(PREAMBLE) {
        received.drain(..PREAMBLE.len());
        return Ok(());
    }
    let shown = String::from_utf8_lossy(&received[..received.len().min(32)]).into_owned();
    if !received.starts_with(b"INFO ") {
        return Err(HandshakeError::Stranger(shown));
    }
    while !received.contains(&b'\n') && received.len() < INFO_BYTES_MAX {
        if read_more(stream, received).await.is_err() {
            break;
        }
    }
    Err(if is_info_of_route(received) {
        HandshakeError::RoutePort(shown)
    } else {
        HandshakeError::ClientPort(shown)
    })
}

/// Returns whether this INFO comes from a nats-server's port for routes: it has `lnoc`, or an `ip` with a nats-route:// URL (before 2.0).
fn is_info_of_route(received: &[u8]) -> bool {
    let line = received.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let info = line.strip_prefix(b"INFO ").unwrap_or_default();
    let info: serde_json::Value = serde_json::from_slice(info).unwrap_or_default();
    let is_url = |url: &serde_json::Value| url.as_str().is_some_and(|url| url.starts_with("nats-route://"));
    info.get("lnoc").is_some() || info.get("ip").is_some_and(is_url)
}

async fn read_more(stream: &mut Stream, received: &mut Vec<u8>) -> Result<(), HandshakeError> {
    match stream.read_buf(received).await? {
        0 => Err(HandshakeError::Closed),
        _ => Ok(()),
    }
}
