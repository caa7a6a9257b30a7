//! Texts that may contain a password. They are masked when they are shown.

use std::fmt;
use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

use super::{Place, SettingsError};

/// Replacement of a secret in logs, errors and the output of `--print-config`.
pub const MASK: &str = "***";

/// Form of a text with a secret.
pub trait Mask {
    /// Returns `text` with its secret masked.
    fn mask(text: &str) -> String;
}

/// An address that may contain `user:password@` or `token@`.
#[derive(Clone, PartialEq, Eq)]
pub struct Url;

/// `user:password`.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair;

/// A password or a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Whole;

impl Mask for Url {
    fn mask(text: &str) -> String {
        masked_url(text)
    }
}

impl Mask for Pair {
    fn mask(text: &str) -> String {
        masked_pair(text)
    }
}

impl Mask for Whole {
    fn mask(text: &str) -> String {
        masked_whole(text)
    }
}

/// A text of the settings that is masked when it is shown. The type `M` is its form.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret<M> {
    text: String,
    #[serde(skip)]
    mask: PhantomData<M>,
}

impl<M> Secret<M> {
    /// Returns the text with its secret.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// Returns whether the text is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

impl<M> From<&str> for Secret<M> {
    fn from(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            mask: PhantomData,
        }
    }
}

impl<M: Mask> fmt::Debug for Secret<M> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&M::mask(&self.text), formatter)
    }
}

/// Masks the password in `[nats://][user:password@]host:port`. A user without a password is a token, and is masked too.
#[must_use]
pub fn masked_url(text: &str) -> String {
    let (scheme, rest) = match text.find("://") {
        Some(at) => text.split_at(at + 3),
        None => ("", text),
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

/// Returns the error for a value that is a mask. It was copied from the output of `--print-config`.
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
            ("10.0.0.1:4222", "10.0.0.1:4222"),
            ("", ""),
        ] {
            assert_eq!(masked_url(text), shown);
            assert_eq!(format!("{:?}", Secret::<Url>::from(text)), format!("{shown:?}"));
        }
        for (text, shown) in [("zk:hunter2@x", "zk:***"), ("hunter2", "***"), ("", "")] {
            assert_eq!(format!("{:?}", Secret::<Pair>::from(text)), format!("{shown:?}"));
        }
    }
}
