//! The JSON argument of CONNECT, in which a client states its options and credentials.
//!
//! A missing field has the value that a connection of `nats-server` has before CONNECT: `verbose`, `pedantic` and `echo` are
//! on. Unknown fields are ignored.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The fields of CONNECT that a server or a sidecar uses. `Debug` hides the credentials, except the name of the user.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
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

impl fmt::Debug for Connect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Connect");
        shown.field("user", &self.user).field("name", &self.name);
        shown
            .field("verbose", &self.verbose)
            .field("pedantic", &self.pedantic);
        shown.field("echo", &self.echo).field("protocol", &self.protocol);
        shown.field("headers", &self.headers);
        shown
            .field("no_responders", &self.no_responders)
            .finish_non_exhaustive()
    }
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
        crate::json::object(Map::new(), json)
    }

    /// Returns whether `other` has the same credentials. Ignores the signature, which differs for each nonce.
    #[must_use]
    pub fn has_same_credentials(&self, other: &Self) -> bool {
        let credentials =
            |of: &Self| [&of.user, &of.pass, &of.auth_token, &of.jwt, &of.nkey].map(Clone::clone);
        credentials(self) == credentials(other)
    }

    /// Parses the argument of a later CONNECT of the same client. A field that is missing or `null` in it keeps the value of
    /// `before`, as in `nats-server`.
    ///
    /// # Errors
    /// Those of [`parse`](Self::parse).
    pub fn parse_over(before: &Self, json: &[u8]) -> Result<Self, serde_json::Error> {
        match serde_json::to_value(before)? {
            Value::Object(before) => crate::json::object(before, json),
            _ => Self::parse(json),
        }
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
        // A server ignores the case of field names and uses the last of two equal ones. So the old fields are removed.
        object.retain(|other, _| !other.eq_ignore_ascii_case(name));
        object.insert(name.to_owned(), value);
    }
    Ok(Value::Object(object).to_string())
}

/// Returns the CONNECT argument `json` with the fields of `later`, a later CONNECT of the same client.
///
/// # Errors
/// The error of `serde_json` if `json` or `later` is not a JSON object.
pub fn merged(json: &[u8], later: &[u8]) -> Result<String, serde_json::Error> {
    let later = crate::json::fields(later)?;
    with_fields(
        json,
        later.iter().map(|(name, value)| (name.as_str(), value.clone())),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_connect_keeps_the_fields_that_are_missing_or_null_in_it() {
        let first = Connect::parse(br#"{"verbose":false,"headers":true,"user":"a","pass":"b","protocol":1}"#)
            .unwrap();
        let second = Connect::parse_over(&first, br#"{"name":"x","Pedantic":false,"pass":null}"#).unwrap();
        assert!(!second.verbose && !second.pedantic && second.headers && second.echo);
        assert_eq!(
            (second.protocol, second.user.as_deref(), second.pass.as_deref()),
            (1, Some("a"), Some("b"))
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
    fn json_that_nats_server_accepts_is_accepted() {
        for (json, verbose, name) in [
            (b"null".as_slice(), true, None),
            (br#"{"Verbose":false}"#, false, None),
            (br#"{"verbose":null,"pedantic":false}"#, true, None),
            (br#"{"verbose":true,"verbose":false}"#, false, None),
            (br#"{"extra":{"a":[1]},"user":null,"headers":null}"#, true, None),
            (br#"{"verbose":false,"lang":"node","name":"n"}"#, false, Some("n")),
            (b"{\"name\":\"caf\xe9\"}", true, Some("caf\u{fffd}")),
        ] {
            let connect = Connect::parse(json).unwrap();
            let found = (connect.verbose, connect.name.as_deref());
            assert_eq!(found, (verbose, name), "{}", json.escape_ascii());
            assert!(!connect.has_credentials() && !connect.is_signed());
        }
        assert_eq!(Connect::parse(b"null").unwrap(), Connect::default());
        let connect = Connect::parse(br#"{"user":"a","pass":"b"}"#).unwrap();
        assert!(connect.has_credentials());
    }

    #[test]
    fn a_set_field_replaces_fields_of_that_name_in_any_case() {
        let json = with_fields(br#"{"Verbose":true,"a":1}"#, [("verbose", Value::from(false))]).unwrap();
        assert_eq!(json, r#"{"a":1,"verbose":false}"#);
        assert_eq!(with_fields(b"null", []).unwrap(), "{}");
    }

    #[test]
    fn debug_shows_no_secret() {
        let json = br#"{"user":"u","pass":"hunter2","auth_token":"hunter2","jwt":"hunter2","sig":"hunter2"}"#;
        let shown = format!("{:?}", Connect::parse(json).unwrap());
        assert!(shown.contains("\"u\"") && !shown.contains("hunter2"), "{shown}");
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
    fn with_fields_keeps_all_other_fields() {
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
