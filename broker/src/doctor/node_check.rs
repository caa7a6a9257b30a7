//! The check of the nodes of a cluster: each node's address for other nodes, and its address for clients.
//!
//! No login is tried: a node accepts a route only from a node, and the settings of a broker hold no credentials of a client.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use standin_daemon::doctor::report::Row;
use standin_registry::{AllowedNodes, Endpoint, Node};
use standin_tls::certificate;
use standin_wire::Info;
use standin_wire::limits::FrameLimits;
use standin_wire::server::{self, Frame};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::settings::Settings;

const MESH: &str = "route address";
const CLIENT: &str = "client address";
const CLUSTER: &str = "cluster name";

/// Time limit for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Time limit for INFO.
const INFO_LIMIT: Duration = Duration::from_secs(3);
/// A node's certificate that expires in fewer days gets a warning.
const CERTIFICATE_DAYS: i64 = 30;

/// Checks all nodes at the same time. Returns the rows, and the name and INFO of each node that serves clients.
pub(super) async fn check(settings: &Settings, records: &[Arc<Node>]) -> (Vec<Row>, Vec<(String, Info)>) {
    let allowed = settings.allowed_nodes();
    let allowed_records = records.iter().filter(|node| !allowed.refuses(&node.client));
    let clients = allowed_records.clone().map(|node| client(&allowed, node));
    let mut seen = BTreeSet::new();
    let routes = settings
        .routes()
        .into_iter()
        .map(|route| (String::new(), route.endpoint));
    let meshes = allowed_records.filter_map(|node| Some((node.id.to_string(), node.mesh.clone()?)));
    let meshes: Vec<(String, Endpoint)> = meshes
        .chain(routes)
        .filter(|(_, endpoint)| seen.insert(endpoint.clone()))
        .collect();
    let meshes = meshes
        .iter()
        .map(|(name, endpoint)| mesh(settings, &allowed, name, endpoint));
    let (meshes, clients) = tokio::join!(join_all(meshes), join_all(clients));
    let mut rows: Vec<Row> = meshes.into_iter().flatten().collect();
    let mut infos = Vec::new();
    for (row, info) in clients {
        rows.push(row);
        infos.extend(info);
    }
    rows.extend(cluster_name(settings, &infos));
    (rows, infos)
}

/// Checks that each node's cluster has the name that is in the settings.
fn cluster_name(settings: &Settings, infos: &[(String, Info)]) -> Vec<Row> {
    let own = settings.cluster_name();
    let differs =
        |(_, info): &&(String, Info)| !own.is_empty() && !info.cluster.is_empty() && info.cluster != own;
    let row = |(name, info): &(String, Info)| {
        let found = format!(
            "{:?}, but cluster.name of these settings is {own:?}",
            info.cluster
        );
        let remedy = "set the same cluster.name (--cluster_name) on all nodes, or register other clusters below another path";
        Row::fail(CLUSTER, name, found, remedy)
    };
    infos.iter().filter(differs).map(row).collect()
}

/// Checks an address for other nodes: a connection, and TLS if `[tls.route]` is on.
async fn mesh(settings: &Settings, allowed: &AllowedNodes, name: &str, endpoint: &Endpoint) -> Vec<Row> {
    let subject = format!("{name} ({endpoint})");
    let subject = if name.is_empty() {
        endpoint.to_string()
    } else {
        subject
    };
    let started = Instant::now();
    let socket = match connect(allowed, endpoint).await {
        Ok(socket) => socket,
        Err(reason) => {
            let remedy =
                "start the node; if it runs, open this port in firewalls, or correct its cluster.advertise";
            return vec![Row::fail(MESH, subject, reason, remedy)];
        }
    };
    let took = started.elapsed().as_millis();
    let (section, server_name) = (&settings.tls.route.section, &settings.tls.route.server_name);
    if !section.is_on() {
        return vec![Row::ok(MESH, subject, format!("connected after {took} ms"))];
    }
    let host = if server_name.is_empty() {
        &endpoint.host
    } else {
        server_name.as_str()
    };
    let shaken = match section.dialler() {
        Ok(dialler) => dialler.connect(socket, host, section.timeout_ms.duration()).await,
        Err(error) => Err(io::Error::other(error.to_string())),
    };
    match shaken {
        Err(error) => {
            let remedy = "compare [tls.route] of both nodes; if the certificate has expired, replace it, or set the clock (timedatectl)";
            vec![Row::fail(
                MESH,
                subject,
                format!("TLS handshake failed: {error}"),
                remedy,
            )]
        }
        Ok(stream) => {
            let expires_at = stream
                .peer_certificate()
                .as_ref()
                .and_then(certificate::expires_at);
            let mut rows = vec![Row::ok(MESH, &subject, format!("connected after {took} ms, TLS"))];
            let days = expires_at.map(|at| (at - now_secs()) / (24 * 3600));
            if let Some(days) = days.filter(|days| *days < CERTIFICATE_DAYS) {
                let found = format!("its certificate expires in {days} days");
                rows.push(Row::warn(
                    MESH,
                    &subject,
                    found,
                    "replace the certificate of the node",
                ));
            }
            rows
        }
    }
}

/// Checks an address for clients: a connection and INFO.
async fn client(allowed: &AllowedNodes, node: &Node) -> (Row, Option<(String, Info)>) {
    let subject = format!("{} ({})", node.id, node.client);
    let started = Instant::now();
    let found = match connect(allowed, &node.client).await {
        Ok(socket) => match timeout(INFO_LIMIT, read_info(socket)).await {
            Ok(info) => info,
            Err(_) => Err(format!("no INFO within {} s", INFO_LIMIT.as_secs())),
        },
        Err(reason) => Err(reason),
    };
    match found {
        Ok(info) => {
            let took = started.elapsed().as_millis();
            // A nats-server that an agent has registered may have another name than its record. It has no address for routes.
            if node.mesh.is_some() && *info.server_name != *node.id {
                let found = format!("the node {} answers there", info.server_name);
                let remedy = "correct advertise or the port mapping of the node with this record; if that node is gone, delete the record";
                return (Row::fail(CLIENT, &subject, found, remedy), None);
            }
            let found = format!("version {}, INFO after {took} ms", info.version);
            (
                Row::ok(CLIENT, &subject, found),
                Some((node.id.to_string(), info)),
            )
        }
        Err(reason) => {
            let remedy = "start the node, or delete its record if it is gone; if it runs, look at firewalls, its log and its advertise";
            (Row::fail(CLIENT, &subject, reason, remedy), None)
        }
    }
}

/// Connects to one of the addresses of `endpoint` that may be dialled.
async fn connect(allowed: &AllowedNodes, endpoint: &Endpoint) -> Result<TcpStream, String> {
    let connecting = async {
        let found = tokio::net::lookup_host((&*endpoint.host, endpoint.port)).await;
        let found = found.map_err(|error| format!("name not resolved: {error}"))?;
        let addresses: Vec<_> = found
            .filter(|address| allowed.permits(endpoint, address.ip()))
            .collect();
        if addresses.is_empty() {
            return Err("refused by nodes.allowed_nodes, or the name has no address".to_owned());
        }
        let connected = TcpStream::connect(&addresses[..]).await;
        connected.map_err(|error| format!("cannot connect: {error}"))
    };
    let connected = timeout(CONNECT_LIMIT, connecting).await;
    connected.unwrap_or_else(|_| Err(format!("no connection within {} s", CONNECT_LIMIT.as_secs())))
}

async fn read_info(mut socket: TcpStream) -> Result<Info, String> {
    let mut bytes = Vec::new();
    loop {
        match server::decode(&bytes, FrameLimits::SERVER) {
            Ok(Some((Frame::Info(json), _))) => {
                return Info::parse(json).map_err(|error| format!("bad INFO: {error}"));
            }
            Ok(Some((Frame::Err(text), _))) => {
                return Err(format!("-ERR '{}'", String::from_utf8_lossy(text)));
            }
            Ok(Some(_)) => return Err("sent no INFO first".to_owned()),
            Ok(None) => {}
            Err(error) => return Err(format!("not a NATS server: {error}")),
        }
        match socket.read_buf(&mut bytes).await {
            Ok(0) => return Err("closed the connection before INFO".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(format!("connection broke before INFO: {error}")),
        }
    }
}

fn now_secs() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.unwrap_or_default().as_secs()).unwrap_or(i64::MAX)
}
