//! Configuration of the registry: the sources of nodes, and limits.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::dns::{self, DnsName};
use crate::error::RegistryError;
use crate::hosts::HostList;
use crate::upstream::Upstream;
use crate::znode_path;

/// With a shorter timeout, calls of the client library fail, or it reconnects endlessly.
const SESSION_TIMEOUT_MS_MIN: u64 = 4_000;
const SESSION_TIMEOUT_MS_MAX: u64 = 300_000;
/// Default limit on the nodes of one source.
pub(crate) const NODES_MAX_DEFAULT: usize = 4_096;

/// Sources of nodes, and limits. `Default` has no source and the default limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The ZooKeeper ensemble, if it is a source.
    pub zookeeper: Option<ZooKeeperConfig>,
    /// DNS names, which are resolved repeatedly.
    pub dns: Vec<DnsName>,
    /// Interval between two lookups of a name, in milliseconds, at least 1,000. If the TTL of the records is shorter, the
    /// interval is the TTL.
    pub dns_refresh_ms: u64,
    /// DNS server to be used instead of the system's settings. `/etc/hosts` and search domains are ignored then.
    pub dns_server: Option<SocketAddr>,
    /// Addresses from the settings.
    pub fixed: Vec<Upstream>,
    /// File in which the last list is kept for a cold start.
    pub cache_file: Option<PathBuf>,
    /// Whether nodes that other nodes name in INFO are used.
    pub gossip: bool,
    /// Limit on the nodes of one source. Nodes above it are ignored and counted.
    pub nodes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            zookeeper: None,
            dns: Vec::new(),
            dns_refresh_ms: 5_000,
            dns_server: None,
            fixed: Vec::new(),
            cache_file: None,
            gossip: true,
            nodes_max: NODES_MAX_DEFAULT,
        }
    }
}

impl Config {
    /// Checks all values, as [`watch()`](crate::watch()) does first.
    ///
    /// # Errors
    /// [`RegistryError::Setting`] or [`RegistryError::Address`] for the first invalid value.
    pub fn check(&self) -> Result<(), RegistryError> {
        if let Some(zookeeper) = &self.zookeeper {
            zookeeper.check()?;
        }
        if self.dns_refresh_ms < dns::REFRESH_MS_MIN {
            let reason = "the minimum is 1000";
            return Err(RegistryError::setting(
                "dns_refresh_ms",
                self.dns_refresh_ms,
                reason,
            ));
        }
        if self.nodes_max == 0 {
            return Err(RegistryError::setting("nodes_max", 0, "the minimum is 1"));
        }
        Ok(())
    }
}

/// Who may read the znodes that a program with credentials creates. Without credentials, everybody can read and change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZnodeReaders {
    /// Everybody, so that programs without credentials still find the nodes.
    All,
    /// Only clients with the same credentials.
    Creator,
}

/// A ZooKeeper ensemble, and the path at which nodes register. `Debug` hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct ZooKeeperConfig {
    /// `HOST[:PORT],…[/chroot]`. The default port is 2181. For each connection, names are resolved and the hosts shuffled.
    pub hosts: String,
    /// Path of the znode whose children are the nodes.
    pub path: String,
    /// Session timeout in milliseconds, at least 4,000. A connection to a silent server is closed within this time.
    pub session_timeout_ms: u64,
    /// Time limit for a connection to one host, in milliseconds.
    pub connect_timeout_ms: u64,
    /// Interval at which all znodes are compared with the known ones, in case a watch was lost, in milliseconds.
    pub audit_ms: u64,
    /// Credentials of the digest scheme, `USER:PASSWORD`, for znodes with an ACL. Only these credentials allow changes of the
    /// znodes that [`Announcement`](crate::Announcement) creates.
    pub digest_auth: Option<String>,
    /// Who may read these znodes.
    pub readers: ZnodeReaders,
}

impl ZooKeeperConfig {
    /// Creates a configuration with `hosts` and the default path and times.
    pub fn new(hosts: impl Into<String>) -> Self {
        Self {
            hosts: hosts.into(),
            path: "/standin/nodes".to_owned(),
            session_timeout_ms: 6_000,
            connect_timeout_ms: 1_000,
            audit_ms: 30_000,
            digest_auth: None,
            readers: ZnodeReaders::All,
        }
    }

    /// Returns the path including the chroot.
    pub(crate) fn full_path(&self) -> Result<String, RegistryError> {
        Ok(self.hosts.parse::<HostList>()?.full_path(&self.path))
    }

    pub(crate) fn check(&self) -> Result<(), RegistryError> {
        self.hosts.parse::<HostList>()?;
        znode_path::check("zookeeper path", &self.path)?;
        let sessions = SESSION_TIMEOUT_MS_MIN..=SESSION_TIMEOUT_MS_MAX;
        for (allowed, name, value, reason) in [
            (
                sessions,
                "session_timeout_ms",
                self.session_timeout_ms,
                "the range is from 4000 to 300000 ms",
            ),
            (
                1..=u64::MAX,
                "connect_timeout_ms",
                self.connect_timeout_ms,
                "the minimum is 1",
            ),
            (1_000..=u64::MAX, "audit_ms", self.audit_ms, "the minimum is 1000"),
        ] {
            if !allowed.contains(&value) {
                return Err(RegistryError::setting(name, value, reason));
            }
        }
        let auth = self.digest_auth.as_deref();
        if auth.is_some_and(|auth| !auth.contains(':')) {
            return Err(RegistryError::setting("digest_auth", "…", "write USER:PASSWORD"));
        }
        Ok(())
    }
}

impl fmt::Debug for ZooKeeperConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZooKeeperConfig")
            .field("hosts", &self.hosts)
            .field("path", &self.path)
            .field("session_timeout_ms", &self.session_timeout_ms)
            .field("connect_timeout_ms", &self.connect_timeout_ms)
            .field("audit_ms", &self.audit_ms)
            .field("digest_auth", &self.digest_auth.as_ref().map(|_| "…"))
            .field("readers", &self.readers)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_an_invalid_value_says_what_to_write() {
        type Change = fn(&mut ZooKeeperConfig);
        let refused = |zookeeper, nodes_max, dns_refresh_ms| {
            let config = Config {
                zookeeper: Some(zookeeper),
                nodes_max,
                dns_refresh_ms,
                ..Config::default()
            };
            config.check().map_err(|error| error.to_string()).err()
        };
        let good = || ZooKeeperConfig::new("127.0.0.1:2181/app");
        assert_eq!(refused(good(), 1, 1_000), None);
        assert!(refused(good(), 0, 1_000).is_some_and(|error| error.contains("nodes_max")));
        assert!(refused(good(), 1, 999).is_some_and(|error| error.contains("dns_refresh_ms")));
        let cases: [(Change, &str); 7] = [
            (|z| z.session_timeout_ms = 3_999, "from 4000"),
            (|z| z.path = "standin".into(), "starts with '/'"),
            (|z| z.path = "/standin/".into(), "does not end"),
            (|z| z.path = "/a//b".into(), "empty"),
            (|z| z.hosts = "".into(), "host"),
            (|z| z.connect_timeout_ms = 0, "connect_timeout_ms"),
            (|z| z.digest_auth = Some("secret".into()), "USER:PASSWORD"),
        ];
        for (change, reason) in cases {
            let mut zookeeper = good();
            change(&mut zookeeper);
            let error = refused(zookeeper, 1, 1_000).unwrap();
            assert!(error.contains(reason) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn the_digest_password_is_hidden() {
        let zookeeper = ZooKeeperConfig {
            digest_auth: Some("u:secret".into()),
            ..ZooKeeperConfig::new("h")
        };
        assert!(!format!("{zookeeper:?}").contains("secret"));
    }
}
