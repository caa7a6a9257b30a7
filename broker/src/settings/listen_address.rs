//! An address to listen on, as the settings name it. The host may be a name: it is looked up when the server starts.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};

/// A host, by IP address or by name, and a port; port 0 for any free one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    host: String,
    port: u16,
}

impl ListenAddress {
    /// An address of the settings, where a negative port stands for any free one.
    pub(super) fn new(host: &str, port: i32) -> Self {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Self {
            host: if host.is_empty() { "0.0.0.0" } else { host }.to_owned(),
            port: u16::try_from(port).unwrap_or(0),
        }
    }

    /// The port; 0 for any free one.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The IP address of the host. Of a name with addresses of both families it is one of IPv4, as `nats-server` has it.
    ///
    /// # Errors
    /// The error of the system for a name that is not known.
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

/// Whether `text` may be the host of an address to listen on: an IP address, or a name.
pub(super) fn is_host(text: &str) -> bool {
    let is_part_of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let is_name = !text.is_empty() && text.bytes().all(is_part_of_name);
    // What looks like an IP address and is none would be looked up in vain.
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
        for (text, taken) in [
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
            assert_eq!(is_host(text), taken, "{text}");
        }
    }
}
