//! What two nodes say of themselves before they work together.

use serde::{Deserialize, Serialize};

use super::frame;

/// The version of the frames that this program speaks, and the oldest that it still does.
pub(crate) const PROTOCOL: u32 = 1;
pub(crate) const PROTOCOL_MIN: u32 = 1;
/// What this program can do beyond the first version. What both sides can do is used; a frame that an older node does not know it skips.
pub(crate) const FEATURES: &[&str] = &[];

/// The longest text by which a node goes, as in the registry.
const TEXT_BYTES_MAX: usize = 256;

/// The first frame of each side. Fields may be added; those that are missing are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Hello {
    /// The newest protocol it speaks, and the oldest.
    pub(crate) protocol: u32,
    pub(crate) protocol_min: u32,
    pub(crate) features: Vec<String>,
    pub(crate) cluster: String,
    /// The node, over restarts.
    pub(crate) id: String,
    /// This life of it, and when that began by the node's own clock, in milliseconds since 1970.
    pub(crate) run: String,
    pub(crate) began: u64,
    /// Where clients, and other nodes, connect to it: host:port.
    pub(crate) client: String,
    pub(crate) mesh: String,
    /// The program's version.
    pub(crate) version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) user: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) password: String,
    /// It takes clients.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) serving: bool,
    /// It takes no clients any more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) draining: bool,
    /// Clients are not to be told of it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) no_advertise: bool,
}

/// Why a node does not want a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Why {
    /// There is a link between the two already, or one in the making.
    Linked,
    /// The other side is this node itself.
    Itself,
    /// Another node with this id is linked; whether it still lives, and will go on, is not known.
    DuplicateId,
    /// It lives.
    LivingDuplicate,
    /// It lives, and stays rather than this one.
    PrecedingDuplicate,
    ClusterName,
    Credentials,
    Protocol,
    /// There are as many nodes as there may be.
    Full,
    /// This node leaves.
    Leaving,
    #[serde(other)]
    Other,
}

impl Why {
    /// What an operator should know.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Linked => "the two nodes are linked already",
            Self::Itself => "the address is the node's own",
            Self::DuplicateId | Self::LivingDuplicate | Self::PrecedingDuplicate => {
                "another node with this id is alive; give each node a name (--name) of its own"
            }
            Self::ClusterName => "the clusters' names differ; give all nodes the same (--cluster_name)",
            Self::Credentials => {
                "user or password of the cluster are wrong; give all nodes the same (--cluster nats://user:pass@…)"
            }
            Self::Protocol => {
                "the two programs have no version of the mesh protocol in common; upgrade the older one"
            }
            Self::Full => "the cluster has as many nodes as cluster.nodes_max allows",
            Self::Leaving => "the node is about to leave",
            Self::Other => "for a reason of a newer version",
        }
    }

    /// What an operator should know of this node and another one, between which there is this.
    pub(crate) fn told(self, own: &Hello, other: &Hello) -> String {
        match self {
            Self::ClusterName => format!(
                "the clusters' names differ: this node's is {:?}, the other's {:?}; give all nodes the same (--cluster_name)",
                own.cluster, other.cluster
            ),
            _ => self.text().to_owned(),
        }
    }

    /// Whether two nodes have the same id.
    pub(crate) const fn is_duplicate(self) -> bool {
        matches!(
            self,
            Self::DuplicateId | Self::LivingDuplicate | Self::PrecedingDuplicate
        )
    }

    /// Whether an operator has to mend something.
    pub(crate) const fn is_fault(self) -> bool {
        !matches!(self, Self::Linked | Self::Itself | Self::Leaving)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) why: Why,
}

/// A node that another one knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Peer {
    pub(crate) id: String,
    pub(crate) mesh: String,
}

/// A frame with this JSON.
pub(crate) fn put_json(out: &mut Vec<u8>, kind: u8, value: &impl Serialize) {
    // These types cannot fail to be written.
    let json = serde_json::to_vec(value).unwrap_or_default();
    frame::put(out, kind, &json);
}

impl Hello {
    /// Whether what it says of itself can be told in a log.
    pub(crate) fn is_sound(&self) -> bool {
        let texts = [&self.id, &self.run, &self.client, &self.mesh, &self.version];
        let sound = |text: &&String| text.len() <= TEXT_BYTES_MAX && !text.contains(char::is_control);
        !self.id.is_empty() && texts.iter().all(sound)
    }

    /// Of two nodes the one with the lesser id decides which connection is the link.
    pub(crate) fn decides_with(&self, other: &Self) -> bool {
        self.id < other.id
    }
}
