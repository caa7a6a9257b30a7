//! What can be wrong with bytes that claim to be a frame.

use thiserror::Error;

use crate::ClientFault;

/// A frame that breaks the protocol. The bytes before it were whole frames; nothing after it can be trusted, because
/// the place where the next frame starts is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// The line starts with no verb of this direction. Its first bytes, as far as they had come; zeros behind. Known at
    /// the first wrong byte, so these bytes (and nothing else) depend on how the stream was cut.
    #[error("unknown verb at `{}`", shown(.0))]
    UnknownVerb([u8; 4]),
    /// No line end within the limit.
    #[error("control line longer than {max_bytes} bytes")]
    LineTooLong {
        /// The limit, in bytes.
        max_bytes: usize,
    },
    /// Arguments missing, too many, or a size that is not a number of at most nine digits.
    #[error("{verb}: wrong arguments; expected {expected}")]
    Arguments {
        /// The verb they belong to.
        verb: &'static str,
        /// The shape that is right.
        expected: &'static str,
    },
    /// The announced payload is over the limit. Known before the payload arrives.
    #[error("payload of {size_bytes} bytes is over the limit of {max_bytes}")]
    PayloadTooLarge {
        /// What the line announces, in bytes.
        size_bytes: usize,
        /// The limit, in bytes.
        max_bytes: usize,
    },
    /// The bytes after the payload are not `\r\n`.
    #[error("payload is not followed by \\r\\n: the announced size is wrong")]
    PayloadEnd,
}

fn shown(first: &[u8; 4]) -> impl std::fmt::Display + '_ {
    let end = first
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    first[..end].escape_ascii()
}

impl WireError {
    /// Stable name, for logs and metric labels.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::UnknownVerb(_) => "unknown_verb",
            Self::LineTooLong { .. } => "line_too_long",
            Self::Arguments { .. } => "arguments",
            Self::PayloadTooLarge { .. } => "payload_too_large",
            Self::PayloadEnd => "payload_end",
        }
    }

    /// What a client that sent this is told. `nats-server` closes the connection after each; after wrong arguments it does so
    /// without a word, which helps nobody.
    #[must_use]
    pub const fn fault(&self) -> ClientFault {
        match self {
            Self::LineTooLong { .. } => ClientFault::ControlLineTooLong,
            Self::PayloadTooLarge { .. } => ClientFault::PayloadTooLarge,
            Self::UnknownVerb(_) | Self::Arguments { .. } | Self::PayloadEnd => ClientFault::UnknownOperation,
        }
    }

    /// The text of the `-ERR` for this, without quotes.
    #[must_use]
    pub const fn server_text(&self) -> &'static str {
        self.fault().text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_what_came_in_readable_form() {
        assert_eq!(
            WireError::UnknownVerb(*b"GET ").to_string(),
            "unknown verb at `GET `"
        );
        assert_eq!(
            WireError::UnknownVerb([0x16, 3, 1, 0]).to_string(),
            "unknown verb at `\\x16\\x03\\x01`"
        );
        assert_eq!(WireError::UnknownVerb([0; 4]).to_string(), "unknown verb at ``");
        assert_eq!(
            WireError::PayloadTooLarge {
                size_bytes: 11,
                max_bytes: 10
            }
            .to_string(),
            "payload of 11 bytes is over the limit of 10"
        );
    }

    #[test]
    fn each_error_has_its_own_kind_and_the_text_of_nats_server() {
        let errors = [
            (
                WireError::UnknownVerb([0; 4]),
                "unknown_verb",
                "Unknown Protocol Operation",
            ),
            (
                WireError::LineTooLong { max_bytes: 1 },
                "line_too_long",
                "maximum control line exceeded",
            ),
            (
                WireError::Arguments {
                    verb: "PUB",
                    expected: "",
                },
                "arguments",
                "Unknown Protocol Operation",
            ),
            (
                WireError::PayloadTooLarge {
                    size_bytes: 2,
                    max_bytes: 1,
                },
                "payload_too_large",
                "Maximum Payload Violation",
            ),
            (WireError::PayloadEnd, "payload_end", "Unknown Protocol Operation"),
        ];
        for (error, kind, text) in errors {
            assert_eq!((error.kind(), error.server_text()), (kind, text));
        }
    }
}
