//! `doctor` of both programs: on a healthy set-up every row is OK, and on a broken one exactly the rows about the fault are not.

use e2e::port::free_port;
use e2e::zookeeper::{NODES_PATH, Record, Registrar};
use e2e::{Authority, Ensemble, Mesh, Node, Program, ServerKind, Sidecar, ZooKeeper, peers};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Time within which every report ends, whatever is broken.
const REPORT_TIMEOUT: Duration = Duration::from_secs(15);

/// A report: the exit code, and the rows.
struct Report {
    code: Option<i32>,
    rows: Vec<Value>,
}

impl Report {
    /// Runs a `doctor` that prints JSON.
    async fn of(program: Program) -> Self {
        let mut process = program.start("doctor");
        let status = process.wait_for_end(REPORT_TIMEOUT).await;
        let lines: Vec<String> = process.lines().iter().map(|line| line.text.clone()).collect();
        let text = lines.join("\n");
        assert!(!text.contains("s3cret"), "a secret is printed: {text}");
        let page: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let rows = page["rows"].as_array().expect("rows").clone();
        Self {
            code: status.code(),
            rows,
        }
    }

    /// Asserts that exactly these rows are not OK. Each is described by its verdict, its check, a part of its subject or of what was
    /// found, and a part of its remedy.
    #[track_caller]
    fn assert_only(&self, wanted: &[(&str, &str, &str, &str)]) {
        let bad: Vec<&Value> = self.rows.iter().filter(|row| row["verdict"] != "ok").collect();
        let has = |row: &Value, (verdict, check, found, remedy): &(&str, &str, &str, &str)| {
            let text = format!("{} {}", row["subject"], row["found"]);
            let is_remedy = row["remedy"].as_str().is_some_and(|text| text.contains(remedy));
            row["verdict"] == *verdict && row["check"] == *check && text.contains(found) && is_remedy
        };
        let all = serde_json::to_string_pretty(&self.rows).unwrap_or_default();
        for wanted in wanted {
            assert!(
                bad.iter().any(|row| has(row, wanted)),
                "{wanted:?} is missing in {all}"
            );
        }
        for row in &bad {
            assert!(
                wanted.iter().any(|wanted| has(row, wanted)),
                "{row} is not expected in {all}"
            );
        }
        let fails = wanted.iter().any(|(verdict, ..)| *verdict == "fail");
        let code = if fails { 69 } else { i32::from(!wanted.is_empty()) };
        assert_eq!(self.code, Some(code), "{all}");
    }
}

/// Returns `standin-proxy doctor --json` with these flags, on a free port.
fn doctor(flags: &[&str]) -> Program {
    let listen = format!("127.0.0.1:{}", free_port());
    Program::new(peers::sidecar_binary())
        .args(["doctor", "--json", "--listen", &listen])
        .args(flags)
}

/// An address that drops packets: its queue of connections is full, and so the kernel ignores further ones.
async fn black_hole() -> (SocketAddr, Vec<TcpStream>, TcpListener) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let listener = socket.listen(1).expect("a listener");
    let address = listener.local_addr().expect("an address");
    let mut queued = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
    {
        queued.push(stream);
    }
    (address, queued, listener)
}

/// The set-up of the sidecar's tests: three ZooKeeper servers, two registered nodes, and a sidecar that runs.
struct Cluster {
    ensemble: Ensemble,
    nodes: Vec<Node>,
    registrar: Registrar,
    sidecar: Sidecar,
}

impl Cluster {
    async fn start() -> Self {
        let (ensemble, one, two) = tokio::join!(
            Ensemble::start(),
            Node::start(ServerKind::NatsServer, &[]),
            Node::start(ServerKind::NatsServer, &[]),
        );
        let nodes = vec![one, two];
        let mut registrar = ensemble.servers[0].registrar().await;
        for (number, node) in nodes.iter().enumerate() {
            registrar
                .announce(Record::Plain, &format!("n{number}"), node.address())
                .await;
        }
        let hosts = ensemble.hosts();
        let sidecar = Sidecar::builder()
            .setting("nodes.zookeeper", hosts.as_str())
            .cached();
        Self {
            sidecar: sidecar.start().await,
            ensemble,
            nodes,
            registrar,
        }
    }
}

#[tokio::test]
async fn the_sidecars_doctor_finds_each_fault_and_no_other() {
    let mut cluster = Cluster::start().await;
    let hosts = cluster.ensemble.hosts();
    let config = cluster.sidecar.folder().join("proxy.toml").display().to_string();

    // The running sidecar holds its own addresses.
    let own = Program::new(peers::sidecar_binary()).args(["doctor", "--config", &config]);
    let report = Report::of(own.clone().arg("--json")).await;
    report.assert_only(&[]);
    let held = format!(
        "held by the running standin-proxy (pid {})",
        cluster.sidecar.process().pid()
    );
    let found = |text: &str| {
        report
            .rows
            .iter()
            .filter(|row| row["found"].as_str() == Some(text))
            .count()
    };
    assert_eq!(found(&held), 2, "{:?}", report.rows);
    let mut table = own.start("doctor");
    assert_eq!(table.wait_for_end(REPORT_TIMEOUT).await.code(), Some(0));
    assert!(table.has_line("0 WARN, 0 FAIL"), "{}", table.tail());
    table.assert_no_line("\x1b");

    let healthy = ["--zookeeper", &hosts];
    let with = |more: &[&str]| doctor(&[&healthy[..], more].concat());

    let other = StdListener::bind("127.0.0.1:0").expect("a port");
    let held = other.local_addr().expect("an address").to_string();
    let pid = format!("(pid {})", std::process::id());
    Report::of(with(&["--http", &held]))
        .await
        .assert_only(&[("fail", "listen", &pid, "or set http.listen")]);

    // The znode does not exist. A node comes from the settings, so only the path is at fault.
    let url = cluster.nodes[0].url();
    Report::of(with(&["--zookeeper-path", "/nowhere", "--upstream", &url]))
        .await
        .assert_only(&[(
            "fail",
            "zookeeper path",
            "/nowhere",
            "correct nodes.zookeeper_path",
        )]);

    cluster
        .registrar
        .put(&format!("{NODES_PATH}/bad"), "garbage")
        .await;
    Report::of(with(&[])).await.assert_only(&[(
        "fail",
        "zookeeper record",
        "bad",
        "correct or delete the znode",
    )]);
    cluster.registrar.delete(&format!("{NODES_PATH}/bad")).await;

    let copied = cluster.nodes[0].address();
    cluster.registrar.announce(Record::Plain, "copy", copied).await;
    Report::of(with(&[])).await.assert_only(&[(
        "warn",
        "zookeeper record",
        "have the same address for clients",
        "delete their records",
    )]);
    cluster.registrar.withdraw("copy").await;

    Report::of(with(&["--listen", "unix:/nowhere/proxy.sock"]))
        .await
        .assert_only(&[("fail", "listen", "/nowhere is not there", "create the folder")]);

    let below_a_file = format!("{config}/nodes.json");
    Report::of(with(&["--cache", &below_a_file])).await.assert_only(&[
        ("fail", "cache file", "it cannot be read", "delete the file"),
        ("fail", "cache file", "cannot be written", "nodes.cache_file"),
    ]);

    // One of the three servers is down: the sidecar works, so nothing else fails.
    let leader = cluster.ensemble.wait_for_leader().await;
    let follower = (0..3)
        .find(|server| *server != leader && *server != 0)
        .expect("a follower");
    let address = cluster.ensemble.servers[follower].address().to_string();
    cluster.ensemble.kill(follower);
    Report::of(with(&[])).await.assert_only(&[(
        "fail",
        "zookeeper server",
        &address,
        "start ZooKeeper there",
    )]);
}

/// As root on a host that redirects the address of the old server to the sidecar, doctor meets the sidecar.
#[tokio::test]
async fn the_sidecars_doctor_says_that_a_sidecar_answers_at_the_address_of_a_node() {
    let mut nodes = [Node::start(ServerKind::Standin, &[]).await];
    let sidecar = Sidecar::builder().nodes(&nodes).start().await;
    let address = sidecar.address().to_string();
    let well = Report::of(doctor(&["--upstream", &address])).await;
    well.assert_only(&[]);
    let found = |row: &Value| {
        row["found"]
            .as_str()
            .is_some_and(|text| text.contains("a sidecar answers"))
    };
    assert!(well.rows.iter().any(found), "{:?}", well.rows);
    nodes[0].kill();
    Report::of(doctor(&["--upstream", &address])).await.assert_only(&[
        (
            "fail",
            "node",
            "no PONG within",
            "a sidecar answers at this address",
        ),
        ("fail", "nodes", "0 of 1", ""),
    ]);
}

#[tokio::test]
async fn the_sidecars_doctor_finds_faults_of_nodes_without_zookeeper() {
    let authority = Authority::new();
    let past = |params: &mut rcgen::CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    };
    let (cert, key) = authority.certify_with("expired", &["127.0.0.1"], past);
    let tls = ["--tls", "--tlscert", &cert, "--tlskey", &key];
    let (login, expired, plain) = tokio::join!(
        Node::start_in(
            ServerKind::Standin,
            &["--user", "u", "--pass", "s3cret-right"],
            &[("STANDIN_LIMITS_MAX_PAYLOAD", "2000000")],
        ),
        Node::start(ServerKind::NatsServer, &tls),
        Node::start(ServerKind::OldNatsServer, &[]),
    );
    let of = |node: &Node, user: &str| node.url().replace("nats://", &format!("nats://{user}"));

    Report::of(doctor(&["--upstream", &of(&login, "u:s3cret-right@")]))
        .await
        .assert_only(&[]);
    Report::of(doctor(&["--upstream", &of(&login, "u:s3cret-wrong@")]))
        .await
        .assert_only(&[
            (
                "fail",
                "node",
                "Authorization Violation",
                "correct nodes.upstream",
            ),
            ("fail", "nodes", "0 of 1", "see the rows above"),
        ]);

    let urls = format!("{},{}", plain.url(), of(&login, "u:s3cret-right@"));
    Report::of(doctor(&["--upstream", &urls])).await.assert_only(&[
        ("warn", "nodes alike", "version", "none during an upgrade"),
        ("warn", "nodes alike", "max_payload", "the same max_payload"),
        ("warn", "nodes alike", "auth_required", "the same users"),
    ]);

    let tls = doctor(&["--upstream", &plain.url(), "--upstream", &expired.url()])
        .env("STANDIN_TLS_NODE_MODE", "optional")
        .env("STANDIN_TLS_NODE_CA_FILE", authority.file());
    Report::of(tls)
        .await
        .assert_only(&[("fail", "node", "certificate expired", "replace the certificate")]);
    let off = doctor(&["--upstream", &plain.url(), "--upstream", &expired.url()])
        .env("STANDIN_TLS_NODE_MODE", "off");
    Report::of(off)
        .await
        .assert_only(&[("fail", "node", "requires TLS, which is off", "set tls.node.mode")]);

    // Everything drops packets.
    let started = Instant::now();
    let (hole, _queued, _listener) = black_hole().await;
    let hole = hole.to_string();
    Report::of(doctor(&["--zookeeper", &hole, "--upstream", &hole]))
        .await
        .assert_only(&[
            ("fail", "zookeeper server", &hole, "firewall"),
            ("fail", "zookeeper ensemble", "0 of 1", "see the rows above"),
            ("fail", "node", &hole, "firewall"),
            ("fail", "nodes", "0 of 1", "see the rows above"),
        ]);
    assert!(started.elapsed() < REPORT_TIMEOUT);

    let mut wrong = doctor(&["--upstream", "nats://u:s3cret@h:p"]).start("doctor");
    assert_eq!(wrong.wait_for_end(REPORT_TIMEOUT).await.code(), Some(64));
    assert!(
        wrong.has_line("\"settings\"") && !wrong.has_line("s3cret"),
        "{}",
        wrong.tail()
    );
}

/// Serves the pages of a node named `n9`, which lists a route to `n1`, with a clock of the year 2001. Returns their address.
async fn pages_of_n9() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let count = stream.read(&mut request).await.unwrap_or(0);
            let page = if request[..count].starts_with(b"GET /routez") {
                json!({ "routes": [{ "remote_name": "n1" }] })
            } else {
                json!({ "server_name": "n9", "server_id": "N9" })
            };
            let page = page.to_string();
            let head = "HTTP/1.1 200 OK\r\nDate: Mon, 01 Jan 2001 00:00:00 GMT\r\nConnection: close";
            let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{page}", page.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn the_brokers_doctor_finds_each_fault_of_a_mesh_and_no_other() {
    let zookeeper = ZooKeeper::start().await;
    let mesh = Mesh::builder(ServerKind::Standin, 2).zookeeper(zookeeper.hosts());
    let mesh = mesh.start().await;
    let mut registrar = zookeeper.registrar().await;
    registrar.until_registered(&["n1", "n2"]).await;
    let n1 = &mesh.nodes[0];
    let doctor = ["doctor", "--json"];
    let report = Report::of(n1.command(&doctor)).await;
    report.assert_only(&[]);
    for check in ["route address", "client address", "routes", "clock", "node name"] {
        assert!(
            report.rows.iter().any(|row| row["check"] == check),
            "{check}: {:?}",
            report.rows
        );
    }

    // A node that is not started yet, with a name that another one has. Of a flag that is given twice, the
    // last one counts.
    let (port, cluster, pages) = (free_port(), free_port(), free_port());
    let other = n1
        .command(&doctor)
        .args(["-n", "n2", "-p", &port.to_string(), "-m", &pages.to_string()])
        .args([
            "--cluster",
            &format!("nats://127.0.0.1:{cluster}"),
            "--cluster_name",
            "other",
        ])
        .args(["-l", "/etc/passwd/broker.log"]);
    Report::of(other).await.assert_only(&[
        ("warn", "node name", "registered already", "another server_name"),
        ("fail", "cluster name", "n1", "set the same cluster.name"),
        ("fail", "cluster name", "n2", "set the same cluster.name"),
        ("fail", "file", "broker.log", "log.file"),
    ]);

    // A node of which only the pages can be reached, and to which n1 has no route.
    let (dead, http) = (free_port(), pages_of_n9().await);
    let at = format!("127.0.0.1:{dead}");
    let record =
        json!({ "v": 1, "id": "n9", "run": "N9", "client": at, "mesh": at, "http": http.to_string() });
    registrar
        .put(&format!("{NODES_PATH}/n9"), &record.to_string())
        .await;
    Report::of(n1.command(&doctor)).await.assert_only(&[
        ("fail", "route address", "n9", "start the node"),
        ("fail", "client address", "n9", "start the node"),
        (
            "fail",
            "routes",
            "one-way: n9 lists a route to n1, but n1 lists none to n9",
            "log of n1",
        ),
        ("fail", "routes", "none between n2 and n9", "log of"),
        ("warn", "clock", "behind the clock of this host", "NTP"),
    ]);
}
