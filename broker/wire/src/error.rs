//! What can be wrong with bytes that claim to be a frame.

use thiserror::Error;

/// A frame that breaks the protocol. The bytes before it were whole frames; nothing after it can be trusted, because
/// the place where the next frame starts is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// The line starts with no verb of this direction.
    #[error("unknown verb, first bytes {0:?}")]
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

    /// The text that `nats-server` puts behind `-ERR` for this, without quotes. It closes the connection after each.
    #[must_use]
    pub const fn server_text(&self) -> &'static str {
        match self {
            Self::LineTooLong { .. } => "maximum control line exceeded",
            Self::PayloadTooLarge { .. } => "Maximum Payload Violation",
            Self::UnknownVerb(_) | Self::Arguments { .. } | Self::PayloadEnd => "Unknown Protocol Operation",
        }
    }
}
