//! Both programs under a service manager: what they tell it (`man sd_notify`), its watchdog, and the sockets that it keeps open while they
//! restart.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use e2e::{Node, Process, Program, RawClient, ServerKind, peers, port};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixDatagram};
use tokio::time::timeout;

use crate::site::TIMEOUT;

/// Longest time between two watchdog messages (`WATCHDOG=1`).
const WATCHDOG: Duration = Duration::from_millis(900);

/// The socket of a service manager.
struct Manager {
    folder: TempDir,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let socket = UnixDatagram::bind(Self::path_in(&folder)).expect("a socket");
        Self { folder, socket }
    }

    fn path_in(folder: &TempDir) -> PathBuf {
        folder.path().join("notify")
    }

    /// Starts a program, with a watchdog.
    fn start(&self, program: Program) -> Process {
        program
            .env("NOTIFY_SOCKET", Self::path_in(&self.folder))
            .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
            .start("the program")
    }

    async fn message(&self) -> String {
        let mut bytes = [0; 512];
        let length = self.socket.recv(&mut bytes).await.expect("a message");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// Returns the next message that is not a watchdog message.
    async fn news(&self) -> String {
        let news = async {
            loop {
                let message = self.message().await;
                if message != "WATCHDOG=1" {
                    return message;
                }
            }
        };
        timeout(TIMEOUT, news).await.expect("a message in time")
    }

    /// Waits for the next watchdog message.
    async fn sign_of_life(&self) {
        let message = timeout(TIMEOUT, self.message()).await;
        assert_eq!(message.expect("a watchdog message in time"), "WATCHDOG=1");
    }
}

/// Returns the sidecar without a node that it could reach.
fn sidecar(address: SocketAddr) -> Program {
    sidecar_of(address, "nats://127.0.0.1:1")
}

fn sidecar_of(address: SocketAddr, upstream: &str) -> Program {
    let address = address.to_string();
    Program::new(peers::sidecar_binary()).args(["--listen", &address, "--upstream", upstream])
}

fn broker(address: SocketAddr) -> Program {
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    Program::new(peers::broker_binary()).args(["-a", &ip, "-p", &port])
}

cases! {
    tells_when_it_is_ready_reloads_hangs_and_stops =>
    the_sidecar_tells_when_it_is_ready_reloads_hangs_and_stops(sidecar);
    the_broker_tells_when_it_is_ready_reloads_hangs_and_stops(broker);
}

async fn tells_when_it_is_ready_reloads_hangs_and_stops(program: fn(SocketAddr) -> Program) {
    let (manager, address) = (Manager::new(), port::free_address());
    let mut process = manager.start(program(address));
    assert_eq!(manager.news().await, "READY=1");
    let connected = TcpStream::connect(address).await;
    connected.expect("it accepts connections when it is ready");
    manager.sign_of_life().await;

    process.signal(Signal::SIGHUP);
    let news = manager.news().await;
    assert!(news.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{news}");
    assert_eq!(manager.news().await, "READY=1");

    manager.sign_of_life().await;
    process.freeze().await;
    // A sign of life may have been sent just before.
    while timeout(WATCHDOG / 3, manager.message()).await.is_ok() {}
    timeout(WATCHDOG, manager.message())
        .await
        .expect_err("a program that hangs is silent");
    process.thaw();
    manager.sign_of_life().await;

    process.signal(Signal::SIGTERM);
    let news = manager.news().await;
    assert!(news.starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC="), "{news}");
    assert_eq!(process.wait_for_end(TIMEOUT).await.code(), Some(0));
}

/// The process stays the same, so the unit stays active.
#[tokio::test]
async fn a_sidecar_that_replaces_itself_is_ready_again_and_goes_on_with_signs_of_life() {
    let (manager, address) = (Manager::new(), port::free_address());
    let mut process = manager.start(sidecar(address));
    assert_eq!(manager.news().await, "READY=1");
    for _ in 0..2 {
        process.signal(Signal::SIGUSR2);
        assert_eq!(manager.news().await, "READY=1");
        manager.sign_of_life().await;
    }
    process.signal(Signal::SIGTERM);
    let news = manager.news().await;
    assert!(news.starts_with("STOPPING=1"), "{news}");
    assert_eq!(process.wait_for_end(TIMEOUT).await.code(), Some(0));
}

/// A clustered node accepts clients only after it has joined, which it cannot without ZooKeeper.
#[tokio::test]
async fn a_node_that_has_not_joined_is_not_ready() {
    let manager = Manager::new();
    let zookeeper = port::free_address().to_string();
    let mut process = manager.start(broker(port::free_address()).args([
        "--zookeeper",
        &zookeeper,
        "--cluster",
        "nats://127.0.0.1:-1",
    ]));
    process.wait_for_line("zookeeper: no session", TIMEOUT).await;
    timeout(Duration::from_millis(500), manager.message())
        .await
        .expect_err("it is not ready");
}

#[tokio::test]
async fn a_component_that_connects_while_the_sidecar_restarts_waits() {
    let node = Node::start(ServerKind::Standin, &[]).await;
    let socket = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = socket.local_addr().expect("an address");
    let start = || {
        sidecar_of(address, &node.url())
            .socket(&socket)
            .start("the sidecar")
    };
    let mut sidecar = start();
    let mut component = RawClient::open(address).await;
    component.flush().await;
    let mark = sidecar.mark();
    sidecar.signal(Signal::SIGHUP);
    sidecar
        .wait_for_line_after(mark, "settings reloaded", TIMEOUT)
        .await;
    RawClient::open(address).await.flush().await;
    // The program that replaces this one keeps the socket.
    let mark = sidecar.mark();
    sidecar.signal(Signal::SIGUSR2);
    sidecar
        .wait_for_line_after(mark, "sidecar upgraded", TIMEOUT)
        .await;
    component.flush().await;
    RawClient::open(address).await.flush().await;

    sidecar.signal(Signal::SIGTERM);
    sidecar.wait_for_line("stopping", TIMEOUT).await;
    let early = TcpStream::connect(address).await.expect("not refused");
    component.read_to_end().await;
    sidecar.wait_for_end(TIMEOUT).await;
    let late = TcpStream::connect(address).await.expect("not refused");
    let _sidecar = start();
    for waiting in [early, late] {
        RawClient::open_over(waiting).await.flush().await;
    }
}

/// `systemd-socket-activate` starts the program at the first connection, as a socket unit of systemd does. A port without an address is one
/// socket for both families, which is what the broker opens for 0.0.0.0.
#[tokio::test]
async fn systemd_passes_a_socket_for_both_families_to_the_broker() {
    let port = port::free_port().to_string();
    let mut process = Program::new("systemd-socket-activate")
        .args(["-l", &port])
        .arg(peers::broker_binary())
        .args(["-p", &port])
        .start("systemd-socket-activate");
    process.wait_for_line("Listening on", TIMEOUT).await;
    for ip in ["127.0.0.1", "[::1]"] {
        let address = format!("{ip}:{port}").parse().expect("an address");
        RawClient::open(address).await.flush().await;
    }
    process
        .wait_for_line(
            &format!("Listening for client connections on 0.0.0.0:{port}"),
            TIMEOUT,
        )
        .await;
}

cases! {
    refuses_a_socket_that_is_not_in_the_settings =>
    the_sidecar_refuses_a_socket_that_is_not_in_the_settings(sidecar);
    the_broker_refuses_a_socket_that_is_not_in_the_settings(broker);
}

/// Such a socket must be refused: clients could connect to it, and would wait for ever.
async fn refuses_a_socket_that_is_not_in_the_settings(program: fn(SocketAddr) -> Program) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let (given, wanted) = (socket.local_addr().expect("an address"), port::free_address());
    let mut process = program(wanted).socket(&socket).start("the program");
    assert_eq!(process.wait_for_end(TIMEOUT).await.code(), Some(64));
    assert!(
        process.has_line(&format!("passes a socket on {given}")),
        "{}",
        process.tail()
    );
    assert!(
        process.has_line("address is not in the socket unit"),
        "{}",
        process.tail()
    );
    assert!(process.has_line(&wanted.to_string()), "{}", process.tail());
}
