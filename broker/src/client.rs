//! State of one client. Its bytes are parsed into frames, which are applied. The output is put on the stage. This code is
//! synchronous: the client's timers are in [`session`], and its socket is in the [`shell`](crate::shell).

pub(crate) mod session;
mod tls;

use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

// In tests the order within a table is fixed, so that a seed gives the same run each time.
#[cfg(test)]
use foldhash::fast::FixedState as RandomState;
#[cfg(not(test))]
use foldhash::fast::RandomState;
use hashbrown::hash_table::Entry;
use standin_wire::client::{self, Frame, Publish, Sub, Unsub, Verb};
use standin_wire::limits::FrameLimits;
use standin_wire::subject::{valid_publish, valid_subscription};
use standin_wire::{ClientFault, ClientScanner, Connect, Span, encode};

use crate::cache::CachedRecipients;
use crate::client_info::{ClientInfo, Labels};
use crate::close_reason::CloseReason;
use crate::flush::ClientFlush;
use crate::outbox::Outbox;
use crate::policy::Policy;
use crate::router::{Router, line};
use crate::shared::Shared;
use crate::subscription::Subscription;
use crate::subscriptions::Recorded;

/// Highest protocol version that a client may request.
const PROTOCOL_MAX: i64 = 1;
/// Number of subscriptions at which ended ones are first removed from the table. The next time is at twice the number that
/// remains.
const SWEEP_MIN: usize = 64;

/// Result of the last publish. Until the interest changes, a publish with the same control line has the same recipients.
#[derive(Debug)]
struct LastPublish {
    subject: Range<usize>,
    found: CachedRecipients,
}

/// State of one client connection.
#[derive(Debug)]
pub(crate) struct Client {
    shared: Arc<Shared>,
    policy: Arc<Policy>,
    client_info: Arc<ClientInfo>,
    outbox: Arc<Outbox>,
    scanner: ClientScanner,
    sweep_at: usize,
    hasher: RandomState,
    last: Option<LastPublish>,
    verbose: bool,
    pedantic: bool,
    no_responders: bool,
    headers: bool,
    /// The client's last accepted CONNECT without its labels. The next CONNECT is merged into it, and a reload checks it
    /// against the new access rules.
    last_connect: Option<Box<Connect>>,
    /// The text in INFO that a user with a key signs; empty if there are no such users.
    pub(crate) nonce: Box<str>,
    took_pong: bool,
    pub(crate) flush: ClientFlush,
    /// Messages and bytes from the client since the last count.
    messages_in: u64,
    bytes_in: u64,
}

const fn limits(policy: &Policy) -> FrameLimits {
    FrameLimits {
        line_bytes_max: policy.control_line_bytes_max,
        payload_bytes_max: policy.payload_bytes_max,
    }
}

impl Client {
    pub(crate) fn new(
        shared: Arc<Shared>,
        client_info: Arc<ClientInfo>,
        policy: Arc<Policy>,
        nonce: Box<str>,
    ) -> Self {
        Self {
            scanner: ClientScanner::new(limits(&policy)),
            outbox: Arc::clone(&client_info.outbox),
            shared,
            policy,
            client_info,
            sweep_at: SWEEP_MIN,
            hasher: RandomState::default(),
            last: None,
            verbose: true,
            pedantic: true,
            no_responders: false,
            headers: false,
            last_connect: None,
            nonce,
            took_pong: false,
            flush: ClientFlush::default(),
            messages_in: 0,
            bytes_in: 0,
        }
    }

    /// Returns whether the client's CONNECT was accepted.
    pub(crate) const fn is_connected(&self) -> bool {
        self.last_connect.is_some()
    }

    /// Replaces the settings.
    ///
    /// # Errors
    /// [`CloseReason::AuthorizationRevoked`] if the new settings do not admit the client.
    pub(crate) fn set_policy(&mut self, policy: Arc<Policy>) -> Result<(), CloseReason> {
        self.scanner.set_limits(limits(&policy));
        let changed = policy.access != self.policy.access;
        self.policy = policy;
        if !changed || !self.is_connected() {
            return Ok(());
        }
        match self.last_connect.as_deref() {
            Some(last) if self.policy.access.admits(last, &self.nonce) => Ok(()),
            _ => Err(CloseReason::AuthorizationRevoked),
        }
    }

    /// Returns whether the client has answered a PING since the last call.
    pub(crate) fn took_pong(&mut self) -> bool {
        std::mem::take(&mut self.took_pong)
    }

    /// Adds the messages and bytes since the last call to the client's info.
    pub(crate) fn count(&mut self) {
        let stats = &self.client_info.stats;
        stats
            .messages_in
            .fetch_add(std::mem::take(&mut self.messages_in), Relaxed);
        stats
            .bytes_in
            .fetch_add(std::mem::take(&mut self.bytes_in), Relaxed);
    }

    /// Returns the time until which the client's PONG may wait; `None` if it need not wait.
    pub(crate) fn waits_until(&mut self, now: Instant) -> Option<Instant> {
        let (flush, routes) = (&self.shared.flush, &self.shared.interest.routes);
        let timeout = self.policy.flush_timeout;
        self.flush.waits_until(&self.outbox, timeout, flush, routes, now)
    }

    /// Sends the client's waiting PONG, if there is one. Then processes the complete frames at the head of `bytes`, within the turn's
    /// budget, and returns their length. Complete frames may be left: see [`Router::turn_exhausted`] and [`ClientFlush::is_started`].
    ///
    /// # Errors
    /// The reason why the connection must end. Frames before the error have taken effect.
    pub(crate) fn take(&mut self, bytes: &[u8], router: &mut Router) -> Result<usize, CloseReason> {
        self.flush.send_pong(&self.outbox, &mut router.stage);
        let mut at = 0;
        loop {
            if router.turn_exhausted() || self.flush.is_started() {
                return Ok(at);
            }
            let span = match self.scanner.next(&bytes[at..]) {
                Ok(Some(span)) => span,
                Ok(None) => return Ok(at),
                Err(error) => return Err(CloseReason::Protocol(error.server_text())),
            };
            if router.trace {
                trace(self.outbox.id, &bytes[at..at + span.len], span.verb);
            }
            self.frame(&bytes[at..at + span.len], &span, router)?;
            at += span.len;
        }
    }

    /// Removes the client's subscriptions, if any are left. Returns how many of them had not reached their maximum of messages.
    pub(crate) fn end(&mut self) -> usize {
        self.flush.end(&self.outbox, &self.shared.flush);
        let live = self.client_info.live_subscriptions();
        let subscriptions = std::mem::take(&mut *self.client_info.subscriptions());
        let interest = &self.shared.interest;
        let mut is_new = false;
        for subscription in &subscriptions {
            is_new |= interest.unsubscribe(subscription).is_new;
        }
        if is_new {
            interest.wake_routes();
        }
        live
    }

    /// Records a change of interest: the client's next PONG waits for its acks. Puts the routes on the stage if the
    /// change is to be announced.
    fn record(&mut self, recorded: Recorded, router: &mut Router) {
        self.flush.changed(recorded.change);
        if recorded.is_new {
            router.touch_routes(&self.shared.interest);
        }
    }

    #[inline]
    fn frame(&mut self, bytes: &[u8], span: &Span<Verb>, router: &mut Router) -> Result<(), CloseReason> {
        if span.verb == Verb::Pub
            && span.repeats
            && let Some(last) = &self.last
            && last.found.is_valid(&self.shared.interest)
        {
            // The control line is that of the last publish, so the subject is the same and there is no reply. The recipients have not
            // changed either.
            let message = Publish {
                subject: &bytes[last.subject.clone()],
                reply: None,
                headers: None,
                payload: &bytes[span.head..span.len - 2],
            };
            self.messages_in += 1;
            self.bytes_in += message.payload.len() as u64;
            self.ok(router);
            let interest = &self.shared.interest;
            router.publish(&self.outbox, &message, &last.found.recipients, interest);
            return Ok(());
        }
        let wrong = |error: standin_wire::WireError| CloseReason::Protocol(error.server_text());
        match client::frame(bytes, span).map_err(wrong)? {
            Frame::Connect(json) => return self.connect(json, router),
            _ if !self.is_connected() && self.policy.access.is_required() => {
                return Err(CloseReason::AuthorizationViolation);
            }
            Frame::Publish(message) => return self.publish(bytes, &message, router),
            Frame::Sub(sub) => self.subscribe(&sub, router),
            Frame::Unsub(unsub) => self.unsubscribe(&unsub, router),
            Frame::Ping => {
                let shared = &self.shared;
                self.flush
                    .ping(&self.outbox, &shared.flush, &shared.interest, &mut router.stage);
            }
            Frame::Pong => self.took_pong = true,
        }
        Ok(())
    }

    fn connect(&mut self, json: &[u8], router: &mut Router) -> Result<(), CloseReason> {
        let wrong = |_| CloseReason::Protocol("Unknown Protocol Operation");
        let mut connect = match &self.last_connect {
            None => Connect::parse(json),
            Some(last) => Connect::parse_over(last, json),
        }
        .map_err(wrong)?;
        if !self.policy.access.admits(&connect, &self.nonce) {
            self.label(&mut connect);
            return Err(CloseReason::AuthorizationViolation);
        }
        if !(0..=PROTOCOL_MAX).contains(&connect.protocol) {
            return Err(CloseReason::InvalidProtocol);
        }
        if connect.no_responders && !connect.headers {
            return Err(CloseReason::NoRespondersWithoutHeaders);
        }
        if self.is_connected() {
            self.end_subscriptions(router);
        }
        self.verbose = connect.verbose;
        self.pedantic = connect.pedantic;
        // A pedantic client's subject must be checked, even if the line is that of the last publish.
        self.last = None;
        self.no_responders = connect.no_responders;
        self.headers = connect.headers;
        self.outbox.echo.store(connect.echo, Relaxed);
        self.outbox.takes_headers.store(connect.headers, Relaxed);
        self.client_info
            .accepts_info
            .store(connect.protocol >= 1, Relaxed);
        self.label(&mut connect);
        self.last_connect = Some(Box::new(connect));
        self.ok(router);
        Ok(())
    }

    /// Sets the labels on the client's info from the client's CONNECT, and removes them from `connect`.
    fn label(&self, connect: &mut Connect) {
        let auth_required = self.policy.access.is_required();
        self.client_info.set_labels(Labels {
            name: connect.name.take(),
            lang: connect.lang.take(),
            version: connect.version.take(),
            user: connect.user.clone().filter(|_| auth_required),
        });
    }

    /// Ends all subscriptions, because the client has sent CONNECT again.
    fn end_subscriptions(&mut self, router: &mut Router) {
        let subscriptions = std::mem::take(&mut *self.client_info.subscriptions());
        let shared = Arc::clone(&self.shared);
        for subscription in &subscriptions {
            let recorded = shared.interest.unsubscribe(subscription);
            self.record(recorded, router);
        }
    }

    fn publish(
        &mut self,
        bytes: &[u8],
        message: &Publish<'_>,
        router: &mut Router,
    ) -> Result<(), CloseReason> {
        if message.headers.is_some() && !self.headers {
            return Err(CloseReason::HeadersNotSupported);
        }
        self.messages_in += 1;
        self.bytes_in += (message.payload.len() + message.headers.map_or(0, <[u8]>::len)) as u64;
        if self.pedantic && !valid_publish(message.subject) {
            self.error("Invalid Publish Subject", router);
        }
        // As in nats-server, `+OK` is sent before the message, because the client may get its own message.
        self.ok(router);
        let shared = Arc::clone(&self.shared);
        let interest = &shared.interest;
        let found = router.cache.find(message.subject, interest);
        let delivered = router.publish(&self.outbox, message, &found.recipients, interest);
        if !delivered
            && self.no_responders
            && let Some(reply) = message.reply
        {
            router.no_responders(&self.outbox, reply, interest);
        }
        // A client that has not sent CONNECT is pedantic. So a repeated line is taken without a check of the credentials only from a
        // client that was admitted.
        let plain = message.headers.is_none() && message.reply.is_none() && !self.pedantic;
        self.last = plain.then(|| {
            let start = message.subject.as_ptr().addr() - bytes.as_ptr().addr();
            LastPublish {
                subject: start..start + message.subject.len(),
                found,
            }
        });
        Ok(())
    }

    fn subscribe(&mut self, sub: &Sub<'_>, router: &mut Router) {
        if !valid_subscription(sub.subject) {
            return self.error("Invalid Subject", router);
        }
        let mut subscriptions = self.client_info.subscriptions();
        if subscriptions.len() >= self.sweep_at {
            subscriptions.retain(|subscription| !subscription.is_over());
            self.sweep_at = (2 * subscriptions.len()).max(SWEEP_MIN);
        }
        let max = self.policy.subscriptions_max;
        if max > 0 && subscriptions.len() >= max && self.outbox.has_ended.swap(false, Relaxed) {
            subscriptions.retain(|subscription| !subscription.is_over());
        }
        if max > 0 && subscriptions.len() >= max {
            drop(subscriptions);
            return self.error(ClientFault::TooManySubscriptions.text(), router);
        }
        let interest = &self.shared.interest;
        let is_first = self.flush.suppress_in_flight(&self.outbox, interest);
        let hash = self.hasher.hash_one(sub.sid);
        let hasher = &self.hasher;
        let entry = subscriptions.entry(
            hash,
            |known| known.sid() == sub.sid,
            |known| hasher.hash_one(known.sid()),
        );
        let recorded = match entry {
            // A sid in use keeps its subscription, as in nats-server.
            Entry::Occupied(entry) if !entry.get().is_over() => None,
            entry => {
                let client = Arc::clone(&self.outbox);
                let added = Arc::new(Subscription::new(client, sub.subject, sub.queue, sub.sid));
                let recorded = interest.subscribe(&added);
                entry.insert(added);
                Some(recorded)
            }
        };
        drop(subscriptions);
        if let Some(recorded) = recorded {
            self.record(recorded, router);
            if is_first {
                self.flush.ask_all(&self.shared.interest, &mut router.stage);
            }
        }
        self.ok(router);
    }

    fn unsubscribe(&mut self, unsub: &Unsub<'_>, router: &mut Router) {
        let hash = self.hasher.hash_one(unsub.sid);
        let mut subscriptions = self.client_info.subscriptions();
        let mut recorded = None;
        if let Ok(entry) = subscriptions.find_entry(hash, |known| known.sid() == unsub.sid) {
            let over = match unsub.max {
                Some(max) => entry.get().set_max(max),
                None => true,
            };
            if over {
                let (gone, _) = entry.remove();
                recorded = Some(self.shared.interest.unsubscribe(&gone));
            }
        }
        drop(subscriptions);
        if let Some(recorded) = recorded {
            self.record(recorded, router);
        }
        self.ok(router);
    }

    #[inline]
    fn ok(&self, router: &mut Router) {
        if self.verbose {
            router.stage.of(&self.outbox).bytes.extend_from_slice(encode::OK);
        }
    }

    /// Sends an `-ERR` after which the connection continues.
    fn error(&self, text: &str, router: &mut Router) {
        encode::err(text.as_bytes(), &mut router.stage.of(&self.outbox).bytes);
    }
}

impl Drop for Client {
    /// Removes the client's subscriptions and releases its socket however the client ends, even by a panic.
    fn drop(&mut self) {
        self.end();
        self.outbox.release();
    }
}

/// Logs a frame at TRACE. CONNECT is logged without its argument, which may have secrets.
fn trace(client: u64, frame: &[u8], verb: Verb) {
    if verb == Verb::Connect {
        tracing::trace!(client, "<<- [CONNECT ...]");
    } else {
        tracing::trace!(client, "<<- [{}]", line(frame));
    }
}
