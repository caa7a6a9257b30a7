//! Messages that flow while a test does something else: a publisher and a receiver, each a task around a raw client.
//!
//! Neither minds that its node dies; it then just ends, and the [`Ledger`] and the [`Receipts`] tell how far it came.

use crate::ledger::{Ledger, Receipts};
use crate::raw::{RawClient, pub_frame};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A peer that takes nothing for so long has died.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// How long a receiver reads at a time.
const READ_FOR: Duration = Duration::from_millis(5);

/// A task that runs until it is stopped, or its client's connection ends; ended too when it is dropped.
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
            Err(error) => panic!("a flow failed: {error}"),
        }
    }
}

impl<T> Drop for Flow<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A client that publishes a numbered message again and again.
#[derive(Debug)]
pub struct Publishing(Flow<(RawClient, Ledger)>);

impl Publishing {
    /// Starts it: a message every so often, in a ledger of its own.
    pub fn start(mut client: RawClient, publisher: &str, subject: &str, every: Duration) -> Self {
        let (publisher, subject) = (publisher.to_owned(), subject.to_owned());
        let (stop, mut stopped) = oneshot::channel();
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        let task = tokio::spawn(async move {
            let mut ledger = Ledger::new();
            while !is_over(&mut stopped) && client.ending().is_none() {
                let frame = pub_frame(&subject, ledger.next(&publisher));
                if client.send_until_blocked(&frame, WRITE_PATIENCE).await < frame.len() {
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

    /// How many it has published so far.
    pub fn count(&self) -> u64 {
        self.0.count.load(Relaxed)
    }

    /// Ends it: its client, and what it has published. What was written last to a node that died is among it.
    pub async fn stop(self) -> (RawClient, Ledger) {
        self.0.stop().await
    }
}

/// A client that has subscribed, and takes all that comes.
#[derive(Debug)]
pub struct Receiving(Flow<(RawClient, Receipts)>);

impl Receiving {
    /// Starts it; `name` appears in every failure.
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

    /// How many messages it has got so far.
    pub fn count(&self) -> u64 {
        self.0.count.load(Relaxed)
    }

    /// Ends it: its client, and what it has got. To get the rest, see [`Receipts::gather`].
    pub async fn stop(self) -> (RawClient, Receipts) {
        self.0.stop().await
    }
}

fn is_over(stopped: &mut oneshot::Receiver<()>) -> bool {
    !matches!(stopped.try_recv(), Err(oneshot::error::TryRecvError::Empty))
}
