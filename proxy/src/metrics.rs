//! Every metric of the sidecar, with its name, its help text and its labels.
//!
//! *Architecture invariant:* no label is looked up on the message path. All handles are created once, here. Each label
//! value has its own field or array element. Only rare events (a refusal, a dial, the end of a session) search a short
//! closed list of label values ([`Labelled`]). A value that is not in the list counts as `other`, so no peer can make the
//! number of series grow.
//!
//! There is no global recorder. Each running sidecar has its own [`Metrics`], so one process can run several sidecars.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use standin_daemon::metrics::{Labelled, Names, SavedMetrics};
use standin_daemon::process_usage;
use standin_registry::{Health, Source};

use crate::cause::Cause;
use crate::nodes::NodeStatus;
use crate::session::{Failover, Traffic};

/// Bounds of the `standin_failover…` histograms: 1 ms to 60 s, dense around the usual times (20 ms, 100 ms, 2 s).
const FAILOVER_BUCKETS_SECS: &[f64] = &[
    0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 20.0, 30.0,
    60.0,
];

/// Reasons of `standin_sessions_closed_total`: the names of `EndReason`.
const CLOSED: &[&str] = &[
    "component_closed",
    "component_broke",
    "component_protocol",
    "component_stale",
    "component_slow",
    "refused",
    "unauthorized",
    "outage",
    "signed",
    "evicted",
    "shutdown",
];
/// Reasons of `standin_connections_refused_total`.
const REFUSED: &[&str] = &[
    "connections_max",
    "half_open_evicted",
    "address_connections_max",
    "address_connects_per_second_max",
    "accept_error",
    "peer",
    "proxy_header",
];
/// Results of `standin_node_dials_total`: success, and the kinds of `DialError`.
const DIALS: &[&str] = &[
    "connected",
    "no_address",
    "not_allowed",
    "connect",
    "connect_timeout",
    "info_timeout",
    "pong_timeout",
    "closed",
    "broke",
    "not_nats",
    "bad_info",
    "refused",
    "own",
    "loop",
    "tls",
];
/// Kinds of `standin_client_errors_total`: those of `WireError` and of `EndReason::error_kind`, and the refusal of a
/// subscription or of a frame that the listener's permissions forbid.
const CLIENT_ERRORS: &[&str] = &[
    "unknown_verb",
    "line_too_long",
    "arguments",
    "payload_too_large",
    "payload_end",
    "subscriptions_max",
    "permissions",
    "component_slow",
    "component_stale",
    "refused",
    "unauthorized",
    "outage",
    "signed",
];
/// Kinds of `standin_node_errors_total`: those of `Refusal` for `-ERR`s, `loop` for a refused chain of sidecars, and those
/// of `WireError` for bytes that are not a frame.
const NODE_ERRORS: &[&str] = &[
    "command",
    "subscription",
    "client",
    "authorization",
    "authorization_timeout",
    "server",
    "loop",
    "unknown",
    "unknown_verb",
    "line_too_long",
    "arguments",
    "payload_too_large",
    "payload_end",
];
/// Reasons of `standin_lost_total`: the names of `Loss`.
const LOST: &[&str] = &["in_doubt", "abandoned"];
/// Results of `standin_upgrades_total`.
const UPGRADES: &[&str] = &["done", "refused"];
/// Sources of nodes.
const SOURCES: [Source; 5] = [
    Source::ZooKeeper,
    Source::Cache,
    Source::Dns,
    Source::Fixed,
    Source::Gossip,
];
/// States of a node.
const NODE_STATES: &[&str] = &["up", "unproved", "draining", "cooling", "down", "refused"];
/// States of a source, as the registry names them.
const SOURCE_STATES: &[&str] = &["off", "connecting", "healthy", "lost"];

/// Counters for the two directions of a session.
#[derive(Debug)]
pub(crate) struct Directions {
    pub(crate) to_node: Counter,
    pub(crate) to_component: Counter,
}

/// Handles of all metrics. The help texts in [`Metrics::new`] say what each metric means.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) sessions: Gauge,
    pub(crate) sessions_total: Counter,
    pub(crate) sessions_closed: Labelled,
    pub(crate) sessions_failed: Counter,
    pub(crate) connections_refused: Labelled,
    pub(crate) half_open: Gauge,
    pub(crate) messages: Directions,
    pub(crate) bytes: Directions,
    pub(crate) in_doubt_drop: Counter,
    pub(crate) in_doubt_resend: Counter,
    pub(crate) resent: Counter,
    pub(crate) lost: Labelled,
    pub(crate) own_pings: Counter,
    pub(crate) buffered_bytes: Gauge,
    pub(crate) fullest_buffer: Gauge,
    pub(crate) connections_max: Gauge,
    pub(crate) reload_successful: Gauge,
    pub(crate) upgrades: Labelled,
    pub(crate) node_dials: Labelled,
    pub(crate) client_errors: Labelled,
    pub(crate) node_errors: Labelled,
    pub(crate) nodes_proved: Gauge,
    pub(crate) no_node_seconds: Gauge,
    pub(crate) sessions_without_node: Gauge,
    pub(crate) sessions_without_node_seconds: Gauge,
    failovers: [Counter; Cause::COUNT],
    failover_seconds: Histogram,
    failover_silent_seconds: Histogram,
    nodes: Vec<Gauge>,
    registry_state: Vec<Gauge>,
    registry_age: [Gauge; SOURCES.len()],
    registry_skipped: Counter,
    names: Names,
}

impl Metrics {
    /// Creates all handles. Every series exists from now on, with value 0.
    pub(crate) fn new() -> Self {
        let names = Names::default();
        let counter = |name, help| names.counter(name, help, &[]);
        let gauge = |name, help| names.gauge(name, help, &[]);
        let sources = SOURCES.map(Source::as_str);
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        let help = "Always 1; the label is the version.";
        names.gauge("standin_build_info", help, &version).set(1.0);
        let reload_successful = gauge(
            "standin_settings_reload_successful",
            "1 if the last reload of the settings succeeded or there was none, else 0.",
        );
        reload_successful.set(1.0);
        Self {
            sessions: gauge(
                "standin_sessions",
                "Sessions now: one for each connected component.",
            ),
            sessions_total: counter("standin_sessions_total", "Sessions since start."),
            sessions_closed: names.labelled(
                "standin_sessions_closed_total",
                "Sessions that ended, by reason.",
                "reason",
                CLOSED,
            ),
            sessions_failed: counter(
                "standin_sessions_failed_total",
                "Sessions that ended because of a bug (a panic); other sessions were not affected.",
            ),
            connections_refused: names.labelled(
                "standin_connections_refused_total",
                "Connections of components that were refused, or closed before CONNECT for another one, by reason.",
                "reason",
                REFUSED,
            ),
            half_open: gauge(
                "standin_half_open",
                "Connections of components that have not sent CONNECT or another command.",
            ),
            messages: directions(
                &names,
                "standin_messages_total",
                "Messages passed on, by direction.",
            ),
            bytes: directions(
                &names,
                "standin_bytes_total",
                "Bytes passed on, including control lines, by direction.",
            ),
            in_doubt_drop: in_doubt(&names, "drop"),
            in_doubt_resend: in_doubt(&names, "resend"),
            resent: counter("standin_resent_total", "Publishes in doubt that were sent again."),
            lost: names.labelled(
                "standin_lost_total",
                "Publishes known to be lost: in doubt and not sent again, or held by a session that ended.",
                "reason",
                LOST,
            ),
            own_pings: counter(
                "standin_own_pings_total",
                "PINGs that the sidecar added to the stream, so that the node acks publishes.",
            ),
            buffered_bytes: gauge("standin_buffered_bytes", "Bytes in all sessions' buffers."),
            fullest_buffer: gauge(
                "standin_fullest_buffer_ratio",
                "Fullest buffer of a session, or all buffers together if they are nearer to their limit; 1: full.",
            ),
            connections_max: gauge(
                "standin_connections_max",
                "Limit on connected components: limits.connections_max, or what the limit on open files allows.",
            ),
            reload_successful,
            upgrades: names.labelled(
                "standin_upgrades_total",
                "Replacements of the running program by the binary on disk, by result.",
                "result",
                UPGRADES,
            ),
            node_dials: names.labelled(
                "standin_node_dials_total",
                "Attempts to reach a node, by result.",
                "result",
                DIALS,
            ),
            client_errors: names.labelled(
                "standin_client_errors_total",
                "Components whose command was refused or whose connection the sidecar closed, by kind.",
                "kind",
                CLIENT_ERRORS,
            ),
            node_errors: names.labelled(
                "standin_node_errors_total",
                "Errors of nodes: -ERRs by kind of refusal, and bytes that are not a NATS frame.",
                "kind",
                NODE_ERRORS,
            ),
            failovers: Cause::ALL.map(|cause| {
                let help = "Sessions that moved from one node to another, by cause.";
                names.counter("standin_failovers_total", help, &[("cause", cause.as_str())])
            }),
            failover_seconds: names.histogram(
                "standin_failover_seconds",
                "Seconds from the noticed loss of a node to the next node's first answer.",
                FAILOVER_BUCKETS_SECS,
            ),
            failover_silent_seconds: names.histogram(
                "standin_failover_silent_seconds",
                "Seconds from the last byte of the lost node to the next node's first answer.",
                FAILOVER_BUCKETS_SECS,
            ),
            nodes_proved: gauge(
                "standin_nodes_proved",
                "Nodes that a session or a probe has proved recently.",
            ),
            no_node_seconds: gauge(
                "standin_no_node_seconds",
                "Seconds for which no node has been proved; 0 while one is.",
            ),
            sessions_without_node: gauge("standin_sessions_without_node", "Sessions that have no node now."),
            sessions_without_node_seconds: gauge(
                "standin_sessions_without_node_seconds",
                "Seconds without a node, of the session that has been without one longest; 0 while every session has one.",
            ),
            nodes: names.grid(
                "standin_nodes",
                "Known nodes by state and source; up: proved recently by a session or a probe.",
                ("state", NODE_STATES),
                ("source", &sources),
            ),
            registry_state: names.grid(
                "standin_registry_state",
                "1 for the present state of a source of nodes, 0 for its other states.",
                ("source", &sources),
                ("state", SOURCE_STATES),
            ),
            registry_age: sources.map(|source| {
                let help = "Seconds since the last good answer of a source of nodes; -1 if there was none.";
                names.gauge("standin_registry_age_seconds", help, &[("source", source)])
            }),
            registry_skipped: counter(
                "standin_registry_records_skipped_total",
                "Node records that could not be read.",
            ),
            names,
        }
    }

    /// Returns the counters and histograms for the program that replaces this one.
    pub(crate) fn save(&self) -> SavedMetrics {
        self.names.save()
    }

    /// Goes on with the counters and histograms of the program that this one replaced.
    pub(crate) fn restore(&self, former: &SavedMetrics) {
        self.names.restore(former);
    }

    /// Counts a finished failover.
    pub(crate) fn failover(&self, failover: &Failover) {
        self.failovers[failover.cause.index()].increment(1);
        self.failover_seconds.record(failover.took.as_secs_f64());
        self.failover_silent_seconds.record(failover.silent.as_secs_f64());
    }

    /// Sets the number of nodes for each state and source.
    pub(crate) fn set_nodes(&self, nodes: &[NodeStatus]) {
        let sources = SOURCES.map(Source::as_str);
        let pairs = NODE_STATES
            .iter()
            .flat_map(|state| sources.map(|source| (*state, source)));
        for (gauge, pair) in self.nodes.iter().zip(pairs) {
            let count = nodes
                .iter()
                .filter(|node| (node.state, node.source) == pair)
                .count();
            gauge.set(count as f64);
        }
    }

    /// Sets the state of the registry's sources.
    pub(crate) fn set_registry(&self, health: &Health) {
        let states = self.registry_state.chunks(SOURCE_STATES.len());
        for ((source, states), age) in SOURCES.into_iter().zip(states).zip(&self.registry_age) {
            let age_ms = match source {
                Source::ZooKeeper => health.zookeeper.last_good_age_ms,
                Source::Dns => health.dns.iter().filter_map(|name| name.last_good_age_ms).max(),
                Source::Cache | Source::Fixed | Source::Gossip => None,
            };
            let present = health.state(source).as_str();
            for (gauge, state) in states.iter().zip(SOURCE_STATES) {
                gauge.set(f64::from(u8::from(*state == present)));
            }
            age.set(age_ms.map_or(-1.0, |age_ms| Duration::from_millis(age_ms).as_secs_f64()));
        }
        let names = health.dns.iter().map(|name| name.skipped_total);
        self.registry_skipped
            .absolute(health.zookeeper.skipped_total + names.sum::<u64>());
    }

    /// Sets the traffic of all sessions since the sidecar's start. A counter for each batch would be contended by all threads.
    pub(crate) fn set_traffic(&self, traffic: Traffic) {
        self.messages.to_node.absolute(traffic.messages_to_node);
        self.messages.to_component.absolute(traffic.messages_to_component);
        self.bytes.to_node.absolute(traffic.bytes_to_node);
        self.bytes.to_component.absolute(traffic.bytes_to_component);
        self.own_pings.absolute(traffic.own_pings);
    }

    /// Sets the expiry of each door's certificate, in seconds since 1970.
    pub(crate) fn set_certificates(&self, expiries: &[(String, i64)]) {
        let help = "Time at which the certificate of a door expires, in seconds since 1970.";
        for (door, expires_at) in expiries {
            let gauge = self
                .names
                .gauge("standin_certificate_expires_seconds", help, &[("door", door)]);
            gauge.set(*expires_at as f64);
        }
    }

    /// Returns all series in the text format of Prometheus.
    pub(crate) fn render(&self) -> String {
        self.names.render() + &process_usage::render()
    }
}

fn directions(names: &Names, name: &'static str, help: &'static str) -> Directions {
    Directions {
        to_node: names.counter(name, help, &[("direction", "to_node")]),
        to_component: names.counter(name, help, &[("direction", "to_component")]),
    }
}

fn in_doubt(names: &Names, policy: &'static str) -> Counter {
    let help = "Publishes that a node had not acked when it was lost, by policy: drop or resend.";
    names.counter("standin_in_doubt_total", help, &[("policy", policy)])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use standin_registry::SourceState;

    use super::*;
    use crate::doubt::InDoubtCount;

    /// Asserts that the scrape has each of `lines`.
    #[track_caller]
    fn assert_lines(metrics: &Metrics, lines: &[&str]) {
        let text = metrics.render();
        for line in lines {
            assert!(
                text.lines().any(|have| have == *line),
                "{line} is missing in\n{text}"
            );
        }
    }

    #[test]
    fn series_exist_from_the_start_and_have_help_texts() {
        let metrics = Metrics::new();
        let build = concat!(
            "standin_build_info{version=\"",
            env!("CARGO_PKG_VERSION"),
            "\"} 1"
        );
        let lines = [
            "# HELP standin_sessions Sessions now: one for each connected component.",
            "# TYPE standin_failovers_total counter",
            "standin_sessions 0",
            "standin_sessions_closed_total{reason=\"outage\"} 0",
            "standin_failovers_total{cause=\"lame_duck\"} 0",
            "standin_messages_total{direction=\"to_node\"} 0",
            "standin_bytes_total{direction=\"to_component\"} 0",
            "standin_in_doubt_total{policy=\"drop\"} 0",
            "standin_nodes{state=\"cooling\",source=\"gossip\"} 0",
            "standin_node_dials_total{result=\"connect_timeout\"} 0",
            "standin_registry_records_skipped_total 0",
            build,
        ];
        assert_lines(&metrics, &lines);
        let prefixes = ["#", "standin_", "process_"];
        let is_known = |line: &str| line.is_empty() || prefixes.iter().any(|prefix| line.starts_with(prefix));
        assert!(metrics.render().lines().all(is_known));
    }

    /// Returns a failover that took `took_ms` from the noticed loss, which was two seconds after the node's last byte.
    fn failover(cause: Cause, took_ms: u64) -> Failover {
        let took = Duration::from_millis(took_ms);
        Failover {
            from: Arc::new(crate::session::tests::node("n:1")),
            cause,
            noticed: std::time::Instant::now(),
            silent: took + Duration::from_secs(2),
            took,
            in_doubt: InDoubtCount::default(),
            subscriptions: 0,
        }
    }

    #[test]
    fn a_failover_is_counted_by_its_cause_and_in_its_bucket() {
        let metrics = Metrics::new();
        metrics.failover(&failover(Cause::NodeError("authorization"), 15));
        metrics.failover(&failover(Cause::Reset, 1500));
        let lines = [
            "standin_failovers_total{cause=\"node_error\"} 1",
            "standin_failovers_total{cause=\"reset\"} 1",
            "standin_failover_seconds_bucket{le=\"0.01\"} 0",
            "standin_failover_seconds_bucket{le=\"0.02\"} 1",
            "standin_failover_seconds_count 2",
            // Silence is counted from the last byte received.
            "standin_failover_silent_seconds_bucket{le=\"2.5\"} 1",
        ];
        assert_lines(&metrics, &lines);
    }

    #[test]
    fn an_unknown_label_value_creates_no_series() {
        let metrics = Metrics::new();
        let series = metrics.render().lines().count();
        metrics.client_errors.increment("made up by a peer");
        assert_eq!(metrics.render().lines().count(), series);
        assert_lines(&metrics, &["standin_client_errors_total{kind=\"other\"} 1"]);
    }

    #[test]
    fn gauges_of_sources_show_the_present_state() {
        let metrics = Metrics::new();
        let mut health = Health::default();
        health.zookeeper.state = SourceState::Connecting;
        metrics.set_registry(&health);
        health.zookeeper.state = SourceState::Healthy;
        health.zookeeper.last_good_age_ms = Some(2000);
        health.zookeeper.skipped_total = 4;
        metrics.set_registry(&health);
        let lines = [
            "standin_registry_state{source=\"zookeeper\",state=\"connecting\"} 0",
            "standin_registry_state{source=\"zookeeper\",state=\"healthy\"} 1",
            "standin_registry_age_seconds{source=\"zookeeper\"} 2",
            "standin_registry_records_skipped_total 4",
        ];
        assert_lines(&metrics, &lines);
    }
}
