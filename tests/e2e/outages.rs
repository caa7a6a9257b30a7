//! Promise S10 with real nodes: an outage of all nodes is not worse behind the sidecar than without it.

use e2e::{Component, Library, Mesh, Node, RawClient, Record, ServerKind, Sidecar, ZooKeeper, eventually};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

const TIMEOUT: Duration = Duration::from_secs(20);
const SUBSCRIBERS: usize = 60;
const HELD: usize = 100;

async fn sidecar_for(nodes: &[Node], outage_secs: u32) -> Sidecar {
    Sidecar::builder()
        .nodes(nodes)
        .setting("session.outage_secs", outage_secs)
        .setting("http.page_items_max", 1000)
        .setting("log.level", "info")
        .start()
        .await
}

/// Waits until this many sessions of the sidecar have no node.
async fn without_node(sidecar: &Sidecar, sessions: usize) {
    eventually(format!("{sessions} sessions have no node"), TIMEOUT, async || {
        sidecar.metric("standin_sessions_without_node").await as usize == sessions
    })
    .await;
}

async fn subscribers(address: SocketAddr) -> Vec<RawClient> {
    let mut clients = Vec::new();
    for _ in 0..SUBSCRIBERS {
        clients.push(RawClient::open(address).await.subscribed("news").await);
    }
    clients
}

/// Checks that all publishes of an outage reach all subscribers, in order.
async fn all_held_publishes_arrive(publisher: &Sidecar, subscriber: &Sidecar, cluster: &mut Mesh) {
    let mut clients = subscribers(subscriber.address()).await;
    let mut component = RawClient::open(publisher.address()).await;
    cluster.nodes[0].kill();
    if publisher.address() == subscriber.address() {
        without_node(publisher, SUBSCRIBERS + 1).await;
    } else {
        tokio::join!(without_node(publisher, 1), without_node(subscriber, SUBSCRIBERS));
    }
    for number in 0..HELD {
        component.publish("news", number.to_string()).await;
    }
    cluster.restart(0).await;
    for client in &mut clients {
        for number in 0..HELD {
            client.expect_message("1", "news", &number.to_string()).await;
        }
    }
    component.flush().await;
}

#[tokio::test]
async fn s10_held_publishes_are_sent_when_all_subscribers_of_the_sidecar_are_back() {
    let mut cluster = Mesh::start(ServerKind::NatsServer, 1).await;
    let sidecar = sidecar_for(&cluster.nodes, 3600).await;
    all_held_publishes_arrive(&sidecar, &sidecar, &mut cluster).await;
}

#[tokio::test]
async fn s10_held_publishes_are_sent_when_the_subscribers_behind_another_sidecar_are_back() {
    let mut cluster = Mesh::start(ServerKind::NatsServer, 1).await;
    let (publisher, subscriber) = (
        sidecar_for(&cluster.nodes, 3600).await,
        sidecar_for(&cluster.nodes, 3600).await,
    );
    all_held_publishes_arrive(&publisher, &subscriber, &mut cluster).await;
}

#[tokio::test]
async fn s10_after_the_loss_of_one_node_of_several_held_publishes_wait_for_the_sidecars_other_sessions() {
    let mut cluster = Mesh::start(ServerKind::NatsServer, 2).await;
    let sidecar = sidecar_for(&cluster.nodes, 3600).await;
    let mut clients = subscribers(sidecar.address()).await;
    let mut component = RawClient::open(sidecar.address()).await;
    let node = |rows: Vec<Value>| rows.last().and_then(|row| Some(row["node"].as_str()?.to_owned()));
    let victim = e2e::found("the publisher has a node", TIMEOUT, async || {
        let address = node(sidecar.session_rows().await)?;
        cluster.index_of(address.parse().ok()?)
    })
    .await;
    // Published just after the node's death, so it is held and then sent to the other node.
    cluster.nodes[victim].kill();
    component.publish("news", "held").await;
    component.flush().await;
    for client in &mut clients {
        client.expect_message("1", "news", "held").await;
    }
    assert_eq!(sidecar.metric("standin_lost_total").await, 0.0);
}

/// Each node is killed once and restarted before the next one is killed. No session and no probe has noticed the restart.
#[tokio::test]
async fn restarted_nodes_are_found_at_once_when_the_last_proved_node_dies() {
    let mut cluster = Mesh::start(ServerKind::NatsServer, 3).await;
    let mut sidecar = Sidecar::builder()
        .nodes(&cluster.nodes)
        .setting("health.idle_probe_interval_ms", 3_600_000)
        .start()
        .await;
    let mut clients = subscribers(sidecar.address()).await;
    for victim in 0..3 {
        cluster.nodes[victim].kill();
        let began = Instant::now();
        for client in &mut clients {
            client.publish("own", "1").await;
            client.flush().await;
        }
        // After an outage of all nodes the publishes would wait for session.settle_ms, 1 s.
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        cluster.restart(victim).await;
    }
    assert_eq!(sidecar.process().count_lines("no node reachable"), 0);
}

#[tokio::test]
async fn s10_a_reload_shortens_the_wait_of_publishes_that_are_already_held() {
    let mut cluster = Mesh::start(ServerKind::NatsServer, 1).await;
    let mut sidecar = Sidecar::builder()
        .nodes(&cluster.nodes)
        .setting("session.settle_ms", 60_000)
        .start()
        .await;
    let mut subscriber = RawClient::open(sidecar.address()).await.subscribed("news").await;
    let mut publisher = RawClient::open(sidecar.address()).await;
    cluster.nodes[0].kill();
    without_node(&sidecar, 2).await;
    publisher.publish("news", "held").await;
    cluster.restart(0).await;
    eventually("the publisher's session holds the publish", TIMEOUT, async || {
        let rows = sidecar.session_rows().await;
        rows.iter().any(|row| row["state"] == "settling")
    })
    .await;
    subscriber.flush().await;
    sidecar.reload_with("session.settle_ms", 0);
    subscriber.expect_message("1", "news", "held").await;
}

#[tokio::test]
async fn s10_an_outage_logs_one_line_at_its_start_and_one_at_its_end_and_shows_on_the_pages() {
    let mut cluster = Mesh::start(ServerKind::NatsServer, 1).await;
    let mut sidecar = sidecar_for(&cluster.nodes, 3600).await;
    let http = sidecar.http();
    let clients = subscribers(sidecar.address()).await;
    assert_eq!(http.get("/healthz?nodes=1").await, Some((200, "ok\n".to_owned())));
    let mut publisher = RawClient::open(sidecar.address()).await;
    cluster.nodes[0].kill();
    without_node(&sidecar, SUBSCRIBERS + 1).await;
    publisher.publish("news", "held").await;
    let began = "no node reachable";
    let line = sidecar.process().wait_for_line(began, TIMEOUT).await;
    assert!(
        line.text
            .contains(&format!("sessions_waiting={}", SUBSCRIBERS + 1)),
        "{line:?}"
    );
    let (code, reason) = http.get("/healthz?nodes=1").await.expect("an answer");
    assert!(
        code == 503 && reason.contains("no node reachable for"),
        "{reason}"
    );
    let ready = http.get_json("/readyz").await.expect("ready also in an outage");
    assert_eq!(
        (&ready["ready"], &ready["nodes"], &ready["nodes_proved"]),
        (&Value::Bool(true), &1.into(), &0.into())
    );
    let metrics = sidecar.metrics().await;
    assert_eq!(metrics.value("standin_nodes_proved"), 0.0);
    assert_eq!(metrics.value("standin_nodes{state=up}"), 0.0);
    eventually("the pages show how long the outage lasts", TIMEOUT, async || {
        let metrics = sidecar.metrics().await;
        metrics.value("standin_no_node_seconds") >= 1.0
            && metrics.value("standin_sessions_without_node_seconds") >= 1.0
            && sidecar.session_rows().await[0]["searching_secs"] != 0
    })
    .await;
    cluster.restart(0).await;
    let over = "node reachable again";
    let line = sidecar.process().wait_for_line(over, TIMEOUT).await;
    assert!(
        line.text.contains("held_bytes=18") && line.text.contains("lost=0"),
        "{line:?}"
    );
    assert_eq!(http.get("/healthz?nodes=1").await, Some((200, "ok\n".to_owned())));
    assert_eq!(sidecar.metrics().await.value("standin_nodes{state=up}"), 1.0);
    for line in [began, over] {
        assert_eq!(sidecar.process().count_lines(line), 1, "{line}");
    }
    let warnings = sidecar
        .process()
        .lines()
        .iter()
        .filter(|line| line.text.contains(" WARN "))
        .count();
    assert!(
        warnings <= 5,
        "{warnings} warnings for {} sessions",
        clients.len()
    );
}

#[tokio::test]
async fn s10_sessions_that_end_with_held_messages_log_one_warning_with_the_subjects() {
    let mut cluster = Mesh::start(ServerKind::NatsServer, 1).await;
    let mut sidecar = sidecar_for(&cluster.nodes, 2).await;
    let mut clients = subscribers(sidecar.address()).await;
    cluster.nodes[0].kill();
    without_node(&sidecar, SUBSCRIBERS).await;
    for client in &mut clients {
        client.publish("orders.new", "1").await;
        client.publish("health", "ok").await;
    }
    for client in &mut clients {
        client.expect_end().await;
    }
    let line = sidecar.process().wait_for_line("messages lost", TIMEOUT).await;
    assert!(
        line.text
            .contains(&format!("by_subject=health={SUBSCRIBERS} orders={SUBSCRIBERS}")),
        "{line:?}"
    );
    let expired = "sessions closed after session.outage_secs without a node";
    sidecar.process().wait_for_line(expired, TIMEOUT).await;
    assert_eq!(sidecar.process().count_lines("messages lost"), 1);
    assert_eq!(sidecar.process().count_lines("session closed by the sidecar"), 0);
    let lost = sidecar.metric("standin_lost_total").await;
    assert_eq!(lost as usize, 2 * SUBSCRIBERS);
}

/// A server that is not NATS, and a name without an address: both are known nodes, and neither is proved.
#[tokio::test]
async fn readyz_and_healthz_show_that_an_upstream_cannot_be_used() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = silent.accept().await {
            let _ = stream.write_all(b"220 mail.example.org ESMTP\r\n").await;
        }
    });
    for (upstream, reason) in [
        (format!("nats://{address}"), "not a NATS server"),
        ("nats://no.such.host.invalid:4222".to_owned(), "cannot connect"),
    ] {
        let sidecar = Sidecar::builder().upstream([upstream]).start().await;
        let http = sidecar.http();
        let mut last = None;
        eventually(format!("healthz says {reason}"), TIMEOUT, async || {
            last = http.get("/healthz?nodes=1").await;
            matches!(&last, Some((503, text)) if text.contains(reason))
        })
        .await;
        let ready = http.get_json("/readyz").await.expect("components can connect");
        assert_eq!(ready["nodes_proved"], 0);
    }
}

#[tokio::test]
async fn an_idle_node_is_proved_by_a_probe_that_leaves_no_error_in_its_log() {
    for with_password in [false, true] {
        let flags = if with_password {
            &["--user", "u", "--pass", "p"][..]
        } else {
            &[]
        };
        let mut cluster = Mesh::builder(ServerKind::NatsServer, 1)
            .flags(flags)
            .start()
            .await;
        let sidecar = sidecar_for(&cluster.nodes, 30).await;
        eventually("the node is proved without a session", TIMEOUT, async || {
            sidecar.metric("standin_nodes_proved").await == 1.0
        })
        .await;
        // The node may log a "[WRN]" about a password in plain text when it starts.
        let node = cluster.nodes[0].process();
        assert!(
            !node.has_line("[ERR]"),
            "the node logged the probe as an error:\n{}",
            node.tail()
        );
    }
}

#[tokio::test]
async fn live_nodes_that_are_unregistered_are_used_while_the_only_registered_node_is_dead() {
    let (zookeeper, mut cluster) = tokio::join!(ZooKeeper::start(), Mesh::start(ServerKind::NatsServer, 2));
    let mut registrar = zookeeper.registrar().await;
    for node in &cluster.nodes {
        registrar.announce(Record::Own, node.name(), node.address()).await;
    }
    let sidecar = Sidecar::builder().zookeeper(&zookeeper).start().await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(RawClient::open(sidecar.address()).await);
    }
    eventually("both nodes are proved", TIMEOUT, async || {
        sidecar.metric("standin_nodes_proved").await == 2.0
    })
    .await;
    let dead = SocketAddr::from(([127, 0, 0, 1], e2e::port::free_port()));
    registrar.announce(Record::Own, "dead", dead).await;
    for node in &cluster.nodes {
        registrar.withdraw(node.name()).await;
    }
    eventually("both are shown as withdrawn", TIMEOUT, async || {
        let rows = sidecar.node_rows().await;
        rows.iter().filter(|row| row["withdrawn"] == true).count() == 2
    })
    .await;
    // A new component, and then the sessions whose node dies, find the live node.
    let began = Instant::now();
    clients.push(RawClient::open(sidecar.address()).await);
    cluster.nodes[0].kill();
    for client in &mut clients {
        client.flush().await;
    }
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    let survivor = cluster.nodes[1].address();
    eventually("all are on the live node", TIMEOUT, async || {
        let nodes = sidecar.session_nodes().await;
        nodes.iter().all(|node| *node == Some(survivor))
    })
    .await;
}

#[tokio::test]
async fn many_sessions_without_a_node_make_few_dials() {
    const SESSIONS: usize = 300;
    const WATCHED: Duration = Duration::from_secs(3);
    let mut cluster = Mesh::start(ServerKind::NatsServer, 1).await;
    let sidecar = sidecar_for(&cluster.nodes, 3600).await;
    let mut clients = Vec::new();
    for _ in 0..SESSIONS {
        clients.push(RawClient::open(sidecar.address()).await);
    }
    cluster.nodes[0].kill();
    without_node(&sidecar, SESSIONS).await;
    let dials = async || sidecar.metric("standin_node_dials_total").await;
    let (before, began) = (dials().await, Instant::now());
    clients[0].expect_silence(WATCHED).await;
    let (made, watched) = (dials().await - before, began.elapsed());
    // After several failures in a row, a node is not dialled for 250 to 500 ms.
    let most = watched.as_secs_f64() / 0.25 + 2.0;
    assert!(made <= most, "{made} dials in {watched:?}");
    assert!(made >= 1.0, "no dial at all");
    cluster.restart(0).await;
    for client in &mut clients {
        client.flush().await;
    }
}

#[tokio::test]
async fn a_components_wrong_password_is_not_counted_as_a_failure_of_the_node() {
    let node = Node::start(ServerKind::NatsServer, &["--user", "u", "--pass", "p"]).await;
    let sidecar = sidecar_for(std::slice::from_ref(&node), 30).await;
    let mut good = RawClient::open_with(
        sidecar.address(),
        r#"CONNECT {"verbose":false,"user":"u","pass":"p"}"#,
    )
    .await;
    for _ in 0..8 {
        let mut bad = RawClient::connect(sidecar.address()).await;
        bad.send("CONNECT {\"verbose\":false,\"user\":\"u\",\"pass\":\"wrong\"}\r\nPING\r\n")
            .await;
        bad.expect_line("-ERR 'Authorization Violation'").await;
        bad.expect_end().await;
    }
    let row = sidecar.node_rows().await.remove(0);
    assert_eq!(
        (&row["state"], &row["failures"]),
        (&"up".into(), &0.into()),
        "{row}"
    );
    good.flush().await;
}

#[tokio::test]
async fn after_an_outage_the_sessions_spread_over_nodes_that_come_back_shortly_after_each_other() {
    const SESSIONS: usize = 100;
    let mut cluster = Mesh::start(ServerKind::NatsServer, 3).await;
    let sidecar = sidecar_for(&cluster.nodes, 3600).await;
    let mut clients = Vec::new();
    for _ in 0..SESSIONS {
        clients.push(RawClient::open(sidecar.address()).await);
    }
    (0..3).for_each(|node| cluster.nodes[node].kill());
    without_node(&sidecar, SESSIONS).await;
    for node in 0..3 {
        cluster.restart(node).await;
    }
    for client in &mut clients {
        client.flush().await;
    }
    let mut shares: BTreeMap<_, usize> = BTreeMap::new();
    for node in sidecar.session_nodes().await {
        *shares.entry(node).or_default() += 1;
    }
    assert!(
        shares.len() >= 2 && shares.values().all(|share| *share <= SESSIONS * 9 / 10),
        "{shares:?}"
    );
}

/// Checks that no component ends in an outage of this duration, and that all publish and receive after it. `outage_secs` may be
/// shorter than the outage. (A report about gorouters, components that use NATS, led to this test.)
async fn components_survive_an_outage(libraries: &[Library], outage_secs: u32, duration: Duration) {
    let mut cluster = Mesh::start(ServerKind::NatsServer, 1).await;
    let mut sidecar = sidecar_for(&cluster.nodes, outage_secs).await;
    let mut components = Vec::new();
    for library in libraries {
        let mut component = Component::connect(*library, &sidecar.url()).await;
        component.subscribe("own", &format!("to.{library:?}"));
        component.flush().await;
        components.push(component);
    }
    cluster.nodes[0].kill();
    without_node(&sidecar, libraries.len()).await;
    let over = Instant::now() + duration;
    eventually("the outage lasts", duration * 2, async || Instant::now() >= over).await;
    cluster.restart(0).await;
    for component in &mut components {
        let library = component.library();
        let subject = format!("to.{library:?}");
        eventually(
            format!("{library:?} publishes and receives again"),
            TIMEOUT * 2,
            async || {
                component.publish(&subject, "after");
                component.payloads("own").iter().any(|payload| payload == "after")
            },
        )
        .await;
        assert!(component.process().is_running(), "{library:?} has ended");
    }
    assert!(sidecar.process().is_running());
}

#[tokio::test]
async fn reconnecting_clients_survive_an_outage_longer_than_outage_secs() {
    let libraries = [
        Library::Node08,
        Library::Node14,
        Library::NodeNow,
        Library::NatsPy,
        Library::C,
        Library::Go,
    ];
    components_survive_an_outage(&libraries, 2, Duration::from_secs(5)).await;
}

#[tokio::test]
async fn every_client_survives_an_outage_shorter_than_outage_secs() {
    components_survive_an_outage(&Library::ALL, 3600, Duration::from_secs(5)).await;
}

/// The node answers one PING of each session and then closes the connection: one answer does not prove that a node works.
#[tokio::test]
async fn a_node_that_answers_and_then_closes_is_dialled_at_a_limited_rate() {
    const SESSIONS: usize = 300;
    const WATCHED: Duration = Duration::from_secs(3);
    let node = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("nats://{}", node.local_addr().expect("bound"));
    tokio::spawn(async move {
        while let Ok((stream, _)) = node.accept().await {
            tokio::spawn(answer_once(stream));
        }
    });
    let sidecar = Sidecar::builder()
        .upstream([url])
        .setting("session.outage_secs", 3600)
        .setting("log.level", "info")
        .start()
        .await;
    let mut clients = Vec::new();
    for _ in 0..SESSIONS {
        let mut client = TcpStream::connect(sidecar.address())
            .await
            .expect("the sidecar listens");
        client
            .write_all(b"CONNECT {\"verbose\":false}\r\nPING\r\n")
            .await
            .expect("the sidecar reads");
        clients.push(client);
    }
    let dials = async || sidecar.metric("standin_node_dials_total").await;
    eventually("the node has failed a few times", TIMEOUT, async || {
        sidecar.metric("standin_sessions_without_node").await >= (SESSIONS - 5) as f64
            && dials().await > 2.0 * SESSIONS as f64 / 10.0
    })
    .await;
    let (before, began) = (dials().await, Instant::now());
    tokio::time::sleep(WATCHED).await;
    let (made, watched) = (dials().await - before, began.elapsed());
    // choice.retries_per_second_max is 20.
    let most = 20.0 * (watched.as_secs_f64() + 1.0);
    assert!(
        (1.0..=most).contains(&made),
        "{made} dials in {watched:?}, at most {most}"
    );
}

async fn answer_once(mut stream: TcpStream) -> std::io::Result<()> {
    stream
        .write_all(b"INFO {\"server_id\":\"x\",\"version\":\"2.9.0\",\"max_payload\":1048576}\r\n")
        .await?;
    let mut came = Vec::new();
    while !came.ends_with(b"PING\r\n") {
        if stream.read_buf(&mut came).await? == 0 {
            return Ok(());
        }
    }
    stream.write_all(b"PONG\r\n").await
}
