//! The PROXY protocol header, version 1 or 2: the first bytes of a connection that a load balancer passes on. It names the client of the
//! balancer, so that logs, limits and pages show the client and not the balancer.
//!
//! The protocol: <https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt>. The crate `proxy-header` decodes it. This file adds
//! the limits: [`HEADER_BYTES_MAX`] and [`HEADER_TIMEOUT`]. The header is read to its last byte and not further, because what follows
//! belongs to the component: the NATS protocol, or the handshake of TLS.

use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::time::Duration;

use proxy_header::{ParseConfig, Protocol, ProxiedAddress, ProxyHeader};
use serde::{Deserialize, Serialize};
use standin_daemon::listen::plain;
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Limit on the bytes of a header of version 2. It has at most 52 with the addresses of a TCP connection; the rest
/// are optional fields, which are ignored.
const HEADER_BYTES_MAX: usize = 4096;

/// The beginning of a header of version 1, and the limit on its bytes.
const V1_BEGINNING: &[u8] = b"PROXY ";
const V1_BYTES_MAX: usize = 107;

/// Timeout from the connect to the last byte of the header. Balancers send it at once.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// The addresses of the connection between the client and the balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Addresses {
    pub(crate) client: SocketAddr,
    /// The address of the balancer to which the client connected.
    pub(crate) destination: SocketAddr,
}

/// Reason why a connection has no header that can be used.
#[derive(Debug, Error)]
pub(crate) enum ProxyHeaderError {
    #[error("the first bytes are not a PROXY protocol header")]
    NotAHeader,
    #[error("the header has more than {HEADER_BYTES_MAX} bytes")]
    TooLong,
    #[error("no complete header within {} s", HEADER_TIMEOUT.as_secs())]
    TimedOut,
    #[error("the connection ended within the header")]
    Ended,
    #[error("the connection broke: {0}")]
    Broke(#[from] io::Error),
}

/// Decodes the header at the beginning of `bytes`. Returns the addresses and the length of the header. A header without addresses (LOCAL,
/// UNKNOWN) is of a connection of the balancer itself, such as a health check. Returns `None` if the header is incomplete; then all of
/// `bytes` belong to it.
///
/// # Errors
/// [`ProxyHeaderError::NotAHeader`] or [`ProxyHeaderError::TooLong`].
pub(crate) fn decode(bytes: &[u8]) -> Result<Option<(Option<Addresses>, usize)>, ProxyHeaderError> {
    let config = ParseConfig {
        include_tlvs: false,
        ..ParseConfig::default()
    };
    // The crate accepts other bytes in place of the blank, and a longer line if it comes in one piece.
    let is_v1 = bytes.first() == V1_BEGINNING.first();
    if is_v1
        && !bytes
            .iter()
            .zip(V1_BEGINNING)
            .all(|(byte, expected)| byte == expected)
    {
        return Err(ProxyHeaderError::NotAHeader);
    }
    match ProxyHeader::parse(bytes, config) {
        Ok((_, len)) if is_v1 && len > V1_BYTES_MAX => Err(ProxyHeaderError::NotAHeader),
        Ok((_, len)) if len > HEADER_BYTES_MAX => Err(ProxyHeaderError::TooLong),
        Ok((header, len)) => Ok(Some((header.proxied_address().and_then(of_tcp), len))),
        Err(proxy_header::Error::BufferTooShort) if bytes.len() >= HEADER_BYTES_MAX => {
            Err(ProxyHeaderError::TooLong)
        }
        Err(proxy_header::Error::BufferTooShort) => Ok(None),
        Err(_) => Err(ProxyHeaderError::NotAHeader),
    }
}

/// Returns the addresses of a TCP connection. A header that names another protocol says nothing about the client.
fn of_tcp(address: &ProxiedAddress) -> Option<Addresses> {
    (address.protocol == Protocol::Stream).then(|| Addresses {
        client: plain(address.source),
        destination: plain(address.destination),
    })
}

/// Reads the header of a connection. Returns the connection, whose next byte is the first one of the component, and the addresses as
/// [`decode`] does. Returns `None` if the connection ended before its first byte, as that of a health check does.
///
/// # Errors
/// [`ProxyHeaderError`].
pub(crate) async fn receive(
    stream: StdStream,
) -> Result<Option<(StdStream, Option<Addresses>)>, ProxyHeaderError> {
    let mut stream = TcpStream::from_std(stream)?;
    let reading = tokio::time::timeout(HEADER_TIMEOUT, read(&mut stream));
    let Some(addresses) = reading.await.map_err(|_| ProxyHeaderError::TimedOut)?? else {
        return Ok(None);
    };
    Ok(Some((stream.into_std()?, addresses)))
}

/// Reads the header and nothing behind it. Returns `None` if the connection ended before its first byte.
async fn read(stream: &mut TcpStream) -> Result<Option<Option<Addresses>>, ProxyHeaderError> {
    let mut buffer = [0; HEADER_BYTES_MAX];
    let mut taken = 0;
    loop {
        let seen = match stream.peek(&mut buffer[taken..]).await {
            // Some health checks close with a reset.
            Err(error) if taken == 0 && error.kind() == io::ErrorKind::ConnectionReset => 0,
            seen => seen?,
        };
        if seen == 0 {
            return if taken == 0 {
                Ok(None)
            } else {
                Err(ProxyHeaderError::Ended)
            };
        }
        let decoded = decode(&buffer[..taken + seen])?;
        let end = decoded.map_or(taken + seen, |(_, len)| len);
        taken += stream.read_exact(&mut buffer[taken..end]).await?;
        if let Some((addresses, _)) = decoded {
            return Ok(Some(addresses));
        }
    }
}

/// Checks what holds for all bytes. Used by the fuzz target `proxy_header` (`tests/fuzz.d`) and by the property test.
///
/// # Panics
/// If the header is longer than the bytes, if fewer bytes than the header are not "incomplete", or if the bytes after the header change
/// the result.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn check_decode(bytes: &[u8]) {
    let Ok(Some((addresses, len))) = decode(bytes) else {
        return;
    };
    assert!(len <= bytes.len().min(HEADER_BYTES_MAX), "{len}");
    for shorter in 0..len {
        assert!(
            matches!(decode(&bytes[..shorter]), Ok(None)),
            "{shorter} of {len} bytes"
        );
    }
    let alone = decode(&bytes[..len]).ok().flatten();
    assert_eq!(alone, Some((addresses, len)), "what follows changes the header");
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn address() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
        let v4 = any::<[(u32, u16); 2]>()
            .prop_map(|ends| ends.map(|(ip, port)| SocketAddr::from((Ipv4Addr::from_bits(ip), port))));
        // The prefix keeps IPv4-mapped addresses out, which `plain` turns into IPv4 ones.
        let v6 = any::<[(u64, u16); 2]>().prop_map(|ends| {
            ends.map(|(ip, port)| {
                SocketAddr::from((Ipv6Addr::from_bits(0x2001 << 112 | u128::from(ip)), port))
            })
        });
        prop_oneof![v4, v6].prop_map(|[client, destination]| (client, destination))
    }

    proptest! {
        #[test]
        fn any_header_is_decoded_in_both_versions_whatever_follows(
            (client, destination) in address(),
            is_local in any::<bool>(),
            is_v1 in any::<bool>(),
            extra in prop::collection::vec(any::<u8>(), 0..200),
            behind in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let address = (!is_local).then(|| ProxiedAddress::stream(client, destination));
            let mut bytes = Vec::new();
            let extra = proxy_header::Tlv::UniqueId(extra.into());
            let extra = Some(extra).filter(|_| !is_v1);
            let header = ProxyHeader::with_tlvs(address, extra);
            let encoded = if is_v1 { header.encode_v1(&mut bytes) } else { header.encode_v2(&mut bytes) };
            encoded.expect("a header");
            let len = bytes.len();
            bytes.extend(behind);
            let expected = (!is_local).then_some(Addresses { client, destination });
            prop_assert_eq!(decode(&bytes).expect("a header"), Some((expected, len)));
            check_decode(&bytes);
        }

        #[test]
        fn random_bytes_give_consistent_results(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            check_decode(&bytes);
        }
    }

    #[test]
    fn a_header_is_limited_and_what_is_no_header_is_refused() {
        let mut long = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".to_vec();
        assert!(matches!(decode(&long), Ok(None)));
        long.resize(HEADER_BYTES_MAX, 0);
        assert!(matches!(decode(&long), Err(ProxyHeaderError::TooLong)));
        long.resize(16 + 0xffff, 0);
        assert!(matches!(decode(&long), Err(ProxyHeaderError::TooLong)));
        let endless = [&b"PROXY TCP4 "[..], &[b'1'; 100]].concat();
        let too_long = [&b"PROXY UNKNOWN "[..], &[b'M'; 100], b"\r\n"].concat();
        for other in [
            &b"CONNECT {\"verbose\":false}\r\n"[..],
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 70000\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n----",
            b"\x16\x03\x01",
            b"PROXY\tTCP4 1.2.3.4 5.6.7.8 1 2\r\n",
            &endless,
            &too_long,
        ] {
            assert!(
                matches!(decode(other), Err(ProxyHeaderError::NotAHeader)),
                "{other:?}"
            );
        }
        // A datagram and a Unix socket say nothing about a TCP client.
        let datagram = b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\0\x01\0\x02";
        assert!(matches!(decode(datagram), Ok(Some((None, 28)))));
    }
}
