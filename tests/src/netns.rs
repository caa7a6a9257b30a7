//! Two hosts: a pair of network namespaces joined by a virtual cable, which a test can cut.
//!
//! Needs root, iproute2 and util-linux, and works in a chroot. The addresses 10.77.0.1 and 10.77.0.2 exist only inside the
//! namespaces, and each has its own loopback. A cut cable is a partition: no reset and no end of stream, only silence.

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

/// Two namespaces and the cable between them. Dropping it removes them.
#[derive(Debug)]
pub struct NetnsPair {
    /// 10.77.0.1.
    pub near: Netns,
    /// 10.77.0.2.
    pub far: Netns,
}

impl NetnsPair {
    /// Makes both namespaces and the cable.
    pub fn new() -> Self {
        let unique = unique();
        // An interface name has at most 15 characters.
        let side = |letter: char, last: u8| Netns {
            name: format!("standin-{unique}{letter}"),
            cable: format!("sn{unique}{letter}"),
            address: Ipv4Addr::new(10, 77, 0, last),
        };
        let pair = Self {
            near: side('a', 1),
            far: side('b', 2),
        };
        let (near, far) = (&pair.near, &pair.far);
        ip(&["netns", "add", &near.name]);
        ip(&["netns", "add", &far.name]);
        // The pair is created in the namespaces, so it never exists in the network of the machine itself.
        let peer = ["peer", "name", &far.cable, "netns", &far.name];
        ip(&[
            &["link", "add", &near.cable, "netns", &near.name, "type", "veth"],
            &peer[..],
        ]
        .concat());
        for side in [near, far] {
            side.ip(&[
                "address",
                "add",
                &format!("{}/24", side.address),
                "dev",
                &side.cable,
            ]);
            side.ip(&["link", "set", "lo", "up"]);
            side.ip(&["link", "set", &side.cable, "up"]);
        }
        pair
    }

    /// Cuts the cable: nothing arrives at either side, and both interfaces stay up.
    pub fn cut(&self) {
        for (side, other) in self.both_ways() {
            side.send_nothing_to(other);
        }
    }

    /// Repairs the cable.
    pub fn heal(&self) {
        for (side, other) in self.both_ways() {
            side.send_again_to(other);
        }
    }

    fn both_ways(&self) -> [(&Netns, &Netns); 2] {
        [(&self.near, &self.far), (&self.far, &self.near)]
    }
}

impl Default for NetnsPair {
    fn default() -> Self {
        Self::new()
    }
}

impl Netns {
    /// Returns the name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the address of its end of the cable.
    pub fn address(&self) -> IpAddr {
        IpAddr::V4(self.address)
    }

    /// Connects from inside this namespace. The socket can be used in any thread.
    ///
    /// # Errors
    /// The socket's error, or that of entering the namespace.
    pub async fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        connect_inside(&self.name, address).await
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
        // Frames go to a link-layer address that does not exist. Unlike netem, every kernel can do this.
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

    /// Runs `ip` in this namespace, which must succeed.
    pub(crate) fn ip(&self, arguments: &[&str]) {
        self.run("ip", arguments);
    }

    /// Runs a program in this namespace, which must succeed.
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

/// Connects from inside the namespace with this name.
pub(crate) async fn connect_inside(netns: &str, address: SocketAddr) -> std::io::Result<TcpStream> {
    let path = path_of(netns);
    let (done, connected) = tokio::sync::oneshot::channel();
    // Only a thread of its own may enter the namespace: tokio's threads must stay where they are.
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

/// Runs `ip`, which must succeed.
pub(crate) fn ip(arguments: &[&str]) {
    run("ip", arguments);
}

/// Runs a program of iproute2 or util-linux, which must succeed.
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
        // Removing a namespace removes its end of the cable, and so the other end. It may already be removed.
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}
