//! A connection to a node, from the dial to the node's INFO. The session takes over from there.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use socket2::SockRef;
use standin_daemon::tcp;
use standin_daemon::tls::{HandshakeFirst, TlsMode, TlsSection};
use standin_registry::{AllowedNodes, Endpoint, Node};
use standin_tls::dialler::Dialler;
use standin_tls::files::TlsError;
use standin_tls::stream::Stream;
use standin_wire::limits::FrameLimits;
use standin_wire::server::{self, Frame};
use standin_wire::{Info, WireError, encode};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tracing::warn;

use crate::nodes::{NOT_ALLOWED, Permit, SelfCheck};
use crate::session::refused_chain;
use crate::settings::{NodeTlsSection, Settings, SocketSection};
use crate::sidecar_state::SidecarState;
use crate::sockets;

/// Bytes reserved for each read before the session takes over.
const INFO_READ_BYTES: usize = 4096;

/// A connection to a node that has sent its INFO.
#[derive(Debug)]
pub(crate) struct DialledNode {
    pub(crate) stream: Stream,
    pub(crate) node: Arc<Node>,
    pub(crate) info: Info,
    /// Bytes that the node sent after its INFO.
    pub(crate) after_info: Vec<u8>,
    /// Before a planned move: the node had failed or was leaving when it was dialled. There was no better one.
    pub(crate) was_away: bool,
    /// Permit held until the node has taken the session. It bounds the number of sessions that join at the same time.
    pub(crate) permit: Permit,
}

/// Reason why a node could not be used.
#[derive(Debug, Error)]
pub(crate) enum DialError {
    #[error("name {0} has no address")]
    NoAddress(String),
    #[error("its address {0} is {NOT_ALLOWED}")]
    NotAllowed(IpAddr),
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    #[error("no INFO within {0:?} after connecting")]
    InfoTimeout(Duration),
    #[error("closed the connection before its answer")]
    Closed,
    #[error("connection broke before its answer: {0}")]
    Broke(#[source] io::Error),
    #[error("no PONG within {0:?} after its INFO")]
    PongTimeout(Duration),
    #[error("not a NATS server: {0}")]
    NotNats(WireError),
    #[error("INFO is not a JSON object of a NATS server: {0}")]
    BadInfo(#[source] serde_json::Error),
    #[error("refused the connection: -ERR '{0}'")]
    Refused(String),
    #[error("it is this sidecar itself; remove its address from the registry, or listen on another address")]
    Own,
    #[error("{0}")]
    Chain(&'static str),
    #[error("requires TLS, which is off; set tls.node.mode to \"optional\" or \"required\"")]
    TlsOff,
    #[error("does not speak TLS, which tls.node.mode requires")]
    TlsMissing,
    #[error("sent bytes between its INFO and the TLS handshake")]
    TlsBytesBefore,
    #[error(
        "TLS handshake failed: {0}; its certificate must have the name {1:?}, and an authority of tls.node.ca_file"
    )]
    TlsHandshake(#[source] io::Error, String),
    #[error("TLS cannot be used: {0}")]
    TlsFiles(#[from] TlsError),
}

impl DialError {
    /// Returns the stable name, for logs and metric labels.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::NoAddress(_) => "no_address",
            Self::NotAllowed(_) => "not_allowed",
            Self::Connect(_) => "connect",
            Self::ConnectTimeout(_) => "connect_timeout",
            Self::InfoTimeout(_) => "info_timeout",
            Self::PongTimeout(_) => "pong_timeout",
            Self::Closed => "closed",
            Self::Broke(_) => "broke",
            Self::NotNats(_) => "not_nats",
            Self::BadInfo(_) => "bad_info",
            Self::Refused(_) => "refused",
            Self::Own => "own",
            Self::Chain(_) => "loop",
            Self::TlsOff
            | Self::TlsMissing
            | Self::TlsBytesBefore
            | Self::TlsHandshake(..)
            | Self::TlsFiles(_) => "tls",
        }
    }
}

/// What a dial depends on, apart from its node.
pub(crate) struct DialContext<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) allowed: &'a AllowedNodes,
    pub(crate) self_check: &'a SelfCheck,
    /// Returns the TLS towards nodes. Its files are read when it is needed first.
    pub(crate) tls: &'a (dyn Fn() -> Result<Arc<Dialler>, TlsError> + Sync),
}

/// Dials `candidates` in their order. If a node has not sent its INFO after `dial.stagger_ms`, the next node is
/// dialled in parallel (RFC 8305, "happy eyeballs"), so an address that drops packets costs little time. The first
/// INFO wins. Failed nodes that may not be retried yet are skipped. Returns `None` if no candidate could be used.
pub(crate) async fn dial_candidates(
    shared: &SidecarState,
    candidates: Vec<Arc<Node>>,
) -> Option<DialledNode> {
    let settings = shared.settings.load_full();
    let mut dials = FuturesUnordered::new();
    for node in candidates {
        // Dials under way continue while this one waits for its permit.
        let permit = tokio::select! {
            permit = shared.book.permit(&node) => permit,
            Some(dialled) = first_connection(&mut dials) => return Some(dialled),
        };
        let Some(permit) = permit else { continue };
        dials.push(dial_node(node, permit, shared, &settings));
        let stagger = tokio::time::sleep(settings.dial.stagger_ms.duration());
        tokio::select! {
            biased;
            Some(dialled) = dials.next() => if dialled.is_some() { return dialled },
            () = stagger => {}
        }
    }
    first_connection(&mut dials).await
}

/// Dials `node`. Records a failure.
async fn dial_node(
    node: Arc<Node>,
    permit: Permit,
    shared: &SidecarState,
    settings: &Settings,
) -> Option<DialledNode> {
    match dial(&node, shared, settings).await {
        Ok((stream, info, after_info)) => Some(DialledNode {
            stream,
            node,
            info,
            after_info,
            was_away: false,
            permit,
        }),
        Err(error) => {
            record_failure(shared, &node, &error, &permit);
            None
        }
    }
}

/// Records a failed dial or probe of `node` in the node book and the metrics. Only the first failure in a row is logged.
pub(crate) fn record_failure(shared: &SidecarState, node: &Arc<Node>, error: &DialError, permit: &Permit) {
    shared.metrics.node_dials.increment(error.kind());
    let text = error.to_string();
    if shared.book.failed(node, &text, permit.is_trial(), Instant::now()) {
        warn!(node = %node.client, kind = error.kind(), "node cannot be used: {error}");
    }
}

/// Returns the first connection from the dials under way; `None` if all of them failed.
async fn first_connection<D>(dials: &mut FuturesUnordered<D>) -> Option<DialledNode>
where
    D: Future<Output = Option<DialledNode>>,
{
    dials.filter_map(std::future::ready).next().await
}

/// Proves that `node` serves: connects and reads its INFO. If the node asks for no credentials, also sends a PING and
/// waits for the PONG. If it asks for credentials, a PING before CONNECT would be an error in the node's log, so INFO
/// alone is the proof.
pub(crate) async fn probe(node: &Node, shared: &SidecarState) -> Result<Info, DialError> {
    let settings = shared.settings.load_full();
    let (mut stream, info, _) = dial(node, shared, &settings).await?;
    if !info.auth_required {
        let timeout = settings.dial.handshake_timeout_ms.duration();
        tokio::time::timeout(timeout, ping(&mut stream))
            .await
            .map_err(|_| DialError::PongTimeout(timeout))??;
    }
    standin_daemon::linger::close(stream).await;
    Ok(info)
}

/// Sends a PING and waits for the PONG.
pub(crate) async fn ping(stream: &mut Stream) -> Result<(), DialError> {
    stream.write_all(encode::PING).await.map_err(DialError::Broke)?;
    stream.flush().await.map_err(DialError::Broke)?;
    let is_pong = |frame: &Frame<'_>| matches!(frame, Frame::Pong).then_some(Ok(()));
    read_answer(stream, is_pong).await.map(drop)
}

/// Connects to `node` as the running sidecar does.
async fn dial(
    node: &Node,
    shared: &SidecarState,
    settings: &Settings,
) -> Result<(Stream, Info, Vec<u8>), DialError> {
    let context = DialContext {
        settings,
        allowed: &shared.book.allowed(),
        self_check: &shared.book.self_check,
        tls: &|| shared.node_tls(),
    };
    connect_node(node, &context).await
}

/// Connects to `node`, begins TLS if the node or the settings want it, and reads the node's INFO. Also returns the bytes after it. The
/// sidecar itself and a loop of sidecars are errors.
pub(crate) async fn connect_node(
    node: &Node,
    context: &DialContext<'_>,
) -> Result<(Stream, Info, Vec<u8>), DialError> {
    let DialContext {
        settings, self_check, ..
    } = context;
    let timeout = settings.dial.connect_timeout_ms.duration();
    let stagger = settings.dial.stagger_ms.duration();
    let socket = tokio::time::timeout(timeout, connect(&node.client, context.allowed, stagger))
        .await
        .map_err(|_| DialError::ConnectTimeout(timeout))??;
    let ends = |stream: &TcpStream| io::Result::Ok((stream.local_addr()?, stream.peer_addr()?));
    let (local, peer) = ends(&socket).map_err(DialError::Connect)?;
    if self_check.is_own(local, peer) {
        self_check.met(&node.client);
        return Err(DialError::Own);
    }
    set_options(&socket, &settings.socket).map_err(DialError::Connect)?;
    let tls = NodeTls::new(node, settings);
    let mut stream = Stream::from(socket);
    if tls.comes_first() {
        stream = tls.begin(stream, context).await?;
    }
    let timeout = settings.dial.handshake_timeout_ms.duration();
    let (info, after_info) = tokio::time::timeout(timeout, read_info(&mut stream))
        .await
        .map_err(|_| DialError::InfoTimeout(timeout))??;
    if let Some(reason) = refused_chain(self_check.mark(), &info.sidecars) {
        return Err(DialError::Chain(reason));
    }
    if !stream.is_tls() && tls.is_needed(&info)? {
        // They would count as encrypted, although anybody on the way may have added them.
        if !after_info.is_empty() {
            return Err(DialError::TlsBytesBefore);
        }
        stream = tls.begin(stream, context).await?;
    }
    Ok((stream, info, after_info))
}

/// TLS on the connection to one node.
struct NodeTls<'n> {
    section: &'n TlsSection,
    is_first: bool,
    /// Whether the node's record or URL demands TLS, or the settings do.
    is_wanted: bool,
    /// The name that the node's certificate must have.
    name: &'n str,
}

impl<'n> NodeTls<'n> {
    fn new(node: &'n Node, settings: &'n Settings) -> Self {
        let NodeTlsSection {
            server_name,
            handshake_first,
            section,
        } = &settings.tls.node;
        Self {
            section,
            is_first: *handshake_first == HandshakeFirst::Yes,
            is_wanted: node.tls || section.mode == TlsMode::Required,
            name: if server_name.is_empty() {
                &node.client.host
            } else {
                server_name
            },
        }
    }

    /// Returns whether the handshake comes before INFO.
    fn comes_first(&self) -> bool {
        self.is_wanted && self.section.is_on() && self.is_first
    }

    /// Returns whether the handshake comes after this INFO.
    fn is_needed(&self, info: &Info) -> Result<bool, DialError> {
        match (self.is_wanted || info.tls_required, self.section.mode) {
            (false, _) => Ok(false),
            (true, TlsMode::Off) => Err(DialError::TlsOff),
            (true, _) if info.tls_required || info.tls_available => Ok(true),
            (true, _) => Err(DialError::TlsMissing),
        }
    }

    async fn begin(&self, stream: Stream, context: &DialContext<'_>) -> Result<Stream, DialError> {
        let dialler = (context.tls)()?;
        let limit = self.section.timeout_ms.duration();
        let shaken = dialler.connect(stream.into_socket(), self.name, limit).await;
        shaken.map_err(|error| DialError::TlsHandshake(error, self.name.to_owned()))
    }
}

/// Connects to one of the allowed addresses of `node`. The next address is dialled in parallel when the previous ones take
/// longer than `stagger`.
async fn connect(node: &Endpoint, allowed: &AllowedNodes, stagger: Duration) -> Result<TcpStream, DialError> {
    let found = tokio::net::lookup_host((&*node.host, node.port))
        .await
        .map_err(DialError::Connect)?;
    let is_allowed = |address: &SocketAddr| allowed.permits(node, address.ip());
    let (found, refused): (Vec<SocketAddr>, Vec<SocketAddr>) = found.partition(is_allowed);
    let mut last = refused.first().map_or_else(
        || DialError::NoAddress(node.host.to_string()),
        |address| DialError::NotAllowed(address.ip()),
    );
    let mut dials = FuturesUnordered::new();
    let mut addresses = found.into_iter();
    loop {
        let more = addresses
            .next()
            .map(|address| dials.push(TcpStream::connect(address)));
        let wait = if addresses.len() > 0 {
            stagger
        } else {
            Duration::MAX
        };
        match tokio::time::timeout(wait, dials.next()).await {
            Ok(Some(Ok(stream))) => return Ok(stream),
            Ok(Some(Err(error))) => last = DialError::Connect(error),
            Ok(None) if more.is_none() => return Err(last),
            Ok(None) | Err(_) => {}
        }
    }
}

fn set_options(stream: &TcpStream, options: &SocketSection) -> io::Result<()> {
    let socket = SockRef::from(stream);
    tcp::send_at_once(&socket)?;
    sockets::keep_alive(&socket, options.keepalive_secs.duration())?;
    socket.set_tcp_user_timeout(Some(options.user_timeout_ms.duration()))
}

/// Reads the node's INFO. Also returns the bytes after it.
async fn read_info(stream: &mut Stream) -> Result<(Info, Vec<u8>), DialError> {
    let info = |frame: &Frame<'_>| match frame {
        Frame::Info(json) => Some(Info::parse(json).map_err(DialError::BadInfo)),
        _ => None,
    };
    read_answer(stream, info).await
}

/// Reads frames until `wanted` returns a value for one. Returns that value and the bytes after the frame. An `-ERR`
/// before it is an error.
async fn read_answer<T>(
    stream: &mut Stream,
    wanted: impl Fn(&Frame<'_>) -> Option<Result<T, DialError>>,
) -> Result<(T, Vec<u8>), DialError> {
    let mut bytes = Vec::new();
    loop {
        match server::decode(&bytes, FrameLimits::SERVER).map_err(DialError::NotNats)? {
            Some((Frame::Err(text), _)) => {
                return Err(DialError::Refused(String::from_utf8_lossy(text).into_owned()));
            }
            Some((frame, len)) => {
                let answer = wanted(&frame);
                bytes.drain(..len);
                if let Some(answer) = answer {
                    bytes.shrink_to_fit();
                    return Ok((answer?, bytes));
                }
                continue;
            }
            None => {}
        }
        bytes.reserve(INFO_READ_BYTES);
        if stream.read_buf(&mut bytes).await.map_err(DialError::Broke)? == 0 {
            return Err(DialError::Closed);
        }
    }
}
