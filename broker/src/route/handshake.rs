//! From a connection to a link: both sides introduce themselves, the node with the greater id says that it has nothing against it, and
//! the one with the lesser id decides.
//!
//! Before the link is accepted, a peer may send only handshake frames of up to 64 KiB each, within the timeout.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use standin_daemon::listen::plain;
use standin_wire::encode;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::Sender;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::frame::{self, Frame, FrameError, GREETING_BYTES_MAX, PREAMBLE};
use super::hello::{Hello, Refusal, Why, put_json};

/// How long the other side has to end the connection when it was told why there is no link.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Characters of a refused node's id that are kept for the error.
const ID_CHARS_SHOWN: usize = 256;

/// Maximum bytes that are read of another server's INFO.
const INFO_BYTES_MAX: usize = 16 << 10;

/// Why a connection did not become a link.
#[derive(Debug, Error)]
pub(crate) enum HandshakeError {
    #[error("{0}")]
    Connect(io::Error),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    #[error("the other side closed without a word")]
    Closed,
    #[error("the other side is no node of a mesh: it says {0:?}")]
    Stranger(String),
    #[error(
        "the other side is no node of a mesh: it is the port for clients of a NATS server, which says {0:?}; give the port for \
         other nodes (what --cluster of that node says, such as 6222)"
    )]
    ClientPort(String),
    #[error(
        "the other side is no node of a mesh: it is the port for routes of a nats-server, which says {0:?}; a cluster has nodes of \
         one kind, standin-broker or nats-server"
    )]
    RoutePort(String),
    #[error("a NATS client connected to the port for other nodes; clients connect to {0}")]
    Client(String),
    #[error("the other side did not say what it is within {0:?}")]
    Silent(Duration),
    #[error("the other side sends what is no frame: {0}")]
    Frame(#[from] FrameError),
    #[error("the other side introduces itself with what cannot be read: {0}")]
    Hello(serde_json::Error),
    #[error("unexpected frame during the handshake")]
    Disorder,
    #[error("node {id:?} refused the link: {text}")]
    RefusedByPeer {
        id: String,
        run: String,
        why: Why,
        text: String,
    },
    #[error("refused node {id:?}: {text}")]
    RefusedHere {
        id: String,
        run: String,
        why: Why,
        text: String,
    },
    #[error("this node ends")]
    Ending,
}

impl HandshakeError {
    /// The host is there and says that nobody listens.
    pub(crate) fn is_unheard(&self) -> bool {
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

/// Which side has connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// This one, to the address.
    Dialled(String),
    /// The other one, from there.
    Accepted(SocketAddr),
}

impl Origin {
    /// The address that was dialled.
    pub(crate) fn dialled(&self) -> Option<&str> {
        match self {
            Self::Dialled(at) => Some(at),
            Self::Accepted(_) => None,
        }
    }
}

/// What becomes of a connection whose other side has introduced itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the link; the one it takes the place of is to be closed.
    Accept { replaces: Option<u64> },
    /// There is nothing against it here; the other side is to say the same.
    Wait,
    /// There is no link; the present one is to show that it lives.
    Refuse { why: Why, probe: Option<u64> },
}

/// A question to the node about a connection.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) hello: Hello,
    /// Whether the other side has sent WELCOME.
    pub(crate) welcome: bool,
    pub(crate) origin: Origin,
    pub(crate) answer: oneshot::Sender<(Verdict, u64)>,
}

/// A connection that is a link.
#[derive(Debug)]
pub(crate) struct Linked {
    pub(crate) number: u64,
    pub(crate) stream: TcpStream,
    pub(crate) hello: Hello,
    pub(crate) origin: Origin,
    pub(crate) address: SocketAddr,
    /// What came behind the introduction.
    pub(crate) rest: Vec<u8>,
}

/// Introduces this node over `stream`, and returns when the connection is a link.
///
/// # Errors
/// [`HandshakeError`].
pub(crate) async fn shake(
    mut stream: TcpStream,
    own: &Hello,
    origin: Origin,
    limit: Duration,
    questions: Sender<Question>,
) -> Result<Linked, HandshakeError> {
    let address = plain(stream.peer_addr().map_err(HandshakeError::Broken)?);
    stream.set_nodelay(true).map_err(HandshakeError::Broken)?;
    let shaking = async {
        let (mut handshake, mut greeting) = (Handshake::new(own.clone()), PREAMBLE.to_vec());
        handshake.put_hello(&mut greeting);
        let mut came = Vec::new();
        if matches!(origin, Origin::Accepted(_)) {
            // The other side speaks first: a client that is wrong here would not understand the greeting.
            receive(&mut stream, &mut came, &own.client, limit / 2).await?;
        }
        stream
            .write_all(&greeting)
            .await
            .map_err(HandshakeError::Broken)?;
        if origin.dialled().is_some() {
            preamble(&mut stream, &mut came).await?;
        }
        loop {
            let Some((asks, length)) = handshake.take(&came)? else {
                more(&mut stream, &mut came).await?;
                continue;
            };
            came.drain(..length);
            let (Some(welcome), Some(peer)) = (asks, handshake.peer()) else {
                continue;
            };
            let (answer, answered) = oneshot::channel();
            let question = Question {
                hello: peer.clone(),
                welcome,
                origin: origin.clone(),
                answer,
            };
            let sent = questions.send(question).await;
            sent.map_err(|_| HandshakeError::Ending)?;
            let (verdict, number) = answered.await.map_err(|_| HandshakeError::Ending)?;
            let mut word = Vec::new();
            match handshake.judged(verdict, &mut word) {
                Ok(None) => stream.write_all(&word).await.map_err(HandshakeError::Broken)?,
                Ok(Some(hello)) => return Ok((hello, number, word, came)),
                Err(error) => {
                    say_last(&mut stream, &word).await;
                    return Err(error);
                }
            }
        }
    };
    let (hello, number, word, rest) = timeout(limit, shaking)
        .await
        .map_err(|_| HandshakeError::Timeout(limit))??;
    // From here on the connection is registered as link `number`. No error may be returned: the caller must install the link.
    // Should it fail, the link ends at once, as any link that breaks.
    let _ = timeout(limit, stream.write_all(&word)).await;
    Ok(Linked {
        number,
        stream,
        hello,
        origin,
        address,
        rest,
    })
}

/// One side's part in the frames behind the preambles; a value without sockets.
#[derive(Debug)]
pub(crate) struct Handshake {
    own: Hello,
    /// The other side, once it has introduced itself.
    peer: Option<Hello>,
}

impl Handshake {
    pub(crate) const fn new(own: Hello) -> Self {
        Self { own, peer: None }
    }

    /// Appends the first frame.
    pub(crate) fn put_hello(&self, out: &mut Vec<u8>) {
        put_json(out, frame::HELLO, &self.own);
    }

    /// Returns the other side, once it has introduced itself.
    pub(crate) const fn peer(&self) -> Option<&Hello> {
        self.peer.as_ref()
    }

    /// Takes the frame at the head of `bytes`. Returns its length, and whether the node is asked to judge the other side, which has
    /// introduced itself (`false`) or has sent WELCOME (`true`); `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`HandshakeError`]: there is no link.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<Option<(Option<bool>, usize)>, HandshakeError> {
        let Some((frame, length)) = frame::decode(bytes, GREETING_BYTES_MAX)? else {
            return Ok(None);
        };
        let asks = match (frame, &self.peer) {
            (Frame::Hello(json), None) => {
                self.peer = Some(serde_json::from_slice(json).map_err(HandshakeError::Hello)?);
                Some(false)
            }
            (Frame::Welcome, Some(_)) => Some(true),
            (Frame::Refuse(json), Some(peer)) => {
                let refusal: Result<Refusal, _> = serde_json::from_slice(json);
                let why = refusal.map_or(Why::Other, |refusal| refusal.why);
                return Err(HandshakeError::RefusedByPeer {
                    id: peer.id.clone(),
                    run: peer.run.clone(),
                    why,
                    text: why.told(&self.own, peer),
                });
            }
            (Frame::Unknown(_), _) => None,
            _ => return Err(HandshakeError::Disorder),
        };
        Ok(Some((asks, length)))
    }

    /// Takes the node's verdict, and appends what the other side is to hear of it. Returns the other side if the connection is a link.
    ///
    /// # Errors
    /// [`HandshakeError::RefusedHere`].
    pub(crate) fn judged(
        &mut self,
        verdict: Verdict,
        out: &mut Vec<u8>,
    ) -> Result<Option<Hello>, HandshakeError> {
        let Some(peer) = &self.peer else { return Ok(None) };
        let decides = self.own.decides_with(peer);
        match verdict {
            Verdict::Wait => {
                if !decides {
                    frame::put(out, frame::WELCOME, b"");
                }
                Ok(None)
            }
            Verdict::Accept { .. } => {
                if decides {
                    frame::put(out, frame::WELCOME, b"");
                }
                Ok(self.peer.take())
            }
            Verdict::Refuse { why, .. } => {
                put_json(out, frame::REFUSE, &Refusal { why });
                Err(HandshakeError::RefusedHere {
                    id: peer.id.chars().take(ID_CHARS_SHOWN).collect(),
                    run: peer.run.clone(),
                    why,
                    text: why.told(&self.own, peer),
                })
            }
        }
    }
}

/// Says the last words of this side, and waits for the end of the other.
async fn say_last(stream: &mut TcpStream, words: &[u8]) {
    // It learns why, if it still listens.
    let _ = stream.write_all(words).await;
    let _ = stream.shutdown().await;
    // Unread input would cause a reset, and the peer could lose this last message. So the input is read.
    let taking = async {
        let mut came = Vec::new();
        while let Ok(1..) = stream.read_buf(&mut came).await {
            came.clear();
        }
    };
    // After the timeout the peer has had time to read the message.
    let _ = timeout(LAST_WORDS, taking).await;
}

/// Reads the preamble of an accepted connection. If it is wrong, or not complete within `patience`, the peer gets an -ERR with the
/// address for clients.
async fn receive(
    stream: &mut TcpStream,
    came: &mut Vec<u8>,
    client_address: &str,
    patience: Duration,
) -> Result<(), HandshakeError> {
    let error = match timeout(patience, preamble(stream, came)).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error @ HandshakeError::Stranger(_))) => error,
        Ok(Err(error)) => return Err(error),
        Err(_) => HandshakeError::Silent(patience),
    };
    let text = format!("attempted to connect to route port; clients connect to {client_address}");
    let mut line = Vec::new();
    encode::err(text.as_bytes(), &mut line);
    say_last(stream, &line).await;
    let verbs: [&[u8]; 5] = [b"CONNECT", b"PING", b"SUB", b"PUB", b"UNSUB"];
    let is_client = verbs.iter().any(|verb| {
        let head = came.get(..verb.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(verb))
    });
    Err(if is_client {
        HandshakeError::Client(client_address.to_owned())
    } else {
        error
    })
}

async fn preamble(stream: &mut TcpStream, came: &mut Vec<u8>) -> Result<(), HandshakeError> {
    while came.len() < PREAMBLE.len() {
        let matches = PREAMBLE.starts_with(came);
        if !matches {
            break;
        }
        more(stream, came).await?;
    }
    if !came.starts_with(PREAMBLE) {
        let shown = String::from_utf8_lossy(&came[..came.len().min(32)]).into_owned();
        if !came.starts_with(b"INFO ") {
            return Err(HandshakeError::Stranger(shown));
        }
        while !came.contains(&b'\n') && came.len() < INFO_BYTES_MAX && more(stream, came).await.is_ok() {}
        return Err(if is_info_of_route(came) {
            HandshakeError::RoutePort(shown)
        } else {
            HandshakeError::ClientPort(shown)
        });
    }
    came.drain(..PREAMBLE.len());
    Ok(())
}

/// Returns whether this INFO comes from a nats-server's port for routes: it has `lnoc`, or an `ip` with a nats-route:// URL (before 2.0).
fn is_info_of_route(came: &[u8]) -> bool {
    let line = came.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let info = line.strip_prefix(b"INFO ").unwrap_or_default();
    let info: serde_json::Value = serde_json::from_slice(info).unwrap_or_default();
    let is_url = |url: &serde_json::Value| url.as_str().is_some_and(|url| url.starts_with("nats-route://"));
    info.get("lnoc").is_some() || info.get("ip").is_some_and(is_url)
}

async fn more(stream: &mut TcpStream, came: &mut Vec<u8>) -> Result<(), HandshakeError> {
    match stream.read_buf(came).await {
        Ok(0) => Err(HandshakeError::Closed),
        Ok(_) => Ok(()),
        Err(error) => Err(HandshakeError::Broken(error)),
    }
}
