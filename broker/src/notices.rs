//! The files by which others find a running server: its process id, its ports.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_json::json;
use thiserror::Error;
use tracing::warn;

use crate::Server;
use crate::settings::{Process, named};

/// A file that cannot be written.
#[derive(Debug, Error)]
#[error("cannot write the {what} {path}: {error}; name one that can be written, or none", path = path.display())]
pub struct NoticeError {
    what: &'static str,
    path: PathBuf,
    error: io::Error,
}

/// Files that are removed when this is dropped.
#[derive(Debug, Default)]
pub struct Notices {
    files: Vec<PathBuf>,
}

impl Notices {
    /// Writes those that the settings name.
    ///
    /// # Errors
    /// [`NoticeError`]; nothing is left behind then.
    pub fn put_up(process: &Process, server: &Server) -> Result<Self, NoticeError> {
        let mut notices = Self::default();
        let id = std::process::id();
        if let Some(path) = named(&process.pid_file) {
            notices.write("pid file", path, &id.to_string())?;
        }
        if let Some(folder) = named(&process.ports_file_dir) {
            // As nats-server writes it; what this server has not is left out.
            let monitoring = server
                .http_address()
                .map(|address| format!("http://{}", reachable(address)));
            let cluster = server
                .mesh_address()
                .map(|address| format!("nats://{}", reachable(address)));
            let ports = json!({
                "nats": [format!("nats://{}", reachable(server.address()))],
                "cluster": cluster.into_iter().collect::<Vec<_>>(),
                "monitoring": monitoring.into_iter().collect::<Vec<_>>(),
            });
            let path = folder.join(format!("standin-broker_{id}.ports"));
            notices.write("ports file", &path, &ports.to_string())?;
        }
        Ok(notices)
    }

    /// Whole or not at all: somebody may be waiting for it.
    fn write(&mut self, what: &'static str, path: &Path, text: &str) -> Result<(), NoticeError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let new = PathBuf::from(name);
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, path));
        if let Err(error) = written {
            // It may not be there at all.
            let _ = fs::remove_file(&new);
            return Err(NoticeError {
                what,
                path: path.to_owned(),
                error,
            });
        }
        self.files.push(path.to_owned());
        Ok(())
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        for path in &self.files {
            if let Err(error) = fs::remove_file(path)
                && error.kind() != io::ErrorKind::NotFound
            {
                warn!("cannot remove {}: {error}", path.display());
            }
        }
    }
}

/// An address that can be connected to from this host.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        _ => address.ip(),
    };
    SocketAddr::new(ip, address.port())
}
