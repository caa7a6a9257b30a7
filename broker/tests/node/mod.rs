//! A node in this process and raw clients around it.

use std::time::Duration;

use standin_broker::{Server, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false}\r\n";
/// A node asks whether a client lives when it likes to.
const PING: &[u8] = b"PING\r\n";

/// A node on a free port of the loopback address.
pub(crate) async fn start(adjust: impl FnOnce(&mut Settings)) -> Server {
    let text = "addr = \"127.0.0.1\"\nport = -1\n[process]\nworkers = 2\n";
    let mut settings = Settings::from_toml(text).expect("settings");
    adjust(&mut settings);
    Server::start(settings).await.expect("a free port")
}

/// A client played byte by byte.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    pub(crate) heard: Vec<u8>,
}

impl Raw {
    /// Connects and takes INFO.
    pub(crate) async fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address())
            .await
            .expect("the node listens");
        stream.set_nodelay(true).expect("a socket");
        let mut raw = Self {
            stream,
            heard: Vec::new(),
        };
        let info = raw.line().await;
        assert!(info.starts_with("INFO {"), "{info}");
        raw
    }

    /// Connects and says CONNECT.
    pub(crate) async fn open(server: &Server) -> Self {
        let mut raw = Self::connect(server).await;
        raw.say(CONNECT).await;
        raw.flush().await;
        raw
    }

    pub(crate) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream
            .write_all(bytes.as_ref())
            .await
            .expect("the connection stands");
    }

    /// Waits until the node has taken all that was said. Nothing else may come.
    pub(crate) async fn flush(&mut self) {
        self.say("PING\r\n").await;
        self.hears("PONG\r\n").await;
    }

    /// Exactly these bytes come next.
    #[track_caller]
    pub(crate) fn hears<'a>(&'a mut self, wanted: &'a str) -> impl Future<Output = ()> + 'a {
        let at = std::panic::Location::caller();
        async move {
            loop {
                let is_ping = self.heard.starts_with(PING) && !wanted.as_bytes().starts_with(PING);
                if is_ping {
                    self.heard.drain(..PING.len());
                } else if self.heard.len() >= wanted.len() || !self.more().await {
                    break;
                }
            }
            let count = wanted.len().min(self.heard.len());
            let heard: Vec<u8> = self.heard.drain(..count).collect();
            let shown = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(100)]).into_owned();
            assert!(
                heard == wanted.as_bytes(),
                "{at}: wanted {} bytes {:?}, heard {} bytes {:?}",
                wanted.len(),
                shown(wanted.as_bytes()),
                count,
                shown(&heard)
            );
        }
    }

    /// The next line that is no PING.
    pub(crate) async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                if line != PING {
                    return String::from_utf8(line).expect("UTF-8");
                }
                continue;
            }
            assert!(self.more().await, "the connection ended");
        }
    }

    /// All that comes until the end.
    pub(crate) async fn rest(&mut self) -> String {
        while self.more().await {}
        String::from_utf8_lossy(&std::mem::take(&mut self.heard)).into_owned()
    }

    /// Reads once; `false` at the end.
    pub(crate) async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.heard)).await;
        read.expect("something comes").unwrap_or(0) > 0
    }
}

pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// One number of a page.
pub(crate) async fn figure(server: &Server, page: &str, name: &str) -> u64 {
    let address = server.http_address().expect("pages are served");
    let mut stream = TcpStream::connect(address).await.expect("the node listens");
    let request = format!("GET {page} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("a socket");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("a page");
    let (_, behind) = answer
        .split_once(&format!("\"{name}\": "))
        .unwrap_or_else(|| panic!("{name} in {answer}"));
    let digits: String = behind.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}
