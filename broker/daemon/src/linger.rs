//! Orderly close of a TCP connection.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Time limit of a close. When it has passed, the connection is closed whatever the peer does.
pub const LINGER: Duration = Duration::from_secs(1);

/// Closes the connection so that the peer receives everything that was written to it. Shuts down the sending side and reads what
/// the peer still sends: the close of a socket with unread bytes is a reset, and a reset can discard the last bytes written.
pub async fn close(mut stream: TcpStream) {
    let closing = async {
        stream.shutdown().await?;
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    // The connection is closed in any case, so an error has no consequence.
    let _ = tokio::time::timeout(LINGER, closing).await;
}
