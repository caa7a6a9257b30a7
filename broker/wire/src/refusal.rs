//! The texts of `-ERR`: the cause that each names, and whether the server closes the connection after it.
//!
//! These are the texts of all versions of `nats-server`. Old client libraries compare them letter by letter.

/// Cause of an `-ERR`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// One command, which has no effect. The connection continues.
    Command,
    /// A subscription that the permissions do not allow. The connection continues without it.
    Subscription,
    /// Bytes of the client that violate a rule or a limit. The connection ends.
    Client,
    /// The client's credentials. The connection ends.
    Authorization,
    /// No credentials within the time limit. The client is the cause if it has sent no CONNECT; otherwise the server is. The
    /// connection ends.
    AuthorizationTimeout,
    /// The server: it is full, shuts down, or the port is not for clients. The connection ends.
    Server,
    /// Unknown text.
    Unknown,
}

/// Beginnings of the texts in lower case, without quotes, and their causes. The first match counts.
const TEXTS: &[(&str, Refusal)] = &[
    ("permissions violation for subscription", Refusal::Subscription),
    ("permissions violation", Refusal::Command),
    ("invalid subject", Refusal::Command),
    ("invalid publish subject", Refusal::Command),
    ("maximum subscriptions exceeded", Refusal::Command),
    ("maximum message rate exceeded", Refusal::Command),
    (
        "subscription has exceeded number of tokens limit",
        Refusal::Command,
    ),
    ("maximum payload", Refusal::Client),
    ("maximum control line", Refusal::Client),
    ("unknown protocol operation", Refusal::Client),
    ("parser error", Refusal::Client),
    ("slow consumer", Refusal::Client),
    ("invalid client protocol", Refusal::Client),
    ("message headers not supported", Refusal::Client),
    ("no responders requires headers", Refusal::Client),
    ("duplicate client id", Refusal::Client),
    ("authentication timeout", Refusal::AuthorizationTimeout),
    ("authorization violation", Refusal::Authorization),
    ("authorization timeout", Refusal::AuthorizationTimeout),
    ("user authentication expired", Refusal::Authorization),
    ("user authentication revoked", Refusal::Authorization),
    ("account authentication expired", Refusal::Authorization),
    ("credentials have been revoked", Refusal::Authorization),
    ("stale connection", Refusal::Server),
    ("server shutdown", Refusal::Server),
    ("server is not running", Refusal::Server),
    ("maximum connections exceeded", Refusal::Server),
    ("maximum account active connections exceeded", Refusal::Server),
    ("connection throttling", Refusal::Server),
    ("attempted to connect to", Refusal::Server),
    ("secure connection - tls required", Refusal::Server),
];

/// Returns whether `text` begins with `known`. Ignores the case.
fn begins_with(text: &[u8], known: &str) -> bool {
    let head = text.get(..known.len());
    head.is_some_and(|head| head.eq_ignore_ascii_case(known.as_bytes()))
}

impl Refusal {
    /// Returns the cause that the text of an `-ERR` names. `text` is without quotes.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        let known = TEXTS.iter().find(|(known, _)| begins_with(text, known));
        known.map_or(Self::Unknown, |(_, refusal)| *refusal)
    }

    /// Returns the stable name of the cause, for logs and metric labels.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Subscription => "subscription",
            Self::Client => "client",
            Self::Authorization => "authorization",
            Self::AuthorizationTimeout => "authorization_timeout",
            Self::Server => "server",
            Self::Unknown => "unknown",
        }
    }
}

/// Returns whether the `-ERR` with this text replaces the `+OK` of the command (promise S6). Each `-ERR` after which the
/// connection continues does, with one exception: with `pedantic`, a publish to an invalid subject is answered with `-ERR` and
/// then accepted with `+OK`.
#[must_use]
pub fn replaces_ok(text: &[u8]) -> bool {
    !begins_with(text, "invalid publish subject")
}

/// Returns whether the `-ERR` with this text rejects a subscription above the maximum number. The text does not name the
/// subscription.
#[must_use]
pub fn names_too_many_subscriptions(text: &[u8]) -> bool {
    begins_with(text, "maximum subscriptions exceeded")
}

/// Returns the subject and the queue group in the text of a permission violation for a subscription.
#[must_use]
pub fn refused_subscription(text: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let mut quoted = text.split(|byte| *byte == b'"');
    quoted.next()?;
    let subject = quoted.next()?;
    let names_queue = quoted.next()?.windows(5).any(|word| word == b"queue");
    Some((subject, if names_queue { quoted.next() } else { None }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_nats_server_are_known_in_any_case() {
        for (text, refusal) in [
            ("Permissions Violation for Publish to \"foo\"", Refusal::Command),
            (
                "Permissions Violation for Subscription to \"a\"",
                Refusal::Subscription,
            ),
            ("Invalid Subject", Refusal::Command),
            ("Invalid Publish Subject", Refusal::Command),
            ("maximum subscriptions exceeded", Refusal::Command),
            ("Authorization Violation", Refusal::Authorization),
            ("authorization violation", Refusal::Authorization),
            ("Authentication Timeout", Refusal::AuthorizationTimeout),
            ("Stale Connection", Refusal::Server),
            ("maximum connections exceeded", Refusal::Server),
            ("Server Shutdown", Refusal::Server),
            ("Maximum Payload Violation", Refusal::Client),
            ("Unknown Protocol Operation", Refusal::Client),
            ("maximum control line exceeded", Refusal::Client),
            ("invalid client protocol", Refusal::Client),
            ("no responders requires headers support", Refusal::Client),
            ("something new", Refusal::Unknown),
            ("", Refusal::Unknown),
        ] {
            assert_eq!(Refusal::of(text.as_bytes()), refusal, "{text}");
        }
    }

    #[test]
    fn s6_only_the_pedantic_err_is_followed_by_an_ok() {
        assert!(!replaces_ok(b"Invalid Publish Subject"));
        for text in [
            "Invalid Subject",
            "Permissions Violation for Publish to \"a\"",
            "maximum subscriptions exceeded",
            "",
        ] {
            assert!(replaces_ok(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn the_refused_subscription_is_found_in_the_text() {
        for (text, found) in [
            ("to \"a.b\" using queue \"q\"", Some(("a.b", Some("q")))),
            ("to \"a.b\"", Some(("a.b", None))),
            ("to \"a.b.c\", too many tokens", Some(("a.b.c", None))),
            ("", None),
        ] {
            let text = format!("Permissions Violation for Subscription {text}");
            let found = found.map(|(subject, queue)| (subject.as_bytes(), queue.map(str::as_bytes)));
            assert_eq!(refused_subscription(text.as_bytes()), found, "{text}");
        }
    }
}
