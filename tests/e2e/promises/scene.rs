//! The scene of a test: a sidecar inside the test's own process, and one scripted node behind it.
//!
//! One node is enough for any number of failovers: each connection it takes is a node of its own, born when the last one
//! died. The sidecar is quiet: it puts no PING of its own into the stream except the one behind CONNECT, unless the test
//! asks for more, so that every byte that a node gets can be told in advance.

use e2e::http::Endpoint;
use e2e::raw::CONNECT_OLD;
use e2e::{Ending, Metrics, NodeConnection, PATIENCE, RawClient, ScriptedNode, eventually};
use standin_proxy::{Settings, Sidecar};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Settings without which the sidecar would speak when the test does not expect it; a test may set them again.
const QUIET: &[(&str, &str)] = &[
    ("listen", "['127.0.0.1:0']"),
    ("http.listen", "'127.0.0.1:0'"),
    ("nodes.gossip", "false"),
    ("choice.cooldown_base_ms", "1"),
    ("choice.cooldown_max_ms", "5"),
    ("health.probe_interval_ms", "600000"),
    ("health.idle_probe_interval_ms", "3600000"),
    ("publish.confirm_bytes", "1073741824"),
    ("publish.in_doubt_bytes_max", "1073741824"),
    ("publish.confirm_interval_ms", "60000"),
    ("session.settle_ms", "0"),
];

/// A sidecar and the node it knows.
pub(crate) struct Scene {
    pub(crate) node: ScriptedNode,
    /// Where components connect.
    pub(crate) address: SocketAddr,
    http: Endpoint,
    /// Dropped, it stops listening.
    _sidecar: Sidecar,
}

impl Scene {
    /// With nothing special.
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With these settings: keys as in `deploy/proxy.toml`, values in TOML.
    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        Self::around(ScriptedNode::start().await, settings).await
    }

    /// In front of this node.
    pub(crate) async fn around(node: ScriptedNode, settings: &[(&str, &str)]) -> Self {
        let upstream = format!("['{}']", node.url());
        let mut all: BTreeMap<&str, &str> = QUIET.iter().copied().collect();
        all.insert("nodes.upstream", &upstream);
        all.extend(settings.iter().copied());
        let text: String = all
            .iter()
            .map(|(key, value)| format!("{key} = {value}\n"))
            .collect();
        let settings = Settings::from_toml(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let sidecar = Sidecar::start(settings)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        let http = sidecar.http_address().expect("HTTP is on");
        Self {
            node,
            address: sidecar.addresses()[0],
            http: Endpoint {
                address: http,
                netns: None,
            },
            _sidecar: sidecar,
        }
    }

    /// A component that has said what old ones say, and its node's end of the session.
    pub(crate) async fn open(&mut self) -> (RawClient, NodeConnection) {
        self.open_with(CONNECT_OLD).await
    }

    /// A component that has said `connect` and PING and has its answers, and its node's end of the session.
    pub(crate) async fn open_with(&mut self, connect: &str) -> (RawClient, NodeConnection) {
        let serving = async {
            let (mut node, _) = self.node.accept_session().await;
            node.expect_line("PING").await;
            node.pong().await;
            node
        };
        let (mut client, node) = tokio::join!(RawClient::open_with(self.address, connect), serving);
        client.answer_pings();
        (client, node)
    }

    /// The next node takes the session over: CONNECT, exactly the commands `replayed`, PING; all are answered.
    pub(crate) async fn next_node(&mut self, replayed: impl AsRef<[u8]>) -> NodeConnection {
        let mut node = self.joining_node(replayed).await;
        node.pong().await;
        node
    }

    /// As [`next_node`](Self::next_node), but the PING, which was taken, is not answered yet.
    pub(crate) async fn joining_node(&mut self, replayed: impl AsRef<[u8]>) -> NodeConnection {
        let mut node = self.node.accept().await;
        let connect = node.read_frame().await;
        assert_eq!(connect.verb(), "CONNECT", "{connect:?}");
        node.expect(replayed.as_ref()).await;
        node.expect_line("PING").await;
        // A server is verbose until it is told otherwise.
        if connect.json()["verbose"] != false {
            let commands = replayed
                .as_ref()
                .windows(2)
                .filter(|pair| pair == b"\r\n")
                .count();
            node.send("+OK\r\n".repeat(1 + commands)).await;
        }
        node
    }

    /// The counters now.
    pub(crate) async fn metrics(&self) -> Metrics {
        Metrics::read(&self.http).await
    }

    /// The addresses of the nodes that the sidecar knows.
    pub(crate) async fn node_names(&self) -> Vec<String> {
        let page = self.http.get_json("/nodez").await.unwrap_or_default();
        let rows = page["items"].as_array().cloned().unwrap_or_default();
        rows.iter()
            .filter_map(|row| row["client"].as_str().map(str::to_owned))
            .collect()
    }

    /// Waits until the metric has this value.
    pub(crate) async fn counted(&self, name: &str, labels: &[(&str, &str)], wanted: f64) {
        let mut last = f64::NAN;
        let what = format!("{name}{labels:?} becomes {wanted}");
        eventually(what, PATIENCE, async || {
            last = self.metrics().await.value(name, labels);
            (last - wanted).abs() < f64::EPSILON
        })
        .await;
    }
}

/// The node dies in this way.
pub(crate) async fn die(node: NodeConnection, ending: Ending) {
    match ending {
        Ending::Closed => node.close().await,
        Ending::Reset => node.reset(),
    }
}

/// Both have had all that was theirs: a PING of the component is the next thing that the node gets, and its PONG the next
/// that the component gets.
pub(crate) async fn nothing_else(client: &mut RawClient, node: &mut NodeConnection) {
    client.send("PING\r\n").await;
    node.expect_line("PING").await;
    node.pong().await;
    client.expect_line("PONG").await;
}
