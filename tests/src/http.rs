//! HTTP requests, for the monitoring pages of the nodes and of the sidecar.

use crate::netns::connect_inside;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Address of an HTTP server, and the network namespace from which it is reached.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its address.
    pub address: SocketAddr,
    /// The namespace from which to connect; `None` for that of the test.
    pub netns: Option<String>,
}

impl Endpoint {
    /// Returns the status code and the body of `GET path`; `None` if no answer comes in time.
    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        self.request("GET", path, "").await
    }

    /// Returns the status code and the body of `POST path` with these further header lines; `None` if no answer comes in time.
    pub async fn post(&self, path: &str, headers: &str) -> Option<(u16, String)> {
        self.request("POST", path, headers).await
    }

    async fn request(&self, method: &str, path: &str, headers: &str) -> Option<(u16, String)> {
        let exchange = self.exchange(method, path, headers);
        timeout(ANSWER_TIMEOUT, exchange).await.ok()?.ok()?
    }

    /// Returns the body of `GET path` as JSON; `None` unless the status is 200 and the body parses.
    pub async fn get_json(&self, path: &str) -> Option<serde_json::Value> {
        let (status, body) = self.get(path).await?;
        serde_json::from_str(&body).ok().filter(|_| status == 200)
    }

    async fn exchange(
        &self,
        method: &str,
        path: &str,
        headers: &str,
    ) -> std::io::Result<Option<(u16, String)>> {
        let mut stream = connect_inside(self.netns.as_deref(), self.address).await?;
        // With version 1.0 the server sends no chunks, and closes at the end.
        stream
            .write_all(
                format!(
                    "{method} {path} HTTP/1.0\r\nHost: {}\r\n{headers}\r\n",
                    self.address
                )
                .as_bytes(),
            )
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let Some((head, body)) = answer.split_once("\r\n\r\n") else {
            return Ok(None);
        };
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok(status.map(|status| (status, body.to_owned())))
    }
}
