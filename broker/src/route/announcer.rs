//! Announces the interest of local clients to the other nodes: the complete interest when a route is established, and each change after
//! that.
//!
//! The table of subscriptions keeps the changes in order until they are announced. One thread at a time, under a lock, takes them,
//! encodes them once and appends them to each route. So every route gets all changes in order. When [`Announcer::announce`] returns, all
//! changes made before the call are on every route, even if another thread has taken them.
//!
//! A new route gets the complete interest in pieces. Each piece is appended before the changes that were made after it was read, so a
//! piece never undoes a change.

use standin_wire::Rules;

use super::Route;
use super::frame;
use super::routes::Routes;
use crate::account;
use crate::subscriptions::{Change, Cursor, Subscriptions};

/// The buffers of an announcement, kept for the next one.
#[derive(Debug, Default)]
pub(crate) struct Announcer {
    changes: Vec<Change>,
    bytes: Vec<u8>,
    /// The subscriptions that are announced.
    announced: Rules,
}

impl Announcer {
    /// Creates the announcer of subscriptions that `announced` allows.
    pub(crate) fn new(announced: Rules) -> Self {
        Self {
            announced,
            ..Self::default()
        }
    }

    /// Appends the pending changes of `table` to each route. The caller must make the routes send them.
    pub(crate) fn announce(&mut self, table: &Subscriptions, routes: &Routes) {
        table.take_changes(&mut self.changes);
        if self.changes.is_empty() {
            return;
        }
        self.bytes.clear();
        for change in self.changes.drain(..) {
            put(&mut self.bytes, &change, &self.announced);
        }
        for route in routes.load().iter() {
            route.outbox.append(&self.bytes);
        }
    }

    /// Appends the next piece of the complete interest to a new route. The last piece is followed by SYNCED, and by a PING with the number
    /// of the last change. Returns whether this was the last piece.
    pub(crate) fn announce_piece(
        &mut self,
        cursor: &mut Cursor,
        route: &Route,
        table: &Subscriptions,
        routes: &Routes,
    ) -> bool {
        let mut bytes = Vec::new();
        let last_change = table.next_piece(cursor, |change| put(&mut bytes, &change, &self.announced));
        route.outbox.append(&bytes);
        // All changes up to the last one must be on the route before the PING that asks for their ack.
        self.announce(table, routes);
        let Some(change) = last_change else { return false };
        bytes = frame::bare(frame::SYNCED);
        // From here on the peer can be asked for acks.
        route.set_snapshot_sent();
        frame::put_token(&mut bytes, frame::PING, change);
        route.outbox.append(&bytes);
        true
    }
}

fn put(out: &mut Vec<u8>, change: &Change, announced: &Rules) {
    let (_, subject) = account::split(change.subject());
    if !announced.allow_all() && !announced.allows_subscription(subject, None) {
        return;
    }
    frame::put_interest(out, change.subject(), change.queue(), change.members());
}
