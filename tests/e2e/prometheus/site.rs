//! A site with everything that Prometheus can watch: three brokers that find each other in ZooKeeper, a broker with users and narrow
//! limits, a sidecar with certificates that expire, and a Prometheus with the alert rules.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::panic::Location;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use e2e::sidecar::SidecarBuilder;
use e2e::{Authority, Mesh, Node, Prometheus, Registrar, ServerKind, Sidecar, ZooKeeper, settled};
use rcgen::{CertificateParams, date_time_ymd};

use super::metric::deployed;

/// Time for an alert to fire.
const TIMEOUT: Duration = Duration::from_secs(40);
/// Divisor of the durations in the rules.
const SPEED: u64 = 150;
/// The CONNECT of the user of [`broker_of_users`].
pub(super) const CONNECT_ANN: &str = r#"CONNECT {"verbose":false,"user":"ann","pass":"secret"}"#;

/// A site that Prometheus watches.
pub(super) struct Site {
    pub(super) prometheus: Prometheus,
    pub(super) zookeeper: ZooKeeper,
    pub(super) registrar: Registrar,
    pub(super) mesh: Mesh,
    /// The broker with users and narrow limits. It is in no cluster.
    pub(super) lone: Node,
    lone_files: Authority,
    pub(super) sidecar: Sidecar,
    _sidecar_files: Authority,
}

impl Site {
    /// Starts everything.
    pub(super) async fn start() -> Self {
        let zookeeper = ZooKeeper::start().await;
        let mesh = Mesh::builder(ServerKind::Standin, 3)
            .setting("process.lame_duck_grace_secs", 10)
            .setting("cluster.sync_timeout_ms", 2000)
            .zookeeper(zookeeper.hosts());
        let (mut mesh, (lone, lone_files)) = (mesh.describe(), broker_of_users().await);
        let (builder, sidecar_files) = sidecar_with_certificates();
        let sidecar = builder
            .zookeeper(&zookeeper)
            .upstream([mesh.nodes[0].url()])
            .setting("health.idle_probe_interval_ms", 1000)
            .setting("session.outage_secs", 4)
            .setting("session.buffer_bytes", 65_536)
            .setting("session.component_pending_bytes_max", 65_536)
            .setting("session.component_stall_secs", 1);
        let mut brokers: Vec<SocketAddr> = mesh.nodes.iter().map(|node| node.http().address).collect();
        brokers.push(lone.http().address);
        let rules = deployed("alerts.yml");
        let jobs: [(&str, &[SocketAddr]); 2] = [
            ("standin-broker", &brokers),
            ("standin-proxy", &[sidecar.http_address()]),
        ];
        // It is started before the programs, because its first scrape comes five seconds after its start.
        let prometheus = Prometheus::start(&jobs, &[&rules, &fast(&rules)]).await;
        mesh.start_all().await;
        let sidecar = sidecar.start().await;
        let registrar = zookeeper.registrar().await;
        Self {
            prometheus,
            zookeeper,
            registrar,
            mesh,
            lone,
            lone_files,
            sidecar,
            _sidecar_files: sidecar_files,
        }
    }

    /// Returns the settings file of the lone broker.
    pub(super) fn lone_settings(&self) -> PathBuf {
        settings_in(&self.lone_files)
    }

    /// Returns the alerts that fired by the fast rules in the last seconds. (Some faults end by themselves, and their alerts with them.)
    pub(super) async fn fired_lately(&self) -> BTreeSet<String> {
        let fired = "max_over_time(ALERTS{alertstate=\"firing\",pace=\"fast\"}[8s])";
        self.prometheus.labels(fired, "alertname").await
    }

    /// Returns the alerts that have fired by the rules as they are.
    pub(super) async fn have_fired(&self) -> BTreeSet<String> {
        let fired = "max_over_time(ALERTS{alertstate=\"firing\",pace=\"\"}[10m])";
        self.prometheus.labels(fired, "alertname").await
    }

    /// Waits until these alerts fire by the fast rules, and no other.
    pub(super) async fn fire_alone(&self, alerts: &[&str]) {
        let alerts = alerts.iter().map(|alert| (*alert).to_owned()).collect();
        settled(Location::caller(), "only some alerts fire", TIMEOUT, async || {
            let firing = "ALERTS{alertstate=\"firing\",pace=\"fast\"}";
            let firing = self.prometheus.labels(firing, "alertname").await;
            let as_expected = (firing == alerts).then_some(());
            as_expected.ok_or_else(|| format!("{firing:?}, not {alerts:?}"))
        })
        .await;
    }

    /// Waits until an alert fires by the fast rules.
    pub(super) async fn fires(&self, alert: &str) {
        self.fires_while(alert, async || ()).await;
    }

    /// Does something again and again until an alert fires by the fast rules.
    pub(super) async fn fires_while(&self, alert: &str, mut act: impl AsyncFnMut()) {
        let what = format!("{alert} fires");
        settled(Location::caller(), &what, TIMEOUT, async || {
            act().await;
            let fired = self.fired_lately().await;
            let has_fired = fired.contains(alert).then_some(());
            has_fired.ok_or_else(|| format!("{fired:?}"))
        })
        .await;
    }
}

/// Starts a broker that has a user in an account, a certificate and room for four clients. Its files are in the folder of the authority.
pub(super) async fn broker_of_users() -> (Node, Authority) {
    let files = Authority::new();
    let users = "accounts { shop { users = [ { user: ann, password: secret } ] } }\n";
    std::fs::write(settings_in(&files), users).expect("the settings are written");
    let (cert, key) = files.certify("broker", &["127.0.0.1"]);
    let settings = settings_in(&files).display().to_string();
    let environment = [
        ("STANDIN_TLS_CLIENT_MODE", "optional"),
        ("STANDIN_TLS_CLIENT_CERT_FILE", &cert),
        ("STANDIN_TLS_CLIENT_KEY_FILE", &key),
        ("STANDIN_LIMITS_MAX_CONNECTIONS", "4"),
        ("STANDIN_LIMITS_MAX_HALF_OPEN", "2"),
        ("STANDIN_LIMITS_MAX_PENDING", "1048576"),
    ];
    let node = Node::start_in(ServerKind::Standin, &["-c", &settings], &environment).await;
    (node, files)
}

fn settings_in(files: &Authority) -> PathBuf {
    files.folder().join("nats.conf")
}

/// Returns a sidecar with a certificate for components that expires in five days, and one for nodes that has expired. Its files are in
/// the folder of the authority.
pub(super) fn sidecar_with_certificates() -> (SidecarBuilder, Authority) {
    let files = Authority::new();
    let end = SystemTime::now() + Duration::from_secs(5 * 24 * 3600);
    let soon = |params: &mut CertificateParams| params.not_after = end.into();
    let (cert, key) = files.certify_with("soon", &["127.0.0.1"], soon);
    let past = |params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 1, 1);
    let (old_cert, old_key) = files.certify_with("past", &["127.0.0.1"], past);
    let builder = Sidecar::builder()
        .setting("tls.component.mode", "optional")
        .setting("tls.component.cert_file", cert)
        .setting("tls.component.key_file", key)
        .setting("tls.node.cert_file", old_cert)
        .setting("tls.node.key_file", old_key);
    (builder, files)
}

/// Returns the rules with all durations divided by [`SPEED`], and with the label `pace` on each alert.
fn fast(rules: &str) -> String {
    let fast_line = |line: &str| {
        if let Some((indent, duration)) = line.split_once("for: ")
            && indent.trim().is_empty()
        {
            return format!("{indent}for: {}", shortened(duration));
        }
        let mut parts = line.split('[');
        let mut text = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            // A window, such as `5m]`, or other text in brackets.
            let window = part
                .split_once(']')
                .filter(|_| part.starts_with(|first: char| first.is_ascii_digit()));
            text += &window.map_or_else(
                || format!("[{part}"),
                |(window, rest)| format!("[{}]{rest}", shortened(window)),
            );
        }
        text.replace("labels: { severity:", "labels: { pace: fast, severity:")
    };
    let lines = rules.lines().map(fast_line);
    lines.map(|line| line + "\n").collect()
}

/// Returns a duration such as `5m`, divided by [`SPEED`].
fn shortened(duration: &str) -> String {
    let (number, unit) = duration.split_at(duration.len() - 1);
    let number: u64 = number.parse().unwrap_or_else(|_| panic!("{duration}"));
    let ms = match unit {
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => panic!("{duration}"),
    };
    format!("{}ms", number * ms / SPEED)
}
