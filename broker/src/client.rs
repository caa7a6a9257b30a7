//! State of one client. Its bytes are parsed into frames, which are applied. The output is put on the stage. This code is
//! synchronous: the client's timers are in [`session`], and its socket is in the [`shell`](crate::shell).

pub(crate) mod session;
mod tls;

use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

// In tests the order within a table is fixed, so that a seed gives the same run each time.
#[cfg(test)]
use foldhash::fast::FixedState as RandomState;
#[cfg(not(test))]
use foldhash::fast::RandomState;
use hashbrown::hash_table::Entry;
use standin_tls::certificate::CertificateNames;
use standin_wire::client::{self, Frame, Publish, Sub, Unsub, Verb};
use standin_wire::limits::FrameLimits;
use standin_wire::subject::{valid_publish, valid_subscription};
use standin_wire::{ClientFault, ClientScanner, Connect, Move, Span, Violation, encode};
use tracing::warn;

use crate::account::{self, Account};
use crate::auth::{Admission, User};
use crate::cache::CachedRecipients;
use crate::client_info::{ClientInfo, Labels};
use crate::close_reason::CloseReason;
use crate::flush::ClientFlush;
use crate::outbox::Outbox;
use crate::permissions::{DeliveryFilter, Replies, UserPermissions};
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
/// Time for the check of a password, if the time for CONNECT is shorter.
const CHECK_TIME_MIN: Duration = Duration::from_secs(10);
/// Interval at which a client whose publish waits because of a rate is looked at.
const RATE_LOOK: Duration = Duration::from_secs(1);
/// Text of the `-ERR` for a message that is refused because its account exceeds a rate. `nats-server` has no such limit.
const RATE_EXCEEDED: &str = "Maximum Message Rate Exceeded";

/// Result of the last publish. Until the interest changes, a publish with the same control line has the same recipients.
#[derive(Debug)]
struct LastPublish {
    subject: Range<usize>,
    found: CachedRecipients,
}

/// A CONNECT whose password is being checked against a hash. Meanwhile no input of the client is processed.
#[derive(Debug)]
struct PendingLogin {
    connect: Connect,
    user: Arc<User>,
    verdict: Arc<OnceLock<bool>>,
    /// Time limit of the check.
    until: Instant,
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
    /// The user as which the client was admitted, if there are users.
    user: Option<Arc<User>>,
    /// What the user may do; `None`: everything.
    permissions: Option<Arc<UserPermissions>>,
    /// The requests that the user may answer.
    replies: Option<Arc<Replies>>,
    /// The user's account; `None` for the default one.
    account: Option<Arc<Account>>,
    pending_login: Option<Box<PendingLogin>>,
    /// The names in the client's certificate. With `verify_and_map`, they decide which user the client is.
    certificate_names: Option<Box<CertificateNames>>,
    /// A rate of the account is exceeded, so messages are refused in this turn.
    over_rate: bool,
    /// A rate of the account is exceeded, so publishes wait in this turn.
    slowed: bool,
    /// The next frame is a publish that waits.
    waits_for_rate: bool,
    /// Buffer for a subject with the scope of the account.
    scoped: Vec<u8>,
    /// The text in INFO that a user with a key signs; empty if there are no such users.
    pub(crate) nonce: Box<str>,
    took_pong: bool,
    /// The client arrives from another node, and its sidecar does not know yet whether it can.
    arrives: bool,
    /// The client leaves for another node. Its subscriptions do not change any more.
    leaves: bool,
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
        certificate_names: Option<Box<CertificateNames>>,
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
            user: None,
            permissions: None,
            replies: None,
            account: None,
            pending_login: None,
            certificate_names,
            over_rate: false,
            slowed: false,
            waits_for_rate: false,
            scoped: Vec::new(),
            nonce,
            took_pong: false,
            arrives: false,
            leaves: false,
            flush: ClientFlush::default(),
            messages_in: 0,
            bytes_in: 0,
        }
    }

    #[cfg(test)]
    pub(crate) const fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// Returns whether the client's CONNECT was accepted.
    pub(crate) const fn is_connected(&self) -> bool {
        self.last_connect.is_some()
    }

    /// Replaces the settings, and ends the subscriptions that the new permissions do not allow.
    ///
    /// # Errors
    /// [`CloseReason::AuthorizationRevoked`] if the new settings do not admit the client.
    pub(crate) fn set_policy(&mut self, policy: Arc<Policy>, router: &mut Router) -> Result<(), CloseReason> {
        let changed = policy.access != self.policy.access;
        self.policy = policy;
        self.set_limits();
        let Some(last) = self.last_connect.as_deref().filter(|_| changed) else {
            return Ok(());
        };
        let access = &self.policy.access;
        let user = match &self.user {
            Some(user) if access.has_users() => access.still(user).map(Arc::clone).map(Some),
            _ => match access.admit(last, &self.nonce, self.certificate_names.as_deref()) {
                Admission::Admitted(user) => Some(user),
                Admission::Refused | Admission::Hashed(..) => None,
            },
        };
        let account =
            |user: &Option<Arc<User>>| user.as_ref().map_or(String::new(), |user| user.account.clone());
        match user {
            Some(user) if account(&user) == account(&self.user) => {
                self.set_user(user);
                self.end_forbidden_subscriptions(router);
                Ok(())
            }
            _ => Err(CloseReason::AuthorizationRevoked),
        }
    }

    /// Sets the limits on frames: those of the settings, and those of the account.
    fn set_limits(&mut self) {
        let mut limits = limits(&self.policy);
        let account = self
            .account
            .as_ref()
            .map(|account| account.limits().payload_bytes_max);
        if let Some(max) = account.filter(|max| *max > 0) {
            limits.payload_bytes_max = limits.payload_bytes_max.min(max);
        }
        self.scanner.set_limits(limits);
    }

    fn set_user(&mut self, user: Option<Arc<User>>) {
        let before = self.permissions.take();
        self.permissions = user.as_ref().and_then(|user| user.permissions.clone());
        // Requests that were delivered under the same permissions may still be answered.
        if self.permissions != before {
            let answers = self
                .permissions
                .as_ref()
                .and_then(|permissions| permissions.answers);
            self.replies = answers.map(|rule| Arc::new(Replies::new(rule)));
        }
        self.user = user;
        // The next message is checked against the permissions, even if its line is that of the last one.
        self.last = None;
    }

    /// Returns whether the client has answered a PING since the last call.
    pub(crate) fn took_pong(&mut self) -> bool {
        std::mem::take(&mut self.took_pong)
    }

    /// Adds the messages and bytes since the last call to the client's info and to its account.
    pub(crate) fn count(&mut self, router: &Router) {
        let stats = &self.client_info.stats;
        let (messages, bytes) = (
            std::mem::take(&mut self.messages_in),
            std::mem::take(&mut self.bytes_in),
        );
        stats.messages_in.fetch_add(messages, Relaxed);
        stats.bytes_in.fetch_add(bytes, Relaxed);
        if let Some(account) = self.account.as_ref().filter(|_| messages > 0) {
            account.published(messages, bytes, router.delivered());
        }
    }

    /// Returns whether the client's password is being checked.
    pub(crate) const fn is_logging_in(&self) -> bool {
        self.pending_login.is_some()
    }

    /// Returns whether the next frame must be CONNECT.
    fn must_connect(&self) -> bool {
        !self.is_connected() && !self.is_logging_in() && self.policy.access.is_required()
    }

    /// Returns whether the check of the client's password has taken too long.
    pub(crate) fn login_expired(&self, now: Instant) -> bool {
        let login = self.pending_login.as_ref();
        login.is_some_and(|login| login.verdict.get().is_none() && now >= login.until)
    }

    /// Returns whether a publish of the client waits because its account exceeds a rate.
    pub(crate) const fn is_slowed(&self) -> bool {
        self.waits_for_rate
    }

    /// Returns whether [`held_until`](Self::held_until) must be called.
    pub(crate) const fn may_be_held(&self) -> bool {
        self.pending_login.is_some() || self.waits_for_rate
    }

    /// Returns the time until which the client waits: for the check of its password, or because its account exceeds a rate.
    pub(crate) fn held_until(&self, now: Instant) -> Option<Instant> {
        if let Some(login) = &self.pending_login {
            return login.verdict.get().is_none().then_some(login.until);
        }
        let exceeded = self
            .account
            .as_ref()
            .filter(|_| self.waits_for_rate)?
            .exceeded_for()?;
        // Looked at again after a while: a reload may raise the rate.
        Some(now + exceeded.min(RATE_LOOK))
    }

    /// Notes at the start of a turn whether the account's messages wait or are refused.
    fn check_rate(&mut self) {
        let Some(account) = &self.account else { return };
        let refuses = account.limits().refuses;
        let is_over = account.exceeded_for().is_some();
        (self.over_rate, self.slowed, self.waits_for_rate) = (is_over && refuses, is_over && !refuses, false);
        if self.over_rate {
            self.last = None;
        }
    }

    /// Returns the time until which the client's PONG may wait; `None` if it need not wait.
    pub(crate) fn waits_until(&mut self, now: Instant) -> Option<Instant> {
        let (flush, routes) = (&self.shared.flush, &self.shared.interest.routes);
        let timeout = self.policy.flush_timeout;
        self.flush.waits_until(&self.outbox, timeout, flush, routes, now)
    }

    /// Sends the client's waiting PONG, if there is one. Then processes the complete frames at the head of `bytes`, within the turn's
    /// budget, and returns their length. Complete frames may be left: see [`Router::turn_exhausted`], [`ClientFlush::is_started`] and
    /// [`is_logging_in`](Self::is_logging_in).
    ///
    /// # Errors
    /// The reason why the connection must end. Frames before the error have taken effect.
    pub(crate) fn take(&mut self, bytes: &[u8], router: &mut Router) -> Result<usize, CloseReason> {
        if self.flush.is_started() {
            self.flush.send_pong(&self.outbox, &mut router.stage);
            self.answer_arrival(router);
        }
        self.finish_login(router)?;
        if self.must_connect() && !begins_connect(bytes) {
            return Err(CloseReason::AuthorizationViolation);
        }
        self.check_rate();
        let mut at = 0;
        loop {
            if router.turn_exhausted() || self.flush.is_started() || self.pending_login.is_some() {
                return Ok(at);
            }
            let span = match self.scanner.next(&bytes[at..]) {
                Ok(Some(span)) => span,
                Ok(None) => return Ok(at),
                Err(error) => return Err(CloseReason::Protocol(error.server_text())),
            };
            if self.slowed && matches!(span.verb, Verb::Pub | Verb::Hpub) {
                self.waits_for_rate = true;
                return Ok(at);
            }
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
        self.shared.moves.forget(&self.outbox, &self.shared.interest);
        let live = self.client_info.live_subscriptions();
        let subscriptions = std::mem::take(&mut *self.client_info.subscriptions());
        if let Some(account) = self.account.take() {
            account.disconnect();
        }
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
            let scope = account::scope(self.account.as_ref());
            router.publish(&self.outbox, scope, &message, &last.found.recipients, interest);
            return Ok(());
        }
        let wrong = |error: standin_wire::WireError| CloseReason::Protocol(error.server_text());
        let frame = client::frame(bytes, span).map_err(wrong)?;
        if !self.is_connected() && self.policy.access.has_users() && !matches!(frame, Frame::Connect(_)) {
            self.log_in_without_connect(router)?;
        }
        match frame {
            Frame::Pong => self.took_pong = true,
            // The sidecar asks whether this node lives. Nothing is left to flush.
            Frame::Ping if self.leaves => router
                .stage
                .of(&self.outbox)
                .bytes
                .extend_from_slice(encode::PONG),
            Frame::Publish(message) => return self.publish(bytes, &message, router),
            Frame::Connect(_) | Frame::Sub(_) | Frame::Unsub(_) if self.leaves => {
                return Err(CloseReason::Protocol("Unknown Protocol Operation"));
            }
            Frame::Connect(json) => return self.connect(json, router),
            Frame::Sub(sub) => self.subscribe(&sub, router),
            Frame::Unsub(unsub) => self.unsubscribe(&unsub, router),
            Frame::Ping => {
                let shared = &self.shared;
                self.flush
                    .ping(&self.outbox, &shared.flush, &shared.interest, &mut router.stage);
                if !self.flush.is_started() {
                    self.answer_arrival(router);
                }
            }
            Frame::Move(json) => return self.take_step(json, router),
        }
        Ok(())
    }

    /// Handles a step of the client's move.
    fn take_step(&mut self, json: &[u8], router: &mut Router) -> Result<(), CloseReason> {
        let wrong = CloseReason::Protocol("Unknown Protocol Operation");
        let shared = Arc::clone(&self.shared);
        let (moves, interest) = (&shared.moves, &shared.interest);
        let taken = match Move::parse(json).map_err(|_| wrong)? {
            Move::Arrive { .. } if self.flush.has_subscribed() => Err("the client has subscriptions already"),
            Move::Arrive { id, from } => {
                let taken = moves.arrive(id, &from, &self.client_info, interest);
                self.arrives |= taken.is_ok();
                taken
            }
            Move::Leave { id, to } => {
                let taken = moves.leave(id, &to, &self.client_info, interest, &mut router.stage);
                self.leaves |= taken.is_ok();
                taken
            }
            Move::Go => {
                moves.go(&self.outbox, interest, &mut router.stage);
                Ok(())
            }
            Move::Ready | Move::Left | Move::Settled | Move::Refused { .. } => return Err(wrong),
        };
        if let Err(why) = taken {
            self.send_step(&Move::Refused { why: why.to_owned() }, router);
        }
        Ok(())
    }

    /// Tells the sidecar of a client that arrives whether every node knows the client's subscriptions. Called after the PONG.
    fn answer_arrival(&mut self, router: &mut Router) {
        if !std::mem::take(&mut self.arrives) {
            return;
        }
        let step = if self.flush.is_known_everywhere(&self.shared.interest.routes) {
            Move::Ready
        } else {
            let why = "a node has not confirmed the subscriptions in time".to_owned();
            Move::Refused { why }
        };
        self.send_step(&step, router);
    }

    fn send_step(&self, step: &Move, router: &mut Router) {
        step.encode(&mut router.stage.of(&self.outbox).bytes);
    }

    fn connect(&mut self, json: &[u8], router: &mut Router) -> Result<(), CloseReason> {
        let wrong = |_| CloseReason::Protocol("Unknown Protocol Operation");
        let mut connect = match &self.last_connect {
            None => Connect::parse(json),
            Some(last) => Connect::parse_over(last, json),
        }
        .map_err(wrong)?;
        match self
            .policy
            .access
            .admit(&connect, &self.nonce, self.certificate_names.as_deref())
        {
            Admission::Admitted(user) => self.admitted(connect, user, router),
            Admission::Refused => {
                self.label(&mut connect, None);
                Err(CloseReason::AuthorizationViolation)
            }
            Admission::Hashed(user, given) => {
                // As in nats-server, the time for CONNECT ends with CONNECT.
                let until = Instant::now() + self.policy.auth_timeout.max(CHECK_TIME_MIN);
                let checker = &self.shared.passwords;
                self.pending_login = Some(Box::new(PendingLogin {
                    verdict: checker.begin(&user, given, &self.outbox, until),
                    connect,
                    user,
                    until,
                }));
                Ok(())
            }
        }
    }

    /// Completes a login whose password has been checked.
    fn finish_login(&mut self, router: &mut Router) -> Result<(), CloseReason> {
        let verdict = self
            .pending_login
            .as_ref()
            .and_then(|login| login.verdict.get().copied());
        let Some(is_right) = verdict else { return Ok(()) };
        let Some(login) = self.pending_login.take() else {
            return Ok(());
        };
        let PendingLogin {
            mut connect, user, ..
        } = *login;
        // The settings may have changed since.
        let user = self
            .policy
            .access
            .still(&user)
            .filter(|_| is_right)
            .map(Arc::clone);
        if user.is_none() {
            self.label(&mut connect, None);
            return Err(CloseReason::AuthorizationViolation);
        }
        self.admitted(connect, user, router)
    }

    /// Logs in a client whose first frame is not CONNECT. The client becomes the user for clients without credentials.
    fn log_in_without_connect(&mut self, router: &mut Router) -> Result<(), CloseReason> {
        let connect = Connect::parse(b"{}").map_err(|_| CloseReason::AuthorizationViolation)?;
        match self
            .policy
            .access
            .admit(&connect, &self.nonce, self.certificate_names.as_deref())
        {
            Admission::Admitted(user) => self.enter(connect, user, router),
            Admission::Refused | Admission::Hashed(..) => Err(CloseReason::AuthorizationViolation),
        }
    }

    /// Applies the CONNECT of a client that is admitted as `user`.
    fn admitted(
        &mut self,
        connect: Connect,
        user: Option<Arc<User>>,
        router: &mut Router,
    ) -> Result<(), CloseReason> {
        if !(0..=PROTOCOL_MAX).contains(&connect.protocol) {
            return Err(CloseReason::InvalidProtocol);
        }
        if connect.no_responders && !connect.headers {
            return Err(CloseReason::NoRespondersWithoutHeaders);
        }
        self.enter(connect, user, router)?;
        self.ok(router);
        Ok(())
    }

    fn enter(
        &mut self,
        mut connect: Connect,
        user: Option<Arc<User>>,
        router: &mut Router,
    ) -> Result<(), CloseReason> {
        if self.is_connected() {
            self.end_subscriptions(|_| true, router);
        }
        self.set_account(user.as_deref())?;
        self.label(&mut connect, user.as_deref());
        self.set_user(user);
        self.set_limits();
        self.verbose = connect.verbose;
        // A pedantic client's subject must be checked, even if the line is that of the last publish (`set_user` forgets that line).
        self.pedantic = connect.pedantic;
        self.no_responders = connect.no_responders;
        self.headers = connect.headers;
        self.outbox.echo.store(connect.echo, Relaxed);
        self.outbox.takes_headers.store(connect.headers, Relaxed);
        self.client_info
            .accepts_info
            .store(connect.protocol >= 1, Relaxed);
        self.last_connect = Some(Box::new(connect));
        Ok(())
    }

    /// Moves the client into the account of `user`.
    ///
    /// # Errors
    /// [`CloseReason::AccountConnections`] if the account has its maximum of clients.
    fn set_account(&mut self, user: Option<&User>) -> Result<(), CloseReason> {
        if let Some(account) = self.account.take() {
            account.disconnect();
        }
        let account = user.and_then(|user| self.shared.accounts.get(&user.account));
        self.outbox.account.store(account.clone());
        if account.as_ref().is_some_and(|account| !account.connect()) {
            return Err(CloseReason::AccountConnections);
        }
        self.account = account;
        Ok(())
    }

    /// Sets the labels on the client's info from the client's CONNECT, and removes them from `connect`.
    fn label(&self, connect: &mut Connect, user: Option<&User>) {
        let has_users = self.policy.access.has_users();
        let given = || connect.user.clone().or_else(|| connect.nkey.clone());
        let name = user.map(|user| user.name.clone()).filter(|name| !name.is_empty());
        let user = name.or_else(given).filter(|_| has_users);
        self.client_info.set_labels(Labels {
            name: connect.name.take(),
            lang: connect.lang.take(),
            version: connect.version.take(),
            user,
        });
    }

    /// Ends the subscriptions that `ends` selects.
    fn end_subscriptions(
        &mut self,
        ends: impl Fn(&Subscription) -> bool,
        router: &mut Router,
    ) -> Vec<Arc<Subscription>> {
        let ended = self
            .client_info
            .subscriptions()
            .extract_if(|one| ends(one))
            .collect::<Vec<_>>();
        let shared = Arc::clone(&self.shared);
        for subscription in &ended {
            let recorded = shared.interest.unsubscribe(subscription);
            self.record(recorded, router);
        }
        ended
    }

    /// Ends the subscriptions that the permissions do not allow any more, with an `-ERR` for each, as in `nats-server`. The others get the
    /// filters of the new permissions.
    fn end_forbidden_subscriptions(&mut self, router: &mut Router) {
        let permissions = self.permissions.clone();
        let forbids = |one: &Subscription| {
            let (_, subject) = account::split(one.subject());
            let rules = permissions
                .as_ref()
                .map(|permissions| &permissions.subjects.subscribe);
            rules.is_some_and(|rules| !rules.allows_subscription(subject, one.queue()))
        };
        for ended in self.end_subscriptions(forbids, router) {
            let (_, subject) = account::split(ended.subject());
            let sid = String::from_utf8_lossy(ended.sid());
            let violation = Violation::Subscription(subject, None);
            self.error(&format!("{violation} (sid {sid:?})"), router);
        }
        for subscription in self.client_info.subscriptions().iter() {
            subscription.set_filter(self.filter(account::split(subscription.subject()).1));
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
        if self.over_rate {
            self.refuse_message(router);
            return Ok(());
        }
        self.messages_in += 1;
        self.bytes_in += (message.payload.len() + message.headers.map_or(0, <[u8]>::len)) as u64;
        if self.pedantic && !valid_publish(message.subject) {
            self.error("Invalid Publish Subject", router);
        }
        let Some(by_rule) = self.may_publish(message.subject) else {
            self.forbidden(Violation::Publish(message.subject), router);
            return Ok(());
        };
        // As in nats-server, `+OK` is sent before the message, because the client may get its own message.
        self.ok(router);
        let shared = Arc::clone(&self.shared);
        let interest = &shared.interest;
        let scope = account::scope(self.account.as_ref());
        let found = router.cache.find(
            account::scoped(scope, message.subject, &mut self.scoped),
            interest,
        );
        let delivered = router.publish(&self.outbox, scope, message, &found.recipients, interest);
        if !delivered
            && self.no_responders
            && let Some(reply) = message.reply
        {
            router.no_responders(&self.outbox, scope, reply, interest);
        }
        // The fast path for a repeated line does not check the login. A client that was not admitted never takes it, because it is
        // still pedantic.
        let plain = message.headers.is_none() && message.reply.is_none() && !self.pedantic && by_rule;
        self.last = plain.then(|| {
            let start = message.subject.as_ptr().addr() - bytes.as_ptr().addr();
            LastPublish {
                subject: start..start + message.subject.len(),
                found,
            }
        });
        Ok(())
    }

    /// Returns whether the client may publish to `subject`: `Some(true)` if a rule allows it, `Some(false)` if the message is an answer to
    /// a request.
    fn may_publish(&self, subject: &[u8]) -> Option<bool> {
        let Some(permissions) = &self.permissions else {
            return Some(true);
        };
        if permissions.subjects.publish.allows_subject(subject) {
            return Some(true);
        }
        let replies = self.replies.as_ref()?;
        replies.take(subject, Instant::now()).then_some(false)
    }

    /// Returns the filter of a subscription of this client to `pattern`.
    fn filter(&self, pattern: &[u8]) -> Option<Arc<DeliveryFilter>> {
        DeliveryFilter::new(self.permissions.as_ref()?, self.replies.as_ref(), pattern)
    }

    /// Sends the `-ERR` for a frame that the permissions do not allow, and logs it.
    #[cold]
    fn forbidden(&self, violation: Violation<'_>, router: &mut Router) {
        let user = self.user.as_ref().map_or("", |user| &user.name);
        warn!(client = self.outbox.id, user, "frame refused: {violation}");
        self.shared.violations.fetch_add(1, Relaxed);
        self.error(&violation.to_string(), router);
    }

    /// Refuses a message, because the account exceeds a rate.
    #[cold]
    fn refuse_message(&self, router: &mut Router) {
        if let Some(account) = &self.account {
            account.refused.fetch_add(1, Relaxed);
        }
        self.error(RATE_EXCEEDED, router);
    }

    fn subscribe(&mut self, sub: &Sub<'_>, router: &mut Router) {
        if !valid_subscription(sub.subject) {
            return self.error("Invalid Subject", router);
        }
        let rules = self
            .permissions
            .as_ref()
            .map(|permissions| &permissions.subjects.subscribe);
        if rules.is_some_and(|rules| !rules.allows_subscription(sub.subject, sub.queue)) {
            return self.forbidden(Violation::Subscription(sub.subject, sub.queue), router);
        }
        let mut subscriptions = self.client_info.subscriptions();
        if subscriptions.len() >= self.sweep_at {
            subscriptions.retain(|subscription| !subscription.is_over());
            self.sweep_at = (2 * subscriptions.len()).max(SWEEP_MIN);
        }
        let limits = [
            self.policy.subscriptions_max,
            self.account
                .as_ref()
                .map_or(0, |account| account.limits().subscriptions_max),
        ];
        let max = limits.into_iter().filter(|max| *max > 0).min().unwrap_or(0);
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
        let (filter, scope) = (self.filter(sub.subject), account::scope(self.account.as_ref()));
        let subject = [scope, sub.subject].concat();
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
                let added = Subscription::new(client, &subject, sub.queue, sub.sid);
                let arrives = sub.queue.is_some() && self.outbox.is_arriving();
                let added = Arc::new(if arrives { added.uncounted() } else { added });
                added.set_filter(filter);
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

/// Returns whether `bytes` may be the beginning of CONNECT. As in `nats-server`, a client that must log in may begin with nothing else. So
/// an unknown client can make the node keep a control line, but not a payload.
fn begins_connect(bytes: &[u8]) -> bool {
    bytes
        .first()
        .is_none_or(|first| first.eq_ignore_ascii_case(&b'C'))
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
