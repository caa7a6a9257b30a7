//! The interest of local clients and of other nodes, and the lookup of the recipients for a subject.
//!
//! The interest of other nodes is in a table of the same type as that of local clients. A subscription in it belongs to a route, and
//! stands for all subscriptions of that node's clients to one subject (and queue group).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use standin_wire::{Permissions, Rules};

use crate::generations::Generations;
use crate::leaving_members::LeavingMembers;
use crate::name_index::NameIndex;
use crate::outbox::Outbox;
use crate::route::Route;
use crate::route::announcer::Announcer;
use crate::route::routes::Routes;
use crate::subscription::Subscription;
use crate::subscriptions::{Cursor, Matched, Recorded, Subscriptions};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// For messages of local clients: recipients are local clients and other nodes.
    Whole,
    /// For messages of other nodes: recipients are local clients only, because a message is forwarded at most once.
    Local,
}

/// The recipients of messages to one subject.
#[derive(Debug, Default)]
pub(crate) struct Recipients {
    /// Subscriptions of local clients without a queue group. Each gets the message.
    pub(crate) each: Vec<Arc<Subscription>>,
    /// Queue groups. One member of each gets the message.
    pub(crate) groups: Vec<GroupRecipients>,
    by_name: NameIndex,
    /// Other nodes with plain subscriptions. Each node gets the message once.
    pub(crate) routes: Vec<Arc<Outbox>>,
}

/// A queue group: its local members, and the other nodes that have members. At least one of the two lists is not empty.
#[derive(Debug, Default)]
pub(crate) struct GroupRecipients {
    pub(crate) members: Vec<Arc<Subscription>>,
    /// Number of local members that are [counted](Subscription::is_counted).
    pub(crate) counted: usize,
    pub(crate) remote: Vec<Arc<Subscription>>,
}

impl GroupRecipients {
    pub(crate) fn name(&self) -> &[u8] {
        let any = self.members.first().or(self.remote.first());
        any.and_then(|one| one.queue()).unwrap_or_default()
    }
}

impl Recipients {
    /// Returns the index of the group `name` in [`groups`](Self::groups).
    pub(crate) fn group_index(&self, name: &[u8]) -> Option<usize> {
        let groups = &self.groups;
        self.by_name.find(name, groups.len(), |at| groups[at].name())
    }

    fn push_group(&mut self, group: GroupRecipients) {
        let Self { groups, by_name, .. } = self;
        groups.push(group);
        by_name.pushed(groups.len(), |at| groups[at].name());
    }

    /// Returns the number of recipients. Each member of a group counts.
    pub(crate) fn len(&self) -> usize {
        let groups = self.groups.iter();
        let in_groups = groups.map(|group| group.members.len() + group.remote.len());
        self.each.len() + self.routes.len() + in_groups.sum::<usize>()
    }
}

#[derive(Debug)]
pub(crate) struct Interest {
    pub(crate) local: Subscriptions,
    pub(crate) remote: Subscriptions,
    pub(crate) routes: Routes,
    pub(crate) leaving_members: LeavingMembers,
    announcer: Mutex<Announcer>,
    /// The subscriptions that are accepted from other nodes.
    pub(crate) accepted: Rules,
    /// The subscriptions that are announced to other nodes.
    announced: Rules,
    generations: Arc<Generations>,
}

impl Interest {
    /// Creates the interest of a node that shares all of it.
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self::sharing(Permissions::default())
    }

    /// Creates the interest of a node that announces the subscriptions that `shared.publish` allows, and accepts those that
    /// `shared.subscribe` allows.
    pub(crate) fn sharing(shared: Permissions) -> Self {
        let generations = Arc::new(Generations::new());
        Self {
            local: Subscriptions::new(Arc::clone(&generations)),
            remote: Subscriptions::new(Arc::clone(&generations)),
            routes: Routes::default(),
            leaving_members: LeavingMembers::default(),
            announced: shared.publish.clone(),
            announcer: Mutex::new(Announcer::new(shared.publish)),
            accepted: shared.subscribe,
            generations,
        }
    }

    /// Returns whether messages with this subject may be sent to other nodes. A subscription with wildcards is accepted although some of
    /// its subjects are denied.
    pub(crate) fn exports(&self, subject: &[u8]) -> bool {
        self.accepted.allow_all() || self.accepted.allows_subject(subject)
    }

    /// Returns whether messages with this subject are taken from other nodes.
    pub(crate) fn imports(&self, subject: &[u8]) -> bool {
        self.announced.allow_all() || self.announced.allows_subject(subject)
    }

    pub(crate) fn generations(&self) -> &Generations {
        &self.generations
    }

    /// Adds a subscription of a local client and announces it to the routes. When this returns, each matching message that is published
    /// on this node reaches the subscription.
    pub(crate) fn subscribe(&self, subscription: &Arc<Subscription>) -> Recorded {
        self.announce(self.local.add(subscription))
    }

    /// Removes a subscription of a local client and announces that. Does nothing if the subscription is not in the table.
    pub(crate) fn unsubscribe(&self, subscription: &Arc<Subscription>) -> Recorded {
        self.announce(self.local.remove(subscription))
    }

    fn announce(&self, recorded: Recorded) -> Recorded {
        if recorded.is_new {
            self.announce_all();
        }
        recorded
    }

    /// Announces all recorded changes. When this returns, all changes made before the call are queued on all routes, including those
    /// that another thread was about to announce.
    pub(crate) fn announce_all(&self) {
        self.announcer().announce(&self.local, &self.routes);
    }

    // A panic under the lock ends one connection only, so the poison flag is ignored.
    fn announcer(&self) -> MutexGuard<'_, Announcer> {
        self.announcer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces the sizes of the queue groups whose size has changed, and makes the routes send them.
    pub(crate) fn announce_members(&self) {
        if self.local.count_members() {
            self.announce_all();
            self.wake_routes();
        }
    }

    /// Makes the routes send what was queued on them.
    pub(crate) fn wake_routes(&self) {
        self.routes.load().iter().for_each(|route| route.outbox.wake());
    }

    /// Adds an established route. From now on messages may be sent over it, and all changes are announced to it.
    pub(crate) fn add_route(&self, route: &Arc<Route>) {
        self.local.follow();
        self.routes.insert(route);
    }

    /// Removes a route. Nothing is sent over it any more. Does nothing if it was removed before.
    pub(crate) fn remove_route(&self, route: &Route) {
        if self.routes.remove(route) {
            self.local.unfollow();
        }
    }

    /// Queues the next piece of the local clients' interest on a new route. Returns whether it was the last piece.
    pub(crate) fn announce_piece(&self, cursor: &mut Cursor, route: &Route) -> bool {
        let mut announcer = self.announcer();
        announcer.announce_piece(cursor, route, &self.local, &self.routes)
    }

    /// Returns a new change number that stands for no change. A PING with it is a barrier: when the peer's ack arrives, all frames
    /// that the peer sent before the ack have arrived. All earlier changes are announced when this returns.
    pub(crate) fn next_change(&self) -> u64 {
        let change = self.local.next_change();
        self.announce_all();
        change
    }

    pub(crate) fn recipients(&self, subject: &[u8], scope: Scope) -> Recipients {
        let mut here = Matched::default();
        self.local.collect(subject, &mut here);
        let groups = here.groups.into_iter().map(|members| GroupRecipients {
            counted: members.iter().filter(|member| member.is_counted()).count(),
            members,
            remote: Vec::new(),
        });
        let mut recipients = Recipients {
            each: here.each,
            groups: groups.collect(),
            by_name: here.by_name,
            routes: Vec::new(),
        };
        if scope == Scope::Whole && self.remote.len() > 0 {
            self.add_remote(subject, &mut recipients);
        }
        recipients
    }

    fn add_remote(&self, subject: &[u8], recipients: &mut Recipients) {
        let mut elsewhere = Matched::default();
        self.remote.collect(subject, &mut elsewhere);
        for subscription in elsewhere.each {
            // Several subscriptions of one node may match. The node gets the message once.
            let route = &subscription.client;
            if !recipients.routes.iter().any(|known| Arc::ptr_eq(known, route)) {
                recipients.routes.push(Arc::clone(route));
            }
        }
        for elsewhere in elsewhere.groups {
            let name = elsewhere.first().and_then(|one| one.queue()).unwrap_or_default();
            match recipients.group_index(name) {
                Some(at) => recipients.groups[at].remote = elsewhere,
                None => recipients.push_group(GroupRecipients {
                    remote: elsewhere,
                    ..GroupRecipients::default()
                }),
            }
        }
    }
}

#[cfg(test)]
#[path = "interest_tests.rs"]
pub(crate) mod announcing;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// Much more than the time of a linear lookup, and much less than that of a quadratic one.
    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn a_subject_with_twenty_thousand_groups_is_looked_up_in_time_linear_in_them() {
        const GROUPS: usize = 20_000;
        let interest = Interest::new();
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
            interest.local.add(&literal);
            members.push(literal);
            // Of the local groups, the first half also has members on a pattern, the second half members on another node.
            interest.local.add(&member(&here, "a.*", number / 2));
            interest.remote.add(&member(&there, "a.b", GROUPS / 2 + number));
        }
        for _ in 0..10 {
            let found = interest.recipients(b"a.b", Scope::Whole);
            assert_eq!(found.groups.len(), GROUPS + GROUPS / 2);
            for number in [0, GROUPS / 2, GROUPS, GROUPS + GROUPS / 2 - 1] {
                let name = format!("group-{number}");
                let at = found.group_index(name.as_bytes()).unwrap();
                assert_eq!(found.groups[at].name(), name.as_bytes());
            }
            assert_eq!(found.group_index(b"group-x"), None);
            assert_eq!(found.len(), 3 * GROUPS);
        }
        for member in &members {
            interest.local.remove(member);
        }
        assert!(start.elapsed() < LIMIT, "{:?}", start.elapsed());
        assert_eq!(interest.local.len(), GROUPS);
    }
}
