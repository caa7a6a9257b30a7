//! The HTTP pages of this node and of the other nodes, as `doctor` and `cluster` read them.
//!
//! The addresses of the other nodes' pages are in their records. Whoever can write to ZooKeeper can put any address there, so the
//! token of `http.token_file` is sent to other nodes only if `nodes.allowed_nodes` says which addresses are nodes.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use serde_json::Value;
use standin_daemon::page_client::PageClient;
use standin_daemon::settings::{Secret, secret_file};
use standin_registry::Node;

use crate::settings::Settings;

/// Part of the reason why pages are not those of the record's node, by which it is recognised.
pub(crate) const OTHER_NODE: &str = "has the pages of";

/// The pages of one node.
#[derive(Debug)]
pub(crate) struct NodePages {
    /// Name of the node (`server_name`).
    pub(crate) name: String,
    /// Address of the pages.
    pub(crate) address: String,
    pub(crate) varz: Value,
    pub(crate) routez: Value,
    /// Difference between the node's clock and the clock of this host; `None` if the node does not tell its time.
    pub(crate) clock_ahead: Option<ClockDifference>,
}

/// How far a clock is ahead of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClockDifference {
    Ahead(Duration),
    Behind(Duration),
}

impl ClockDifference {
    fn between(other: SystemTime, own: SystemTime) -> Self {
        match other.duration_since(own) {
            Ok(ahead) => Self::Ahead(ahead),
            Err(error) => Self::Behind(error.duration()),
        }
    }

    pub(crate) const fn size(self) -> Duration {
        match self {
            Self::Ahead(size) | Self::Behind(size) => size,
        }
    }
}

/// Returns a client for the pages of the node that runs with these settings on this host.
///
/// # Errors
/// The reason why the pages cannot be reached.
pub(crate) fn own(settings: &Settings) -> Result<PageClient, String> {
    let listen = settings
        .http_listen()
        .ok_or("the pages are off: set http.port (-m)")?;
    if listen.port() == 0 {
        return Err("http.port is any free port: give a fixed one with -m".to_owned());
    }
    let address = listen.to_string();
    let address = match address.rsplit_once(':') {
        Some(("0.0.0.0", port)) => format!("127.0.0.1:{port}"),
        Some(("[::]", port)) => format!("[::1]:{port}"),
        _ => address,
    };
    Ok(PageClient {
        address,
        is_own: true,
        tls: settings.http_tls(),
        token: token(settings)?,
    })
}

/// Returns a client for the pages of a node, if its record names their address.
///
/// # Errors
/// The reason why the token cannot be read.
pub(crate) fn of(node: &Node, settings: &Settings) -> Result<Option<PageClient>, String> {
    let Some(http) = &node.http else { return Ok(None) };
    let is_trusted = !settings.nodes.allowed_nodes.is_empty() && !settings.allowed_nodes().refuses(http);
    let token = token(settings)?.filter(|_| is_trusted);
    Ok(Some(PageClient {
        address: http.to_string(),
        is_own: false,
        tls: settings.http_tls(),
        token,
    }))
}

fn token(settings: &Settings) -> Result<Option<Secret>, String> {
    let token = secret_file("file of http.token_file", "http", &settings.http.token_file);
    let token = token.map_err(|error| error.to_string())?;
    Ok(token.as_deref().map(Secret::from))
}

impl NodePages {
    /// Reads the pages of a node.
    ///
    /// # Errors
    /// The reason why a page cannot be read.
    pub(crate) async fn read(pages: &PageClient) -> Result<Self, String> {
        let (varz, routez) = tokio::join!(pages.get("/varz"), pages.json("/routez"));
        let (now, varz, routez) = (SystemTime::now(), varz?, routez?);
        let clock_ahead = varz.date.map(|date| ClockDifference::between(date, now));
        let varz: Value =
            serde_json::from_str(&varz.text).map_err(|error| format!("{}: {error}", pages.address))?;
        let field = |name: &str| {
            varz[name]
                .as_str()
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        Ok(Self {
            name: field("server_name").or(field("server_id")).unwrap_or_default(),
            address: pages.address.clone(),
            varz,
            routez,
            clock_ahead,
        })
    }

    /// Reads the pages at the address in the record with this id, and checks that they are not those of another node.
    ///
    /// # Errors
    /// As for [`read`](Self::read), or the name of the other node.
    pub(crate) async fn read_of(id: &str, pages: &PageClient) -> Result<Self, String> {
        let read = Self::read(pages).await?;
        if read.name != id {
            let (address, name) = (&read.address, &read.name);
            return Err(format!("{address} in the record of {id} {OTHER_NODE} {name}"));
        }
        Ok(read)
    }

    /// Reads the pages of all nodes, each given with the id of its record, at the same time.
    pub(crate) async fn read_all(all: &[(String, PageClient)]) -> Vec<Result<Self, String>> {
        join_all(all.iter().map(|(id, pages)| Self::read_of(id, pages))).await
    }

    /// Returns the names of the nodes to which this node has routes.
    pub(crate) fn peers(&self) -> BTreeSet<&str> {
        let routes = self.routez["routes"].as_array().into_iter().flatten();
        routes.filter_map(|route| route["remote_name"].as_str()).collect()
    }
}

/// Returns the missing links: one for each two nodes of which at least one does not list the other.
pub(crate) fn missing_links(nodes: &[&NodePages]) -> Vec<MissingLink> {
    let mut missing = Vec::new();
    for (at, one) in nodes.iter().enumerate() {
        for other in &nodes[at + 1..] {
            let (there, back) = (
                one.peers().contains(&*other.name),
                other.peers().contains(&*one.name),
            );
            let link = |from: &NodePages, to: &NodePages, is_one_way| MissingLink {
                from: from.name.clone(),
                to: to.name.clone(),
                is_one_way,
            };
            match (there, back) {
                (true, true) => {}
                (true, false) => missing.push(link(other, one, true)),
                (false, true) => missing.push(link(one, other, true)),
                (false, false) => missing.push(link(one, other, false)),
            }
        }
    }
    missing
}

/// A route that the page of one node does not list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MissingLink {
    /// The node whose page does not list the route.
    pub(crate) from: String,
    /// The other node.
    pub(crate) to: String,
    /// Whether the page of the other node lists the route.
    pub(crate) is_one_way: bool,
}

#[cfg(test)]
impl NodePages {
    /// Creates the pages of a node that has routes to these nodes.
    pub(crate) fn linked(name: &str, peers: &[&str]) -> Self {
        let routes: Vec<Value> = peers
            .iter()
            .map(|peer| serde_json::json!({ "remote_name": peer }))
            .collect();
        Self {
            name: name.to_owned(),
            address: String::new(),
            varz: Value::Null,
            routez: serde_json::json!({ "routes": routes }),
            clock_ahead: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_must_be_listed_by_both_nodes() {
        let nodes = [
            NodePages::linked("a", &["b", "c"]),
            NodePages::linked("b", &["a"]),
            NodePages::linked("c", &["b"]),
        ];
        let link = |from: &str, to: &str, is_one_way| MissingLink {
            from: from.to_owned(),
            to: to.to_owned(),
            is_one_way,
        };
        let all: Vec<&NodePages> = nodes.iter().collect();
        assert_eq!(missing_links(&all), [link("c", "a", true), link("b", "c", true)]);
        let apart = [NodePages::linked("a", &[]), NodePages::linked("b", &[])];
        let all: Vec<&NodePages> = apart.iter().collect();
        assert_eq!(missing_links(&all), [link("a", "b", false)]);
    }
}
