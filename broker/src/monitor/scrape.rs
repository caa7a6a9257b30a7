//! The page `/metrics`, for Prometheus.
//!
//! All values are counted elsewhere for the other pages. A scrape copies them to the metrics.

use std::sync::atomic::Ordering::Relaxed;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use metrics::{Counter, Gauge};
use metrics_exporter_prometheus::PrometheusHandle;
use standin_daemon::metrics::Names;

use super::{Pages, usage};
use crate::closing::KINDS;
use crate::shared::Shared;

/// The handles of all metrics. Every series exists from the start.
pub(super) struct Scrape {
    connections: Gauge,
    connections_total: Counter,
    ended: Vec<Counter>,
    subscriptions: Gauge,
    subscriptions_added: Counter,
    subscriptions_removed: Counter,
    messages_in: Counter,
    messages_out: Counter,
    bytes_in: Counter,
    bytes_out: Counter,
    stalls: Counter,
    lookups: Counter,
    lookup_hits: Counter,
    links: Gauge,
    links_total: Counter,
    links_ended: Vec<Counter>,
    link_unsent_bytes: Counter,
    link_undelivered: Counter,
    link_messages_in: Counter,
    link_messages_out: Counter,
    link_bytes_in: Counter,
    link_bytes_out: Counter,
    remote_subscriptions: Gauge,
    flushes_given_up: Counter,
    pending_bytes: Gauge,
    resident_bytes: Gauge,
    cpu_seconds: Gauge,
    lame_duck: Gauge,
    handle: PrometheusHandle,
}

impl Scrape {
    pub(super) fn new() -> Self {
        let names = Names::default();
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        names
            .gauge(
                "standin_broker_build_info",
                "Always 1; the label is the version.",
                &version,
            )
            .set(1.0);
        let ended = |name, help| -> Vec<Counter> {
            let each = KINDS
                .iter()
                .map(|kind| names.counter(name, help, &[("reason", kind)]));
            each.collect()
        };
        let directed = |name, help, direction| names.counter(name, help, &[("direction", direction)]);
        let messages = |direction| {
            let help = "Messages from clients (in) and to clients (out).";
            directed("standin_broker_messages_total", help, direction)
        };
        let bytes = |direction| {
            let help = "Bytes of payloads and headers from clients (in) and to clients (out).";
            directed("standin_broker_bytes_total", help, direction)
        };
        let link_messages = |direction| {
            let help = "Messages from other nodes (in) and to other nodes (out).";
            directed("standin_broker_link_messages_total", help, direction)
        };
        let link_bytes = |direction| {
            let help = "Bytes of payloads and headers from other nodes (in) and to other nodes (out).";
            directed("standin_broker_link_bytes_total", help, direction)
        };
        let counter = |name, help| names.counter(name, help, &[]);
        let gauge = |name, help| names.gauge(name, help, &[]);
        Self {
            connections: gauge("standin_broker_connections", "Clients connected now."),
            connections_total: counter("standin_broker_connections_total", "Clients since start."),
            ended: ended(
                "standin_broker_connections_ended_total",
                "Closed client connections, by reason.",
            ),
            subscriptions: gauge("standin_broker_subscriptions", "Subscriptions now."),
            subscriptions_added: counter(
                "standin_broker_subscriptions_added_total",
                "Subscriptions added since start.",
            ),
            subscriptions_removed: counter(
                "standin_broker_subscriptions_removed_total",
                "Subscriptions removed since start.",
            ),
            messages_in: messages("in"),
            messages_out: messages("out"),
            bytes_in: bytes("in"),
            bytes_out: bytes("out"),
            stalls: counter(
                "standin_broker_stalls_total",
                "Stalls of a publisher because of a slow subscriber.",
            ),
            lookups: counter(
                "standin_broker_lookups_total",
                "Lookups of the subscribers of a message.",
            ),
            lookup_hits: counter(
                "standin_broker_lookup_hits_total",
                "Lookups that were answered from the cache.",
            ),
            links: gauge("standin_broker_links", "Routes to other nodes now."),
            links_total: counter("standin_broker_links_total", "Routes to other nodes since start."),
            links_ended: ended(
                "standin_broker_links_ended_total",
                "Closed routes to other nodes, by reason.",
            ),
            link_unsent_bytes: counter(
                "standin_broker_link_unsent_bytes_total",
                "Bytes that were pending for other nodes when their routes closed.",
            ),
            link_undelivered: counter(
                "standin_broker_link_undelivered_total",
                "Messages from other nodes for which no client here had interest when they arrived.",
            ),
            link_messages_in: link_messages("in"),
            link_messages_out: link_messages("out"),
            link_bytes_in: link_bytes("in"),
            link_bytes_out: link_bytes("out"),
            remote_subscriptions: gauge(
                "standin_broker_remote_subscriptions",
                "Subjects and queue groups in which other nodes have interest now.",
            ),
            flushes_given_up: counter(
                "standin_broker_flushes_given_up_total",
                "PONGs sent to clients after the flush timeout, before all other nodes had acked.",
            ),
            pending_bytes: gauge("standin_broker_pending_bytes", "Bytes pending for clients now."),
            resident_bytes: gauge("standin_broker_resident_bytes", "Resident memory of the process."),
            cpu_seconds: gauge(
                "standin_broker_cpu_seconds",
                "CPU time of the process since start.",
            ),
            lame_duck: gauge("standin_broker_lame_duck", "1 in lame duck mode, else 0."),
            handle: names.handle(),
        }
    }

    /// Copies the current values to the metrics.
    fn copy(&self, shared: &Shared) {
        let totals = shared.clients.totals();
        let counts = shared.interest.local.counts();
        let open = shared.clients.open();
        self.connections.set(open.len() as f64);
        self.connections_total.absolute(totals.clients);
        for (counter, count) in self.ended.iter().zip(totals.ended) {
            counter.absolute(count);
        }
        self.subscriptions.set(counts.live as f64);
        self.subscriptions_added.absolute(counts.added);
        self.subscriptions_removed.absolute(counts.removed);
        self.messages_in.absolute(totals.messages_in);
        self.messages_out.absolute(totals.messages_out);
        self.bytes_in.absolute(totals.bytes_in);
        self.bytes_out.absolute(totals.bytes_out);
        self.stalls.absolute(shared.stalls.load(Relaxed));
        self.lookups.absolute(shared.lookups.total.load(Relaxed));
        self.lookup_hits.absolute(shared.lookups.hits.load(Relaxed));
        let links = &shared.interest.routes;
        let totals = links.totals();
        self.links.set(links.load().len() as f64);
        self.links_total.absolute(totals.routes);
        for (counter, count) in self.links_ended.iter().zip(totals.ended) {
            counter.absolute(count);
        }
        self.link_unsent_bytes.absolute(totals.unsent_bytes);
        self.link_undelivered.absolute(totals.undelivered);
        self.link_messages_in.absolute(totals.messages_in);
        self.link_messages_out.absolute(totals.messages_out);
        self.link_bytes_in.absolute(totals.bytes_in);
        self.link_bytes_out.absolute(totals.bytes_out);
        self.flushes_given_up.absolute(shared.flush.given_up());
        self.remote_subscriptions.set(shared.interest.remote.len() as f64);
        let pending: usize = open
            .iter()
            .map(|client_info| client_info.outbox.pending_bytes())
            .sum();
        self.pending_bytes.set(pending as f64);
        self.resident_bytes.set(usage::resident_bytes() as f64);
        self.cpu_seconds.set(usage::cpu_secs().unwrap_or(0.0));
        self.lame_duck
            .set(f64::from(u8::from(shared.advertised().lame_duck)));
    }
}

pub(super) async fn page(State(pages): State<Pages>) -> impl IntoResponse {
    pages.scrape.copy(&pages.shared);
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], pages.scrape.handle.render())
}
