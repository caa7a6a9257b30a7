//! The router: stages a published message for each of its recipients.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use standin_wire::client::Publish;
use standin_wire::{encode, server};
use tracing::trace;

use crate::account;
use crate::cache::Cache;
use crate::flush;
use crate::interest::{GroupRecipients, Interest, Recipients, Scope};
use crate::lookups::Lookups;
use crate::moving::Source;
use crate::outbox::{Outbox, Staged};
use crate::route::frame::{self, Passage};
use crate::stage::Stage;
use crate::subscription::{Delivery, Subscription};

/// Size from which all recipients of a message share one copy of its headers and payload.
const SHARED_BYTES_MIN: usize = 8 * 1024;

/// Maximum number of deliveries in one turn, a few milliseconds of work. Then the worker serves its other clients. Without a limit, a
/// batch of messages to ten thousand subscribers each would delay those clients for a second. A lower limit would cause more and smaller
/// writes: with 10,000, a message to a hundred subscribers took 1.6 times the CPU.
const TURN_DELIVERIES_MAX: usize = 50_000;

/// Maximum number of times that a message for a queue group is passed on because its member has just left.
const PASSES_MAX: u8 = 3;

#[derive(Debug)]
pub(crate) struct Router {
    pub(crate) stage: Stage,
    /// Recipients of messages that local clients publish.
    pub(crate) cache: Cache,
    /// Recipients of messages from other nodes.
    pub(crate) route_cache: Cache,
    rng: FastRng,
    /// A member of a queue group on this node comes before those on other nodes (`cluster.queue_preference`).
    pub(crate) prefers_local: bool,
    /// Queue groups of the present message whose chosen member is on another node. Each entry is the index of the group in `groups`,
    /// and the index of the chosen node in the group's `remote`.
    chosen: Vec<(usize, usize)>,
    /// Buffer for the encoded names of the groups in the message to one route.
    names: Vec<u8>,
    /// Buffer for the subject of the message with its scope.
    scoped: Vec<u8>,
    fanout_max: usize,
    /// Messages delivered since the turn began, and the bytes of their headers and payloads.
    delivered: usize,
    delivered_bytes: u64,
    /// Each frame is logged.
    pub(crate) trace: bool,
}

/// Fast random numbers, not for secrets. They choose the member of a queue group.
#[derive(Debug)]
struct FastRng(u64);

impl FastRng {
    /// Returns a random number below `limit`. xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators", 2016.
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        // The upper 32 bits, scaled to the limit. The bias is below 2^-32.
        ((high * limit as u64) >> 32) as usize
    }
}

impl Router {
    /// Creates the router of worker number `worker`. Each of its two caches has at most the weight `cache_weight_max`.
    pub(crate) fn new(worker: usize, cache_weight_max: usize) -> Self {
        Self {
            stage: Stage::new(worker),
            cache: Cache::new(Scope::Whole, cache_weight_max),
            route_cache: Cache::new(Scope::Local, cache_weight_max),
            chosen: Vec::new(),
            names: Vec::new(),
            scoped: Vec::new(),
            rng: FastRng(rand::random::<u64>() | 1),
            prefers_local: false,
            fanout_max: 0,
            delivered: 0,
            delivered_bytes: 0,
            trace: false,
        }
    }

    /// Seeds the random numbers, for simulations.
    #[cfg(test)]
    pub(crate) const fn seed(&mut self, seed: u64) {
        self.rng = FastRng(seed | 1);
    }

    pub(crate) const fn begin_turn(&mut self) {
        self.delivered = 0;
        self.delivered_bytes = 0;
    }

    /// Returns the number of messages delivered since the turn began, and the bytes of their headers and payloads.
    pub(crate) const fn delivered(&self) -> (u64, u64) {
        (self.delivered as u64, self.delivered_bytes)
    }

    #[inline]
    pub(crate) const fn turn_exhausted(&self) -> bool {
        self.delivered >= TURN_DELIVERIES_MAX
    }

    /// Adds the lookups since the last call of this function to the counters in `lookups`. The monitoring pages show them.
    pub(crate) fn count(&mut self, lookups: &Lookups) {
        for cache in [&mut self.cache, &mut self.route_cache] {
            let (total, hits) = cache.take_counts();
            lookups.total.fetch_add(total, Relaxed);
            lookups.hits.fetch_add(hits, Relaxed);
            lookups.cached.fetch_add(cache.take_growth(), Relaxed);
        }
        let fanout_max = std::mem::take(&mut self.fanout_max) as u64;
        lookups.fanout_max.fetch_max(fanout_max, Relaxed);
    }

    /// Stages `message` for all its recipients. `scope` is that of the publisher's [`account`]. Returns whether any recipient gets
    /// the message.
    pub(crate) fn publish(
        &mut self,
        from: &Arc<Outbox>,
        scope: &[u8],
        message: &Publish<'_>,
        to: &Recipients,
        interest: &Interest,
    ) -> bool {
        let recipients = to.each.len() + to.groups.len() + to.routes.len();
        self.fanout_max = self.fanout_max.max(recipients);
        let shared = SharedBody::if_worth_it(message, recipients);
        let sent = Sent {
            from,
            scope,
            message,
            shared: shared.as_ref(),
            interest,
        };
        let source = Source::Own(self.stage.worker());
        let echo = from.echo.load(Relaxed);
        let exports = interest.exports(message.subject);
        let mut delivered = false;
        for subscription in &to.each {
            if (echo || subscription.client.id != from.id) && flush::admits(&subscription.client, source) {
                delivered |= self.deliver(&sent, subscription);
            }
        }
        for (at, group) in to.groups.iter().enumerate() {
            let not = if echo { None } else { Some(from.id) };
            let remote: &[_] = if exports { &group.remote } else { &[] };
            if self.takes_local(group, remote) && self.deliver_to_one(&sent, group, not, source) {
                delivered = true;
            } else if let Some(place) = self.choose(remote) {
                self.chosen.push((at, place));
                delivered = true;
            } else {
                let meant = Meant {
                    source,
                    to_arriving: true,
                };
                delivered |= self.deliver_to_one(&sent, group, not, source)
                    || self.deliver_to_moving(&sent, Some(group), group.name(), not, meant);
            }
        }
        delivered |= exports && !to.routes.is_empty();
        if exports && (!to.routes.is_empty() || !self.chosen.is_empty()) {
            self.forward(&sent, to);
        }
        self.stage.bound();
        delivered
    }

    /// Stages a message from another node for local clients: for each plain subscriber, and for one member of each queue group
    /// that the message names. A plain subscriber does not get the message if it got it on another node (see [`flush::admits`]). If a
    /// group has no member here any more, the message is passed on to another node. Returns whether any client or node gets it.
    pub(crate) fn deliver_here(
        &mut self,
        from: &Arc<Outbox>,
        source: Source,
        message: &frame::Message<'_>,
        to: &Recipients,
        interest: &Interest,
    ) -> bool {
        let recipients = to.each.len() + to.groups.len();
        self.fanout_max = self.fanout_max.max(recipients);
        let (scope, subject) = account::split(message.published.subject);
        let published = Publish {
            subject,
            ..message.published
        };
        let shared = SharedBody::if_worth_it(&published, recipients);
        let sent = Sent {
            from,
            scope,
            message: &published,
            shared: shared.as_ref(),
            interest,
        };
        let mut taken = false;
        if !interest.imports(subject) {
            return false;
        }
        let passage = message.passage;
        let each = if passage.is_for_groups_only() {
            &[]
        } else {
            &to.each[..]
        };
        for subscription in each {
            if flush::admits(&subscription.client, source) {
                taken |= self.deliver(&sent, subscription);
            }
        }
        let meant = Meant {
            source,
            to_arriving: passage.to_arriving,
        };
        for name in message.queues {
            let group = to.group_index(name).map(|at| &to.groups[at]);
            taken |= group.is_some_and(|group| self.deliver_to_one(&sent, group, None, source))
                || self.deliver_to_moving(&sent, group, name, None, meant)
                || self.pass_on(&sent, message, name);
        }
        self.stage.bound();
        taken
    }

    /// Returns whether a local member of the group is chosen. Each member in the cluster is chosen alike, unless local ones come first.
    fn takes_local(&mut self, group: &GroupRecipients, remote: &[Arc<Subscription>]) -> bool {
        if remote.is_empty() || self.prefers_local {
            return true;
        }
        let elsewhere: usize = remote.iter().map(weight).sum();
        self.rng.below(group.counted + elsewhere) < group.counted
    }

    /// Stages the message for one local member of the group: the first that can take it, starting at a random one. Members that are
    /// still arriving and the client `not` are skipped. So are members that have just arrived, if `source` may have sent the message before
    /// one that such a member has got on its former node. Returns whether a member took it.
    fn deliver_to_one(
        &mut self,
        sent: &Sent<'_>,
        group: &GroupRecipients,
        not: Option<u64>,
        source: Source,
    ) -> bool {
        let start = self.rng.below(group.members.len());
        let (before, from_start) = group.members.split_at(start);
        let mut members = from_start.iter().chain(before);
        members.any(|member| {
            let may_take = Some(member.client.id) != not && member.is_counted();
            may_take && flush::is_in_order(&member.client, source) && self.deliver(sent, member)
        })
    }

    /// Stages the message for a member of the group `queue` that moves, if no other member took it: one that leaves this node, or one that is
    /// still arriving or has just arrived. Returns whether there was one. The sender meant a member that it counts here, or one that is still arriving if it
    /// counts none (`to_arriving`). So the first are those for which the cut tells that `source` counts them nowhere else.
    fn deliver_to_moving(
        &mut self,
        sent: &Sent<'_>,
        group: Option<&GroupRecipients>,
        queue: &[u8],
        not: Option<u64>,
        Meant { source, to_arriving }: Meant,
    ) -> bool {
        let scoped = account::scoped(sent.scope, sent.message.subject, &mut self.scoped);
        let mut moving = sent.interest.leaving_members.matching(scoped, queue);
        let members = group.map_or(&[][..], |group| &group.members);
        let moves = |member: &&Arc<Subscription>| !member.is_counted() || member.client.moving().is_some();
        moving.extend(members.iter().filter(moves).cloned());
        moving.retain(|member| Some(member.client.id) != not);
        let distance = |member: &Arc<Subscription>| {
            let moving = member.client.moving();
            moving.map_or(0, |moving| moving.distance(source, to_arriving))
        };
        moving.sort_by_key(distance);
        moving.iter().any(|member| self.deliver(sent, member))
    }

    /// Passes a message for a group that has no member here any more on to another node. Returns whether there was one.
    fn pass_on(&mut self, sent: &Sent<'_>, message: &frame::Message<'_>, queue: &[u8]) -> bool {
        if message.passage.passes >= PASSES_MAX || !sent.interest.exports(sent.message.subject) {
            return false;
        }
        let found = self.cache.find(message.published.subject, sent.interest);
        let recipients = &found.recipients;
        let Some(at) = recipients.group_index(queue) else {
            return false;
        };
        let Some(place) = self.choose(&recipients.groups[at].remote) else {
            return false;
        };
        let chosen = &recipients.groups[at].remote[place];
        let passage = Passage {
            passes: message.passage.passes + 1,
            to_arriving: weight(chosen) == 0,
            ..Passage::default()
        };
        if !chosen.client.knows_moves {
            return false;
        }
        self.forward_to(&chosen.client, sent, recipients, &[(at, place)], passage);
        true
    }

    /// Chooses one of the nodes that have members of a group, at random, weighted by their numbers of members. If the route to
    /// that node is closing, takes the next node. Returns the index, or `None` if there is no node with an open route.
    fn choose(&mut self, remote: &[Arc<Subscription>]) -> Option<usize> {
        let total: usize = remote.iter().map(weight).sum();
        let mut left = self.rng.below(total);
        let first = remote.iter().position(|one| {
            let found = left < weight(one);
            left = left.saturating_sub(weight(one));
            found
        });
        // Without a weight, all members are still arriving.
        let first = first.unwrap_or(0);
        let mut places = (first..remote.len()).chain(0..first);
        places.find(|place| remote[*place].client.reason().is_none())
    }

    /// Stages the message once for each node with recipients, with the names of the queue groups for which that node was chosen. If the
    /// members of a group are still arriving on the chosen node, that node gets the message for this group once more.
    fn forward(&mut self, sent: &Sent<'_>, to: &Recipients) {
        let mut chosen = std::mem::take(&mut self.chosen);
        let passage = Passage::default();
        chosen.retain(|choice| {
            let member = &to.groups[choice.0].remote[choice.1];
            let is_counted = weight(member) > 0 || !member.client.knows_moves;
            if !is_counted {
                let to_arriving = true;
                let passage = Passage {
                    to_arriving,
                    ..passage
                };
                self.forward_to(&member.client, sent, to, &[*choice], passage);
            }
            is_counted
        });
        for route in &to.routes {
            self.forward_to(route, sent, to, &chosen, passage);
        }
        let chosen_route = |(group, place): &(usize, usize)| &to.groups[*group].remote[*place].client;
        for (number, choice) in chosen.iter().enumerate() {
            let route = chosen_route(choice);
            let mut earlier = to.routes.iter().chain(chosen[..number].iter().map(chosen_route));
            if !earlier.any(|known| Arc::ptr_eq(known, route)) {
                self.forward_to(route, sent, to, &chosen, passage);
            }
        }
        self.chosen = chosen;
        self.chosen.clear();
    }

    fn forward_to(
        &mut self,
        route: &Arc<Outbox>,
        sent: &Sent<'_>,
        to: &Recipients,
        chosen: &[(usize, usize)],
        passage: Passage,
    ) {
        self.names.clear();
        for (group, place) in chosen {
            let group = &to.groups[*group];
            if Arc::ptr_eq(&group.remote[*place].client, route) {
                frame::text(&mut self.names, group.name());
            }
        }
        self.delivered += 1;
        let scoped = Publish {
            subject: account::scoped(sent.scope, sent.message.subject, &mut self.scoped),
            ..*sent.message
        };
        let message = &scoped;
        // `process.workers` is 1024 at most.
        let worker = if route.knows_moves {
            self.stage.worker() as u16
        } else {
            0
        };
        let passage = Passage { worker, ..passage };
        let staged = self.stage.message(route, sent.from);
        let headers_len = message.headers.map(<[u8]>::len);
        staged.payload_bytes += (message.payload.len() + headers_len.unwrap_or(0)) as u64;
        let start = staged.bytes.len();
        let out = &mut staged.bytes;
        frame::put_message_head(out, &self.names, passage, message);
        match sent.shared {
            Some(shared) => staged.share(shared.body.slice(..shared.body.len() - 2)),
            None => {
                out.extend_from_slice(message.headers.unwrap_or_default());
                out.extend_from_slice(message.payload);
            }
        }
        let added = staged.bytes.len() - start;
        self.stage.added(added);
    }

    /// Puts all routes on the stage, so that pending changes of interest are sent to them at the end of this turn.
    pub(crate) fn touch_routes(&mut self, interest: &Interest) {
        for route in interest.routes.load().iter() {
            self.stage.of(&route.outbox);
        }
    }

    /// Stages the status 503 (`no_responders`) to `from`, if it has a plain subscription to `reply`.
    pub(crate) fn no_responders(
        &mut self,
        from: &Arc<Outbox>,
        scope: &[u8],
        reply: &[u8],
        interest: &Interest,
    ) {
        let scoped = account::scoped(scope, reply, &mut self.scoped);
        let found = self.cache.find(scoped, interest);
        let mut each = found.recipients.each.iter();
        let Some(own) = each.find(|subscription| subscription.client.id == from.id) else {
            return;
        };
        let message = Publish {
            subject: reply,
            reply: None,
            headers: Some(b"NATS/1.0 503\r\n\r\n"),
            payload: b"",
        };
        let sent = Sent {
            from,
            scope,
            message: &message,
            shared: None,
            interest,
        };
        self.deliver(&sent, own);
    }

    fn deliver(&mut self, sent: &Sent<'_>, subscription: &Arc<Subscription>) -> bool {
        let filter = subscription.filter();
        if filter.as_ref().is_some_and(|filter| !filter.admits(sent.message)) {
            return false;
        }
        let delivery = subscription.take_delivery();
        if delivery == Delivery::Over {
            return false;
        }
        self.delivered += 1;
        if let Some(filter) = filter {
            filter.delivered(sent.message);
        }
        let (message, client) = (sent.message, &subscription.client);
        let staged = self.stage.message(client, sent.from);
        let bytes = (message.payload.len() + message.headers.map_or(0, <[u8]>::len)) as u64;
        staged.payload_bytes += bytes;
        self.delivered_bytes += bytes;
        let start = staged.bytes.len();
        stage_message(staged, subscription, message, sent.shared);
        if self.trace {
            trace!(client = client.id, "->> [{}]", line(&staged.bytes[start..]));
        }
        let added = staged.bytes.len() - start;
        self.stage.added(added);
        if delivery == Delivery::Last {
            client.has_ended.store(true, Relaxed);
            if sent.interest.unsubscribe(subscription).is_new {
                self.touch_routes(sent.interest);
            }
        }
        true
    }
}

/// Returns the number of members of a group on another node that are counted.
fn weight(group: &Arc<Subscription>) -> usize {
    group.members.load(Relaxed) as usize
}

/// For which members of a queue group a message was sent to this node.
#[derive(Debug, Clone, Copy)]
struct Meant {
    source: Source,
    /// For those that are still arriving, because the sender counts no other.
    to_arriving: bool,
}

/// A message on its way to its recipients.
struct Sent<'a> {
    from: &'a Arc<Outbox>,
    /// Scope of the message's account; empty for the default one.
    scope: &'a [u8],
    message: &'a Publish<'a>,
    /// `None` if each recipient gets its own copy.
    shared: Option<&'a SharedBody>,
    interest: &'a Interest,
}

/// The part of a large message that all its recipients share.
#[derive(Debug)]
struct SharedBody {
    headers_len: usize,
    /// Headers, payload and line end.
    body: Bytes,
}

impl SharedBody {
    /// Returns the shared part if the message is large and has several recipients.
    fn if_worth_it(message: &Publish<'_>, recipients: usize) -> Option<Self> {
        let headers = message.headers.unwrap_or_default();
        let is_large = headers.len() + message.payload.len() >= SHARED_BYTES_MIN;
        (recipients > 1 && is_large).then(|| Self {
            headers_len: headers.len(),
            body: [headers, message.payload, b"\r\n"].concat().into(),
        })
    }
}

/// Stages HMSG if the message has headers and the subscriber accepts them, otherwise MSG.
#[inline]
fn stage_message(
    staged: &mut Staged,
    subscription: &Subscription,
    message: &Publish<'_>,
    shared: Option<&SharedBody>,
) {
    let takes_headers = || subscription.client.takes_headers.load(Relaxed);
    let headers = message
        .headers
        .filter(|headers| !headers.is_empty() && takes_headers());
    let message = server::Message {
        subject: message.subject,
        sid: subscription.sid(),
        reply: message.reply,
        headers,
        payload: message.payload,
    };
    match shared {
        Some(shared) => {
            encode::message_line(&message, &mut staged.bytes);
            staged.share(match headers {
                Some(_) => shared.body.clone(),
                None => shared.body.slice(shared.headers_len..),
            });
        }
        None => encode::message(&message, &mut staged.bytes),
    }
}

/// Returns the control line of a frame, for the log.
pub(crate) fn line(frame: &[u8]) -> Cow<'_, str> {
    let end = frame.iter().position(|byte| *byte == b'\r');
    let end = end.unwrap_or(frame.len());
    String::from_utf8_lossy(&frame[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_staged_for_all_subscribers_together_are_bounded() {
        let all = Interest::new();
        let subscribe = |id| {
            let client = Arc::new(Outbox::unconnected(id));
            Arc::new(Subscription::new(client, b"a", None, b"1"))
        };
        let subscriptions: Vec<_> = (0..1000).map(subscribe).collect();
        for subscription in &subscriptions {
            all.local.add(subscription);
        }
        let mut router = Router::new(0, 1000);
        let from = Arc::new(Outbox::unconnected(1001));
        let message = Publish {
            subject: b"a",
            reply: None,
            headers: None,
            payload: &[b'x'; 1000],
        };
        for _ in 0..100 {
            let found = router.cache.find(b"a", &all);
            assert!(router.publish(&from, b"", &message, &found.recipients, &all));
            let staged = subscriptions.iter().map(|one| router.stage.of(&one.client).len());
            let staged: usize = staged.sum();
            assert!(staged <= 9 * 1024 * 1024 + 2_000_000, "{staged} bytes are staged");
        }
        assert_eq!(subscriptions[7].delivered(), 100);
    }
}
