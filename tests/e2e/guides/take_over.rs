//! `deploy/take-over.md`: each recipe and its way back, with old clients that know only the old address.

use super::{TIMEOUT, machine, rows, sessions_become, start_nats_server};
use crate::site::is_served;
use e2e::{Component, Guide, Lan, Library, Machine, eventually};

const OLD: &str = "nats://10.0.0.1:4222";

/// Settings of a sidecar before a recipe begins.
fn settings(node: &str) -> String {
    format!(
        "mkdir -p /etc/standin\ncat >/etc/standin/proxy.toml <<'END'\n[nodes]\nupstream = [\"nats://{node}:4222\"]\n\
         [http]\nlisten = \"127.0.0.1:8223\"\nEND\nsystemctl restart standin-proxy"
    )
}

/// Connects an old client on this machine, which knows only `url`.
async fn client(machine: &Machine, library: Library, url: &str) -> Component {
    let mut component = Component::connect_on(machine, library, url).await;
    component.subscribe("own", "own");
    component.flush().await;
    component
}

/// Connects an old client, and checks that it is served. `sidecar` says whether the sidecar of its machine must have its session.
async fn is_served_by(machine: &Machine, url: &str, sidecar: bool) {
    let mut component = client(machine, Library::C, url).await;
    sessions_become(machine, usize::from(sidecar)).await;
    is_served(&mut component, "hello").await;
    component.close().await;
    sessions_become(machine, 0).await;
}

#[tokio::test]
async fn every_recipe_works_as_it_stands_and_so_does_its_way_back() {
    let mut guide = Guide::read("take-over.md");
    let lan = Lan::new(5);
    let here = machine(&lan, 0, "10.0.0.5", "").await;
    let old = machine(&lan, 1, "10.0.0.1", "").await;
    let node = machine(&lan, 2, "10.0.0.2", "").await;
    start_nats_server(&old, "10.0.0.1");
    start_nats_server(&node, "10.0.0.2");
    here.run(&settings("10.0.0.2"));

    the_address_on_loopback(&mut guide, &here).await;
    here.run(&settings("10.0.0.1"));
    a_redirect(&mut guide, &here).await;
    here.run(&settings("10.0.0.2"));
    an_entry_in_the_hosts_file(&mut guide, &here).await;

    let sidecars = [
        machine(&lan, 3, "10.0.0.11", "").await,
        machine(&lan, 4, "10.0.0.12", "").await,
    ];
    old.run("systemctl stop nats-server");
    a_load_balancer(&mut guide, &here, &old, &sidecars).await;
    guide.assert_all_taken();
}

async fn the_address_on_loopback(guide: &mut Guide, here: &Machine) {
    let section = "The address on loopback";
    let mut long = client(here, Library::Node08, OLD).await;
    let mark = long.process().mark();
    here.run(&guide.next(section));
    // A client that was connected to the old server reconnects, now to the sidecar.
    let reconnected = long.process().wait_for_line_after(mark, "reconnected", TIMEOUT);
    reconnected.await;
    sessions_become(here, 1).await;
    long.publish("own", "moved");
    long.expect_payloads("own", &["moved"]).await;
    let look = here.run(&guide.next(section));
    assert!(
        look.contains("10.0.0.1:4222") && look.contains("\"total\":1"),
        "{look}"
    );
    let mark = long.process().mark();
    here.run(&guide.next(section));
    let reconnected = long.process().wait_for_line_after(mark, "reconnected", TIMEOUT);
    reconnected.await;
    assert!(rows(here, "/sessionz").is_empty());
    long.publish("own", "back");
    long.expect_payloads("own", &["moved", "back"]).await;
}

/// The sidecar's only node is the old server itself, so the sidecar's own connections must not be redirected.
async fn a_redirect(guide: &mut Guide, here: &Machine) {
    let section = "A redirect";
    here.run(&guide.next(section));
    is_served_by(here, OLD, true).await;
    here.run(&guide.next(section));
    // What systemd does at a start of the machine.
    here.run("nft flush ruleset\nsystemctl restart nftables");
    let mut long = client(here, Library::Node08, OLD).await;
    let mark = long.process().mark();
    sessions_become(here, 1).await;
    let look = here.run(&guide.next(section));
    assert!(
        look.contains("dnat to 127.0.0.1:4222") && look.contains("\"total\":1"),
        "{look}"
    );
    here.run(&guide.next(section));
    let reconnected = long.process().wait_for_line_after(mark, "reconnected", TIMEOUT);
    reconnected.await;
    sessions_become(here, 0).await;
    is_served_by(here, OLD, false).await;
    here.run("if nft list table ip standin_take_over || grep standin /etc/nftables.conf; then exit 1; fi");
}

async fn an_entry_in_the_hosts_file(guide: &mut Guide, here: &Machine) {
    let section = "An entry in the hosts file";
    let name = "nats://nats.example.org:4222";
    here.run("echo '10.0.0.1 nats.example.org' >>/etc/hosts");
    is_served_by(here, name, false).await;
    here.run("sed -i /nats.example.org/d /etc/hosts");
    here.run(&guide.next(section));
    is_served_by(here, name, true).await;
    let look = here.run(&guide.next(section));
    assert!(look.starts_with("127.0.0.1 "), "{look}");
    here.run(&guide.next(section));
    here.run("if grep example /etc/hosts; then exit 1; fi");
}

async fn a_load_balancer(guide: &mut Guide, here: &Machine, balancer: &Machine, sidecars: &[Machine; 2]) {
    let section = "A load balancer before the sidecar";
    // The file of the package has no listener, and HAProxy does not start without one.
    balancer.run("printf '\\nlisten own\\n    bind 127.0.0.1:8404\\n' >>/etc/haproxy/haproxy.cfg");
    let before = guide.next(section);
    for sidecar in sidecars {
        sidecar.run(&settings("10.0.0.2"));
        sidecar.run(&before);
    }
    balancer.run(&guide.next(section));
    let mut component = client(here, Library::Node08, OLD).await;
    is_served(&mut component, "hello").await;
    let sessions = || -> Vec<String> {
        let rows = sidecars.iter().flat_map(|sidecar| rows(sidecar, "/sessionz"));
        rows.map(|row| row["component"].to_string()).collect()
    };
    // The health checks come and go.
    eventually(
        "the component is the only session",
        TIMEOUT,
        async || matches!(&sessions()[..], [one] if one.starts_with("\"10.0.0.5:")),
    )
    .await;
    let look = guide.next(section);
    let looks = sidecars.iter().map(|sidecar| sidecar.run(&look));
    assert!(looks.collect::<String>().contains("10.0.0.5:"));
    for sidecar in sidecars {
        let log = sidecar.run("journalctl -u standin-proxy");
        assert!(!log.contains("refused"), "a health check is not an error:\n{log}");
    }
    // Only the balancer may connect, because it says in the PROXY protocol which client it connects for.
    here.run("exec 3<>/dev/tcp/10.0.0.11/4222\nif timeout 5 grep . <&3; then exit 1; fi");
    let metrics = sidecars[0].run("curl -s 127.0.0.1:8223/metrics");
    assert!(metrics.contains("standin_connections_refused_total{reason=\"peer\"} 1"));

    balancer.run(&guide.next(section));
    let after = guide.next(section);
    for sidecar in sidecars {
        sidecar.run(&after);
        is_served_by(sidecar, "nats://127.0.0.1:4222", true).await;
    }
}
