//! A connection to a node: dialled, set up, and greeted by the node's INFO. What happens after that is the session's.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use standin_registry::{Endpoint, Node};
use standin_wire::limits::FrameLimits;
use standin_wire::server::{self, Frame};
use standin_wire::{Info, WireError};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use crate::nodes::{NodeBook, Searcher};

/// First bytes of a node that are read at once.
const GREETING_BYTES: usize = 4096;

/// The settings of dialling.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dialling {
    /// For name look-up and TCP together, per node.
    pub(crate) connect_timeout: Duration,
    /// From the TCP connection to the node's INFO.
    pub(crate) handshake_timeout: Duration,
    /// Random wait of a session that lost its node, per other session that searches.
    pub(crate) spread_per_session: Duration,
    /// Bound of that wait.
    pub(crate) spread_max: Duration,
    /// TCP keep-alive of the connection.
    pub(crate) keepalive: Duration,
    /// How long written bytes may stay unacknowledged before the connection breaks.
    pub(crate) user_timeout: Duration,
}

/// A connection to a node that has sent its INFO.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) stream: TcpStream,
    pub(crate) node: Arc<Node>,
    pub(crate) info: Info,
    /// What the node sent behind its INFO.
    pub(crate) behind_info: Vec<u8>,
    /// Held until the node has taken the session, so that not too many join at once.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// Why a node could not be used.
#[derive(Debug, Error)]
pub(crate) enum DialError {
    #[error("name {0} has no address")]
    NoAddress(String),
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    #[error("no INFO within {0:?} of connecting")]
    InfoTimeout(Duration),
    #[error("closed before its INFO")]
    Closed,
    #[error("connection broke before its INFO: {0}")]
    Broke(#[source] io::Error),
    #[error("speaks no NATS: {0}")]
    NotNats(WireError),
    #[error("INFO is no JSON object as NATS servers send it: {0}")]
    BadInfo(#[source] serde_json::Error),
    #[error("refused the connection: -ERR '{0}'")]
    Refused(String),
    #[error(
        "is this sidecar itself: take its address out of the registry, or let the sidecar listen elsewhere"
    )]
    Own,
    #[error("asks for TLS, which the sidecar does not speak to nodes yet")]
    Tls,
}

impl DialError {
    /// Stable name, for logs and metric labels.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::NoAddress(_) => "no_address",
            Self::Connect(_) => "connect",
            Self::ConnectTimeout(_) => "connect_timeout",
            Self::InfoTimeout(_) => "info_timeout",
            Self::Closed => "closed",
            Self::Broke(_) => "broke",
            Self::NotNats(_) => "not_nats",
            Self::BadInfo(_) => "bad_info",
            Self::Refused(_) => "refused",
            Self::Own => "own",
            Self::Tls => "tls",
        }
    }
}

/// Tries `candidates` one after the other. Failures cool the node down and are told to
/// `failed`, with the length of the cool-down; zero when the node was cooling down already.
pub(crate) async fn dial(
    book: &Arc<NodeBook>,
    candidates: Vec<Arc<Node>>,
    searcher: Option<Searcher>,
    dialling: Dialling,
    failed: impl Fn(&Node, &DialError, Duration),
) -> Option<Link> {
    if let Some(searcher) = &searcher {
        let spread = searcher.spread(dialling.spread_per_session, dialling.spread_max);
        if !spread.is_zero() {
            tokio::time::sleep(spread).await;
        }
    }
    let mut left = candidates;
    // Many sessions may queue for one node; when it has failed the first of them, the others go on to the next. Only when
    // no other is left do they try it all the same.
    for skip_cooling in [true, false] {
        let mut skipped = Vec::new();
        for node in left {
            // The semaphore is never closed.
            let Ok(permit) = book.dials(&node.client).acquire_owned().await else {
                continue;
            };
            if skip_cooling && book.is_cooling(&node.client, Instant::now()) {
                skipped.push(node);
                continue;
            }
            match greeting(&node, book, dialling).await {
                Ok((stream, info, behind_info)) => {
                    return Some(Link {
                        stream,
                        node,
                        info,
                        behind_info,
                        permit,
                    });
                }
                Err(error) => {
                    let cooling = book.failed(&node.client, &error.to_string(), Instant::now());
                    failed(&node, &error, cooling);
                }
            }
        }
        left = skipped;
    }
    None
}

async fn greeting(
    node: &Node,
    book: &NodeBook,
    dialling: Dialling,
) -> Result<(TcpStream, Info, Vec<u8>), DialError> {
    let timeout = dialling.connect_timeout;
    let mut stream = tokio::time::timeout(timeout, connect(&node.client))
        .await
        .map_err(|_| DialError::ConnectTimeout(timeout))??;
    let ends = |stream: &TcpStream| io::Result::Ok((stream.local_addr()?, stream.peer_addr()?));
    let (local, peer) = ends(&stream).map_err(DialError::Connect)?;
    if book.is_own(local, peer) {
        book.met_itself(&node.client);
        return Err(DialError::Own);
    }
    set_options(&stream, dialling).map_err(DialError::Connect)?;
    let timeout = dialling.handshake_timeout;
    let (info, behind_info) = tokio::time::timeout(timeout, read_info(&mut stream))
        .await
        .map_err(|_| DialError::InfoTimeout(timeout))??;
    if node.tls || info.tls_required {
        return Err(DialError::Tls);
    }
    Ok((stream, info, behind_info))
}

async fn connect(node: &Endpoint) -> Result<TcpStream, DialError> {
    let found = tokio::net::lookup_host((&*node.host, node.port))
        .await
        .map_err(DialError::Connect)?;
    let addresses: Vec<SocketAddr> = found.collect();
    let mut last = DialError::NoAddress(node.host.to_string());
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = DialError::Connect(error),
        }
    }
    Err(last)
}

fn set_options(stream: &TcpStream, dialling: Dialling) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(dialling.keepalive)
        .with_interval(dialling.keepalive);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(dialling.user_timeout))
}

async fn read_info(stream: &mut TcpStream) -> Result<(Info, Vec<u8>), DialError> {
    let mut bytes = Vec::new();
    loop {
        match server::decode(&bytes, FrameLimits::SERVER).map_err(DialError::NotNats)? {
            Some((Frame::Info(json), len)) => {
                let info = Info::parse(json).map_err(DialError::BadInfo)?;
                let mut behind = bytes.split_off(len);
                behind.shrink_to_fit();
                return Ok((info, behind));
            }
            Some((Frame::Err(text), _)) => {
                return Err(DialError::Refused(String::from_utf8_lossy(text).into_owned()));
            }
            Some((_, len)) => {
                bytes.drain(..len);
                continue;
            }
            None => {}
        }
        bytes.reserve(GREETING_BYTES);
        if stream.read_buf(&mut bytes).await.map_err(DialError::Broke)? == 0 {
            return Err(DialError::Closed);
        }
    }
}
