//! Texts that may hold a password: they work as they are, and are shown masked.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What stands in the place of a secret, in logs, errors and `--print-config`.
pub(super) const MASK: &str = "***";

macro_rules! secret {
    ($name:ident, $what:literal, $mask:path) => {
        #[doc = $what]
        #[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The text itself, for the one place that uses it.
            #[must_use]
            pub fn reveal(&self) -> &str {
                &self.0
            }

            /// Whether there is no text at all.
            #[must_use]
            pub const fn is_empty(&self) -> bool {
                self.0.is_empty()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&$mask(&self.0), formatter)
            }
        }
    };
}

secret!(
    NodeUrl,
    "A node's address, perhaps with `user:password@` or `token@` in it.",
    masked_url
);
secret!(UserPassword, "A `user:password`.", masked_pair);

/// `[nats://][user:password@]host:port` with the password masked; a lone user is a token and is masked as well.
pub(super) fn masked_url(text: &str) -> String {
    let (scheme, rest) = match text.find("://") {
        Some(at) => text.split_at(at + 3),
        None => ("", text),
    };
    match rest.rsplit_once('@') {
        Some((credentials, host)) => format!("{scheme}{}@{host}", masked_pair(credentials)),
        None => text.to_owned(),
    }
}

/// `user:password` with the password masked.
pub(super) fn masked_pair(text: &str) -> String {
    match text.split_once(':') {
        Some((user, _)) => format!("{user}:{MASK}"),
        None if text.is_empty() => String::new(),
        None => MASK.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_or_token_is_shown() {
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
            assert_eq!(format!("{:?}", NodeUrl(text.to_owned())), format!("{shown:?}"));
        }
        for (text, shown) in [("zk:hunter2@x", "zk:***"), ("hunter2", "***"), ("", "")] {
            assert_eq!(
                format!("{:?}", UserPassword(text.to_owned())),
                format!("{shown:?}")
            );
        }
    }
}
