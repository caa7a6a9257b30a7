//! Network namespaces: runs programs and opens sockets inside them, and drops the packets from one to another.
//!
//! Needs root, iproute2 and util-linux, and works in a chroot.

use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// A link-layer address that no interface has.
const NO_STATION: &str = "02:00:00:00:00:01";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

static MADE: AtomicU32 = AtomicU32::new(0);

/// One network namespace.
#[derive(Debug)]
pub struct Netns {
    name: String,
    cable: String,
    address: Ipv4Addr,
}

impl Netns {
    /// Returns the name that `ip netns` shows.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the address of its end of the veth pair.
    pub fn address(&self) -> IpAddr {
        IpAddr::V4(self.address)
    }

    /// Connects from inside this namespace. The socket can be used in any thread.
    ///
    /// # Errors
    /// The socket's error, or that of entering the namespace.
    pub async fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        connect_inside(Some(&self.name), address).await
    }

    /// Listens at this namespace's address; port 0 is any free port. The socket can be used in any thread.
    ///
    /// # Errors
    /// The socket's error, or that of entering the namespace.
    pub fn listen(&self, port: u16) -> std::io::Result<TcpListener> {
        let (path, address) = (path_of(&self.name), (self.address, port));
        let listen = move || {
            enter(&path)?;
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok::<_, std::io::Error>(listener)
        };
        let listening = std::thread::spawn(listen).join();
        let listener = listening.map_err(|_| std::io::Error::other("the thread panicked"))??;
        TcpListener::from_std(listener)
    }

    /// Describes a namespace that is not made yet.
    pub(crate) fn named(name: String, cable: &str, address: Ipv4Addr) -> Self {
        Self {
            name,
            cable: cable.to_owned(),
            address,
        }
    }

    /// Drops everything that this namespace sends to the other. The other direction is not changed.
    pub(crate) fn send_nothing_to(&self, other: &Self) {
        // Frames go to a link-layer address that does not exist. This works on every kernel, unlike netem.
        let neighbour = [
            "neigh",
            "replace",
            &other.address.to_string(),
            "lladdr",
            NO_STATION,
            "dev",
            &self.cable,
        ];
        self.ip(&[&neighbour[..], &["nud", "permanent"]].concat());
    }

    /// Ends [`send_nothing_to`](Self::send_nothing_to).
    pub(crate) fn send_again_to(&self, other: &Self) {
        self.ip(&["neigh", "delete", &other.address.to_string(), "dev", &self.cable]);
    }

    /// Runs `ip` in this namespace. Panics if it fails.
    pub(crate) fn ip(&self, arguments: &[&str]) {
        self.run("ip", arguments);
    }

    /// Runs a program in this namespace. Panics if it fails.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) {
        let [enter, namespace, end] = &inside(&self.name);
        run(enter, &[&[namespace, end, program], arguments].concat());
    }
}

/// Returns the start of a command line whose rest runs in the namespace with this name. `ip netns exec` and `ip -n` also change
/// mounts, and fail where `/` is not a mount point, as in a chroot.
pub(crate) fn inside(netns: &str) -> [String; 3] {
    [
        "nsenter".to_owned(),
        format!("--net={}", path_of(netns)),
        "--".to_owned(),
    ]
}

/// Returns a word that no other namespace of this machine has in its name.
pub(crate) fn unique() -> String {
    format!(
        "{:x}-{}",
        std::process::id(),
        MADE.fetch_add(1, Ordering::Relaxed)
    )
}

fn path_of(netns: &str) -> String {
    format!("/run/netns/{netns}")
}

/// Moves this thread into a namespace. For a thread that does nothing else.
fn enter(path: &str) -> std::io::Result<()> {
    Ok(setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?)
}

/// Connects from inside the namespace with this name; without a name, from that of the test.
pub(crate) async fn connect_inside(netns: Option<&str>, address: SocketAddr) -> std::io::Result<TcpStream> {
    let Some(netns) = netns else {
        return TcpStream::connect(address).await;
    };
    let path = path_of(netns);
    let (done, connected) = tokio::sync::oneshot::channel();
    // A new thread enters the namespace, because tokio's threads must stay in theirs.
    std::thread::spawn(move || {
        let connect = || {
            enter(&path)?;
            let stream = std::net::TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
            stream.set_nonblocking(true)?;
            Ok::<_, std::io::Error>(stream)
        };
        let _ = done.send(connect());
    });
    let stream = connected.await.map_err(std::io::Error::other)??;
    TcpStream::from_std(stream)
}

/// Runs `ip`. Panics if it fails.
pub(crate) fn ip(arguments: &[&str]) {
    run("ip", arguments);
}

/// Runs a program of iproute2 or util-linux. Panics if it fails.
fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output
        .unwrap_or_else(|error| panic!("cannot run {program} (packages iproute2, util-linux): {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {} failed (it needs root): {said}",
        arguments.join(" ")
    );
}

impl Drop for Netns {
    fn drop(&mut self) {
        // Removing a namespace removes its end of the veth pair, and so the other end. The namespace may already be removed.
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}
