//! Recognition of this sidecar among the nodes, by its mark in INFO and by its addresses.
//!
//! If a sidecar dialled itself, it would accept a new component, whose session would dial the same address, and so on.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use standin_daemon::listen::covers;
use standin_registry::Endpoint;

use super::lock;

/// The properties by which the sidecar recognises itself.
#[derive(Debug)]
pub(crate) struct SelfCheck {
    mark: Arc<str>,
    /// Addresses on which the sidecar listens. None of them is a node.
    listening: Vec<SocketAddr>,
    /// Node addresses that turned out to be the sidecar itself. They are not tried again.
    met: Mutex<HashSet<Endpoint>>,
}

impl SelfCheck {
    /// Creates the check of a sidecar that listens on these addresses. `mark` is that of the former program.
    pub(crate) fn new(listening: &[SocketAddr], mark: Option<&str>) -> Self {
        let new_mark = || format!("{:08x}", rand::random::<u32>()).into();
        Self {
            mark: mark.map_or_else(new_mark, Into::into),
            listening: listening.to_vec(),
            met: Mutex::default(),
        }
    }

    /// Returns this sidecar's mark, sent in every INFO. The sidecar recognises itself behind other sidecars by this
    /// mark.
    pub(crate) fn mark(&self) -> &Arc<str> {
        &self.mark
    }

    /// Returns whether a connection from `local` to `peer` ends at the sidecar itself. This is the case if the
    /// sidecar listens on `peer`'s port, either at `peer`'s address or, if `peer` is on this host, at an unspecified address
    /// that covers it.
    pub(crate) fn is_own(&self, local: SocketAddr, peer: SocketAddr) -> bool {
        let here = peer.ip() == local.ip() || peer.ip().is_loopback();
        self.listening.iter().any(|own| {
            own.port() == peer.port() && (own.ip() == peer.ip() || here && covers(own.ip(), peer.ip()))
        })
    }

    /// Records that `node` is the sidecar itself.
    pub(crate) fn met(&self, node: &Endpoint) {
        lock(&self.met).insert(node.clone());
    }

    /// Returns whether `node` turned out to be the sidecar itself.
    pub(super) fn has_met(&self, node: &Endpoint) -> bool {
        lock(&self.met).contains(node)
    }
}
