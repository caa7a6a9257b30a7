//! Faults of a client that a server reports with `-ERR`, in the words of `nats-server`.

/// Defines the faults together with the list of all, so that the list is complete.
macro_rules! client_faults {
    ($($(#[$doc:meta])* $name:ident: $text:literal,)*) => {
        /// Fault of a client, which any server would report. The sidecar itself sends no other `-ERR` (promise S9), because many
        /// client libraries never reconnect after an `-ERR`, but do reconnect after a close without one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum ClientFault {
            $($(#[$doc])* $name,)*
        }

        impl ClientFault {
            /// All faults.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Returns the text of the `-ERR`, without quotes.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

client_faults! {
    /// Bytes that are not a valid frame. The connection ends.
    UnknownOperation: "Unknown Protocol Operation",
    /// A control line above the limit. The connection ends.
    ControlLineTooLong: "maximum control line exceeded",
    /// A payload above the limit. The connection ends.
    PayloadTooLarge: "Maximum Payload Violation",
    /// A subscription above the limit. It is ignored, and the connection continues.
    TooManySubscriptions: "maximum subscriptions exceeded",
}
