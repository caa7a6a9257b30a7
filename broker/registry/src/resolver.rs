//! The DNS resolver. It runs in the process, and a lookup can be cancelled at any moment. The resolver of the system
//! (`getaddrinfo`) is not used, because it blocks a thread for an unknown time and cannot be cancelled.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{RData, RecordType};
use thiserror::Error;

use crate::endpoint::Endpoint;

/// A resolver, or the error of its creation. Cheap to clone. A new one reads the system's settings again.
#[derive(Clone)]
pub(crate) struct Resolver {
    inner: Result<Arc<TokioResolver>, String>,
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
        let builder = match server {
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
        let built = builder.and_then(|mut builder| {
            builder.options_mut().cache_size = 0;
            builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
            builder.build()
        });
        let inner = built.map(Arc::new).map_err(|error| match server {
            None => format!("cannot use the system's resolver settings: {error}"),
            Some(server) => format!("cannot ask {server}: {error}"),
        });
        Self { inner }
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
        let found = self.inner()?.lookup_ip(name).await.map_err(lookup_error)?;
        let mut ips: Vec<IpAddr> = found.iter().collect();
        // The library hides the failure of one query. So a type of which the last answer had records, and this one has none, is
        // queried again.
        for (record_type, is_of_type) in [
            (RecordType::A, IpAddr::is_ipv4 as fn(&IpAddr) -> bool),
            (RecordType::AAAA, IpAddr::is_ipv6),
        ] {
            if ips.iter().any(is_of_type) || !known.iter().any(is_of_type) {
                continue;
            }
            let name = found.as_lookup().query().name().clone();
            match self
                .inner()?
                .lookup(name, record_type)
                .await
                .map_err(lookup_error)
            {
                Ok(again) => ips.extend(again.answers().iter().filter_map(|record| record.data.ip_addr())),
                Err(LookupError::NoRecords(_)) => {}
                Err(LookupError::Failed(_)) => ips.extend(known.iter().filter(|ip| is_of_type(ip))),
            }
        }
        let ttls = found.as_lookup().answers().iter().map(|record| record.ttl);
        not_empty(name, ips, ttls)
    }

    /// Returns the SRV records of `name`.
    pub(crate) async fn services(&self, name: &str) -> Result<Records<SRV>, LookupError> {
        let found = self
            .inner()?
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

    fn inner(&self) -> Result<&TokioResolver, LookupError> {
        let inner = self.inner.as_deref();
        inner.map_err(|error| LookupError::Failed(error.clone()))
    }
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
            inner: Err("no server".to_owned()),
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
