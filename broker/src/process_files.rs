//! The pid file and the ports file, by which scripts and tests find a running server.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_json::json;
use thiserror::Error;
use tracing::warn;

use crate::Server;
use crate::settings::{Process, non_empty};

/// The pid file or the ports file cannot be written.
#[derive(Debug, Error)]
#[error("cannot write the {what} {path}: {error}; give a path that can be written, or none", path = path.display())]
pub struct ProcessFileError {
    what: &'static str,
    path: PathBuf,
    error: io::Error,
}

/// The files that were written. They are removed on drop.
#[derive(Debug, Default)]
pub struct ProcessFiles {
    files: Vec<PathBuf>,
}

impl ProcessFiles {
    /// Writes the files that the settings name.
    ///
    /// # Errors
    /// [`ProcessFileError`]. Files already written are removed.
    pub fn write(process: &Process, server: &Server) -> Result<Self, ProcessFileError> {
        let mut process_files = Self::default();
        let id = std::process::id();
        if let Some(path) = non_empty(&process.pid_file) {
            process_files.write_file("pid file", path, &id.to_string())?;
        }
        if let Some(folder) = non_empty(&process.ports_file_dir) {
            // The format of nats-server, without the ports of features that this server does not have.
            let is_tls = server.settings().tls.http.is_on();
            let scheme = if is_tls { "https" } else { "http" };
            let monitoring = server
                .http_address()
                .map(|address| format!("{scheme}://{}", reachable(address)));
            let cluster = server
                .mesh_address()
                .map(|address| format!("nats://{}", reachable(address)));
            let ports = json!({
                "nats": [format!("nats://{}", reachable(server.address()))],
                "cluster": cluster.into_iter().collect::<Vec<_>>(),
                "monitoring": monitoring.into_iter().collect::<Vec<_>>(),
            });
            let path = folder.join(format!("standin-broker_{id}.ports"));
            process_files.write_file("ports file", &path, &ports.to_string())?;
        }
        Ok(process_files)
    }

    /// Writes a temporary file and renames it, because another process may be waiting for the file and must not read half of it.
    fn write_file(&mut self, what: &'static str, path: &Path, text: &str) -> Result<(), ProcessFileError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let new = PathBuf::from(name);
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, path));
        if let Err(error) = written {
            // The temporary file may not exist.
            let _ = fs::remove_file(&new);
            return Err(ProcessFileError {
                what,
                path: path.to_owned(),
                error,
            });
        }
        self.files.push(path.to_owned());
        Ok(())
    }
}

impl Drop for ProcessFiles {
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

/// Returns an address that can be connected to from this host: the loopback address instead of an unspecified one.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        _ => address.ip(),
    };
    SocketAddr::new(ip, address.port())
}
