//! The record of the server in ZooKeeper, from its INFO and the flags.

use standin_registry::{Node, NodeState};
use standin_wire::Info;

use super::check_error::CheckError;
use super::target::Target;

/// Returns the record of the server with this INFO. Each call gives the record a new `run`.
pub(super) fn of(target: &Target, info: &Info) -> Result<Node, CheckError> {
    let name = match info.server_name.as_str() {
        "" => info.server_id.as_str(),
        name => name,
    };
    let id = target.id.as_deref().unwrap_or(name);
    // Other hosts cannot reach a monitoring port at a loopback address, so the record leaves it out. If the server's address for clients
    // is a loopback address too, every reader of the record is on this host, and the port stays.
    let is_here = |ip: Option<std::net::IpAddr>| ip.is_some_and(|ip| ip.is_loopback() || ip.is_unspecified());
    let http = target.http.as_ref();
    let http = http.filter(|http| is_here(target.advertised.ip()) || !is_here(http.ip()));
    let node = Node {
        http: http.cloned(),
        tls: info.tls_required,
        zone: target.zone.as_str().into(),
        weight: target.weight,
        version: info.version.as_str().into(),
        state: if info.ldm {
            NodeState::Draining
        } else {
            NodeState::Up
        },
        ..Node::new(id, target.advertised.clone())
    };
    node.check_record()?;
    Ok(node)
}
