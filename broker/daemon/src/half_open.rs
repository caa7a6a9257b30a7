//! Half-open connections: accepted, and not logged in yet. Their number is bounded; the oldest is evicted. A good peer logs in within
//! milliseconds, so it does although many other connections are open that never log in.

use std::collections::BTreeMap;

/// Half-open connections. `H` is what the owner needs to close one.
#[derive(Debug)]
pub struct HalfOpen<H> {
    /// By number, so the oldest comes first.
    by_number: BTreeMap<u64, H>,
}

impl<H> Default for HalfOpen<H> {
    fn default() -> Self {
        Self {
            by_number: BTreeMap::new(),
        }
    }
}

impl<H> HalfOpen<H> {
    /// Adds connection `number`; later connections have higher numbers. If there are more than `max` then, removes and returns the
    /// oldest, which the caller closes.
    pub fn add(&mut self, number: u64, connection: H, max: usize) -> Option<H> {
        self.by_number.insert(number, connection);
        (self.by_number.len() > max).then(|| self.pop_oldest()).flatten()
    }

    /// Removes and returns the oldest connection.
    pub fn pop_oldest(&mut self) -> Option<H> {
        self.pop_among_oldest(1, |_| 0)
    }

    /// Removes and returns one of the `count` oldest connections: the one with the highest `score`, of several the oldest.
    pub fn pop_among_oldest(&mut self, count: usize, score: impl Fn(&H) -> usize) -> Option<H> {
        let oldest = self.by_number.iter().take(count).rev();
        let chosen = oldest.max_by_key(|(_, connection)| score(connection));
        let number = *chosen?.0;
        self.by_number.remove(&number)
    }

    /// Removes connection `number`, which has logged in or ended.
    pub fn remove(&mut self, number: u64) -> Option<H> {
        self.by_number.remove(&number)
    }

    /// Returns connection `number`; `None` if it was removed.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut H> {
        self.by_number.get_mut(&number)
    }

    /// Removes all connections for which `keep` returns `false`.
    pub fn retain(&mut self, mut keep: impl FnMut(&H) -> bool) {
        self.by_number.retain(|_, connection| keep(connection));
    }

    /// Returns the number of connections.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_number.len()
    }

    /// Returns whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }
}
