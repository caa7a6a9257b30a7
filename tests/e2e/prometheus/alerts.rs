//! The alert rules in `deploy/alerts.yml`. `promtool` tests each of them with made-up series (`tests/alerts.yml`). If a fault can be caused
//! within seconds, it is also caused, and its alert must fire on a real Prometheus, with all durations in the rules shortened.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use e2e::raw::CONNECT_OLD;
use e2e::zookeeper::NODES_PATH;
use e2e::{Publishing, RawClient, TIMEOUT, eventually, promtool};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use super::dashboard;
use super::metric::{deployed, documented, named_in};
use super::site::{CONNECT_ANN, Site};

#[test]
fn each_alert_is_complete_and_tested_and_names_only_metrics_of_the_table() {
    let here = env!("CARGO_MANIFEST_DIR");
    check_settings("metrics.md", &[]);
    // The files that it names do not exist here.
    check_settings("cluster.md", &["--syntax-only"]);
    promtool(&["test", "rules", &format!("{here}/alerts.yml")], "");
    let rules = deployed("alerts.yml");
    let tests = std::fs::read_to_string(format!("{here}/alerts.yml")).expect("the tests of the alerts");
    let alerts: Vec<&str> = rules.split("- alert: ").skip(1).collect();
    assert!(alerts.len() > 25);
    for alert in alerts {
        let name = alert.lines().next().unwrap_or_default();
        for part in ["severity: ", "summary: ", "description: "] {
            assert!(alert.contains(part), "{name} has no {part}");
        }
        assert!(tests.contains(&format!("- name: {name}\n")), "{name} has no test");
    }
    let table = documented();
    let names = named_in(&rules);
    let unknown: Vec<_> = names.iter().filter(|name| !table.contains_key(*name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

/// Checks the settings of Prometheus in a document, with the alert rules beside them.
fn check_settings(document: &str, flags: &[&str]) {
    let text = deployed(document);
    let block = text.split("```yaml\n# prometheus.yml\n").nth(1);
    let settings = block.and_then(|block| block.split("```").next());
    let settings = settings.unwrap_or_else(|| panic!("{document} has settings of Prometheus"));
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("prometheus.yml");
    std::fs::write(&path, settings).expect("the settings are written");
    std::fs::write(folder.path().join("alerts.yml"), deployed("alerts.yml")).expect("the rules are written");
    let path = path.display().to_string();
    promtool(&[&["check", "config"], flags, &[&path]].concat(), "");
}

/// Limit on the restarts of the sidecar after which the alert about a restart loop must have fired.
const RESTARTS_MAX: usize = 20;
/// The alerts that fire from the start, because of the sidecar's certificates.
const FROM_START: [&str; 2] = ["StandinCertificateExpired", "StandinCertificateExpiresSoon"];

#[tokio::test]
async fn alerts_fire_for_the_faults_that_they_name_and_not_during_a_rolling_restart() {
    let mut site = Site::start().await;
    let mut component = RawClient::open(site.sidecar.address())
        .await
        .subscribed("news")
        .await;
    site.fire_alone(&FROM_START).await;
    for dashboard in ["proxy-grafana.json", "broker-grafana.json"] {
        dashboard::works_on(&site.prometheus, dashboard).await;
    }
    let publisher = RawClient::open(site.sidecar.address()).await;
    let publishing = Publishing::start(publisher, "load", "load", Duration::from_millis(2));
    for index in 0..site.mesh.nodes.len() {
        site.mesh.nodes[index].stop(TIMEOUT).await;
        site.mesh.restart(index).await;
    }
    publishing.stop().await;
    component.publish("news", "still here").await;
    component.expect_message("1", "news", "still here").await;
    site.fire_alone(&FROM_START).await;
    let expected = BTreeSet::from(FROM_START.map(str::to_owned));
    assert_eq!(site.have_fired().await, expected, "by the rules as they are");

    faults_of_clients(&mut site).await;
    faults_of_a_program(&mut site).await;
    faults_of_a_node(&mut site).await;
    faults_of_components(&site).await;
    an_outage(&mut site).await;
}

/// Clients of the broker with narrow limits: slow ones, ones that do not log in, too many.
async fn faults_of_clients(site: &mut Site) {
    let address = site.lone.address();
    let mut slow = RawClient::open_with(address, CONNECT_ANN).await;
    slow.subscribe("a", "1").await;
    slow.flush().await;
    let mut publisher = RawClient::open_with(address, CONNECT_ANN).await;
    let flood = format!("PUB a 65536\r\n{}\r\n", "x".repeat(65_536)).repeat(8);
    site.fires_while("StandinSlowConsumers", async || publisher.send(&flood).await)
        .await;
    drop((slow, publisher));
    let mut silent = Vec::new();
    let connect = async || silent.push(TcpStream::connect(address).await);
    site.fires_while("StandinHalfOpenFlood", connect).await;
    drop(silent);
    let log_in = async || {
        let mut client = RawClient::connect(address).await;
        client.send(CONNECT_ANN.replace("secret", "wrong") + "\r\n").await;
        client.read_to_end().await;
    };
    site.fires_while("StandinLoginsRefused", log_in).await;
    eventually("all clients have left", TIMEOUT, async || {
        site.lone.varz("connections").await == Some(0)
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(RawClient::open_with(address, CONNECT_ANN).await);
    }
    site.fires("StandinConnectionsNearLimit").await;
    let connect = async || drop(TcpStream::connect(address).await);
    site.fires_while("StandinConnectionsRefused", connect).await;
}

/// Faults of the program itself: settings that cannot be used, too few open files.
async fn faults_of_a_program(site: &mut Site) {
    std::fs::write(site.lone_settings(), "accounts {").expect("the settings are written");
    site.lone.process().signal(Signal::SIGHUP);
    site.fires("StandinReloadFailed").await;
    let files_max = site.lone.figures().open_files + 4;
    let limit = format!("--nofile={files_max}:{files_max}");
    let pid = site.lone.process().pid().to_string();
    let status = Command::new("prlimit").args(["--pid", &pid, &limit]).status();
    assert!(status.is_ok_and(|status| status.success()), "prlimit");
    site.fires("StandinOpenFilesNearLimit").await;
}

/// A node in lame duck mode does not end. It is started again, cannot register, and cannot link to a registered node that is silent.
async fn faults_of_a_node(site: &mut Site) {
    site.registrar
        .put_ephemeral(&format!("{NODES_PATH}/unreadable"), "no record")
        .await;
    let _stays = site.mesh.nodes[2].client().await;
    site.mesh.nodes[2].enter_lame_duck();
    site.fires("StandinNodeRecordsUnreadable").await;
    site.fires("StandinLameDuckHangs").await;
    site.mesh.nodes[2].kill();
    // A record of that name which stays; the node's own one would vanish with its session.
    site.registrar.withdraw("n3").await;
    site.registrar
        .put(&format!("{NODES_PATH}/n3"), "not the node's own record")
        .await;
    // The kernel accepts connections to this socket, and nobody answers on them.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let silent = silent.local_addr().map(|at| at.to_string()).expect("an address");
    let record = serde_json::json!({
        "v": 1, "id": "silent", "run": "1", "client": "127.0.0.1:1", "mesh": silent, "http": null,
        "tls": false, "zone": "", "weight": 1, "state": "up", "version": "0",
    });
    let path = format!("{NODES_PATH}/silent");
    site.registrar.put_ephemeral(&path, &record.to_string()).await;
    site.mesh.nodes[2].launch();
    site.fires("StandinNotServing").await;
    site.fires("StandinRoutesMissing").await;
    site.fires("StandinNotRegistered").await;
    site.registrar.withdraw("silent").await;
}

/// A component that does not read.
async fn faults_of_components(site: &Site) {
    let _slow = RawClient::open(site.sidecar.address())
        .await
        .subscribed("flood")
        .await;
    let mut publisher = site.mesh.nodes[0].client().await;
    let flood = format!("PUB flood 65536\r\n{}\r\n", "x".repeat(65_536)).repeat(16);
    site.fires_while("StandinComponentsSlow", async || publisher.send(&flood).await)
        .await;
}

/// One node is killed, then all, and ZooKeeper; at the end the sidecar is restarted again and again.
async fn an_outage(site: &mut Site) {
    site.mesh.nodes[0].kill();
    site.fires("StandinTargetDown").await;
    site.fires("StandinNodeUnreachable").await;
    let mut component = RawClient::open_with(site.sidecar.address(), CONNECT_OLD).await;
    site.mesh.nodes[1].kill();
    site.mesh.nodes[2].kill();
    site.zookeeper.kill();
    for _ in 0..60 {
        component.publish("news", "x".repeat(1000)).await;
    }
    site.fires("StandinBufferNearlyFull").await;
    site.fires("StandinNoNode").await;
    site.fires("StandinComponentsCutOff").await;
    site.fires("StandinMessagesLost").await;
    site.fires("StandinZooKeeperLost").await;
    for _ in 0..RESTARTS_MAX {
        let before = started_at(site).await;
        site.sidecar.restart().await;
        eventually("Prometheus has seen the restart", TIMEOUT, async || {
            let now = started_at(site).await;
            now.is_some() && now != before
        })
        .await;
        if site.fired_lately().await.contains("StandinRestartLoop") {
            return;
        }
    }
    panic!("StandinRestartLoop does not fire");
}

/// Returns when the sidecar was started, as Prometheus has seen it.
async fn started_at(site: &Site) -> Option<String> {
    let started = "process_start_time_seconds{job=\"standin-proxy\"}";
    let series = site.prometheus.query(started).await.ok()?;
    Some(series.first()?["value"][1].as_str()?.to_owned())
}
