//! The check of the server's monitoring port: `GET /healthz` must answer 200.

use std::io;
use std::time::Duration;

use standin_registry::Endpoint;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::check_error::CheckError;

/// Maximum length of the status line, in bytes.
const STATUS_BYTES_MAX: u64 = 256;

/// Checks `/healthz` at the address `http`.
pub(super) async fn check(http: &Endpoint, limit: Duration) -> Result<(), CheckError> {
    let address = http.to_string();
    let status = match timeout(limit, status(http)).await {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => return Err(CheckError::Healthz { address, error }),
        Err(_) => {
            return Err(CheckError::Timeout {
                missing: "no answer of /healthz",
                limit,
            });
        }
    };
    if status.split(' ').nth(1) == Some("200") {
        Ok(())
    } else {
        Err(CheckError::Unhealthy { address, status })
    }
}

/// Returns the status line of the answer.
async fn status(http: &Endpoint) -> io::Result<String> {
    let mut stream = TcpStream::connect((&*http.host, http.port)).await?;
    // With version 1.0 the server closes the connection after its answer.
    let request = format!("GET /healthz HTTP/1.0\r\nHost: {http}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let mut part = stream.take(STATUS_BYTES_MAX);
    while part.read_buf(&mut answer).await? > 0 && !answer.contains(&b'\n') {}
    let text = String::from_utf8_lossy(&answer);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
