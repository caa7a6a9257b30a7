//! Authorization of clients: who is admitted, and as which user.
//!
//! A user proves itself by a password or token (plain or hashed with bcrypt), by a signature of the nonce in INFO (nkey), or by the
//! certificate of its TLS connection. A hash takes a tenth of a second to check, so this file does not check it: it returns
//! [`Admission::Hashed`], and [`password_check`](crate::password_check) does the rest.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use data_encoding::{BASE64, BASE64URL_NOPAD};
use nkeys::KeyPair;
use ring::hmac;
use standin_daemon::settings::Secret;
use standin_tls::certificate::CertificateNames;
use standin_wire::Connect;

use crate::permissions::UserPermissions;

/// The users that are admitted. Without users, every client is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// The users, by name; a user that signs has its public key as its name, and the owner of the token has an empty name.
    pub users: BTreeMap<String, Arc<User>>,
    /// Name of the user as which a client without credentials is admitted.
    pub no_auth_user: Option<String>,
    /// Clients without credentials are admitted, as no user.
    pub admits_others: bool,
    /// Each client is the user whose name is in its certificate (`verify_and_map`).
    pub by_certificate: bool,
}

/// One user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Key of the user in [`Access::users`].
    pub name: String,
    /// How the user proves itself.
    pub proof: Proof,
    /// Name of the user's account.
    pub account: String,
    /// What the user may do; `None`: everything.
    pub permissions: Option<Arc<UserPermissions>>,
}

/// The proof that a user must give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// `user` and `pass` of CONNECT.
    Password(Password),
    /// `auth_token` of CONNECT.
    Token(Password),
    /// `nkey` and `sig` of CONNECT.
    Signature,
}

/// A password or token of the settings, plain or as a bcrypt hash.
#[derive(Clone, PartialEq, Eq)]
pub struct Password {
    secret: Secret,
    verified: Verified,
}

/// Digest of the text that was last found to match a hash, so that a user that comes again need not be checked again: the thousands of
/// clients of a node that has died log in to the others at once.
#[derive(Clone, Default)]
struct Verified(OnceLock<hmac::Tag>);

impl PartialEq for Verified {
    /// The digest is not part of the settings.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Verified {}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.secret.fmt(formatter)
    }
}

impl From<&Secret> for Password {
    fn from(secret: &Secret) -> Self {
        Self {
            secret: secret.clone(),
            verified: Verified::default(),
        }
    }
}

impl From<&str> for Password {
    fn from(text: &str) -> Self {
        Self::from(&Secret::from(text))
    }
}

/// Key of the digests in [`Verified`], random in each run of the program.
fn digest_key() -> &'static hmac::Key {
    static KEY: OnceLock<hmac::Key> = OnceLock::new();
    KEY.get_or_init(|| hmac::Key::new(hmac::HMAC_SHA256, &rand::random::<[u8; 32]>()))
}

impl Password {
    /// Returns whether `given` is the password; `None` if only the check of the hash can tell.
    fn matches(&self, given: &str) -> Option<bool> {
        let secret = self.secret.reveal();
        if !is_hash(secret) {
            return Some(constant_time_eq(given, secret));
        }
        let tag = self.verified.0.get()?;
        let is_same = hmac::verify(digest_key(), given.as_bytes(), tag.as_ref()).is_ok();
        is_same.then_some(true)
    }
}

impl User {
    /// Admits the client if `given` is the password or token.
    fn admit(self: &Arc<Self>, given: Option<&str>) -> Admission {
        let (Proof::Password(password) | Proof::Token(password)) = &self.proof else {
            return Admission::Refused;
        };
        // A missing password is the empty one, as in nats-server.
        let given = given.unwrap_or_default();
        match password.matches(given) {
            Some(true) => admitted(self),
            Some(false) => Admission::Refused,
            None => Admission::Hashed(Arc::clone(self), Secret::from(given)),
        }
    }

    /// Returns whether `given` is the password behind the user's hash. Takes about 0.1 s of CPU time at cost 11, and twice as long for each
    /// step of the cost.
    pub(crate) fn check_hash(&self, given: &Secret) -> bool {
        let given = given.reveal();
        let (Proof::Password(password) | Proof::Token(password)) = &self.proof else {
            return false;
        };
        if let Some(known) = password.matches(given) {
            return known;
        }
        let is_right = bcrypt::verify(given, password.secret.reveal()).unwrap_or(false);
        if is_right {
            // Another thread may have been faster; then the digest is the same.
            let _ = password
                .verified
                .0
                .set(hmac::sign(digest_key(), given.as_bytes()));
        }
        is_right
    }
}

/// Returns whether a password is a bcrypt hash, by the rule of `nats-server`.
pub(crate) fn is_hash(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!(
        bytes,
        [b'$', b'2', b'a' | b'b' | b'x' | b'y', b'$', tens, ones, b'$', ..]
            if tens.is_ascii_digit() && ones.is_ascii_digit()
    )
}

/// Result of looking at the credentials of a client.
#[derive(Debug)]
pub enum Admission {
    /// The client is admitted, as this user if there are users.
    Admitted(Option<Arc<User>>),
    /// The client is not admitted.
    Refused,
    /// The client is this user if the text matches the user's hash, which [`User::check_hash`] finds out.
    Hashed(Arc<User>, Secret),
}

/// Number of random bytes in a nonce, as in `nats-server`.
const NONCE_BYTES: usize = 11;

impl Access {
    /// Returns whether there are users. Without users, every client is admitted, as none.
    #[must_use]
    pub fn has_users(&self) -> bool {
        !self.users.is_empty()
    }

    /// Returns whether a client must give credentials: `auth_required` of INFO.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.has_users() && self.anonymous().is_none() && !self.admits_others
    }

    /// Returns a nonce for a new client to sign; empty if no user signs.
    #[must_use]
    pub fn new_nonce(&self) -> Box<str> {
        if self.has_keys() {
            BASE64URL_NOPAD
                .encode(&rand::random::<[u8; NONCE_BYTES]>())
                .into()
        } else {
            "".into()
        }
    }

    fn has_keys(&self) -> bool {
        self.users.values().any(|user| user.proof == Proof::Signature)
    }

    /// Returns the user as which a client without credentials is admitted.
    #[must_use]
    pub fn anonymous(&self) -> Option<&Arc<User>> {
        self.users.get(self.no_auth_user.as_ref()?)
    }

    /// Returns whether the client that sent this CONNECT is admitted. `nonce` is the one in its INFO, `names` are those of its certificate.
    #[must_use]
    pub fn admit(&self, connect: &Connect, nonce: &str, names: Option<&CertificateNames>) -> Admission {
        if !self.has_users() {
            return Admission::Admitted(None);
        }
        if self.by_certificate {
            let user = names.and_then(|names| names.find(&self.users));
            // As in nats-server, a user that has a password must give it too.
            return user.map_or(Admission::Refused, |user| user.admit(connect.pass.as_deref()));
        }
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        // As in nats-server, a key of a client is ignored if no user has one.
        if let Some(key) = given(&connect.nkey).filter(|_| self.has_keys()) {
            let user = self.users.get(&key).filter(|user| user.proof == Proof::Signature);
            let signed = user.filter(|_| is_signed(connect, &key, nonce));
            return signed.map_or(Admission::Refused, admitted);
        }
        // As in nats-server, a client may send more than is asked for.
        let name = given(&connect.user).filter(|_| !self.users.contains_key(""));
        let (name, text) = match (name, given(&connect.auth_token)) {
            (Some(name), _) => (name, connect.pass.clone()),
            (None, Some(token)) => (String::new(), Some(token)),
            (None, None) if given(&connect.pass).is_none() => {
                let others = if self.admits_others {
                    Admission::Admitted(None)
                } else {
                    Admission::Refused
                };
                return self.anonymous().map_or(others, admitted);
            }
            (None, None) => return Admission::Refused,
        };
        let Some(user) = self.users.get(&name) else {
            return Admission::Refused;
        };
        user.admit(text.as_deref())
    }

    /// Returns the user of these settings that the client which logged in as `user` still is; `None` if it must log in again.
    #[must_use]
    pub fn still(&self, user: &User) -> Option<&Arc<User>> {
        let now = self.users.get(&user.name)?;
        (now.proof == user.proof && now.account == user.account).then_some(now)
    }
}

#[cfg(test)]
impl Access {
    /// Returns the access of users with these passwords.
    pub(crate) fn of_passwords<'a>(users: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self::of(
            users
                .into_iter()
                .map(|(name, password)| (name, Proof::Password(Password::from(password)))),
        )
    }

    /// Returns the access of the owner of a token.
    pub(crate) fn of_token(token: &str) -> Self {
        Self::of([("", Proof::Token(Password::from(token)))])
    }

    fn of<'a>(users: impl IntoIterator<Item = (&'a str, Proof)>) -> Self {
        let user = |(name, proof): (&str, Proof)| {
            let name = name.to_owned();
            let user = User {
                name: name.clone(),
                proof,
                account: String::new(),
                permissions: None,
            };
            (name, Arc::new(user))
        };
        Self {
            users: users.into_iter().map(user).collect(),
            ..Self::default()
        }
    }
}

fn admitted(user: &Arc<User>) -> Admission {
    Admission::Admitted(Some(Arc::clone(user)))
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

    fn admits(access: &Access, connect: &Connect, nonce: &str) -> bool {
        matches!(access.admit(connect, nonce, None), Admission::Admitted(_))
    }

    #[test]
    fn only_a_client_with_the_right_credentials_is_admitted() {
        let no_password = Access::of_passwords([("a", "")]);
        let users = Access::of_passwords([("a", "b"), ("c", "d")]);
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
            let admits = admits(access, &connect(user, pass, None), "");
            assert_eq!(admits, admitted, "{access:?} {user:?} {pass:?}");
        }
        let token = Access::of_token("t");
        assert!(admits(&token, &connect(None, None, Some("t")), ""));
        assert!(!admits(&token, &connect(None, None, Some("tt")), ""));
        assert!(!admits(&token, &connect(Some("t"), None, None), ""));
        assert!(admits(&token, &connect(Some("u"), Some("p"), Some("t")), ""));
        assert!(admits(&Access::default(), &connect(None, None, None), ""));
        assert!(!Access::default().is_required() && token.is_required());
    }

    #[test]
    fn a_hash_is_checked_once_for_the_same_password() {
        let hash = bcrypt::hash("right", 4).unwrap();
        let access = Access::of_passwords([("a", hash.as_str())]);
        let connect = |pass| connect(Some("a"), Some(pass), None);
        for (pass, is_right) in [("wrong", false), (&*hash, false), ("right", true)] {
            let Admission::Hashed(user, given) = access.admit(&connect(pass), "", None) else {
                panic!("{pass} was not left to the check of the hash");
            };
            assert_eq!(user.name, "a");
            assert_eq!(user.check_hash(&given), is_right, "{pass}");
        }
        assert!(admits(&access, &connect("right"), ""));
        assert!(matches!(
            access.admit(&connect("wrong"), "", None),
            Admission::Hashed(..)
        ));
    }

    #[test]
    fn a_client_without_credentials_is_the_no_auth_user() {
        let mut access = Access::of_passwords([("a", "b")]);
        access.no_auth_user = Some("a".to_owned());
        assert!(access.has_users() && !access.is_required());
        assert!(admits(&access, &connect(None, None, None), ""));
        assert!(!admits(&access, &connect(None, Some("x"), None), ""));
        assert!(!admits(&access, &connect(Some("a"), None, None), ""));
    }

    #[test]
    fn a_reload_keeps_a_client_whose_proof_and_account_are_unchanged() {
        let before = Access::of_passwords([("a", "b")]);
        let user = &before.users["a"];
        assert!(Access::of_passwords([("a", "b")]).still(user).is_some());
        assert!(Access::of_passwords([("a", "c")]).still(user).is_none());
        assert!(Access::of_passwords([("c", "b")]).still(user).is_none());
    }

    #[test]
    fn a_user_with_a_key_must_have_signed_the_nonce_of_this_connection() {
        let (key, other) = (KeyPair::new_user(), KeyPair::new_user());
        let access = Access::of([(key.public_key().as_str(), Proof::Signature)]);
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
            assert_eq!(admits(&access, &connect, &nonce), admitted, "{case}");
            assert!(!admits(&access, &connect, ""), "{case}");
        }
    }
}
