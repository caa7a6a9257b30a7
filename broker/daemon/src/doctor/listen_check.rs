//! Whether the program can listen on an address: the address is free, or the running program itself holds it.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::Path;

use super::port_holder::{self, PortHolder};
use super::report::Row;
use crate::listen::{bind, is_missing};
use crate::unix_socket::path_of;

/// Name of the check.
pub const CHECK: &str = "listen";
/// The service manager, which may hold the socket for the program (socket activation).
const SERVICE_MANAGER: &str = "systemd";

/// An address in the settings on which the program is to listen.
#[derive(Debug, Clone)]
pub struct ListenAddress {
    /// `host:port`, or `unix:` and a path. Port 0 means any free port.
    pub text: String,
    /// The key of the settings, for remedies.
    pub key: String,
    /// Whether the program starts without this address if the host lacks it.
    pub may_be_missing: bool,
}

/// Checks `addresses` of `program`. Also returns the process id of the program, if it runs.
#[must_use]
pub fn check(addresses: &[ListenAddress], program: &str) -> (Vec<Row>, Option<u32>) {
    let mut running = None;
    let mut rows = Vec::new();
    for address in addresses {
        match path_of(&address.text) {
            Some(path) => rows.push(unix_row(address, path, program, &mut running)),
            None => match address.text.to_socket_addrs() {
                Ok(found) => rows.extend(found.map(|at| tcp_row(address, at, program, &mut running))),
                Err(error) => rows.push(Row::fail(
                    CHECK,
                    &address.text,
                    format!("the host has no address: {error}"),
                    format!("correct {}, or the name in DNS or /etc/hosts", address.key),
                )),
            },
        }
    }
    (rows, running)
}

fn tcp_row(address: &ListenAddress, at: SocketAddr, program: &str, running: &mut Option<u32>) -> Row {
    if at.port() == 0 {
        return Row::ok(CHECK, at, "any free port");
    }
    // A socket that is bound but does not listen disturbs nobody.
    match bind(at) {
        Ok(_) => Row::ok(CHECK, at, "free"),
        Err(error) if error.kind() == ErrorKind::AddrInUse => held_row(
            address,
            &at.to_string(),
            port_holder::tcp(at, program),
            program,
            running,
        ),
        Err(error) if is_missing(&error) && address.may_be_missing => {
            Row::ok(CHECK, at, "skipped: the host has no IPv6")
        }
        Err(error) => Row::fail(
            CHECK,
            at,
            format!("cannot be used: {error}"),
            remedy(&error, &address.key),
        ),
    }
}

fn remedy(error: &io::Error, key: &str) -> String {
    match error.kind() {
        ErrorKind::PermissionDenied => {
            format!(
                "run as a user who may use this port (CAP_NET_BIND_SERVICE), or set {key} to a port above 1023"
            )
        }
        _ => format!("set {key} to an address of this host (ip address), or add the address to the host"),
    }
}

fn held_row(
    address: &ListenAddress,
    name: &str,
    holder: Option<PortHolder>,
    program: &str,
    running: &mut Option<u32>,
) -> Row {
    let Some(holder) = holder else {
        // A connection with this local address, such as an outgoing one that was given this port, can hold it.
        let found = "in use, but nobody listens there";
        return Row::warn(CHECK, name, found, "look at the sockets with this port: ss -tanp");
    };
    match &holder.process {
        Some((pid, by)) if by == program => {
            *running = Some(*pid);
            Row::ok(CHECK, name, format!("held by the running {holder}"))
        }
        Some((_, by)) if by == SERVICE_MANAGER => {
            Row::ok(CHECK, name, format!("held for {program} by {holder}"))
        }
        Some((_, by)) => {
            let key = &address.key;
            let remedy = format!("stop {by}, or set {key} to another one");
            Row::fail(CHECK, name, format!("held by {holder}"), remedy)
        }
        None => Row::warn(
            CHECK,
            name,
            format!("held by {holder}, maybe {program} itself"),
            "run doctor as root to see which program it is",
        ),
    }
}

fn unix_row(address: &ListenAddress, path: &Path, program: &str, running: &mut Option<u32>) -> Row {
    let name = &address.text;
    if let Some(holder) = port_holder::unix(path, program) {
        return held_row(address, name, Some(holder), program, running);
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    if fs::symlink_metadata(path).is_ok_and(|file| !is_socket(&file)) {
        let found = format!("{} is not a socket", path.display());
        return Row::fail(
            CHECK,
            name,
            found,
            format!("remove the file, or set {} to another path", address.key),
        );
    }
    // The program creates no folder. The folders in /run are often created by the unit that starts it.
    if !folder.as_os_str().is_empty() && !folder.exists() {
        let found = format!("the folder {} is not there", folder.display());
        let remedy = "create the folder, or let the unit create it (RuntimeDirectory= of systemd)";
        return if folder.starts_with("/run") {
            Row::warn(CHECK, name, found, remedy)
        } else {
            Row::fail(CHECK, name, found, remedy)
        };
    }
    match super::host_check::writable(folder) {
        Ok(()) => Row::ok(CHECK, name, "free"),
        Err(reason) => Row::fail(
            CHECK,
            name,
            reason,
            "create the folder, and let the user of the service write to it",
        ),
    }
}

fn is_socket(file: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    file.file_type().is_socket()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_unix_socket_must_exist() {
        let folder = tempfile::tempdir().unwrap();
        let row = |path: &Path| {
            let address = ListenAddress {
                text: format!("unix:{}", path.display()),
                key: "listen".to_owned(),
                may_be_missing: false,
            };
            format!("{:?}", check(&[address], "standin-proxy").0)
        };
        let there = row(&folder.path().join("x.sock"));
        assert!(there.contains("free"), "{there}");
        let missing = row(&folder.path().join("missing/x.sock"));
        assert!(missing.contains("is not there"), "{missing}");
    }
}
