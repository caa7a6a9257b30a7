//! A Unix socket on which a program listens, and its file.
//!
//! The file of a process that has died is replaced. The file of a living process is not: a second program on the same path
//! is refused. At a clean end the file is removed, unless the service manager opened the socket: then the file is the service manager's.

use std::fs::{self, Permissions};
use std::io;
use std::net::TcpStream as StdStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};

use crate::inherited_sockets::InheritedUnixSocket;
use crate::listen::recover;

impl AsFd for UnixSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Returns the path of an address `unix:PATH`; `None` for any other address.
#[must_use]
pub fn path_of(address: &str) -> Option<&Path> {
    address.strip_prefix("unix:").map(Path::new)
}

/// Returns whether a socket can have this path: it is absolute, and short enough for the system (107 bytes).
#[must_use]
pub fn is_valid(path: &Path) -> bool {
    path.is_absolute() && SockAddr::unix(path).is_ok()
}

/// A Unix socket on which a program listens. A file that the program made is removed when the value is dropped.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    /// The file that the program made.
    file: Option<SocketFile>,
}

impl UnixSocket {
    /// Listens on `path`. The file gets the permission bits `mode`. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The error of the system, or one that says that a process listens on `path`, or that `path` is not a socket.
    pub fn listen(path: &Path, mode: u32, backlog: u32) -> io::Result<Self> {
        let (socket, address) = (socket()?, SockAddr::unix(path)?);
        match socket.bind(&address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(path, &address)?;
                socket.bind(&address)?;
            }
            bound => bound?,
        }
        let file = SocketFile::of(path)?;
        // Nobody can connect before `listen`, so nobody can connect with other permission bits.
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        Ok(Self {
            listener: UnixListener::from_std(socket.into())?,
            path: path.to_owned(),
            file: Some(file),
        })
    }

    /// Returns a socket that was passed to this program. If a former program has made its file, the file gets the permission bits `mode`. Must be
    /// called inside a tokio runtime.
    ///
    /// # Errors
    /// The error of the system; [`io::ErrorKind::NotFound`] if that file is gone, so that nobody can connect.
    pub fn inherited(socket: InheritedUnixSocket, path: &Path, mode: u32) -> io::Result<Self> {
        let InheritedUnixSocket { listener, owns_file } = socket;
        listener.set_nonblocking(true)?;
        let file = owns_file.then(|| SocketFile::of(path)).transpose()?;
        if file.is_some() {
            fs::set_permissions(path, Permissions::from_mode(mode))?;
        }
        Ok(Self {
            listener: UnixListener::from_std(listener)?,
            path: path.to_owned(),
            file,
        })
    }

    /// Returns whether the program has made the file of the socket.
    #[must_use]
    pub fn owns_file(&self) -> bool {
        self.file.is_some()
    }

    /// Returns the path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Accepts the next connection, with the user, the group and the process that connected. Handles errors as
    /// [`listen::accept`](crate::listen::accept) does. Dropping the future loses no connection.
    pub async fn accept(&self, kind: &str, failed: impl Fn()) -> (StdStream, UCred) {
        loop {
            let accepted = self.listener.accept().await;
            match accepted.and_then(|(stream, _)| Ok((stream.peer_cred()?, plain(stream)?))) {
                Ok((peer, stream)) => return (stream, peer),
                Err(error) => recover(&error, kind, &failed).await,
            }
        }
    }
}

/// Checks that a program can listen on `path`: creates the file and removes it.
///
/// # Errors
/// Those of [`UnixSocket::listen`].
pub fn try_listen(path: &Path) -> io::Result<()> {
    let (socket, address) = (socket()?, SockAddr::unix(path)?);
    match socket.bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => remove_stale(path, &address),
        bound => {
            bound?;
            fs::remove_file(path)
        }
    }
}

/// Converts a Unix connection into the type of a TCP connection. Reads, writes and closes are the same system calls for both
/// kinds of socket. Only the addresses and the options of TCP are missing.
fn plain(stream: UnixStream) -> io::Result<StdStream> {
    Ok(OwnedFd::from(stream.into_std()?).into())
}

fn socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Removes the socket file at `path` if no process listens on it.
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        let text = "the file exists and is not a socket, so it is not replaced";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    match socket()?.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        // A process listens on it. Its queue of connections may be full.
        _ => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process listens on it",
        )),
    }
}

/// The file of a socket. It is removed on drop, unless another process has replaced it.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            id: id(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if id(&self.path).is_ok_and(|id| id == self.id) {
            // A file that is left is replaced at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn id(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener as StdListener;

    use super::*;

    #[tokio::test]
    async fn the_file_of_a_dead_process_is_replaced_and_that_of_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        drop(StdListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the file");
        let socket = UnixSocket::listen(&path, 0o600, 8).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let error = UnixSocket::listen(&path, 0o600, 8).unwrap_err();
        assert!(error.to_string().contains("another process listens"), "{error}");
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_that_is_not_a_socket_or_belongs_to_another_process_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        fs::write(&path, "text").unwrap();
        let error = UnixSocket::listen(&path, 0o600, 8).unwrap_err();
        assert!(error.to_string().contains("not a socket"), "{error}");
        fs::remove_file(&path).unwrap();
        let socket = UnixSocket::listen(&path, 0o600, 8).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = StdListener::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists());
    }
}
