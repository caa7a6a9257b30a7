//! The journal: every live subscription of one component in the order of its SUBs, with the number of messages delivered
//! to it. After a move the journal is replayed to the new node.
//!
//! Promise S4: after a move the new node has exactly the component's live subscriptions, in their order, and each with
//! what is left of its max.
//!
//! *Architecture invariant:* a subscription is added when a node has the complete SUB, and removed when a node has the
//! complete UNSUB. So the journal and the held bytes together are always equivalent to the component's stream. One exception: when a node
//! gets the journal, the UNSUBs among the held bytes are applied before. They are sent all the same, and then change nothing more.

use std::collections::{HashMap, VecDeque};

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};
use standin_wire::client::{Frame, Sub, Unsub};
use standin_wire::{encode, subject};

use crate::ended_sids::EndedSids;
use crate::state_fields::is_default;

/// Index of a subscription in the journal, valid while the subscription is live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(u32);

/// Names of subscriptions, which the component has chosen.
pub(crate) type Sids = Vec<Box<[u8]>>;

/// Some of the subscriptions: the members of queue groups only, or all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Members {
    Only,
    No,
}

/// One live subscription.
#[derive(Debug, Serialize, Deserialize)]
struct Subscription {
    /// Number of its SUB among all changes of the journal.
    order: u64,
    #[serde(with = "serde_bytes")]
    subject: Box<[u8]>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "serde_bytes")]
    queue: Option<Box<[u8]>>,
    #[serde(with = "serde_bytes")]
    sid: Box<[u8]>,
    /// Messages delivered since the SUB, by all nodes.
    #[serde(default, skip_serializing_if = "is_default")]
    delivered: u64,
    /// Messages among them that earlier nodes delivered. The present node does not count them for max.
    #[serde(default, skip_serializing_if = "is_default")]
    before: u64,
    /// Number of deliveries after which the subscription ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max: Option<u64>,
    /// The present node does not know the max.
    #[serde(default, skip_serializing_if = "is_default")]
    is_open_ended: bool,
    /// SUBs with the same sid that were sent before a node acked this one. If this SUB is refused, the first of them
    /// becomes live.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    alternatives: Vec<Self>,
}

impl Subscription {
    fn new(sub: &Sub<'_>, order: u64) -> Self {
        Self {
            order,
            subject: sub.subject.into(),
            queue: sub.queue.map(Into::into),
            sid: sub.sid.into(),
            delivered: 0,
            before: 0,
            max: None,
            is_open_ended: false,
            alternatives: Vec::new(),
        }
    }

    fn sub(&self) -> Sub<'_> {
        Sub {
            subject: &self.subject,
            queue: self.queue.as_deref(),
            sid: &self.sid,
        }
    }

    /// Returns the UNSUB with what is left of the max.
    fn unsub(&self) -> Unsub<'_> {
        Unsub {
            sid: &self.sid,
            max: self.max.map(|max| max - self.delivered),
        }
    }
}

/// Maximum number of further SUBs kept for one live sid. A component that reuses a live sid does so a few times at most.
const ALTERNATIVES_MAX: usize = 8;

/// A max for nodes that they never reach. The largest that nats-server accepts.
const NEVER: u64 = 999_999_999;

/// Subscriptions of which the node may deliver more than their max. Boxed in the journal, because an idle session must stay small.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Surplus {
    /// By sid: the number of changes whose ack shows that the node has the UNSUB. Until then, messages for a sid that has ended are
    /// dropped.
    sids: HashMap<Box<[u8]>, u64, RandomState>,
    /// Subscriptions that have reached their max. The node must get their UNSUB.
    overdue: Sids,
}

/// The live subscriptions of one component.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Journal {
    entries: Vec<Option<Subscription>>,
    #[serde(default, skip_serializing_if = "is_default")]
    free: Vec<u32>,
    /// Found again from `entries` in the next program.
    #[serde(skip)]
    by_sid: HashMap<Box<[u8]>, u32, RandomState>,
    /// Number of changes so far. A change is the beginning or the end of a subscription.
    changes: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    ended: EndedSids,
    /// Orders and slots of subscriptions that no PONG has acked. A refusal is about the oldest match among them, or
    /// if there is none, about acked subscriptions.
    #[serde(default, skip_serializing_if = "is_default")]
    recent: VecDeque<(u64, u32)>,
    /// Set while the node may deliver messages beyond a max, until it has acked the UNSUBs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    surplus: Option<Box<Surplus>>,
    /// Whether there were subscriptions when the session last changed its node. If not, no live subscription has messages of an earlier node.
    #[serde(default, skip_serializing_if = "is_default")]
    moved: bool,
}

impl Journal {
    /// Finds the subscriptions by their sids again, in a journal of the former program.
    pub(crate) fn index(&mut self) {
        let live = self.entries.iter().zip(0..);
        let live = live.filter_map(|(entry, slot)| Some((entry.as_ref()?.sid.clone(), slot)));
        self.by_sid = live.collect();
    }

    /// Returns the number of live subscriptions.
    pub(crate) fn len(&self) -> usize {
        self.by_sid.len()
    }

    /// Records that a node has a complete SUB. A second SUB with a live sid is ignored, as on a node, unless the node
    /// refuses the first one later. A SUB whose subject is not valid is always ignored.
    pub(crate) fn subscribe(&mut self, sub: &Sub<'_>) {
        if !subject::valid_subscription(sub.subject) {
            return;
        }
        if let Some(slot) = self.by_sid.get(sub.sid) {
            return self.add_alternative(*slot, sub);
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            (self.entries.len() - 1) as u32
        });
        self.entries[slot as usize] = Some(Subscription::new(sub, self.changes));
        self.by_sid.insert(sub.sid.into(), slot);
        self.recent.push_back((self.changes, slot));
        self.changes += 1;
    }

    /// Keeps a further SUB with a live sid if the first one may still be refused.
    fn add_alternative(&mut self, slot: u32, sub: &Sub<'_>) {
        let first_unconfirmed = self.recent.front().map(|(order, _)| *order);
        let entry = self.entries[slot as usize].as_mut();
        let unconfirmed = entry.filter(|entry| first_unconfirmed.is_some_and(|first| entry.order >= first));
        if let Some(entry) = unconfirmed.filter(|entry| entry.alternatives.len() < ALTERNATIVES_MAX) {
            entry.alternatives.push(Subscription::new(sub, entry.order));
        }
    }

    /// Returns the number of changes so far: subscriptions begun or ended.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Returns whether messages of an ended subscription with this sid may still be in flight from the node. A new SUB with
    /// the sid has to wait for them; otherwise they would count for its max.
    pub(crate) fn may_be_in_flight(&self, sid: &[u8]) -> bool {
        self.ended.may_be_in_flight(sid) || self.is_surplus(sid)
    }

    /// Records the PONG of a PING that was sent after this number of [`changes`](Self::changes).
    pub(crate) fn confirm(&mut self, changes: u64) {
        if let Some(surplus) = &mut self.surplus {
            surplus.sids.retain(|_, until| *until > changes);
            if surplus.sids.is_empty() {
                self.surplus = None;
            }
        }
        self.ended.confirm(changes);
        while let Some((order, slot)) = self.recent.front().copied()
            && order < changes
        {
            self.recent.pop_front();
            if let Some(Some(entry)) = self.entries.get_mut(slot as usize)
                && entry.order == order
            {
                entry.alternatives = Vec::new();
            }
        }
        if self.recent.is_empty() && self.recent.capacity() > 64 {
            self.recent = VecDeque::new();
        }
    }

    /// Records that a node has a complete UNSUB.
    pub(crate) fn unsubscribe(&mut self, unsub: &Unsub<'_>) {
        let Some(&slot) = self.by_sid.get(unsub.sid) else {
            return;
        };
        let Some(entry) = &mut self.entries[slot as usize] else {
            return;
        };
        match unsub.max {
            Some(max) if max > entry.delivered => entry.max = Some(max),
            _ => self.end(slot),
        }
    }

    /// Returns the UNSUB for the present node, if it must differ from the component's UNSUB: the messages that earlier
    /// nodes delivered are subtracted from the max. If the node does not know the max, it gets [`NEVER`]: the sidecar counts.
    pub(crate) fn unsub_for_node<'a>(&self, unsub: &Unsub<'a>) -> Option<Unsub<'a>> {
        let max = unsub.max.filter(|_| self.moved)?;
        let slot = *self.by_sid.get(unsub.sid)?;
        let entry = self.entries[slot as usize].as_ref()?;
        if entry.is_open_ended && max > entry.delivered {
            let (sid, max) = (unsub.sid, Some(NEVER));
            return Some(Unsub { sid, max });
        }
        (entry.before > 0).then(|| Unsub {
            sid: unsub.sid,
            max: max.checked_sub(entry.before).filter(|left| *left > 0),
        })
    }

    /// Returns the slot of the live subscription with this sid.
    pub(crate) fn slot(&self, sid: &[u8]) -> Option<Slot> {
        self.by_sid.get(sid).map(|slot| Slot(*slot))
    }

    /// Counts one message delivered to the component. Returns whether the subscription is still live; it ends with the
    /// message that reaches its max.
    #[inline]
    pub(crate) fn delivered(&mut self, slot: Slot) -> bool {
        let Some(Some(entry)) = self.entries.get_mut(slot.0 as usize) else {
            return false;
        };
        entry.delivered += 1;
        if entry.max.is_some_and(|max| entry.delivered >= max) {
            self.end_at_max(slot.0);
            return false;
        }
        true
    }

    /// Ends a subscription that has reached its max.
    #[cold]
    fn end_at_max(&mut self, slot: u32) {
        let entry = self.entries[slot as usize].as_ref();
        let overdue = entry
            .filter(|entry| entry.is_open_ended)
            .map(|entry| entry.sid.clone());
        self.end(slot);
        if let Some(sid) = overdue {
            let surplus = self.surplus.get_or_insert_default();
            // No ack counts before the UNSUB was sent.
            surplus.sids.insert(sid.clone(), u64::MAX);
            surplus.overdue.push(sid);
        }
    }

    /// Appends to `out` the UNSUBs of subscriptions that have reached a max which the node does not know, 65,535 at most. Returns their
    /// number.
    pub(crate) fn end_overdue(&mut self, out: &mut Vec<u8>) -> u16 {
        let Some(surplus) = &mut self.surplus else {
            return 0;
        };
        let count = surplus.overdue.len().min(u16::MAX.into());
        if count > 0 {
            self.changes += 1;
        }
        for sid in surplus.overdue.drain(..count) {
            encode::client(&Frame::Unsub(Unsub { sid: &sid, max: None }), out);
            surplus.sids.insert(sid, self.changes);
        }
        count as u16
    }

    /// Returns whether the subscription is in a queue group.
    pub(crate) fn is_shared(&self, slot: Slot) -> bool {
        let entry = self.entries.get(slot.0 as usize).and_then(Option::as_ref);
        entry.is_some_and(|entry| entry.queue.is_some())
    }

    /// Returns whether the subscription ends after a number of deliveries.
    #[inline]
    pub(crate) fn has_max(&self, slot: Slot) -> bool {
        let entry = self.entries.get(slot.0 as usize);
        entry.is_some_and(|entry| entry.as_ref().is_some_and(|entry| entry.max.is_some()))
    }

    /// Counts `count` messages delivered to a subscription without a max.
    #[inline]
    pub(crate) fn delivered_again(&mut self, slot: Slot, count: u64) {
        if let Some(Some(entry)) = self.entries.get_mut(slot.0 as usize) {
            entry.delivered += count;
        }
    }

    /// Removes the subscription to `subject` (in `queue`) that a node refused: the oldest unacked one. If all are acked,
    /// the node has withdrawn a permission, and all subscriptions to `subject` (in `queue`) are removed.
    pub(crate) fn refuse(&mut self, subject: &[u8], queue: Option<&[u8]>) {
        let is_meant = |entry: &Subscription| *entry.subject == *subject && entry.queue.as_deref() == queue;
        let is_meant_and_unacked = |(order, slot): &(u64, u32)| {
            let entry = self.entries[*slot as usize].as_ref();
            entry.is_some_and(|entry| entry.order == *order && is_meant(entry))
        };
        let at = self.recent.iter().position(is_meant_and_unacked);
        if let Some((_, slot)) = at.and_then(|at| self.recent.remove(at)) {
            // The next SUB with its sid, if there was one, becomes live.
            let removed = self.remove(slot);
            let alternatives = removed.iter().flat_map(|entry| &entry.alternatives);
            return alternatives.for_each(|other| self.subscribe(&other.sub()));
        }
        let refused: Vec<u32> = self
            .live()
            .filter(|(_, entry)| is_meant(entry))
            .map(|(slot, _)| slot)
            .collect();
        refused.into_iter().for_each(|slot| drop(self.remove(slot)));
    }

    /// Removes the newest unacked subscription, because a node refused a SUB above its limit on subscriptions. The `-ERR` does
    /// not name the subscription. A node processes SUBs in order, so without an UNSUB between them the refused SUBs are the
    /// newest.
    pub(crate) fn refuse_newest(&mut self) {
        while let Some((order, slot)) = self.recent.pop_back() {
            let entry = self.entries[slot as usize].as_ref();
            if entry.is_some_and(|entry| entry.order == order) {
                self.remove(slot);
                return;
            }
        }
    }

    /// Appends the commands for a new node to `out`: each SUB in order, followed by an UNSUB with what is left of its max.
    /// Returns the number of commands. Later deliveries count as the new node's.
    pub(crate) fn replay(&mut self, out: &mut Vec<u8>) -> u32 {
        self.begin_node();
        self.learn(out);
        (self.len() + self.limited().len()) as u32
    }

    /// Appends the commands for a node that does not have the subscriptions yet, as [`replay`](Self::replay) does.
    pub(crate) fn learn(&self, out: &mut Vec<u8>) {
        for entry in self.in_order() {
            encode::client(&Frame::Sub(entry.sub()), out);
            if entry.max.is_some() {
                encode::client(&Frame::Unsub(entry.unsub()), out);
            }
        }
    }

    /// Appends the SUBs of some subscriptions, and no UNSUBs.
    pub(crate) fn copy(&self, members: Members, out: &mut Vec<u8>) {
        let (all, are_meant) = (self.in_order(), members == Members::Only);
        for entry in all.iter().filter(|entry| entry.queue.is_some() == are_meant) {
            encode::client(&Frame::Sub(entry.sub()), out);
        }
    }

    /// Appends UNSUBs for the subscriptions in queue groups, 65,535 at most. These stay in the journal. Returns their number.
    pub(crate) fn withdraw_shared(&self, out: &mut Vec<u8>) -> u16 {
        let mut count = 0;
        let shared = self
            .entries
            .iter()
            .flatten()
            .filter(|entry| entry.queue.is_some());
        for Subscription { sid, .. } in shared.take(u16::MAX.into()) {
            encode::client(&Frame::Unsub(Unsub { sid, max: None }), out);
            count += 1;
        }
        count
    }

    /// Returns the sids of the subscriptions with a max.
    pub(crate) fn limited(&self) -> Sids {
        let live = self.entries.iter().flatten();
        let limited = live.filter(|entry| entry.max.is_some());
        limited.map(|entry| entry.sid.clone()).collect()
    }

    /// Returns the live subscriptions in the order of their SUBs.
    fn in_order(&self) -> Vec<&Subscription> {
        let mut live: Vec<&Subscription> = self.entries.iter().flatten().collect();
        live.sort_unstable_by_key(|entry| entry.order);
        live
    }

    /// Records that a node that has got [copies](Self::copy) of the subscriptions is the present one now. It does not know their max:
    /// they end when they have [`delivered`](Self::delivered) it here. Appends UNSUBs for those in `limited` that have ended since.
    /// Returns the number of UNSUBs.
    pub(crate) fn moved_by_copies(&mut self, limited: &[Box<[u8]>], out: &mut Vec<u8>) -> u32 {
        self.begin_node();
        for entry in self.entries.iter_mut().flatten() {
            entry.is_open_ended = true;
        }
        let over: Vec<_> = limited
            .iter()
            .filter(|sid| !self.by_sid.contains_key(*sid))
            .collect();
        self.end_learned(over.into_iter().cloned().collect(), out)
    }

    /// Records that a node that has [learned](Self::learn) the subscriptions is the present one now. Appends an UNSUB for each
    /// subscription in `limited` with what is left of its max now. Returns the number of UNSUBs.
    pub(crate) fn moved(&mut self, limited: &[Box<[u8]>], out: &mut Vec<u8>) -> u32 {
        self.begin_node();
        self.end_learned(limited.to_vec(), out)
    }

    /// Appends an UNSUB for each of these subscriptions, which the node has learned and the component has ended. Their messages still pass
    /// until the node has the UNSUB, as without a sidecar. Returns the number of UNSUBs.
    pub(crate) fn end_here(&mut self, ended: &[Box<[u8]>], out: &mut Vec<u8>) -> u32 {
        for sid in ended {
            encode::client(&Frame::Unsub(Unsub { sid, max: None }), out);
            self.ended.add(sid, self.changes);
            self.changes += 1;
        }
        ended.len() as u32
    }

    /// Appends an UNSUB with what is left for each of these subscriptions, which the node has learned. Some of them may have ended.
    fn end_learned(&mut self, learned: Sids, out: &mut Vec<u8>) -> u32 {
        for sid in &learned {
            let slot = self.by_sid.get(sid).map(|slot| *slot as usize);
            let live = slot.and_then(|slot| self.entries[slot].as_ref());
            let unsub = live.map_or(Unsub { sid, max: None }, Subscription::unsub);
            encode::client(&Frame::Unsub(unsub), out);
            if live.is_none() {
                self.ended.add(sid, self.changes);
                self.changes += 1;
            }
        }
        let (count, until) = (learned.len() as u32, self.changes);
        if count > 0 {
            let surplus = self.surplus.get_or_insert_default();
            surplus.sids.extend(learned.into_iter().map(|sid| (sid, until)));
        }
        count
    }

    /// Returns whether a message for this sid, which is not live, is more than its max.
    pub(crate) fn is_surplus(&self, sid: &[u8]) -> bool {
        self.surplus
            .as_ref()
            .is_some_and(|surplus| surplus.sids.contains_key(sid))
    }

    /// Begins to count the deliveries of another node.
    fn begin_node(&mut self) {
        self.moved = !self.by_sid.is_empty();
        self.ended.clear();
        self.surplus = None;
        for entry in self.entries.iter_mut().flatten() {
            entry.before = entry.delivered;
            entry.is_open_ended = false;
        }
    }

    /// Ends all subscriptions and appends their UNSUBs to `out`. Returns the number of UNSUBs.
    pub(crate) fn end_all(&mut self, out: &mut Vec<u8>) -> u32 {
        let mut live: Vec<(u64, u32)> = self.live().map(|(slot, entry)| (entry.order, slot)).collect();
        live.sort_unstable();
        for (_, slot) in &live {
            if let Some(Subscription { sid, .. }) = &self.entries[*slot as usize] {
                encode::client(&Frame::Unsub(Unsub { sid, max: None }), out);
            }
            self.end(*slot);
        }
        live.len() as u32
    }

    fn live(&self) -> impl Iterator<Item = (u32, &Subscription)> {
        self.entries
            .iter()
            .enumerate()
            .filter_map(|(slot, entry)| entry.as_ref().map(|entry| (slot as u32, entry)))
    }

    /// Ends a subscription that the node has. Messages that the node sent before it learned of the end may still arrive.
    fn end(&mut self, slot: u32) {
        if let Some(entry) = self.remove(slot) {
            self.ended.add(&entry.sid, self.changes);
            self.changes += 1;
        }
    }

    fn remove(&mut self, slot: u32) -> Option<Subscription> {
        let entry = self.entries[slot as usize].take()?;
        self.by_sid.remove(&entry.sid);
        self.free.push(slot);
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use standin_wire::client;
    use standin_wire::limits::FrameLimits;

    /// Records these commands of a component.
    fn send(journal: &mut Journal, commands: &str) {
        let mut rest = commands.as_bytes();
        while let Some((frame, len)) = client::decode(rest, FrameLimits::CLIENT).unwrap() {
            match frame {
                Frame::Sub(sub) => journal.subscribe(&sub),
                Frame::Unsub(unsub) => journal.unsubscribe(&unsub),
                other => panic!("{other:?}"),
            }
            rest = &rest[len..];
        }
    }

    /// Returns the journal after these commands of a component.
    fn after(commands: &str) -> Journal {
        let mut journal = Journal::default();
        send(&mut journal, commands);
        journal
    }

    fn replayed(journal: &mut Journal) -> String {
        let mut out = Vec::new();
        journal.replay(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn deliver(journal: &mut Journal, sid: &str, times: usize) {
        for _ in 0..times {
            let slot = journal.slot(sid.as_bytes()).unwrap();
            journal.delivered(slot);
        }
    }

    fn confirm_all(journal: &mut Journal) {
        journal.confirm(journal.changes());
    }

    #[test]
    fn s4_live_subscriptions_are_replayed_in_their_order() {
        for (case, commands, replay) in [
            (
                "a subscription that has ended is left out",
                "SUB a 1\r\nSUB b.> q 2\r\nSUB c x9\r\nUNSUB 1\r\nSUB d 4\r\n",
                "SUB b.> q 2\r\nSUB c x9\r\nSUB d 4\r\n",
            ),
            (
                "a second SUB with a live sid changes nothing",
                "SUB a 1\r\nSUB b 1\r\n",
                "SUB a 1\r\n",
            ),
            (
                "a SUB that is not valid changes nothing",
                "SUB a 1\r\nSUB not..valid 2\r\n",
                "SUB a 1\r\n",
            ),
        ] {
            let mut journal = after(commands);
            assert_eq!(replayed(&mut journal), replay, "{case}");
            assert_eq!(journal.len(), replay.matches("SUB").count(), "{case}");
        }
    }

    #[test]
    fn s4_after_the_end_of_all_subscriptions_nothing_is_replayed_and_no_sid_is_free_before_a_pong() {
        let mut journal = after("SUB b 2\r\nSUB a q 1\r\nUNSUB 1 5\r\n");
        let mut out = Vec::new();
        assert_eq!(journal.end_all(&mut out), 2);
        assert_eq!(out, b"UNSUB 2\r\nUNSUB 1\r\n");
        assert!(journal.may_be_in_flight(b"1") && journal.may_be_in_flight(b"2"));
        confirm_all(&mut journal);
        assert!(!journal.may_be_in_flight(b"1"));
        assert_eq!((journal.len(), replayed(&mut journal)), (0, String::new()));
    }

    #[test]
    fn s4_a_subscription_refused_as_one_too_many_is_not_replayed() {
        let mut journal = after("SUB s1 1\r\nSUB s2 2\r\nSUB s3 3\r\n");
        journal.refuse_newest();
        send(&mut journal, "UNSUB 1\r\nSUB s4 4\r\n");
        assert_eq!(replayed(&mut journal), "SUB s2 2\r\nSUB s4 4\r\n");
        confirm_all(&mut journal);
        journal.refuse_newest();
        assert_eq!(journal.len(), 2, "an acked subscription stays");
    }

    #[test]
    fn s4_the_second_sub_with_a_sid_is_live_when_the_first_was_refused() {
        let mut journal = after("SUB denied 1\r\nSUB granted 1\r\nSUB never 1\r\n");
        journal.refuse(b"denied", None);
        assert_eq!(replayed(&mut journal), "SUB granted 1\r\n");
        journal.refuse(b"granted", None);
        assert_eq!(replayed(&mut journal), "SUB never 1\r\n");

        let mut journal = after("SUB granted 1\r\n");
        confirm_all(&mut journal);
        send(&mut journal, "SUB ignored 1\r\n");
        journal.refuse(b"granted", None);
        assert_eq!(journal.len(), 0, "the node has withdrawn the permission");
    }

    #[test]
    fn s4_a_sid_is_free_again_when_a_node_has_acked_the_end_of_its_subscription() {
        let mut journal = after("SUB a 1\r\n");
        let before_the_end = journal.changes();
        assert!(!journal.may_be_in_flight(b"1"), "the subscription is live");
        send(&mut journal, "UNSUB 1\r\n");
        assert!(journal.may_be_in_flight(b"1") && !journal.may_be_in_flight(b"2"));
        journal.confirm(before_the_end);
        assert!(
            journal.may_be_in_flight(b"1"),
            "the PING was sent before the UNSUB"
        );
        confirm_all(&mut journal);
        assert!(!journal.may_be_in_flight(b"1"));

        send(&mut journal, "SUB a 1\r\nUNSUB 1 2\r\n");
        deliver(&mut journal, "1", 2);
        assert!(
            journal.may_be_in_flight(b"1"),
            "the node may have sent a third message before the UNSUB"
        );
        replayed(&mut journal);
        assert!(
            !journal.may_be_in_flight(b"1"),
            "nothing arrives from a lost node"
        );
    }

    #[test]
    fn s4_what_is_left_of_max_is_exact_over_moves() {
        let mut journal = after("SUB a 1\r\n");
        deliver(&mut journal, "1", 2);
        send(&mut journal, "UNSUB 1 7\r\n");
        assert_eq!(replayed(&mut journal), "SUB a 1\r\nUNSUB 1 5\r\n");
        deliver(&mut journal, "1", 3);
        assert_eq!(replayed(&mut journal), "SUB a 1\r\nUNSUB 1 2\r\n");
        deliver(&mut journal, "1", 2);
        assert_eq!(replayed(&mut journal), "");

        send(&mut journal, "SUB a 1\r\n");
        deliver(&mut journal, "1", 3);
        send(&mut journal, "UNSUB 1 3\r\n");
        assert_eq!(journal.len(), 0, "the max was reached before the UNSUB");
    }

    #[test]
    fn s4_a_max_set_after_a_move_is_reduced_by_earlier_deliveries() {
        let mut journal = after("SUB a 1\r\n");
        deliver(&mut journal, "1", 3);
        replayed(&mut journal);
        let unsub = |max| Unsub { sid: b"1", max };
        for (max, for_node) in [
            (Some(5), Some(unsub(Some(2)))),
            (Some(3), Some(unsub(None))),
            (None, None),
        ] {
            assert_eq!(journal.unsub_for_node(&unsub(max)), for_node);
        }
    }

    #[test]
    fn s4_subscriptions_refused_by_permissions_are_not_replayed() {
        let mut journal = after("SUB a 1\r\nSUB a q 2\r\nSUB b 3\r\n");
        journal.refuse(b"a", Some(b"q"));
        assert_eq!(replayed(&mut journal), "SUB a 1\r\nSUB b 3\r\n");
        journal.confirm(3);
        journal.refuse(b"a", Some(b"q"));
        assert_eq!(journal.len(), 2, "the subscription without a queue group stays");
        journal.refuse(b"a", None);
        assert_eq!(replayed(&mut journal), "SUB b 3\r\n");
    }

    #[test]
    fn s4_the_unsub_of_a_max_that_the_node_does_not_know_is_not_lost_when_an_earlier_ping_is_answered() {
        let mut journal = Journal::default();
        send(&mut journal, "SUB a 1\r\nUNSUB 1 1\r\n");
        journal.moved_by_copies(&[], &mut Vec::new());
        let slot = journal.slot(b"1").unwrap();
        assert!(!journal.delivered(slot));
        journal.confirm(journal.changes());
        assert!(journal.is_surplus(b"1") && journal.may_be_in_flight(b"1"));
        let mut out = Vec::new();
        assert_eq!(journal.end_overdue(&mut out), 1);
        assert_eq!(out, b"UNSUB 1\r\n");
        journal.confirm(journal.changes() - 1);
        assert!(journal.is_surplus(b"1"), "that PING came before the UNSUB");
        journal.confirm(journal.changes());
        assert!(!journal.is_surplus(b"1") && !journal.may_be_in_flight(b"1"));
    }
}
