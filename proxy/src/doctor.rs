//! `standin-proxy doctor`: checks what an operator would check by hand when a component reaches no node.
//!
//! | file | holds |
//! |---|---|
//! | this one | the order of the checks, and the sources of nodes |
//! | `addresses` | the addresses on which the sidecar listens |
//! | `node_check` | one node: dial, TLS, INFO, login, round trip |
//!
//! ZooKeeper and the DNS names are checked at the same time, and after them all nodes at the same time. Each part has a time limit, so
//! the whole ends within about 15 s even if every address drops packets.

mod addresses;
mod node_check;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::join_all;
use standin_daemon::doctor::listen_check;
use standin_daemon::doctor::report::{Report, Row};
use standin_daemon::doctor::{ensemble_check, host_check, node_comparison, settings_check};
use standin_registry::{Config, Endpoint, Node, cached_nodes, examine, look_up};

use crate::settings::{Loaded, Settings};

/// Name of the program, for the report and to recognise the running sidecar.
const PROGRAM: &str = "standin-proxy";

const NODES: &str = "nodes";
const CACHE: &str = "cache file";

/// Time limit for the lookup of a DNS name.
const LOOKUP_LIMIT: Duration = Duration::from_secs(4);

/// Creates an empty report.
#[must_use]
pub fn report() -> Report {
    Report::new(PROGRAM, env!("CARGO_PKG_VERSION"))
}

/// Runs all checks with settings that are valid. `file` is the name of the settings file.
pub async fn examine_all(loaded: &Loaded<Settings>, file: Option<&Path>) -> Report {
    let (settings, mut report) = (&loaded.settings, report());
    report.add(settings_check::valid(
        loaded,
        file.map(|file| file.display().to_string()),
    ));
    report.add(settings_check::certificates(&settings.tls_doors()));
    let (listening, running) = listen_check::check(&addresses::all(settings), PROGRAM);
    report.add(listening);
    let connections = settings.connections();
    report.add([host_check::open_files(
        connections,
        loaded.is_given(connections.key),
        running,
    )]);
    let config = match settings.registry_config() {
        Ok(config) => config,
        Err(error) => {
            report.add_invalid_settings(&error);
            return report;
        }
    };
    let mut sources = Sources::default();
    let (zookeeper, dns) = tokio::join!(zookeeper(settings, &config), dns(&config));
    report.add(sources.take(zookeeper));
    report.add(sources.take(dns));
    sources.add(config.fixed.iter().map(|upstream| Arc::new(Node::from(upstream))));
    let cached = cache(&config);
    // The sidecar uses the cached nodes only while it knows no others.
    if sources.nodes.is_empty() {
        report.add(sources.take(cached));
    } else {
        report.add(cached.0);
    }
    report.add(node_rows(settings, sources.nodes.into_values().collect()).await);
    report
}

/// Rows about a source of nodes, and its nodes.
type Source = (Vec<Row>, Vec<Arc<Node>>);

/// The nodes of all sources.
#[derive(Default)]
struct Sources {
    nodes: BTreeMap<Endpoint, Arc<Node>>,
}

impl Sources {
    fn add(&mut self, nodes: impl IntoIterator<Item = Arc<Node>>) {
        for node in nodes {
            // The URL in the settings may have credentials, which the same node in another source has not.
            match self.nodes.get(&node.client) {
                Some(_) if node.credentials.is_none() => {}
                _ => drop(self.nodes.insert(node.client.clone(), node)),
            }
        }
    }

    fn take(&mut self, (rows, nodes): Source) -> Vec<Row> {
        self.add(nodes);
        rows
    }
}

async fn zookeeper(settings: &Settings, config: &Config) -> Source {
    let Some(ensemble) = &config.zookeeper else {
        return Source::default();
    };
    match examine(ensemble, config.nodes_max).await {
        Ok(found) => {
            let rows = ensemble_check::rows(&found, &settings.allowed_nodes(), true);
            let nodes = found.records.map(|records| records.nodes);
            (rows, nodes.unwrap_or_default())
        }
        // The settings were checked when they were loaded.
        Err(error) => (
            vec![Row::fail(
                "settings",
                "nodes.zookeeper",
                error.to_string(),
                "correct it",
            )],
            Vec::new(),
        ),
    }
}

async fn dns(config: &Config) -> Source {
    let lookups = config.dns.iter().map(async |name| {
        let started = Instant::now();
        let found = look_up(name, config.dns_server, LOOKUP_LIMIT).await;
        let texts = found.as_ref().map(|nodes| {
            let texts = nodes.iter().map(|node| node.client.to_string());
            texts.collect::<Vec<_>>().join(", ")
        });
        let row = ensemble_check::name(&name.to_string(), texts.map_err(Clone::clone), started.elapsed());
        (row, found.unwrap_or_default())
    });
    let (rows, nodes): (Vec<Row>, Vec<Vec<Arc<Node>>>) = join_all(lookups).await.into_iter().unzip();
    (rows, nodes.concat())
}

/// Checks that the cache file can be read, and that it can be replaced.
fn cache(config: &Config) -> Source {
    let Some(path) = &config.cache_file else {
        return Source::default();
    };
    let name = path.display();
    let (row, nodes) = match cached_nodes(path, config.nodes_max) {
        Err(reason) => {
            let remedy = "correct nodes.cache_file if the file belongs to another program, because the sidecar overwrites it; else delete the file";
            (Row::fail(CACHE, &name, reason, remedy), Vec::new())
        }
        Ok(None) => {
            let found = "not there yet; the sidecar writes it when it knows nodes of ZooKeeper or DNS";
            (Row::ok(CACHE, &name, found), Vec::new())
        }
        Ok(Some(cached)) => {
            let age = SystemTime::now()
                .duration_since(cached.written)
                .unwrap_or_default();
            let found = format!("{} nodes, written {} s ago", cached.nodes.len(), age.as_secs());
            (Row::ok(CACHE, &name, found), cached.nodes)
        }
    };
    (
        vec![row, host_check::file(CACHE, path, "nodes.cache_file (--cache)")],
        nodes,
    )
}

/// Checks all nodes, and compares them.
async fn node_rows(settings: &Settings, nodes: Vec<Arc<Node>>) -> Vec<Row> {
    if nodes.is_empty() {
        let remedy = "register nodes in ZooKeeper, or name one with nodes.upstream (--upstream)";
        return vec![Row::fail(NODES, "", "no source names a node", remedy)];
    }
    let (mut rows, infos) = node_check::check(settings, &nodes).await;
    rows.extend(node_comparison::rows(&infos));
    let found = format!("{} of {} nodes can be used", infos.len(), nodes.len());
    rows.push(if infos.is_empty() {
        Row::fail(
            NODES,
            "",
            found,
            "see the rows above: components stay connected, but nothing is delivered",
        )
    } else {
        Row::ok(NODES, "", found)
    });
    rows
}
