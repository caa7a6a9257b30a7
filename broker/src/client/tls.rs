//! The start of a client's connection when TLS is on: INFO, the decision whether the client speaks TLS, and the handshake.
//!
//! As in `nats-server`: INFO comes first and says what the node offers, then the client begins TLS. With `handshake_first` the client
//! begins TLS at once, and INFO is encrypted; with "auto", a client that sends nothing for a moment gets INFO.

use std::io;
use std::time::Duration;

use standin_daemon::tls::HandshakeFirst;
use standin_tls::stream::Stream;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::policy::ClientTls;

/// Time for a client to begin TLS before INFO with "auto": the default of `nats-server` for `handshake_first: auto`.
const HANDSHAKE_FIRST_WAIT: Duration = Duration::from_millis(50);
/// First byte of a TLS handshake (RFC 8446, section 5.1: content type 22).
const TLS_HANDSHAKE: u8 = 22;

/// Makes the handshake with a client, or finds that the client speaks no TLS. `info` is the INFO line. Returns the connection, and
/// whether INFO was sent.
///
/// # Errors
/// The error of the socket or of the handshake.
pub(super) async fn begin(tls: &ClientTls, mut socket: TcpStream, info: &str) -> io::Result<(Stream, bool)> {
    let is_first = match tls.handshake_first {
        HandshakeFirst::No => false,
        HandshakeFirst::Yes => true,
        HandshakeFirst::Auto => begins_tls(&socket, HANDSHAKE_FIRST_WAIT).await?,
    };
    if !is_first {
        socket.write_all(info.as_bytes()).await?;
        if tls.is_optional && !begins_tls(&socket, tls.timeout).await? {
            return Ok((socket.into(), true));
        }
    }
    let stream = tls.acceptor.accept(socket, &[], tls.timeout).await?;
    Ok((stream, !is_first))
}

/// Returns whether the first byte that the client sends within `limit` begins a TLS handshake.
async fn begins_tls(socket: &TcpStream, limit: Duration) -> io::Result<bool> {
    let mut first = [0];
    match timeout(limit, socket.peek(&mut first)).await {
        Ok(peeked) => Ok(peeked? > 0 && first[0] == TLS_HANDSHAKE),
        Err(_) => Ok(false),
    }
}
