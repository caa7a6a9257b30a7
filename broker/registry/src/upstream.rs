//! A NATS URL (`--upstream`, `NATS_URL`, an entry of a client's server list), with optional credentials and TLS.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::error::RegistryError;

/// Default port of NATS.
const PORT_DEFAULT: u16 = 4222;
const WANTED: &str = "a NATS address ([nats://|tls://][USER:PASSWORD@|TOKEN@]HOST[:PORT])";

/// Credentials of a client for a node. `Debug` hides the secrets, so they never appear in logs.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// User name.
    pub user: Option<String>,
    /// Password of that user.
    pub password: Option<String>,
    /// Token, an alternative to user and password.
    pub token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |secret: &Option<String>| secret.as_ref().map(|_| "…");
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .field("password", &hidden(&self.password))
            .field("token", &hidden(&self.token))
            .finish()
    }
}

/// One address from the settings or the command line. `Debug` hides the secrets and `Display` omits them, so that both can be
/// logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Address to connect to.
    pub endpoint: Endpoint,
    /// Credentials, if the address contains any.
    pub credentials: Option<Credentials>,
    /// Whether the scheme is `tls://`: the connection uses TLS after INFO.
    pub tls: bool,
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "tls" } else { "nats" }, self.endpoint)
    }
}

impl FromStr for Upstream {
    type Err = RegistryError;

    /// Parses a URL as NATS clients do. The default port is 4222. A single word before `@` is a token. The part before `@` may be
    /// percent-encoded.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.chars().all(|c| c.is_ascii_alphanumeric()) => (Some(scheme), rest),
            // If anything else is before "://", it may contain a password.
            _ => (None, text),
        };
        let (user_info, host) = match rest.rsplit_once('@') {
            Some((user_info, host)) => (Some(user_info), host),
            None => (None, rest),
        };
        // Errors are logged, so they must not contain the credentials.
        let shown = match (scheme, user_info) {
            (Some(scheme), Some(_)) => format!("{scheme}://…@{host}"),
            (None, Some(_)) => format!("…@{host}"),
            (_, None) => text.to_owned(),
        };
        let fail = |reason: String| RegistryError::address(&shown, WANTED, reason);
        let tls = match scheme {
            Some(scheme) if scheme.eq_ignore_ascii_case("tls") => true,
            Some(scheme) if !scheme.eq_ignore_ascii_case("nats") => {
                return Err(fail(format!(
                    "{scheme}:// is not supported; use nats:// or tls://"
                )));
            }
            _ => false,
        };
        if rest.contains("://") {
            return Err(fail(
                "these are several addresses: separate them by ',', or write each as a separate string in a list of a settings file \
                 (in a password write '%3A' for ':')"
                    .to_owned(),
            ));
        }
        let host = host.strip_suffix('/').unwrap_or(host);
        let endpoint = Endpoint::parse_with_default(host, Some(PORT_DEFAULT), WANTED, &shown)?;
        let user_info = user_info.filter(|user_info| !user_info.is_empty());
        let credentials = user_info.map(credentials_of).transpose();
        let credentials = credentials.map_err(|reason| fail(reason.to_owned()))?;
        Ok(Self {
            endpoint,
            credentials,
            tls,
        })
    }
}

fn credentials_of(user_info: &str) -> Result<Credentials, &'static str> {
    Ok(match user_info.split_once(':') {
        Some((user, password)) => Credentials {
            user: Some(percent_decoded(user)?),
            password: Some(percent_decoded(password)?),
            token: None,
        },
        None => Credentials {
            token: Some(percent_decoded(user_info)?),
            ..Credentials::default()
        },
    })
}

fn percent_decoded(text: &str) -> Result<String, &'static str> {
    const BROKEN: &str = "a '%' before '@' must be followed by two hex digits; write '%25' for '%' itself";
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(BROKEN);
        };
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| BROKEN)?);
    }
    String::from_utf8(bytes).map_err(|_| "the text before '@' is not UTF-8 after percent-decoding")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Upstream {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_parsed_as_nats_clients_do() {
        for (text, host, port) in [
            ("nats://10.0.0.1:4223", "10.0.0.1", 4223),
            ("10.0.0.1", "10.0.0.1", 4222),
            ("NATS://h/", "h", 4222),
            ("tls://[::1]", "::1", 4222),
        ] {
            assert_eq!(parsed(text).endpoint, Endpoint::new(host, port), "{text}");
            assert_eq!(parsed(text).tls, text.starts_with("tls"), "{text}");
        }
        assert_eq!(parsed("nats://@h").credentials, None);
        let with_password = parsed("nats://der%20ek:s%3Acr%40t@h:1").credentials.unwrap();
        assert_eq!(with_password.user.as_deref(), Some("der ek"));
        assert_eq!(with_password.password.as_deref(), Some("s:cr@t"));
        let with_token = parsed("t0ken@h:1").credentials.unwrap();
        assert_eq!(
            (with_token.token.as_deref(), with_token.user),
            (Some("t0ken"), None)
        );
        let empty_password = parsed("u:@h").credentials.unwrap();
        assert_eq!(empty_password.password.as_deref(), Some(""));
    }

    #[test]
    fn the_error_of_an_address_has_a_reason_and_no_secret() {
        for (text, reason) in [
            ("ws://u:secret@h", "use nats:// or tls://"),
            ("nats://u:secret%4@h", "two hex digits"),
            ("nats://u:secret%ff@h", "UTF-8"),
            ("nats://u:secret@h:x", "is not a port"),
            ("nats://u:secret@", "host is empty"),
            ("nats://u:secret@h/path", "contains '/'"),
            ("u:secret@h/path", "contains '/'"),
            ("u:secret://x@h", "in a password write '%3A'"),
            ("u:secret@h,nats://h", "several addresses"),
        ] {
            let error = text.parse::<Upstream>().unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn secrets_are_hidden() {
        let upstream = parsed("nats://u:secret@h");
        assert!(!format!("{upstream:?} {upstream}").contains("secret"));
        assert!(!format!("{:?}", parsed("secret@h")).contains("secret"));
    }
}
