//! Sockets that the service manager opened for the program and passed to it at its start (socket activation).
//!
//! The service manager keeps them open while the program restarts, so a client that connects in that time waits and is not refused. Each
//! socket is matched by its address to an address in the settings. A socket that matches none is an error: clients could connect to it,
//! and would wait for ever.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use socket2::{SockAddr, Socket};
use thiserror::Error;
use tracing::warn;

/// The program cannot use a socket that it inherited.
#[derive(Debug, Error)]
pub enum InheritedSocketError {
    /// It is not a TCP or Unix stream socket.
    #[error(
        "cannot use a socket of the service manager: {0}; in the socket unit, use only ListenStream=, each with a port, IP:PORT or a path"
    )]
    Kind(#[from] io::Error),
    /// No address in the settings matches it.
    #[error(
        "the service manager passes a socket on {0}, which is not in the settings; set {setting} to this address, or remove it from the socket unit",
        setting = .1
    )]
    Unmatched(String, &'static str),
}

/// The sockets that no address of the settings has matched yet.
#[derive(Debug, Default)]
pub struct InheritedSockets {
    tcp: Vec<(SocketAddr, TcpListener)>,
    unix: Vec<(String, InheritedUnixSocket)>,
    /// Whether the service manager passed any socket.
    is_any: bool,
    /// Whether the sockets are those of the program that this one replaced.
    are_of_former: bool,
}

/// A Unix socket that was passed to this program.
#[derive(Debug)]
pub struct InheritedUnixSocket {
    /// The socket.
    pub listener: UnixListener,
    /// Whether this program removes its file at the end, because the program that it replaced had made it.
    pub owns_file: bool,
}

impl InheritedSockets {
    /// Takes the sockets that the environment names (`LISTEN_FDS`), and removes them from the environment. Must be called before the
    /// program starts another thread, because another thread could be reading the environment.
    ///
    /// # Errors
    /// [`InheritedSocketError::Kind`].
    pub fn from_environment() -> Result<Self, InheritedSocketError> {
        let mut given = ListenFd::from_env();
        let mut sockets = Self {
            is_any: given.len() > 0,
            ..Self::default()
        };
        for number in 0..given.len() {
            if let Ok(Some(listener)) = given.take_tcp_listener(number) {
                sockets.tcp.push((listener.local_addr()?, listener));
            } else if let Some(listener) = given.take_unix_listener(number)? {
                let address = listener.local_addr()?;
                let path = address.as_pathname().map(|path| path.display().to_string());
                let owns_file = false;
                let socket = InheritedUnixSocket { listener, owns_file };
                sockets.unix.push((path.unwrap_or_default(), socket));
            }
        }
        Ok(sockets)
    }

    /// Creates the set of the sockets of the program that this one replaced. Those without a matching address are closed. For Unix sockets
    /// whose file that program had made, the path of the file is given.
    pub fn of_former(all: impl IntoIterator<Item = (OwnedFd, Option<PathBuf>)>) -> Self {
        let mut sockets = Self {
            are_of_former: true,
            ..Self::default()
        };
        for (socket, own_file) in all {
            let socket = Socket::from(socket);
            let address = socket.local_addr().ok();
            if let Some(address) = address.as_ref().and_then(SockAddr::as_socket) {
                sockets.tcp.push((address, socket.into()));
            } else if let Some(path) = address.as_ref().and_then(SockAddr::as_pathname) {
                let socket = InheritedUnixSocket {
                    listener: socket.into(),
                    owns_file: own_file.is_some(),
                };
                sockets.unix.push((path.display().to_string(), socket));
            }
        }
        sockets
    }

    /// Returns whether the sockets are those of the program that this one replaced.
    #[must_use]
    pub const fn are_of_former(&self) -> bool {
        self.are_of_former
    }

    /// Returns a socket on one of these addresses. If the service manager passed sockets, but none of these, logs a warning: the program
    /// opens the first address itself, so clients are refused there during a restart.
    pub fn take_tcp(&mut self, addresses: &[SocketAddr]) -> Option<Socket> {
        let found = self
            .tcp
            .iter()
            .position(|(address, _)| addresses.contains(address) || self.has_chosen(*address, addresses));
        if let Some(found) = found {
            return Some(self.tcp.swap_remove(found).1.into());
        }
        if let Some(address) = addresses.first() {
            self.warn_of_missing(&address.to_string());
        }
        None
    }

    /// Returns whether the former program listens on this address because one of `addresses` has no port of its own.
    fn has_chosen(&self, address: SocketAddr, addresses: &[SocketAddr]) -> bool {
        let is_without_port = |wanted: &SocketAddr| wanted.port() == 0 && wanted.ip() == address.ip();
        self.are_of_former && addresses.iter().any(is_without_port)
    }

    /// Returns the Unix socket with this path. If the service manager passed sockets, but not this one, logs a warning, as for
    /// [`take_tcp`](Self::take_tcp).
    pub fn take_unix(&mut self, path: &Path) -> Option<InheritedUnixSocket> {
        let path = path.display().to_string();
        let found = self.unix.iter().position(|(known, _)| *known == path);
        if found.is_none() {
            self.warn_of_missing(&format!("unix:{path}"));
        }
        found.map(|found| self.unix.swap_remove(found).1)
    }

    fn warn_of_missing(&self, address: &str) {
        if self.is_any {
            warn!(%address, "address is not in the socket unit, so it refuses connections during a restart");
        }
    }

    /// Checks that every socket was taken, except those of the former program. `setting` is the name of the setting with the addresses.
    ///
    /// # Errors
    /// [`InheritedSocketError::Unmatched`].
    pub fn finish(self, setting: &'static str) -> Result<(), InheritedSocketError> {
        let tcp = self.tcp.first().map(|(address, _)| address.to_string());
        let left = tcp.or_else(|| self.unix.first().map(|(path, _)| format!("unix:{path}")));
        let left = left.filter(|_| !self.are_of_former);
        for (path, _) in self.unix.iter().filter(|(_, socket)| socket.owns_file) {
            // It cannot be connected to any more. A file that is left is replaced at the next start.
            let _ = std::fs::remove_file(path);
        }
        left.map_or(Ok(()), |left| Err(InheritedSocketError::Unmatched(left, setting)))
    }
}
