//! The addresses on which the sidecar listens, according to its settings.

use std::net::{SocketAddr, ToSocketAddrs as _};

use standin_daemon::doctor::listen_check::ListenAddress;
use standin_daemon::unix_socket;

use crate::settings::Settings;
use crate::sidecar::is_ipv6_beside_ipv4;

/// Returns the addresses on which the sidecar listens.
pub(super) fn all(settings: &Settings) -> Vec<ListenAddress> {
    let mut addresses = Vec::new();
    let key = if settings.listener.is_empty() {
        "listen (--listen)"
    } else {
        "listen of its [[listener]]"
    };
    for listener in &*settings.listeners() {
        addresses.extend(listener.listen.iter().map(|address| ListenAddress {
            text: address.clone(),
            key: key.to_owned(),
            may_be_missing: is_ipv6_beside_ipv4(address, &listener.listen),
        }));
    }
    addresses.extend(settings.http_listen().map(|text| ListenAddress {
        text,
        key: "http.listen (--http)".to_owned(),
        may_be_missing: false,
    }));
    addresses
}

/// Returns the TCP addresses on which the sidecar listens for components. None of them is a node.
pub(super) fn for_components(settings: &Settings) -> Vec<SocketAddr> {
    let listeners = settings.listeners();
    let texts = listeners.iter().flat_map(|listener| &listener.listen);
    let tcp = texts.filter(|text| unix_socket::path_of(text).is_none());
    tcp.filter_map(|text| text.to_socket_addrs().ok())
        .flatten()
        .collect()
}
