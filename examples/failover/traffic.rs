//! The old client's traffic: one thread publishes numbered orders, another receives them and counts.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use examples::OldClient;

/// Time from one publish to the next: 500 a second.
const PAUSE: Duration = Duration::from_millis(2);
/// Time without a message after which the receiver checks whether publishing has stopped.
const END_CHECK_AFTER: Duration = Duration::from_millis(300);

/// The traffic of one client until [`stop`](Self::stop). It is displayed as the number of orders received so far
/// and the longest silence.
pub(crate) struct Traffic {
    counts: Arc<Counts>,
    threads: [JoinHandle<io::Result<()>>; 2],
}

#[derive(Debug, Default)]
struct Counts {
    published: AtomicU64,
    received: AtomicU64,
    received_twice: AtomicU64,
    longest_silence_us: AtomicU64,
    stop: AtomicBool,
}

impl Traffic {
    /// Starts publishing to `orders.*` and receiving.
    pub(crate) fn start(client: OldClient) -> io::Result<Self> {
        let counts = Arc::new(Counts::default());
        let (publisher, publishing, receiving) =
            (client.second_handle()?, Arc::clone(&counts), Arc::clone(&counts));
        Ok(Self {
            counts,
            threads: [
                thread::spawn(move || publish(publisher, &publishing)),
                thread::spawn(move || receive(client, &receiving)),
            ],
        })
    }

    /// Resets the longest silence.
    pub(crate) fn forget_silence(&self) {
        self.counts.longest_silence_us.store(0, Relaxed);
    }

    /// Stops publishing, receives the rest, and returns the totals in words.
    pub(crate) fn stop(self) -> Result<String, Box<dyn Error>> {
        self.counts.stop.store(true, Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| "a thread of the client panicked")??;
        }
        Ok(format!(
            "{} orders published, {} received, {} received twice",
            self.counts.published.load(Relaxed),
            self.counts.received.load(Relaxed),
            self.counts.received_twice.load(Relaxed),
        ))
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let received = self.counts.received.load(Relaxed);
        let silence_ms = self.counts.longest_silence_us.load(Relaxed) as f64 / 1000.0;
        write!(
            out,
            "{received} orders received so far, longest silence {silence_ms:.1} ms"
        )
    }
}

fn publish(mut client: OldClient, counts: &Counts) -> io::Result<()> {
    while !counts.stop.load(Relaxed) {
        let number = counts.published.fetch_add(1, Relaxed);
        client.publish(&format!("orders.{}", number % 7), &number.to_string())?;
        thread::park_timeout(PAUSE);
    }
    Ok(())
}

/// Receives until the publisher has stopped and nothing more arrives. The orders arrive in the order of their numbers, so a number
/// that is not above the highest one was received before.
fn receive(mut client: OldClient, counts: &Counts) -> io::Result<()> {
    let (mut last, mut highest) = (Instant::now(), None);
    loop {
        let Some(message) = client.next(END_CHECK_AFTER)? else {
            if counts.stop.load(Relaxed) {
                return Ok(());
            }
            continue;
        };
        let text = String::from_utf8_lossy(&message.payload);
        let number: u64 = text.parse().map_err(io::Error::other)?;
        if Some(number) <= highest {
            counts.received_twice.fetch_add(1, Relaxed);
        }
        highest = highest.max(Some(number));
        counts.received.fetch_add(1, Relaxed);
        let silence_us = last.elapsed().as_micros() as u64;
        counts.longest_silence_us.fetch_max(silence_us, Relaxed);
        last = Instant::now();
    }
}
