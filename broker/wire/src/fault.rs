//! What a client did wrong that a server tells it in an `-ERR`, in the words of `nats-server`.

/// Defines the faults and their list together, so that none can be left out of the list.
macro_rules! client_faults {
    ($($(#[$doc:meta])* $name:ident: $text:literal,)*) => {
        /// A fault of a client's own: it would be the same with any server. The sidecar says no `-ERR` of its own but these
        /// (promise S9): many client libraries close for good at an `-ERR`, and connect again after a close without one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ClientFault {
            $($(#[$doc])* $name,)*
        }

        impl ClientFault {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The text of the `-ERR`, without its quotes.
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
    /// Bytes that are no frame. The connection ends.
    UnknownOperation: "Unknown Protocol Operation",
    /// A control line over the limit. The connection ends.
    ControlLineTooLong: "maximum control line exceeded",
    /// A payload over the limit. The connection ends.
    PayloadTooLarge: "Maximum Payload Violation",
    /// A subscription over the limit. It is left out, and the connection goes on.
    TooManySubscriptions: "maximum subscriptions exceeded",
}
