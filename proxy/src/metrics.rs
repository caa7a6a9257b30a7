//! Every metric of the sidecar, with its name, its help text and its labels.
//!
//! *Architecture invariant:* no label is looked up on the message path. All handles are created once, here. Each label
//! value has its own field or array element. Only rare events (a refusal, a dial, the end of a session) search a short
//! closed list of label values ([`Labelled`]). A value that is not in the list counts as `other`, so no peer can make the
//! number of series grow.
//!
//! There is no global recorder. Each running sidecar has its own [`Metrics`], so one process can run several sidecars.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use metrics::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::PrometheusHandle;
use standin_daemon::metrics::{Labelled, Names};
use standin_registry::{Health, Source};

use crate::cause::Cause;
use crate::session::Move;

/// Bounds of the `standin_failover…` histograms: 1 ms to 60 s, dense around the usual times (20 ms, 100 ms, 2 s).
const FAILOVER_BUCKETS_SECS: &[f64] = &[
    0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 20.0, 30.0,
    60.0,
];

/// Number of samples that wait in memory for a scrape. At this number they are added to the histogram without a scrape.
const FAILOVER_SAMPLES_MAX: u32 = 256;

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
    "shutdown",
];
/// Reasons of `standin_connections_refused_total`.
const REFUSED: &[&str] = &["connections_max", "accept_error"];
/// Results of `standin_node_dials_total`: success, and the kinds of `DialError`.
const DIALS: &[&str] = &[
    "connected",
    "no_address",
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
/// subscription.
const CLIENT_ERRORS: &[&str] = &[
    "unknown_verb",
    "line_too_long",
    "arguments",
    "payload_too_large",
    "payload_end",
    "subscriptions_max",
    "component_slow",
    "component_stale",
    "refused",
    "unauthorized",
    "outage",
    "signed",
];
/// Kinds of `standin_node_errors_total`: those of `Refusal` for `-ERR`s, and of `WireError` for bytes that are not a
/// frame.
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
/// Sources of nodes: the names of `standin_registry::Source`.
const SOURCES: &[&str] = &["zookeeper", "cache", "dns", "fixed", "gossip"];
/// States of a node.
const NODE_STATES: &[&str] = &["up", "unproved", "draining", "cooling", "down"];
/// States of a source, as the registry names them.
const SOURCE_STATES: &[&str] = &["off", "connecting", "healthy", "lost"];

/// Counters for the two directions of a session.
#[derive(Debug)]
pub struct Directions {
    /// From the component to its node.
    pub to_node: Counter,
    /// From the node to its component.
    pub to_component: Counter,
}

/// Handles of all metrics. Each field counts without a lock and without a lookup.
#[derive(Debug)]
pub struct Metrics {
    /// Sessions now.
    pub sessions: Gauge,
    /// Sessions since start.
    pub sessions_total: Counter,
    /// Ends of sessions, by `EndReason::as_str`.
    pub sessions_closed: Labelled,
    /// Sessions that panicked.
    pub sessions_failed: Counter,
    /// Connections of components that were refused, so that no session began.
    pub connections_refused: Labelled,
    /// PUB, HPUB, MSG and HMSG passed on.
    pub messages: Directions,
    /// Bytes passed on, including control lines.
    pub bytes: Directions,
    /// Publishes that were in doubt when their node died, and are not sent again.
    pub in_doubt_drop: Counter,
    /// Publishes that were in doubt when their node died, and are sent again.
    pub in_doubt_resend: Counter,
    /// Publishes sent again.
    pub resent: Counter,
    /// Publishes known to be lost, by reason.
    pub lost: Labelled,
    /// PINGs that the sidecar added to a stream.
    pub own_pings: Counter,
    /// Bytes in the sessions' buffers now.
    pub buffered_bytes: Gauge,
    /// Attempts to reach a node, by result.
    pub node_dials: Labelled,
    /// Components whose command was refused or whose connection the sidecar closed, by kind.
    pub client_errors: Labelled,
    /// Errors of nodes, by `Refusal::kind` or `WireError::kind`.
    pub node_errors: Labelled,
    failovers: [Counter; Cause::COUNT],
    failover_seconds: Histogram,
    failover_silent_seconds: Histogram,
    failover_samples: AtomicU32,
    nodes: Vec<Gauge>,
    nodes_proved: Gauge,
    no_node_seconds: Gauge,
    sessions_without_node: Gauge,
    sessions_without_node_seconds: Gauge,
    registry_state: Vec<Gauge>,
    registry_age: Vec<Gauge>,
    registry_skipped: Counter,
    handle: PrometheusHandle,
}

impl Metrics {
    /// Creates all handles. Every series exists from now on, with value 0.
    #[must_use]
    pub fn new() -> Self {
        let names = Names::with_buckets("standin_failover", FAILOVER_BUCKETS_SECS);
        names
            .gauge(
                "standin_build_info",
                "Always 1; the label is the version.",
                &[("version", env!("CARGO_PKG_VERSION"))],
            )
            .set(1.0);
        Self {
            sessions: names.gauge(
                "standin_sessions",
                "Sessions now: one for each connected component.",
                &[],
            ),
            sessions_total: names.counter("standin_sessions_total", "Sessions since start.", &[]),
            sessions_closed: names.labelled(
                "standin_sessions_closed_total",
                "Sessions that ended, by reason.",
                "reason",
                CLOSED,
            ),
            sessions_failed: names.counter(
                "standin_sessions_failed_total",
                "Sessions that ended because of a bug (a panic); other sessions were not affected.",
                &[],
            ),
            connections_refused: names.labelled(
                "standin_connections_refused_total",
                "Connections of components that got no session, by reason.",
                "reason",
                REFUSED,
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
            resent: names.counter(
                "standin_resent_total",
                "Publishes in doubt that were sent again.",
                &[],
            ),
            lost: names.labelled(
                "standin_lost_total",
                "Publishes known to be lost: in doubt and not sent again, or held by a session that ended.",
                "reason",
                LOST,
            ),
            own_pings: names.counter(
                "standin_own_pings_total",
                "PINGs that the sidecar added to the stream, so that the node acks publishes.",
                &[],
            ),
            buffered_bytes: names.gauge(
                "standin_buffered_bytes",
                "Bytes in all sessions' buffers.",
                &[],
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
            ),
            failover_silent_seconds: names.histogram(
                "standin_failover_silent_seconds",
                "Seconds from the last byte of the lost node to the next node's first answer.",
            ),
            failover_samples: AtomicU32::new(0),
            nodes_proved: names.gauge(
                "standin_nodes_proved",
                "Nodes that a session or a probe has proved recently.",
                &[],
            ),
            no_node_seconds: names.gauge(
                "standin_no_node_seconds",
                "Seconds since no node is proved; 0 while one is.",
                &[],
            ),
            sessions_without_node: names.gauge(
                "standin_sessions_without_node",
                "Sessions that have no node now.",
                &[],
            ),
            sessions_without_node_seconds: names.gauge(
                "standin_sessions_without_node_seconds",
                "Longest time in seconds that a session is now without a node; 0 while every session has one.",
                &[],
            ),
            nodes: names.grid(
                "standin_nodes",
                "Known nodes by state and source; up: proved recently by a session or a probe.",
                ("state", NODE_STATES),
                ("source", SOURCES),
            ),
            registry_state: names.grid(
                "standin_registry_state",
                "1 for the present state of a source of nodes, 0 for its other states.",
                ("source", SOURCES),
                ("state", SOURCE_STATES),
            ),
            registry_age: SOURCES
                .iter()
                .map(|source| {
                    let help =
                        "Seconds since the last good answer of a source of nodes; -1 if there was none.";
                    names.gauge("standin_registry_age_seconds", help, &[("source", source)])
                })
                .collect(),
            registry_skipped: names.counter(
                "standin_registry_records_skipped_total",
                "Node records that could not be read.",
                &[],
            ),
            handle: names.handle(),
        }
    }

    /// Counts a finished move.
    pub(crate) fn failover(&self, moved: &Move) {
        self.failovers[moved.cause.index()].increment(1);
        self.failover_seconds.record(moved.took.as_secs_f64());
        self.failover_silent_seconds.record(moved.silent.as_secs_f64());
        if self.failover_samples.fetch_add(1, Ordering::Relaxed) % FAILOVER_SAMPLES_MAX
            == FAILOVER_SAMPLES_MAX - 1
        {
            self.handle.run_upkeep();
        }
    }

    /// Sets the number of proved nodes, and the time since which no node is proved.
    pub fn set_proved(&self, proved: usize, none_for: Duration) {
        self.nodes_proved.set(proved as f64);
        self.no_node_seconds.set(none_for.as_secs_f64());
    }

    /// Sets the number of sessions without a node, and the longest time of one of them.
    pub fn set_without_node(&self, sessions: usize, longest: Duration) {
        self.sessions_without_node.set(sessions as f64);
        self.sessions_without_node_seconds.set(longest.as_secs_f64());
    }

    /// Sets the number of nodes for each state and source. `nodes` has the state and source of each node.
    pub fn set_nodes<'a>(&self, nodes: impl IntoIterator<Item = (&'a str, &'a str)>) {
        let mut counts = vec![0_u32; self.nodes.len()];
        for (state, source) in nodes {
            if let (Some(state), Some(source)) = (index_of(NODE_STATES, state), index_of(SOURCES, source)) {
                counts[state * SOURCES.len() + source] += 1;
            }
        }
        for (gauge, count) in self.nodes.iter().zip(counts) {
            gauge.set(count);
        }
    }

    /// Sets the state of the registry's sources.
    pub fn set_registry(&self, health: &Health) {
        let oldest = |ages: &mut dyn Iterator<Item = Option<u64>>| ages.flatten().max();
        for source in [
            Source::ZooKeeper,
            Source::Cache,
            Source::Dns,
            Source::Fixed,
            Source::Gossip,
        ] {
            let age_ms = match source {
                Source::ZooKeeper => health.zookeeper.last_good_age_ms,
                Source::Dns => oldest(&mut health.dns.iter().map(|name| name.last_good_age_ms)),
                Source::Cache | Source::Fixed | Source::Gossip => None,
            };
            self.set_source(
                source.as_str(),
                health.state(source).as_str(),
                age_ms.map(Duration::from_millis),
            );
        }
        let names = health.dns.iter().map(|name| name.skipped_total);
        self.registry_skipped
            .absolute(health.zookeeper.skipped_total + names.sum::<u64>());
    }

    fn set_source(&self, source: &str, state: &str, age: Option<Duration>) {
        let Some(source) = index_of(SOURCES, source) else {
            return;
        };
        let row = &self.registry_state[source * SOURCE_STATES.len()..][..SOURCE_STATES.len()];
        for (gauge, known) in row.iter().zip(SOURCE_STATES) {
            gauge.set(if *known == state { 1.0 } else { 0.0 });
        }
        self.registry_age[source].set(age.map_or(-1.0, |age| age.as_secs_f64()));
    }

    /// Returns all series in the text format of Prometheus.
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.render()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns the index of `value` in a list of label values.
fn index_of(values: &[&str], value: &str) -> Option<usize> {
    values.iter().position(|known| *known == value)
}

fn directions(names: &Names, name: &'static str, help: &'static str) -> Directions {
    Directions {
        to_node: names.counter(name, help, &[("direction", "to_node")]),
        to_component: names.counter(name, help, &[("direction", "to_component")]),
    }
}

fn in_doubt(names: &Names, policy: &'static str) -> Counter {
    let help = "Publishes that their node had not acked when it died, by policy: drop or resend.";
    names.counter("standin_in_doubt_total", help, &[("policy", policy)])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use standin_registry::SourceState;

    use super::*;
    use crate::doubt::InDoubtCount;

    #[test]
    fn every_series_exists_from_the_start_and_has_a_help_text() {
        let text = Metrics::new().render();
        for line in [
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
        ] {
            assert!(
                text.lines().any(|have| have == line),
                "{line} is missing in\n{text}"
            );
        }
        assert!(text.contains(concat!(
            "standin_build_info{version=\"",
            env!("CARGO_PKG_VERSION"),
            "\"} 1"
        )));
        assert!(
            text.lines()
                .all(|line| line.is_empty() || line.starts_with('#') || line.starts_with("standin_"))
        );
    }

    /// Returns a move that took `took_ms` from the noticed loss, which was two seconds after the node's last byte.
    fn moved(cause: Cause, took_ms: u64) -> Move {
        let took = Duration::from_millis(took_ms);
        Move {
            from: Arc::new(crate::session::tests::node("n:1")),
            cause,
            silent: took + Duration::from_secs(2),
            took,
            in_doubt: InDoubtCount::default(),
            subscriptions: 0,
        }
    }

    #[test]
    fn a_failover_is_counted_by_its_cause_and_in_its_bucket() {
        let metrics = Metrics::new();
        metrics.failover(&moved(Cause::NodeError("authorization"), 15));
        metrics.failover(&moved(Cause::Reset, 1500));
        let text = metrics.render();
        assert!(
            text.contains("standin_failovers_total{cause=\"node_error\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("standin_failovers_total{cause=\"reset\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("standin_failover_seconds_bucket{le=\"0.01\"} 0"),
            "{text}"
        );
        assert!(
            text.contains("standin_failover_seconds_bucket{le=\"0.02\"} 1"),
            "{text}"
        );
        assert!(text.contains("standin_failover_seconds_count 2"), "{text}");
        assert!(
            text.contains("standin_failover_silent_seconds_bucket{le=\"2.5\"} 1"),
            "silence is counted from the last byte heard: {text}"
        );
    }

    #[test]
    fn all_failovers_are_counted_without_a_scrape() {
        let metrics = Metrics::new();
        let failovers = FAILOVER_SAMPLES_MAX * 10 + 3;
        (0..failovers).for_each(|_| metrics.failover(&moved(Cause::Reset, 1)));
        let text = metrics.render();
        assert!(
            text.contains(&format!("standin_failover_seconds_count {failovers}\n")),
            "{text}"
        );
    }

    #[test]
    fn an_unknown_label_value_creates_no_series() {
        let metrics = Metrics::new();
        let series = metrics.render().lines().count();
        metrics.client_errors.increment("made up by a peer");
        let text = metrics.render();
        assert_eq!(text.lines().count(), series);
        assert!(
            text.contains("standin_client_errors_total{kind=\"other\"} 1"),
            "{text}"
        );
    }

    #[test]
    fn gauges_of_nodes_and_sources_show_the_present_state() {
        let metrics = Metrics::new();
        metrics.set_nodes([("up", "zookeeper"), ("up", "zookeeper"), ("cooling", "fixed")]);
        metrics.set_nodes([("up", "zookeeper")]);
        let mut health = Health::default();
        health.zookeeper.state = SourceState::Connecting;
        metrics.set_registry(&health);
        health.zookeeper.state = SourceState::Healthy;
        health.zookeeper.last_good_age_ms = Some(2000);
        health.zookeeper.skipped_total = 4;
        metrics.set_registry(&health);
        let text = metrics.render();
        assert!(
            text.contains("standin_nodes{state=\"up\",source=\"zookeeper\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("standin_nodes{state=\"cooling\",source=\"fixed\"} 0"),
            "{text}"
        );
        assert!(
            text.contains("standin_registry_state{source=\"zookeeper\",state=\"connecting\"} 0"),
            "{text}"
        );
        assert!(
            text.contains("standin_registry_state{source=\"zookeeper\",state=\"healthy\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("standin_registry_age_seconds{source=\"zookeeper\"} 2"),
            "{text}"
        );
        assert!(
            text.contains("standin_registry_records_skipped_total 4"),
            "{text}"
        );
    }

    #[test]
    fn the_dashboard_uses_only_series_that_exist() {
        let text = Metrics::new().render();
        let dashboard = include_str!("../../deploy/proxy-grafana.json");
        let names = dashboard.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let names: Vec<&str> = names.filter(|name| name.starts_with("standin_")).collect();
        assert!(names.len() > 20, "{names:?}");
        for name in names {
            let series =
                |line: &str| line.starts_with(&format!("{name} ")) || line.starts_with(&format!("{name}{{"));
            assert!(text.lines().any(series), "{name}");
        }
    }
}
