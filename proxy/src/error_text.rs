//! What the sidecar may tell a component in an `-ERR` (promise S9), and the only place that makes the bytes of one.

use standin_wire::{ClientFault, encode};

/// The text of an `-ERR` that a component is sent by the sidecar and not as a node's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorText<'a> {
    /// The component did wrong.
    Fault(ClientFault),
    /// What a node said, kept until it was known that it is about the component.
    OfNode(&'a str),
}

impl ErrorText<'_> {
    /// The text, without its quotes.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Fault(fault) => fault.text(),
            Self::OfNode(text) => text,
        }
    }

    /// Appends the `-ERR`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        encode::err(self.as_str().as_bytes(), out);
    }
}
