//! Every limit of the protocol in one place, with its unit in its name.

/// Longest arguments of a control line that a client may send, in bytes (`max_control_line` of `nats-server`). As there,
/// the verb, the blank behind it and the line end are not counted.
pub const CONTROL_LINE_BYTES_MAX: usize = 4096;

/// Longest arguments of a control line taken from a server, in bytes. INFO of a large cluster names every node,
/// so it is far more than [`CONTROL_LINE_BYTES_MAX`].
pub const SERVER_LINE_BYTES_MAX: usize = 64 * 1024;

/// Payload limit that a server has when it names none, in bytes (`max_payload` of `nats-server`).
pub const PAYLOAD_BYTES_DEFAULT: usize = 1024 * 1024;

/// The largest `max_payload` that a server can be set to, in bytes; nothing larger is taken from either side.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Most digits of a size, as in `nats-server`: one more is an error, not an overflow.
pub const SIZE_DIGITS_MAX: usize = 9;

/// Longest INFO line that every old client library takes, in bytes with `INFO ` and line end: npm `nats` 0.4 hangs on
/// a first read of 512 bytes.
pub const INFO_LINE_BYTES_MAX: usize = 511;

/// The limits a [`Scanner`](crate::Scanner) keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameLimits {
    /// Longest arguments of a control line, in bytes: what stands behind the verb and one blank, without the line end.
    pub line_bytes_max: usize,
    /// Largest payload, in bytes; for HPUB and HMSG the headers count.
    pub payload_bytes_max: usize,
}

impl FrameLimits {
    /// What a server takes from a client by default.
    pub const CLIENT: Self = Self {
        line_bytes_max: CONTROL_LINE_BYTES_MAX,
        payload_bytes_max: PAYLOAD_BYTES_DEFAULT,
    };
    /// What a client takes from a server.
    pub const SERVER: Self = Self {
        line_bytes_max: SERVER_LINE_BYTES_MAX,
        payload_bytes_max: PAYLOAD_BYTES_MAX,
    };
}
