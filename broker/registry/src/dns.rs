//! Nodes from DNS: the addresses of a name (a Kubernetes headless service, a round-robin name) with a port, or the targets of
//! SRV records. Names are resolved repeatedly. A failed lookup does not replace the last answer. If only the lookup of the A or of the
//! AAAA records fails, the last addresses of that type are kept.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::error::RegistryError;
use crate::node::{Node, Source};
use crate::resolver::{LookupError, Resolver};

/// Time limit for one lookup.
const LOOKUP_TIMEOUT_MS: u64 = 10_000;
/// Lower limit of the time between two lookups of a name, whatever the TTL of its records.
pub(crate) const REFRESH_MS_MIN: u64 = 1_000;
const WANTED: &str = "a DNS source (NAME:PORT, or _service._proto.NAME for SRV records)";

/// A DNS name whose records are nodes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DnsName {
    /// `NAME:PORT`: each A and AAAA record is a node at this port.
    Host(Endpoint),
    /// `_service._proto.NAME[:PORT]`: each SRV record is a node.
    Service {
        /// The whole name, including service and protocol.
        name: Arc<str>,
        /// Port to be used instead of that in the records.
        port: Option<u16>,
    },
}

impl FromStr for DnsName {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let labels: Vec<&str> = text.split('.').collect();
        if !text.starts_with('_') || labels.len() < 3 || !labels[1].starts_with('_') {
            return Endpoint::parse_with_default(text, None, WANTED, text).map(Self::Host);
        }
        let has_port = text.contains(':');
        let endpoint = Endpoint::parse_with_default(text, Some(1), WANTED, text)?;
        Ok(Self::Service {
            name: endpoint.host,
            port: has_port.then_some(endpoint.port),
        })
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(endpoint) => endpoint.fmt(f),
            Self::Service { name, port: None } => f.write_str(name),
            Self::Service {
                name,
                port: Some(port),
            } => write!(f, "{name}:{port}"),
        }
    }
}

/// Result of a lookup.
pub(crate) type DnsAnswer = Result<Vec<Arc<Node>>, LookupError>;

/// Resolves `name` repeatedly and passes each answer to `report`, until that returns `false`. The interval is `refresh_ms`, or
/// the TTL of the records if that is shorter. Without `server`, the system's settings are used.
pub(crate) async fn resolve_repeatedly(
    name: DnsName,
    server: Option<SocketAddr>,
    refresh_ms: u64,
    report: impl AsyncFn(DnsAnswer) -> bool,
) {
    let mut known = Vec::new();
    loop {
        // A new resolver each time, so that changed system settings take effect without a restart.
        let resolver = Resolver::new(server);
        let lookup = lookup(&resolver, &name, &mut known);
        let limit = Duration::from_millis(LOOKUP_TIMEOUT_MS);
        let answer = tokio::time::timeout(limit, lookup).await.unwrap_or_else(|_| {
            let reason = format!("no answer within {LOOKUP_TIMEOUT_MS} ms");
            Err(LookupError::Failed(reason))
        });
        let ttl_secs = answer.as_ref().map_or(u32::MAX, |(_, ttl_secs)| *ttl_secs);
        if !report(answer.map(|(nodes, _)| nodes)).await {
            return;
        }
        let ttl_ms = u64::from(ttl_secs).saturating_mul(1_000).max(REFRESH_MS_MIN);
        tokio::time::sleep(Duration::from_millis(ttl_ms.min(refresh_ms))).await;
    }
}

/// Resolves `name` once, within `limit`. Without `server`, the system's settings are used. For `doctor`.
///
/// # Errors
/// The reason why there is no answer.
pub async fn look_up(
    name: &DnsName,
    server: Option<SocketAddr>,
    limit: Duration,
) -> Result<Vec<Arc<Node>>, String> {
    let (resolver, mut known) = (Resolver::new(server), Vec::new());
    match tokio::time::timeout(limit, lookup(&resolver, name, &mut known)).await {
        Ok(Ok((nodes, _))) => Ok(nodes),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} ms", limit.as_millis())),
    }
}

/// Resolves `name` once. `known` contains the addresses of the last answer, which the new ones replace.
async fn lookup(
    resolver: &Resolver,
    name: &DnsName,
    known: &mut Vec<IpAddr>,
) -> Result<(Vec<Arc<Node>>, u32), LookupError> {
    let (mut nodes, ttl_secs) = match name {
        DnsName::Host(Endpoint { host, port }) => {
            let (ips, ttl_secs) = resolver.hosts(host, known).await?;
            known.clone_from(&ips);
            let at = |ip: IpAddr| Node::at(Endpoint::new(ip.to_string(), *port), Source::Dns);
            (ips.into_iter().map(at).collect::<Vec<_>>(), ttl_secs)
        }
        DnsName::Service { name, port } => {
            let (services, ttl_secs) = resolver.services(name).await?;
            let nodes = services.into_iter().filter_map(|service| {
                let target = service.target.to_utf8();
                let port = port.unwrap_or(service.port);
                let client = Endpoint::checked(target.trim_end_matches('.'), port).ok()?;
                Some(Node {
                    weight: u32::from(service.weight).max(1),
                    ..Node::at(client, Source::Dns)
                })
            });
            (nodes.collect(), ttl_secs)
        }
    };
    // DNS servers rotate their answers. The same records in another order are not a change.
    nodes.sort_unstable_by(|a, b| a.client.cmp(&b.client));
    nodes.dedup_by(|a, b| a.client == b.client);
    if nodes.is_empty() {
        let reason = format!("{name}: no record has a valid address");
        return Err(LookupError::NoRecords(reason));
    }
    Ok((nodes.into_iter().map(Arc::new).collect(), ttl_secs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_host_with_a_port_or_a_service() {
        assert_eq!(
            "nats.example.com:4222".parse(),
            Ok(DnsName::Host(Endpoint::new("nats.example.com", 4222)))
        );
        let service = |port| DnsName::Service {
            name: "_nats._tcp.example.com".into(),
            port,
        };
        assert_eq!("_nats._tcp.example.com".parse(), Ok(service(None)));
        assert_eq!("_nats._tcp.example.com:4222".parse(), Ok(service(Some(4222))));
        assert_eq!(service(Some(1)).to_string(), "_nats._tcp.example.com:1");
        for bad in [
            "nats.example.com",
            "_nats._tcp.example.com:0",
            "_nats._tcp",
            "",
            ":1",
            "_nats._tcp.a b",
        ] {
            let error = bad.parse::<DnsName>().unwrap_err();
            assert!(error.to_string().contains("_service._proto"), "{error}");
        }
    }
}
