//! The routes between all nodes as their pages list them, and the clocks of their hosts.

use std::sync::Arc;
use std::time::Duration;

use standin_daemon::doctor::report::Row;
use standin_registry::Node;

use crate::node_pages::{self, NodePages, OTHER_NODE, missing_links};
use crate::settings::Settings;

const ROUTES: &str = "routes";
const CLOCK: &str = "clock";
const PAGES: &str = "pages";

/// Clocks that differ by this much or more get a warning. The time on a page has a resolution of 1 s.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(3);

/// The pages of all nodes that could be read.
pub(super) struct ClusterPages {
    nodes: Vec<NodePages>,
    /// Rows about pages that could not be read.
    rows: Vec<Row>,
    /// Names of registered nodes that take part in the mesh.
    registered: Vec<String>,
}

/// Reads the pages of all nodes whose records name them. `own` are the pages of this node.
pub(super) async fn pages(
    settings: &Settings,
    own: Option<NodePages>,
    records: &[Arc<Node>],
) -> ClusterPages {
    let is_own = |node: &Node| own.as_ref().is_some_and(|own| *own.name == *node.id);
    // A nats-server that another program has registered has no address for routes, and is not part of the mesh.
    let in_mesh = records.iter().filter(|node| node.mesh.is_some());
    let registered = in_mesh.clone().map(|node| node.id.to_string()).collect();
    let mut rows = Vec::new();
    let mut clients = Vec::new();
    for node in in_mesh.filter(|node| !is_own(node)) {
        match node_pages::of(node, settings) {
            Ok(client) => clients.extend(client.map(|client| (node.id.to_string(), client))),
            Err(reason) => rows.push(Row::fail(PAGES, &node.id, reason, "correct http.token_file")),
        }
    }
    let mut nodes: Vec<NodePages> = own.into_iter().collect();
    for read in NodePages::read_all(&clients).await {
        match read {
            Ok(pages) => nodes.push(pages),
            Err(reason) if reason.contains("401") => {
                let remedy = "set nodes.allowed_nodes, so that doctor may send the token of http.token_file to other nodes, and use one token on all";
                rows.push(Row::warn(PAGES, "", reason, remedy));
            }
            Err(reason) if reason.contains(OTHER_NODE) => {
                let remedy = "correct http.addr, http.port or the port mapping of the node with this record; if that node is gone, delete the record";
                rows.push(Row::warn(PAGES, "", reason, remedy));
            }
            Err(reason) => {
                let remedy = "open the port of the pages between the nodes; until then the routes of this node are not compared";
                rows.push(Row::warn(PAGES, "", reason, remedy));
            }
        }
    }
    ClusterPages {
        nodes,
        rows,
        registered,
    }
}

/// Compares the routes and the clocks.
pub(super) fn rows(pages: &ClusterPages) -> Vec<Row> {
    let mut rows = pages.rows.clone();
    let all: Vec<&NodePages> = pages.nodes.iter().collect();
    let missing = missing_links(&all);
    for link in &missing {
        let (from, to) = (&link.from, &link.to);
        let found = if link.is_one_way {
            format!("one-way: {to} lists a route to {from}, but {from} lists none to {to}")
        } else {
            format!("none between {from} and {to}: messages do not pass between them")
        };
        let remedy = format!(
            "look for lines about {to} in the log of {from}; restart {from} if the route does not come back within a minute"
        );
        rows.push(Row::fail(ROUTES, format!("{from} - {to}"), found, remedy));
    }
    // Registered nodes whose pages could not be read: only the other side of their routes can be checked.
    for node in &all {
        let is_unread = |name: &&String| !all.iter().any(|read| read.name == **name);
        let without = pages.registered.iter().filter(is_unread);
        for name in without.filter(|name| !node.peers().contains(&***name)) {
            let found = format!("{} has no route to the registered node {name}", node.name);
            let remedy = format!("is {name} up, and does the row about its route address say OK?");
            rows.push(Row::fail(
                ROUTES,
                format!("{} - {name}", node.name),
                found,
                remedy,
            ));
        }
    }
    if all.len() > 1 && missing.is_empty() {
        let names: Vec<&str> = all.iter().map(|node| &*node.name).collect();
        rows.push(Row::ok(
            ROUTES,
            "",
            format!("each of {} lists all others", names.join(", ")),
        ));
    }
    rows.extend(all.iter().filter_map(|node| clock(node)));
    rows
}

fn clock(node: &NodePages) -> Option<Row> {
    let difference = node.clock_ahead?;
    if difference.size() < CLOCK_DIFFERENCE {
        return Some(Row::ok(CLOCK, &node.name, "as on this host"));
    }
    let secs = difference.size().as_secs();
    let word = match difference {
        node_pages::ClockDifference::Ahead(_) => "ahead of",
        node_pages::ClockDifference::Behind(_) => "behind",
    };
    let found = format!("{secs} s {word} the clock of this host");
    let remedy = "let both hosts set their clocks by NTP (timedatectl set-ntp true)";
    Some(Row::warn(CLOCK, &node.name, found, remedy))
}
