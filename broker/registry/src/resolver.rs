//! The DNS resolver. It runs in the process, and a lookup can be cancelled at any moment. The resolver of the system
//! (`getaddrinfo`) is not used, because it blocks a thread for an unknown time and cannot be cancelled.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};

use crate::endpoint::Endpoint;

/// A resolver, or the error of its creation. Cheap to clone. A new one reads the system's settings again.
#[derive(Clone)]
pub(crate) struct Resolver {
    inner: Result<Arc<TokioResolver>, String>,
}

/// Error of a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LookupError {
    /// The name does not exist, or has no records of this type.
    NoRecords(String),
    /// No server could be asked, or none answered.
    Failed(String),
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRecords(text) | Self::Failed(text) => f.write_str(text),
        }
    }
}

/// Records and their shortest TTL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Records<T> {
    pub(crate) records: Vec<T>,
    pub(crate) ttl_secs: u32,
}

/// An SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SrvRecord {
    pub(crate) target: String,
    pub(crate) port: u16,
    pub(crate) weight: u16,
}

impl Resolver {
    /// Creates a resolver with the system's settings: `/etc/resolv.conf` with its search domains, and `/etc/hosts`.
    pub(crate) fn system() -> Self {
        let inner = TokioResolver::builder_tokio()
            .and_then(|mut builder| {
                builder.options_mut().cache_size = 0;
                builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
                builder.build()
            })
            .map(Arc::new)
            .map_err(|error| format!("cannot use the system's resolver settings: {error}"));
        Self { inner }
    }

    /// Creates a resolver that asks only `server`.
    pub(crate) fn of(server: SocketAddr) -> Self {
        let mut name_server = NameServerConfig::udp_and_tcp(server.ip());
        for connection in &mut name_server.connections {
            connection.port = server.port();
        }
        let config = ResolverConfig::from_name_servers(vec![name_server]);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.options_mut().use_hosts_file = ResolveHosts::Never;
        builder.options_mut().cache_size = 0;
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        let inner = builder
            .build()
            .map(Arc::new)
            .map_err(|error| format!("cannot ask {server}: {error}"));
        Self { inner }
    }

    /// Returns the addresses of the host of `endpoint`, with its port. Asks no server if the host is an IP address.
    pub(crate) async fn addresses(&self, endpoint: &Endpoint) -> Result<Vec<SocketAddr>, LookupError> {
        if let Some(ip) = endpoint.ip() {
            return Ok(vec![SocketAddr::new(ip, endpoint.port)]);
        }
        let found = self.hosts(&endpoint.host).await?;
        Ok(found
            .records
            .into_iter()
            .map(|ip| SocketAddr::new(ip, endpoint.port))
            .collect())
    }

    /// Returns the A and AAAA records of `name`.
    pub(crate) async fn hosts(&self, name: &str) -> Result<Records<std::net::IpAddr>, LookupError> {
        let resolver = self
            .inner
            .as_ref()
            .map_err(|error| LookupError::Failed(error.clone()))?;
        let found = resolver.lookup_ip(name).await.map_err(explain)?;
        let ttl_secs = shortest_ttl_secs(found.as_lookup().answers().iter().map(|record| record.ttl));
        not_empty(
            Records {
                records: found.iter().collect(),
                ttl_secs,
            },
            name,
        )
    }

    /// Returns the SRV records of `name`.
    pub(crate) async fn services(&self, name: &str) -> Result<Records<SrvRecord>, LookupError> {
        let resolver = self
            .inner
            .as_ref()
            .map_err(|error| LookupError::Failed(error.clone()))?;
        let found = resolver.lookup(name, RecordType::SRV).await.map_err(explain)?;
        let ttl_secs = shortest_ttl_secs(found.answers().iter().map(|record| record.ttl));
        let records = found.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(SrvRecord {
                target: srv.target.to_utf8().trim_end_matches('.').to_owned(),
                port: srv.port,
                weight: srv.weight,
            }),
            _ => None,
        });
        not_empty(
            Records {
                records: records.collect(),
                ttl_secs,
            },
            name,
        )
    }
}

fn shortest_ttl_secs(ttls: impl Iterator<Item = u32>) -> u32 {
    ttls.min().unwrap_or(u32::MAX)
}

fn not_empty<T>(found: Records<T>, name: &str) -> Result<Records<T>, LookupError> {
    if found.records.is_empty() {
        return Err(LookupError::NoRecords(format!(
            "{name} has no records of this type"
        )));
    }
    Ok(found)
}

fn explain(error: hickory_resolver::net::NetError) -> LookupError {
    if error.is_no_records_found() || error.is_nx_domain() {
        LookupError::NoRecords(error.to_string())
    } else {
        LookupError::Failed(error.to_string())
    }
}
