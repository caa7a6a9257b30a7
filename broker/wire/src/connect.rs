//! The JSON argument of CONNECT: what a client says of itself.
//!
//! Fields may be missing or extra. Those that are missing have the values of a `nats-server` connection before its
//! CONNECT, where `verbose`, `pedantic` and `echo` are on.

use serde::Deserialize;
use serde_json::Value;

/// The fields of CONNECT that matter to a server or to what stands in front of one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Connect {
    /// `+OK` after each command.
    pub verbose: bool,
    /// Stricter checks of subjects.
    pub pedantic: bool,
    /// The client's own messages come back to its own subscriptions.
    pub echo: bool,
    /// 1: takes INFO at any time.
    pub protocol: i64,
    /// Takes HMSG.
    pub headers: bool,
    /// Wants a 503 when nobody listens.
    pub no_responders: bool,
    /// User name.
    pub user: Option<String>,
    /// Password.
    pub pass: Option<String>,
    /// Token.
    pub auth_token: Option<String>,
    /// User JWT; comes with `sig`.
    pub jwt: Option<String>,
    /// Public nkey; comes with `sig`.
    pub nkey: Option<String>,
    /// The server's nonce, signed.
    pub sig: Option<String>,
    /// What the client calls itself.
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
    /// Reads the argument of CONNECT.
    ///
    /// # Errors
    /// What `serde_json` says when it is no JSON object, or a field has the wrong type.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        crate::json::object(json)
    }

    /// Whether `other` identifies itself in the same way. The signature is left out: it is another for each nonce.
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

    /// Reads the argument of a later CONNECT of the same client: what it does not name stays as it was said before, as in
    /// `nats-server`.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
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

    /// Whether the client names anything to be let in by.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        given(&self.user) || given(&self.auth_token) || given(&self.jwt) || given(&self.nkey)
    }

    /// Whether the client signed the nonce of one server: no other server will take this CONNECT (promise S11).
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.sig.as_deref().is_some_and(|sig| !sig.is_empty())
    }
}

/// The CONNECT argument `json` with `fields` set in it; all other fields keep the names and values the client gave.
///
/// # Errors
/// What `serde_json` says when it is no JSON object.
pub fn with_fields<'f>(
    json: &[u8],
    fields: impl IntoIterator<Item = (&'f str, Value)>,
) -> Result<String, serde_json::Error> {
    let mut object = crate::json::fields(json)?;
    for (name, value) in fields {
        // A server reads names in any case and the last of them counts.
        object.retain(|other, _| !other.eq_ignore_ascii_case(name));
        object.insert(name.to_owned(), value);
    }
    Ok(Value::Object(object).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_connect_is_laid_over_the_one_before() {
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
    fn missing_fields_have_the_values_before_connect() {
        let connect = Connect::parse(b"{}").unwrap();
        assert!(connect.verbose && connect.pedantic && connect.echo && !connect.headers);
        assert_eq!(connect.protocol, 0);
        assert!(!connect.has_credentials());
    }

    #[test]
    fn what_old_clients_send_is_read() {
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
    fn what_a_go_server_takes_is_taken() {
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
    fn a_set_field_replaces_the_same_name_in_any_case() {
        let json = with_fields(br#"{"Verbose":true,"a":1}"#, [("verbose", Value::from(false))]).unwrap();
        assert_eq!(json, r#"{"a":1,"verbose":false}"#);
        assert_eq!(with_fields(b"null", []).unwrap(), "{}");
    }

    #[test]
    fn wrong_json_is_an_error() {
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
    fn fields_are_set_and_the_rest_is_kept() {
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
