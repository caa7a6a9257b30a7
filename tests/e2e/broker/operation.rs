//! Operation of a broker: checks and reloads of its settings, log rotation, the ports file, lame duck mode.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use e2e::raw::{CONNECT_NEW, CONNECT_OLD};
use e2e::{Ending, Node, Process, Program, RawClient, ServerKind, TIMEOUT, eventually, found, peers};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;

fn broker(arguments: &[&str]) -> Process {
    Program::new(peers::broker_binary())
        .args(arguments)
        .start("standin-broker")
}

/// Runs the program to its end, and returns its exit code and everything that it prints.
async fn run_to_end(arguments: &[&str]) -> (i32, String) {
    let mut process = broker(arguments);
    let status = process.wait_for_end(TIMEOUT).await;
    let lines = process.lines();
    let text: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    (status.code().unwrap_or(-1), text.join("\n"))
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).expect("a file");
        // Otherwise a password in the file gives a warning.
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("its mode");
        path.display().to_string()
    }
}

#[tokio::test]
async fn settings_are_checked_and_printed_with_their_source() {
    let folder = Folder::new();
    let good = folder.write(
        "good.toml",
        "[limits]\nmax_payload = 1000\n[authorization]\ntoken = \"hunter2\"\n",
    );
    let (code, text) = run_to_end(&["-c", &good, "--check"]).await;
    assert_eq!((code, text.as_str()), (0, "settings are valid"));
    let (code, text) = run_to_end(&["--config", &good, "-p", "4333", "-DV", "--print-config"]).await;
    assert_eq!(code, 0);
    for line in [
        format!("max_payload = 1000  # {good}:2"),
        "port = 4333  # flag --port".to_owned(),
        "level = \"trace\"  # flag -V".to_owned(),
        format!("token = \"***\"  # {good}:4"),
        "max_pending = 67108864".to_owned(),
    ] {
        assert!(
            text.lines().any(|have| have == line),
            "{line} is missing in\n{text}"
        );
    }
    let bad = folder.write("bad.toml", "[limits]\n\nmax_paylod = 1000\n");
    let error = format!(
        "standin-broker: {bad}:3: unknown key `limits.max_paylod`; did you mean `limits.max_payload`?"
    );
    for arguments in [vec!["-c", &bad, "-t"], vec!["-c", &bad, "-p", "-1"]] {
        assert_eq!(run_to_end(&arguments).await, (64, error.clone()));
    }
    let (code, text) = run_to_end(&["-p", "4222x"]).await;
    assert_eq!(code, 64, "{text}");
    let (code, text) = run_to_end(&["-c", "no/such/file"]).await;
    assert_eq!(code, 64, "{text}");
    for (flag, file, error) in [
        (
            "-l",
            "/no/such/folder/log",
            "cannot open the log file /no/such/folder/log",
        ),
        (
            "-P",
            "/no/such/folder/pid",
            "cannot write the pid file /no/such/folder/pid",
        ),
        (
            "--ports_file_dir",
            "/no/such/folder",
            "cannot write the ports file /no/such/folder/standin-broker_",
        ),
    ] {
        let (code, text) = run_to_end(&["-a", "127.0.0.1", "-p", "-1", flag, file]).await;
        assert!(code == 64 && text.contains(error), "{text}");
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_used_ends_the_program_with_code_69() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port().to_string();
    for (host, ports, error) in [
        (
            "127.0.0.1",
            &["-p", &port][..],
            format!("clients on 127.0.0.1:{port}"),
        ),
        (
            "no-such-host.invalid",
            &["-p", &port],
            format!("clients on no-such-host.invalid:{port}"),
        ),
        ("127.0.0.1", &["-p", "-1", "-m", &port], "HTTP".to_owned()),
    ] {
        let (code, text) = run_to_end(&[&["-a", host], ports].concat()).await;
        assert_eq!(code, 69, "{text}");
        assert!(text.contains(&format!("cannot listen for {error}")), "{text}");
    }
}

#[tokio::test]
async fn the_ports_file_has_the_free_ports_that_were_chosen() {
    let folder = Folder::new();
    let pid = folder.path("pid");
    let ports = folder.path("");
    let mut process = broker(&[
        "-a",
        "127.0.0.1",
        "-p",
        "-1",
        "-m",
        "-1",
        "-P",
        &pid.display().to_string(),
        "--ports_file_dir",
        &ports.display().to_string(),
    ]);
    process.wait_for_line("Server is ready", TIMEOUT).await;
    assert_eq!(folder.text("pid"), process.pid().to_string());
    let name = format!("standin-broker_{}.ports", process.pid());
    let ports: Value = serde_json::from_str(&folder.text(&name)).expect("JSON");
    let address = |key: &str, scheme: &str| {
        let url = ports[key][0].as_str().unwrap_or_default().to_owned();
        url.trim_start_matches(scheme).parse().expect("an address")
    };
    let mut client = RawClient::open(address("nats", "nats://")).await;
    client.flush().await;
    let http = e2e::http::Endpoint {
        address: address("monitoring", "http://"),
        netns: None,
    };
    assert_eq!(
        http.get("/healthz").await,
        Some((200, "{\"status\":\"ok\"}".to_owned()))
    );
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait_for_end(TIMEOUT).await.code(), Some(0));
    assert!(!folder.path("pid").exists() && !folder.path(&name).exists());
}

#[tokio::test]
async fn sigint_and_sigterm_stop_the_broker_with_exit_code_0() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut server = Node::start(ServerKind::Standin, &[]).await;
        let mut client = RawClient::open(server.address()).await;
        server.process().signal(signal);
        assert_eq!(client.expect_end().await, Ending::Closed);
        assert_eq!(server.process().wait_for_end(TIMEOUT).await.code(), Some(0));
    }
}

#[tokio::test]
async fn a_reload_applies_to_connected_clients() {
    let folder = Folder::new();
    let users = |second: &str, limits: &str| {
        format!(
            "[authorization]\nusers = [{{ user = \"a\", password = \"a\" }}, {{ user = \"{second}\", password = \"b\" }}]\n\
             [limits]\n{limits}\n"
        )
    };
    let path = folder.write("broker.toml", &users("b", ""));
    let mut server = Node::start(ServerKind::Standin, &["-c", &path]).await;
    let connect = |user: &str, protocol: u32| {
        format!(
            "CONNECT {{\"verbose\":false,\"user\":\"{user}\",\"pass\":\"{user}\",\"protocol\":{protocol}}}"
        )
    };
    let mut stays = RawClient::open_with(server.address(), &connect("a", 1)).await;
    let mut old = RawClient::open_with(server.address(), &connect("a", 0)).await;
    let mut goes = RawClient::open_with(server.address(), &connect("b", 1)).await;
    let mark = server.process().mark();
    folder.write(
        "broker.toml",
        &users("c", "max_payload = 1000\nmax_subscriptions = 2"),
    );
    server.process().signal(Signal::SIGHUP);
    server
        .process()
        .wait_for_line_after(mark, "Reloaded server configuration", TIMEOUT)
        .await;
    // The user of this client was removed. nats-server, too, closes it without an error text.
    goes.expect_end().await;
    let info = stays.read_frame().await;
    assert_eq!(info.json()["max_payload"], 1000);
    stays.send("SUB a 1\r\nSUB a 2\r\nSUB a 3\r\n").await;
    stays.expect("-ERR 'maximum subscriptions exceeded'\r\n").await;
    stays
        .send(format!("PUB a 1001\r\n{}\r\n", "x".repeat(1001)))
        .await;
    stays.expect("-ERR 'Maximum Payload Violation'\r\n").await;
    assert!(old.flush().await.is_empty(), "old clients get no second INFO");
    RawClient::open_with(
        server.address(),
        &connect("c", 1).replace("\"pass\":\"c\"", "\"pass\":\"b\""),
    )
    .await;

    let mark = server.process().mark();
    folder.write("broker.toml", "[limits]\nmax_payload = 0\n");
    server.process().signal(Signal::SIGHUP);
    server
        .process()
        .wait_for_line_after(mark, "settings were not reloaded", TIMEOUT)
        .await;
    old.flush().await;
}

#[tokio::test]
async fn sigusr1_opens_a_new_log_file_after_the_old_one_was_moved() {
    let folder = Folder::new();
    let log = folder.path("log").display().to_string();
    let mut process = broker(&["-a", "127.0.0.1", "-p", "-1", "-l", &log, "-D"]);
    eventually("the broker logs into the file", TIMEOUT, async || {
        folder.text("log").contains("Server is ready")
    })
    .await;
    fs::rename(folder.path("log"), folder.path("log.1")).expect("moved");
    process.signal(Signal::SIGUSR1);
    eventually("the broker logs into a new file", TIMEOUT, async || {
        folder.text("log").contains("log file reopened")
    })
    .await;
    assert!(!folder.text("log").contains("Server is ready"));
    process.signal(Signal::SIGTERM);
    process.wait_for_end(TIMEOUT).await;
    assert!(folder.text("log").contains("Server Exiting"));
    assert_eq!(process.lines().len(), 0, "output outside the log file");
}

#[tokio::test]
async fn trace_level_logs_frames_without_secrets() {
    let mut server = Node::start(ServerKind::Standin, &["-V", "--user", "a", "--pass", "hunter2"]).await;
    let connect = "CONNECT {\"verbose\":false,\"user\":\"a\",\"pass\":\"hunter2\"}";
    let mut client = RawClient::open_with(server.address(), connect).await;
    client.send("SUB a 1\r\nPUB a 2\r\nhi\r\n").await;
    client.flush().await;
    for line in [
        "<<- [SUB a 1]",
        "<<- [PUB a 2]",
        "->> [MSG a 1 2]",
        "<<- [CONNECT ...]",
    ] {
        server.process().wait_for_line(line, TIMEOUT).await;
    }
    assert!(!server.process().has_line("hunter2"));
}

#[tokio::test]
async fn a_lame_duck_notifies_its_clients_and_closes_them_one_by_one() {
    let folder = Folder::new();
    let text = "[process]\nlame_duck_grace_secs = 1\nlame_duck_secs = 2\n";
    let path = folder.write("broker.toml", text);
    let mut server = Node::start(ServerKind::Standin, &["-c", &path]).await;
    let mut first = RawClient::open_with(server.address(), CONNECT_NEW).await;
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(RawClient::open_with(server.address(), CONNECT_OLD).await);
    }
    let start = Instant::now();
    server.process().signal(Signal::SIGUSR2);
    assert_eq!(first.read_frame().await.json()["ldm"], true);
    found("new clients are refused", TIMEOUT, async || {
        TcpStream::connect(server.address()).await.err()
    })
    .await;
    assert_eq!(
        server.http().get("/healthz").await.map(|(code, _)| code),
        Some(503)
    );
    first.subscribe("a", "1").await;
    first.flush().await;
    first.close().await;
    let mut ends = Vec::new();
    for other in &mut others {
        // Only the first PING of the server may come.
        let (received, ending) = other.read_to_end().await;
        assert!(received.is_empty() || received == b"PING\r\n", "{received:?}");
        assert_eq!(ending, Ending::Closed);
        ends.push(start.elapsed());
    }
    assert!(
        ends[0] >= Duration::from_secs(1),
        "closed before the grace time: {ends:?}"
    );
    assert!(
        ends[2] - ends[0] >= Duration::from_millis(500),
        "not one by one: {ends:?}"
    );
    assert_eq!(server.process().wait_for_end(TIMEOUT).await.code(), Some(0));
}

/// Kubernetes sends a SIGTERM after a preStop hook that has started the lame duck mode.
#[tokio::test]
async fn the_first_sigterm_in_lame_duck_mode_is_ignored_and_the_second_stops_the_broker_at_once() {
    for last in [Signal::SIGTERM, Signal::SIGINT] {
        let mut server = Node::start(ServerKind::Standin, &[]).await;
        let mut client = RawClient::open_with(server.address(), CONNECT_NEW).await;
        server.process().signal(Signal::SIGUSR2);
        assert_eq!(client.read_frame().await.json()["ldm"], true);
        server.process().signal(Signal::SIGTERM);
        server
            .process()
            .wait_for_line("SIGTERM ignored in lame duck mode", TIMEOUT)
            .await;
        client.flush().await;
        server.process().signal(last);
        assert_eq!(client.expect_end().await, Ending::Closed);
        assert_eq!(server.process().wait_for_end(TIMEOUT).await.code(), Some(0));
    }
}

#[tokio::test]
async fn the_second_sigterm_stops_a_node_of_a_cluster_at_once() {
    let mut server = Node::start(ServerKind::Standin, &["--cluster", "nats://127.0.0.1:-1"]).await;
    let mut client = RawClient::open_with(server.address(), CONNECT_NEW).await;
    server.process().signal(Signal::SIGTERM);
    assert_eq!(client.read_frame().await.json()["ldm"], true);
    client.flush().await;
    server.process().signal(Signal::SIGTERM);
    assert_eq!(client.expect_end().await, Ending::Closed);
    assert_eq!(server.process().wait_for_end(TIMEOUT).await.code(), Some(0));
}
