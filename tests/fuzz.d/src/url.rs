//! Addresses as operators and environments give them: `nats://user:password@host:port`, and names for DNS.

use standin_daemon::settings::masked_url;
use standin_registry::{DnsName, Upstream};

/// Parses an address. What logs show of it leaves out the credentials: it must parse to the same host and port, and must not depend on
/// the secret.
pub(crate) fn url(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let _ = text.parse::<DnsName>();
    if let Ok(upstream) = text.parse::<Upstream>() {
        let again: Upstream = upstream
            .to_string()
            .parse()
            .expect("a shown address is an address");
        assert_eq!((&again.endpoint, again.tls), (&upstream.endpoint, upstream.tls));
    }
    if let Some(other) = with_other_secret(text) {
        assert_eq!(shown(text), shown(&other));
    }
}

/// Returns all that logs and errors can show of an address.
fn shown(text: &str) -> String {
    let parsed = match text.parse::<Upstream>() {
        Ok(upstream) => format!("{upstream} {upstream:?}"),
        Err(error) => format!("{error} {error:?}"),
    };
    format!("{parsed} {}", masked_url(text))
}

/// Returns the address with other letters in the password, or in the token. `None`: it has none, or one that is percent-encoded, in which
/// letters have a meaning.
fn with_other_secret(text: &str) -> Option<String> {
    let at = text.rfind('@')?;
    let user_info = match text[..at].find("://") {
        Some(end) if text.as_bytes()[..end].iter().all(u8::is_ascii_alphanumeric) => end + 3,
        _ => 0,
    };
    let secret = text[user_info..at]
        .find(':')
        .map_or(user_info, |colon| user_info + colon + 1);
    if text[secret..at].contains('%') {
        return None;
    }
    let other = text[secret..at].replace(|letter: char| letter.is_ascii_alphabetic(), "x");
    Some(format!("{}{other}{}", &text[..secret], &text[at..]))
}
