//! INFO has every field that any client library requires, from the broker and from the sidecar.

use std::net::{Ipv6Addr, SocketAddr};

use e2e::raw::CONNECT_NEW;
use e2e::{Frame, Mesh, Node, RawClient, ScriptedNode, ServerKind, Sidecar};
use serde_json::{Value, json};

/// Limit of the oldest client library on the first INFO, in bytes.
const INFO_BYTES_MAX: usize = 511;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    /// A text of at least one character.
    Name,
    Number,
    /// A number above 0.
    Count,
    Flag,
}

/// Fields that client libraries require: without one of them, a library does not connect or misreads INFO. Each is
/// listed with libraries that require it, or with another reason. Examined: npm `nats` 0.2, 0.8, 1.4 and `@nats-io/transport-node`
/// 3; PyPI `nats-core` 0.2, `nats-py`, `nats-python`; the crates `nats` 0.26 and `async-nats` 0.51; `nats.go`; `libnats`.
const REQUIRED: &[(&str, Kind, &str)] = &[
    ("server_id", Kind::Name, "nats-core, the crate nats"),
    ("server_name", Kind::Text, "nats-core declares it as required"),
    (
        "version",
        Kind::Name,
        "nats-core, the crate nats; transport-node reads a semantic version",
    ),
    ("proto", Kind::Number, "the crate nats; npm nats 1.4 for echo"),
    ("go", Kind::Name, "nats-core, the crate nats"),
    ("git_commit", Kind::Name, "sent by old and new servers"),
    ("host", Kind::Name, "nats-core, the crate nats"),
    ("port", Kind::Count, "nats-core, the crate nats"),
    ("headers", Kind::Flag, "nats-core"),
    (
        "max_payload",
        Kind::Count,
        "the crate nats, as an unsigned number",
    ),
    ("client_id", Kind::Count, "the crate nats"),
    (
        "auth_required",
        Kind::Flag,
        "hand-written parsers at the time of gnatsd",
    ),
    (
        "tls_required",
        Kind::Flag,
        "hand-written parsers at the time of gnatsd",
    ),
];

fn assert_has_required(info: &Value, whose: &str) {
    for (name, kind, by) in REQUIRED {
        let value = &info[*name];
        let fits = match kind {
            Kind::Text => value.is_string(),
            Kind::Name => value.as_str().is_some_and(|text| !text.is_empty()),
            Kind::Number => value.is_u64(),
            Kind::Count => value.as_u64().is_some_and(|number| number > 0),
            Kind::Flag => value.is_boolean(),
        };
        assert!(fits, "{whose}: {name} is {value}, for {by}: {info}");
    }
    let version = info["version"].as_str().unwrap_or_default();
    let numbers = version.split('.').filter(|part| part.parse::<u32>().is_ok());
    assert!(numbers.count() >= 3, "{whose}: {version}");
}

fn assert_info_frame(first: &Frame, whose: &str) {
    let bytes = first.bytes().len();
    assert!(bytes <= INFO_BYTES_MAX, "{whose}: {bytes} bytes");
    assert_has_required(&first.json(), whose);
}

/// Connects a component to the sidecar at `address`. Meanwhile, `node` accepts every connection and sends its INFO.
async fn served_by(node: &mut ScriptedNode, address: SocketAddr) -> RawClient {
    let mut taken = Vec::new();
    let connecting = RawClient::connect(address);
    tokio::pin!(connecting);
    loop {
        tokio::select! {
            client = &mut connecting => return client,
            connection = node.accept() => taken.push(connection),
        }
    }
}

async fn assert_first_info(address: SocketAddr, whose: &str) -> Value {
    let client = RawClient::connect(address).await;
    assert_info_frame(client.info_frame(), whose);
    client.info()
}

#[tokio::test]
async fn every_info_of_the_broker_has_what_client_libraries_require() {
    for flags in [
        &[][..],
        &["--user", "a", "--pass", "b"],
        &[
            "-n",
            "n",
            "--cluster",
            "nats://127.0.0.1:-1",
            "--cluster_name",
            "c",
        ],
    ] {
        let server = Node::start(ServerKind::Standin, flags).await;
        assert_first_info(server.address(), &format!("{flags:?}")).await;
    }
}

#[tokio::test]
async fn the_later_info_of_a_broker_that_gains_a_peer_has_what_client_libraries_require() {
    let mut mesh = Mesh::builder(ServerKind::Standin, 2).describe();
    mesh.nodes[0].restart().await;
    let mut client = RawClient::open_with(mesh.nodes[0].address(), CONNECT_NEW).await;
    mesh.nodes[1].restart().await;
    let later = client.read_frame().await;
    assert_eq!(later.verb(), "INFO", "{later:?}");
    assert_has_required(&later.json(), "the later INFO");
    for node in &mesh.nodes {
        assert_first_info(node.address(), "one of two").await;
    }
}

#[tokio::test]
async fn every_info_of_the_sidecar_has_what_client_libraries_require_for_any_node() {
    for kind in [
        ServerKind::Standin,
        ServerKind::NatsServer,
        ServerKind::OldNatsServer,
    ] {
        let node = Node::start(kind, &[]).await;
        let sidecar = Sidecar::builder().upstream([node.url()]).start().await;
        let info = assert_first_info(sidecar.address(), &format!("{kind:?}")).await;
        assert_eq!(info["port"], sidecar.address().port());
    }
}

#[tokio::test]
async fn info_has_every_required_field_for_a_node_with_an_empty_info_and_without_a_node() {
    let mut node = ScriptedNode::start().await;
    *node.info_mut() = json!({});
    let sidecar = Sidecar::builder().upstream([node.url()]).start().await;
    let client = served_by(&mut node, sidecar.address()).await;
    // These texts are the node's and may be empty. Client libraries need only the fields.
    let mut info = client.info();
    for name in ["server_id", "version"] {
        assert!(info[name].is_string());
        info[name] = json!("1.2.3");
    }
    assert_has_required(&info, "a node with an empty INFO");

    let alone = Sidecar::builder()
        .upstream(["nats://127.0.0.1:1"])
        .setting("session.info_wait_ms", 20)
        .start_listening()
        .await;
    let first = assert_first_info(alone.address(), "no node").await;
    let second = assert_first_info(alone.address(), "no node").await;
    assert_ne!(first["client_id"], second["client_id"]);
}

/// Characters that a hand-written parser would take for JSON syntax.
const UNSAFE: &str = "[]{}:,\"'\\ \t";

#[tokio::test]
async fn info_has_no_characters_that_break_a_hand_written_parser() {
    let name = "a[1]{b}:c,d\"e'f";
    let server = Node::start(ServerKind::Standin, &["-n", name, "--cluster_name", name]).await;
    let ours = RawClient::connect(server.address()).await.info();
    let mut node = ScriptedNode::start().await;
    for field in [
        "server_name",
        "server_id",
        "version",
        "go",
        "git_commit",
        "cluster",
    ] {
        node.info_mut()[field] = json!(format!("{name} {UNSAFE}\u{e9}"));
    }
    let sidecar = Sidecar::builder().upstream([node.url()]).start().await;
    let client = served_by(&mut node, sidecar.address()).await;
    for info in [ours, client.info()] {
        let texts = info.as_object().expect("an object").iter();
        for (field, text) in texts.filter_map(|(field, value)| Some((field, value.as_str()?))) {
            let is_safe = text.is_ascii() && !text.contains(|character| UNSAFE.contains(character));
            assert!(is_safe, "{field} of {info}");
        }
        assert_eq!(&info["server_name"].as_str().expect("a name")[..7], "a_1__b_");
    }
}

/// Some programs try `::1` first for `localhost`, so both address families must be served.
#[tokio::test]
async fn the_broker_serves_both_address_families_at_0_0_0_0_and_shows_the_address_as_given() {
    let mut broker = e2e::Program::new(e2e::peers::broker_binary())
        .args(["-p", "-1", "-m", "-1", "--cluster", "nats://0.0.0.0:-1"])
        .start("standin-broker");
    let port_of = |line: String| {
        let (_, address) = line.split_once("0.0.0.0:").expect("the address as given");
        let digits: String = address.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u16>().expect("a port")
    };
    let mut ports = Vec::new();
    for line in [
        "Starting http monitor on 0.0.0.0:",
        "Listening for route connections on 0.0.0.0:",
        "Listening for client connections on 0.0.0.0:",
    ] {
        ports.push(port_of(broker.wait_for_line(line, e2e::TIMEOUT).await.text));
    }
    for port in &ports {
        for ip in [Ipv6Addr::LOCALHOST.into(), [127, 0, 0, 1].into()] {
            let stream = tokio::net::TcpStream::connect(SocketAddr::new(ip, *port)).await;
            assert!(stream.is_ok(), "port {port} on {ip}: {stream:?}");
        }
    }
    for (ip, shown) in [("::1", "::1"), ("127.0.0.1", "127.0.0.1")] {
        let ip: std::net::IpAddr = ip.parse().expect("an address");
        let info = RawClient::connect(SocketAddr::new(ip, ports[2])).await.info();
        assert_eq!(
            (info["client_ip"].as_str(), info["host"].as_str()),
            (Some(shown), Some("0.0.0.0"))
        );
    }
}

async fn sidecar_inside(netns: &e2e::Netns, flags: &[&str]) -> e2e::Process {
    e2e::Program::new(e2e::peers::sidecar_binary())
        .args(["--upstream", "nats://127.0.0.1:1"])
        .args(flags)
        .inside(netns)
        .start("standin-proxy")
}

/// Runs in a namespace because the default port is free there.
#[tokio::test]
async fn the_sidecar_listens_by_default_on_both_loopback_addresses_or_on_ipv4_alone_if_there_is_no_ipv6() {
    let lan = e2e::Lan::new(2);
    let (with, without) = (lan.host(0), lan.host(1));
    let removed = std::process::Command::new("ip")
        .args([
            "-n",
            without.name(),
            "-6",
            "address",
            "del",
            "::1/128",
            "dev",
            "lo",
        ])
        .status();
    assert!(removed.is_ok_and(|status| status.success()));
    let (v4, v6): (SocketAddr, SocketAddr) =
        (([127, 0, 0, 1], 4222).into(), (Ipv6Addr::LOCALHOST, 4222).into());
    for (netns, addresses) in [(with, vec![v4, v6]), (without, vec![v4])] {
        let mut sidecar = sidecar_inside(netns, &[]).await;
        for address in &addresses {
            let line = format!("listening for components address={address}");
            sidecar.wait_for_line(&line, e2e::TIMEOUT).await;
            assert!(netns.connect(*address).await.is_ok(), "{address}");
        }
        assert_eq!(sidecar.count_lines("listening for components"), addresses.len());
        let is_logged = sidecar.has_line("the host has no IPv6");
        assert_eq!(is_logged, addresses.len() == 1, "{}", sidecar.tail());
        // An address in the settings is used exactly as given.
        if addresses.len() == 1 {
            let mut refused = sidecar_inside(netns, &["--listen", "[::1]:4223"]).await;
            assert_eq!(refused.wait_for_end(e2e::TIMEOUT).await.code(), Some(69));
        }
        let mut exact = sidecar_inside(netns, &["--listen", "0.0.0.0:4223"]).await;
        exact
            .wait_for_line("listening for components", e2e::TIMEOUT)
            .await;
        assert!(netns.connect((Ipv6Addr::LOCALHOST, 4223).into()).await.is_err());
        assert!(netns.connect(([127, 0, 0, 1], 4223).into()).await.is_ok());
    }
}
