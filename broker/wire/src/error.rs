//! Errors in received bytes.

use thiserror::Error;

use crate::ClientFault;

/// Violation of the protocol by a frame. The bytes that follow it cannot be decoded, because the start of the next frame is
/// unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// The line does not begin with a verb of this side. The value has the first bytes that were received, followed by zeros.
    /// The error is reported at the first wrong byte, so these bytes depend on how many had arrived.
    #[error("unknown verb at `{}`", shown(.0))]
    UnknownVerb([u8; 4]),
    /// The control line has no line end within the limit.
    #[error("control line longer than {max_bytes} bytes")]
    LineTooLong {
        /// The limit, in bytes.
        max_bytes: usize,
    },
    /// There are too few or too many arguments, or a size is not a number of at most nine digits.
    #[error("{verb}: wrong arguments; expected {expected}")]
    Arguments {
        /// Verb of the frame.
        verb: &'static str,
        /// The valid form.
        expected: &'static str,
    },
    /// The payload is above the limit. This is known before the payload arrives.
    #[error("payload of {size_bytes} bytes is above the limit of {max_bytes}")]
    PayloadTooLarge {
        /// Size of the payload according to the control line, in bytes.
        size_bytes: usize,
        /// The limit, in bytes.
        max_bytes: usize,
    },
    /// The payload is not followed by `\r\n`.
    #[error("payload is not followed by \\r\\n: its size on the control line is wrong")]
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
    /// Returns the stable name of the error, for logs and metric labels.
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

    /// Returns the fault that a server reports to the client that sent the frame. `nats-server` closes the connection after
    /// each error. After wrong arguments it sends no `-ERR`; here the client always gets one.
    #[must_use]
    pub const fn fault(&self) -> ClientFault {
        match self {
            Self::LineTooLong { .. } => ClientFault::ControlLineTooLong,
            Self::PayloadTooLarge { .. } => ClientFault::PayloadTooLarge,
            Self::UnknownVerb(_) | Self::Arguments { .. } | Self::PayloadEnd => ClientFault::UnknownOperation,
        }
    }

    /// Returns the text of the `-ERR` for the error, without quotes.
    #[must_use]
    pub const fn server_text(&self) -> &'static str {
        self.fault().text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_the_received_bytes_escaped() {
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
            "payload of 11 bytes is above the limit of 10"
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
