//! The parts of the state: the sidecar as a whole, and each session.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use standin_daemon::metrics::SavedMetrics;
use standin_registry::{Node, RegistryMemory};
use standin_wire::Info;

use super::Opening;
use crate::balancer::Balancer;
use crate::cause::Cause;
use crate::moves::Move;
use crate::nodes::NodesRecord;
use crate::peer::Peer;
use crate::recovery::{Away, RecoveryRecord, Served};
use crate::session::{Session, Traffic};
use crate::state_fields::{is_default, time};

/// One part. `S` is `&Session` in the program that writes it.
#[derive(Serialize, Deserialize)]
pub(crate) enum Part<S = Session> {
    Opening(Opening),
    Sidecar(Box<SidecarRecord>),
    Session(Box<SessionRecord<S>>),
}

/// The sidecar as a whole.
#[derive(Serialize, Deserialize)]
pub(crate) struct SidecarRecord {
    /// Addresses of each listener, in the order of the settings.
    pub(crate) listeners: Vec<Vec<String>>,
    /// Number of sessions of each listener.
    #[serde(default)]
    pub(crate) sessions: Vec<usize>,
    /// Address of the HTTP pages.
    pub(crate) http: Option<String>,
    pub(crate) sockets: Vec<ListenerRecord>,
    /// The mark of the sidecar in INFO.
    pub(crate) mark: String,
    /// Number of the last session.
    pub(crate) session_ids: u64,
    /// Time at which the first program started.
    #[serde(with = "time")]
    pub(crate) started: Instant,
    /// Time at which the first session came to rest.
    #[serde(with = "time")]
    pub(crate) rest_began: Instant,
    /// Traffic of the sessions that have ended.
    pub(crate) ended: Traffic,
    pub(crate) registry: RegistryMemory,
    pub(crate) nodes: NodesRecord,
    pub(crate) recovery: RecoveryRecord,
    pub(crate) balancer: Balancer,
    pub(crate) moves_total: u64,
    pub(crate) moves: Vec<Move>,
    /// Messages lost, one number for each kind of loss.
    pub(crate) losses: Vec<u64>,
    pub(crate) metrics: SavedMetrics,
}

/// A socket that listens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ListenerRecord {
    pub(crate) socket: RawFd,
    /// The file of a Unix socket, if this program has made it. The next program removes it when it stops.
    pub(crate) own_file: Option<PathBuf>,
}

/// One session.
#[derive(Serialize, Deserialize)]
pub(crate) struct SessionRecord<S = Session> {
    pub(crate) id: u64,
    /// Place of its listener in [`SidecarRecord::listeners`].
    pub(crate) listener: usize,
    pub(crate) component: Peer,
    pub(crate) component_socket: RawFd,
    /// `None` without a node, and if the connection cannot be passed on, because it has TLS.
    pub(crate) node_socket: Option<RawFd>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<NextRecord>,
    pub(crate) session: S,
    #[serde(with = "time")]
    pub(crate) connected: Instant,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) moves: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) traffic: Traffic,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) away: Option<Away>,
    pub(crate) task: TaskRecord,
}

/// What the task of a session has besides its [`Session`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TaskRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) served: Option<Served>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) is_back: bool,
    /// Rounds of dialling in a row without a node that served the session.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) rounds: u32,
    #[serde(with = "time")]
    pub(crate) search_began: Instant,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) is_half_open: bool,
    /// The component may begin TLS, and has not.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) offers_tls: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) component_broke: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node_broke: Option<Cause>,
}

impl<S> SessionRecord<S> {
    /// Returns the file descriptors of its connections.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = RawFd> + use<S> {
        let next = self.next.as_ref().map(|next| next.socket);
        [Some(self.component_socket), self.node_socket, next]
            .into_iter()
            .flatten()
    }
}

/// The node to which a session is about to move, connected already.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NextRecord {
    pub(crate) socket: RawFd,
    pub(crate) node: Node,
    pub(crate) info: Info,
    #[serde(with = "serde_bytes")]
    pub(crate) after_info: Vec<u8>,
    pub(crate) was_away: bool,
    /// It knows the subscriptions.
    pub(crate) is_ready: bool,
}
