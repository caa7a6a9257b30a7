//! The name resolver. It runs in the process and can be dropped at any moment: the system's own
//! (`getaddrinfo`) blocks a thread for as long as it likes, which would be left behind.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};

use crate::endpoint::Endpoint;

/// A resolver, or the reason why there is none. Cheap to clone; made anew whenever fresh system settings
/// should count.
#[derive(Clone)]
pub(crate) struct Resolver {
    inner: Result<Arc<TokioResolver>, String>,
}

/// Why a name gave no records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LookupError {
    /// The name does not exist, or has no such records.
    Nothing(String),
    /// Nobody could be asked, or nobody answered.
    Failed(String),
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing(text) | Self::Failed(text) => f.write_str(text),
        }
    }
}

/// Records and how long they hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found<T> {
    pub(crate) records: Vec<T>,
    pub(crate) ttl_secs: u32,
}

/// A service's instance, from an SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) target: String,
    pub(crate) port: u16,
    pub(crate) weight: u16,
}

impl Resolver {
    /// By the system's settings: `/etc/resolv.conf` with its search domains, `/etc/hosts`.
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

    /// By asking `server` alone.
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

    /// The addresses of `endpoint`'s host, with its port. Asks nobody when the host is an address.
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

    /// The A and AAAA records of `name`.
    pub(crate) async fn hosts(&self, name: &str) -> Result<Found<std::net::IpAddr>, LookupError> {
        let resolver = self
            .inner
            .as_ref()
            .map_err(|error| LookupError::Failed(error.clone()))?;
        let found = resolver.lookup_ip(name).await.map_err(explain)?;
        let ttl_secs = shortest_ttl_secs(found.as_lookup().answers().iter().map(|record| record.ttl));
        nothing_is_an_error(
            Found {
                records: found.iter().collect(),
                ttl_secs,
            },
            name,
        )
    }

    /// The SRV records of `name`.
    pub(crate) async fn services(&self, name: &str) -> Result<Found<Service>, LookupError> {
        let resolver = self
            .inner
            .as_ref()
            .map_err(|error| LookupError::Failed(error.clone()))?;
        let found = resolver.lookup(name, RecordType::SRV).await.map_err(explain)?;
        let ttl_secs = shortest_ttl_secs(found.answers().iter().map(|record| record.ttl));
        let records = found.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(Service {
                target: srv.target.to_utf8().trim_end_matches('.').to_owned(),
                port: srv.port,
                weight: srv.weight,
            }),
            _ => None,
        });
        nothing_is_an_error(
            Found {
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

fn nothing_is_an_error<T>(found: Found<T>, name: &str) -> Result<Found<T>, LookupError> {
    if found.records.is_empty() {
        return Err(LookupError::Nothing(format!(
            "{name} has no records of this kind"
        )));
    }
    Ok(found)
}

fn explain(error: hickory_resolver::net::NetError) -> LookupError {
    if error.is_no_records_found() || error.is_nx_domain() {
        LookupError::Nothing(error.to_string())
    } else {
        LookupError::Failed(error.to_string())
    }
}
