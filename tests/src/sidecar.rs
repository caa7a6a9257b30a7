//! The sidecar as its users run it: a process with a settings file, signals, a log and HTTP pages.

use crate::condition::{eventually, found};
use crate::http::Endpoint;
use crate::netns::{Netns, connect_inside};
use crate::node::Node;
use crate::peers;
use crate::port::free_port;
use crate::process::{Process, Program};
use crate::zookeeper::{ZooKeeper, write};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const START_TIMEOUT: Duration = Duration::from_secs(15);

/// Settings of a sidecar that is not started yet.
#[derive(Debug)]
pub struct SidecarBuilder {
    settings: BTreeMap<String, Value>,
    /// The `[[listener]]` tables.
    listeners: String,
    netns: Option<String>,
    folder: TempDir,
    address: SocketAddr,
    http: SocketAddr,
}

impl SidecarBuilder {
    /// Sets a key of the settings file, such as `publish.in_doubt`.
    #[must_use]
    pub fn setting(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.settings.insert(key.to_owned(), value.into());
        self
    }

    /// Listens as these `[[listener]]` tables say. In the tables, `ADDRESS` stands for the [`address`](Sidecar::address) of the
    /// sidecar, and `FOLDER` for its [`folder`](Sidecar::folder). One of the tables must listen on `ADDRESS`.
    #[must_use]
    pub fn listeners(mut self, tables: &str) -> Self {
        self.settings.remove("listen");
        let folder = self.folder.path().display().to_string();
        self.listeners = tables
            .replace("ADDRESS", &self.address.to_string())
            .replace("FOLDER", &folder);
        self
    }

    /// Finds nodes in this ZooKeeper.
    #[must_use]
    pub fn zookeeper(self, zookeeper: &ZooKeeper) -> Self {
        self.setting("nodes.zookeeper", zookeeper.hosts())
    }

    /// Finds nodes at these fixed addresses.
    #[must_use]
    pub fn upstream(self, urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let urls: Vec<String> = urls.into_iter().map(Into::into).collect();
        self.setting("nodes.upstream", urls)
    }

    /// Finds these nodes at their fixed addresses.
    #[must_use]
    pub fn nodes(self, nodes: &[Node]) -> Self {
        self.upstream(nodes.iter().map(Node::url))
    }

    /// Keeps the list of nodes in a cache file, which survives [`Sidecar::restart`].
    #[must_use]
    pub fn cached(self) -> Self {
        let file = self.cache_file().display().to_string();
        self.setting("nodes.cache_file", file)
    }

    /// Runs the sidecar in this network namespace. Components must connect from the same namespace.
    #[must_use]
    pub fn inside(mut self, netns: &Netns) -> Self {
        self.netns = Some(netns.name().to_owned());
        self
    }

    /// Returns the address of the HTTP pages.
    pub fn http_address(&self) -> SocketAddr {
        self.http
    }

    /// Returns the path of the cache file that [`cached`](Self::cached) sets.
    pub fn cache_file(&self) -> PathBuf {
        self.folder.path().join("nodes.json")
    }

    /// Starts the sidecar and waits until it listens and knows a node.
    pub async fn start(self) -> Sidecar {
        let mut sidecar = self.start_listening().await;
        sidecar.wait_until_ready().await;
        sidecar
    }

    /// Starts the sidecar and waits until it listens. It need not know a node yet.
    pub async fn start_listening(self) -> Sidecar {
        let program = Program::new(peers::sidecar_binary())
            .arg("--config")
            .arg(settings_path(&self.folder))
            .inside_named(self.netns.as_deref());
        let mut sidecar = Sidecar {
            builder: self,
            program,
            process: None,
        };
        sidecar.launch().await;
        sidecar
    }
}

/// A running sidecar.
#[derive(Debug)]
pub struct Sidecar {
    builder: SidecarBuilder,
    program: Program,
    process: Option<Process>,
}

impl Sidecar {
    /// Returns a builder with free ports and without a source of nodes.
    pub fn builder() -> SidecarBuilder {
        let folder =
            TempDir::new().unwrap_or_else(|error| panic!("cannot make a folder for the sidecar: {error}"));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let builder = SidecarBuilder {
            settings: BTreeMap::new(),
            listeners: String::new(),
            netns: None,
            folder,
            address,
            http,
        };
        builder
            .setting("listen", vec![address.to_string()])
            .setting("http.listen", http.to_string())
            .setting("log.level", "debug")
    }

    /// Returns the address to which components connect.
    pub fn address(&self) -> SocketAddr {
        self.builder.address
    }

    /// Returns the [`address`](Self::address) as `nats://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("nats://{}", self.builder.address)
    }

    /// Returns the address of the sidecar's HTTP pages.
    pub fn http(&self) -> Endpoint {
        Endpoint {
            address: self.builder.http,
            netns: self.builder.netns.clone(),
        }
    }

    /// Returns the folder with the sidecar's settings file and cache file.
    pub fn folder(&self) -> &Path {
        self.builder.folder.path()
    }

    /// Returns the path of the cache file that [`SidecarBuilder::cached`] sets.
    pub fn cache_file(&self) -> PathBuf {
        self.builder.cache_file()
    }

    /// Returns the process, to read its log, CPU time and memory, and to send signals. Fails the test after [`kill`](Self::kill).
    pub fn process(&mut self) -> &mut Process {
        self.process
            .as_mut()
            .unwrap_or_else(|| panic!("the sidecar is not running"))
    }

    /// Waits until components can connect and a node is known.
    pub async fn wait_until_ready(&mut self) {
        let http = self.http();
        eventually("the sidecar is ready", START_TIMEOUT, async || {
            self.must_run();
            http.get_json("/readyz")
                .await
                .is_some_and(|page| page["ready"] == true && page["nodes"] != 0)
        })
        .await;
    }

    /// Changes one setting in the settings file and sends SIGHUP. Does not wait for the reload.
    pub fn reload_with(&mut self, key: &str, value: impl Into<Value>) {
        self.builder.settings.insert(key.to_owned(), value.into());
        self.write_settings();
        self.process().signal(Signal::SIGHUP);
    }

    /// Replaces `from` by `to` in the `[[listener]]` tables of the settings file and sends SIGHUP. Does not wait for the reload.
    pub fn reload_listeners(&mut self, from: &str, to: &str) {
        self.builder.listeners = self.builder.listeners.replace(from, to);
        self.write_settings();
        self.process().signal(Signal::SIGHUP);
    }

    /// Kills the process (SIGKILL).
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Kills the process, starts it again with the same settings and files, and waits until it listens.
    pub async fn restart(&mut self) {
        self.kill();
        self.launch().await;
    }

    /// Reads `/metrics`.
    pub async fn metrics(&self) -> Metrics {
        Metrics::read(&self.http()).await
    }

    /// Returns the sum of all series of `/metrics` with this name.
    pub async fn metric(&self, name: &str) -> f64 {
        self.metrics().await.value(name)
    }

    /// Reads `/sessionz`.
    pub async fn sessions(&self) -> Value {
        self.page("/sessionz").await
    }

    /// Reads `/nodez`.
    pub async fn nodes(&self) -> Value {
        self.page("/nodez").await
    }

    /// Returns the rows of `/sessionz`, one for each connected component.
    pub async fn session_rows(&self) -> Vec<Value> {
        self.sessions().await["items"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    }

    /// Returns the rows of `/nodez`.
    pub async fn node_rows(&self) -> Vec<Value> {
        self.nodes().await["items"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    }

    /// Returns the address of each session's node, in the order of `/sessionz`. The address is `None` while the session has no
    /// node. It is also `None` until the node has acked the replayed subscriptions, because the session can miss messages
    /// before that.
    pub async fn session_nodes(&self) -> Vec<Option<SocketAddr>> {
        let nodes = self.node_rows().await;
        let address = |row: &Value| {
            if row["state"] == "joining" {
                return None;
            }
            let id = row["node"].as_str()?;
            let node = nodes.iter().find(|node| node["id"] == id);
            node.and_then(|node| node["client"].as_str())
                .unwrap_or(id)
                .parse()
                .ok()
        };
        self.session_rows().await.iter().map(address).collect()
    }

    /// Returns the node address of the only session, as [`session_nodes`](Self::session_nodes) does; `None` without a session.
    /// Fails the test if there are several sessions.
    pub async fn node_of_session(&self) -> Option<SocketAddr> {
        let nodes = self.session_nodes().await;
        assert!(nodes.len() <= 1, "one session expected, got {nodes:?}");
        *nodes.first()?
    }

    /// Waits until the only session has a node, and returns the address of that node.
    pub async fn wait_for_node_of_session(&self) -> SocketAddr {
        found("the session has a node", START_TIMEOUT, async || {
            self.node_of_session().await
        })
        .await
    }

    async fn page(&self, path: &str) -> Value {
        self.http()
            .get_json(path)
            .await
            .unwrap_or_else(|| panic!("the sidecar does not serve {path}"))
    }

    async fn launch(&mut self) {
        self.write_settings();
        self.process = Some(self.program.start(format!("sidecar {}", self.builder.address)));
        let (address, netns) = (self.builder.address, self.builder.netns.clone());
        eventually(
            format!("the sidecar listens on {address}"),
            START_TIMEOUT,
            async || {
                self.must_run();
                connect_inside(netns.as_deref(), address).await.is_ok()
            },
        )
        .await;
    }

    fn must_run(&mut self) {
        if !self.process().is_running() {
            let process = self.process();
            panic!("the sidecar exited unexpectedly:\n{}", process.tail());
        }
    }

    fn write_settings(&self) {
        let mut text = String::new();
        for (key, value) in &self.builder.settings {
            // Strings, numbers, booleans and flat lists have the same syntax in JSON and TOML.
            let _ = writeln!(text, "{key} = {value}");
        }
        text += &self.builder.listeners;
        write(&settings_path(&self.builder.folder), &text);
    }
}

fn settings_path(folder: &TempDir) -> PathBuf {
    folder.path().join("proxy.toml")
}

/// The text of one scrape of `/metrics`.
#[derive(Clone, Debug)]
pub struct Metrics {
    text: String,
}

impl Metrics {
    /// Reads `/metrics` from the HTTP listener `http`.
    pub async fn read(http: &Endpoint) -> Self {
        let page = http.get("/metrics").await;
        let Some((200, text)) = page else {
            panic!("the sidecar does not serve /metrics: {page:?}")
        };
        Self { text }
    }

    /// Returns the sum of all series with the name and label of `wanted`, which is `name` or `name{label=value}`. Other labels
    /// are ignored. Returns 0 if there is no such series.
    pub fn value(&self, wanted: &str) -> f64 {
        let (name, label) = wanted
            .trim_end_matches('}')
            .split_once('{')
            .unwrap_or((wanted, ""));
        let label = label
            .split_once('=')
            .map(|(key, value)| format!("{key}=\"{value}\""));
        let series = self
            .text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let (series, value) = line.rsplit_once(' ')?;
                let (found, found_labels) = series.split_once('{').unwrap_or((series, ""));
                let has_label = label.as_ref().is_none_or(|label| found_labels.contains(label));
                value.parse::<f64>().ok().filter(|_| found == name && has_label)
            });
        series.sum()
    }

    /// Returns the whole page.
    pub fn text(&self) -> &str {
        &self.text
    }
}
