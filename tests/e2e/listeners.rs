//! Several listeners of one sidecar (`[[listener]]`): Unix sockets, peers, and what each listener's components may do.

use e2e::raw::{CONNECT_NEW, unix_stream};
use e2e::{
    Authority, Component, Frame, Library, Node, Process, Program, RawClient, ServerKind, Sidecar, eventually,
    peers,
};
use nix::sys::signal::Signal;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UnixStream};

const TIMEOUT: Duration = Duration::from_secs(20);

/// The old libraries know TCP only. Returns an address whose connections are passed on to a Unix socket.
async fn relay(path: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let path = path.clone();
            tokio::spawn(async move {
                let mut unix = UnixStream::connect(path).await?;
                tokio::io::copy_bidirectional(&mut tcp, &mut unix).await
            });
        }
    });
    address
}

/// Starts two nodes, and a sidecar that listens on a Unix socket too.
async fn with_unix_socket() -> ([Node; 2], Sidecar, PathBuf) {
    let nodes = [
        Node::start(ServerKind::NatsServer, &[]).await,
        Node::start(ServerKind::Standin, &[]).await,
    ];
    let sidecar = Sidecar::builder()
        .nodes(&nodes)
        .listeners(
            "[[listener]]\nlisten = [\"ADDRESS\", \"unix:FOLDER/nats.sock\"]\nsocket_mode = \"0600\"\n",
        )
        .start()
        .await;
    let path = sidecar.folder().join("nats.sock");
    (nodes, sidecar, path)
}

#[tokio::test]
async fn old_components_work_over_a_unix_socket_also_through_kills() {
    let (mut nodes, mut sidecar, path) = with_unix_socket().await;
    let file = std::fs::metadata(&path).expect("the socket file");
    assert!(
        file.file_type().is_socket() && file.mode() & 0o777 == 0o600,
        "{file:?}"
    );
    let relayed = format!("nats://{}", relay(path.clone()).await);
    let mut components = Vec::new();
    for library in [Library::Node02, Library::NatsPython, Library::C, Library::Go] {
        let mut component = Component::connect(library, &relayed).await;
        component.subscribe("all", "a");
        component.flush().await;
        components.push(component);
    }
    let mut client = RawClient::open_unix(&path).await;
    client.subscribe("a", "1").await;
    client.flush().await;
    let row = &sidecar.session_rows().await[0];
    let peer = format!("unix:uid={},gid={},pid=", file.uid(), file.gid());
    assert!(
        row["component"]
            .as_str()
            .is_some_and(|text| text.starts_with(&peer)),
        "{row}"
    );
    let mut texts = Vec::new();
    for (killed, other) in [(0, 1), (1, 0)] {
        nodes[killed].kill();
        eventually("all sessions are on the other node", TIMEOUT, async || {
            nodes[other]
                .num_subscriptions()
                .await
                .is_some_and(|count| count >= 5)
        })
        .await;
        let text = format!("after the kill of {killed}");
        client.publish("a", &text).await;
        client.expect_message("1", "a", &text).await;
        texts.push(text);
        for component in &mut components {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            component.expect_payloads("all", &texts).await;
            assert!(component.troubles().is_empty(), "{:?}", component.troubles());
        }
        nodes[killed].restart().await;
    }
    sidecar.process().signal(Signal::SIGTERM);
    let status = sidecar.process().wait_for_end(TIMEOUT).await;
    assert!(status.success() && !path.exists(), "{status}");
}

#[tokio::test]
async fn the_socket_of_a_killed_sidecar_is_replaced_and_that_of_a_living_one_is_not() {
    let (_nodes, mut sidecar, path) = with_unix_socket().await;
    sidecar.kill();
    assert!(path.exists());
    sidecar.restart().await;
    // The line comes when all sockets listen.
    sidecar
        .process()
        .wait_for_line("listening for components", TIMEOUT)
        .await;
    RawClient::open_unix(&path).await;
    let mut second: Process = Program::new(peers::sidecar_binary())
        .args(["--upstream", "127.0.0.1:1", "--listen"])
        .arg(format!("unix:{}", path.display()))
        .start("a second sidecar");
    second
        .wait_for_line("another process listens on it", TIMEOUT)
        .await;
    assert_eq!(second.wait_for_end(TIMEOUT).await.code(), Some(69));
    RawClient::open_unix(&path).await;
}

#[tokio::test]
async fn only_the_allowed_users_and_groups_may_connect_to_a_unix_socket() {
    let node = Node::start(ServerKind::Standin, &[]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = std::fs::metadata(folder.path()).expect("its owner");
    let (uid, gid) = (file.uid(), file.gid());
    for (rule, is_allowed) in [
        (format!("uids = [{uid}]"), true),
        (format!("gids = [{gid}]"), true),
        (format!("uids = [{}]\ngids = [{gid}]", uid + 1), true),
        (format!("uids = [{}]\ngids = [{}]", uid + 1, gid + 1), false),
    ] {
        let tables = format!(
            "[[listener]]\nlisten = [\"ADDRESS\"]\n[[listener]]\nlisten = [\"unix:FOLDER/nats.sock\"]\n{rule}\n"
        );
        let sidecar = Sidecar::builder()
            .upstream([node.url()])
            .listeners(&tables)
            .start()
            .await;
        let path = sidecar.folder().join("nats.sock");
        if is_allowed {
            RawClient::open_unix(&path).await;
            continue;
        }
        let mut refused = e2e::Conversation::new("refused", unix_stream(&path));
        let (bytes, _) = refused.read_to_end().await;
        assert!(bytes.is_empty(), "{rule}: {bytes:?}");
        let count = sidecar
            .metric("standin_connections_refused_total{reason=peer}")
            .await;
        assert_eq!(count, 1.0, "{rule}");
    }
}

/// The first listener has credentials for its components, the second has TLS, and the third has neither.
#[tokio::test]
async fn each_listener_has_its_own_credentials_and_tls() {
    let authority = Authority::new();
    let (cert, key) = authority.certify("sidecar", &["127.0.0.1"]);
    let node = Node::start(ServerKind::NatsServer, &["--user", "a", "--pass", "b"]).await;
    let tables = format!(
        "[[listener]]\nlisten = [\"ADDRESS\"]\ncredentials = {{ user = \"a\", password = \"b\" }}\n\
         [[listener]]\nlisten = [\"unix:FOLDER/open.sock\"]\n[listener.tls]\nmode = \"required\"\n\
         cert_file = {cert:?}\nkey_file = {key:?}\n\
         [[listener]]\nlisten = [\"unix:FOLDER/none.sock\"]\n"
    );
    let sidecar = Sidecar::builder()
        .upstream([node.url()])
        .listeners(&tables)
        .start()
        .await;
    let client = RawClient::open(sidecar.address()).await;
    let info = client.info();
    assert!(
        info["auth_required"] != true && info["tls_required"] != true,
        "{info}"
    );
    let mut encrypted = e2e::Conversation::new("TLS", unix_stream(&sidecar.folder().join("open.sock")));
    let info = encrypted.read_frame().await.json();
    assert!(
        info["auth_required"] == true && info["tls_required"] == true,
        "{info}"
    );
    let mut without = e2e::Conversation::new("none", unix_stream(&sidecar.folder().join("none.sock")));
    let info = without.read_frame().await.json();
    assert!(
        info["auth_required"] == true && info["tls_required"] != true,
        "{info}"
    );
    without.send("CONNECT {\"verbose\":false}\r\nPING\r\n").await;
    without.expect_line("-ERR 'Authorization Violation'").await;
}

const RULES: &str = r#"publish = { allow = ["a.*", "b.>", "_INBOX.>"], deny = ["a.x", "b.*.secret"] }
subscribe = { allow = ["a.*", "b.>", "q", "q v1", "q v1.>", "r w"], deny = ["a.x", "b.secret.>", "> *.prod"] }
"#;

/// Starts a server that gives its user [`RULES`].
async fn restricted(folder: &Path) -> Node {
    let conf = folder.join("nats.conf");
    let rules = RULES.replace(" =", ":");
    let text =
        format!("authorization {{ users: [ {{ user: u, password: p, permissions: {{\n{rules}}} }} ] }}\n");
    std::fs::write(&conf, text).expect("the settings are written");
    Node::start(ServerKind::NatsServer, &["-c", &conf.display().to_string()]).await
}

/// Starts a sidecar that gives its components [`RULES`].
async fn restricting(nodes: &[Node]) -> Sidecar {
    let tables = format!("[[listener]]\nlisten = [\"ADDRESS\"]\n{RULES}");
    Sidecar::builder().nodes(nodes).listeners(&tables).start().await
}

#[tokio::test]
async fn forbidden_commands_are_answered_as_by_nats_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let theirs = restricted(folder.path()).await;
    let nodes = [Node::start(ServerKind::NatsServer, &[]).await];
    let ours = restricting(&nodes).await;
    let mut monitor = nodes[0].subscriber(">").await;
    for is_verbose in [false, true] {
        let connect = CONNECT_NEW.replace(
            "\"verbose\":false",
            &format!("\"user\":\"u\",\"pass\":\"p\",\"verbose\":{is_verbose}"),
        );
        let mut server = RawClient::open_with(theirs.address(), &connect).await;
        let mut component = RawClient::open_with(ours.address(), &connect).await;
        let mut refused = 0;
        for command in [
            "PUB a.b 1\r\n1",
            "PUB a.x 1\r\n2",
            "PUB a.b.c 1\r\n3",
            "PUB c 1\r\n4",
            "PUB c _INBOX.1 1\r\n5",
            "PUB b.c.d 1\r\n6",
            "PUB b.c.secret 1\r\n7",
            "HPUB c 12 13\r\nNATS/1.0\r\n\r\n8",
            "HPUB b.1 12 13\r\nNATS/1.0\r\n\r\n9",
            "SUB a.b 1",
            "SUB a.x 2",
            "SUB c 3",
            "SUB > 4",
            "SUB b.1.* 5",
            "SUB b.secret.1 6",
            "SUB q 7",
            "SUB q v1 8",
            "SUB q v2 9",
            "SUB q v1.x.y 10",
            "SUB q v1.prod 11",
            "SUB r 12",
            "SUB r w 13",
            "SUB r v 14",
            "SUB b.1 any 15",
            "PUB c 1\r\n1\r\nPING\r\nPUB c 1\r\n2\r\nSUB d 16",
        ] {
            let mut answers = [Vec::new(), Vec::new()];
            for (client, answers) in [&mut server, &mut component].into_iter().zip(&mut answers) {
                client.send(format!("{command}\r\n")).await;
                // A PING within the command has its own PONG.
                for _ in 0..=usize::from(command.contains("PING")) {
                    let frames = client.flush().await;
                    // nats-server sends a second INFO after the login.
                    let frames = frames.iter().filter(|frame| frame.verb() != "INFO");
                    answers.extend(frames.map(Frame::line));
                }
            }
            assert_eq!(answers[1], answers[0], "{command:?} verbose={is_verbose}");
            refused += answers[1]
                .iter()
                .filter(|line| line.contains("Permissions Violation"))
                .count();
        }
        assert_eq!(refused, 17, "some were refused, and some were not");
    }
    // The node has got what was allowed, and nothing else.
    let passed = ["1", "6", "9"].repeat(2);
    for payload in passed {
        let frame = monitor.read_command().await;
        assert!(frame.payload() == payload.as_bytes(), "{frame:?}");
    }
    assert!(monitor.flush().await.is_empty());
    let errors = ours.metric("standin_client_errors_total{kind=permissions}").await;
    assert_eq!(errors, 34.0);
}

/// `nats-server` lets an entry `a.*` cover a subscription to `a.>`, and filters the messages of a subscription that overlaps a
/// denied subject. The sidecar refuses both.
#[tokio::test]
async fn a_subscription_that_could_receive_a_denied_message_is_refused() {
    let nodes = [Node::start(ServerKind::Standin, &[]).await];
    let sidecar = restricting(&nodes).await;
    let mut component = RawClient::open(sidecar.address()).await;
    for subject in ["a.*", "a.>", "b.>", "b.*.1"] {
        component.subscribe(subject, "1").await;
        let answer = format!("-ERR 'Permissions Violation for Subscription to \"{subject}\"'");
        component.expect_line(&answer).await;
    }
    assert!(component.flush().await.is_empty());
    assert_eq!(nodes[0].num_subscriptions().await, Some(0));
}

#[tokio::test]
async fn what_was_refused_stays_out_of_the_journal_and_old_components_go_on() {
    let mut nodes = [
        Node::start(ServerKind::NatsServer, &[]).await,
        Node::start(ServerKind::Standin, &[]).await,
    ];
    let sidecar = restricting(&nodes).await;
    // `Library::Node08` is left out: it parses an `-ERR` again and again, also one from nats-server.
    let libraries = [
        Library::Node02,
        Library::NatsPython,
        Library::Node14,
        Library::C,
        Library::Go,
    ];
    let mut components = Vec::new();
    for library in libraries {
        let mut component = Component::connect(library, &sidecar.url()).await;
        component.subscribe("allowed", "a.b");
        component.flush().await;
        components.push(component);
    }
    let mut client = RawClient::open(sidecar.address()).await;
    for component in &mut components[2..] {
        component.subscribe("forbidden", "c");
        component.publish("c", "forbidden");
        // The errors come before the end of the flush, and are expected.
        let mark = component.process().mark();
        component.say("flush");
        let flushed = component.process().wait_for_line_after(mark, "flushed", TIMEOUT);
        flushed.await;
    }
    let mut texts = Vec::new();
    for (killed, other) in [(0, 1), (1, 0), (0, 1)] {
        nodes[killed].kill();
        eventually("all sessions are on the other node", TIMEOUT, async || {
            nodes[other]
                .num_subscriptions()
                .await
                .is_some_and(|count| count >= libraries.len() as u64)
        })
        .await;
        let mut monitor = nodes[other].subscriber("c").await;
        let text = format!("{}", texts.len());
        client.publish("c", &text).await;
        client.publish("a.b", &text).await;
        client
            .expect_line("-ERR 'Permissions Violation for Publish to \"c\"'")
            .await;
        client.flush().await;
        texts.push(text);
        assert!(monitor.flush().await.is_empty());
        monitor.publish("c", "to those who have subscribed").await;
        monitor.publish("a.b", "last").await;
        texts.push("last".to_owned());
        for component in &mut components {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            component.expect_payloads("allowed", &texts).await;
            assert!(component.payloads("forbidden").is_empty());
        }
        monitor.close().await;
        nodes[killed].restart().await;
    }
    for component in &components {
        let closed = component
            .troubles()
            .iter()
            .any(|text| text.starts_with("closed") || text.starts_with("disc"));
        assert!(!closed, "{:?}: {:?}", component.library(), component.troubles());
    }
}

#[tokio::test]
async fn a_reload_changes_permissions_at_once_and_keeps_sockets() {
    let nodes = [Node::start(ServerKind::Standin, &[]).await];
    let mut sidecar = restricting(&nodes).await;
    let mut client = RawClient::open(sidecar.address()).await;
    client.answer_pings();
    client.publish("c", "1").await;
    client
        .expect_line("-ERR 'Permissions Violation for Publish to \"c\"'")
        .await;
    let mark = sidecar.process().mark();
    sidecar.reload_listeners("publish = { allow = [", "publish = { allow = [\"c\", ");
    sidecar
        .process()
        .wait_for_line_after(mark, "settings reloaded", TIMEOUT)
        .await;
    client.publish("c", "2").await;
    assert!(client.flush().await.is_empty());
    let mark = sidecar.process().mark();
    sidecar.reload_listeners("listen = [", "listen = [\"127.0.0.1:1\", ");
    sidecar
        .process()
        .wait_for_line_after(mark, "setting change needs a restart", TIMEOUT)
        .await;
    // This line comes after the other one, and is not to be taken for that of the next reload.
    sidecar
        .process()
        .wait_for_line_after(mark, "settings reloaded", TIMEOUT)
        .await;
    client.publish("c", "3").await;
    assert!(client.flush().await.is_empty());
    // The permissions change in the same file as the sockets.
    let mark = sidecar.process().mark();
    sidecar.reload_listeners("allow = [\"c\", ", "allow = [");
    sidecar
        .process()
        .wait_for_line_after(mark, "settings reloaded", TIMEOUT)
        .await;
    client.publish("c", "4").await;
    client
        .expect_line("-ERR 'Permissions Violation for Publish to \"c\"'")
        .await;
}

/// A PROXY protocol header, version 2, for a client at 10.1.1.2:1000 that connected to 10.0.0.1:4222, with an optional field.
const PROXY_V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\x0a\x01\x01\x02\x0a\0\0\x01\x03\xe8\x10\x7e\x04\0\x02\0\0";

/// Connects as a load balancer does, and sends these parts, each in a segment of its own.
async fn balanced(sidecar: &Sidecar, parts: &[&[u8]]) -> TcpStream {
    let mut stream = TcpStream::connect(sidecar.address()).await.expect("it listens");
    stream.set_nodelay(true).expect("a TCP socket");
    for part in parts {
        stream.write_all(part).await.expect("it is read");
        tokio::task::yield_now().await;
    }
    stream
}

#[tokio::test]
async fn the_client_that_a_load_balancer_names_is_shown_logged_and_limited() {
    let nodes = [Node::start(ServerKind::Standin, &[]).await];
    let mut sidecar = Sidecar::builder()
        .nodes(&nodes)
        .setting("limits.address_connections_max", 1)
        .listeners("[[listener]]\nlisten = [\"ADDRESS\"]\nproxy_protocol_from = [\"127.0.0.0/8\"]\n")
        .start()
        .await;
    let silent = balanced(&sidecar, &[b"PROXY TC"]).await;
    let v1 = b"PROXY TCP4 10.1.1.1 10.0.0.1 1000 4222\r\n";
    let first = balanced(&sidecar, &[v1]).await;
    let first = RawClient::open_over(first).await.subscribed("a").await;
    // INFO has the address to which the client connected, because that is where it must reconnect.
    let info = first.info();
    assert!(
        info["host"] == "10.0.0.1" && info["port"] == 4222 && info["client_ip"] == "10.1.1.1",
        "{info}"
    );
    let second = balanced(&sidecar, &[&PROXY_V2[..7], &PROXY_V2[7..20], &PROXY_V2[20..]]).await;
    let second = RawClient::open_over(second).await;
    // The limit is for each client, not for the balancer.
    let third = balanced(&sidecar, &[v1]).await;
    let (bytes, _) = e2e::Conversation::new("third", third).read_to_end().await;
    assert!(bytes.is_empty(), "{bytes:?}");
    // A connection of the balancer itself, in both versions.
    let local = &[&PROXY_V2[..12], b"\x20\0\0\0"].concat();
    for own in [&b"PROXY UNKNOWN\r\n"[..], local] {
        let own = RawClient::open_over(balanced(&sidecar, &[own]).await).await;
        let rows = sidecar.session_rows().await;
        let components: Vec<_> = rows.iter().filter_map(|row| row["component"].as_str()).collect();
        assert!(
            matches!(components[..], ["10.1.1.1:1000", "10.1.1.2:1000", own] if own.starts_with("127.0.0.1:")),
            "{components:?}"
        );
        own.close().await;
        eventually("its place is free", TIMEOUT, async || {
            sidecar.session_rows().await.len() == 2
        })
        .await;
    }
    // A health check sends nothing. A client that is not behind the balancer sends no header.
    drop(balanced(&sidecar, &[]).await);
    let check = balanced(&sidecar, &[]).await;
    check.set_zero_linger().expect("the connection ends with a reset");
    drop(check);
    let other = balanced(&sidecar, &[CONNECT_NEW.as_bytes(), b"\r\n"]).await;
    let (bytes, _) = e2e::Conversation::new("other", other).read_to_end().await;
    assert!(bytes.is_empty(), "{bytes:?}");
    let (bytes, _) = e2e::Conversation::new("silent", silent).read_to_end().await;
    assert!(bytes.is_empty(), "{bytes:?}");
    let refused = "standin_connections_refused_total{reason=proxy_header}";
    assert_eq!(sidecar.metric(refused).await, 2.0);
    let log = sidecar.process();
    assert_eq!(log.count_lines("the listener has proxy_protocol_from"), 2);
    for line in [
        "first bytes are not a PROXY protocol header",
        "no complete header within 5 s",
    ] {
        assert_eq!(log.count_lines(line), 1, "{line}");
    }
    assert!(log.has_line("component=10.1.1.1:1000") && log.has_line("component=10.1.1.2:1000"));
    drop((first, second));
}

/// A component that floods the sidecar with forbidden frames and never reads costs bounded memory, and harms nobody.
#[tokio::test]
async fn a_flood_of_forbidden_frames_costs_bounded_memory() {
    let nodes = [Node::start(ServerKind::Standin, &[]).await];
    let tables = format!("[[listener]]\nlisten = [\"ADDRESS\"]\n{RULES}");
    let sidecar = Sidecar::builder()
        .nodes(&nodes)
        .setting("session.component_pending_bytes_max", 65_536)
        .setting("session.buffer_bytes", 65_536)
        .listeners(&tables)
        .start()
        .await;
    let mut flood = RawClient::open(sidecar.address()).await;
    let frames = format!("PUB {} 0\r\n\r\n", "c".repeat(2000)).repeat(20_000);
    flood.send_until_blocked(&frames, Duration::from_secs(2)).await;
    let mut client = RawClient::open(sidecar.address()).await;
    client.publish("a.b", "x").await;
    client.flush().await;
    let rows = sidecar.session_rows().await;
    let buffered = rows.iter().filter_map(|row| row["buffered_bytes"].as_u64()).max();
    assert!(buffered.is_some_and(|bytes| bytes < 1_000_000), "{rows:?}");
}
