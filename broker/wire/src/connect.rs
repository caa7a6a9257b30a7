//! The JSON argument of CONNECT, in which a client states its options and credentials.
//!
//! A missing field has the value that a connection of `nats-server` has before CONNECT: `verbose`, `pedantic` and `echo` are
//! on. Unknown fields are ignored.

use serde::Deserialize;
use serde_json::Value;

/// The fields of CONNECT that a server or a sidecar uses.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Connect {
    /// The server answers each command with `+OK`.
    pub verbose: bool,
    /// The server checks subjects more strictly.
    pub pedantic: bool,
    /// The client's own messages are delivered to its own subscriptions too.
    pub echo: bool,
    /// Protocol version of the client. 1: it accepts INFO at any time.
    pub protocol: i64,
    /// The client accepts HMSG.
    pub headers: bool,
    /// The client wants a 503 reply to a request that no subscription matches.
    pub no_responders: bool,
    /// User name.
    pub user: Option<String>,
    /// Password.
    pub pass: Option<String>,
    /// Token.
    pub auth_token: Option<String>,
    /// User JWT. Used together with `sig`.
    pub jwt: Option<String>,
    /// Public nkey. Used together with `sig`.
    pub nkey: Option<String>,
    /// Signature of the server's nonce.
    pub sig: Option<String>,
    /// Name of the client, for operators.
    pub name: Option<String>,
    /// Language of the client library.
    pub lang: Option<String>,
    /// Version of the client library.
    pub version: Option<String>,
}

impl Default for Connect {
    fn default() -> Self {
        Self {
            verbose: true,
            pedantic: true,
            echo: true,
            protocol: 0,
            headers: false,
            no_responders: false,
            user: None,
            pass: None,
            auth_token: None,
            jwt: None,
            nkey: None,
            sig: None,
            name: None,
            lang: None,
            version: None,
        }
    }
}

impl Connect {
    /// Parses the argument of CONNECT.
    ///
    /// # Errors
    /// The error of `serde_json` if `json` is not a JSON object or a field has the wrong type.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        crate::json::object(json)
    }

    /// Returns whether `other` has the same credentials. Ignores the signature, which differs for each nonce.
    #[must_use]
    pub fn has_same_credentials(&self, other: &Self) -> bool {
        let credentials = |client: &Self| {
            let Self {
                user,
                pass,
                auth_token,
                jwt,
                nkey,
                ..
            } = client.clone();
            (user, pass, auth_token, jwt, nkey)
        };
        credentials(self) == credentials(other)
    }

    /// Parses the argument of a later CONNECT of the same client. A field that is missing in it keeps the value of `before`, as
    /// in `nats-server`.
    ///
    /// # Errors
    /// Those of [`parse`](Self::parse).
    pub fn parse_over(before: &Self, json: &[u8]) -> Result<Self, serde_json::Error> {
        let now = Self::parse(json)?;
        let fields = crate::json::fields(json)?;
        let names = |name: &str| fields.keys().any(|field| field.eq_ignore_ascii_case(name));
        let text = |name, now: Option<String>, before: &Option<String>| {
            if names(name) { now } else { before.clone() }
        };
        let flag = |name, now, before| if names(name) { now } else { before };
        Ok(Self {
            verbose: flag("verbose", now.verbose, before.verbose),
            pedantic: flag("pedantic", now.pedantic, before.pedantic),
            echo: flag("echo", now.echo, before.echo),
            protocol: if names("protocol") {
                now.protocol
            } else {
                before.protocol
            },
            headers: flag("headers", now.headers, before.headers),
            no_responders: flag("no_responders", now.no_responders, before.no_responders),
            user: text("user", now.user, &before.user),
            pass: text("pass", now.pass, &before.pass),
            auth_token: text("auth_token", now.auth_token, &before.auth_token),
            jwt: text("jwt", now.jwt, &before.jwt),
            nkey: text("nkey", now.nkey, &before.nkey),
            sig: text("sig", now.sig, &before.sig),
            name: text("name", now.name, &before.name),
            lang: text("lang", now.lang, &before.lang),
            version: text("version", now.version, &before.version),
        })
    }

    /// Returns whether the client gives any credentials.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        given(&self.user) || given(&self.auth_token) || given(&self.jwt) || given(&self.nkey)
    }

    /// Returns whether the client signed the nonce of a server. No other server accepts this CONNECT (promise S11).
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.sig.as_deref().is_some_and(|sig| !sig.is_empty())
    }
}

/// Returns the CONNECT argument `json` with `fields` set. All other fields keep their names and values.
///
/// # Errors
/// The error of `serde_json` if `json` is not a JSON object.
pub fn with_fields<'f>(
    json: &[u8],
    fields: impl IntoIterator<Item = (&'f str, Value)>,
) -> Result<String, serde_json::Error> {
    let mut object = crate::json::fields(json)?;
    for (name, value) in fields {
        // A server ignores the case of names. Of two equal names the last counts.
        object.retain(|other, _| !other.eq_ignore_ascii_case(name));
        object.insert(name.to_owned(), value);
    }
    Ok(Value::Object(object).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_connect_keeps_the_fields_that_it_does_not_name() {
        let first = Connect::parse(br#"{"verbose":false,"headers":true,"user":"a","pass":"b","protocol":1}"#)
            .unwrap();
        let second = Connect::parse_over(&first, br#"{"name":"x","Pedantic":false,"pass":null}"#).unwrap();
        assert!(!second.verbose && !second.pedantic && second.headers && second.echo);
        assert_eq!(
            (second.protocol, second.user.as_deref(), second.pass.as_deref()),
            (1, Some("a"), None)
        );
        assert_eq!(second.name.as_deref(), Some("x"));
        assert!(Connect::parse_over(&first, b"[]").is_err());
    }

    #[test]
    fn missing_fields_have_the_defaults_of_nats_server() {
        let connect = Connect::parse(b"{}").unwrap();
        assert!(connect.verbose && connect.pedantic && connect.echo && !connect.headers);
        assert_eq!(connect.protocol, 0);
        assert!(!connect.has_credentials());
    }

    #[test]
    fn connect_of_old_clients_is_parsed() {
        let connect = Connect::parse(
            br#"{"verbose":true,"pedantic":true,"extra":{"a":[1]},"user":null,"headers":null}"#,
        )
        .unwrap();
        assert!(connect.verbose);
        assert!(!connect.has_credentials());
        let connect = Connect::parse(br#"{"verbose":false,"user":"a","pass":"b","lang":"node"}"#).unwrap();
        assert!(!connect.verbose && connect.has_credentials() && !connect.is_signed());
    }

    #[test]
    fn json_that_a_go_server_accepts_is_accepted() {
        assert_eq!(Connect::parse(b"null").unwrap(), Connect::default());
        assert!(!Connect::parse(br#"{"Verbose":false}"#).unwrap().verbose);
        assert!(
            Connect::parse(br#"{"verbose":null,"pedantic":false}"#)
                .unwrap()
                .verbose
        );
        assert!(
            !Connect::parse(br#"{"verbose":true,"verbose":false}"#)
                .unwrap()
                .verbose
        );
        let latin = Connect::parse(b"{\"name\":\"caf\xe9\"}").unwrap();
        assert_eq!(latin.name.as_deref(), Some("caf\u{fffd}"));
    }

    #[test]
    fn a_set_field_replaces_fields_of_that_name_in_any_case() {
        let json = with_fields(br#"{"Verbose":true,"a":1}"#, [("verbose", Value::from(false))]).unwrap();
        assert_eq!(json, r#"{"a":1,"verbose":false}"#);
        assert_eq!(with_fields(b"null", []).unwrap(), "{}");
    }

    #[test]
    fn invalid_json_is_an_error() {
        for bad in [
            "",
            "x",
            "[]",
            "1",
            "{} x",
            r#"{"verbose":"yes"}"#,
            r#"{"protocol":1.0}"#,
        ] {
            assert!(Connect::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn other_fields_are_kept() {
        let json = with_fields(
            br#"{"verbose":false,"x":[1,2.5]}"#,
            [("protocol", Value::from(1))],
        )
        .unwrap();
        let read: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            read,
            serde_json::json!({"verbose": false, "x": [1, 2.5], "protocol": 1})
        );
    }
}
