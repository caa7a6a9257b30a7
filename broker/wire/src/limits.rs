//! The limits of the protocol. The name of each contains its unit.

use serde::{Deserialize, Serialize};

/// Longest arguments of a control line that a client may send, in bytes (`max_control_line` of `nats-server`). The verb, one
/// blank and the line end are not counted, as in `nats-server`.
pub const CONTROL_LINE_BYTES_MAX: usize = 4096;

/// Longest arguments of a control line that is accepted from a server, in bytes. It is larger than [`CONTROL_LINE_BYTES_MAX`],
/// because the INFO of a large cluster contains the address of every node.
pub const SERVER_LINE_BYTES_MAX: usize = 64 * 1024;

/// Default payload limit of a server, in bytes (`max_payload` of `nats-server`).
pub const PAYLOAD_BYTES_DEFAULT: usize = 1024 * 1024;

/// Largest `max_payload` that can be configured in a server, in bytes. A larger payload is accepted from neither side.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Maximum number of digits in a size, as in `nats-server`.
pub const SIZE_DIGITS_MAX: usize = 9;

/// Longest INFO line that every old client library accepts, in bytes, including `INFO ` and the line end. npm `nats` 0.4 hangs
/// if its first read returns 512 bytes.
pub const INFO_LINE_BYTES_MAX: usize = 511;

/// The limits that a [`Scanner`](crate::Scanner) enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameLimits {
    /// Longest arguments of a control line, in bytes, without the verb, one blank and the line end.
    pub line_bytes_max: usize,
    /// Largest payload, in bytes. Headers are counted.
    pub payload_bytes_max: usize,
}

impl FrameLimits {
    /// Default limits for the frames of a client.
    pub const CLIENT: Self = Self {
        line_bytes_max: CONTROL_LINE_BYTES_MAX,
        payload_bytes_max: PAYLOAD_BYTES_DEFAULT,
    };
    /// Limits for the frames of a server.
    pub const SERVER: Self = Self {
        line_bytes_max: SERVER_LINE_BYTES_MAX,
        payload_bytes_max: PAYLOAD_BYTES_MAX,
    };
}
