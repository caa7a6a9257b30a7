//! Orderly close of a connection.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Maximum duration of an orderly close. After it, the socket is closed even if the peer still sends.
pub const LINGER: Duration = Duration::from_secs(1);

/// Closes the connection so that the peer can receive everything that was written. Sends a FIN, then reads and discards what the
/// peer sends, until the peer closes too or [`LINGER`] has passed. A close with unread bytes would send an RST instead, and the
/// peer could lose the last bytes.
pub async fn close(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let closing = async {
        stream.shutdown().await?;
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    // After an error or the timeout, dropping the socket closes it.
    let _ = tokio::time::timeout(LINGER, closing).await;
}
