//! Authorization of clients: which CONNECT is admitted. Further methods (nkeys, certificates, hashed passwords) belong in this file.

use standin_wire::Connect;

/// The credentials that admit a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// No credentials are needed.
    Open,
    /// The token.
    Token(String),
    /// One of these users: name and password.
    Users(Vec<(String, String)>),
}

impl Access {
    /// Returns whether CONNECT must carry credentials: `auth_required` of INFO.
    #[must_use]
    pub fn is_required(&self) -> bool {
        *self != Self::Open
    }

    /// Returns whether the client that sent this CONNECT is admitted.
    #[must_use]
    pub fn admits(&self, connect: &Connect) -> bool {
        match self {
            Self::Open => true,
            Self::Token(token) => {
                let given = connect.auth_token.as_deref();
                given.is_some_and(|given| constant_time_eq(given, token))
            }
            Self::Users(users) => connect.user.as_ref().is_some_and(|user| {
                // A missing password is the empty one, as in nats-server.
                let password = connect.pass.as_deref().unwrap_or_default();
                users.iter().fold(false, |admitted, (name, secret)| {
                    admitted | (constant_time_eq(user, name) & constant_time_eq(password, secret))
                })
            }),
        }
    }
}

/// Compares in a time that does not depend on how many bytes are equal.
pub(crate) fn constant_time_eq(given: &str, secret: &str) -> bool {
    let pairs = given.bytes().zip(secret.bytes());
    let differences = pairs.fold(0, |differences, (a, b)| differences | (a ^ b));
    given.len() == secret.len() && differences == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(user: Option<&str>, pass: Option<&str>, auth_token: Option<&str>) -> Connect {
        Connect {
            user: user.map(str::to_owned),
            pass: pass.map(str::to_owned),
            auth_token: auth_token.map(str::to_owned),
            ..Connect::default()
        }
    }

    #[test]
    fn only_a_client_with_the_right_credentials_is_admitted() {
        let users = Access::Users(vec![("a".into(), "b".into()), ("c".into(), "d".into())]);
        let no_password = Access::Users(vec![("a".into(), String::new())]);
        for (access, user, pass, admitted) in [
            (&users, Some("a"), Some("b"), true),
            (&users, Some("c"), Some("d"), true),
            (&users, Some("a"), Some("d"), false),
            (&users, Some("a"), Some(""), false),
            (&users, Some("a"), None, false),
            (&users, None, Some("b"), false),
            (&users, None, None, false),
            (&no_password, Some("a"), None, true),
            (&no_password, Some("a"), Some(""), true),
            (&no_password, Some("a"), Some("x"), false),
            (&no_password, Some("b"), None, false),
            (&no_password, None, None, false),
        ] {
            let admits = access.admits(&connect(user, pass, None));
            assert_eq!(admits, admitted, "{access:?} {user:?} {pass:?}");
        }
        let token = Access::Token("t".into());
        assert!(token.admits(&connect(None, None, Some("t"))));
        assert!(!token.admits(&connect(None, None, Some("tt"))));
        assert!(!token.admits(&connect(Some("t"), None, None)));
        assert!(Access::Open.admits(&connect(None, None, None)));
        assert!(!Access::Open.is_required() && token.is_required());
    }
}
