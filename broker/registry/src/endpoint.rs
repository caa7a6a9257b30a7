//! An address of a host and a port, as text `host:port`. A host name is not resolved here.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};

use crate::error::RegistryError;

/// Longest host name in DNS, in bytes.
const HOST_BYTES_MAX: usize = 253;
const WANTED: &str = "HOST:PORT";

/// A host (name, IPv4 or IPv6 address without brackets) and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// Name or address, without brackets.
    pub host: Arc<str>,
    /// Port. A parsed port is never 0.
    pub port: u16,
}

impl Endpoint {
    /// Creates an endpoint without a check.
    pub fn new(host: impl Into<Arc<str>>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
    }

    /// Checks a host and a port, and creates an endpoint from them.
    ///
    /// # Errors
    /// [`RegistryError::Address`] if the host is empty, too long or has an invalid character, or the port is 0.
    pub fn checked(host: &str, port: u16) -> Result<Self, RegistryError> {
        let fail = |reason: &str| Err(RegistryError::address(&format!("{host}:{port}"), WANTED, reason));
        let bare = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        if bare.is_empty() {
            return fail("the host is empty");
        }
        if bare.len() > HOST_BYTES_MAX {
            return fail("the host is longer than 253 bytes");
        }
        if port == 0 {
            return fail("port 0 is invalid");
        }
        if bare.contains(':') {
            // The address may have a zone (`fe80::1%eth0`).
            let (address, zone) = bare.split_once('%').unwrap_or((bare, "0"));
            if address.parse::<Ipv6Addr>().is_err() {
                return fail("the host contains ':' but is not an IPv6 address; write [ADDRESS]:PORT");
            }
            if zone.is_empty() || !zone.chars().all(is_host_char) {
                return fail("the text after '%' is not the name or number of a network interface");
            }
        } else if let Some(bad) = bare.chars().find(|c| !is_host_char(*c)) {
            return fail(&format!("the host contains {bad:?}"));
        }
        Ok(Self::new(bare, port))
    }

    /// Parses `host`, `host:port`, `[v6]` or `[v6]:port`. `wanted` and `whole` are for the error.
    pub(crate) fn parse_with_default(
        text: &str,
        default_port: Option<u16>,
        wanted: &'static str,
        whole: &str,
    ) -> Result<Self, RegistryError> {
        let fail = |reason: String| RegistryError::address(whole, wanted, reason);
        let (host, port) = split_port(text).map_err(|reason| fail(reason.to_owned()))?;
        let port = match (port, default_port) {
            (Some(text), _) => match text.parse::<u16>() {
                Ok(port) if !text.starts_with('+') => port,
                _ => {
                    return Err(fail(format!(
                        "{text:?} is not a port; write a number from 1 to 65535"
                    )));
                }
            },
            (None, Some(port)) => port,
            (None, None) => return Err(fail("the port is missing; write HOST:PORT".to_owned())),
        };
        Self::checked(host, port).map_err(|error| match error {
            RegistryError::Address { reason, .. } => fail(reason),
            other => other,
        })
    }

    /// Returns the IP address, if the host is one without a zone.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

fn is_host_char(c: char) -> bool {
    // Underscores are not allowed in host names, but container platforms use them.
    c.is_alphanumeric() || matches!(c, '-' | '.' | '_')
}

/// Splits a text into the host and the port, if there is one.
fn split_port(text: &str) -> Result<(&str, Option<&str>), &'static str> {
    // This check is first, because the other errors would be misleading for several addresses.
    let words = text.split(|c: char| c == ',' || c == ';' || c.is_whitespace());
    if text.contains([',', ';']) || words.filter(|word| word.contains(':')).count() > 1 {
        return Err(
            "these are several addresses: separate them by ',', or write each as a separate string in a list of a settings file",
        );
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or("the closing bracket is missing")?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if after.is_empty() => Ok((host, None)),
            None => Err("only :PORT may follow the closing bracket"),
        };
    }
    match text.split_once(':') {
        Some((_, port)) if port.contains(':') => Err("an IPv6 address needs brackets; write [ADDRESS]:PORT"),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((text, None)),
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Endpoint {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse_with_default(text, None, WANTED, text)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl serde::Serialize for Endpoint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_endpoint_parses_to_the_same_endpoint() {
        for text in [
            "10.0.0.1:4222",
            "nats-1.example.com:80",
            "[2001:db8::1]:4222",
            "[fe80::1%eth0]:1",
            "a_b:65535",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        assert_eq!(&*"[::1]:4222".parse::<Endpoint>().unwrap().host, "::1");
    }

    #[test]
    fn the_error_contains_the_text_and_the_reason() {
        for (text, reason) in [
            ("host", "port is missing"),
            (":4222", "host is empty"),
            ("host:", "is not a port"),
            ("host:0", "port 0"),
            ("host:65536", "is not a port"),
            ("host:-1", "is not a port"),
            ("host:+80", "is not a port"),
            ("::1:4222", "needs brackets"),
            ("a:1;b:2", "several addresses"),
            ("a;b", "several addresses"),
            ("a:1,b:2", "several addresses"),
            ("a:1 b:2", "several addresses"),
            ("[::1", "closing bracket"),
            ("[::1]4222", "may follow"),
            ("[nonsense:]:1", "not an IPv6 address"),
            ("[fe80::1%]:1", "after '%'"),
            ("[fe80::1%\u{7}]:1", "after '%'"),
            ("ho st:1", "contains ' '"),
            ("a/b:1", "contains '/'"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert!(error.to_string().contains(reason), "{text}: {error}");
            assert!(
                error.to_string().contains(&format!("{text:?}")),
                "{text}: {error}"
            );
            assert_eq!(error.kind(), "address");
        }
        assert!(format!("{}:1", "a".repeat(254)).parse::<Endpoint>().is_err());
    }
}
