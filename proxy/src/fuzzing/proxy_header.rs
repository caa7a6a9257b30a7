//! The header that a load balancer sends at the beginning of a connection.

use crate::proxy_header::check_decode;

/// Decodes a PROXY protocol header.
///
/// # Panics
/// If fewer bytes than the header, or what follows it, change the result.
pub fn proxy_header(input: &[u8]) {
    check_decode(input);
}
