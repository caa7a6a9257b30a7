//! The bytes that one worker has staged for one client or route in one turn.

use bytes::Bytes;

#[derive(Debug, Default)]
pub(crate) struct Staged {
    /// All bytes except the shared payloads.
    pub(crate) bytes: Vec<u8>,
    /// Payloads shared with other clients, each with its position: the length of `bytes` before it.
    shared: Vec<(usize, Bytes)>,
    shared_bytes: usize,
    pub(crate) messages: u64,
    pub(crate) payload_bytes: u64,
}

impl Staged {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() + self.shared_bytes
    }

    pub(crate) fn has_shared(&self) -> bool {
        !self.shared.is_empty()
    }

    /// Appends a shared payload, without a copy.
    pub(crate) fn share(&mut self, payload: Bytes) {
        self.shared_bytes += payload.len();
        self.shared.push((self.bytes.len(), payload));
    }

    /// Calls `each` for all parts in order, with the shared payload if the part is one.
    pub(crate) fn parts<'a>(&'a self, mut each: impl FnMut(&'a [u8], Option<&'a Bytes>)) {
        let mut at = 0;
        for (before, shared) in &self.shared {
            each(&self.bytes[at..*before], None);
            each(shared, Some(shared));
            at = *before;
        }
        each(&self.bytes[at..], None);
    }

    /// Like [`parts`](Self::parts), without the first `skip` bytes. `each` also gets the number of bytes that are left out of its part.
    pub(crate) fn parts_after<'a>(
        &'a self,
        mut skip: usize,
        mut each: impl FnMut(&'a [u8], Option<&'a Bytes>, usize),
    ) {
        self.parts(|part, shared| {
            let skipped = skip.min(part.len());
            skip -= skipped;
            if skipped < part.len() {
                each(&part[skipped..], shared, skipped);
            }
        });
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.shared.clear();
        self.shared_bytes = 0;
        self.messages = 0;
        self.payload_bytes = 0;
    }
}
