//! The TLS tunnel of `deploy/zookeeper-tls.cfg`, in front of a ZooKeeper that demands TLS and a certificate.

use crate::site::TIMEOUT;
use e2e::port::free_port;
use e2e::{Authority, Mesh, Process, Program, ServerKind, Sidecar, ZooKeeper, eventually};
use std::path::Path;

/// Starts HAProxy with the file of `deploy/`, at this port, in front of this server. The folder has the files that systemd would pass.
fn tunnel(port: u16, server: u16, credentials: &Path) -> Process {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/zookeeper-tls.cfg");
    let text = std::fs::read_to_string(&file).expect("the file of deploy/");
    let text = text.replace("127.0.0.1:2181", &format!("127.0.0.1:{port}"));
    // The other two servers cannot be reached.
    let text = text.replace(
        "zk1.example.org:2281 verifyhost zk1.example.org",
        &format!("localhost:{server} verifyhost localhost"),
    );
    let config = credentials.join(format!("{port}.cfg"));
    std::fs::write(&config, text).expect("a file");
    Program::new("haproxy")
        .args(["-db", "-f"])
        .arg(config)
        .env("CREDENTIALS_DIRECTORY", credentials)
        .start("haproxy")
}

#[tokio::test]
async fn nodes_and_sidecars_reach_a_zookeeper_with_tls_through_the_tunnel() {
    let authority = Authority::new();
    let zookeeper = ZooKeeper::start_with_tls(&authority).await;
    let server = zookeeper.tls_port().expect("it has TLS");
    let (certificate, key) = authority.certify("client-of-zookeeper", &["client"]);
    let text = |file| std::fs::read_to_string(file).expect("a file");
    let both = text(&certificate) + &text(&key);
    std::fs::write(authority.folder().join("client.pem"), both).expect("a file");
    let port = free_port();
    let hosts = format!("127.0.0.1:{port}");
    let haproxy = tunnel(port, server, authority.folder());

    let cluster = Mesh::builder(ServerKind::Standin, 2)
        .zookeeper(&hosts)
        .setting("nodes.zookeeper_session_timeout_ms", 10_000);
    let mut cluster = cluster.start().await;
    let sidecar = Sidecar::builder().setting("nodes.zookeeper", hosts.as_str());
    let mut sidecar = sidecar.start().await;
    let mut registrar = zookeeper.registrar().await;
    registrar.until_registered(&["n1", "n2"]).await;
    eventually("the sidecar knows both nodes", TIMEOUT, async || {
        sidecar.node_rows().await.len() == 2
    })
    .await;
    // The sessions continue when the tunnel is started again.
    drop(haproxy);
    for node in &mut cluster.nodes {
        node.logs("zookeeper: connection lost").await;
    }
    let haproxy = tunnel(port, server, authority.folder());
    for node in &mut cluster.nodes {
        node.logs("zookeeper: session resumed").await;
    }
    registrar.until_registered(&["n1", "n2"]).await;
    drop(haproxy);

    // A server of another authority is not used.
    let other = Authority::new();
    std::fs::copy(other.file(), authority.folder().join("ca.pem")).expect("a file");
    let mut haproxy = tunnel(port, server, authority.folder());
    let refused = "Server zookeeper/zk1 is DOWN";
    haproxy.wait_for_line(refused, TIMEOUT).await;
    let mark = sidecar.process().mark();
    let no_session = "still no session, retrying";
    sidecar
        .process()
        .wait_for_line_after(mark, no_session, TIMEOUT)
        .await;
}
