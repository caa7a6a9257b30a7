//! HELLO, in which a node introduces itself in the handshake, and the reasons to refuse a route.

use serde::{Deserialize, Serialize};
use standin_daemon::settings::Secret;

use super::frame;

/// Newest version of the mesh protocol that this program supports.
pub(crate) const PROTOCOL: u32 = 1;
/// Oldest version that it supports.
pub(crate) const PROTOCOL_MIN: u32 = 1;
/// Optional features of this program. A feature is used if both sides have it. A node skips frames of kinds that it does not know.
pub(crate) const FEATURES: &[&str] = &[ACCOUNTS, MOVES];
/// The node keeps the subjects of different accounts apart.
pub(crate) const ACCOUNTS: &str = "accounts";
/// The node makes the cuts of [`moves`](crate::moves), messages name their worker, and a message for a queue group is passed on.
pub(crate) const MOVES: &str = "moves";

/// Maximum number of workers of a node that is believed.
const WORKERS_MAX: u32 = 4096;
/// Maximum length of the texts in HELLO, as in the registry.
const TEXT_BYTES_MAX: usize = 256;

/// The first frame of each side. Later versions may add fields. A missing field has its default value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Hello {
    /// Newest protocol version that the node supports.
    pub(crate) protocol: u32,
    /// Oldest protocol version that the node supports.
    pub(crate) protocol_min: u32,
    pub(crate) features: Vec<String>,
    pub(crate) cluster: String,
    /// Id of the node, the same after a restart.
    pub(crate) id: String,
    /// Id of this run of the node. It changes at each restart.
    pub(crate) run: String,
    /// Start of this run by the node's own clock, in milliseconds since 1970.
    pub(crate) began: u64,
    /// Address for clients, `HOST:PORT`.
    pub(crate) client: String,
    /// Address for other nodes, `HOST:PORT`.
    pub(crate) mesh: String,
    pub(crate) version: String,
    /// Number of the node's workers; 0 if its program does not send it.
    pub(crate) workers: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) user: String,
    #[serde(skip_serializing_if = "Secret::is_empty")]
    pub(crate) password: Secret,
    /// The node accepts clients.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) serving: bool,
    /// The node accepts no more clients.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) draining: bool,
    /// The node's address is not sent to clients.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) no_advertise: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RefusalReason {
    /// The two nodes are already linked, or a route between them is being established.
    Linked,
    /// The node has connected to itself.
    Itself,
    /// Another node with this id is linked. It may be dead or about to end.
    DuplicateId,
    /// Another node with this id is alive, but the refused node keeps the id.
    LivingDuplicate,
    /// Another node with this id is alive and keeps the id.
    PrecedingDuplicate,
    ClusterName,
    Credentials,
    Protocol,
    /// The refusing node has accounts, and the refused one does not know them.
    Accounts,
    /// The cluster has its maximum number of nodes.
    Full,
    /// The refusing node is about to leave.
    Leaving,
    #[serde(other)]
    Other,
}

impl RefusalReason {
    /// Returns the text for the operator of the node `own`, about a refused route with the node `other`.
    pub(crate) fn text(self, own: &Hello, other: &Hello) -> String {
        let text = match self {
            Self::Linked => "the two nodes are already linked",
            Self::Itself => "the address is the node's own",
            Self::DuplicateId | Self::LivingDuplicate | Self::PrecedingDuplicate => {
                "another node with this id is alive; give each node its own name (--name)"
            }
            Self::ClusterName => {
                return format!(
                    "the clusters' names differ: this node's is {:?}, the other's {:?}; give all nodes the same (--cluster_name)",
                    own.cluster, other.cluster
                );
            }
            Self::Credentials => {
                "user or password of the cluster are wrong; give all nodes the same (--cluster nats://user:pass@…)"
            }
            Self::Protocol => {
                "the two programs have no version of the mesh protocol in common; upgrade the older one"
            }
            Self::Accounts => {
                "this cluster has accounts, and the program of the other node does not know them; upgrade it"
            }
            Self::Full => "the cluster has as many nodes as cluster.nodes_max allows",
            Self::Leaving => "the node is about to leave",
            Self::Other => "unknown reason, from a newer version",
        };
        text.to_owned()
    }

    /// Returns whether the reason is a duplicate id.
    pub(crate) const fn is_duplicate(self) -> bool {
        matches!(
            self,
            Self::DuplicateId | Self::LivingDuplicate | Self::PrecedingDuplicate
        )
    }

    /// Returns whether an operator has to correct something.
    pub(crate) const fn is_fault(self) -> bool {
        !matches!(self, Self::Linked | Self::Itself | Self::Leaving)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) why: RefusalReason,
}

/// A node, as another node names it in PEERS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Peer {
    pub(crate) id: String,
    pub(crate) mesh: String,
}

impl Peer {
    pub(crate) fn of(hello: &Hello) -> Self {
        let (id, mesh) = (hello.id.clone(), hello.mesh.clone());
        Self { id, mesh }
    }
}

/// Returns a frame with `value` as JSON.
pub(crate) fn json_frame(kind: u8, value: &impl Serialize) -> Vec<u8> {
    // Serialization of these types cannot fail.
    let json = serde_json::to_vec(value).unwrap_or_default();
    let mut frame = Vec::new();
    frame::put(&mut frame, kind, &json);
    frame
}

impl Hello {
    /// Returns the number of workers, at least 1.
    pub(crate) fn workers(&self) -> usize {
        self.workers.clamp(1, WORKERS_MAX) as usize
    }

    /// Returns whether the node has this optional feature.
    pub(crate) fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|known| known == feature)
    }

    /// Returns whether the texts are short enough and can be logged, and the id is not empty.
    pub(crate) fn is_sound(&self) -> bool {
        let texts = [&self.id, &self.run, &self.client, &self.mesh, &self.version];
        let sound = |text: &&String| text.len() <= TEXT_BYTES_MAX && !text.contains(char::is_control);
        !self.id.is_empty() && texts.iter().all(sound)
    }

    /// Returns whether this node decides which connection to `other` becomes the route: the node with the lower id decides.
    pub(crate) fn decides_with(&self, other: &Self) -> bool {
        self.id < other.id
    }
}
