//! The texts that the sidecar may send a component in an `-ERR`, and their only encoder.
//!
//! Promise S9: the sidecar itself sends an `-ERR` only for an error of the component, because many client libraries close
//! for good after an `-ERR` that they do not know.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use standin_wire::{ClientFault, encode};

/// Text of an `-ERR` that the sidecar itself sends to a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ErrorText<'a> {
    /// An error of the component.
    Fault(ClientFault),
    /// The component used a subject that the permissions of its listener forbid. The text is that of `nats-server`, after which
    /// client libraries keep the connection.
    Violation(Box<str>),
    /// The text of a node's `-ERR` that refused the component's credentials. It is sent only after every known node has
    /// refused them.
    OfNode(Cow<'a, str>),
}

impl ErrorText<'_> {
    /// Returns the text without its quotes.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Fault(fault) => fault.text(),
            Self::Violation(text) => text,
            Self::OfNode(text) => text,
        }
    }

    /// Appends the `-ERR` to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        encode::err(self.as_str().as_bytes(), out);
    }
}
