//! The bytes that one worker has for one client out of one turn.

use bytes::Bytes;

/// Bytes for one client.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    /// Everything but the shared payloads.
    pub(crate) bytes: Vec<u8>,
    /// Payloads that several clients get, each with the length of `bytes` that comes before it.
    shared: Vec<(usize, Bytes)>,
    shared_bytes: usize,
    /// Messages, and bytes of their payloads and headers.
    pub(crate) messages: u64,
    pub(crate) payload_bytes: u64,
}

impl Staged {
    /// All bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() + self.shared_bytes
    }

    pub(crate) fn has_shared(&self) -> bool {
        !self.shared.is_empty()
    }

    /// A payload that is not copied.
    pub(crate) fn share(&mut self, payload: Bytes) {
        self.shared_bytes += payload.len();
        self.shared.push((self.bytes.len(), payload));
    }

    /// All bytes in their order.
    pub(crate) fn parts<'a>(&'a self, mut each: impl FnMut(&'a [u8], Option<&'a Bytes>)) {
        let mut at = 0;
        for (before, shared) in &self.shared {
            each(&self.bytes[at..*before], None);
            each(shared, Some(shared));
            at = *before;
        }
        each(&self.bytes[at..], None);
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.shared.clear();
        self.shared_bytes = 0;
        self.messages = 0;
        self.payload_bytes = 0;
    }
}
