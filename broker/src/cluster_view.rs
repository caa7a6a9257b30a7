//! `standin-broker cluster`: the cluster in a terminal, as its nodes' pages show it.
//!
//! The pages of one node are read at the address in the settings. The records in ZooKeeper name the pages of the other nodes. The
//! records are read only every [`RECORDS_INTERVAL`], because each reading opens a ZooKeeper session.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use standin_daemon::live_view::View;
use standin_daemon::page_client::PageClient;
use standin_daemon::table::Table;
use standin_daemon::terminal::Terminal;
use standin_registry::{Node, NodeState, examine};

use crate::node_pages::{self, NodePages, missing_links};
use crate::settings::Settings;

/// Interval between two readings of the records.
const RECORDS_INTERVAL: Duration = Duration::from_secs(15);

/// The cluster, with what is needed to show rates.
#[derive(Debug)]
pub(crate) struct ClusterView {
    settings: Settings,
    own: PageClient,
    records: Vec<Arc<Node>>,
    records_read_at: Option<Instant>,
    /// Messages in and out of each node at the last view.
    before: BTreeMap<String, Counts>,
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
            before: BTreeMap::new(),
        })
    }

    /// Returns the pages of all nodes as JSON.
    ///
    /// # Errors
    /// The reason why the pages of the node at the address in the settings cannot be read.
    pub(crate) async fn json(&mut self) -> Result<String, String> {
        let (own, others) = self.read().await?;
        let others = others.into_iter().flat_map(|(_, pages)| pages);
        let nodes = [own].into_iter().chain(others).map(|node| {
            json!({ "name": node.name, "http": node.address, "varz": node.varz, "routez": node.routez })
        });
        let nodes: Vec<Value> = nodes.collect();
        Ok(format!("{}\n", json!({ "nodes": nodes })))
    }

    /// Returns a table of the nodes, and below it the routes that are missing.
    ///
    /// # Errors
    /// The reason why the pages of the node at the address in the settings cannot be read.
    pub(crate) async fn lines(&mut self, terminal: &Terminal) -> View {
        let (own, others) = self.read().await?;
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
        let total = others.len() + 1;
        table.add(self.row(&own, total, NodeState::Up));
        for (record, pages) in &others {
            match pages {
                Ok(pages) => table.add(self.row(pages, total, record.state)),
                Err(reason) => {
                    let mut row = vec![record.id.to_string(), record.client.to_string(), reason.clone()];
                    row.resize(11, String::new());
                    table.add(row);
                }
            }
        }
        let read: Vec<&NodePages> = [&own]
            .into_iter()
            .chain(others.iter().flat_map(|(_, pages)| pages))
            .collect();
        let name = own.varz["cluster"]["name"].as_str().unwrap_or_default();
        let mut lines = vec![format!(
            "cluster {name}, {total} nodes, seen from {}",
            self.own.address
        )];
        lines.extend(table.lines(terminal));
        lines.extend(missing_links(&read).into_iter().map(|link| {
            let kind = if link.is_one_way {
                "route one-way"
            } else {
                "no route"
            };
            format!("{kind}: {} does not list {}", link.from, link.to)
        }));
        Ok(lines)
    }

    /// Reads the pages of all nodes.
    async fn read(&mut self) -> Result<(NodePages, Vec<(Arc<Node>, Result<NodePages, String>)>), String> {
        let own = NodePages::read(&self.own).await?;
        let is_due = self
            .records_read_at
            .is_none_or(|at| at.elapsed() >= RECORDS_INTERVAL);
        if is_due && let Ok(Some(config)) = self.settings.zookeeper() {
            self.records_read_at = Some(Instant::now());
            let found = examine(&config, self.settings.cluster.nodes_max).await;
            if let Some(records) = found.ok().and_then(|found| found.records) {
                self.records = records.nodes;
            }
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
                Ok(Some(client)) => NodePages::read(&client).await,
                Ok(None) => Err("its record names no pages".to_owned()),
                Err(reason) => Err(reason),
            });
        let read = futures_util::future::join_all(reads).await;
        Ok((own, others.into_iter().zip(read).collect()))
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
