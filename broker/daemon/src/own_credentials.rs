//! Credentials that the program itself shows to nodes: the sidecar for components that have none or the wrong ones (`[credentials]` of its
//! settings), `standin-broker announce` for its own checks.
//!
//! Promise S11: the nonce of each node is signed anew, so that a session with a key of the sidecar can move to other nodes.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::settings::{Secret, SettingsError, secret_file};
use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `[credentials]`. `deploy/proxy.toml` describes the keys.
#[expect(missing_docs, reason = "deploy/proxy.toml describes the keys")]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CredentialsSection {
    pub replace: bool,
    pub user: String,
    pub password: Secret,
    pub password_file: PathBuf,
    pub token: Secret,
    pub token_file: PathBuf,
    pub nkey_seed_file: PathBuf,
    pub creds_file: PathBuf,
}

/// The credential fields of CONNECT. Those of the component are removed before the sidecar's are set.
const FIELDS: [&str; 6] = ["user", "pass", "auth_token", "jwt", "nkey", "sig"];

/// Credentials that the program shows to nodes. `Debug` hides the secrets.
#[derive(Clone)]
pub struct OwnCredentials {
    /// Whether they replace the credentials that a component sends.
    pub replace: bool,
    fields: Vec<(&'static str, String)>,
    /// Signs the nonce of each node.
    key: Option<std::sync::Arc<KeyPair>>,
}

impl fmt::Debug for OwnCredentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("OwnCredentials").finish_non_exhaustive()
    }
}

impl OwnCredentials {
    /// Reads the credentials of the settings and of the files that they name. `None`: the settings have none.
    ///
    /// # Errors
    /// [`SettingsError`], which names the file or the key.
    pub fn read(section: &CredentialsSection) -> Result<Option<Self>, SettingsError> {
        let password = text_of("password", section.password.reveal(), &section.password_file)?;
        let token = text_of("token", section.token.reveal(), &section.token_file)?;
        let seed = file(&section.nkey_seed_file)?;
        let creds = file(&section.creds_file)?;
        let given = [
            !section.user.is_empty(),
            token.is_some(),
            seed.is_some(),
            creds.is_some(),
        ];
        if given.iter().filter(|given| **given).count() > 1 {
            return Err(refused(
                "user, token, nkey_seed_file and creds_file exclude each other: keep one",
            ));
        }
        if section.user.is_empty() && password.is_some() {
            return Err(refused("password has no user: set user"));
        }
        let (fields, seed) = if let Some(token) = token {
            (vec![("auth_token", token)], None)
        } else if let Some(creds) = creds {
            let part = |name| part(&creds, name).ok_or_else(|| missing(&section.creds_file, name));
            (vec![("jwt", part("USER JWT")?)], Some(part("USER NKEY SEED")?))
        } else if let Some(seed) = seed {
            (Vec::new(), Some(seed))
        } else if section.user.is_empty() {
            return Ok(None);
        } else {
            let password = password.unwrap_or_default();
            (vec![("user", section.user.clone()), ("pass", password)], None)
        };
        Self::with(fields, seed.as_deref(), section.replace).map(Some)
    }

    fn with(
        mut fields: Vec<(&'static str, String)>,
        seed: Option<&str>,
        replace: bool,
    ) -> Result<Self, SettingsError> {
        let key = seed.map(KeyPair::from_seed).transpose();
        let key =
            key.map_err(|_| refused("the nkey seed is not valid: it begins with SU and has 58 characters"))?;
        if let Some(key) = &key {
            fields.push(("nkey", key.public_key()));
        }
        Ok(Self {
            replace,
            fields,
            key: key.map(std::sync::Arc::new),
        })
    }

    /// Returns the credential fields of CONNECT for a node that has sent this nonce.
    #[must_use]
    pub fn fields(&self, nonce: &str) -> Vec<(&'static str, Value)> {
        let mut fields = Vec::new();
        if self.replace {
            fields.extend(FIELDS.map(|name| (name, Value::Null)));
        }
        let own = self
            .fields
            .iter()
            .map(|(name, value)| (*name, Value::from(value.clone())));
        fields.extend(own);
        if let Some(key) = &self.key
            && let Ok(signature) = key.sign(nonce.as_bytes())
        {
            fields.push(("sig", BASE64URL_NOPAD.encode(&signature).into()));
        }
        fields
    }
}

/// Returns the value of a key, or the first line of the file of its other key.
fn text_of(key: &'static str, text: &str, path: &Path) -> Result<Option<String>, SettingsError> {
    let text = (!text.is_empty()).then(|| text.to_owned());
    match (text, file(path)?) {
        (Some(_), Some(_)) => Err(refused(&format!("{key} and {key}_file are both set: keep one"))),
        (text, from_file) => Ok(text.or(from_file)),
    }
}

/// Returns the content of a file without whitespace at its ends; `None` if no file is named.
fn file(path: &Path) -> Result<Option<String>, SettingsError> {
    secret_file("file of [credentials]", "credentials", path)
}

/// Returns a part of a credentials file: the text between the lines `BEGIN … name` and `END … name`.
fn part(text: &str, name: &str) -> Option<String> {
    let is_mark =
        |line: &str, mark: &str| line.starts_with("---") && line.contains(mark) && line.contains(name);
    let mut lines = text
        .lines()
        .map(str::trim)
        .skip_while(|line| !is_mark(line, "BEGIN"))
        .skip(1);
    let inner: String = lines.by_ref().take_while(|line| !is_mark(line, "END")).collect();
    (!inner.is_empty()).then_some(inner)
}

fn missing(path: &Path, name: &str) -> SettingsError {
    refused(&format!(
        "{} has no part \"BEGIN … {name}\": give a NATS credentials file",
        path.display()
    ))
}

fn refused(rule: &str) -> SettingsError {
    SettingsError::Unusable {
        section: "credentials",
        error: rule.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_signs_each_nonce() {
        let key = KeyPair::new_user();
        let own = OwnCredentials::with(Vec::new(), Some(&key.seed().unwrap()), true).unwrap();
        for nonce in ["abc", "def"] {
            let fields = own.fields(nonce);
            let value = |name| {
                fields
                    .iter()
                    .rev()
                    .find(|(field, _)| *field == name)
                    .unwrap()
                    .1
                    .clone()
            };
            assert_eq!(value("nkey"), Value::from(key.public_key()));
            let signature = BASE64URL_NOPAD
                .decode(value("sig").as_str().unwrap().as_bytes())
                .unwrap();
            key.verify(nonce.as_bytes(), &signature).unwrap();
            assert_eq!(value("user"), Value::Null);
        }
    }

    #[test]
    fn the_parts_of_a_credentials_file_are_found() {
        let text = "-----BEGIN NATS USER JWT-----\neyJ0\n------END NATS USER JWT------\n\nNKEYs printed below are secret.\n\n\
                    -----BEGIN USER NKEY SEED-----\nSUAB\n------END USER NKEY SEED------\n";
        assert_eq!(part(text, "USER JWT").as_deref(), Some("eyJ0"));
        assert_eq!(part(text, "USER NKEY SEED").as_deref(), Some("SUAB"));
        assert_eq!(part("", "USER JWT"), None);
    }
}
