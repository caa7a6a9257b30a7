//! Numbered messages in the background of a test: a publisher and a receiver, each a task around a raw client.
//!
//! When the node dies, both tasks end without a failure. The [`Ledger`] and the [`Receipts`] then say how far they came.

use crate::ledger::{Ledger, Receipts};
use crate::raw::{RawClient, pub_frame};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A peer that accepts no bytes for this long is dead.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Duration of one read of a receiver.
const READ_FOR: Duration = Duration::from_millis(5);

/// A task that runs until it is stopped or dropped, or until its client's connection ends.
#[derive(Debug)]
struct Flow<T> {
    stop: Option<oneshot::Sender<()>>,
    count: Arc<AtomicU64>,
    task: JoinHandle<T>,
}

impl<T> Flow<T> {
    async fn stop(mut self) -> T {
        drop(self.stop.take());
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

/// A client that publishes numbered messages at an interval.
#[derive(Debug)]
pub struct Publishing(Flow<(RawClient, Ledger)>);

impl Publishing {
    /// Starts to publish one message per interval `every`, counted in a new ledger.
    pub fn start(mut client: RawClient, publisher: &str, subject: &str, every: Duration) -> Self {
        let (publisher, subject) = (publisher.to_owned(), subject.to_owned());
        let (stop, mut stopped) = oneshot::channel();
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        let task = tokio::spawn(async move {
            let mut ledger = Ledger::new();
            while !is_over(&mut stopped) && client.ending().is_none() {
                let frame = pub_frame(&subject, ledger.next(&publisher));
                if client.send_until_blocked(&frame, WRITE_TIMEOUT).await < frame.len() {
                    break;
                }
                counted.fetch_add(1, Relaxed);
                client.frames_for(every).await;
            }
            (client, ledger)
        });
        Self(Flow {
            stop: Some(stop),
            count,
            task,
        })
    }

    /// Returns the number of messages published so far.
    pub fn count(&self) -> u64 {
        self.0.count.load(Relaxed)
    }

    /// Stops, and returns the client and the ledger. The ledger includes the last writes to a node that died.
    pub async fn stop(self) -> (RawClient, Ledger) {
        self.0.stop().await
    }
}

/// A client that receives numbered messages.
#[derive(Debug)]
pub struct Receiving(Flow<(RawClient, Receipts)>);

impl Receiving {
    /// Starts to receive with a client that has subscribed. Every failure message contains `name`.
    pub fn start(mut client: RawClient, name: &str) -> Self {
        let mut receipts = Receipts::new(name);
        let (stop, mut stopped) = oneshot::channel();
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        let task = tokio::spawn(async move {
            while !is_over(&mut stopped) && client.ending().is_none() {
                let frames = client.frames_for(READ_FOR).await;
                receipts.take_all(&frames);
                counted.store(receipts.total(), Relaxed);
            }
            (client, receipts)
        });
        Self(Flow {
            stop: Some(stop),
            count,
            task,
        })
    }

    /// Returns the number of messages received so far.
    pub fn count(&self) -> u64 {
        self.0.count.load(Relaxed)
    }

    /// Stops, and returns the client and the receipts. [`Receipts::gather`] reads the rest.
    pub async fn stop(self) -> (RawClient, Receipts) {
        self.0.stop().await
    }
}

fn is_over(stopped: &mut oneshot::Receiver<()>) -> bool {
    !matches!(stopped.try_recv(), Err(oneshot::error::TryRecvError::Empty))
}
