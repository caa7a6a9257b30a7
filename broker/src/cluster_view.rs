//! `standin-broker cluster`: the cluster in a terminal, as its nodes' pages show it.
//!
//! The pages of one node are read at the address in the settings. The records in ZooKeeper name the pages of the other nodes. The
//! records are read only every [`RECORDS_INTERVAL`], because each reading opens a ZooKeeper session.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use standin_daemon::live_view::View;
use standin_daemon::page_client::PageClient;
use standin_daemon::table::Table;
use standin_daemon::terminal::{Terminal, printable};
use standin_registry::{Examination, Node, NodeState, RecordsExamination, examine};

use crate::node_pages::{self, NodePages, missing_links};
use crate::settings::Settings;

/// Interval between two readings of the records.
const RECORDS_INTERVAL: Duration = Duration::from_secs(15);

/// Number of columns of the table.
const COLUMNS: usize = 11;

/// Why nothing is known about a node to which another one has a route.
const NOT_REGISTERED: &str = "no record in ZooKeeper names its pages; another node has a route to it";

/// The cluster, with what is needed to show rates.
#[derive(Debug)]
pub(crate) struct ClusterView {
    settings: Settings,
    own: PageClient,
    records: Vec<Arc<Node>>,
    records_read_at: Option<Instant>,
    /// Why the records could not be read the last time.
    records_error: Option<String>,
    /// Messages in and out of each node at the last view.
    before: BTreeMap<String, Counts>,
}

/// What is known about the nodes at one time.
#[derive(Debug)]
struct Seen {
    own: NodePages,
    /// The other nodes with a record, with the reason if their pages cannot be read.
    others: Vec<(Arc<Node>, Result<NodePages, String>)>,
}

impl Seen {
    /// Returns the pages that were read.
    fn pages(&self) -> impl Iterator<Item = &NodePages> {
        [&self.own]
            .into_iter()
            .chain(self.others.iter().flat_map(|(_, pages)| pages))
    }

    /// Returns the names of the nodes to which others have routes, but of which no record is known.
    fn unregistered(&self) -> BTreeSet<String> {
        let linked = self.pages().flat_map(NodePages::peers);
        let is_known =
            |name: &str| name == self.own.name || self.others.iter().any(|(record, _)| *record.id == *name);
        linked.filter(|name| !is_known(name)).map(str::to_owned).collect()
    }
}

/// Returns the nodes in the records, or the reason why the records could not be read.
fn records(found: Examination) -> Result<Vec<Arc<Node>>, String> {
    let reason = found.hosts.iter().find_map(|host| match &host.servers {
        Ok(servers) => servers.iter().find_map(|server| server.session.clone().err()),
        Err(reason) => Some(reason.clone()),
    });
    match found.records {
        Some(RecordsExamination {
            error: Some(error), ..
        }) => Err(error),
        Some(records) => Ok(records.nodes),
        None => Err(reason.unwrap_or_else(|| format!("{} cannot be read", found.path))),
    }
}

/// Messages that a node has received and sent.
#[derive(Debug, Clone, Copy)]
struct Counts {
    at: Instant,
    received: u64,
    sent: u64,
}

impl ClusterView {
    /// Creates the view of the cluster of the node that runs with these settings.
    ///
    /// # Errors
    /// The reason why the pages of that node cannot be reached.
    pub(crate) fn new(settings: Settings) -> Result<Self, String> {
        Ok(Self {
            own: node_pages::own(&settings)?,
            settings,
            records: Vec::new(),
            records_read_at: None,
            records_error: None,
            before: BTreeMap::new(),
        })
    }

    /// Returns the pages of all nodes as JSON.
    ///
    /// # Errors
    /// The reason why the pages of the node at the address in the settings cannot be read.
    pub(crate) async fn json(&mut self) -> Result<String, String> {
        let seen = self.read().await?;
        let nodes = seen.pages().map(|node| {
            json!({ "name": node.name, "http": node.address, "varz": node.varz, "routez": node.routez })
        });
        let nodes: Vec<Value> = nodes.collect();
        let unread = seen.others.iter().filter_map(|(record, pages)| {
            let reason = pages.as_ref().err()?;
            Some(json!({ "name": *record.id, "reason": reason }))
        });
        let unregistered = seen
            .unregistered()
            .into_iter()
            .map(|name| json!({ "name": name, "reason": NOT_REGISTERED }));
        let unread: Vec<Value> = unread.chain(unregistered).collect();
        let page = json!({ "nodes": nodes, "unread": unread, "zookeeper_error": self.records_error });
        Ok(format!("{page}\n"))
    }

    /// Returns a table of the nodes, and below it the routes that are missing.
    ///
    /// # Errors
    /// The reason why the pages of the node at the address in the settings cannot be read.
    pub(crate) async fn lines(&mut self, terminal: &Terminal) -> View {
        let seen = self.read().await?;
        let unregistered = seen.unregistered();
        let mut table = Table::new(&[
            "NODE",
            "CLIENTS AT",
            "STATE",
            "CLIENTS",
            "SUBS",
            "ROUTES",
            "IN/S",
            "OUT/S",
            "MEMORY",
            "CPU %",
            "UPTIME",
        ]);
        let total = 1 + seen.others.len() + unregistered.len();
        let unread = |name: &str, client: String| {
            let mut row = vec![name.to_owned(), client, "unknown".to_owned()];
            row.resize(COLUMNS, String::new());
            row
        };
        table.add(self.row(&seen.own, total, NodeState::Up));
        let mut reasons = Vec::new();
        for (record, pages) in &seen.others {
            match pages {
                Ok(pages) => table.add(self.row(pages, total, record.state)),
                Err(reason) => {
                    table.add(unread(&record.id, record.client.to_string()));
                    reasons.push(format!("{}: {reason}", record.id));
                }
            }
        }
        for name in &unregistered {
            table.add(unread(name, String::new()));
            reasons.push(format!("{name}: {NOT_REGISTERED}"));
        }
        reasons.extend(self.records_error.clone());
        let name = seen.own.varz["cluster"]["name"].as_str().unwrap_or_default();
        let name = if name.is_empty() { "without a name" } else { name };
        let count = if total == 1 {
            "1 node".to_owned()
        } else {
            format!("{total} nodes")
        };
        let heading = format!("cluster {name}, {count}, seen from {}", self.own.address);
        let mut lines = vec![printable(&heading)];
        lines.extend(table.lines(terminal));
        lines.extend(reasons.iter().map(|reason| printable(reason)));
        let read: Vec<&NodePages> = seen.pages().collect();
        lines.extend(missing_links(&read).into_iter().map(|link| {
            let kind = if link.is_one_way {
                "route one-way"
            } else {
                "no route"
            };
            printable(&format!("{kind}: {} does not list {}", link.from, link.to))
        }));
        Ok(lines)
    }

    /// Reads the pages of all nodes.
    async fn read(&mut self) -> Result<Seen, String> {
        let own = NodePages::read(&self.own).await?;
        let is_due = self
            .records_read_at
            .is_none_or(|at| at.elapsed() >= RECORDS_INTERVAL);
        if is_due && let Ok(Some(config)) = self.settings.zookeeper() {
            self.records_read_at = Some(Instant::now());
            let read = match examine(&config, self.settings.cluster.nodes_max).await {
                Ok(found) => records(found),
                Err(error) => Err(error.to_string()),
            };
            // The last records are kept.
            self.records_error = match read {
                Ok(nodes) => {
                    self.records = nodes;
                    None
                }
                Err(reason) => Some(format!("ZooKeeper: {reason}; the last known records are shown")),
            };
        }
        let others: Vec<Arc<Node>> = self
            .records
            .iter()
            .filter(|node| node.mesh.is_some() && *node.id != *own.name)
            .cloned()
            .collect();
        let reads = others
            .iter()
            .map(async |node| match node_pages::of(node, &self.settings) {
                Ok(Some(client)) => NodePages::read_of(&node.id, &client).await,
                Ok(None) => Err("its record names no pages".to_owned()),
                Err(reason) => Err(reason),
            });
        let read = futures_util::future::join_all(reads).await;
        let others = others.into_iter().zip(read).collect();
        Ok(Seen { own, others })
    }

    fn row(&mut self, node: &NodePages, total: usize, state: NodeState) -> Vec<String> {
        let varz = &node.varz;
        let number = |field: &str| varz[field].as_u64().unwrap_or_default();
        let is_draining = state == NodeState::Draining || varz["lame_duck_mode"] == true;
        let now = Counts {
            at: Instant::now(),
            received: number("in_client_msgs"),
            sent: number("out_client_msgs"),
        };
        let before = self.before.insert(node.name.clone(), now);
        let rate = |of: fn(&Counts) -> u64| {
            let before = before.filter(|before| of(before) <= of(&now));
            let rate = before.map(|before| {
                let secs = now.at.duration_since(before.at).as_secs_f64().max(0.001);
                ((of(&now) - of(&before)) as f64 / secs).round()
            });
            rate.map(|rate| format!("{rate:.0}")).unwrap_or_default()
        };
        vec![
            node.name.clone(),
            format!("{}:{}", varz["host"].as_str().unwrap_or_default(), number("port")),
            if is_draining { "draining" } else { "up" }.to_owned(),
            number("connections").to_string(),
            number("subscriptions").to_string(),
            format!("{} of {}", node.peers().len(), total - 1),
            rate(|counts| counts.received),
            rate(|counts| counts.sent),
            format!("{} MB", number("mem") / 1_000_000),
            format!("{:.0}", varz["cpu"].as_f64().unwrap_or_default()),
            varz["uptime"].as_str().unwrap_or_default().to_owned(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linked_node_without_a_record_is_known_by_name() {
        let record = |id: &str| Arc::new(Node::new(id, "10.0.0.2:4222".parse().unwrap()));
        let seen = Seen {
            own: NodePages::linked("a", &["b", "c"]),
            others: vec![
                (record("b"), Ok(NodePages::linked("b", &["a", "d"]))),
                (record("e"), Err("no answer".to_owned())),
            ],
        };
        let unregistered: Vec<String> = seen.unregistered().into_iter().collect();
        assert_eq!(unregistered, ["c", "d"]);
    }
}
