//! The orderly end of a TCP connection.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest that one end takes: whatever the other side does, the connection is closed then.
pub const LINGER: Duration = Duration::from_secs(1);

/// Says that nothing more comes, and takes what the other side still sends: closed with unread bytes, a connection is reset,
/// and what was last written to it can be lost.
pub async fn close(mut stream: TcpStream) {
    let closing = async {
        stream.shutdown().await?;
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    // Whatever comes of it, the connection ends here.
    let _ = tokio::time::timeout(LINGER, closing).await;
}
