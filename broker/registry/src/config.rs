//! What the operator gave: where to look for nodes, and how much of it to keep.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::dns::{self, DnsName};
use crate::error::RegistryError;
use crate::hosts::HostList;
use crate::upstream::Upstream;
use crate::znode_path;

/// ZooKeeper's client library answers shorter sessions with failing calls or an endless reconnect.
const SESSION_TIMEOUT_MS_MIN: u64 = 4_000;
const SESSION_TIMEOUT_MS_MAX: u64 = 300_000;
/// More nodes than this in one source are a mistake, unless the operator says otherwise.
pub(crate) const NODES_MAX_DEFAULT: usize = 4_096;

/// Where to look for nodes. `Default` is: nowhere, with the usual limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The ensemble to ask, if any.
    pub zookeeper: Option<ZooKeeperConfig>,
    /// Names to resolve again and again.
    pub dns: Vec<DnsName>,
    /// How often the names are resolved, in milliseconds; sooner when the records live shorter, never below
    /// 1,000.
    pub dns_refresh_ms: u64,
    /// The one server to ask instead of those in the system's settings (then `/etc/hosts` and search domains
    /// do not count).
    pub dns_server: Option<SocketAddr>,
    /// Addresses given by hand.
    pub fixed: Vec<Upstream>,
    /// Where the last list is kept for a cold start.
    pub cache_file: Option<PathBuf>,
    /// Whether nodes that other nodes name are taken up.
    pub gossip: bool,
    /// The most nodes taken from any one source; the rest is left out and counted.
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
    /// Whether all values can work; what [`watch()`](crate::watch()) asks first.
    ///
    /// # Errors
    /// [`RegistryError::Setting`] or [`RegistryError::Address`] with the first one that cannot.
    pub fn check(&self) -> Result<(), RegistryError> {
        if let Some(zookeeper) = &self.zookeeper {
            zookeeper.check()?;
        }
        if self.dns_refresh_ms < dns::REFRESH_MS_MIN {
            return Err(RegistryError::setting(
                "dns_refresh_ms",
                self.dns_refresh_ms,
                "the least is 1000",
            ));
        }
        if self.nodes_max == 0 {
            return Err(RegistryError::setting(
                "nodes_max",
                0,
                "with 0 no node could be known; the least is 1",
            ));
        }
        Ok(())
    }

    /// Whether there is a source that can know who is alive now, other than the operator's list.
    pub(crate) fn has_knowing_source(&self) -> bool {
        self.zookeeper.is_some() || !self.dns.is_empty()
    }
}

/// A ZooKeeper ensemble and the place in it where nodes register. `Debug` hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct ZooKeeperConfig {
    /// `HOST[:PORT],…[/chroot]`; the port is 2181 when missing. Names are resolved, and the hosts shuffled,
    /// for each connection.
    pub hosts: String,
    /// The znode whose children are the nodes.
    pub path: String,
    /// Session timeout in milliseconds, at least 4,000. A server that falls silent is given up within it.
    pub session_timeout_ms: u64,
    /// How long one host may take to accept a connection, in milliseconds.
    pub connect_timeout_ms: u64,
    /// How often everything is read again in case a watch was lost, in milliseconds.
    pub audit_ms: u64,
    /// `USER:PASSWORD` of the digest scheme, for znodes with an ACL. What [`announce()`](crate::announce())
    /// creates can then be read by all and changed with these credentials alone.
    pub digest_auth: Option<String>,
}

impl ZooKeeperConfig {
    /// These hosts, with the usual path and times.
    pub fn new(hosts: impl Into<String>) -> Self {
        Self {
            hosts: hosts.into(),
            path: "/standin/nodes".to_owned(),
            session_timeout_ms: 6_000,
            connect_timeout_ms: 1_000,
            audit_ms: 30_000,
            digest_auth: None,
        }
    }

    /// The path with the chroot before it.
    pub(crate) fn full_path(&self) -> Result<String, RegistryError> {
        Ok(self.hosts.parse::<HostList>()?.full_path(&self.path))
    }

    pub(crate) fn check(&self) -> Result<(), RegistryError> {
        self.hosts.parse::<HostList>()?;
        znode_path::check("zookeeper path", &self.path)?;
        if !(SESSION_TIMEOUT_MS_MIN..=SESSION_TIMEOUT_MS_MAX).contains(&self.session_timeout_ms) {
            let reason = "ZooKeeper sessions work from 4000 to 300000 ms";
            return Err(RegistryError::setting(
                "session_timeout_ms",
                self.session_timeout_ms,
                reason,
            ));
        }
        if self.connect_timeout_ms == 0 {
            return Err(RegistryError::setting(
                "connect_timeout_ms",
                0,
                "no host answers within 0 ms",
            ));
        }
        if self.audit_ms < 1_000 {
            return Err(RegistryError::setting(
                "audit_ms",
                self.audit_ms,
                "the least is 1000",
            ));
        }
        if self
            .digest_auth
            .as_deref()
            .is_some_and(|auth| !auth.contains(':'))
        {
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
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut ZooKeeperConfig)) -> String {
        let mut zookeeper = ZooKeeperConfig::new("127.0.0.1:2181/app");
        change(&mut zookeeper);
        Config {
            zookeeper: Some(zookeeper),
            ..Config::default()
        }
        .check()
        .unwrap_err()
        .to_string()
    }

    #[test]
    fn settings_that_cannot_work_are_refused_with_what_to_write() {
        assert!(refused(|z| z.session_timeout_ms = 3_999).contains("from 4000"));
        assert!(refused(|z| z.path = "standin".into()).contains("starts with '/'"));
        assert!(refused(|z| z.path = "/standin/".into()).contains("does not end"));
        assert!(refused(|z| z.path = "/a//b".into()).contains("empty"));
        assert!(refused(|z| z.hosts = "".into()).contains("host"));
        assert!(refused(|z| z.connect_timeout_ms = 0).contains("connect_timeout_ms"));
        let error = refused(|z| z.digest_auth = Some("secret".into()));
        assert!(error.contains("USER:PASSWORD") && !error.contains("secret"));
        assert!(
            Config {
                nodes_max: 0,
                ..Config::default()
            }
            .check()
            .is_err()
        );
        assert!(
            Config {
                dns_refresh_ms: 999,
                ..Config::default()
            }
            .check()
            .is_err()
        );
        assert!(Config::default().check().is_ok());
    }

    #[test]
    fn the_digest_password_is_in_no_log_line() {
        let zookeeper = ZooKeeperConfig {
            digest_auth: Some("u:secret".into()),
            ..ZooKeeperConfig::new("h")
        };
        assert!(!format!("{zookeeper:?}").contains("secret"));
    }
}
