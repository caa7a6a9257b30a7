//! Accounts: several groups of users share one cluster, and each has a subject space of its own.
//!
//! *The rule.* Inside the node and on the routes, a subject of an account begins with a token of its own, its *scope*: a space, and the
//! name of the account. So `orders.new` of the account `A` is ` A.orders.new`. A client cannot write a scope, because a space ends a
//! subject in the protocol. A wildcard does not match a scope (`subscriptions/tree.rs`). The subjects of the default account have no
//! scope, so a node with one account does nothing more than without this file.
//!
//! So one table of subscriptions, one cache and one mesh serve all accounts. Two accounts are as separate as two different subjects.
//!
//! *Rates.* An account may have limits on the messages and bytes in a second. Each is a credit that grows with time, up to one second's
//! worth. A publish is charged to the credits of its account, and so are its deliveries to clients of the same node. While a credit
//! is overdrawn, the next publish of each client waits (`over_rate = "wait"`), or is refused (`"refuse"`). A client that does not
//! publish is not affected. The limits hold for each node. A message is charged only on the node on which it was published. If the
//! nodes that receive it over a route held it back, they would also hold back the messages of other accounts on that route.

use std::collections::BTreeMap;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

/// Name of the default account, as `nats-server` has it.
pub(crate) const DEFAULT: &str = "$G";
/// First byte of a scope.
const MARK: u8 = b' ';

/// Limits of one account on one node. 0 means no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct AccountLimits {
    /// Maximum number of clients.
    pub(crate) connections_max: u64,
    /// Maximum number of subscriptions of one client, as in `nats-server`.
    pub(crate) subscriptions_max: usize,
    /// Maximum size of a message.
    pub(crate) payload_bytes_max: usize,
    /// Maximum rates, in the order of [`Account::rates`].
    pub(crate) per_second: [u64; 4],
    /// Whether messages above a rate are refused. Otherwise the next publish of each client waits.
    pub(crate) refuses: bool,
}

/// A credit of messages or bytes that grows with time.
#[derive(Debug, Default)]
struct Rate {
    /// The time at which the credit is whole again, in nanoseconds since the start of the account.
    whole_at: AtomicU64,
}

impl Rate {
    fn charge(&self, number: u64, per_second: u64, now: u64) {
        if let Some(costs) = number.saturating_mul(1_000_000_000).checked_div(per_second) {
            let later = |whole_at: u64| Some(whole_at.max(now).saturating_add(costs));
            // The closure always returns a value.
            let _ = self.whole_at.fetch_update(AcqRel, Acquire, later);
        }
    }

    /// Returns the time for which the credit is still overdrawn.
    fn overdrawn(&self, per_second: u64, now: u64) -> u64 {
        match per_second {
            0 => 0,
            _ => self.whole_at.load(Acquire).saturating_sub(now + 1_000_000_000),
        }
    }
}

/// One account other than the default one, on this node.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) name: String,
    /// The first token of the account's subjects, with its dot.
    scope: Box<[u8]>,
    limits: ArcSwap<AccountLimits>,
    /// Number of connected clients.
    pub(crate) connections: AtomicU64,
    /// Messages in, bytes in, messages out, bytes out: their numbers and their rates.
    totals: [AtomicU64; 4],
    rates: [Rate; 4],
    /// Messages that were refused because of a rate.
    pub(crate) refused: AtomicU64,
    started: Instant,
}

impl Account {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            scope: [&[MARK], name.as_bytes(), b"."].concat().into(),
            limits: ArcSwap::default(),
            connections: AtomicU64::new(0),
            totals: Default::default(),
            rates: Default::default(),
            refused: AtomicU64::new(0),
            started: Instant::now(),
        }
    }

    pub(crate) fn limits(&self) -> AccountLimits {
        **self.limits.load()
    }

    /// Counts a client that logs in. Returns `false` if the account has its maximum of clients.
    pub(crate) fn connect(&self) -> bool {
        let max = self.limits().connections_max;
        let room = |live| (max == 0 || live < max).then_some(live + 1);
        self.connections.fetch_update(Relaxed, Relaxed, room).is_ok()
    }

    pub(crate) fn disconnect(&self) {
        self.connections.fetch_sub(1, Relaxed);
    }

    /// Counts messages and bytes that a client has sent, and charges them to the rates, together with the deliveries that they caused on
    /// this node.
    pub(crate) fn published(&self, messages: u64, bytes: u64, deliveries: (u64, u64)) {
        self.totals[0].fetch_add(messages, Relaxed);
        self.totals[1].fetch_add(bytes, Relaxed);
        let per_second = self.limits().per_second;
        if per_second != [0; 4] {
            let now = self.now();
            let charges = [messages, bytes, deliveries.0, deliveries.1];
            for ((rate, number), per_second) in self.rates.iter().zip(charges).zip(per_second) {
                rate.charge(number, per_second, now);
            }
        }
    }

    /// Counts messages and bytes that a client was sent, from whichever node.
    pub(crate) fn sent(&self, messages: u64, bytes: u64) {
        self.totals[2].fetch_add(messages, Relaxed);
        self.totals[3].fetch_add(bytes, Relaxed);
    }

    /// Returns the numbers of messages in, bytes in, messages out and bytes out since the start.
    pub(crate) fn totals(&self) -> [u64; 4] {
        self.totals.each_ref().map(|total| total.load(Relaxed))
    }

    /// Returns how long a rate of the account is still exceeded, if it is.
    pub(crate) fn exceeded_for(&self) -> Option<Duration> {
        let per_second = self.limits().per_second;
        if per_second == [0; 4] {
            return None;
        }
        let now = self.now();
        let rates = self.rates.iter().zip(per_second);
        let longest = rates
            .map(|(rate, per_second)| rate.overdrawn(per_second, now))
            .max();
        longest.filter(|nanos| *nanos > 0).map(Duration::from_nanos)
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }
}

/// The accounts of this node other than the default one. An account that a reload removes is kept, because its clients may still be
/// closing.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    by_name: Mutex<BTreeMap<String, Arc<Account>>>,
}

impl Accounts {
    /// Applies the accounts of the settings.
    pub(crate) fn configure<'a>(&self, accounts: impl Iterator<Item = (&'a str, AccountLimits)>) {
        let mut by_name = self.lock();
        for (name, limits) in accounts.filter(|(name, _)| *name != DEFAULT) {
            let account = by_name
                .entry(name.to_owned())
                .or_insert_with(|| Arc::new(Account::new(name)));
            account.limits.store(Arc::new(limits));
        }
    }

    /// Returns the account; `None` for the default one.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Account>> {
        self.lock().get(name).map(Arc::clone)
    }

    /// Returns whether there are no accounts other than the default one.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Account>> {
        self.lock().values().map(Arc::clone).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Account>>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether `name` can be the name of an account: it must fit into one token of a subject.
pub(crate) fn is_name(name: &str) -> bool {
    let fits = |character: char| !character.is_whitespace() && !character.is_control() && character != '.';
    !name.is_empty() && name.len() <= 256 && name.chars().all(fits)
}

/// Returns the scope of an account's subjects, with its dot; empty for the default account.
pub(crate) fn scope(account: Option<&Arc<Account>>) -> &[u8] {
    account.map_or(b"", |account| &account.scope)
}

/// Returns `subject` in this scope. `buffer` holds the result if the scope is not empty.
pub(crate) fn scoped<'a>(scope: &[u8], subject: &'a [u8], buffer: &'a mut Vec<u8>) -> &'a [u8] {
    if scope.is_empty() {
        return subject;
    }
    buffer.clear();
    buffer.extend_from_slice(scope);
    buffer.extend_from_slice(subject);
    buffer
}

/// Splits an inner subject into its scope and the subject as clients see it.
#[inline]
pub(crate) fn split(subject: &[u8]) -> (&[u8], &[u8]) {
    if subject.first() != Some(&MARK) {
        return (b"", subject);
    }
    let end = subject.iter().position(|byte| *byte == b'.');
    subject.split_at(end.map_or(subject.len(), |dot| dot + 1))
}

/// Returns the name of the account of an inner subject, and the subject as clients see it.
pub(crate) fn name_and_subject(subject: &[u8]) -> (&[u8], &[u8]) {
    match split(subject) {
        ([], subject) => (DEFAULT.as_bytes(), subject),
        (scope, subject) => (
            &scope[1..scope.len() - usize::from(scope.ends_with(b"."))],
            subject,
        ),
    }
}

/// Returns whether the token is a scope.
#[inline]
pub(crate) fn is_scope(token: &[u8]) -> bool {
    token.first() == Some(&MARK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_added_and_split_off() {
        let accounts = Accounts::default();
        accounts.configure(
            [
                ("A", AccountLimits::default()),
                (DEFAULT, AccountLimits::default()),
            ]
            .into_iter(),
        );
        let account = accounts.get("A");
        assert!(account.is_some() && accounts.get(DEFAULT).is_none());
        let mut buffer = Vec::new();
        let inner = scoped(scope(account.as_ref()), b"a.b", &mut buffer).to_vec();
        assert_eq!(inner, b" A.a.b");
        assert_eq!(split(&inner), (&b" A."[..], &b"a.b"[..]));
        assert_eq!(name_and_subject(&inner), (&b"A"[..], &b"a.b"[..]));
        assert_eq!(scoped(scope(None), b"a.b", &mut buffer), b"a.b");
        assert_eq!(name_and_subject(b"a.b"), (&b"$G"[..], &b"a.b"[..]));
        for bad in ["", "a b", "a.b", "a\tb", "a\u{a0}b"] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_rate_allows_one_second_of_messages_at_once_and_then_holds() {
        let rate = Rate::default();
        let second = 1_000_000_000;
        rate.charge(1000, 1000, 5 * second);
        assert_eq!(rate.overdrawn(1000, 5 * second), 0);
        rate.charge(500, 1000, 5 * second);
        assert_eq!(rate.overdrawn(1000, 5 * second), second / 2);
        assert_eq!(rate.overdrawn(1000, 5 * second + second / 2), 0);
        // Credit does not grow beyond one second's worth.
        rate.charge(2000, 1000, 60 * second);
        assert_eq!(rate.overdrawn(1000, 60 * second), second);
        assert_eq!(rate.overdrawn(0, 60 * second), 0);
    }

    #[test]
    fn an_account_is_limited_in_its_clients() {
        let account = Account::new("A");
        account.limits.store(Arc::new(AccountLimits {
            connections_max: 1,
            ..AccountLimits::default()
        }));
        assert!(account.connect() && !account.connect());
        account.disconnect();
        assert!(account.connect());
    }
}
