//! Two machines of one's own: a pair of network namespaces joined by a virtual cable, which a test can cut.
//!
//! Needs root, iproute2 and util-linux; works in a chroot too. Addresses 10.77.0.1 and 10.77.0.2 exist inside the namespaces only; each also has its own
//! loopback. A cut link is a partition as the other side sees it: no reset, no end of stream, just silence.

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

/// Two namespaces and the cable between them; all is removed when it is dropped.
#[derive(Debug)]
pub struct NetnsPair {
    /// 10.77.0.1.
    pub near: Netns,
    /// 10.77.0.2.
    pub far: Netns,
}

impl NetnsPair {
    /// Makes both namespaces, joined and up.
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
        // Made inside the namespaces at once, so the machine's own network never sees it.
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

    /// Cuts the link: from now on nothing arrives at either side, and neither side's interface tells so.
    pub fn cut(&self) {
        for (side, other) in self.both_ways() {
            side.send_nothing_to(other);
        }
    }

    /// Makes the link whole again.
    pub fn mend(&self) {
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
    /// The namespace's name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address on the cable.
    pub fn address(&self) -> IpAddr {
        IpAddr::V4(self.address)
    }

    /// Connects from inside this namespace; the socket can then be used anywhere.
    ///
    /// # Errors
    /// The socket's error; also when the namespace cannot be entered.
    pub async fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        connect_inside(&self.name, address).await
    }

    /// Listens on this namespace's address, at any free port when it is 0; the socket can then be used anywhere.
    ///
    /// # Errors
    /// The socket's error; also when the namespace cannot be entered.
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

    /// A namespace that is still to be made: its name, its interface, the address that this is to have.
    pub(crate) fn named(name: String, cable: &str, address: Ipv4Addr) -> Self {
        Self {
            name,
            cable: cable.to_owned(),
            address,
        }
    }

    /// From now on nothing that this namespace sends arrives at the other; the way back is as it was.
    pub(crate) fn send_nothing_to(&self, other: &Self) {
        // Sent to a station that does not exist: works on every kernel, unlike netem.
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

    /// Takes [`send_nothing_to`](Self::send_nothing_to) back.
    pub(crate) fn send_again_to(&self, other: &Self) {
        self.ip(&["neigh", "delete", &other.address.to_string(), "dev", &self.cable]);
    }

    /// Runs `ip` about this namespace.
    pub(crate) fn ip(&self, arguments: &[&str]) {
        self.run("ip", arguments);
    }

    /// Runs a program in this namespace, which must succeed.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) {
        let [enter, namespace, end] = &inside(&self.name);
        run(enter, &[&[namespace, end, program], arguments].concat());
    }
}

/// The beginning of a command line whose rest runs in the namespace of this name. `ip netns exec` and `ip -n` change mounts
/// too, and fail where `/` is no mount point, as in a chroot.
pub(crate) fn inside(netns: &str) -> [String; 3] {
    [
        "nsenter".to_owned(),
        format!("--net={}", path_of(netns)),
        "--".to_owned(),
    ]
}

/// A word that no other namespace of this machine has in its name.
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

/// Moves this thread, and no other, into a namespace; for a thread that ends soon.
fn enter(path: &str) -> std::io::Result<()> {
    Ok(setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?)
}

/// Connects from inside the namespace of this name.
pub(crate) async fn connect_inside(netns: &str, address: SocketAddr) -> std::io::Result<TcpStream> {
    let path = path_of(netns);
    let (done, connected) = tokio::sync::oneshot::channel();
    // A thread of its own: the namespace it enters is left when it ends, and no other thread is moved.
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
        // Removing a namespace removes its end of the cable, and with it the other. It may already be gone.
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}
