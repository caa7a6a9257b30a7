//! Errors in received bytes.

use thiserror::Error;

use crate::ClientFault;

/// Violation of the protocol by a frame. The bytes that follow it cannot be decoded, because the start of the next frame is
/// unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// The line does not begin with a verb that this side (client or server) sends. The value has its first bytes, padded with
    /// zeros. They may be fewer than four, because the error is reported as soon as a wrong byte arrives.
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
    fn each_error_has_its_own_kind_and_the_text_of_nats_server() {
        let unknown = WireError::UnknownVerb;
        let too_long = WireError::LineTooLong { max_bytes: 1 };
        let (verb, expected) = ("PUB", "PUB subject");
        let arguments = WireError::Arguments { verb, expected };
        let (size_bytes, max_bytes) = (11, 10);
        let too_large = WireError::PayloadTooLarge {
            size_bytes,
            max_bytes,
        };
        let end = WireError::PayloadEnd;
        for (error, kind, shown) in [
            (unknown(*b"GET "), "unknown_verb", "unknown verb at `GET `"),
            (
                unknown([22, 3, 1, 0]),
                "unknown_verb",
                r"unknown verb at `\x16\x03\x01`",
            ),
            (unknown([0; 4]), "unknown_verb", "unknown verb at ``"),
            (too_long, "line_too_long", "control line longer than 1 bytes"),
            (
                arguments,
                "arguments",
                "PUB: wrong arguments; expected PUB subject",
            ),
            (
                too_large,
                "payload_too_large",
                "payload of 11 bytes is above the limit of 10",
            ),
            (
                end,
                "payload_end",
                "payload is not followed by \\r\\n: its size on the control line is wrong",
            ),
        ] {
            assert_eq!((error.kind(), &*error.to_string()), (kind, shown));
        }
        for (error, text) in [
            (unknown([0; 4]), "Unknown Protocol Operation"),
            (too_long, "maximum control line exceeded"),
            (arguments, "Unknown Protocol Operation"),
            (too_large, "Maximum Payload Violation"),
            (end, "Unknown Protocol Operation"),
        ] {
            assert_eq!(error.server_text(), text);
        }
    }
}
