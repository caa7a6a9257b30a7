//! Numbered messages in the background of a test: a publisher and a receiver, each a task around a raw client.
//!
//! When the node dies, both tasks end without a failure. The [`Ledger`] and the [`Receipts`] then have what was sent and received.

use crate::ledger::{Ledger, Receipts};
use crate::raw::{RawClient, pub_frame};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::task::JoinHandle;

/// A peer that accepts no bytes for this long is dead.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Duration of one read of a receiver.
const READ_FOR: Duration = Duration::from_millis(5);

/// Timeout for the last messages of a flow.
const LAST_TIMEOUT: Duration = Duration::from_secs(30);

/// A client that publishes numbered messages at an interval.
pub type Publishing = Flow<Ledger>;

/// A client that receives numbered messages.
pub type Receiving = Flow<Receipts>;

/// A task that runs until it is stopped or dropped, or until its client's connection ends.
#[derive(Debug)]
pub struct Flow<T> {
    progress: Arc<Progress>,
    task: JoinHandle<(RawClient, T)>,
}

#[derive(Debug, Default)]
struct Progress {
    count: AtomicU64,
    stopped: AtomicBool,
}

impl<T> Flow<T> {
    /// Returns the number of messages published or received so far.
    pub fn count(&self) -> u64 {
        self.progress.count.load(Relaxed)
    }

    /// Stops, and returns the client and its ledger or receipts. A ledger also counts the last writes to a node that died.
    /// Receipts may lack the last messages, which [`Receipts::gather`] reads.
    pub async fn stop(mut self) -> (RawClient, T) {
        self.progress.stopped.store(true, Relaxed);
        match (&mut self.task).await {
            Ok(result) => result,
            Err(error) => panic!("a publishing or receiving task failed: {error}"),
        }
    }
}

impl<T> Drop for Flow<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Flow<Ledger> {
    /// Starts to publish one message per interval `every`, counted in a new ledger.
    pub fn start(mut client: RawClient, publisher: &str, subject: &str, every: Duration) -> Self {
        let (publisher, subject) = (publisher.to_owned(), subject.to_owned());
        let progress = Arc::<Progress>::default();
        let own = Arc::clone(&progress);
        let task = tokio::spawn(async move {
            let mut ledger = Ledger::new();
            while !own.stopped.load(Relaxed) && client.ending().is_none() {
                let frame = pub_frame(&subject, ledger.next(&publisher));
                if client.send_until_blocked(&frame, WRITE_TIMEOUT).await < frame.len() {
                    break;
                }
                own.count.fetch_add(1, Relaxed);
                client.frames_for(every).await;
            }
            (client, ledger)
        });
        Self { progress, task }
    }
}

impl Flow<Receipts> {
    /// Starts to receive with a client that has subscribed. Every failure message contains `name`.
    pub fn start(mut client: RawClient, name: &str) -> Self {
        let mut receipts = Receipts::new(name);
        let progress = Arc::<Progress>::default();
        let own = Arc::clone(&progress);
        let task = tokio::spawn(async move {
            while !own.stopped.load(Relaxed) && client.ending().is_none() {
                let frames = client.frames_for(READ_FOR).await;
                receipts.take_all(&frames);
                own.count.store(receipts.total(), Relaxed);
            }
            (client, receipts)
        });
        Self { progress, task }
    }

    /// Stops, and reads the rest. Fails unless every message of the ledger was received once and in order.
    pub async fn has_all(self, ledger: &Ledger) {
        let (mut client, mut receipts) = self.stop().await;
        receipts.gather(&mut client, ledger, LAST_TIMEOUT).await;
        receipts.assert_whole(ledger);
    }
}
