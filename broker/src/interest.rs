//! Who wants what: clients here, and other nodes. From a subject to all who get its messages.
//!
//! What other nodes want stands in a table of the same kind as what clients here want: a subscription there is a link's, for one
//! subject (and queue group) of all clients of that node together.

use std::sync::Arc;

use crate::generations::Generations;
use crate::name_index::NameIndex;
use crate::outbox::Outbox;
use crate::route::announcer::Announcer;
use crate::route::link::Link;
use crate::route::links::Links;
use crate::subscription::Subscription;
use crate::subscriptions::{Cursor, Matched, Recorded, Subscriptions};

/// Whose messages are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Those of clients here: for everybody.
    Whole,
    /// Those of other nodes: for clients here only. A message goes from node to node once.
    Local,
}

/// Who gets the messages to one subject.
#[derive(Debug, Default)]
pub(crate) struct Recipients {
    /// Clients here that each get one.
    pub(crate) each: Vec<Arc<Subscription>>,
    /// Groups of which one member gets one.
    pub(crate) groups: Vec<Group>,
    by_name: NameIndex,
    /// Nodes that get one for all that each get one there.
    pub(crate) links: Vec<Arc<Outbox>>,
}

/// A queue group: its members here, and the nodes that have some. At least one of both is not empty.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) members: Vec<Arc<Subscription>>,
    pub(crate) elsewhere: Vec<Arc<Subscription>>,
}

impl Group {
    pub(crate) fn name(&self) -> &[u8] {
        let any = self.members.first().or(self.elsewhere.first());
        any.and_then(|one| one.queue()).unwrap_or_default()
    }
}

impl Recipients {
    /// Where the group of this name is among [`groups`](Self::groups).
    pub(crate) fn place_of(&self, name: &[u8]) -> Option<usize> {
        let groups = &self.groups;
        self.by_name.find(name, groups.len(), |at| groups[at].name())
    }

    fn push_group(&mut self, group: Group) {
        let Self { groups, by_name, .. } = self;
        groups.push(group);
        by_name.pushed(groups.len(), |at| groups[at].name());
    }

    /// How many there are; groups count with all their members.
    pub(crate) fn len(&self) -> usize {
        let in_groups = self
            .groups
            .iter()
            .map(|group| group.members.len() + group.elsewhere.len());
        self.each.len() + self.links.len() + in_groups.sum::<usize>()
    }
}

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Interest {
    pub(crate) local: Subscriptions,
    pub(crate) remote: Subscriptions,
    pub(crate) links: Links,
    announcer: Announcer,
    generations: Arc<Generations>,
}

impl Interest {
    pub(crate) fn new() -> Self {
        let generations = Arc::new(Generations::new());
        Self {
            local: Subscriptions::new(Arc::clone(&generations)),
            remote: Subscriptions::new(Arc::clone(&generations)),
            links: Links::default(),
            announcer: Announcer::default(),
            generations,
        }
    }

    /// What tells whether a look-up still holds.
    pub(crate) fn generations(&self) -> &Generations {
        &self.generations
    }

    /// Adds a subscription of a client here and announces it to the routes. From the return on every message that matches reaches it.
    pub(crate) fn subscribe(&self, subscription: &Arc<Subscription>) -> Recorded {
        self.announce(self.local.add(subscription))
    }

    /// Takes a subscription of a client here out and announces that; nothing when it is not there.
    pub(crate) fn unsubscribe(&self, subscription: &Arc<Subscription>) -> Recorded {
        self.announce(self.local.remove(subscription))
    }

    fn announce(&self, recorded: Recorded) -> Recorded {
        if recorded.is_new {
            self.announce_all();
        }
        recorded
    }

    /// Announces what is recorded and not announced yet. From the return on all changes made before the call are on all routes, also
    /// those that another thread is about to announce.
    pub(crate) fn announce_all(&self) {
        self.announcer.announce(&self.local, &self.links);
    }

    /// Announces how many members those queue groups have in which some came or went. Returns whether there was any.
    pub(crate) fn announce_members(&self) -> bool {
        let any = self.local.count_members();
        if any {
            self.announce_all();
        }
        any
    }

    /// The route stands: whoever publishes may send to it, and all changes are announced to it.
    pub(crate) fn add_link(&self, link: &Arc<Link>) {
        self.local.follow();
        self.links.insert(link);
    }

    /// The route stands no more: nothing is sent to it. Nothing happens when it was removed before.
    pub(crate) fn remove_link(&self, link: &Link) {
        if self.links.remove(link) {
            self.local.unfollow();
        }
    }

    /// Tells a new route the next piece of what clients here are subscribed to. Returns whether that was the last.
    pub(crate) fn tell_piece(&self, cursor: &mut Cursor, link: &Link) -> bool {
        self.announcer.tell_piece(cursor, link, &self.local, &self.links)
    }

    /// A number for what is no change, to ask others behind all that they have sent. All changes before it are announced.
    pub(crate) fn next_change(&self) -> u64 {
        let change = self.local.next_change();
        self.announce_all();
        change
    }

    /// Who gets a message to `subject`.
    pub(crate) fn recipients(&self, subject: &[u8], scope: Scope) -> Recipients {
        let mut here = Matched::default();
        self.local.collect(subject, &mut here);
        let mut recipients = Recipients {
            each: here.each,
            groups: here
                .groups
                .into_iter()
                .map(|members| Group {
                    members,
                    elsewhere: Vec::new(),
                })
                .collect(),
            by_name: here.by_name,
            links: Vec::new(),
        };
        if scope == Scope::Whole && self.remote.len() > 0 {
            self.add_elsewhere(subject, &mut recipients);
        }
        recipients
    }

    fn add_elsewhere(&self, subject: &[u8], recipients: &mut Recipients) {
        let mut elsewhere = Matched::default();
        self.remote.collect(subject, &mut elsewhere);
        for subscription in elsewhere.each {
            // A node may want the subject by several patterns, and gets one message for all.
            let link = &subscription.client;
            if !recipients.links.iter().any(|known| Arc::ptr_eq(known, link)) {
                recipients.links.push(Arc::clone(link));
            }
        }
        for elsewhere in elsewhere.groups {
            let name = elsewhere.first().and_then(|one| one.queue()).unwrap_or_default();
            match recipients.place_of(name) {
                Some(at) => recipients.groups[at].elsewhere = elsewhere,
                None => recipients.push_group(Group {
                    members: Vec::new(),
                    elsewhere,
                }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// Far above what it takes, far below what a search through all groups for each of them would take.
    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn a_subject_with_twenty_thousand_groups_is_looked_up_in_time_linear_in_them() {
        const GROUPS: usize = 20_000;
        let all = Interest::new();
        let member = |client: &Arc<Outbox>, subject: &str, number: usize| {
            let queue = format!("group-{number}");
            let sid = number.to_string();
            Arc::new(Subscription::new(
                Arc::clone(client),
                subject.as_bytes(),
                Some(queue.as_bytes()),
                sid.as_bytes(),
            ))
        };
        let (here, there) = (Arc::new(Outbox::unconnected(1)), Arc::new(Outbox::unconnected(2)));
        let start = Instant::now();
        let mut members = Vec::new();
        for number in 0..GROUPS {
            let literal = member(&here, "a.b", number);
            all.local.add(&literal);
            members.push(literal);
            // Half of the groups have members by another pattern, half of them elsewhere.
            all.local.add(&member(&here, "a.*", number / 2));
            all.remote.add(&member(&there, "a.b", GROUPS / 2 + number));
        }
        for _ in 0..10 {
            let found = all.recipients(b"a.b", Scope::Whole);
            assert_eq!(found.groups.len(), GROUPS + GROUPS / 2);
            for number in [0, GROUPS / 2, GROUPS, GROUPS + GROUPS / 2 - 1] {
                let name = format!("group-{number}");
                let at = found.place_of(name.as_bytes()).unwrap();
                assert_eq!(found.groups[at].name(), name.as_bytes());
            }
            assert_eq!(found.place_of(b"group-x"), None);
            assert_eq!(found.len(), 3 * GROUPS);
        }
        for member in &members {
            all.local.remove(member);
        }
        assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
        assert_eq!(all.local.len(), GROUPS);
    }
}
