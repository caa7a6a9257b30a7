//! The host list of a ZooKeeper ensemble, `HOST[:PORT],…[/chroot]`: parsed, resolved and shuffled.
//!
//! The client library does this badly. It resolves each name once, uses only the first address, fails if one name does not
//! resolve, and tries the hosts in the given order, so that all clients connect to the first host. Therefore the library
//! always gets a single address.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use rand::seq::SliceRandom;
use tokio::task::JoinSet;

use crate::endpoint::Endpoint;
use crate::error::RegistryError;
use crate::resolver::Resolver;
use crate::znode_path;

const PORT_DEFAULT: u16 = 2181;
const WANTED: &str = "a ZooKeeper host list (HOST[:PORT],…[/chroot])";
/// Maximum number of hosts. No ensemble has more, even with observers.
const HOSTS_MAX: usize = 64;
/// Time limit for one lookup. A host that takes longer is left out until the next call of [`resolve`](HostList::resolve).
const RESOLVE_TIMEOUT_MS: u64 = 2_000;

/// A parsed host list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostList {
    hosts: Vec<Endpoint>,
    /// The chroot without a slash at its end. Empty if there is none.
    chroot: String,
}

impl FromStr for HostList {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |reason: String| Err(RegistryError::address(text, WANTED, reason));
        let (list, chroot) = text.split_at(text.find('/').unwrap_or(text.len()));
        let between_hosts = |c: &char| *c == ';' || c.is_whitespace();
        let mut hosts = list.split(',');
        if let Some(separator) = hosts.find_map(|host| host.trim().chars().find(between_hosts)) {
            return fail(format!("hosts are separated by ',', not {separator:?}"));
        }
        let hosts = list
            .split(',')
            .map(|host| Endpoint::parse_with_default(host.trim(), Some(PORT_DEFAULT), WANTED, text))
            .collect::<Result<Vec<_>, _>>()?;
        if hosts.len() > HOSTS_MAX {
            return fail(format!("more than {HOSTS_MAX} hosts"));
        }
        let chroot = chroot.trim_end_matches('/').to_owned();
        if !chroot.is_empty() {
            znode_path::check("zookeeper chroot", &chroot)?;
        }
        Ok(Self { hosts, chroot })
    }
}

impl HostList {
    /// Returns the hosts in the order of the text.
    pub(crate) fn hosts(&self) -> &[Endpoint] {
        &self.hosts
    }

    /// Returns `path` with the chroot before it. The chroot support of the library is not used: the library does not create
    /// the chroot, and a watch on the root of a chroot never fires.
    pub(crate) fn full_path(&self, path: &str) -> String {
        match (self.chroot.as_str(), path) {
            ("", path) => path.to_owned(),
            (chroot, "/") => chroot.to_owned(),
            (chroot, path) => format!("{chroot}{path}"),
        }
    }

    /// Returns all addresses of the hosts in random order, and the errors of the hosts that did not resolve.
    pub(crate) async fn resolve(&self, resolver: &Resolver) -> (Vec<SocketAddr>, Vec<String>) {
        let mut lookups = JoinSet::new();
        for host in &self.hosts {
            let (host, resolver) = (host.clone(), resolver.clone());
            lookups.spawn(async move {
                let limit = Duration::from_millis(RESOLVE_TIMEOUT_MS);
                match tokio::time::timeout(limit, resolver.addresses(&host)).await {
                    Ok(Ok(addresses)) => Ok(addresses),
                    Ok(Err(error)) => Err(format!("{host}: {error}")),
                    Err(_) => Err(format!("{host}: not resolved within {RESOLVE_TIMEOUT_MS} ms")),
                }
            });
        }
        let (mut addresses, mut errors) = (Vec::new(), Vec::new());
        while let Some(lookup) = lookups.join_next().await {
            match lookup {
                Ok(Ok(found)) => addresses.extend(found),
                Ok(Err(error)) => errors.push(error),
                Err(error) => errors.push(error.to_string()),
            }
        }
        addresses.sort_unstable();
        addresses.dedup();
        addresses.shuffle(&mut rand::rng());
        errors.sort_unstable();
        (addresses, errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_hosts_ports_and_a_chroot() {
        let list: HostList = "zk1:2182, zk2 ,[::1]:2183/app/a/".parse().unwrap();
        let hosts: Vec<_> = list.hosts.iter().map(ToString::to_string).collect();
        assert_eq!(hosts, ["zk1:2182", "zk2:2181", "[::1]:2183"]);
        assert_eq!(list.full_path("/standin/nodes"), "/app/a/standin/nodes");
        assert_eq!(list.full_path("/"), "/app/a");
        assert_eq!("h/".parse::<HostList>().unwrap().full_path("/x"), "/x");
        for bad in ["", ",", "h:", "h:0", "/app", "h,,i", "h/a/../b"] {
            assert!(bad.parse::<HostList>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_error_names_a_wrong_separator() {
        for text in [
            "zk1:2181;zk2:2181",
            "zk1;zk2/app",
            "zk1:2181 zk2:2181",
            "zk1,zk2; zk3",
        ] {
            let error = text.parse::<HostList>().unwrap_err().to_string();
            assert!(error.contains("hosts are separated by ','"), "{error}");
        }
    }

    #[tokio::test]
    async fn hosts_are_shuffled_and_a_name_that_does_not_resolve_is_skipped() {
        let list = "127.0.0.1,127.0.0.2,127.0.0.3,no-such-host.invalid";
        let list: HostList = list.parse().unwrap();
        let resolver = Resolver::new(None);
        let mut firsts = std::collections::HashSet::new();
        for _ in 0..40 {
            let (addresses, errors) = list.resolve(&resolver).await;
            assert_eq!(addresses.len(), 3);
            assert_eq!(errors.len(), 1);
            assert!(errors[0].contains("no-such-host.invalid"), "{errors:?}");
            firsts.insert(addresses[0]);
        }
        assert_eq!(firsts.len(), 3, "each host is first sometimes");
    }
}
