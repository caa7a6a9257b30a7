//! The component of a session: its connection with the bytes held in both directions, and its CONNECT.

use std::time::Instant;

use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use standin_wire::ClientScanner;
use standin_wire::limits::FrameLimits;

use crate::policy::Policy;
use crate::state_fields::{is_default, optional_time, scanner, time};

/// The connection to the component. Not `Debug`, because its bytes may contain secrets.
#[derive(Serialize, Deserialize)]
pub(super) struct Component {
    #[serde(with = "scanner")]
    pub(super) scanner: ClientScanner,
    /// Received bytes, from the first frame that was not written completely to a node.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) held: BytesMut,
    /// Whether no more bytes come from the component.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) eof: bool,
    /// Complete frames that wait for the component's socket.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) outbox: BytesMut,
    /// Time at which the component last took bytes, or at which the outbox began to fill.
    #[serde(with = "time")]
    pub(super) outbox_moved: Instant,
    /// Whether the connection to the component is broken, so that nothing more is written to it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) broke: bool,
    /// Time at which the component last sent anything.
    #[serde(with = "time")]
    pub(super) heard: Instant,
    /// Time at which the component was last sent a PING.
    #[serde(with = "time")]
    pub(super) pinged: Instant,
    /// PINGs sent since the component last sent anything.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) pings: u32,
}

impl Component {
    pub(super) fn new(policy: &Policy, now: Instant) -> Self {
        Self {
            scanner: ClientScanner::new(FrameLimits {
                line_bytes_max: policy.control_line_bytes_max,
                ..FrameLimits::CLIENT
            }),
            held: BytesMut::new(),
            eof: false,
            outbox: BytesMut::new(),
            outbox_moved: now,
            broke: false,
            heard: now,
            pinged: now,
            pings: 0,
        }
    }
}

/// The component as described by its CONNECT. Not `Debug`, because CONNECT may contain secrets.
#[derive(Serialize, Deserialize)]
pub(super) struct Client {
    /// The argument of the component's CONNECT. A second CONNECT is merged into it.
    pub(super) json: Box<str>,
    /// Whether the component wants a `+OK` for each command.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) verbose: bool,
    /// Whether the component gets its own messages.
    pub(super) echo: bool,
    /// Whether the component may send HPUB.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) headers: bool,
    /// Whether the component accepts INFO at any time.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) accepts_info: bool,
    /// Whether the component has signed the node's nonce. If so, its CONNECT is not valid for any other node.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) signed: bool,
    /// Whether a node has accepted these credentials.
    pub(super) accepted: bool,
    /// Whether nodes get credentials that the sidecar holds. If a node refuses them, that is no error of the component.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) is_held: bool,
    /// Whether the component itself has sent CONNECT.
    pub(super) sent_connect: bool,
    /// Time at which the first PING to the component is due; `None` once it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_time")]
    pub(super) first_ping: Option<Instant>,
    /// Name of the component in logs and on pages.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) label: ClientLabel,
}

/// Name, language and version from the component's CONNECT.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClientLabel {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lang: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
}
