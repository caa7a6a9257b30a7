//! From a published message to the stages of those who get it.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use standin_wire::client::Publish;
use tracing::trace;

use crate::cache::Cache;
use crate::outbox::Outbox;
use crate::shared::Lookups;
use crate::stage::{Stage, Staged};
use crate::subscription::{Subscription, Turn};
use crate::subscriptions::{Matched, Subscriptions};

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
    pub(crate) cache: Cache,
    dice: Dice,
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
            cache: Cache::new(cache_weight_max),
            dice: Dice(rand::random::<u64>() | 1),
            fanout_max: 0,
            delivered: 0,
            trace: false,
        }
    }

    /// Another client's turn begins.
    pub(crate) const fn begin_turn(&mut self) {
        self.delivered = 0;
    }

    /// Whether so much was delivered in this turn that others should have theirs.
    #[inline]
    pub(crate) const fn is_tired(&self) -> bool {
        self.delivered >= TURN_DELIVERIES_MAX
    }

    /// Adds what was looked up to what the pages show.
    pub(crate) fn count(&mut self, lookups: &Lookups) {
        let (total, hits) = self.cache.take_counts();
        lookups.total.fetch_add(total, Relaxed);
        lookups.hits.fetch_add(hits, Relaxed);
        lookups
            .fanout_max
            .fetch_max(std::mem::take(&mut self.fanout_max) as u64, Relaxed);
    }

    /// Stages `message` for all who get it. Returns whether anyone does.
    pub(crate) fn publish(
        &mut self,
        from: &Arc<Outbox>,
        message: &Publish<'_>,
        matched: &Matched,
        all: &Subscriptions,
    ) -> bool {
        let total = matched.each.len() + matched.groups.len();
        self.fanout_max = self.fanout_max.max(total);
        let whole_bytes = message.payload.len() + message.headers.map_or(0, <[u8]>::len);
        let shared = (total > 1 && whole_bytes >= SHARED_BYTES_MIN).then(|| Shared::new(message));
        let echo = from.echo.load(Relaxed);
        let mut delivered = false;
        for subscription in &matched.each {
            if echo || subscription.client.id != from.id {
                delivered |= self.deliver(from, subscription, message, shared.as_ref(), all);
            }
        }
        for group in &matched.groups {
            // From a random member on, the first that can take it.
            let start = self.dice.below(group.len());
            let (before, from_start) = group.split_at(start);
            delivered |= from_start
                .iter()
                .chain(before)
                .filter(|member| echo || member.client.id != from.id)
                .any(|member| self.deliver(from, member, message, shared.as_ref(), all));
        }
        self.stage.bound();
        delivered
    }

    /// Tells `from` that nobody gets its request: the 503 of `no_responders`.
    pub(crate) fn no_responders(&mut self, from: &Arc<Outbox>, reply: &[u8], all: &Subscriptions) {
        let found = self.cache.find(reply, all);
        let mut each = found.matched.each.iter();
        let Some(own) = each.find(|subscription| subscription.client.id == from.id) else {
            return;
        };
        let answer = Publish {
            subject: reply,
            reply: None,
            headers: Some(b"NATS/1.0 503\r\n\r\n"),
            payload: b"",
        };
        self.deliver(from, own, &answer, None, all);
    }

    fn deliver(
        &mut self,
        from: &Arc<Outbox>,
        subscription: &Arc<Subscription>,
        message: &Publish<'_>,
        shared: Option<&Shared>,
        all: &Subscriptions,
    ) -> bool {
        let turn = subscription.take_turn();
        if turn == Turn::Over {
            return false;
        }
        let staged = self.stage.of(&subscription.client);
        self.delivered += 1;
        staged.messages += 1;
        staged.published_by(from);
        staged.payload_bytes += (message.payload.len() + message.headers.map_or(0, <[u8]>::len)) as u64;
        let start = staged.bytes.len();
        encode(staged, subscription, message, shared);
        if self.trace {
            trace!(
                client = subscription.client.id,
                "->> [{}]",
                line(&staged.bytes[start..])
            );
        }
        let added = staged.bytes.len() - start;
        self.stage.added(added);
        if turn == Turn::DeliverLast {
            subscription.client.has_ended.store(true, Relaxed);
            all.remove(subscription);
        }
        true
    }
}

/// What of a large message all its subscribers share.
#[derive(Debug)]
struct Shared {
    headers_len: usize,
    /// Headers, payload and line end.
    body: Bytes,
}

impl Shared {
    fn new(message: &Publish<'_>) -> Self {
        let headers = message.headers.unwrap_or_default();
        Self {
            headers_len: headers.len(),
            body: [headers, message.payload, b"\r\n"].concat().into(),
        }
    }
}

/// MSG or HMSG, as the subscriber takes it.
#[inline]
fn encode(staged: &mut Staged, subscription: &Subscription, message: &Publish<'_>, shared: Option<&Shared>) {
    let headers = message
        .headers
        .filter(|headers| !headers.is_empty() && subscription.client.takes_headers.load(Relaxed));
    let out = &mut staged.bytes;
    out.extend_from_slice(if headers.is_some() { b"HMSG " } else { b"MSG " });
    out.extend_from_slice(message.subject);
    out.push(b' ');
    out.extend_from_slice(subscription.sid());
    out.push(b' ');
    if let Some(reply) = message.reply {
        out.extend_from_slice(reply);
        out.push(b' ');
    }
    let headers_len = headers.map_or(0, <[u8]>::len);
    if headers.is_some() {
        number(out, headers_len);
        out.push(b' ');
    }
    number(out, headers_len + message.payload.len());
    out.extend_from_slice(b"\r\n");
    match shared {
        Some(shared) if headers.is_some() => staged.share(shared.body.clone()),
        Some(shared) => staged.share(shared.body.slice(shared.headers_len..)),
        None => {
            out.extend_from_slice(headers.unwrap_or_default());
            out.extend_from_slice(message.payload);
            out.extend_from_slice(b"\r\n");
        }
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

/// `value` in decimal.
#[inline]
fn number(out: &mut Vec<u8>, value: usize) {
    if value < 10 {
        return out.push(b'0' + value as u8);
    }
    let mut digits = [0; 20];
    let mut start = digits.len();
    let mut rest = value;
    while rest > 0 {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_staged_for_all_subscribers_together_is_bounded() {
        let all = Subscriptions::new();
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
        subscriptions
            .iter()
            .for_each(|subscription| all.add(subscription));
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
            assert!(router.publish(&from, &message, &found.matched, &all));
            let staged: usize = subscriptions
                .iter()
                .map(|subscription| router.stage.of(&subscription.client).len())
                .sum();
            assert!(staged <= 9 * 1024 * 1024 + 2_000_000, "{staged} bytes are staged");
        }
        assert_eq!(subscriptions[7].delivered(), 100);
    }
}
