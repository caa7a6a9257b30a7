//! `standin-broker announce`: an agent beside each unmodified nats-server registers it in ZooKeeper. So a cluster of nats-servers serves
//! the sidecar as well as one of standin-broker nodes.

use crate::site::{TIMEOUT, component_of, is_served, session_moves_from};
use e2e::zookeeper::NODES_PATH;
use e2e::{
    Authority, Library, Mesh, Node, Process, Program, Registrar, ServerKind, Sidecar, ZooKeeper, eventually,
    peers,
};
use nix::sys::signal::Signal;
use std::net::SocketAddr;
use std::path::Path;

/// The shortest session timeout of ZooKeeper that the registry accepts, in milliseconds.
const SESSION_TIMEOUT_MS: &str = "4000";

fn announce(node: SocketAddr) -> Program {
    let node = node.to_string();
    Program::new(peers::broker_binary()).args(["announce", "--node", &node, "--advertise", &node])
}

/// Starts an agent with short times.
fn agent(node: &Node, zookeeper: &ZooKeeper, flags: &[&str]) -> Process {
    let program = announce(node.address())
        .args(["--zookeeper", &zookeeper.hosts()])
        .args(["--zookeeper-session-timeout-ms", SESSION_TIMEOUT_MS])
        .args(["--interval-ms", "100", "--timeout-ms", "300"])
        .args(flags);
    program.start(format!("agent of {}", node.name()))
}

/// Waits until the record of this node has this state.
async fn until_state(registrar: &mut Registrar, id: &str, state: &str) {
    let path = format!("{NODES_PATH}/{id}");
    let wanted = format!("\"state\":\"{state}\"");
    eventually(format!("{id} is {state}"), TIMEOUT, async || {
        registrar.get(&path).await.contains(&wanted)
    })
    .await;
}

/// Returns the names of all nodes but this one.
fn others(cluster: &Mesh, index: usize) -> Vec<&str> {
    let nodes = cluster.nodes.iter().enumerate();
    nodes
        .filter(|(at, _)| *at != index)
        .map(|(_, node)| node.name())
        .collect()
}

#[tokio::test]
async fn a_sidecar_finds_stock_servers_that_agents_register_and_moves_sessions_between_them() {
    let (mut zookeeper, mut cluster) =
        tokio::join!(ZooKeeper::start(), Mesh::start(ServerKind::NatsServer, 3));
    let mut registrar = zookeeper.registrar().await;
    let mut agents: Vec<Process> = Vec::new();
    for node in &cluster.nodes {
        let http = node.http().address.to_string();
        agents.push(agent(node, &zookeeper, &["--http", &http]));
    }
    let all = ["n1", "n2", "n3"];
    registrar.until_registered(&all).await;
    let sidecar = Sidecar::builder().zookeeper(&zookeeper).start().await;
    eventually("the sidecar knows all nodes", TIMEOUT, async || {
        sidecar.node_rows().await.len() == 3
    })
    .await;
    let mut component = component_of(Library::NatsPython, &sidecar.url()).await;

    // A node dies: its record goes at once, because its port refuses connections.
    let address = sidecar.wait_for_node_of_session().await;
    let index = cluster.index_of(address).expect("a node");
    cluster.nodes[index].kill();
    agents[index]
        .wait_for_line("unregistering the server", TIMEOUT)
        .await;
    agents[index].assert_no_line("no PONG");
    registrar.until_registered(&others(&cluster, index)).await;
    session_moves_from(address, &sidecar).await;
    is_served(&mut component, "after-a-kill").await;
    cluster.nodes[index].restart().await;
    registrar.until_registered(&all).await;

    // A node freezes: its record goes after a few checks, and comes back when it answers again.
    let address = sidecar.wait_for_node_of_session().await;
    let index = cluster.index_of(address).expect("a node");
    cluster.nodes[index].freeze().await;
    registrar.until_registered(&others(&cluster, index)).await;
    session_moves_from(address, &sidecar).await;
    is_served(&mut component, "after-a-freeze").await;
    cluster.nodes[index].thaw();
    registrar.until_registered(&all).await;

    // ZooKeeper is started again: the records stay or come back, and no session moves.
    let address = sidecar.wait_for_node_of_session().await;
    zookeeper.kill();
    zookeeper.start_again().await;
    drop(registrar);
    let mut registrar = zookeeper.registrar().await;
    registrar.until_registered(&all).await;
    assert_eq!(sidecar.node_of_session().await, Some(address));

    // An agent is killed: the record goes when its session expires, and the sidecar keeps its connection to the node.
    let index = cluster.index_of(address).expect("a node");
    agents[index].kill();
    registrar.until_registered(&others(&cluster, index)).await;
    assert_eq!(sidecar.node_of_session().await, Some(address));
    is_served(&mut component, "after-the-end-of-the-agent").await;
    agents[index] = agent(&cluster.nodes[index], &zookeeper, &[]);
    registrar.until_registered(&all).await;

    // A node becomes a lame duck: the record says so, sessions leave, and the record goes with the node.
    let pid = cluster.nodes[index].process().pid();
    let signal = ServerKind::NatsServer
        .program()
        .args(["--signal", &format!("ldm={pid}")]);
    signal.start("the signal").wait_for_end(TIMEOUT).await;
    let name = cluster.nodes[index].name().to_owned();
    until_state(&mut registrar, &name, "draining").await;
    session_moves_from(address, &sidecar).await;
    is_served(&mut component, "after-the-lame-duck").await;
    cluster.nodes[index].kill();
    registrar.until_registered(&others(&cluster, index)).await;

    // An agent that is stopped deletes its record first.
    let index = (index + 1) % 3;
    agents[index].signal(Signal::SIGTERM);
    assert_eq!(agents[index].wait_for_end(TIMEOUT).await.code(), Some(0));
    assert_eq!(registrar.children(NODES_PATH).await.len(), 1);
}

/// Runs a check to its end. Returns its exit code and its output.
async fn checked(program: Program) -> (Option<i32>, String) {
    let mut process = program.arg("--check").start("the check");
    let code = process.wait_for_end(TIMEOUT).await.code();
    (code, process.tail())
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("a file");
    path.display().to_string()
}

#[tokio::test]
async fn a_check_finds_what_an_agent_needs() {
    let authority = Authority::new();
    let (certificate, key) = authority.certify("node", &["127.0.0.1"]);
    let flags = [
        "--user",
        "u",
        "--pass",
        "secret",
        "--tls",
        "--tlscert",
        &certificate,
        "--tlskey",
        &key,
    ];
    let (node, open) = tokio::join!(
        Node::start(ServerKind::NatsServer, &flags),
        Node::start(ServerKind::NatsServer, &["-n", "open"])
    );
    let folder = tempfile::tempdir().expect("a folder");
    let right = write(folder.path(), "right", "secret\n");
    let wrong = write(folder.path(), "wrong", "secret2\n");
    let http = node.http().address.to_string();
    let ca_file = authority.file();
    let tls = ["--tls-ca-file", &ca_file];
    let login = ["--user", "u", "--password-file", &right];

    let program = announce(node.address())
        .args(tls)
        .args(login)
        .args(["--http", &http]);
    let (code, output) = checked(program).await;
    assert_eq!(code, Some(0), "{output}");
    assert!(
        output.contains("\"tls\":true") && output.contains("200 at"),
        "{output}"
    );
    // Everything that an agent needs can come from the environment.
    let program = Program::new(peers::broker_binary())
        .arg("announce")
        .env("STANDIN_ANNOUNCE_NODE", open.address().to_string())
        .env("STANDIN_ANNOUNCE_ADVERTISE", "nats.example.org:4222");
    let (code, output) = checked(program).await;
    assert_eq!(code, Some(0), "{output}");
    assert!(
        output.contains("record      open {") && output.contains("nats.example.org:4222"),
        "{output}"
    );

    let sidecar = Sidecar::builder()
        .nodes(std::slice::from_ref(&open))
        .start()
        .await;
    let local = Program::new(peers::broker_binary()).args(["announce", "--node", "127.0.0.1:4222"]);
    let nothing = announce(e2e::port::free_address());
    let bad_page = open.http().address.to_string();
    for (program, code, reason) in [
        (
            announce(node.address()).args(tls),
            69,
            "'Authorization Violation'; give the credentials",
        ),
        (
            announce(node.address())
                .args(tls)
                .args(["--user", "u", "--password-file", &wrong]),
            69,
            "'Authorization Violation'; give the credentials",
        ),
        (announce(node.address()).args(login), 69, "TLS handshake failed"),
        // Otherwise somebody on the path could take the offer of TLS out of INFO, and read the password.
        (
            announce(open.address()).args(tls).args(login),
            69,
            "offers no TLS",
        ),
        (
            announce(sidecar.address()),
            69,
            "it is a sidecar and not a server",
        ),
        (nothing, 69, "cannot connect: Connection refused"),
        (
            announce(open.address()).args(["--http", &format!("{bad_page}/")]),
            0,
            "200 at",
        ),
        (
            announce(open.address()).args(["--http", &open.address().to_string()]),
            69,
            "/healthz answered",
        ),
        (
            announce(open.address()).args(["--id", "a/b"]),
            64,
            "give another id with --id",
        ),
        (local, 64, "--advertise"),
        (
            announce(open.address()).args(["--user", "u", "--token-file", &right]),
            64,
            "exclude each other",
        ),
    ] {
        let (found, output) = checked(program).await;
        assert_eq!(found, Some(code), "{reason}: {output}");
        assert!(output.contains(reason), "{reason}: {output}");
    }
}

#[tokio::test]
async fn the_last_of_two_agents_for_one_server_registers_and_an_agent_exits_if_its_id_is_taken() {
    let (zookeeper, node) = tokio::join!(ZooKeeper::start(), Node::start(ServerKind::NatsServer, &[]));
    let mut registrar = zookeeper.registrar().await;
    let path = format!("{NODES_PATH}/one");
    let mut first = agent(&node, &zookeeper, &["--id", "one"]);
    registrar.until_registered(&["one"]).await;
    let record = registrar.get(&path).await;
    let mut second = agent(&node, &zookeeper, &["--id", "one"]);
    first.wait_for_line("another process holds it", TIMEOUT).await;
    let other = registrar.get(&path).await;
    assert!(!other.is_empty() && other != record, "{other}");
    // The first one registers again when the second one ends.
    second.signal(Signal::SIGTERM);
    assert_eq!(second.wait_for_end(TIMEOUT).await.code(), Some(0));
    eventually("the first one has registered again", TIMEOUT, async || {
        registrar.get(&path).await == record
    })
    .await;
    registrar.put(&format!("{NODES_PATH}/two"), "10.0.0.9:4222").await;
    let mut third = agent(&node, &zookeeper, &["--id", "two"]);
    assert_eq!(third.wait_for_end(TIMEOUT).await.code(), Some(69));
    assert!(
        third.has_line("persistent znode") && third.has_line("this agent exits"),
        "{}",
        third.tail()
    );
}

/// Returns the text of the fenced blocks of one section of a document.
fn commands(document: &str, section: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document);
    let text = std::fs::read_to_string(path).expect("a document");
    let (_, from) = text
        .split_once(&format!("\n## {section}\n"))
        .expect("the section");
    let own = from.split("\n## ").next().expect("its text");
    let blocks = own.split("```").skip(1).step_by(2);
    blocks.filter_map(|block| block.strip_prefix("sh\n")).collect()
}

/// Runs the commands of `deploy/cluster.md`, with the addresses and files of this test.
#[tokio::test]
async fn the_commands_of_the_document_work() {
    let (zookeeper, node) = tokio::join!(
        ZooKeeper::start(),
        Node::start(ServerKind::NatsServer, &["-n", "n1"])
    );
    let folder = tempfile::tempdir().expect("a folder");
    let conf = write(folder.path(), "nats.conf", "port: 4222\njetstream {}\n");
    let program = peers::broker_binary();
    let text = commands("deploy/cluster.md", "Existing nats-servers");
    let text = text
        .replace("standin-broker ", &format!("{} ", program.display()))
        .replace("zk1:2181,zk2:2181,zk3:2181", &zookeeper.hosts())
        .replace("10.0.0.1:8222", &node.http().address.to_string())
        .replace(
            "--node 10.0.0.1:4222",
            &format!("--node {0} --advertise {0}", node.address()),
        )
        .replace("/etc/nats/nats.conf", &conf)
        .replace(
            "broker.toml",
            &folder.path().join("broker.toml").display().to_string(),
        );
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let mut agents = 0;
    for line in lines {
        let mut process = Program::new("sh")
            .args(["-c", &format!("exec {line}")])
            .start(line);
        if line.contains(" announce ") && !line.contains("--check") {
            zookeeper.registrar().await.until_registered(&["n1"]).await;
            process.signal(Signal::SIGTERM);
            agents += 1;
        }
        let code = process.wait_for_end(TIMEOUT).await.code();
        let expected = if line.contains(" import ") { 65 } else { 0 };
        assert_eq!(code, Some(expected), "{line}: {}", process.tail());
    }
    assert_eq!(agents, 1, "{text}");
}
