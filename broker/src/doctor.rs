//! `standin-broker doctor`: checks what an operator would check by hand when a node does not start, join or stay in its cluster.
//!
//! | file | holds |
//! |---|---|
//! | this one | the order of the checks; addresses, files, the name of the node |
//! | `node_check` | one node of the cluster: its address for nodes, its address for clients |
//! | `route_check` | the routes between all nodes as their pages list them, and their clocks |
//!
//! Each part has a time limit, so the whole ends within about 15 s even if every address drops packets.

mod node_check;
mod route_check;

use std::path::Path;
use std::sync::Arc;

use standin_daemon::doctor::listen_check::{self, ListenAddress};
use standin_daemon::doctor::report::{Report, Row};
use standin_daemon::doctor::{ensemble_check, host_check, node_comparison, settings_check};
use standin_daemon::settings::Loaded;
use standin_registry::{Node, examine};

use crate::node_pages::{self, NodePages};
use crate::settings::{Settings, non_empty};

/// Name of the program, for the report and to recognise the running node.
const PROGRAM: &str = "standin-broker";

const NAME: &str = "node name";

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
    let (listening, running) = listen_check::check(&addresses(settings), PROGRAM);
    report.add(listening);
    let connections = settings.connections();
    report.add([host_check::open_files(
        connections,
        loaded.is_given(connections.key),
        running,
    )]);
    report.add(files(settings));
    let own = match running {
        Some(_) => own_pages(settings, &mut report).await,
        None => None,
    };
    if settings.is_clustered() {
        report.add(cluster_rows(settings, own, running.is_some()).await);
    }
    report
}

/// Returns the addresses on which the node listens.
fn addresses(settings: &Settings) -> Vec<ListenAddress> {
    let address = |text: String, key: &str| ListenAddress {
        text,
        key: key.to_owned(),
        may_be_missing: false,
    };
    let mut all = vec![address(settings.listen().to_string(), "port (-p)")];
    if settings.is_clustered() {
        all.push(address(
            settings.mesh_listen().to_string(),
            "cluster.listen (--cluster)",
        ));
    }
    all.extend(
        settings
            .http_listen()
            .map(|http| address(http.to_string(), "http.port (-m)")),
    );
    all
}

/// Checks that the files that the node writes can be written.
fn files(settings: &Settings) -> Vec<Row> {
    let ports_file =
        non_empty(&settings.process.ports_file_dir).map(|folder| folder.join("standin-broker.ports"));
    let files = [
        (settings.log_file(), "log.file (-l)"),
        (non_empty(&settings.process.pid_file), "process.pid_file (-P)"),
        (ports_file.as_deref(), "process.ports_file_dir"),
    ];
    let files = files.into_iter();
    files
        .filter_map(|(path, key)| Some(host_check::file("file", path?, key)))
        .collect()
}

/// Reads the pages of the running node. Adds a row if they are on and cannot be read.
async fn own_pages(settings: &Settings, report: &mut Report) -> Option<NodePages> {
    const CHECK: &str = "pages";
    settings.http_listen()?;
    let read = match node_pages::own(settings) {
        Ok(client) => NodePages::read(&client).await,
        Err(reason) => Err(reason),
    };
    match read {
        Ok(pages) => Some(pages),
        Err(reason) => {
            let remedy = "look at the log of the node; compare http and tls.http of these settings with those of the running node";
            report.add([Row::fail(CHECK, "", reason, remedy)]);
            None
        }
    }
}

/// Checks ZooKeeper, the name of this node, all other nodes, and the routes between them.
async fn cluster_rows(settings: &Settings, own: Option<NodePages>, is_running: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut records = Vec::new();
    match settings.zookeeper() {
        Ok(None) => {}
        Ok(Some(config)) => match examine(&config, settings.cluster.nodes_max).await {
            Ok(found) => {
                rows.extend(ensemble_check::rows(
                    &found,
                    &settings.allowed_nodes(),
                    is_running,
                ));
                records = found.records.map(|records| records.nodes).unwrap_or_default();
                rows.push(name_row(settings, own.as_ref(), is_running, &records));
            }
            // The settings were checked when they were loaded.
            Err(error) => rows.push(Row::fail(
                "settings",
                "nodes.zookeeper",
                error.to_string(),
                "correct it",
            )),
        },
        Err(error) => rows.push(Row::fail("settings", "nodes", error.to_string(), "correct it")),
    }
    let (nodes, pages) = tokio::join!(
        node_check::check(settings, &records),
        route_check::pages(settings, own, &records)
    );
    let (node_rows, infos) = nodes;
    rows.extend(node_rows);
    rows.extend(node_comparison::rows(&infos));
    rows.extend(route_check::rows(&pages));
    rows
}

/// Checks that no other node has registered under the name of this one, and that the running node is registered.
fn name_row(settings: &Settings, own: Option<&NodePages>, is_running: bool, records: &[Arc<Node>]) -> Row {
    let name = match own {
        Some(own) => &own.name,
        None => &settings.server_name,
    };
    if name.is_empty() {
        return Row::ok(NAME, "", "each start has a new one (server_name is empty)");
    }
    let record = records.iter().find(|record| *record.id == **name);
    let run = own.and_then(|own| own.varz["server_id"].as_str());
    match (record, run) {
        (Some(record), Some(run)) if *record.run == *run => {
            Row::ok(NAME, name, format!("registered, {} for clients", record.client))
        }
        (Some(record), Some(_)) => Row::fail(
            NAME,
            name,
            format!(
                "another node is registered under this name, {} for clients",
                record.client
            ),
            "give every node a server_name of its own (-n), and restart this one",
        ),
        (Some(record), None) if !is_running => Row::warn(
            NAME,
            name,
            format!(
                "registered already by a node with the address {} for clients",
                record.client
            ),
            "none if that was this node and it has just ended; else give this node another server_name (-n), or it is refused",
        ),
        (None, Some(_)) => Row::fail(
            NAME,
            name,
            "this node runs, but is not registered: sidecars and other nodes do not find it",
            "wait some seconds if it has just started or is in lame duck mode; else look at the lines about ZooKeeper in its log",
        ),
        (Some(record), None) => Row::ok(NAME, name, format!("registered, {} for clients", record.client)),
        (None, None) if is_running => Row::warn(
            NAME,
            name,
            "not registered, although a node runs here",
            "look at the lines about ZooKeeper in its log",
        ),
        (None, None) => Row::ok(NAME, name, "no other node has registered under it"),
    }
}
