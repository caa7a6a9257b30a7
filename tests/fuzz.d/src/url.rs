//! Addresses as operators and environments give them: `nats://user:password@host:port`, and names for DNS.

use standin_daemon::settings::masked_url;
use standin_registry::{DnsName, Upstream};

/// Shortest secret that is looked for. A shorter one can be a part of other text by chance.
const SECRET_BYTES_MIN: usize = 6;

/// Parses an address. One that is shown must mean the same without its credentials, and no text about it may have the secret.
pub(crate) fn url(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let _ = text.parse::<DnsName>();
    let parsed = text.parse::<Upstream>();
    let shown = match &parsed {
        Ok(upstream) => {
            let again: Upstream = upstream
                .to_string()
                .parse()
                .expect("a shown address is an address");
            assert_eq!((&again.endpoint, again.tls), (&upstream.endpoint, upstream.tls));
            format!("{upstream:?} {upstream} {}", masked_url(text))
        }
        Err(error) => format!("{error} {error:?} {}", masked_url(text)),
    };
    if let Some(secret) = secret(text) {
        assert!(!shown.contains(secret), "{secret:?} in {shown}");
    }
}

/// Returns the password or the token before the `@`, if it is long enough and is nowhere else in the text.
fn secret(text: &str) -> Option<&str> {
    let (before, _) = text.rsplit_once('@')?;
    let user_info = match before.split_once("://") {
        Some((scheme, rest)) if scheme.chars().all(|c| c.is_ascii_alphanumeric()) => rest,
        _ => before,
    };
    let secret = user_info
        .split_once(':')
        .map_or(user_info, |(_, password)| password);
    let is_clear = secret.len() >= SECRET_BYTES_MIN && text.matches(secret).count() == 1;
    is_clear.then_some(secret)
}
