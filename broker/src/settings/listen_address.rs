//! An address to listen on, from the settings. If the host is a name, it is resolved when the server starts.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};

/// A host (an IP address or a name) and a port. Port 0 is any free port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    host: String,
    port: u16,
}

impl ListenAddress {
    /// Makes an address from settings, in which a negative port is any free port.
    pub(super) fn new(host: &str, port: i32) -> Self {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Self {
            host: if host.is_empty() { "0.0.0.0" } else { host }.to_owned(),
            port: u16::try_from(port).unwrap_or(0),
        }
    }

    /// Returns the port; 0 is any free port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Resolves the host. Prefers IPv4 addresses, as `nats-server` does.
    ///
    /// # Errors
    /// The error of the system, if the name cannot be resolved.
    pub fn resolve(&self) -> io::Result<SocketAddr> {
        if let Ok(ip) = self.host.parse::<IpAddr>() {
            return Ok(SocketAddr::new(ip, self.port));
        }
        let known: Vec<_> = (self.host.as_str(), self.port).to_socket_addrs()?.collect();
        let address = known.iter().find(|address| address.is_ipv4()).or(known.first());
        address
            .copied()
            .ok_or_else(|| io::Error::other("the name has no address"))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.parse::<Ipv6Addr>().is_ok() {
            return write!(formatter, "[{host}]:{port}");
        }
        write!(formatter, "{host}:{port}")
    }
}

/// Returns whether `text` is a valid host for an address to listen on: an IP address or a name.
pub(super) fn is_host(text: &str) -> bool {
    let is_part_of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let is_name = !text.is_empty() && text.bytes().all(is_part_of_name);
    // Digits and dots that are not an IP address are a typing error and not a name.
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse::<IpAddr>().is_ok() || (is_name && !is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_or_a_name() {
        for (host, shown, ip) in [
            ("127.0.0.1", "127.0.0.1:1", Some("127.0.0.1:1")),
            ("::1", "[::1]:1", Some("[::1]:1")),
            ("[::1]", "[::1]:1", Some("[::1]:1")),
            ("", "0.0.0.0:1", Some("0.0.0.0:1")),
            ("localhost", "localhost:1", Some("127.0.0.1:1")),
            ("no-such-host.invalid", "no-such-host.invalid:1", None),
        ] {
            let address = ListenAddress::new(host, 1);
            assert_eq!(address.to_string(), shown);
            assert_eq!(address.resolve().ok().map(|ip| ip.to_string()).as_deref(), ip);
        }
        assert_eq!(ListenAddress::new("::1", -1).port(), 0);
        for (text, is_valid) in [
            ("10.0.0.1", true),
            ("::1", true),
            ("node-1.example", true),
            ("10.0.0", false),
            ("10.0.0.256", false),
            ("[::1]", false),
            ("a:1", false),
            ("a b", false),
            ("", false),
        ] {
            assert_eq!(is_host(text), is_valid, "{text}");
        }
    }
}
