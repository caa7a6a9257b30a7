//! The page `/metrics`, for Prometheus.
//!
//! All values are counted elsewhere. A request copies them to the metrics, so each answer has every series.

use std::sync::atomic::Ordering::Relaxed;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use standin_daemon::metrics::Names;
use standin_daemon::process_usage;
use standin_registry::SourceState;

use super::Pages;
use crate::close_reason::KINDS;
use crate::shared::Shared;

pub(super) async fn page(State(pages): State<Pages>) -> impl IntoResponse {
    let metrics = Metrics(&pages.names);
    metrics.set_admission(&pages.shared);
    metrics.set_clients(&pages.shared);
    metrics.set_accounts(&pages.shared);
    metrics.set_routes(&pages.shared);
    metrics.set_process(&pages.shared);
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    let text = pages.names.render() + &process_usage::render();
    ([(header::CONTENT_TYPE, kind)], text)
}

struct Metrics<'a>(&'a Names);

impl Metrics<'_> {
    fn gauge(&self, name: &'static str, help: &'static str, value: f64) {
        self.0.gauge(name, help, &[]).set(value);
    }

    fn counter(&self, name: &'static str, help: &'static str, value: u64) {
        self.0.counter(name, help, &[]).absolute(value);
    }

    /// Sets a counter with the label `direction`. `values`: received and sent.
    fn counter_by_direction(&self, name: &'static str, help: &'static str, values: [u64; 2]) {
        for (direction, value) in ["in", "out"].into_iter().zip(values) {
            let counter = self.0.counter(name, help, &[("direction", direction)]);
            counter.absolute(value);
        }
    }

    /// Sets a counter with the label `reason`. `values`: the closed connections by reason.
    fn counter_by_reason(&self, name: &'static str, help: &'static str, values: [u64; KINDS.len()]) {
        for (reason, value) in KINDS.iter().zip(values) {
            let counter = self.0.counter(name, help, &[("reason", reason)]);
            counter.absolute(value);
        }
    }

    /// Sets the metrics of connections that have not logged in.
    fn set_admission(&self, shared: &Shared) {
        let help = "Clients that are connected now and have not logged in.";
        let half_open = shared.admission.half_open() as f64;
        self.gauge("standin_broker_half_open", help, half_open);
        let help = "Connections of clients that were closed before login because of a limit, by reason.";
        for (reason, count) in shared.admission.refused() {
            let labels = [("reason", reason.as_str())];
            let counter = self
                .0
                .counter("standin_broker_connections_refused_total", help, &labels);
            counter.absolute(count);
        }
        let help = "Connections on the port for other nodes that were evicted during their handshake.";
        let evicted = shared.evicted_handshakes.load(Relaxed);
        self.counter("standin_broker_handshakes_evicted_total", help, evicted);
    }

    fn set_clients(&self, shared: &Shared) {
        let open = shared.clients.open();
        let help = "Clients connected now.";
        self.gauge("standin_broker_connections", help, open.len() as f64);
        let help =
            "Limit on connected clients: limits.max_connections, or what the limit on open files allows.";
        let connections_max = shared.policy.load().admission.connections_max;
        self.gauge("standin_broker_connections_max", help, connections_max as f64);
        let help = "Bytes pending for clients now.";
        let pending = open.iter().map(|client| client.outbox.pending_bytes());
        let pending: usize = pending.sum();
        self.gauge("standin_broker_pending_bytes", help, pending as f64);

        let totals = shared.clients.totals();
        let help = "Clients since start.";
        self.counter("standin_broker_connections_total", help, totals.clients);
        let help = "Closed client connections, by reason.";
        self.counter_by_reason("standin_broker_connections_ended_total", help, totals.ended);
        let help = "Messages from clients (in) and to clients (out).";
        let messages = [totals.messages_in, totals.messages_out];
        self.counter_by_direction("standin_broker_messages_total", help, messages);
        let help = "Bytes of payloads and headers from clients (in) and to clients (out).";
        let bytes = [totals.bytes_in, totals.bytes_out];
        self.counter_by_direction("standin_broker_bytes_total", help, bytes);

        let counts = shared.interest.local.counts();
        let help = "Subscriptions now.";
        self.gauge("standin_broker_subscriptions", help, counts.live as f64);
        let help = "Subscriptions added since start.";
        self.counter("standin_broker_subscriptions_added_total", help, counts.added);
        let help = "Subscriptions removed since start.";
        self.counter("standin_broker_subscriptions_removed_total", help, counts.removed);

        let help = "Stalls of a publisher because of a slow subscriber.";
        let stalls = shared.stalls.load(Relaxed);
        self.counter("standin_broker_stalls_total", help, stalls);
        let help = "Publishes and subscriptions that the permissions of a user did not allow.";
        let violations = shared.violations.load(Relaxed);
        self.counter("standin_broker_permission_violations_total", help, violations);
        let help = "Lookups of the subscribers of a message.";
        let lookups = shared.lookups.total.load(Relaxed);
        self.counter("standin_broker_lookups_total", help, lookups);
        let help = "Lookups that were answered from the cache.";
        let hits = shared.lookups.hits.load(Relaxed);
        self.counter("standin_broker_lookup_hits_total", help, hits);
        let help = "PONGs sent to clients after the flush timeout, before all other nodes had acked.";
        let given_up = shared.flush.given_up();
        self.counter("standin_broker_flushes_given_up_total", help, given_up);
    }

    /// Sets the metrics of each account other than the default one.
    fn set_accounts(&self, shared: &Shared) {
        let accounts = shared.accounts.all();
        for account in &accounts {
            let labels = [("account", account.name.as_str())];
            let help = "Clients of an account connected now.";
            let gauge = self.0.gauge("standin_broker_account_connections", help, &labels);
            gauge.set(account.connections.load(Relaxed) as f64);
            let help = "Messages of an account that were refused because of a rate.";
            let counter = self
                .0
                .counter("standin_broker_account_refused_total", help, &labels);
            counter.absolute(account.refused.load(Relaxed));
            let [messages_in, bytes_in, messages_out, bytes_out] = account.totals();
            for (direction, messages, bytes) in
                [("in", messages_in, bytes_in), ("out", messages_out, bytes_out)]
            {
                let labels = [labels[0], ("direction", direction)];
                let help = "Messages from clients of an account (in) and to them (out).";
                let counter = self
                    .0
                    .counter("standin_broker_account_messages_total", help, &labels);
                counter.absolute(messages);
                let help = "Bytes of payloads and headers from clients of an account (in) and to them (out).";
                let counter = self
                    .0
                    .counter("standin_broker_account_bytes_total", help, &labels);
                counter.absolute(bytes);
            }
        }
    }

    fn set_routes(&self, shared: &Shared) {
        let routes = &shared.interest.routes;
        let help = "Routes to other nodes now.";
        self.gauge("standin_broker_links", help, routes.load().len() as f64);
        let figures = shared.cluster_figures.load();
        let help = "Known other nodes to which there is no route now.";
        self.gauge(
            "standin_broker_links_missing",
            help,
            figures.unlinked_nodes as f64,
        );
        let help = "1 for the present state of the connection to ZooKeeper, 0 for its other states.";
        for state in SourceState::ALL {
            let gauge = self.0.gauge(
                "standin_broker_registry_state",
                help,
                &[("state", state.as_str())],
            );
            gauge.set(f64::from(figures.registry == state));
        }
        let help = "Nodes that are registered in ZooKeeper, this one included.";
        self.gauge(
            "standin_broker_registered_nodes",
            help,
            figures.registered_nodes as f64,
        );
        let help = "1 while this node is registered in ZooKeeper, else 0.";
        self.gauge(
            "standin_broker_registered",
            help,
            f64::from(figures.is_registered),
        );
        let help = "Subjects and queue groups in which other nodes have interest now.";
        let interest = shared.interest.remote.len() as f64;
        self.gauge("standin_broker_remote_subscriptions", help, interest);

        let totals = routes.totals();
        let help = "Routes to other nodes since start.";
        self.counter("standin_broker_links_total", help, totals.routes);
        let help = "Closed routes to other nodes, by reason.";
        self.counter_by_reason("standin_broker_links_ended_total", help, totals.ended);
        let help = "Bytes that were pending for other nodes when their routes closed.";
        let unsent = totals.unsent_bytes;
        self.counter("standin_broker_link_unsent_bytes_total", help, unsent);
        let help = "Messages from other nodes for which no client here had interest when they arrived.";
        let undelivered = totals.undelivered;
        self.counter("standin_broker_link_undelivered_total", help, undelivered);
        let help = "Messages from other nodes (in) and to other nodes (out).";
        let messages = [totals.messages_in, totals.messages_out];
        self.counter_by_direction("standin_broker_link_messages_total", help, messages);
        let help = "Bytes of payloads and headers from other nodes (in) and to other nodes (out).";
        let bytes = [totals.bytes_in, totals.bytes_out];
        self.counter_by_direction("standin_broker_link_bytes_total", help, bytes);
    }

    fn set_process(&self, shared: &Shared) {
        let help = "Time at which the certificate of a door expires, in seconds since 1970.";
        for (door, expires_at) in &shared.policy.load().certificates {
            let gauge = self.0.gauge(
                "standin_broker_certificate_expires_seconds",
                help,
                &[("door", door)],
            );
            gauge.set(*expires_at as f64);
        }
        let help = "Always 1; the label is the version.";
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        let info = self.0.gauge("standin_broker_build_info", help, &version);
        info.set(1.0);
        let help = "1 while the node accepts clients; 0 while it starts.";
        let serving = shared.serving.load(Relaxed);
        self.gauge("standin_broker_serving", help, f64::from(serving));
        let help = "1 in lame duck mode, else 0.";
        let lame_duck = shared.advertised().lame_duck;
        self.gauge("standin_broker_lame_duck", help, f64::from(lame_duck));
        let help = "1 if the last reload of the settings succeeded or there was none, else 0.";
        let is_reloaded = !shared.reload_failed.load(Relaxed);
        self.gauge(
            "standin_broker_settings_reload_successful",
            help,
            f64::from(is_reloaded),
        );
    }
}
