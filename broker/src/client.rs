//! One client: its bytes become frames, its frames take effect, and what it is to be sent is on the stage when they are
//! through. Synchronous; sockets and timers are its [`task`](crate::task)'s.

use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use standin_wire::client::{self, Frame, Publish, Sub, Unsub, Verb};
use standin_wire::limits::FrameLimits;
use standin_wire::subject::{valid_publish, valid_subscription};
use standin_wire::{ClientScanner, Connect, Span, encode};

use crate::cache::Found;
use crate::closing::Reason;
use crate::outbox::Outbox;
use crate::router::Router;
use crate::server::Shared;
use crate::subscription::Subscription;

/// The newest version of the protocol that clients may ask for.
const PROTOCOL_MAX: u32 = 1;
/// Ended subscriptions are looked for when there are so many, and then at twice what is left.
const SWEEP_MIN: usize = 64;

/// Publishes that say the same line again go the same way again.
#[derive(Debug)]
struct LastPublish {
    subject: Range<usize>,
    found: Found,
}

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Client {
    shared: Arc<Shared>,
    outbox: Arc<Outbox>,
    scanner: ClientScanner,
    subscriptions: HashTable<Arc<Subscription>>,
    sweep_at: usize,
    hasher: FixedState,
    last: Option<LastPublish>,
    connected: bool,
    verbose: bool,
    pedantic: bool,
    no_responders: bool,
    headers: bool,
    /// Messages and bytes it has sent, since last asked.
    pub(crate) messages_in: u64,
    pub(crate) bytes_in: u64,
}

impl Client {
    pub(crate) fn new(shared: Arc<Shared>, outbox: Arc<Outbox>) -> Self {
        let limits = FrameLimits {
            line_bytes_max: shared.settings.control_line_bytes_max,
            payload_bytes_max: shared.settings.payload_bytes_max,
        };
        Self {
            shared,
            outbox,
            scanner: ClientScanner::new(limits),
            subscriptions: HashTable::new(),
            sweep_at: SWEEP_MIN,
            hasher: FixedState::with_seed(0x51d),
            last: None,
            connected: false,
            verbose: true,
            pedantic: true,
            no_responders: false,
            headers: false,
            messages_in: 0,
            bytes_in: 0,
        }
    }

    /// Whether its CONNECT was taken.
    pub(crate) const fn is_connected(&self) -> bool {
        self.connected
    }

    /// Takes the whole frames at the head of `bytes`; returns their length.
    ///
    /// # Errors
    /// Why the connection must end; what came before has taken effect.
    pub(crate) fn take(&mut self, bytes: &[u8], router: &mut Router) -> Result<usize, Reason> {
        let mut at = 0;
        loop {
            let span = match self.scanner.next(&bytes[at..]) {
                Ok(Some(span)) => span,
                Ok(None) => return Ok(at),
                Err(error) => return Err(Reason::Protocol(error.server_text())),
            };
            self.frame(&bytes[at..at + span.len], &span, router)?;
            at += span.len;
        }
    }

    /// Its subscriptions go.
    pub(crate) fn end(&mut self) {
        for subscription in self.subscriptions.drain() {
            self.shared.subscriptions.remove(&subscription);
        }
    }

    #[inline]
    fn frame(&mut self, bytes: &[u8], span: &Span<Verb>, router: &mut Router) -> Result<(), Reason> {
        if span.verb == Verb::Pub
            && span.repeats
            && let Some(last) = &self.last
            && last.found.holds(&self.shared.subscriptions)
        {
            // The same line as before: the same subject, no reply, and nothing changed for it.
            let message = Publish {
                subject: &bytes[last.subject.clone()],
                reply: None,
                headers: None,
                payload: &bytes[span.head..span.len - 2],
            };
            self.messages_in += 1;
            self.bytes_in += message.payload.len() as u64;
            self.ok(router);
            let subscriptions = &self.shared.subscriptions;
            router.publish(&self.outbox, &message, &last.found.matched, subscriptions);
            return Ok(());
        }
        let wrong = |error: standin_wire::WireError| Reason::Protocol(error.server_text());
        match client::frame(bytes, span).map_err(wrong)? {
            Frame::Connect(json) => return self.connect(json, router),
            _ if !self.connected && self.shared.settings.access.is_required() => {
                return Err(Reason::AuthorizationViolation);
            }
            Frame::Publish(message) => return self.publish(bytes, &message, router),
            Frame::Sub(sub) => self.subscribe(&sub, router),
            Frame::Unsub(unsub) => self.unsubscribe(&unsub, router),
            Frame::Ping => router
                .stage
                .of(&self.outbox)
                .bytes
                .extend_from_slice(encode::PONG),
            Frame::Pong => {}
        }
        Ok(())
    }

    fn connect(&mut self, json: &[u8], router: &mut Router) -> Result<(), Reason> {
        let connect = Connect::parse(json).map_err(|_| Reason::Protocol("Unknown Protocol Operation"))?;
        if !self.shared.settings.access.admits(&connect) {
            return Err(Reason::AuthorizationViolation);
        }
        if connect.protocol > PROTOCOL_MAX {
            return Err(Reason::InvalidProtocol);
        }
        if connect.no_responders && !connect.headers {
            return Err(Reason::NoRespondersWithoutHeaders);
        }
        self.connected = true;
        self.verbose = connect.verbose;
        self.pedantic = connect.pedantic;
        self.no_responders = connect.no_responders;
        self.headers = connect.headers;
        self.outbox.echo.store(connect.echo, Relaxed);
        self.outbox.takes_headers.store(connect.headers, Relaxed);
        self.ok(router);
        Ok(())
    }

    fn publish(&mut self, bytes: &[u8], message: &Publish<'_>, router: &mut Router) -> Result<(), Reason> {
        if message.headers.is_some() && !self.headers {
            return Err(Reason::HeadersNotSupported);
        }
        self.messages_in += 1;
        self.bytes_in += (message.payload.len() + message.headers.map_or(0, <[u8]>::len)) as u64;
        if self.pedantic && !valid_publish(message.subject) {
            self.error("Invalid Publish Subject", router);
        }
        // Before the message itself, should it come back, as in nats-server.
        self.ok(router);
        let shared = Arc::clone(&self.shared);
        let all = &shared.subscriptions;
        let found = router.cache.find(message.subject, all);
        let delivered = router.publish(&self.outbox, message, &found.matched, all);
        if !delivered
            && self.no_responders
            && let Some(reply) = message.reply
        {
            router.no_responders(&self.outbox, reply, all);
        }
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
        if !valid_subscription(sub.subject) || sub.queue.is_some_and(|queue| !valid_subscription(queue)) {
            return self.error("Invalid Subject", router);
        }
        if self.subscriptions.len() >= self.sweep_at {
            self.subscriptions.retain(|subscription| !subscription.is_over());
            self.sweep_at = (2 * self.subscriptions.len()).max(SWEEP_MIN);
        }
        let max = self.shared.settings.subscriptions_max;
        if max > 0 && self.subscriptions.len() >= max {
            return self.error("maximum subscriptions exceeded", router);
        }
        let hash = self.hasher.hash_one(sub.sid);
        let hasher = &self.hasher;
        let entry = self.subscriptions.entry(
            hash,
            |known| known.sid() == sub.sid,
            |known| hasher.hash_one(known.sid()),
        );
        let new = || {
            Arc::new(Subscription::new(
                Arc::clone(&self.outbox),
                sub.subject,
                sub.queue,
                sub.sid,
            ))
        };
        match entry {
            // A sid in use keeps its subscription, as in nats-server.
            Entry::Occupied(entry) if !entry.get().is_over() => {}
            Entry::Occupied(mut entry) => {
                let added = new();
                self.shared.subscriptions.add(&added);
                *entry.get_mut() = added;
            }
            Entry::Vacant(entry) => {
                let added = new();
                self.shared.subscriptions.add(&added);
                entry.insert(added);
            }
        }
        self.ok(router);
    }

    fn unsubscribe(&mut self, unsub: &Unsub<'_>, router: &mut Router) {
        let hash = self.hasher.hash_one(unsub.sid);
        if let Ok(entry) = self
            .subscriptions
            .find_entry(hash, |known| known.sid() == unsub.sid)
        {
            let over = match unsub.max {
                Some(max) => entry.get().set_max(max),
                None => true,
            };
            if over {
                let (gone, _) = entry.remove();
                self.shared.subscriptions.remove(&gone);
            }
        }
        self.ok(router);
    }

    #[inline]
    fn ok(&self, router: &mut Router) {
        if self.verbose {
            router.stage.of(&self.outbox).bytes.extend_from_slice(encode::OK);
        }
    }

    /// An `-ERR` after which the connection goes on.
    fn error(&self, text: &str, router: &mut Router) {
        encode::err(text.as_bytes(), &mut router.stage.of(&self.outbox).bytes);
    }
}
