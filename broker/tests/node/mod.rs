//! A node in the test process, and clients that send raw bytes.

use std::time::Duration;

use standin_broker::{Server, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);
pub(crate) const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n";
/// A node may send a PING at any time, so `expect` and `line` skip it.
const PING: &[u8] = b"PING\r\n";

/// Starts a node on a free port of the loopback address.
pub(crate) async fn start(adjust: impl FnOnce(&mut Settings)) -> Server {
    let text = "addr = \"127.0.0.1\"\nport = -1\n[process]\nworkers = 2\n";
    let mut settings = Settings::from_toml(text).expect("settings");
    adjust(&mut settings);
    Server::start(settings).await.expect("a free port")
}

/// A client that sends raw bytes.
pub(crate) struct RawClient {
    pub(crate) stream: TcpStream,
    pub(crate) received: Vec<u8>,
}

impl RawClient {
    /// Connects and reads INFO.
    pub(crate) async fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address())
            .await
            .expect("connect to the node");
        stream.set_nodelay(true).expect("set TCP_NODELAY");
        let mut raw = Self {
            stream,
            received: Vec::new(),
        };
        let info = raw.line().await;
        assert!(info.starts_with("INFO {"), "{info}");
        raw
    }

    /// Connects and sends CONNECT.
    pub(crate) async fn open(server: &Server) -> Self {
        Self::open_with(server, "").await
    }

    /// Connects, sends CONNECT and `frames`, and waits until the node has processed them.
    pub(crate) async fn open_with(server: &Server, frames: &str) -> Self {
        let mut raw = Self::connect(server).await;
        raw.send(format!("{CONNECT}{frames}")).await;
        raw.flush().await;
        raw
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream
            .write_all(bytes.as_ref())
            .await
            .expect("write to the node");
    }

    /// Sends a PING and waits for its PONG, after which the node has processed all frames sent before. Panics if other frames arrive.
    pub(crate) async fn flush(&mut self) {
        self.send("PING\r\n").await;
        self.expect("PONG\r\n").await;
    }

    /// Reads as many bytes as `expected` has, and panics if they differ.
    #[track_caller]
    pub(crate) fn expect<'a>(&'a mut self, expected: &'a str) -> impl Future<Output = ()> + 'a {
        let at = std::panic::Location::caller();
        async move {
            loop {
                let is_ping = self.received.starts_with(PING) && !expected.as_bytes().starts_with(PING);
                if is_ping {
                    self.received.drain(..PING.len());
                } else if self.received.len() >= expected.len() || !self.more().await {
                    break;
                }
            }
            let count = expected.len().min(self.received.len());
            let received: Vec<u8> = self.received.drain(..count).collect();
            let shown = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(100)]).into_owned();
            assert!(
                received == expected.as_bytes(),
                "{at}: expected {} bytes {:?}, received {} bytes {:?}",
                expected.len(),
                shown(expected.as_bytes()),
                count,
                shown(&received)
            );
        }
    }

    /// Returns the next line that is not a PING.
    pub(crate) async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                if line != PING {
                    return String::from_utf8(line).expect("UTF-8");
                }
                continue;
            }
            assert!(self.more().await, "the node closed the connection");
        }
    }

    /// Returns all bytes until the node closes the connection.
    pub(crate) async fn rest(&mut self) -> String {
        while self.more().await {}
        String::from_utf8_lossy(&std::mem::take(&mut self.received)).into_owned()
    }

    /// Reads once. Returns `false` if the node has closed the connection.
    pub(crate) async fn more(&mut self) -> bool {
        let read = timeout(TIMEOUT, self.stream.read_buf(&mut self.received)).await;
        read.expect("read within the timeout").unwrap_or(0) > 0
    }
}

/// Waits until `condition` is true, and panics with `what` after the timeout.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {TIMEOUT:?}: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Returns the value of a numeric field of a page.
pub(crate) async fn page_field(server: &Server, page: &str, name: &str) -> u64 {
    let address = server.http_address().expect("the node serves pages");
    let mut stream = TcpStream::connect(address).await.expect("connect to the pages");
    let request = format!("GET {page} HTTP/1.0\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .expect("send the request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read the page");
    let (_, value) = answer
        .split_once(&format!("\"{name}\": "))
        .unwrap_or_else(|| panic!("no {name} in {answer}"));
    let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}
