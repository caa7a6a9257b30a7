//! The page `/varz`: settings, counters, memory and CPU of the server.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use standin_daemon::process_usage;

use super::{Pages, duration, json, time};
use crate::VERSION;
use crate::clients::Totals;
use crate::close_reason::CloseReason;
use crate::route::routes::RouteTotals;
use crate::shared::{BUILT_WITH, GIT_COMMIT};

/// The empty object of an unsupported feature.
#[derive(Serialize)]
struct Nothing {}

#[derive(Serialize)]
#[serde(untagged)]
enum Cluster<'a> {
    Alone {},
    Member {
        #[serde(skip_serializing_if = "str::is_empty")]
        name: &'a str,
        addr: String,
        cluster_port: u16,
        auth_timeout: f64,
        /// Addresses of the nodes to which there are routes.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        urls: Vec<String>,
        tls_timeout: f64,
    },
}

/// Numbers of connections by kind.
#[derive(Serialize)]
struct ByKind {
    clients: u64,
    routes: u64,
    gateways: u64,
    leafs: u64,
}

impl ByKind {
    /// Counts the connections that were closed for one of these reasons.
    fn of(reasons: &[CloseReason], clients: &Totals, routes: &RouteTotals) -> Self {
        let count = |ended: &[u64]| reasons.iter().map(|reason| ended[reason.kind()]).sum();
        let (clients, routes) = (count(&clients.ended), count(&routes.ended));
        Self {
            clients,
            routes,
            gateways: 0,
            leafs: 0,
        }
    }
}

/// The page. Names, units and meanings of the fields are those of `nats-server`: the times of settings are in nanoseconds, but
/// `auth_timeout` and `tls_timeout` are in seconds.
#[derive(Serialize)]
struct Varz<'a> {
    server_id: &'a str,
    server_name: &'a str,
    version: &'static str,
    proto: u32,
    git_commit: &'static str,
    go: &'static str,
    host: String,
    port: u16,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    connect_urls: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    auth_required: bool,
    max_connections: usize,
    #[serde(skip_serializing_if = "is_zero")]
    max_subscriptions: usize,
    ping_interval: u128,
    ping_max: u32,
    http_host: String,
    http_port: u16,
    http_base_path: &'static str,
    https_port: u16,
    auth_timeout: f64,
    max_control_line: usize,
    max_payload: usize,
    max_pending: usize,
    cluster: Cluster<'a>,
    gateway: Nothing,
    leaf: Nothing,
    mqtt: Nothing,
    websocket: Nothing,
    jetstream: Nothing,
    tls_timeout: f64,
    write_deadline: u128,
    start: String,
    now: String,
    uptime: String,
    mem: u64,
    cores: usize,
    gomaxprocs: usize,
    cpu: f64,
    connections: usize,
    total_connections: u64,
    routes: usize,
    remotes: usize,
    leafnodes: usize,
    in_msgs: u64,
    in_bytes: u64,
    in_client_msgs: u64,
    in_client_bytes: u64,
    out_msgs: u64,
    out_bytes: u64,
    out_client_msgs: u64,
    out_client_bytes: u64,
    slow_consumers: u64,
    stale_connections: u64,
    stalled_clients: u64,
    subscriptions: usize,
    http_req_stats: BTreeMap<&'static str, u64>,
    config_load_time: String,
    slow_consumer_stats: ByKind,
    stale_connection_stats: ByKind,
    /// `nats-server` has this only in INFO.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    lame_duck_mode: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that serde requires"
)]
const fn is_zero(number: &usize) -> bool {
    *number == 0
}

pub(super) async fn page(State(pages): State<Pages>) -> Response {
    let shared = &pages.shared;
    let (settings, policy) = (shared.settings.load(), shared.policy.load());
    let totals = shared.clients.totals();
    let routes = shared.interest.routes.load();
    let route_totals = shared.interest.routes.totals();
    let handshake_secs = settings.cluster.connect_timeout_ms.duration().as_secs_f64();
    let cluster_name = shared.cluster_name();
    let cluster = match shared.mesh_address() {
        None => Cluster::Alone {},
        Some(address) => Cluster::Member {
            name: &cluster_name,
            addr: address.ip().to_string(),
            cluster_port: address.port(),
            auth_timeout: handshake_secs,
            urls: routes.iter().map(|route| route.peer.mesh.clone()).collect(),
            tls_timeout: handshake_secs,
        },
    };
    let slow = [
        CloseReason::SlowConsumerPending,
        CloseReason::SlowConsumerDeadline,
    ];
    let slow = ByKind::of(&slow, &totals, &route_totals);
    let stale = ByKind::of(&[CloseReason::Stale], &totals, &route_totals);
    let requests = pages.requests.lock();
    let requests = requests.unwrap_or_else(PoisonError::into_inner).clone();
    let port = pages.address.port();
    let (http_port, https_port) = if settings.tls.http.is_on() {
        (0, port)
    } else {
        (port, 0)
    };
    json(&Varz {
        server_id: &shared.server_id,
        server_name: shared.server_name(&settings),
        version: VERSION,
        proto: 1,
        git_commit: GIT_COMMIT,
        go: BUILT_WITH,
        host: shared.address.ip().to_string(),
        port: shared.address.port(),
        connect_urls: shared.connect_urls(shared.advertised()),
        auth_required: policy.access.is_required(),
        max_connections: policy.admission.connections_max,
        max_subscriptions: policy.subscriptions_max,
        ping_interval: policy.ping_interval.as_nanos(),
        ping_max: policy.ping_max,
        http_host: pages.address.ip().to_string(),
        http_port,
        http_base_path: "",
        https_port,
        auth_timeout: policy.auth_timeout.as_secs_f64(),
        max_control_line: policy.control_line_bytes_max,
        max_payload: policy.payload_bytes_max,
        max_pending: policy.pending_bytes_max,
        cluster,
        gateway: Nothing {},
        leaf: Nothing {},
        mqtt: Nothing {},
        websocket: Nothing {},
        jetstream: Nothing {},
        tls_timeout: policy.auth_timeout.as_secs_f64(),
        write_deadline: policy.write_deadline.as_nanos(),
        start: time(shared.started_at),
        now: time(SystemTime::now()),
        uptime: duration(shared.started.elapsed()),
        mem: process_usage::resident_bytes(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        gomaxprocs: shared.workers,
        cpu: pages.usage.cpu_percent(),
        connections: shared.clients.len(),
        total_connections: totals.clients,
        routes: routes.len(),
        remotes: routes.len(),
        leafnodes: 0,
        in_msgs: totals.messages_in + route_totals.messages_in,
        in_bytes: totals.bytes_in + route_totals.bytes_in,
        in_client_msgs: totals.messages_in,
        in_client_bytes: totals.bytes_in,
        out_msgs: totals.messages_out + route_totals.messages_out,
        out_bytes: totals.bytes_out + route_totals.bytes_out,
        out_client_msgs: totals.messages_out,
        out_client_bytes: totals.bytes_out,
        slow_consumers: slow.clients + slow.routes,
        stale_connections: stale.clients + stale.routes,
        stalled_clients: shared.stalls.load(Relaxed),
        subscriptions: shared.interest.local.len() + shared.interest.remote.len(),
        http_req_stats: requests,
        config_load_time: time(**shared.loaded_at.load()),
        slow_consumer_stats: slow,
        stale_connection_stats: stale,
        lame_duck_mode: shared.advertised().lame_duck,
    })
}
