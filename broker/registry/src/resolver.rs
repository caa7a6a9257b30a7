//! The DNS resolver. It runs in the process, and a lookup can be cancelled at any moment. The resolver of the system
//! (`getaddrinfo`) is not used here, because it blocks a thread for an unknown time and cannot be cancelled.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{RData, RecordType};
use thiserror::Error;
use tokio::time::timeout;

use crate::endpoint::Endpoint;

/// Time for the second of two queries to be answered, once the first has found records. A server that does not answer one type at
/// all must not keep the other addresses away.
const SECOND_ANSWER: Duration = Duration::from_secs(1);

/// A resolver, or the error of its creation. Cheap to clone. A new one reads the system's settings again.
#[derive(Clone)]
pub(crate) struct Resolver {
    lookups: Result<Arc<Lookups>, String>,
}

/// The resolvers of the two types of addresses. They are asked one by one, because the library hides which of two queries failed, and
/// waits for both.
struct Lookups {
    v4: TokioResolver,
    v6: TokioResolver,
}

/// Error of a lookup.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum LookupError {
    /// The name does not exist, or has no records of this type.
    #[error("{0}")]
    NoRecords(String),
    /// No server could be asked, none answered, or the answer was an error.
    #[error("{0}")]
    Failed(String),
}

/// Records of a name, and their shortest TTL in seconds.
pub(crate) type Records<T> = (Vec<T>, u32);

impl Resolver {
    /// Creates a resolver that asks only `server`, or else one with the system's settings: `/etc/resolv.conf` with its search
    /// domains, and `/etc/hosts`.
    pub(crate) fn new(server: Option<SocketAddr>) -> Self {
        let builder = || match server {
            None => TokioResolver::builder_tokio(),
            Some(server) => {
                let mut name_server = NameServerConfig::udp_and_tcp(server.ip());
                for connection in &mut name_server.connections {
                    connection.port = server.port();
                }
                let config = ResolverConfig::from_name_servers(vec![name_server]);
                let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
                builder.options_mut().use_hosts_file = ResolveHosts::Never;
                Ok(builder)
            }
        };
        let resolver = |strategy| {
            builder().and_then(|mut builder| {
                builder.options_mut().cache_size = 0;
                builder.options_mut().ip_strategy = strategy;
                builder.build()
            })
        };
        let lookups = resolver(LookupIpStrategy::Ipv4Only).and_then(|v4| {
            let v6 = resolver(LookupIpStrategy::Ipv6Only)?;
            Ok(Arc::new(Lookups { v4, v6 }))
        });
        let lookups = lookups.map_err(|error| match server {
            None => format!("cannot use the system's resolver settings: {error}"),
            Some(server) => format!("cannot ask {server}: {error}"),
        });
        Self { lookups }
    }

    /// Returns the addresses of the host of `endpoint`, with its port. Asks no server if the host is an IP address.
    pub(crate) async fn addresses(&self, endpoint: &Endpoint) -> Result<Vec<SocketAddr>, LookupError> {
        // The system needs no server for these. It turns the zone of an address (`fe80::1%eth0`) into a number.
        if endpoint.ip().is_some() || endpoint.host.contains(':') {
            let addresses = (&*endpoint.host, endpoint.port).to_socket_addrs();
            let addresses = addresses.map_err(|error| LookupError::Failed(error.to_string()))?;
            return Ok(addresses.collect());
        }
        let (ips, _) = self.hosts(&endpoint.host, &[]).await?;
        let addresses = ips.into_iter().map(|ip| SocketAddr::new(ip, endpoint.port));
        Ok(addresses.collect())
    }

    /// Returns the A and AAAA records of `name`. `known` are the addresses of the last answer. If only one of the two queries
    /// fails, they replace its records.
    pub(crate) async fn hosts(&self, name: &str, known: &[IpAddr]) -> Result<Records<IpAddr>, LookupError> {
        let Lookups { v4, v6 } = self.lookups()?;
        let (v4, v6) = both(v4.lookup_ip(name), v6.lookup_ip(name)).await;
        let (mut ips, mut ttls, mut answers, mut failure) = (Vec::new(), Vec::new(), 0, None);
        for (found, is_of_type) in [
            (v4, IpAddr::is_ipv4 as fn(&IpAddr) -> bool),
            (v6, IpAddr::is_ipv6),
        ] {
            match found.map(|found| found.map_err(lookup_error)) {
                Some(Ok(found)) => {
                    answers += 1;
                    ips.extend(found.iter());
                    ttls.extend(found.as_lookup().answers().iter().map(|record| record.ttl));
                }
                Some(Err(LookupError::NoRecords(_))) => answers += 1,
                Some(Err(LookupError::Failed(error))) => {
                    failure = Some(error);
                    ips.extend(known.iter().filter(|ip| is_of_type(ip)));
                }
                None => ips.extend(known.iter().filter(|ip| is_of_type(ip))),
            }
        }
        match failure {
            Some(error) if answers == 0 || ips.is_empty() => Err(LookupError::Failed(error)),
            _ => not_empty(name, ips, ttls.into_iter()),
        }
    }

    /// Returns the SRV records of `name`.
    pub(crate) async fn services(&self, name: &str) -> Result<Records<SRV>, LookupError> {
        let found = self
            .lookups()?
            .v4
            .lookup(name, RecordType::SRV)
            .await
            .map_err(lookup_error)?;
        let ttls = found.answers().iter().map(|record| record.ttl);
        let records = found.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(srv.clone()),
            _ => None,
        });
        not_empty(name, records.collect(), ttls)
    }

    fn lookups(&self) -> Result<&Lookups, LookupError> {
        let lookups = self.lookups.as_deref();
        lookups.map_err(|error| LookupError::Failed(error.clone()))
    }
}

/// Waits for both queries. When one has found records, the other gets [`SECOND_ANSWER`] more; `None` if it needs longer.
async fn both<T, E>(
    one: impl Future<Output = Result<T, E>>,
    other: impl Future<Output = Result<T, E>>,
) -> (Option<Result<T, E>>, Option<Result<T, E>>) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    tokio::select! {
        found = &mut one => {
            let later = second(found.is_ok(), other).await;
            (Some(found), later)
        }
        found = &mut other => {
            let later = second(found.is_ok(), one).await;
            (later, Some(found))
        }
    }
}

async fn second<T>(has_records: bool, query: impl Future<Output = T>) -> Option<T> {
    let limit = if has_records { SECOND_ANSWER } else { Duration::MAX };
    timeout(limit, query).await.ok()
}

fn not_empty<T>(
    name: &str,
    records: Vec<T>,
    ttls: impl Iterator<Item = u32>,
) -> Result<Records<T>, LookupError> {
    if records.is_empty() {
        return Err(LookupError::NoRecords(format!(
            "{name} has no records of this type"
        )));
    }
    Ok((records, ttls.min().unwrap_or(u32::MAX)))
}

fn lookup_error(error: hickory_resolver::net::NetError) -> LookupError {
    if error.is_no_records_found() || error.is_nx_domain() {
        LookupError::NoRecords(error.to_string())
    } else {
        LookupError::Failed(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_not_looked_up() {
        let no_server = Resolver {
            lookups: Err("no server".to_owned()),
        };
        for (host, address) in [
            ("10.0.0.1", "10.0.0.1:1"),
            ("::1", "[::1]:1"),
            ("fe80::1%lo", "[fe80::1%1]:1"),
        ] {
            let addresses = no_server.addresses(&Endpoint::new(host, 1)).await;
            assert_eq!(addresses, Ok(vec![address.parse().unwrap()]));
        }
    }
}
