//! From a published message to the stages of those who get it.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use standin_wire::client::Publish;
use standin_wire::{encode, server};
use tracing::trace;

use crate::cache::Cache;
use crate::flush;
use crate::interest::{Group, Interest, Recipients, Scope};
use crate::lookups::Lookups;
use crate::outbox::{Outbox, Staged};
use crate::route::frame;
use crate::stage::Stage;
use crate::subscription::{Delivery, Subscription};

/// Payloads from this size on are not copied for each of several subscribers.
const SHARED_BYTES_MIN: usize = 8 * 1024;

/// After so many deliveries, a few milliseconds' worth, a client gives way to the others of its worker: a batch of messages for
/// ten thousand subscribers each must not hold them up for a second. Fewer would mean smaller writes, and more of them: with
/// 10,000 a message to a hundred subscribers took 1.6 times the CPU.
const TURN_DELIVERIES_MAX: usize = 50_000;

/// What one worker needs to route; nothing of it is shared with another thread.
#[derive(Debug)]
pub(crate) struct Router {
    pub(crate) stage: Stage,
    /// Who gets what clients publish, and who gets what comes from other nodes.
    pub(crate) cache: Cache,
    pub(crate) link_cache: Cache,
    dice: Dice,
    /// Groups of the present message of which a member elsewhere gets it: its place in `groups`, and in their `elsewhere`.
    chosen: Vec<(usize, usize)>,
    /// Names of groups, for a link.
    names: Vec<u8>,
    fanout_max: usize,
    /// Messages delivered since the turn began.
    delivered: usize,
    /// The log wants every frame.
    pub(crate) trace: bool,
}

/// A quick source of numbers that need not be secret: which member of a queue group is next.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    /// xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators", 2016.
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        // The high half scaled to the limit; the error is below one in four thousand million.
        ((high * limit as u64) >> 32) as usize
    }
}

impl Router {
    /// The router of worker number `worker`, with a cache of so much weight.
    pub(crate) fn new(worker: usize, cache_weight_max: usize) -> Self {
        Self {
            stage: Stage::new(worker),
            cache: Cache::new(Scope::Whole, cache_weight_max),
            link_cache: Cache::new(Scope::Local, cache_weight_max),
            chosen: Vec::new(),
            names: Vec::new(),
            dice: Dice(rand::random::<u64>() | 1),
            fanout_max: 0,
            delivered: 0,
            trace: false,
        }
    }

    /// For simulations: from here on it chooses as it did with the same seed before.
    #[cfg(test)]
    pub(crate) const fn seed(&mut self, seed: u64) {
        self.dice = Dice(seed | 1);
    }

    /// Another client's turn begins.
    pub(crate) const fn begin_turn(&mut self) {
        self.delivered = 0;
    }

    /// Whether so much was delivered in this turn that others should have theirs.
    #[inline]
    pub(crate) const fn turn_exhausted(&self) -> bool {
        self.delivered >= TURN_DELIVERIES_MAX
    }

    /// Adds what was looked up to what the pages show.
    pub(crate) fn count(&mut self, lookups: &Lookups) {
        for cache in [&mut self.cache, &mut self.link_cache] {
            let (total, hits) = cache.take_counts();
            lookups.total.fetch_add(total, Relaxed);
            lookups.hits.fetch_add(hits, Relaxed);
            lookups.cached.fetch_add(cache.take_growth(), Relaxed);
        }
        lookups
            .fanout_max
            .fetch_max(std::mem::take(&mut self.fanout_max) as u64, Relaxed);
    }

    /// Stages `message` for all who get it. Returns whether anyone does.
    pub(crate) fn publish(
        &mut self,
        from: &Arc<Outbox>,
        message: &Publish<'_>,
        to: &Recipients,
        interest: &Interest,
    ) -> bool {
        let total = to.each.len() + to.groups.len() + to.links.len();
        self.fanout_max = self.fanout_max.max(total);
        let shared = SharedBody::if_worth_it(message, total);
        let echo = from.echo.load(Relaxed);
        let mut delivered = false;
        for subscription in &to.each {
            if echo || subscription.client.id != from.id {
                delivered |= self.deliver(from, subscription, message, shared.as_ref(), interest);
            }
        }
        for (at, group) in to.groups.iter().enumerate() {
            let not = if echo { None } else { Some(from.id) };
            let here = self.deliver_to_one(from, group, not, message, shared.as_ref(), interest);
            delivered |= here;
            if !here && let Some(place) = self.choose(&group.elsewhere) {
                self.chosen.push((at, place));
            }
        }
        if !to.links.is_empty() || !self.chosen.is_empty() {
            self.forward(from, message, to, shared.as_ref());
            delivered = true;
        }
        self.stage.bound();
        delivered
    }

    /// Stages a message from another node for clients here: for each that gets it, and for one member of each group in `queues`. It
    /// came behind the ack of the change `acked`; the [`flush`] says which clients do not get it.
    pub(crate) fn deliver_here(
        &mut self,
        from: &Arc<Outbox>,
        acked: u64,
        queues: frame::Queues<'_>,
        message: &Publish<'_>,
        to: &Recipients,
        interest: &Interest,
    ) -> bool {
        let total = to.each.len() + to.groups.len();
        self.fanout_max = self.fanout_max.max(total);
        let shared = SharedBody::if_worth_it(message, total);
        let mut taken = false;
        for subscription in &to.each {
            if flush::admits(&subscription.client, acked) {
                taken |= self.deliver(from, subscription, message, shared.as_ref(), interest);
            }
        }
        for name in queues {
            if let Some(at) = to.place_of(name) {
                let group = &to.groups[at];
                taken |= self.deliver_to_one(from, group, None, message, shared.as_ref(), interest);
            }
        }
        self.stage.bound();
        taken
    }

    /// One member here gets it: from a random one on, the first that can take it. Returns whether there was one.
    fn deliver_to_one(
        &mut self,
        from: &Arc<Outbox>,
        group: &Group,
        not: Option<u64>,
        message: &Publish<'_>,
        shared: Option<&SharedBody>,
        interest: &Interest,
    ) -> bool {
        let start = self.dice.below(group.members.len());
        let (before, from_start) = group.members.split_at(start);
        from_start
            .iter()
            .chain(before)
            .filter(|member| Some(member.client.id) != not)
            .any(|member| self.deliver(from, member, message, shared, interest))
    }

    /// One node of those that have members of a group, by how many they have; `None` when all are closing.
    fn choose(&mut self, elsewhere: &[Arc<Subscription>]) -> Option<usize> {
        let weight = |one: &Arc<Subscription>| one.members.load(Relaxed) as usize;
        let total: usize = elsewhere.iter().map(weight).sum();
        let mut left = self.dice.below(total);
        let heavy = elsewhere.iter().position(|one| {
            let found = left < weight(one);
            left = left.saturating_sub(weight(one));
            found
        })?;
        let places = (heavy..elsewhere.len()).chain(0..heavy);
        places
            .into_iter()
            .find(|place| elsewhere[*place].client.reason().is_none())
    }

    /// Stages `message` for each node that gets it, once, with the groups of which a member there gets it.
    fn forward(
        &mut self,
        from: &Arc<Outbox>,
        message: &Publish<'_>,
        to: &Recipients,
        shared: Option<&SharedBody>,
    ) {
        let chosen = std::mem::take(&mut self.chosen);
        for link in &to.links {
            self.forward_to(link, from, message, to, &chosen, shared);
        }
        for (number, (group, place)) in chosen.iter().enumerate() {
            let link = &to.groups[*group].elsewhere[*place].client;
            let earlier = chosen[..number]
                .iter()
                .map(|(group, place)| &to.groups[*group].elsewhere[*place].client);
            if !to
                .links
                .iter()
                .chain(earlier)
                .any(|known| Arc::ptr_eq(known, link))
            {
                self.forward_to(link, from, message, to, &chosen, shared);
            }
        }
        self.chosen = chosen;
        self.chosen.clear();
    }

    fn forward_to(
        &mut self,
        link: &Arc<Outbox>,
        from: &Arc<Outbox>,
        message: &Publish<'_>,
        to: &Recipients,
        chosen: &[(usize, usize)],
        shared: Option<&SharedBody>,
    ) {
        self.names.clear();
        for (group, place) in chosen {
            let group = &to.groups[*group];
            if Arc::ptr_eq(&group.elsewhere[*place].client, link) {
                frame::text(&mut self.names, group.name());
            }
        }
        self.delivered += 1;
        let staged = self.stage.message(link, from);
        let headers_len = message.headers.map(<[u8]>::len);
        staged.payload_bytes += (message.payload.len() + headers_len.unwrap_or(0)) as u64;
        let start = staged.bytes.len();
        let out = &mut staged.bytes;
        frame::put_message_head(
            out,
            &self.names,
            message.subject,
            message.reply,
            headers_len,
            message.payload.len(),
        );
        match shared {
            Some(shared) => staged.share(shared.body.slice(..shared.body.len() - 2)),
            None => {
                out.extend_from_slice(message.headers.unwrap_or_default());
                out.extend_from_slice(message.payload);
            }
        }
        let added = staged.bytes.len() - start;
        self.stage.added(added);
    }

    /// What other nodes were told is sent with what this turn has for them.
    pub(crate) fn touch_links(&mut self, interest: &Interest) {
        for link in interest.links.load().iter() {
            self.stage.of(&link.outbox);
        }
    }

    /// Tells `from` that nobody gets its request: the 503 of `no_responders`.
    pub(crate) fn no_responders(&mut self, from: &Arc<Outbox>, reply: &[u8], interest: &Interest) {
        let found = self.cache.find(reply, interest);
        let mut each = found.recipients.each.iter();
        let Some(own) = each.find(|subscription| subscription.client.id == from.id) else {
            return;
        };
        let answer = Publish {
            subject: reply,
            reply: None,
            headers: Some(b"NATS/1.0 503\r\n\r\n"),
            payload: b"",
        };
        self.deliver(from, own, &answer, None, interest);
    }

    fn deliver(
        &mut self,
        from: &Arc<Outbox>,
        subscription: &Arc<Subscription>,
        message: &Publish<'_>,
        shared: Option<&SharedBody>,
        interest: &Interest,
    ) -> bool {
        let delivery = subscription.take_delivery();
        if delivery == Delivery::Over {
            return false;
        }
        self.delivered += 1;
        let staged = self.stage.message(&subscription.client, from);
        staged.payload_bytes += (message.payload.len() + message.headers.map_or(0, <[u8]>::len)) as u64;
        let start = staged.bytes.len();
        stage_message(staged, subscription, message, shared);
        if self.trace {
            trace!(
                client = subscription.client.id,
                "->> [{}]",
                line(&staged.bytes[start..])
            );
        }
        let added = staged.bytes.len() - start;
        self.stage.added(added);
        if delivery == Delivery::Last {
            subscription.client.has_ended.store(true, Relaxed);
            if interest.unsubscribe(subscription).is_new {
                self.touch_links(interest);
            }
        }
        true
    }
}

/// What of a large message all its subscribers share.
#[derive(Debug)]
struct SharedBody {
    headers_len: usize,
    /// Headers, payload and line end.
    body: Bytes,
}

impl SharedBody {
    /// When several get a message that is not small.
    fn if_worth_it(message: &Publish<'_>, recipients: usize) -> Option<Self> {
        let whole_bytes = message.payload.len() + message.headers.map_or(0, <[u8]>::len);
        (recipients > 1 && whole_bytes >= SHARED_BYTES_MIN).then(|| Self::new(message))
    }

    fn new(message: &Publish<'_>) -> Self {
        let headers = message.headers.unwrap_or_default();
        Self {
            headers_len: headers.len(),
            body: [headers, message.payload, b"\r\n"].concat().into(),
        }
    }
}

/// Stages MSG or HMSG, as the subscriber accepts headers or not.
#[inline]
fn stage_message(
    staged: &mut Staged,
    subscription: &Subscription,
    message: &Publish<'_>,
    shared: Option<&SharedBody>,
) {
    let headers = message
        .headers
        .filter(|headers| !headers.is_empty() && subscription.client.takes_headers.load(Relaxed));
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

/// The control line of a frame, for the log.
pub(crate) fn line(frame: &[u8]) -> Cow<'_, str> {
    let end = frame
        .iter()
        .position(|byte| *byte == b'\r')
        .unwrap_or(frame.len());
    String::from_utf8_lossy(&frame[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_staged_for_all_subscribers_together_is_bounded() {
        let all = Interest::new();
        let subscriptions: Vec<_> = (0..1000)
            .map(|id| {
                Arc::new(Subscription::new(
                    Arc::new(Outbox::unconnected(id)),
                    b"a",
                    None,
                    b"1",
                ))
            })
            .collect();
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
            assert!(router.publish(&from, &message, &found.recipients, &all));
            let staged: usize = subscriptions
                .iter()
                .map(|subscription| router.stage.of(&subscription.client).len())
                .sum();
            assert!(staged <= 9 * 1024 * 1024 + 2_000_000, "{staged} bytes are staged");
        }
        assert_eq!(subscriptions[7].delivered(), 100);
    }
}
