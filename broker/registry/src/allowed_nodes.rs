//! The nodes that may be dialled, from the setting `nodes.allowed_nodes`: networks, addresses and host names.
//!
//! Whoever can write to ZooKeeper can put any address there. A DNS answer or an INFO can contain any address too. The
//! list keeps a program from dialling an address outside of the cluster, wherever the address comes from. A host name is
//! resolved first, and each of its addresses is compared with the list, so a name cannot lead outside. A name that is itself
//! on the list may have any address. A node that the settings name is always allowed.

use std::collections::HashSet;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::endpoint::Endpoint;
use crate::error::RegistryError;

const WANTED: &str =
    "a network (10.0.0.0/8), an IP address, or a host name (nats.example.org, *.example.org)";

/// One entry of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedNode {
    /// The addresses of a network. A single address is a network with one address.
    Network(IpNet),
    /// The host with this name, in lower case.
    Name(String),
    /// The hosts whose names end with this text: `.example.org` for the entry `*.example.org`.
    NamesBelow(String),
}

impl FromStr for AllowedNode {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Network(address.into()));
        }
        if text.contains('/') {
            return text
                .parse()
                .map(Self::Network)
                .map_err(|_| RegistryError::address(text, WANTED, "it is not a network"));
        }
        let name = text.strip_prefix("*.").unwrap_or(text);
        let endpoint = Endpoint::checked(name, 1).map_err(|error| match error {
            RegistryError::Address { reason, .. } => RegistryError::address(text, WANTED, reason),
            other => other,
        })?;
        let name = normalized(&endpoint.host);
        Ok(if text.starts_with("*.") {
            Self::NamesBelow(format!(".{name}"))
        } else {
            Self::Name(name)
        })
    }
}

/// The list. `Default` allows all nodes.
#[derive(Debug, Clone, Default)]
pub struct AllowedNodes {
    /// The entries; `None` if all nodes are allowed.
    entries: Option<Vec<AllowedNode>>,
    /// The nodes that the settings name.
    configured: HashSet<Endpoint>,
}

impl AllowedNodes {
    /// Creates the list from the texts of the setting. Without any text, all nodes are allowed. An invalid text allows no node.
    /// Invalid texts are not expected, because [`AllowedNode::from_str`] has checked the settings before. `configured` are the
    /// nodes that the settings name.
    pub fn new<'t>(
        texts: impl IntoIterator<Item = &'t str>,
        configured: impl IntoIterator<Item = Endpoint>,
    ) -> Self {
        let mut texts = texts.into_iter().peekable();
        let is_limited = texts.peek().is_some();
        let entries: Vec<AllowedNode> = texts.flat_map(str::parse).collect();
        Self {
            entries: is_limited.then_some(entries),
            configured: configured.into_iter().collect(),
        }
    }

    /// Returns whether `node` may be dialled at `address`, an address of its host.
    pub fn permits(&self, node: &Endpoint, address: IpAddr) -> bool {
        let Some(entries) = &self.entries else { return true };
        // An address in the form ::ffff:10.0.0.1 is dialled as 10.0.0.1.
        let address = address.to_canonical();
        let name = node.ip().is_none().then(|| normalized(&node.host));
        let is_on_list = |entry: &AllowedNode| match (entry, &name) {
            (AllowedNode::Network(network), _) => network.contains(&address),
            (AllowedNode::Name(allowed), Some(name)) => name == allowed,
            (AllowedNode::NamesBelow(end), Some(name)) => name.ends_with(end.as_str()),
            (AllowedNode::Name(_) | AllowedNode::NamesBelow(_), None) => false,
        };
        entries.iter().any(is_on_list) || self.configured.contains(node)
    }

    /// Returns whether `node` is refused before its host is resolved: its host is an IP address that may not be dialled.
    pub fn refuses(&self, node: &Endpoint) -> bool {
        self.entries.is_some() && node.ip().is_some_and(|address| !self.permits(node, address))
    }
}

/// Returns a host name in lower case, without the dot at the end of an absolute name.
fn normalized(name: &str) -> String {
    name.trim_end_matches('.').to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(list: &[&str], host: &str, address: &str) -> bool {
        let configured = Endpoint::new("192.0.2.1", 4222);
        let allowed = AllowedNodes::new(list.iter().copied(), [configured]);
        let node = Endpoint::new(host, 4222);
        let address = address.parse().unwrap();
        let permitted = allowed.permits(&node, address);
        if node.ip() == Some(address) {
            assert_eq!(allowed.refuses(&node), !permitted, "{list:?} {host}");
        }
        permitted
    }

    #[test]
    fn only_nodes_on_the_list_are_permitted() {
        let list = [
            "10.0.0.0/8",
            "192.168.1.7",
            "fd00::/8",
            "nats.example.org",
            "*.nats.local",
        ];
        for (host, address, is_permitted) in [
            ("10.1.2.3", "10.1.2.3", true),
            ("192.168.1.7", "192.168.1.7", true),
            ("192.168.1.8", "192.168.1.8", false),
            ("127.0.0.1", "127.0.0.1", false),
            ("0.0.0.0", "0.0.0.0", false),
            ("fd12::1", "fd12::1", true),
            ("::ffff:10.0.0.1", "::ffff:10.0.0.1", true),
            ("::ffff:127.0.0.1", "::ffff:127.0.0.1", false),
            ("::1", "::1", false),
            // The settings name this node.
            ("192.0.2.1", "192.0.2.1", true),
            // If a name is not on the list, its address must be.
            ("NATS.example.org.", "127.0.0.1", true),
            ("a.b.nats.local", "127.0.0.1", true),
            ("nats.local", "127.0.0.1", false),
            ("evilnats.local", "127.0.0.1", false),
            ("other.example.org", "127.0.0.1", false),
            ("other.example.org", "10.0.0.1", true),
            // The resolver of the system reads these as addresses.
            ("127.1", "127.0.0.1", false),
            ("2130706433", "127.0.0.1", false),
        ] {
            assert_eq!(permits(&list, host, address), is_permitted, "{host} {address}");
        }
        assert!(permits(&[], "127.0.0.1", "127.0.0.1"), "without a list");
        assert!(!permits(&["10.0.0.0/99"], "10.0.0.1", "10.0.0.1"), "invalid");
    }

    #[test]
    fn an_entry_that_is_neither_a_network_nor_an_address_nor_a_name_is_an_error() {
        for (text, reason) in [
            ("", "empty"),
            ("*.", "empty"),
            ("*", "contains '*'"),
            ("10.0.0.0/33", "not a network"),
            ("a.*.org", "contains '*'"),
            ("10.0.0.1:4222", "IPv6"),
            ("nats://a", "network"),
            ("a b", "contains ' '"),
        ] {
            let error = text.parse::<AllowedNode>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
