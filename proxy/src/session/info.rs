//! INFO: as nodes send it, and as the component gets it.
//!
//! Promise S7: INFO has the sidecar's own address and no address of the cluster. A later INFO is sent only to components that
//! accept one.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use standin_daemon::own_credentials::OwnCredentials;
use standin_registry::{Credentials, Node};
use standin_wire::limits::PAYLOAD_BYTES_MAX;
use standin_wire::{Connect, Info};

use super::{Session, Wires};

/// Maximum number of sidecars between this one and the node. A longer chain is a mistake, and would make INFO too long.
const SIDECARS_MAX: usize = 8;
/// Length of a mark, a sidecar's random identifier in INFO.
const MARK_BYTES: usize = 8;

/// Fields of INFO on which a component acts. A later INFO is sent only if one of them has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AdvertisedInfo {
    max_payload: i64,
    headers: bool,
    /// Hash of the marks of the sidecars between this one and the node. A component that is itself a sidecar searches them
    /// for its own mark.
    sidecars_hash: u32,
}

impl AdvertisedInfo {
    pub(super) fn of(node: &Info) -> Self {
        let sidecars = node.sidecars.bytes();
        Self {
            max_payload: node.max_payload,
            headers: node.headers,
            sidecars_hash: sidecars.fold(0, |hash, byte| {
                hash.wrapping_mul(31).wrapping_add(u32::from(byte))
            }),
        }
    }
}

/// Returns why the sidecar with this `mark` cannot use a node whose INFO came through these `sidecars`; `None` if it
/// can.
pub(crate) fn refused_chain(mark: &str, sidecars: &str) -> Option<&'static str> {
    if sidecars.split('-').any(|passed| passed == mark) {
        Some("leads back to this sidecar: name a node, not a sidecar in front of this one")
    } else if sidecars.len() >= SIDECARS_MAX * (MARK_BYTES + 1) {
        Some("is behind a chain of too many sidecars")
    } else {
        None
    }
}

impl Session {
    /// Returns the node's INFO for the component: with the sidecar's address, without addresses of the cluster, under
    /// 512 bytes.
    pub(super) fn own_info(&self, node: &Info) -> String {
        let (mark, tls) = (&self.identity.mark, self.listener().tls.as_ref());
        let mut info = Info {
            host: self.identity.host.clone(),
            port: self.identity.port,
            client_ip: self.identity.component_ip.to_string(),
            cluster: String::new(),
            connect_urls: Vec::new(),
            sidecars: match node.sidecars.as_str() {
                "" => mark.to_string(),
                behind => format!("{mark}-{behind}"),
            },
            ldm: false,
            // MOVE is between the sidecar and its nodes.
            moves: false,
            tls_required: tls.is_some_and(|tls| !tls.is_optional),
            tls_available: tls.is_some_and(|tls| tls.is_optional),
            tls_verify: tls.is_some_and(|tls| tls.verify),
            ..node.clone()
        };
        if info.client_id == 0 {
            info.client_id = self.identity.session_id;
        }
        let own = self.listener().credentials.as_ref();
        if self.credentials().is_some() || own.is_some() {
            info.auth_required = false;
        }
        // A component with a key of its own needs the nonce, unless the sidecar's credentials replace its own.
        if own.is_some_and(|own| own.replace) {
            info.nonce.clear();
        }
        // Negative: the node has no limit. The sidecar has one.
        if info.max_payload < 0 {
            info.max_payload = PAYLOAD_BYTES_MAX as i64;
        }
        info.with_safe_names().short_line()
    }

    /// Returns a later INFO line for the component. It is empty if the component does not accept one, or if no
    /// [`AdvertisedInfo`] field has changed. Before CONNECT, the INFO is kept for
    /// [`send_pending_info`](Self::send_pending_info).
    pub(super) fn info_for_component(&mut self, node: &Info) -> Vec<u8> {
        let now = Some(AdvertisedInfo::of(node));
        let changed = self.advertised != now;
        self.pending_info = (changed && self.client.is_none()).then(|| Box::new(node.clone()));
        let accepts_it = self.client.as_ref().is_some_and(|client| client.accepts_info);
        if !accepts_it || !changed {
            return Vec::new();
        }
        self.advertised = now;
        self.own_info(node).into_bytes()
    }

    /// Sends a kept INFO after the component's CONNECT, if the component accepts it.
    pub(super) fn send_pending_info(&mut self, now: Instant, wires: &mut impl Wires) {
        if let Some(info) = self.pending_info.take() {
            let line = self.info_for_component(&info);
            self.deliver(&[&line], now, wires);
        }
    }

    /// Returns the credentials of the sidecar that nodes get with this CONNECT, if they are those of `[credentials]`.
    pub(super) fn own_credentials(&self, client: &Connect) -> Option<&OwnCredentials> {
        let own = self.listener().credentials.as_ref();
        own.filter(|own| own.replace || !client.has_credentials())
    }

    /// Returns the credentials for a component that sends none: the node's own, or those of the node's URL.
    pub(super) fn credentials(&self) -> Option<&Credentials> {
        self.credentials_for(self.node.as_deref())
    }

    /// Returns what [`credentials`](Self::credentials) returns while the session is on `node`.
    pub(super) fn credentials_for<'s>(&'s self, node: Option<&'s Node>) -> Option<&'s Credentials> {
        let node = node.and_then(|node| node.credentials.as_deref());
        node.or(self.identity.credentials.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_sidecars_with_a_loop_or_too_many_members_is_refused() {
        let (own, other) = ("1a2b3c4d", "00000000");
        let chain = |marks: &[&str]| marks.join("-");
        assert_eq!(refused_chain(own, ""), None);
        assert_eq!(refused_chain(own, &chain(&[other; SIDECARS_MAX])), None);
        assert!(refused_chain(own, &chain(&[other; SIDECARS_MAX + 1])).is_some());
        assert!(refused_chain(own, &chain(&[other, own, other])).is_some());
        assert!(refused_chain(own, &"x".repeat(4000)).is_some());
    }
}
