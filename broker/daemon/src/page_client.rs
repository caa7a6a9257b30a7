//! A client of the HTTP pages of a program: one GET per connection, with limits on time and size.
//!
//! Over TLS, a program on this host must show exactly the certificate in `tls.http.cert_file`. Its name is not checked, because the
//! address in the settings is often one for which no certificate is issued, such as 127.0.0.1. A program on another host must show a
//! certificate for its host name or IP address, issued by an authority in `tls.http.ca_file`, or by one of the system if that is not set.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper::client::conn::http1;
use hyper::header;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use standin_tls::dialler::Dialler;
use standin_tls::files::Files;
use standin_tls::stream::Stream;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::settings::Secret;
use crate::tls::TlsSection;

/// Time limit for a page.
const GET_LIMIT: Duration = Duration::from_secs(4);
/// Largest page, in bytes.
const PAGE_BYTES_MAX: usize = 64 << 20;

/// How the pages of a program are reached.
#[derive(Debug, Clone)]
pub struct PageClient {
    /// `host:port` of the pages.
    pub address: String,
    /// Whether the program runs on this host.
    pub is_own: bool,
    /// `[tls.http]`.
    pub tls: TlsSection,
    /// The token that a request must carry; `None` if it needs none.
    pub token: Option<Secret>,
}

/// A page.
#[derive(Debug)]
pub struct Page {
    /// The text.
    pub text: String,
    /// The server's clock, whose resolution is 1 s.
    pub date: Option<SystemTime>,
}

impl PageClient {
    /// Requests a page.
    ///
    /// # Errors
    /// The reason why there is no page, with the address.
    pub async fn get(&self, path: &str) -> Result<Page, String> {
        let got = timeout(GET_LIMIT, self.get_without_limit(path)).await;
        got.unwrap_or_else(|_| Err(format!("no answer within {} s", GET_LIMIT.as_secs())))
            .map_err(|reason| format!("{}{path}: {reason}", self.address))
    }

    /// Requests a page of JSON.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub async fn json(&self, path: &str) -> Result<Value, String> {
        let page = self.get(path).await?;
        serde_json::from_str(&page.text).map_err(|error| format!("{}{path}: not JSON: {error}", self.address))
    }

    async fn get_without_limit(&self, path: &str) -> Result<Page, String> {
        let stream = self.connect().await?;
        let broke = |error: hyper::Error| format!("connection broke: {error}");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broke)?;
        let connection = tokio::spawn(connection);
        let mut request = Request::get(path).header(header::HOST, &self.address);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.reveal()));
        }
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let answer = sender.send_request(request).await.map_err(broke)?;
        let status = answer.status();
        let date = answer.headers().get(header::DATE);
        let date = date.and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        let body = Limited::new(answer.into_body(), PAGE_BYTES_MAX).collect().await;
        let body = body
            .map_err(|error| format!("connection broke: {error}"))?
            .to_bytes();
        connection.abort();
        let text = String::from_utf8_lossy(&body).into_owned();
        if !status.is_success() {
            let why = match text.trim() {
                "" => String::new(),
                text => format!(": {text}"),
            };
            return Err(format!("answers {status}{why}"));
        }
        Ok(Page { text, date })
    }

    async fn connect(&self) -> Result<Stream, String> {
        let failed = |error: std::io::Error| format!("cannot connect: {error}");
        let socket = TcpStream::connect(&self.address).await.map_err(failed)?;
        if !self.tls.is_on() {
            return Ok(socket.into());
        }
        let text = |error: standin_tls::files::TlsError| error.to_string();
        let files = if self.tls.verify {
            self.tls.files()
        } else {
            // The private key is not needed, and this user may lack the permission to read it.
            Files {
                cert: PathBuf::new(),
                key: PathBuf::new(),
                ..self.tls.files()
            }
        };
        let dialler = Dialler::new(&files, !self.is_own, self.tls.min_version).map_err(text)?;
        let host = self
            .address
            .rsplit_once(':')
            .map_or(&*self.address, |(host, _)| host);
        let stream = dialler
            .connect(socket, host, self.tls.timeout_ms.duration())
            .await;
        let stream = stream.map_err(|error| format!("TLS handshake failed: {error}"))?;
        if self.is_own && stream.peer_certificate() != self.tls.files().certificate().map_err(text)? {
            return Err("its certificate is not the one in tls.http.cert_file".to_owned());
        }
        Ok(stream)
    }
}
