//! The process that listens on an address, found in `/proc`.
//!
//! `/proc/net/tcp`, `tcp6` and `unix` list the sockets, the first two with the user of each. `/proc/PID/fd` shows which process holds a
//! socket. A user without privileges can read it only for processes of the same user, so the process may stay unknown.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;

use crate::listen::{covers, plain};

/// State of a listening socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";
/// Flag of a listening socket in `/proc/net/unix` (`__SO_ACCEPTCON`).
const ACCEPTS: u32 = 0x10000;

/// The holder of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortHolder {
    /// The process: its id and the name of its program. `None` if this user may not look into it.
    pub process: Option<(u32, String)>,
    /// Id of the user who opened the socket; `None` for a Unix socket.
    pub uid: Option<u32>,
}

impl fmt::Display for PortHolder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.process, self.uid) {
            (Some((pid, program)), _) => write!(formatter, "{program} (pid {pid})"),
            (None, Some(uid)) => write!(formatter, "a program of the user with uid {uid}"),
            (None, None) => formatter.write_str("a program of another user"),
        }
    }
}

/// A listening socket.
#[derive(Debug, PartialEq, Eq)]
struct ListeningSocket {
    inode: String,
    uid: Option<u32>,
}

/// Returns who listens on `address`. If several processes do, one that runs `program` comes first.
#[must_use]
pub fn tcp(address: SocketAddr, program: &str) -> Option<PortHolder> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let sockets: Vec<ListeningSocket> = tables
        .into_iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| {
            table
                .lines()
                .filter_map(|line| socket_on(line, address))
                .collect::<Vec<_>>()
        })
        .collect();
    holder(&sockets, program)
}

/// Returns who listens on the Unix socket at `path`.
#[must_use]
pub fn unix(path: &Path, program: &str) -> Option<PortHolder> {
    let table = fs::read_to_string("/proc/net/unix").ok()?;
    let socket = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, flags, _, _, inode, bound] = words[..] else {
            return None;
        };
        let accepts = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & ACCEPTS != 0);
        (accepts && Path::new(bound) == path).then(|| ListeningSocket {
            inode: inode.to_owned(),
            uid: None,
        })
    };
    holder(&table.lines().filter_map(socket).collect::<Vec<_>>(), program)
}

fn holder(sockets: &[ListeningSocket], program: &str) -> Option<PortHolder> {
    let first = sockets.first()?;
    let links: Vec<String> = sockets
        .iter()
        .map(|socket| format!("socket:[{}]", socket.inode))
        .collect();
    let mut processes: Vec<(u32, String)> = pids()
        .filter_map(|pid| Some((pid, holds(pid, &links)?)))
        .collect();
    processes.sort_by_key(|(_, name)| name != program);
    Some(PortHolder {
        process: processes.into_iter().next(),
        uid: first.uid,
    })
}

fn pids() -> impl Iterator<Item = u32> {
    let folders = fs::read_dir("/proc").into_iter().flatten().flatten();
    folders.filter_map(|folder| folder.file_name().to_str()?.parse().ok())
}

/// Returns the name of the process's program if it holds one of the sockets.
fn holds(pid: u32, links: &[String]) -> Option<String> {
    let mut files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    let is_held = files.any(|file| {
        let target = fs::read_link(file.path());
        target.is_ok_and(|target| links.iter().any(|link| target.as_os_str() == link.as_str()))
    });
    let name = || fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    is_held.then(|| name().trim().to_owned())
}

/// Parses a line of `/proc/net/tcp`. Returns the socket if it listens on `address`.
fn socket_on(line: &str, address: SocketAddr) -> Option<ListeningSocket> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (local, state) = (words.get(1)?, words.get(3)?);
    let (ip, port) = local.split_once(':')?;
    let own = SocketAddr::new(ip_of(ip)?, u16::from_str_radix(port, 16).ok()?);
    let (own, address) = (plain(own), plain(address));
    let is_same =
        own.ip() == address.ip() || covers(own.ip(), address.ip()) || covers(address.ip(), own.ip());
    (*state == LISTENING && own.port() == address.port() && is_same).then_some(())?;
    Some(ListeningSocket {
        inode: (*words.get(9)?).to_owned(),
        uid: words.get(7)?.parse().ok(),
    })
}

/// Parses an IP address of `/proc/net/tcp`: groups of 32 bits, each in the byte order of this host.
fn ip_of(text: &str) -> Option<IpAddr> {
    let group = |at: usize| Some(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    if text.len() == 8 {
        return Some(group(0)?.into());
    }
    let groups: Option<Vec<[u8; 4]>> = (0..4).map(|number| group(number * 8)).collect();
    let bytes: [u8; 16] = groups?.concat().try_into().ok()?;
    Some(Ipv6Addr::from(bytes).into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_holder_of_an_address_is_found() {
        let own = Some(std::process::id());
        let pid = |holder: Option<PortHolder>| Some(holder?.process?.0);
        for address in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let bound = listener.local_addr().unwrap();
            assert_eq!(pid(tcp(bound, "")), own, "{bound}");
            drop(listener);
            assert_eq!(tcp(bound, ""), None, "{bound}");
        }
        let any = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = any.local_addr().unwrap().port();
        assert_eq!(pid(tcp(([127, 0, 0, 1], port).into(), "")), own);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        assert_eq!(unix(&path, ""), None);
        let _listener = UnixListener::bind(&path).unwrap();
        assert_eq!(pid(unix(&path, "")), own);
    }
}
