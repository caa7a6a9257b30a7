//! A sidecar in the process of the test, and one scripted node behind it.
//!
//! One scripted node is enough for any number of failovers: each connection that it accepts plays the next node. The sidecar sends
//! no PING of its own except the one after CONNECT, unless a test sets otherwise, so a test knows every byte that a node gets.

use e2e::http::Endpoint;
use e2e::raw::CONNECT_OLD;
use e2e::{Ending, Metrics, NodeConnection, RawClient, ScriptedNode, TIMEOUT, eventually, settled};
use standin_proxy::{Settings, Sidecar};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::Location;

/// Settings that keep the sidecar from sending what a test does not expect. A test may override them.
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

/// A sidecar and its node.
pub(crate) struct Scene {
    pub(crate) node: ScriptedNode,
    /// Address to which components connect.
    pub(crate) address: SocketAddr,
    http: Endpoint,
    /// Kept because dropping it stops the sidecar from listening.
    _sidecar: Sidecar,
}

impl Scene {
    /// Starts a sidecar without further settings.
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Starts a sidecar with these settings: keys as in `deploy/proxy.toml`, values in TOML.
    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        Self::around(ScriptedNode::start().await, settings).await
    }

    /// Starts a sidecar in front of this node.
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

    /// Opens a session with the CONNECT of an old component. Returns the component, and the node's connection.
    pub(crate) async fn open(&mut self) -> (RawClient, NodeConnection) {
        self.open_with(CONNECT_OLD).await
    }

    /// Opens a session with this CONNECT and a PING. Returns the component after its PONG, and the node's connection.
    pub(crate) async fn open_with(&mut self, connect: &str) -> (RawClient, NodeConnection) {
        let serving = async {
            let (mut node, _) = self.node.accept_session().await;
            node.answer_ping().await;
            node
        };
        let (mut client, node) = tokio::join!(RawClient::open_with(self.address, connect), serving);
        client.answer_pings();
        (client, node)
    }

    /// Accepts the session on the next node: expects CONNECT, exactly the commands `replayed`, and PING, and answers them.
    pub(crate) async fn next_node(&mut self, replayed: impl AsRef<[u8]>) -> NodeConnection {
        let mut node = self.joining_node(replayed).await;
        node.pong().await;
        node
    }

    /// Resets this node's connection, and accepts the session on the next node as [`next_node`](Self::next_node) does.
    pub(crate) async fn node_after(
        &mut self,
        dead: NodeConnection,
        replayed: impl AsRef<[u8]>,
    ) -> NodeConnection {
        dead.reset();
        self.next_node(replayed).await
    }

    /// Does the same as [`next_node`](Self::next_node), but does not answer the PING.
    pub(crate) async fn joining_node(&mut self, replayed: impl AsRef<[u8]>) -> NodeConnection {
        let mut node = self.node.accept().await;
        let connect = node.read_frame().await;
        assert_eq!(connect.verb(), "CONNECT", "{connect:?}");
        node.expect(replayed.as_ref()).await;
        node.expect_line("PING").await;
        // A server is verbose by default.
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

    /// Reads the metrics.
    pub(crate) async fn metrics(&self) -> Metrics {
        Metrics::read(&self.http).await
    }

    /// Waits until the sidecar has read this many bytes from components since `before`, and has written or buffered them.
    pub(crate) async fn until_taken(&self, before: &Metrics, bytes: usize) {
        let written = |metrics: &Metrics| metrics.value("standin_bytes_total{direction=to_node}");
        eventually(
            format!("the sidecar has taken {bytes} bytes"),
            TIMEOUT,
            async || {
                let now = self.metrics().await;
                written(&now) - written(before) + now.value("standin_buffered_bytes") >= bytes as f64
            },
        )
        .await;
    }

    /// Returns the addresses of the nodes that the sidecar knows.
    pub(crate) async fn node_names(&self) -> Vec<String> {
        let page = self.http.get_json("/nodez").await.unwrap_or_default();
        let rows = page["items"].as_array().cloned().unwrap_or_default();
        rows.iter()
            .filter_map(|row| row["client"].as_str().map(str::to_owned))
            .collect()
    }

    /// Waits until the metric has this value.
    #[track_caller]
    pub(crate) fn counted(&self, series: &str, wanted: f64) -> impl Future<Output = ()> {
        let at = Location::caller();
        async move {
            let what = format!("{series} becomes {wanted}");
            settled(at, &what, TIMEOUT, async || {
                let value = self.metrics().await.value(series);
                let is_wanted = (value - wanted).abs() < f64::EPSILON;
                is_wanted.then_some(()).ok_or(format!("it is {value}"))
            })
            .await;
        }
    }
}

/// Starts a sidecar with these settings, and opens a session of an old component. Returns the sidecar and both ends
/// of the session.
pub(crate) async fn session(settings: &[(&str, &str)]) -> (Scene, RawClient, NodeConnection) {
    session_with(CONNECT_OLD, settings).await
}

/// Does the same as [`session`] with a component that sends this CONNECT.
pub(crate) async fn session_with(
    connect: &str,
    settings: &[(&str, &str)],
) -> (Scene, RawClient, NodeConnection) {
    let mut scene = Scene::with(settings).await;
    let (client, node) = scene.open_with(connect).await;
    (scene, client, node)
}

/// Ends a node's connection in this way.
pub(crate) async fn die(node: NodeConnection, ending: Ending) {
    match ending {
        Ending::Closed => node.close().await,
        Ending::Reset => node.reset(),
    }
}

/// Checks that nothing else is on its way: a PING of the component is the next frame at the node, and its PONG the next one at the
/// component.
pub(crate) async fn nothing_else(client: &mut RawClient, node: &mut NodeConnection) {
    client.send("PING\r\n").await;
    node.answer_ping().await;
    client.expect_line("PONG").await;
}

/// Sends `bytes` from the component, and expects them unchanged at the node.
pub(crate) async fn pass(client: &mut RawClient, node: &mut NodeConnection, bytes: impl AsRef<[u8]>) {
    client.send(&bytes).await;
    node.expect(&bytes).await;
}
