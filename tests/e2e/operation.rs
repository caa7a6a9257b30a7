//! Operation of a sidecar and its nodes: start in any order, reload, stop, lame duck mode, credentials, limits.

use crate::site::{Site, TIMEOUT, component_of, is_served, session_moves_from};
use e2e::raw::{CONNECT_NEW, CONNECT_OLD};
use e2e::{
    Component, Library, Mesh, Node, Process, Program, RawClient, Record, ServerKind, Sidecar, eventually,
    peers, port,
};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_reload_adds_nodes_without_moving_a_session() {
    // The nodes have no routes to each other, so neither names the other in INFO.
    let mut first = Node::start(ServerKind::NatsServer, &[]).await;
    let second = Node::start(ServerKind::NatsServer, &[]).await;
    let mut sidecar = Sidecar::builder().upstream([first.url()]).start().await;
    let mut component = component_of(Library::NatsPython, &sidecar.url()).await;

    sidecar.reload_with("nodes.upstream", [first.url(), second.url()].as_slice());
    eventually("both nodes are known", TIMEOUT, async || {
        sidecar.node_rows().await.len() == 2
    })
    .await;
    assert_eq!(sidecar.metric("standin_failovers_total").await, 0.0);
    first.kill();
    eventually("the session moves", TIMEOUT, async || {
        sidecar.session_nodes().await == [Some(second.address())]
    })
    .await;
    is_served(&mut component, "moved").await;
}

#[tokio::test]
async fn a_reload_with_a_mistake_changes_nothing() {
    let cluster = Mesh::start(ServerKind::NatsServer, 1).await;
    let mut sidecar = Sidecar::builder().nodes(&cluster.nodes).start().await;
    let mut client = RawClient::open(sidecar.address()).await;
    let mark = sidecar.process().mark();
    sidecar.reload_with("session.outage_seconds", 5);
    sidecar
        .process()
        .wait_for_line_after(mark, "outage_seconds", TIMEOUT)
        .await;
    client.flush().await;
    RawClient::open(sidecar.address()).await;
}

#[tokio::test]
async fn a_stopping_sidecar_passes_on_everything_that_it_received_and_exits_with_0() {
    let cluster = Mesh::start(ServerKind::NatsServer, 1).await;
    let mut sidecar = Sidecar::builder().nodes(&cluster.nodes).start().await;
    let mut subscriber = cluster.nodes[0].subscriber("a").await;
    let mut publisher = RawClient::open(sidecar.address()).await;
    for number in 0..1000 {
        publisher.publish("a", number.to_string()).await;
    }
    let stopping = Instant::now();
    sidecar.process().signal(Signal::SIGTERM);
    for number in 0..1000 {
        subscriber.expect_message("1", "a", &number.to_string()).await;
    }
    publisher.read_to_end().await;
    let status = sidecar.process().wait_for_end(TIMEOUT).await;
    assert_eq!(status.code(), Some(0));
    assert!(
        stopping.elapsed() < Duration::from_secs(10),
        "it took {:?}",
        stopping.elapsed()
    );
    assert!(TcpStream::connect(sidecar.address()).await.is_err());
}

#[tokio::test]
async fn components_connect_during_a_total_outage_and_are_served_when_it_ends() {
    let mut site = Site::start(Record::Plain).await;
    // The sidecar gets the cluster's INFO before the outage.
    RawClient::open(site.sidecar.address()).await.close().await;
    for index in 0..3 {
        site.cluster.nodes[index].kill();
    }
    let mut components = Vec::new();
    for library in [Library::NatsPython, Library::Node02, Library::NatsPython] {
        let mut component = Component::start(library);
        component.say(&format!("connect {}", site.sidecar.url()));
        component.subscribe("news", "news");
        components.push(component);
    }
    eventually("all three are connected", TIMEOUT, async || {
        site.sidecar.session_rows().await.len() == 3
    })
    .await;
    assert!(
        site.sidecar.session_nodes().await.iter().all(Option::is_none),
        "a session has a node"
    );

    site.cluster.restart(1).await;
    let mut publisher = site.cluster.nodes[1].client().await;
    eventually("all three are served", TIMEOUT, async || {
        publisher.publish("news", "back").await;
        publisher.flush().await;
        components
            .iter()
            .all(|component| !component.payloads("news").is_empty())
    })
    .await;
    for component in &mut components {
        component.assert_untroubled();
    }
}

#[tokio::test]
async fn a_sidecar_started_before_any_node_serves_as_soon_as_one_is_there() {
    let mut cluster = Mesh::start(ServerKind::NatsServer, 1).await;
    cluster.nodes[0].kill();
    let sidecar = Sidecar::builder().nodes(&cluster.nodes).start_listening().await;
    let mut component = Component::start(Library::NatsPython);
    component.say(&format!("connect {}", sidecar.url()));
    component.subscribe("own", "own");
    cluster.restart(0).await;
    component.flush().await;
    is_served(&mut component, "served").await;
}

#[tokio::test]
async fn credentials_are_passed_on_to_the_first_and_to_the_next_node() {
    let mut cluster = Mesh::builder(ServerKind::NatsServer, 3)
        .flags(&["--user", "old", "--pass", "secret"])
        .start()
        .await;
    let sidecar = Sidecar::builder().nodes(&cluster.nodes).start().await;
    let mut refused = RawClient::connect(sidecar.address()).await;
    refused.send(format!("{CONNECT_OLD}\r\nPING\r\n")).await;
    refused.expect_line("-ERR 'Authorization Violation'").await;
    refused.read_to_end().await;
    eventually("the refused session is over", TIMEOUT, async || {
        sidecar.session_rows().await.is_empty()
    })
    .await;

    let url = sidecar.url().replace("nats://", "nats://old:secret@");
    for library in [Library::NatsPython, Library::Node02, Library::Go] {
        let mut component = component_of(library, &url).await;
        let node = sidecar.wait_for_node_of_session().await;
        let before = cluster.index_of(node).expect("a node of the cluster");
        cluster.nodes[before].kill();
        session_moves_from(node, &sidecar).await;
        is_served(&mut component, "moved").await;
        component.close().await;
        cluster.restart(before).await;
        eventually("the session is over", TIMEOUT, async || {
            sidecar.session_rows().await.is_empty()
        })
        .await;
    }
}

#[tokio::test]
async fn a_token_is_passed_on() {
    let node = Node::start(ServerKind::NatsServer, &["--auth", "s3cr3t"]).await;
    let sidecar = Sidecar::builder().upstream([node.url()]).start().await;
    let mut client = RawClient::connect(sidecar.address()).await;
    client
        .send("CONNECT {\"verbose\":false,\"auth_token\":\"s3cr3t\"}\r\nPING\r\n")
        .await;
    client.expect_line("PONG").await;
}

#[tokio::test]
async fn credentials_in_the_upstream_address_are_used_for_components_that_send_none() {
    let node = Node::start(ServerKind::NatsServer, &["--user", "old", "--pass", "secret"]).await;
    let url = node.url().replace("nats://", "nats://old:secret@");
    let sidecar = Sidecar::builder().upstream([url]).start().await;
    RawClient::open(sidecar.address()).await.flush().await;
}

#[tokio::test]
async fn sessions_leave_a_lame_duck_at_once_and_lose_nothing() {
    let mut site = Site::start(Record::Plain).await;
    let mut client = RawClient::open_with(site.sidecar.address(), CONNECT_NEW)
        .await
        .subscribed("own")
        .await;
    let lame = site.node_of_session().await.expect("the session has a node");
    site.cluster.nodes[lame].enter_lame_duck();
    let since = Instant::now();
    site.session_moved_from(lame).await;
    assert!(
        since.elapsed() < Duration::from_secs(1),
        "it took {:?}",
        since.elapsed()
    );
    client.publish("own", "moved").await;
    client.expect_message("1", "own", "moved").await;
    assert_eq!(
        site.sidecar.metric("standin_in_doubt_total").await,
        0.0,
        "nothing was in doubt"
    );
}

#[tokio::test]
async fn wrong_settings_end_the_program_with_the_documented_exit_codes() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = held.local_addr().expect("an address").to_string();
    let ways = ["--zookeeper", "--upstream", "--dns", "--config"];
    for (arguments, code, words) in [
        (&[][..], 64, &ways[..]),
        (&["--no-such-flag"], 64, &[]),
        (&["--listen", &taken, "--upstream", "nats://127.0.0.1:1"], 69, &[]),
        (&["--check", "--upstream", "tls://127.0.0.1:1"], 0, &[]),
        (&["--check", "--upstream", "nats://127.0.0.1:1"], 0, &[]),
    ] {
        let mut process = Program::new(peers::sidecar_binary())
            .args(arguments)
            .start("standin-proxy");
        assert_eq!(
            process.wait_for_end(TIMEOUT).await.code(),
            Some(code),
            "{}",
            process.tail()
        );
        for word in words {
            assert!(
                process.has_line(word),
                "the error must name {word}:\n{}",
                process.tail()
            );
        }
    }
}

/// Returns a program with a limit of 200 open files that it cannot raise, not even as root.
fn with_200_files(program: impl AsRef<std::path::Path>) -> Program {
    let script = r#"ulimit -n 200
        if [ "$(id -u)" = 0 ]; then exec setpriv --bounding-set -sys_resource --inh-caps -sys_resource "$0" "$@"; fi
        exec "$0" "$@""#;
    Program::new("sh").args(["-c", script]).arg(program.as_ref())
}

/// Returns the warnings logged so far.
fn warnings(process: &Process) -> Vec<String> {
    let lines = process.lines();
    let lines = lines.iter().map(|line| line.text.clone());
    lines.filter(|line| line.contains(" WARN ")).collect()
}

/// The default of `connections_max` is above the limit of most systems and above the need of most hosts, so it alone is no
/// reason for a warning.
#[tokio::test]
async fn the_limit_on_open_files_gives_a_warning_only_when_more_is_configured_or_needed() {
    let (address, http) = (port::free_address(), port::free_address());
    let broker_port = port::free_address().port().to_string();
    let node = e2e::Node::start(e2e::ServerKind::Standin, &[]).await;
    let sidecar = with_200_files(peers::sidecar_binary())
        .args(["--upstream", &node.address().to_string(), "--listen"])
        .arg(address.to_string());
    let broker = with_200_files(peers::broker_binary()).args(["-a", "127.0.0.1", "-p", &broker_port]);
    let warning = |key: &str| format!("{key} = 100: raise the limit");
    for (program, listens, variable, warning) in [
        (
            sidecar.clone().args(["--http", &http.to_string()]),
            "serving HTTP",
            "STANDIN_LIMITS_CONNECTIONS_MAX",
            warning("limits.connections_max"),
        ),
        (
            broker.clone(),
            "Server is ready",
            "STANDIN_LIMITS_MAX_CONNECTIONS",
            warning("limits.max_connections"),
        ),
    ] {
        let mut process = program.start("with few files");
        process.wait_for_line(listens, TIMEOUT).await;
        assert_eq!(warnings(&process), [""; 0], "no setting needs more");
        drop(process);
        let mut process = program
            .env(variable, "100")
            .start("with few files, configured for more");
        process.wait_for_line(listens, TIMEOUT).await;
        assert_eq!(warnings(&process).len(), 1, "{:?}", warnings(&process));
        assert!(
            warnings(&process)[0].contains(&warning),
            "{:?}",
            warnings(&process)
        );
    }
    // Besides the files that the program itself needs, 72 are left: for 36 components, or 72 clients.
    let broker_address = format!("127.0.0.1:{broker_port}").parse().expect("an address");
    for (program, listens, address, count) in [
        (sidecar, "listening for components", address, 36),
        (broker, "Server is ready", broker_address, 72),
    ] {
        let mut process = program.start("with few files");
        process.wait_for_line(listens, TIMEOUT).await;
        let mut crowd = Vec::new();
        for _ in 0..count {
            crowd.push(RawClient::open(address).await);
        }
        let _refused = TcpStream::connect(address).await.expect("the server listens");
        process
            .wait_for_line("near the limit on open files", TIMEOUT)
            .await;
        let refused = process.wait_for_line("bound=\"the limit on open files", TIMEOUT);
        refused.await;
        let near = warnings(&process);
        let near = near.iter().filter(|line| line.contains("near the limit")).count();
        assert_eq!(near, 1, "{:?}", warnings(&process));
    }
}

/// A host that disappears sends no end of stream, so only keep-alive detects it.
#[tokio::test]
async fn tcp_keep_alive_is_on_towards_the_component_and_towards_the_node() {
    let cluster = Mesh::start(ServerKind::NatsServer, 1).await;
    let sidecar = Sidecar::builder().nodes(&cluster.nodes).start().await;
    let mut client = RawClient::open(sidecar.address()).await;
    client.flush().await;
    for (side, address) in [("src", sidecar.address()), ("dst", cluster.nodes[0].address())] {
        let filter = [side, &address.to_string()];
        eventually(format!("keep-alive on {filter:?}"), TIMEOUT, async || {
            let mut ss = std::process::Command::new("ss");
            let output = ss.args(["-tnoH", "state", "established"]).args(filter).output();
            let output = String::from_utf8_lossy(&output.expect("ss, of iproute2").stdout).into_owned();
            output.contains("timer:(keepalive,")
        })
        .await;
    }
}
