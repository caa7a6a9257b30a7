//! SIGUSR2: the program on disk replaces the running sidecar in the same process. Its components notice nothing (promise S13).

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use e2e::raw::CONNECT_NEW;
use e2e::{
    Authority, Ledger, Mesh, Node, Process, Program, Publishing, RawClient, Receiving, ServerKind, Sidecar,
    TIMEOUT, eventually, peers, port,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::fifty_sessions;

/// Log line of a finished upgrade, and of one that was refused.
const DONE: &str = "sidecar upgraded";
const REFUSED: &str = "upgrade refused";

const UPGRADES: usize = 20;

/// Interval between two messages of a publisher.
const EVERY: Duration = Duration::from_millis(2);

/// Upgrades the sidecar and waits until it is done.
async fn upgrade(sidecar: &mut Process) {
    let mark = sidecar.mark();
    sidecar.signal(Signal::SIGUSR2);
    let line = sidecar.wait_for_line_after(mark, "upgrade", TIMEOUT).await;
    assert!(line.text.contains(DONE), "{line:?}");
}

#[tokio::test]
async fn s13_fifty_sessions_of_old_and_new_clients_notice_no_upgrade() {
    let mesh = Mesh::start(ServerKind::Standin, 3).await;
    let mut sidecar = Sidecar::builder().nodes(&mesh.nodes).start().await;
    let addresses = [sidecar.address()];
    let pid = sidecar.process().pid();
    let upgrades = async {
        for _ in 0..UPGRADES {
            upgrade(sidecar.process()).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    fifty_sessions::notice_nothing(&addresses, 10, upgrades).await;
    assert_eq!(sidecar.process().pid(), pid);
    let metrics = sidecar.metrics().await;
    assert_eq!(
        metrics.value("standin_upgrades_total{result=done}"),
        UPGRADES as f64
    );
    assert_eq!(metrics.value("standin_lost_total"), 0.0);
}

/// Upgrades while sessions are in planned moves: each of three nodes is restarted.
#[tokio::test]
async fn s13_fifty_sessions_notice_no_upgrade_during_a_rolling_restart() {
    let mut mesh = Mesh::start(ServerKind::Standin, 3).await;
    let mut sidecar = Sidecar::builder().nodes(&mesh.nodes).start().await;
    let addresses = [sidecar.address()];
    let events = async {
        for index in 0..mesh.nodes.len() {
            mesh.nodes[index].terminate();
            for _ in 0..3 {
                upgrade(sidecar.process()).await;
            }
            assert!(mesh.nodes[index].process().wait_for_end(TIMEOUT).await.success());
            mesh.nodes[index].restart().await;
            mesh.wait_until_whole().await;
        }
    };
    fifty_sessions::notice_nothing(&addresses, 15, events).await;
    assert_eq!(sidecar.metric("standin_lost_total").await, 0.0);
}

/// A node is killed just before each upgrade, so sessions are lost, search, join and replay while they come to rest.
#[tokio::test]
async fn s13_an_upgrade_while_a_node_dies_ends_no_connection_and_repeats_nothing() {
    let mut mesh = Mesh::start(ServerKind::Standin, 3).await;
    let mut sidecar = Sidecar::builder().nodes(&mesh.nodes).start().await;
    let mut receiving = Vec::new();
    for number in 0..6 {
        let subscriber = RawClient::open(sidecar.address()).await.subscribed("load").await;
        receiving.push(Receiving::start(subscriber, &format!("subscriber {number}")));
    }
    let mut publishing = Vec::new();
    for number in 0..3 {
        let client = RawClient::open(sidecar.address()).await;
        publishing.push(Publishing::start(client, &format!("p{number}"), "load", EVERY));
    }
    for round in 0..6 {
        let victim = round % mesh.nodes.len();
        mesh.nodes[victim].kill();
        tokio::time::sleep(Duration::from_millis(10 * round as u64)).await;
        upgrade(sidecar.process()).await;
        upgrade(sidecar.process()).await;
        mesh.restart(victim).await;
    }
    let mut ledger = Ledger::new();
    for publishing in publishing {
        let (mut client, own) = publishing.stop().await;
        client.flush().await;
        ledger.add(&own);
    }
    for receiving in receiving {
        let (mut client, mut receipts) = receiving.stop().await;
        receipts.take_all(&client.flush().await);
        assert_eq!(receipts.repeated(), [], "a message came twice");
        assert_eq!(receipts.disordered(), [], "order was lost");
        assert!(
            receipts.total() > ledger.total() / 2,
            "{} of {}",
            receipts.total(),
            ledger.total()
        );
    }
}

/// A large publish is half sent, a message is half received, an auto-unsubscribe is half used, and each command awaits its `+OK`.
#[tokio::test]
async fn s13_frames_and_answers_that_are_half_there_survive_upgrades() {
    let mesh = Mesh::start(ServerKind::Standin, 1).await;
    let mut sidecar = Sidecar::builder().nodes(&mesh.nodes).start().await;
    let verbose = CONNECT_NEW.replace(r#""verbose":false"#, r#""verbose":true"#);
    let mut client = RawClient::open_with(sidecar.address(), &verbose).await;
    client.send("SUB large 1\r\nSUB few 2\r\nUNSUB 2 3\r\n").await;
    for _ in 0..3 {
        client.expect_line("+OK").await;
    }
    let mut other = RawClient::open(sidecar.address()).await;
    let payload = "x".repeat(1_000_000);
    let frame = format!("PUB large {}\r\n{payload}\r\n", payload.len());
    let (half, rest) = frame.split_at(frame.len() / 2);
    client.send(half).await;
    upgrade(sidecar.process()).await;
    other.publish("few", "1").await;
    other.flush().await;
    client.expect_message("2", "few", "1").await;
    client.send(&rest[..10]).await;
    upgrade(sidecar.process()).await;
    client.send(&rest[10..]).await;
    client.send("PING\r\nPI").await;
    upgrade(sidecar.process()).await;
    client.send("NG\r\n").await;
    client.expect_line("+OK").await;
    client.expect_message("1", "large", &payload).await;
    client.expect_line("PONG").await;
    client.expect_line("PONG").await;
    for number in 2..6 {
        other.publish("few", number.to_string()).await;
        other.flush().await;
        upgrade(sidecar.process()).await;
    }
    client.expect_message("2", "few", "2").await;
    client.expect_message("2", "few", "3").await;
    assert_eq!(client.flush().await, [], "the subscription ended at its max");
}

#[tokio::test]
async fn s10_publishes_held_in_an_outage_survive_an_upgrade() {
    let mut mesh = Mesh::start(ServerKind::Standin, 1).await;
    let mut sidecar = Sidecar::builder().nodes(&mesh.nodes).start().await;
    let mut subscriber = RawClient::open(sidecar.address()).await.subscribed("news").await;
    let mut publisher = RawClient::open(sidecar.address()).await;
    mesh.nodes[0].kill();
    eventually("no session has a node", TIMEOUT, async || {
        sidecar.session_nodes().await == [None, None]
    })
    .await;
    publisher.publish("news", "before").await;
    upgrade(sidecar.process()).await;
    publisher.publish("news", "after").await;
    upgrade(sidecar.process()).await;
    mesh.restart(0).await;
    subscriber.expect_message("1", "news", "before").await;
    subscriber.expect_message("1", "news", "after").await;
    assert_eq!(sidecar.process().count_lines("no node reachable"), 1);
    sidecar
        .process()
        .wait_for_line("node reachable again", TIMEOUT)
        .await;
}

/// A sidecar whose program can be replaced on disk.
struct Installed {
    folder: TempDir,
    sidecar: Process,
    address: std::net::SocketAddr,
}

impl Installed {
    async fn start(node: &Node, more: &[&str]) -> Self {
        let folder = TempDir::new().expect("a folder");
        let address = port::free_address();
        let installed = folder.path().join("sidecar");
        std::fs::copy(peers::sidecar_binary(), &installed).expect("a copy of the program");
        let settings = folder.path().join("proxy.toml");
        let text = format!(
            "listen = [\"{address}\"]\n[nodes]\nupstream = [\"{}\"]\n",
            node.url()
        );
        std::fs::write(&settings, text).expect("the settings");
        let program = Program::new(installed).args(["--config", &settings.display().to_string()]);
        let mut sidecar = program.args(more).start("the sidecar");
        sidecar.wait_for_line("listening for components", TIMEOUT).await;
        Self {
            folder,
            sidecar,
            address,
        }
    }

    fn program(&self) -> PathBuf {
        self.folder.path().join("sidecar")
    }

    /// Returns the address of a Unix socket in the folder.
    fn socket(&self, name: &str) -> String {
        format!("unix:{}/{name}", self.folder.path().display())
    }

    /// Changes the settings: the sidecar is to listen on these addresses too, each with a listener of its own.
    fn listen_also(&self, node: &Node, more: &[String]) {
        let mut text = format!("[nodes]\nupstream = [\"{}\"]\n", node.url());
        for address in [self.address.to_string()].iter().chain(more) {
            text += &format!("[[listener]]\nlisten = [\"{address}\"]\n");
        }
        std::fs::write(self.folder.path().join("proxy.toml"), text).expect("the settings");
    }

    /// Replaces the program on disk as a package manager does: by another file.
    fn install(&self, contents: &[u8]) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, contents).expect("a file");
        std::fs::set_permissions(&new, PermissionsExt::from_mode(0o755)).expect("its permissions");
        std::fs::rename(&new, self.program()).expect("the new program");
    }

    /// Sends SIGUSR2, and waits until it is refused for this reason.
    async fn expect_refusal(&mut self, reason: &str) {
        let mark = self.sidecar.mark();
        self.sidecar.signal(Signal::SIGUSR2);
        let line = self.sidecar.wait_for_line_after(mark, "upgrade", TIMEOUT).await;
        assert!(
            line.text.contains(REFUSED) && line.text.contains(reason),
            "{line:?}"
        );
    }
}

#[tokio::test]
async fn an_upgrade_to_a_program_that_cannot_go_on_is_refused_and_nothing_changes() {
    let node = Node::start(ServerKind::Standin, &[]).await;
    let mut installed = Installed::start(&node, &[]).await;
    let mut client = RawClient::open(installed.address).await.subscribed("a").await;
    let good = std::fs::read(installed.program()).expect("the program");
    client.send("PUB a 2\r\no").await;

    std::fs::remove_file(installed.program()).expect("a missing program");
    installed.expect_refusal("No such file").await;
    installed.install(b"\x7fELF broken");
    installed.expect_refusal("Exec format error").await;
    installed.install(b"#!/bin/sh\necho nonsense\nexit 3\n");
    installed
        .expect_refusal("it ended with exit status: 3 and said nothing")
        .await;
    installed.install(b"#!/bin/sh\necho settings are valid\n");
    installed
        .expect_refusal("it does not know how to take over a running program")
        .await;
    let checked = installed.folder.path().join("checked");
    std::fs::copy(installed.program(), &checked).expect("a copy");
    std::fs::write(&checked, &good).expect("a copy");
    let changes_itself = format!("#!/bin/sh\n{} \"$@\" && touch \"$0\"\n", checked.display());
    installed.install(changes_itself.as_bytes());
    installed.expect_refusal("was replaced during the upgrade").await;
    installed.install(&good);
    let settings = installed.folder.path().join("proxy.toml");
    let valid = std::fs::read_to_string(&settings).expect("the settings");
    std::fs::write(&settings, format!("{valid}nonsense = 1\n")).expect("the settings");
    installed.expect_refusal("nonsense").await;
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port that is in use");
    let other = other
        .local_addr()
        .map(|address| (other, address))
        .expect("its address");
    let taken = valid.replace(
        &format!("\"{}\"", installed.address),
        &format!("\"{}\", \"{}\"", installed.address, other.1),
    );
    std::fs::write(&settings, taken).expect("the settings");
    installed.expect_refusal("cannot listen on").await;
    let unix = valid.replace(
        &format!("\"{}\"", installed.address),
        &format!("\"{}\", \"unix:/nonexistent/socket\"", installed.address),
    );
    std::fs::write(&settings, unix).expect("the settings");
    installed
        .expect_refusal("cannot listen on unix:/nonexistent/socket")
        .await;

    std::fs::write(&settings, valid).expect("the settings");
    upgrade(&mut installed.sidecar).await;
    client.send("k\r\n").await;
    client.expect_message("1", "a", "ok").await;
    client.flush().await;
}

/// SIGTERM comes at any moment of an upgrade. It stops the old program or the new one, and is never lost.
#[tokio::test]
async fn sigterm_during_an_upgrade_stops_the_sidecar() {
    let node = Node::start(ServerKind::Standin, &[]).await;
    for delay_ms in [0, 1, 2, 4, 7, 10, 15, 20, 30, 50, 80, 120] {
        let mut installed = Installed::start(&node, &[]).await;
        let client = RawClient::open(installed.address).await;
        installed.sidecar.signal(Signal::SIGUSR2);
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        installed.sidecar.signal(Signal::SIGTERM);
        let status = installed.sidecar.wait_for_end(TIMEOUT).await;
        assert_eq!(status.code(), Some(0), "after {delay_ms} ms");
        drop(client);
    }
}

#[tokio::test]
async fn an_upgrade_is_refused_with_embedded_nodes() {
    let address = port::free_address();
    let program = Program::new(peers::sidecar_binary());
    let mut sidecar = program
        .args(["--embedded", "--listen", &address.to_string()])
        .start("the sidecar");
    sidecar.wait_for_line("listening for components", TIMEOUT).await;
    let mut client = RawClient::open(address).await;
    sidecar.signal(Signal::SIGUSR2);
    let line = sidecar.wait_for_line(REFUSED, TIMEOUT).await;
    assert!(line.text.contains("--embedded"), "{line:?}");
    client.flush().await;
}

/// The keys of a TLS connection cannot be passed on, so the session gets a new connection to its node.
#[tokio::test]
async fn s13_a_session_whose_node_has_tls_gets_a_new_connection_and_loses_no_publish() {
    let authority = Authority::new();
    let (cert, key) = authority.certify("node", &["127.0.0.1"]);
    let node = Node::start(
        ServerKind::Standin,
        &["--tls", "--tlscert", &cert, "--tlskey", &key],
    )
    .await;
    let mut sidecar = Sidecar::builder()
        .upstream([format!("tls://{}", node.address())])
        .setting("tls.node.ca_file", authority.file())
        .start()
        .await;
    let mut subscriber = RawClient::open(sidecar.address()).await.subscribed("own").await;
    let mut client = RawClient::open(sidecar.address()).await;
    for number in 0..3 {
        client.publish("own", format!("before-{number}")).await;
        upgrade(sidecar.process()).await;
        subscriber.flush().await;
        let payload = format!("after-{number}");
        client.publish("own", &payload).await;
        subscriber.expect_message("1", "own", &payload).await;
    }
    let metrics = sidecar.metrics().await;
    assert_eq!(metrics.value("standin_in_doubt_total"), 0.0);
    assert_eq!(metrics.value("standin_lost_total"), 0.0);
}

async fn with_optional_tls(node: &Node, authority: &Authority) -> Sidecar {
    let (cert, key) = authority.certify("server", &["127.0.0.1"]);
    let sidecar = Sidecar::builder()
        .upstream([node.url()])
        .setting("tls.component.mode", "optional")
        .setting("tls.component.cert_file", cert)
        .setting("tls.component.key_file", key);
    sidecar.start().await
}

/// A component with TLS is closed after all that it has sent has reached the node, and reconnects. One without TLS on the same port notices
/// nothing.
#[tokio::test]
async fn an_upgrade_closes_components_with_tls_in_an_orderly_way() {
    const BEFORE: usize = 1000;
    let authority = Authority::new();
    let node = Node::start(ServerKind::Standin, &[]).await;
    let mut sidecar = with_optional_tls(&node, &authority).await;
    let mut plain = RawClient::open(sidecar.address()).await.subscribed("a").await;
    plain.flush().await;
    let client = async_nats::ConnectOptions::new()
        .add_root_certificates(authority.file().into())
        .require_tls(true)
        .connect(format!("tls://{}", sidecar.address()))
        .await
        .expect("a connection");
    for number in 0..BEFORE {
        client
            .publish("a", number.to_string().into())
            .await
            .expect("a publish");
    }
    // The library has written all of them, and has no answer yet.
    client.flush().await.expect("a flush");
    let connections = client.statistics();
    let connects = || connections.connects.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(connects(), 1);
    upgrade(sidecar.process()).await;
    for number in 0..BEFORE {
        plain.expect_message("1", "a", &number.to_string()).await;
    }
    eventually("the component with TLS is back", TIMEOUT, async || {
        connects() == 2
    })
    .await;
    client.publish("a", "after".into()).await.expect("a publish");
    plain.expect_message("1", "a", "after").await;
    plain.flush().await;
}

/// Each of two components has read INFO, and has sent nothing before the upgrade.
#[tokio::test]
async fn a_component_may_begin_tls_or_not_after_an_upgrade() {
    let authority = Authority::new();
    let node = Node::start(ServerKind::Standin, &[]).await;
    let mut sidecar = with_optional_tls(&node, &authority).await;
    let mut plain = RawClient::connect(sidecar.address()).await;
    let mut with_tls = BufReader::new(TcpStream::connect(sidecar.address()).await.expect("a connection"));
    let mut info = String::new();
    with_tls.read_line(&mut info).await.expect("INFO");
    assert!(info.contains("\"tls_available\":true"), "{info}");
    upgrade(sidecar.process()).await;
    plain.send("CONNECT {}\r\n").await;
    plain.flush().await;
    // A handshake message without content. TLS answers with an alert.
    with_tls
        .write_all(&[22, 3, 1, 0, 4, 1, 0, 0, 0])
        .await
        .expect("a write");
    assert_eq!(with_tls.read_u8().await.expect("an answer"), 21);
}

#[tokio::test]
async fn an_address_that_cannot_be_used_after_an_upgrade_ends_no_session() {
    let node = Node::start(ServerKind::Standin, &[]).await;
    let mut installed = Installed::start(&node, &[]).await;
    let mut client = RawClient::open(installed.address).await.subscribed("a").await;
    let (own, path) = (installed.socket("own"), installed.folder.path().join("own"));
    installed.listen_also(&node, std::slice::from_ref(&own));
    upgrade(&mut installed.sidecar).await;
    RawClient::open_unix(&path).await.flush().await;

    // The file is gone, so nobody can connect. The new program makes it again.
    std::fs::remove_file(&path).expect("the file of the socket");
    upgrade(&mut installed.sidecar).await;
    let in_use = RawClient::open_unix(&path).await;

    // Two names of one file.
    let twice = [own, installed.socket("twice"), installed.socket("./twice")];
    installed.listen_also(&node, &twice);
    let mark = installed.sidecar.mark();
    upgrade(&mut installed.sidecar).await;
    let text = "the sidecar goes on without it";
    installed.sidecar.wait_for_line_after(mark, text, TIMEOUT).await;
    client.publish("a", "1").await;
    client.expect_message("1", "a", "1").await;

    installed.listen_also(&node, &[]);
    installed.expect_refusal("has components (1)").await;
    in_use.close().await;
    eventually(
        "the listener without components can be removed",
        TIMEOUT,
        async || {
            let mark = installed.sidecar.mark();
            installed.sidecar.signal(Signal::SIGUSR2);
            let line = installed
                .sidecar
                .wait_for_line_after(mark, "upgrade", TIMEOUT)
                .await;
            line.text.contains(DONE)
        },
    )
    .await;
    client.flush().await;
}

/// Sends the signal to the children of a process. Returns how many there were.
fn signal_children(process: u32, signal: Signal) -> usize {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).expect("the process runs");
    let children = threads.flatten().map(|thread| thread.path().join("children"));
    let children = children.filter_map(|children| std::fs::read_to_string(children).ok());
    let children: String = children.collect();
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    // A child may have ended meanwhile.
    let signalled = children.filter(|child| kill(Pid::from_raw(*child), signal).is_ok());
    signalled.count()
}

/// `systemctl kill` sends the signal to all processes of the unit, also to the program that checks the state.
#[tokio::test]
async fn s13_a_signal_to_all_processes_of_the_unit_upgrades_the_sidecar() {
    let node = Node::start(ServerKind::Standin, &[]).await;
    let mut installed = Installed::start(&node, &[]).await;
    let mut client = RawClient::open(installed.address).await;
    let process = installed.sidecar.pid();
    let mut signalled = 0;
    for _ in 0..5 {
        let mark = installed.sidecar.mark();
        installed.sidecar.signal(Signal::SIGUSR2);
        let upgraded = installed.sidecar.wait_for_line_after(mark, "upgrade", TIMEOUT);
        let to_children = async {
            loop {
                signalled += signal_children(process, Signal::SIGUSR2);
                tokio::task::yield_now().await;
            }
        };
        let line = tokio::select! {
            line = upgraded => line,
            () = to_children => unreachable!("it never ends"),
        };
        assert!(line.text.contains(DONE), "{line:?}");
        client.flush().await;
    }
    assert!(signalled > 0, "no child got the signal");
}

/// A program that leaves a process behind, which keeps its output open.
#[tokio::test]
async fn a_check_leaves_no_process_behind_and_its_reason_is_logged() {
    let node = Node::start(ServerKind::Standin, &[]).await;
    let mut installed = Installed::start(&node, &[]).await;
    let pid = installed.folder.path().join("pid");
    let script = format!(
        "#!/bin/sh\nsleep 1000 &\necho $! > {}\necho not today >&2\nexit 3\n",
        pid.display()
    );
    installed.install(script.as_bytes());
    installed.expect_refusal("not today").await;
    let pid = std::fs::read_to_string(pid).expect("the script has run");
    let process = PathBuf::from("/proc").join(pid.trim());
    eventually(
        "the process that was left behind has ended",
        TIMEOUT,
        async || {
            let state = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
            state.is_empty() || state.contains(") Z ")
        },
    )
    .await;
}

/// The session has ended, but its connection is not closed yet.
#[tokio::test]
async fn a_session_that_has_just_ended_is_counted_over_an_upgrade() {
    let node = Node::start(ServerKind::Standin, &[]).await;
    let mut sidecar = Sidecar::builder().upstream([node.url()]).start().await;
    let mut client = RawClient::open(sidecar.address()).await;
    let closed = "standin_sessions_closed_total{reason=component_protocol}";
    let (before, bytes) = (
        sidecar.metric(closed).await,
        "standin_bytes_total{direction=to_component}",
    );
    client.publish("a", "1").await;
    client.flush().await;
    let received = sidecar.metric(bytes).await;
    client.send("FOO\r\n").await;
    client.read_until("-ERR").await;
    upgrade(sidecar.process()).await;
    assert_eq!(sidecar.metric(closed).await, before + 1.0);
    assert!(sidecar.metric(bytes).await >= received);
    client.read_to_end().await;
}

/// With no file descriptor left, the state cannot be written.
#[tokio::test]
async fn an_upgrade_without_a_free_file_descriptor_is_refused_and_a_later_one_succeeds() {
    let node = Node::start(ServerKind::Standin, &[]).await;
    let mut installed = Installed::start(&node, &[]).await;
    let mut client = RawClient::open(installed.address).await.subscribed("a").await;
    let pid = installed.sidecar.pid();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("its files")
        .count();
    let limit = |files: &str| {
        let mut command = std::process::Command::new("prlimit");
        let status = command
            .args(["--pid", &pid.to_string(), &format!("--nofile={files}:4096")])
            .status();
        assert!(status.expect("prlimit").success());
    };
    limit(&open.to_string());
    installed.expect_refusal("Too many open files").await;
    client.publish("a", "1").await;
    client.expect_message("1", "a", "1").await;
    limit("4096");
    upgrade(&mut installed.sidecar).await;
    client.publish("a", "2").await;
    client.expect_message("1", "a", "2").await;
}
