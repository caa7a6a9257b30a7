//! The texts of `-ERR`: whom they are about, and whether the server closes the connection after them.
//!
//! The texts are those that `nats-server` has used over the years; old client libraries compare them letter by letter.

/// What a server refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// One command, which had no effect; the connection goes on.
    Command,
    /// A subscription, by permission; the connection goes on without it.
    Subscription,
    /// The client itself: what it sent broke a rule or a limit. The connection ends.
    Client,
    /// The client's credentials. The connection ends.
    Authorization,
    /// No credentials came in time. About the client if it had not sent its CONNECT, else about the server. The connection ends.
    AuthorizationTimeout,
    /// Nothing the client did: the server is full, going, or was reached at the wrong port. The connection ends.
    Server,
    /// A text not known here.
    Unknown,
}

/// Texts that begin like this, in lower case, without quotes.
const TEXTS: &[(&str, Refusal)] = &[
    ("permissions violation for subscription", Refusal::Subscription),
    ("permissions violation", Refusal::Command),
    ("invalid subject", Refusal::Command),
    ("invalid publish subject", Refusal::Command),
    ("maximum subscriptions exceeded", Refusal::Command),
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

impl Refusal {
    /// What the text of an `-ERR` (without its quotes) stands for.
    #[must_use]
    pub fn of(text: &[u8]) -> Self {
        let starts = |known: &str| {
            text.get(..known.len())
                .is_some_and(|head| head.eq_ignore_ascii_case(known.as_bytes()))
        };
        TEXTS
            .iter()
            .find(|(known, _)| starts(known))
            .map_or(Self::Unknown, |(_, refusal)| *refusal)
    }

    /// Stable name, for logs and metric labels.
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

/// Whether the text of an `-ERR` comes in place of the `+OK` of the command it refuses (promise S6). So do all that leave
/// the connection open but one: a publish to a bad subject under `pedantic` is complained of, and then taken.
#[must_use]
pub fn replaces_ok(text: &[u8]) -> bool {
    const BESIDES: &[u8] = b"invalid publish subject";
    !text
        .get(..BESIDES.len())
        .is_some_and(|head| head.eq_ignore_ascii_case(BESIDES))
}

/// Whether the text of an `-ERR` refuses a subscription because there are too many. It does not say which.
#[must_use]
pub fn names_too_many_subscriptions(text: &[u8]) -> bool {
    const TEXT: &[u8] = b"maximum subscriptions exceeded";
    text.get(..TEXT.len())
        .is_some_and(|head| head.eq_ignore_ascii_case(TEXT))
}

/// The subject and queue group that a permission violation about a subscription names.
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
    fn texts_are_told_apart_whatever_their_case() {
        for (text, refusal) in [
            ("Permissions Violation for Publish to \"foo\"", Refusal::Command),
            (
                "Permissions Violation for Subscription to \"foo\"",
                Refusal::Subscription,
            ),
            ("Authorization Violation", Refusal::Authorization),
            ("authorization violation", Refusal::Authorization),
            ("Stale Connection", Refusal::Server),
            ("maximum connections exceeded", Refusal::Server),
            ("Maximum Payload Violation", Refusal::Client),
            ("Unknown Protocol Operation", Refusal::Client),
            ("something new", Refusal::Unknown),
            ("", Refusal::Unknown),
        ] {
            assert_eq!(Refusal::of(text.as_bytes()), refusal, "{text}");
        }
    }

    #[test]
    fn s6_only_the_pedantic_complaint_comes_besides_an_ok() {
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
    fn what_nats_server_says_is_known() {
        for (text, refusal) in [
            (
                "Permissions Violation for Subscription to \"a.b.c\", too many tokens",
                Refusal::Subscription,
            ),
            ("Invalid Subject", Refusal::Command),
            ("Invalid Publish Subject", Refusal::Command),
            ("maximum subscriptions exceeded", Refusal::Command),
            ("maximum control line exceeded", Refusal::Client),
            ("invalid client protocol", Refusal::Client),
            ("no responders requires headers support", Refusal::Client),
            ("Authentication Timeout", Refusal::AuthorizationTimeout),
            ("Server Shutdown", Refusal::Server),
        ] {
            assert_eq!(Refusal::of(text.as_bytes()), refusal, "{text}");
        }
    }

    #[test]
    fn the_refused_subscription_is_named_in_the_text() {
        let text = br#"Permissions Violation for Subscription to "a.b" using queue "q""#;
        assert_eq!(
            refused_subscription(text),
            Some((b"a.b".as_slice(), Some(b"q".as_slice())))
        );
        let text = br#"Permissions Violation for Subscription to "a.b""#;
        assert_eq!(refused_subscription(text), Some((b"a.b".as_slice(), None)));
        assert_eq!(refused_subscription(b"Permissions Violation"), None);
        let text = br#"Permissions Violation for Subscription to "a.b.c", too many tokens"#;
        assert_eq!(refused_subscription(text), Some((b"a.b.c".as_slice(), None)));
    }
}
