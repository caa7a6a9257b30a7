//! Ten thousand connections that never log in: peers that send nothing, a part of CONNECT, or a part of a TLS handshake. Clients that
//! log in are served meanwhile.

use crate::scenario::all_that_components_do;
use async_nats::{Client, ConnectOptions, Subscriber};
use e2e::{
    Authority, Figures, Library, Metrics, Node, RawClient, ServerKind, Sidecar, TIMEOUT, eventually, found,
};
use futures_util::StreamExt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Number of connections that never log in. Each needs an open file in the test and one in the server.
const STALLED: usize = 10_000;
/// Number of them that connect at the same time.
const CONNECTING_MAX: usize = 200;
/// Maximum time in which a client is connected, and in which it gets a message. All cores are busy with the attack.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a peer sends before it stalls: nothing, a byte, a part of CONNECT.
const PLAIN: [&[u8]; 3] = [b"", b"C", b"CONNECT {\"verb"];
/// The same where TLS comes first: nothing, a byte, the beginning of a ClientHello.
const TLS: [&[u8]; 3] = [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"];

/// A port that is attacked.
struct Door {
    address: SocketAddr,
    /// The authority of its certificate, if TLS comes first on it.
    authority: Option<Authority>,
}

impl Door {
    async fn client(&self) -> Client {
        let options = match &self.authority {
            None => ConnectOptions::new(),
            Some(authority) => ConnectOptions::new()
                .add_root_certificates(authority.file().into())
                .require_tls(true)
                .tls_first(),
        };
        let connecting = options.connect(self.address.to_string());
        let client = timeout(TIMEOUT, connecting).await.expect("connected in time");
        client.expect("a connection")
    }

    /// Opens connection `number`, from one of 250 addresses, sends `beginning` byte by byte, and stalls.
    async fn stall(address: SocketAddr, number: usize, beginning: &[u8]) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from(([127, 0, 1, 1 + (number % 250) as u8], 0)))?;
        socket.set_nodelay(true)?;
        let mut stream = socket.connect(address).await?;
        for byte in beginning {
            stream.write_all(&[*byte]).await?;
        }
        Ok(stream)
    }

    /// Opens all connections. Those that were evicted meanwhile are left out.
    async fn attack(&self) -> Vec<TcpStream> {
        let beginnings = if self.authority.is_some() { TLS } else { PLAIN };
        let (mut stalled, mut connecting) = (Vec::new(), JoinSet::new());
        for number in 0..STALLED {
            let beginning = beginnings[number % beginnings.len()];
            connecting.spawn(Self::stall(self.address, number, beginning));
            if connecting.len() >= CONNECTING_MAX {
                stalled.extend(connecting.join_next().await.expect("a task").expect("no panic"));
            }
        }
        while let Some(connected) = connecting.join_next().await {
            stalled.extend(connected.expect("no panic"));
        }
        stalled
    }
}

/// Two clients that were connected before the attack, and the longest waits during it.
struct Witness<'d> {
    door: &'d Door,
    publisher: Client,
    messages: Subscriber,
    longest_connect: Duration,
    longest_message: Duration,
    rounds: u32,
}

impl<'d> Witness<'d> {
    async fn new(door: &'d Door) -> Self {
        let subscriber = door.client().await;
        let messages = subscriber.subscribe("a").await.expect("a subscription");
        subscriber.flush().await.expect("a flush");
        Self {
            door,
            publisher: door.client().await,
            messages,
            longest_connect: Duration::ZERO,
            longest_message: Duration::ZERO,
            rounds: 0,
        }
    }

    /// Sends a message between the two clients, and connects a third.
    async fn round(&mut self) {
        let start = Instant::now();
        self.publisher.publish("a", "x".into()).await.expect("a publish");
        let message = timeout(TIMEOUT, self.messages.next()).await;
        assert_eq!(message.expect("in time").expect("a message").payload, "x");
        self.longest_message = self.longest_message.max(start.elapsed());
        let start = Instant::now();
        self.door.client().await.flush().await.expect("a flush");
        self.longest_connect = self.longest_connect.max(start.elapsed());
        self.rounds += 1;
    }

    /// Makes rounds during the attack and after it. Returns the connections of the attack.
    async fn watch(&mut self) -> Vec<TcpStream> {
        let mut attack = std::pin::pin!(self.door.attack());
        let stalled = loop {
            tokio::select! {
                biased;
                stalled = &mut attack => break stalled,
                () = self.round() => {}
            }
        };
        for _ in 0..10 {
            self.round().await;
        }
        assert!(self.longest_connect < PATIENCE, "{:?}", self.longest_connect);
        assert!(self.longest_message < PATIENCE, "{:?}", self.longest_message);
        stalled
    }

    #[expect(
        clippy::print_stdout,
        reason = "the figures are for the reader of the test's output"
    )]
    fn print(&self, case: &str, kib_before: u64, after: Figures, half_open: f64) {
        let kib = after.resident_kib.saturating_sub(kib_before) as f64;
        println!(
            "{case}: {half_open} half-open, {:.1} KiB each; {} rounds, longest connect {:?}, longest message {:?}",
            kib / half_open,
            self.rounds,
            self.longest_connect,
            self.longest_message
        );
    }
}

/// Returns whether each connection of the attack was evicted or is still half-open, and at most `bound` are half-open. If the limit on
/// open files is low, connections are evicted even without `bound`.
fn is_bounded(half_open: f64, evicted: f64, bound: Option<usize>) -> bool {
    half_open + evicted >= STALLED as f64 && half_open <= bound.unwrap_or(STALLED) as f64
}

/// Settings of a door with TLS first, whose handshakes may stay incomplete for the whole test.
fn tls_first(section: &str, authority: &Authority) -> [(String, String); 5] {
    let (cert, key) = authority.certify("server", &["127.0.0.1"]);
    [
        ("mode", "required".to_owned()),
        ("handshake_first", "yes".to_owned()),
        ("cert_file", cert),
        ("key_file", key),
        ("timeout_ms", "60000".to_owned()),
    ]
    .map(|(key, value)| (format!("{section}.{key}"), value))
}

/// Attacks a broker. With a bound on half-open connections the oldest are evicted.
async fn a_broker_is_attacked(has_tls: bool, bound: Option<usize>, kib_each_max: u64) {
    let mut node = Node::start(ServerKind::Standin, &[]).await;
    let authority = has_tls.then(Authority::new);
    for (key, value) in authority
        .iter()
        .flat_map(|authority| tls_first("tls.client", authority))
    {
        node.set(&key, value);
    }
    if let Some(bound) = bound {
        node.set("limits.max_half_open", bound);
    }
    node.restart().await;
    let door = Door {
        address: node.address(),
        authority,
    };
    let mut witness = Witness::new(&door).await;
    let before = node.figures().resident_kib;
    let stalled = witness.watch().await;
    let half_open = found("the bound holds", TIMEOUT, async || {
        let metrics = Metrics::read(node.http()).await;
        let half_open = metrics.value("standin_broker_half_open");
        let evicted = metrics.value("standin_broker_connections_refused_total{reason=half_open_evicted}");
        is_bounded(half_open, evicted, bound).then_some(half_open)
    })
    .await;
    let after = node.figures();
    witness.print("broker", before, after, half_open);
    assert!(
        after.resident_kib - before < kib_each_max * half_open as u64,
        "{after:?}"
    );
    if !has_tls {
        all_that_components_do(Library::Node02, &node.url(), &node.url()).await;
    }
    drop(stalled);
    witness.round().await;
}

/// Attacks a sidecar as [`a_broker_is_attacked`] does a broker.
async fn a_sidecar_is_attacked(has_tls: bool, bound: Option<usize>, kib_each_max: u64) {
    let node = Node::start(ServerKind::Standin, &[]).await;
    let authority = has_tls.then(Authority::new);
    let mut sidecar = Sidecar::builder()
        .upstream([node.url()])
        .setting("log.level", "info");
    for (key, value) in authority
        .iter()
        .flat_map(|authority| tls_first("tls.component", authority))
    {
        sidecar = match key.ends_with("_ms") {
            true => sidecar.setting(&key, 60_000),
            false => sidecar.setting(&key, value),
        };
    }
    if let Some(bound) = bound {
        sidecar = sidecar.setting("limits.half_open_max", bound as u64);
    }
    let mut sidecar = sidecar.start().await;
    let door = Door {
        address: sidecar.address(),
        authority,
    };
    let mut witness = Witness::new(&door).await;
    let before = sidecar.process().figures().resident_kib;
    let stalled = witness.watch().await;
    let half_open = found("the bound holds", TIMEOUT, async || {
        let metrics = sidecar.metrics().await;
        let half_open = metrics.value("standin_half_open");
        let evicted = metrics.value("standin_connections_refused_total{reason=half_open_evicted}");
        is_bounded(half_open, evicted, bound).then_some(half_open)
    })
    .await;
    let after = sidecar.process().figures();
    witness.print("sidecar", before, after, half_open);
    assert!(
        after.resident_kib - before < kib_each_max * half_open as u64,
        "{after:?}"
    );
    if !has_tls {
        all_that_components_do(Library::Node02, &sidecar.url(), &sidecar.url()).await;
    }
    drop(stalled);
    witness.round().await;
}

cases! {
    a_broker_is_attacked =>
    ten_thousand_half_open_connections_do_not_disturb_the_clients_of_a_broker(false, None, 16);
    half_open_handshakes_on_a_broker_are_evicted_above_the_bound(true, Some(5000), 64);
}

cases! {
    a_sidecar_is_attacked =>
    ten_thousand_half_open_connections_do_not_disturb_the_components_of_a_sidecar(false, None, 32);
    half_open_handshakes_on_a_sidecar_are_evicted_above_the_bound(true, Some(5000), 96);
}

/// When the node's limit on all connections is reached, a new connection evicts the oldest one that has not logged in.
#[tokio::test]
async fn a_client_gets_in_although_all_places_are_taken_by_connections_that_do_not_log_in() {
    let mut node = Node::start(ServerKind::Standin, &["--user", "a", "--pass", "b"]).await;
    node.set("limits.max_connections", 3);
    node.set("authorization.timeout_ms", 60_000);
    node.restart().await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(RawClient::connect(node.address()).await);
    }
    let connect = "CONNECT {\"verbose\":false,\"user\":\"a\",\"pass\":\"b\"}";
    let mut clients = Vec::new();
    for oldest in &mut silent {
        clients.push(RawClient::open_with(node.address(), connect).await);
        assert_eq!(oldest.read_to_end().await.0, b"", "closed without a word");
    }
    let stream = TcpStream::connect(node.address())
        .await
        .expect("the node listens");
    let mut refused = e2e::Conversation::new("one too many", stream);
    refused.expect("-ERR 'maximum connections exceeded'\r\n").await;
    for client in &mut clients {
        client.flush().await;
    }
}

/// As on nats-server, the first byte that cannot belong to CONNECT ends the connection, before the payload is sent.
#[tokio::test]
async fn a_payload_before_connect_is_refused_at_its_beginning() {
    for kind in [ServerKind::Standin, ServerKind::NatsServer] {
        let node = Node::start(kind, &["--user", "a", "--pass", "b"]).await;
        let sidecar = Sidecar::builder().upstream([node.url()]).start().await;
        for address in [node.address(), sidecar.address()] {
            let mut client = RawClient::connect(address).await;
            client.send("PUB a 1000000\r\nx").await;
            client.expect("-ERR 'Authorization Violation'\r\n").await;
        }
    }
}

#[tokio::test]
async fn an_address_has_a_limit_on_its_connections_and_on_their_rate() {
    let mut node = Node::start(ServerKind::Standin, &[]).await;
    node.set("limits.max_address_connections", 2);
    node.restart().await;
    let sidecar = Sidecar::builder()
        .upstream([node.url()])
        .setting("limits.address_connects_per_second_max", 20)
        .start()
        .await;
    eventually("the sidecar's probe has ended", TIMEOUT, async || {
        node.varz("connections").await == Some(0)
    })
    .await;
    let _clients = [
        RawClient::open(node.address()).await,
        RawClient::open(node.address()).await,
    ];
    let stream = TcpStream::connect(node.address())
        .await
        .expect("the node listens");
    let mut third = e2e::Conversation::new("the third", stream);
    third.expect("-ERR 'maximum connections exceeded'\r\n").await;
    let _elsewhere = Door::stall(node.address(), 0, b"CONNECT {}\r\n")
        .await
        .expect("the node listens");
    eventually("the client from another address is in", TIMEOUT, async || {
        node.varz("connections").await == Some(3)
    })
    .await;

    let mut quick = Vec::new();
    for number in 0..100 {
        quick.push(
            Door::stall(sidecar.address(), number * 250, b"")
                .await
                .expect("the sidecar listens"),
        );
    }
    let reason = "standin_connections_refused_total{reason=address_connects_per_second_max}";
    eventually("connections above the rate are refused", TIMEOUT, async || {
        sidecar.metric(reason).await >= 40.0
    })
    .await;
    RawClient::connect(sidecar.address()).await.close().await;
    let other = Door::stall(sidecar.address(), 1, b"")
        .await
        .expect("the sidecar listens");
    let mut other = e2e::Conversation::new("from another address", other);
    assert_eq!(other.read_frame().await.verb(), "INFO");
}
