//! Authorization of clients: which CONNECT is admitted. Further methods (certificates, hashed passwords) belong in this file.

use data_encoding::{BASE64, BASE64URL_NOPAD};
use nkeys::KeyPair;
use standin_wire::Connect;

/// The credentials that admit a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// No credentials are needed.
    Open,
    /// The token.
    Token(String),
    /// One of these users.
    Users(Users),
}

/// The users that are admitted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Users {
    /// Name and password of each user that has them.
    pub passwords: Vec<(String, String)>,
    /// Public key of each user that signs the nonce of INFO.
    pub nkeys: Vec<String>,
}

/// Number of random bytes in a nonce, as in `nats-server`.
const NONCE_BYTES: usize = 11;

impl Access {
    /// Returns whether CONNECT must carry credentials: `auth_required` of INFO.
    #[must_use]
    pub fn is_required(&self) -> bool {
        *self != Self::Open
    }

    /// Returns a nonce for a new client to sign; empty if no user has a key.
    #[must_use]
    pub fn new_nonce(&self) -> Box<str> {
        match self {
            Self::Users(users) if !users.nkeys.is_empty() => BASE64URL_NOPAD
                .encode(&rand::random::<[u8; NONCE_BYTES]>())
                .into(),
            _ => "".into(),
        }
    }

    /// Returns whether the client that sent this CONNECT is admitted. `nonce` is the one in its INFO.
    #[must_use]
    pub fn admits(&self, connect: &Connect, nonce: &str) -> bool {
        match self {
            Self::Open => true,
            Self::Token(token) => {
                let given = connect.auth_token.as_deref();
                given.is_some_and(|given| constant_time_eq(given, token))
            }
            Self::Users(users) => match connect.nkey.as_deref().filter(|key| !key.is_empty()) {
                Some(key) => users.nkeys.iter().any(|known| known == key) && is_signed(connect, key, nonce),
                None => users.has_password(connect),
            },
        }
    }
}

impl Users {
    fn has_password(&self, connect: &Connect) -> bool {
        connect.user.as_ref().is_some_and(|user| {
            // A missing password is the empty one, as in nats-server.
            let password = connect.pass.as_deref().unwrap_or_default();
            self.passwords.iter().fold(false, |admitted, (name, secret)| {
                admitted | (constant_time_eq(user, name) & constant_time_eq(password, secret))
            })
        })
    }
}

/// Returns whether CONNECT has a signature of `nonce` by the owner of `key`. Old clients encode it with the standard alphabet of base64.
fn is_signed(connect: &Connect, key: &str, nonce: &str) -> bool {
    let text = connect.sig.as_deref().unwrap_or_default().as_bytes();
    let signature = BASE64URL_NOPAD.decode(text).or_else(|_| BASE64.decode(text));
    let key = KeyPair::from_public_key(key);
    !nonce.is_empty()
        && key.is_ok_and(|key| {
            signature.is_ok_and(|signature| key.verify(nonce.as_bytes(), &signature).is_ok())
        })
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
        let users = |passwords| {
            Access::Users(Users {
                passwords,
                nkeys: Vec::new(),
            })
        };
        let no_password = users(vec![("a".into(), String::new())]);
        let users = users(vec![("a".into(), "b".into()), ("c".into(), "d".into())]);
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
            let admits = access.admits(&connect(user, pass, None), "");
            assert_eq!(admits, admitted, "{access:?} {user:?} {pass:?}");
        }
        let token = Access::Token("t".into());
        assert!(token.admits(&connect(None, None, Some("t")), ""));
        assert!(!token.admits(&connect(None, None, Some("tt")), ""));
        assert!(!token.admits(&connect(Some("t"), None, None), ""));
        assert!(Access::Open.admits(&connect(None, None, None), ""));
        assert!(!Access::Open.is_required() && token.is_required());
    }

    #[test]
    fn a_user_with_a_key_must_have_signed_the_nonce_of_this_connection() {
        let (key, other) = (KeyPair::new_user(), KeyPair::new_user());
        let access = Access::Users(Users {
            passwords: Vec::new(),
            nkeys: vec![key.public_key()],
        });
        let nonce = access.new_nonce();
        assert_eq!(nonce.len(), 15);
        assert_ne!(access.new_nonce(), nonce);
        let signed = |by: &KeyPair, text: &str| by.sign(text.as_bytes()).unwrap();
        let connect = |nkey: &KeyPair, sig: Option<String>| Connect {
            nkey: Some(nkey.public_key()),
            sig,
            ..Connect::default()
        };
        let url = |signature: &[u8]| Some(BASE64URL_NOPAD.encode(signature));
        for (case, connect, admitted) in [
            ("signed", connect(&key, url(&signed(&key, &nonce))), true),
            (
                "standard alphabet",
                connect(&key, Some(BASE64.encode(&signed(&key, &nonce)))),
                true,
            ),
            ("another nonce", connect(&key, url(&signed(&key, "x"))), false),
            (
                "another key signs",
                connect(&key, url(&signed(&other, &nonce))),
                false,
            ),
            (
                "an unknown key",
                connect(&other, url(&signed(&other, &nonce))),
                false,
            ),
            ("no signature", connect(&key, None), false),
            ("not base64", connect(&key, Some("?".to_owned())), false),
        ] {
            assert_eq!(access.admits(&connect, &nonce), admitted, "{case}");
            assert!(!access.admits(&connect, ""), "{case}");
        }
    }
}
