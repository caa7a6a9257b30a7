//! How the pages are reached: over TLS or not, and with a token or without.
//!
//! The token is that of RFC 6750: `Authorization: Bearer TOKEN` in each request. `/healthz` needs none, because a supervisor that
//! looks whether the process lives should hold no secret. With a query it may give reasons, such as the error of a node, so then it
//! needs the token too. The page for people needs none either, because it holds no data. A browser cannot add the token by itself, so the
//! page asks for it and its script sends it.
//!
//! Pages without a token and without TLS on a loopback address are not served under a foreign name: see `page_host`.

use std::io;
use std::path::Path;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use standin_tls::acceptor::Acceptor;
use standin_tls::stream::Stream;
use subtle::ConstantTimeEq as _;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::page::is_page;
use super::page_host::{is_known, public_name};
use crate::settings::{Secret, SettingsError, secret_file};
use crate::tls::TlsSection;

/// The page for supervisors, which needs no token.
const HEALTH: &str = "/healthz";

/// How the pages are reached. A reload replaces the value; the change applies to new connections.
#[derive(Debug, Clone, Default)]
pub struct PageAccess {
    /// TLS, with the limit on the time for a handshake; `None` if it is off.
    tls: Option<(Acceptor, Duration)>,
    /// The token that a request must carry; `None` if it needs none.
    token: Option<Secret>,
}

impl PageAccess {
    /// Returns whether requests must carry a token.
    #[must_use]
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Reads the files of `[tls.http]` and of `http.token_file`.
    ///
    /// # Errors
    /// [`SettingsError`], which names the file.
    pub fn new(tls: &TlsSection, token_file: &Path) -> Result<Self, SettingsError> {
        let acceptor = tls.acceptor().map_err(|error| SettingsError::Unusable {
            section: "tls.http",
            error: error.to_string(),
        })?;
        let token = secret_file("file of http.token_file", "http", token_file)?;
        if token.as_deref().is_some_and(|token| !is_token(token)) {
            let file = token_file.display();
            return Err(SettingsError::Unusable {
                section: "http",
                error: format!("{file} must hold a token: visible ASCII characters without spaces"),
            });
        }
        Ok(Self {
            tls: acceptor.map(|acceptor| (acceptor, tls.timeout_ms.duration())),
            token: token.as_deref().map(Secret::from),
        })
    }

    /// Begins TLS on a new connection, if it is on. Returns the connection, and the limit on the time for the handshake.
    ///
    /// # Errors
    /// The error of the TLS library.
    pub(super) fn begin(&self, socket: TcpStream) -> io::Result<(Stream, Option<Duration>)> {
        let mut stream = Stream::from(socket);
        let Some((acceptor, timeout)) = &self.tls else {
            return Ok((stream, None));
        };
        acceptor.begin(&mut stream)?;
        Ok((stream, Some(*timeout)))
    }

    /// Returns whether anybody who reaches the pages can read them. Then only the network protects them.
    fn is_open(&self) -> bool {
        self.token.is_none() && self.tls.is_none()
    }

    fn admits(&self, request: &Request) -> bool {
        let Some(token) = &self.token else { return true };
        let is_open = is_health(request) || is_page(request);
        let given = request.headers().get(header::AUTHORIZATION);
        let given = given.and_then(|value| bearer(value.as_bytes()));
        is_open || given.is_some_and(|given| given.ct_eq(token.reveal().as_bytes()).into())
    }
}

/// The checks of one listener.
#[derive(Debug, Clone)]
pub(super) struct PageGuard {
    pub(super) access: watch::Receiver<PageAccess>,
    /// Whether the listener is on a loopback address.
    pub(super) on_loopback: bool,
}

impl PageGuard {
    /// Returns the name under which the request wants an open page on loopback, if it may be that of a site which a browser of this
    /// host has open.
    fn suspect_name(&self, request: &Request) -> Option<String> {
        let is_open = self.on_loopback && self.access.borrow().is_open();
        public_name(request).filter(|_| is_open && !is_health(request))
    }
}

/// Answers a request under a suspect name with status 403, and one that lacks the needed token with status 401. Passes on all other
/// requests.
pub(super) async fn authorize(State(guard): State<PageGuard>, request: Request, next: Next) -> Response {
    if let Some(name) = guard.suspect_name(&request)
        && !is_known(&name).await
    {
        let text = "pages on a loopback address are served under an IP address, localhost, a name without a dot, or a name in /etc/hosts; \
             for other names set http.token_file\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    if guard.access.borrow().admits(&request) {
        return next.run(request).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"standin\"")];
    let text = "give the token of http.token_file: Authorization: Bearer TOKEN\n";
    (StatusCode::UNAUTHORIZED, challenge, text).into_response()
}

/// Returns whether the request is that of a supervisor.
fn is_health(request: &Request) -> bool {
    request.uri().path() == HEALTH && request.uri().query().is_none()
}

/// Returns the token in the value of the header Authorization. The name of the scheme is not case-sensitive.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim_ascii())
}

/// Returns whether a client can send `text` as a token.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http;

    use super::*;

    #[test]
    fn only_requests_with_the_token_are_admitted_except_to_healthz_and_the_page_itself() {
        let access = PageAccess {
            token: Some(Secret::from("s3cr3t")),
            ..PageAccess::default()
        };
        for (path, authorization, admitted) in [
            ("/page/page.css", "", true),
            ("/page", "", false),
            ("/", "", false),
            ("/varz", "Bearer s3cr3t", true),
            ("/varz", "bearer   s3cr3t ", true),
            ("/varz", "Bearer s3cr3", false),
            ("/varz", "Bearer s3cr3t s3cr3t", false),
            ("/varz", "Bearers3cr3t", false),
            ("/varz", "Bearer ", false),
            ("/varz", "Basic s3cr3t", false),
            ("/varz", "s3cr3t", false),
            ("/varz", "", false),
            ("/varz?/healthz", "", false),
            ("/healthz", "", true),
            ("/healthz?nodes=1", "", false),
            ("/healthz?nodes=1", "Bearer s3cr3t", true),
            ("/healthz/", "", false),
        ] {
            let request = http::Request::get(path).header(header::AUTHORIZATION, authorization);
            let request = request.body(Body::empty()).unwrap();
            assert_eq!(access.admits(&request), admitted, "{path} {authorization}");
            assert!(PageAccess::default().admits(&request));
        }
        for (path, admitted) in [("/", true), ("/varz", false)] {
            let request = http::Request::get(path).header(header::ACCEPT, "text/html");
            assert_eq!(
                access.admits(&request.body(Body::empty()).unwrap()),
                admitted,
                "{path}"
            );
        }
        assert!(!format!("{access:?}").contains("s3cr3t"));
        for (text, is_valid) in [
            ("a-._~+/=", true),
            ("", false),
            ("a b", false),
            ("a\nb", false),
            ("é", false),
        ] {
            assert_eq!(is_token(text), is_valid, "{text:?}");
        }
    }
}
