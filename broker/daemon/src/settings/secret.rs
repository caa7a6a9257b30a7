//! Texts that may contain a password. They are masked when they are shown, and overwritten when they are dropped.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Place, SettingsError};

/// Replacement of a secret in logs, errors and the output of `--print-config`.
pub const MASK: &str = "***";

/// A text that contains a secret. `Debug` shows only whether it is empty.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Returns the text with its secret.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Returns whether the text is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&masked_whole(&self.0))
    }
}

/// Masks the password in `[nats://][user:password@]host:port`. A user without a password is a token, and is masked too.
#[must_use]
pub fn masked_url(text: &str) -> String {
    let (scheme, rest) = match text.find("://") {
        Some(at) if text.as_bytes()[..at].iter().all(u8::is_ascii_alphanumeric) => text.split_at(at + 3),
        // If anything else is before "://", it may contain a password.
        _ => ("", text),
    };
    match rest.rsplit_once('@') {
        Some((credentials, host)) => format!("{scheme}{}@{host}", masked_pair(credentials)),
        None => text.to_owned(),
    }
}

/// Masks the password in `user:password`.
#[must_use]
pub fn masked_pair(text: &str) -> String {
    match text.split_once(':') {
        Some((user, _)) => format!("{user}:{MASK}"),
        None if text.is_empty() => String::new(),
        None => MASK.to_owned(),
    }
}

/// Masks a text that is a secret as a whole.
#[must_use]
pub fn masked_whole(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        MASK.to_owned()
    }
}

/// Removes the value from the message of a parser about a value of a wrong type, because it may be a secret.
#[must_use]
pub fn without_value(message: &str) -> String {
    let kinds = ["invalid type", "invalid value"];
    let kind = kinds.into_iter().find(|kind| message.starts_with(kind));
    match (kind, message.rsplit_once(", expected ")) {
        (Some(kind), Some((_, wanted))) => format!("{kind}, expected {wanted}"),
        _ => message.to_owned(),
    }
}

/// Returns the error for a value that contains [`MASK`] instead of a secret, because it was copied from the output of `--print-config`.
#[must_use]
pub fn mask_given(key: &str, place: &Place) -> SettingsError {
    SettingsError::Conflict {
        place: place.clone(),
        rule: format!(
            "{key} holds the `{MASK}` that --print-config shows for a secret; put the secret itself there"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_and_tokens_are_masked() {
        for (text, shown) in [
            (
                "nats://deploy:hunter2@10.0.0.1:4222",
                "nats://deploy:***@10.0.0.1:4222",
            ),
            ("nats://t0ken@10.0.0.1", "nats://***@10.0.0.1"),
            ("deploy:p@ss@h:1", "deploy:***@h:1"),
            ("deploy:hunter2://x@h:1", "deploy:***@h:1"),
            ("10.0.0.1:4222", "10.0.0.1:4222"),
            ("", ""),
        ] {
            assert_eq!(masked_url(text), shown);
        }
        for (text, shown) in [("zk:hunter2@x", "zk:***"), ("hunter2", "***"), ("", "")] {
            assert_eq!(masked_pair(text), shown);
        }
        assert_eq!(format!("{:?}", Secret::from("u:hunter2")), "***");
    }
}
