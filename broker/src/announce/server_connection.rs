//! [`ServerConnection`], one connection to the server, logged in as a client. It subscribes to nothing.
//!
//! A connection is kept between checks, for two reasons. A server that enters lame duck mode says so only on its open connections, and
//! accepts no new ones. And when the server ends, its connections end at once.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::SockRef;
use standin_daemon::tcp;
use standin_tls::dialler::Dialler;
use standin_tls::files::MinVersion;
use standin_tls::stream::Stream;
use standin_wire::limits::FrameLimits;
use standin_wire::server::{self, Frame};
use standin_wire::{Info, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::check_error::CheckError;
use super::target::Target;

/// Bytes reserved for each read.
const READ_BYTES: usize = 4096;

/// A connection to the server, logged in.
#[derive(Debug)]
pub(super) struct ServerConnection {
    stream: Stream,
    /// Bytes that were read, from the start of the next frame.
    unread: Vec<u8>,
    /// The last INFO.
    pub(super) info: Info,
}

/// A frame of the server, as far as a check needs it.
enum Received {
    Info(Box<Info>),
    Pong,
    Other,
}

impl ServerConnection {
    /// Connects, begins TLS if the server demands it or a flag for TLS is given, logs in, and waits for the answer to a PING.
    pub(super) async fn open(target: &Target) -> Result<Self, CheckError> {
        let node = &target.node;
        let limit = target.limit;
        let socket = timeout(limit, TcpStream::connect((&*node.host, node.port)))
            .await
            .map_err(|_| CheckError::Timeout {
                missing: "no connection",
                limit,
            })?
            .map_err(CheckError::Connect)?;
        tcp::send_at_once(&SockRef::from(&socket)).map_err(CheckError::Connect)?;
        let mut connection = Self {
            stream: Stream::from(socket),
            unread: Vec::new(),
            info: Info::default(),
        };
        if target.tls.first {
            connection = connection.begin_tls(target).await?;
        }
        connection.info = connection.first_info(limit).await?;
        if !connection.info.sidecars.is_empty() {
            return Err(CheckError::Sidecar);
        }
        let offers_tls = connection.info.tls_required || connection.info.tls_available;
        if target.tls.is_given() && !offers_tls && !connection.stream.is_tls() {
            return Err(CheckError::TlsMissing);
        }
        let wants_tls = connection.info.tls_required || target.tls.is_given();
        if wants_tls && !connection.stream.is_tls() {
            // Bytes from before the handshake would be taken for encrypted ones, although anybody on the path may have injected them.
            if !connection.unread.is_empty() {
                return Err(CheckError::TlsBytesBefore);
            }
            connection = connection.begin_tls(target).await?;
        }
        let login = target.login(&connection.info.nonce)?;
        connection.send(&login).await?;
        connection.ping(limit).await?;
        Ok(connection)
    }

    async fn begin_tls(self, target: &Target) -> Result<Self, CheckError> {
        // The files are read for each connection, so that a renewed certificate is used.
        let dialler = Dialler::new(&target.tls.files, true, MinVersion::default())?;
        let name = target.tls.server_name.as_deref().unwrap_or(&target.node.host);
        let shaken = dialler
            .connect(self.stream.into_socket(), name, target.limit)
            .await;
        let stream = shaken.map_err(|error| CheckError::TlsHandshake {
            error,
            name: name.to_owned(),
        })?;
        Ok(Self { stream, ..self })
    }

    async fn first_info(&mut self, limit: Duration) -> Result<Info, CheckError> {
        let info = async {
            loop {
                if let Received::Info(info) = self.receive().await? {
                    return Ok(*info);
                }
            }
        };
        timeout(limit, info).await.map_err(|_| CheckError::Timeout {
            missing: "no INFO",
            limit,
        })?
    }

    /// Returns whether the connection is encrypted.
    pub(super) fn is_tls(&self) -> bool {
        self.stream.is_tls()
    }

    /// Sends a PING and waits for the PONG. Returns the round-trip time.
    pub(super) async fn ping(&mut self, limit: Duration) -> Result<Duration, CheckError> {
        let sent = Instant::now();
        let answer = async {
            self.send(encode::PING).await?;
            loop {
                match self.receive().await? {
                    Received::Pong => return Ok(sent.elapsed()),
                    Received::Info(info) => self.info = *info,
                    Received::Other => {}
                }
            }
        };
        timeout(limit, answer).await.map_err(|_| CheckError::Timeout {
            missing: "no PONG",
            limit,
        })?
    }

    /// Waits for the next INFO. Returns an error when the connection ends. Cancel-safe.
    pub(super) async fn next_info(&mut self) -> Result<(), CheckError> {
        loop {
            if let Received::Info(info) = self.receive().await? {
                self.info = *info;
                return Ok(());
            }
        }
    }

    /// Returns the next frame of the server. Answers a PING.
    async fn receive(&mut self) -> Result<Received, CheckError> {
        loop {
            let frame = server::decode(&self.unread, FrameLimits::SERVER).map_err(CheckError::NotNats)?;
            let Some((frame, len)) = frame else {
                self.unread.reserve(READ_BYTES);
                let read = self.stream.read_buf(&mut self.unread).await;
                if read.map_err(CheckError::Broke)? == 0 {
                    return Err(CheckError::Closed);
                }
                continue;
            };
            let received = match frame {
                Frame::Info(json) => {
                    Received::Info(Box::new(Info::parse(json).map_err(CheckError::BadInfo)?))
                }
                Frame::Pong => Received::Pong,
                Frame::Err(text) => {
                    let text = String::from_utf8_lossy(text).into_owned();
                    return Err(CheckError::Refused { text });
                }
                Frame::Ping => {
                    self.unread.drain(..len);
                    self.send(encode::PONG).await?;
                    continue;
                }
                Frame::Message(_) | Frame::Ok | Frame::Move(_) => Received::Other,
            };
            self.unread.drain(..len);
            return Ok(received);
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), CheckError> {
        self.stream.write_all(bytes).await.map_err(CheckError::Broke)?;
        self.stream.flush().await.map_err(CheckError::Broke)
    }
}

/// Returns the CONNECT line with these credential fields.
pub(super) fn connect_line(fields: Vec<(&'static str, Value)>) -> Vec<u8> {
    let mut options = json!({
        "verbose": false,
        "pedantic": false,
        // With protocol 1, the server sends INFO when it enters lame duck mode.
        "protocol": 1,
        "echo": false,
        "name": "standin-broker announce",
        "lang": "rust",
        "version": env!("CARGO_PKG_VERSION"),
    });
    for (name, value) in fields {
        options[name] = value;
    }
    format!("CONNECT {options}\r\n").into_bytes()
}
