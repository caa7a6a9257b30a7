//! Numbered messages: which were published, which arrived, and which were lost, duplicated or reordered.
//!
//! A [`Ledger`] numbers the messages of each publisher from 1, in their payload (`publisher 17`). [`Receipts`] are the messages
//! that one receiver got, in the order of arrival. Order is compared per publisher, because NATS promises no more.

use crate::conversation::TIMEOUT;
use crate::frame::Frame;
use crate::raw::RawClient;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::future::Future;
use std::panic::Location;
use std::time::Duration;
use tokio::time::Instant;

/// Limit on the messages that a failure names.
const NAMED_MAX: usize = 20;

/// How long [`Receipts::gather`] reads at a time.
const READ_FOR: Duration = Duration::from_millis(10);

/// A message by its publisher and its number.
pub type Entry = (String, u64);

/// How many messages each publisher published.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    published: BTreeMap<String, u64>,
}

impl Ledger {
    /// Returns an empty ledger.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one more message of this publisher, and returns its payload.
    pub fn next(&mut self, publisher: &str) -> String {
        let number = self.published.entry(publisher.to_owned()).or_default();
        *number += 1;
        format!("{publisher} {number}")
    }

    /// Publishes the next `count` messages of this publisher.
    pub async fn publish(&mut self, client: &mut RawClient, publisher: &str, subject: &str, count: u64) {
        for _ in 0..count {
            let payload = self.next(publisher);
            client.publish(subject, payload).await;
        }
    }

    /// Reads from `client` until every message of the ledger is received, and then up to the PONG of a PING. Fails unless each was
    /// received once and in order. Every failure message contains `name`.
    #[track_caller]
    pub fn reaches(&self, client: &mut RawClient, name: impl Into<String>) -> impl Future<Output = ()> {
        let at = Location::caller();
        let mut receipts = Receipts::new(name);
        async move {
            receipts.gather_at(at, client, self, TIMEOUT).await;
            receipts.take_all(&client.flush().await);
            receipts.assert_whole(self);
        }
    }

    /// Returns the number of messages of all publishers.
    pub fn total(&self) -> u64 {
        self.published.values().sum()
    }

    /// Adds the ledger of other publishers.
    pub fn add(&mut self, other: &Self) {
        for (publisher, count) in &other.published {
            let was = self.published.insert(publisher.clone(), *count);
            assert_eq!(was, None, "{publisher} is in both ledgers");
        }
    }
}

/// Messages that were received by one receiver, or by several that share the messages, such as a queue group.
#[derive(Clone, Debug)]
pub struct Receipts {
    name: String,
    /// The numbers received from each publisher, in the order of arrival.
    got: BTreeMap<String, Vec<u64>>,
}

impl Receipts {
    /// Returns empty receipts. Every failure message contains `name`.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            got: BTreeMap::new(),
        }
    }

    /// Adds a frame, if it is a message of a ledger. Returns whether it is.
    pub fn take(&mut self, frame: &Frame) -> bool {
        if !matches!(&*frame.verb(), "MSG" | "HMSG") {
            return false;
        }
        let payload = String::from_utf8_lossy(frame.payload());
        // Headers, if any, come before the entry and end with an empty line.
        let entry = payload.rsplit("\r\n").next().unwrap_or_default();
        let Some((publisher, number)) = entry.rsplit_once(' ') else {
            return false;
        };
        let Ok(number) = number.parse() else {
            return false;
        };
        self.got.entry(publisher.to_owned()).or_default().push(number);
        true
    }

    /// Adds those frames that are messages of a ledger.
    pub fn take_all<'a>(&mut self, frames: impl IntoIterator<Item = &'a Frame>) {
        for frame in frames {
            self.take(frame);
        }
    }

    /// Reads from `client` until every message of the ledger is received. Fails with the missing ones after `timeout`.
    #[track_caller]
    pub fn gather(
        &mut self,
        client: &mut RawClient,
        ledger: &Ledger,
        timeout: Duration,
    ) -> impl Future<Output = ()> {
        self.gather_at(Location::caller(), client, ledger, timeout)
    }

    async fn gather_at(
        &mut self,
        at: &Location<'_>,
        client: &mut RawClient,
        ledger: &Ledger,
        timeout: Duration,
    ) {
        let deadline = Instant::now() + timeout;
        while !self.missing(ledger).is_empty() {
            if Instant::now() > deadline || client.ending().is_some() {
                self.fail(at, "lack", &self.missing(ledger));
            }
            let frames = client.frames_for(READ_FOR).await;
            self.take_all(&frames);
        }
    }

    /// Adds the messages of another receiver. A message that both received counts as a duplicate.
    pub fn add(&mut self, other: &Self) {
        for (publisher, numbers) in &other.got {
            self.got.entry(publisher.clone()).or_default().extend(numbers);
        }
    }

    /// Returns the number of messages received, duplicates included.
    pub fn total(&self) -> u64 {
        self.got.values().map(|numbers| numbers.len() as u64).sum()
    }

    /// Returns the messages that were published and not received.
    pub fn missing(&self, ledger: &Ledger) -> Vec<Entry> {
        let mut missing = Vec::new();
        for (publisher, count) in &ledger.published {
            let got: BTreeSet<u64> = self.numbers(publisher).iter().copied().collect();
            let numbers = (1..=*count).filter(|number| !got.contains(number));
            missing.extend(numbers.map(|number| (publisher.clone(), number)));
        }
        missing
    }

    /// Returns the messages that were received more than once. Each is listed once.
    pub fn repeated(&self) -> Vec<Entry> {
        let mut repeated = BTreeSet::new();
        for (publisher, numbers) in &self.got {
            let mut seen = BTreeSet::new();
            let again = numbers.iter().filter(|number| !seen.insert(**number));
            repeated.extend(again.map(|number| (publisher.clone(), *number)));
        }
        repeated.into_iter().collect()
    }

    /// Returns the messages that were received after a later one of the same publisher.
    pub fn disordered(&self) -> Vec<Entry> {
        let mut disordered = Vec::new();
        for (publisher, numbers) in &self.got {
            let mut highest = 0;
            for number in numbers {
                if *number < highest {
                    disordered.push((publisher.clone(), *number));
                }
                highest = highest.max(*number);
            }
        }
        disordered
    }

    /// Returns the messages that were received and are not in the ledger.
    pub fn unknown(&self, ledger: &Ledger) -> Vec<Entry> {
        let mut unknown = Vec::new();
        for (publisher, numbers) in &self.got {
            let count = ledger.published.get(publisher).copied().unwrap_or_default();
            let beyond = numbers.iter().filter(|number| !(1..=count).contains(*number));
            unknown.extend(beyond.map(|number| (publisher.clone(), *number)));
        }
        unknown
    }

    /// Fails if a message was received twice, out of order, or without having been published. Messages may be missing.
    #[track_caller]
    pub fn assert_no_more(&self, ledger: &Ledger) {
        let at = Location::caller();
        self.must_be_none(at, "have more than once", &self.repeated());
        self.must_be_none(at, "have after a later one", &self.disordered());
        self.must_be_none(at, "have, though never published,", &self.unknown(ledger));
    }

    /// Fails unless every message was received exactly once and in order.
    #[track_caller]
    pub fn assert_whole(&self, ledger: &Ledger) {
        self.must_be_none(Location::caller(), "lack", &self.missing(ledger));
        self.assert_no_more(ledger);
    }

    /// Fails unless every message was received exactly once, in any order. For receipts of all members of a queue group together.
    #[track_caller]
    pub fn assert_each_once(&self, ledger: &Ledger) {
        let at = Location::caller();
        self.must_be_none(at, "lack", &self.missing(ledger));
        self.must_be_none(at, "have more than once", &self.repeated());
        self.must_be_none(at, "have, though never published,", &self.unknown(ledger));
    }

    fn numbers(&self, publisher: &str) -> &[u64] {
        self.got.get(publisher).map_or(&[], Vec::as_slice)
    }

    fn must_be_none(&self, at: &Location<'_>, what: &str, entries: &[Entry]) {
        if !entries.is_empty() {
            self.fail(at, what, entries);
        }
    }

    fn fail(&self, at: &Location<'_>, what: &str, entries: &[Entry]) -> ! {
        let mut named = String::new();
        for (publisher, number) in entries.iter().take(NAMED_MAX) {
            let _ = write!(named, " {publisher}/{number}");
        }
        panic!(
            "{at}: the receipts of {} {what} {} of the messages:{named}; {} received in all",
            self.name,
            entries.len(),
            self.total()
        );
    }
}
