//! Publishers and subscribers of one server or cluster at full speed: publish only, fan-out, many subjects, queue groups.
//!
//! As in `flow`, a window limits the bytes in flight of each subject, so no server has a reason to drop a message, and every message
//! must be received.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Instant;

use clap::Args;
use serde_json::json;

use crate::Outcome;
use crate::connection::{Connection, publish, publish_with_headers};
use crate::places::Places;
use crate::window::{LOOK_AGAIN, LOOK_FOR_END, SILENCE_MAX};

/// Bytes of one write of a publisher.
const BATCH_BYTES: usize = 64 * 1024;
/// Publishers and subscribers of one server or cluster at full speed.
#[derive(Debug, Clone, Args)]
pub(crate) struct Throughput {
    #[command(flatten)]
    places: Places,
    /// Number of publishers.
    #[arg(long, default_value_t = 1)]
    publishers: usize,
    /// Number of subscribers of each subject. With 0 the measurement only publishes.
    #[arg(long, default_value_t = 1)]
    subscribers: usize,
    /// The subscribers of a subject are one queue group.
    #[arg(long)]
    queue: bool,
    /// Each publisher has its own subject and subscribers.
    #[arg(long)]
    own_subjects: bool,
    /// Messages have headers.
    #[arg(long)]
    headers: bool,
    /// Bytes in each message.
    #[arg(long, default_value_t = 128)]
    payload: usize,
    /// Number of messages of each publisher.
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// Limit on the bytes in flight between the publishers and the subscribers of a subject.
    #[arg(long, default_value_t = 2 * 1024 * 1024)]
    window_bytes: usize,
}

/// Counts of one subject.
#[derive(Debug)]
struct Subject {
    name: String,
    queue: bool,
    /// Number of messages that will be published.
    total: u64,
    sent: AtomicU64,
    received: Vec<AtomicU64>,
}

impl Subject {
    /// Returns the number of messages that the slowest subscriber, or the queue group, has received.
    fn passed(&self) -> u64 {
        let received = self.received.iter().map(|count| count.load(Relaxed));
        if self.received.is_empty() {
            self.sent.load(Relaxed)
        } else if self.queue {
            received.sum()
        } else {
            received.min().unwrap_or(0)
        }
    }

    fn is_done(&self) -> bool {
        self.passed() >= self.total
    }

    /// Counts `count` more messages as sent if the window has room for them. Returns whether it has.
    fn take(&self, count: u64, window: u64) -> bool {
        // One atomic step, because several publishers share the window.
        let take = |sent| (sent + count <= self.passed() + window).then_some(sent + count);
        self.sent.fetch_update(Relaxed, Relaxed, take).is_ok()
    }
}

impl Throughput {
    /// Measures, and prints the messages published and delivered, and those published per second.
    pub(crate) fn run(self) -> Outcome<()> {
        let subjects: Vec<Arc<Subject>> = (0..if self.own_subjects { self.publishers } else { 1 })
            .map(|number| Arc::new(self.subject(number)))
            .collect();
        let mut threads = Vec::new();
        for subject in &subjects {
            for number in 0..self.subscribers {
                let mut connection = Connection::open_for(self.places.subscriber(number), self.headers)?;
                let queue = if self.queue { " crew" } else { "" };
                connection.subscribe(&format!("{}{queue}", subject.name))?;
                let subject = Arc::clone(subject);
                threads.push(thread::spawn(move || receive(&mut connection, &subject, number)));
            }
        }
        self.places
            .wait_for_interest(&format!("load.{}", std::process::id()))?;
        let open = |number| Connection::open_for(self.places.publisher(number), self.headers);
        let publishers = (0..self.publishers).map(open);
        let publishers: Vec<Connection> = publishers.collect::<std::io::Result<_>>()?;
        let started = Instant::now();
        for (number, mut connection) in publishers.into_iter().enumerate() {
            let subject = Arc::clone(&subjects[number % subjects.len()]);
            let work = self.clone();
            threads.push(thread::spawn(move || work.send(&mut connection, &subject)));
        }
        for one in threads {
            one.join().map_err(|_| "a publisher or subscriber failed")??;
        }
        let seconds = started.elapsed().as_secs_f64();
        let published = self.messages * self.publishers as u64;
        let copies = if self.queue { 1 } else { self.subscribers as u64 };
        crate::print(&json!({
            "measurement": "throughput",
            "payload_bytes": self.payload,
            "messages": published,
            "delivered": published * copies.min(self.subscribers as u64),
            "seconds": seconds,
            "messages_per_second": published as f64 / seconds,
        }))
    }

    fn subject(&self, number: usize) -> Subject {
        let publishers = if self.own_subjects {
            1
        } else {
            self.publishers as u64
        };
        Subject {
            name: format!("load.{}.{number}", std::process::id()),
            queue: self.queue,
            total: self.messages * publishers,
            sent: AtomicU64::new(0),
            received: (0..self.subscribers).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn send(&self, connection: &mut Connection, subject: &Subject) -> std::io::Result<()> {
        let payload = vec![b'x'; self.payload];
        let frame = if self.headers {
            publish_with_headers(&subject.name, &payload)
        } else {
            publish(&subject.name, None, &payload)
        };
        let window = (self.window_bytes / frame.len()).max(1) as u64;
        let batch_max = ((BATCH_BYTES / frame.len()) as u64).clamp(1, window);
        let batch = frame.repeat(batch_max as usize);
        let mut left = self.messages;
        while left > 0 {
            let count = left.min(batch_max);
            if !subject.take(count, window) {
                thread::park_timeout(LOOK_AGAIN);
                continue;
            }
            connection.send(&batch[..frame.len() * count as usize])?;
            left -= count;
        }
        connection.flush()
    }
}

fn receive(connection: &mut Connection, subject: &Subject, number: usize) -> std::io::Result<()> {
    let mut count = 0;
    let mut last_received = Instant::now();
    while if subject.queue {
        !subject.is_done()
    } else {
        count < subject.total
    } {
        let before = count;
        connection.receive_within(LOOK_FOR_END, |_| count += 1)?;
        subject.received[number].store(count, Relaxed);
        if count > before {
            last_received = Instant::now();
        } else if last_received.elapsed() > SILENCE_MAX {
            let total = subject.total;
            return Err(std::io::Error::other(format!("{count} of {total} messages came")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishers_of_one_subject_together_stay_within_the_window() {
        const WINDOW: u64 = 100_000;
        let subject = Subject {
            name: String::new(),
            queue: false,
            total: u64::MAX,
            sent: AtomicU64::new(0),
            received: vec![AtomicU64::new(0)],
        };
        for _ in 0..20 {
            subject.sent.store(0, Relaxed);
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| while subject.take(1, WINDOW) {});
                }
            });
            assert_eq!(subject.sent.load(Relaxed), WINDOW);
        }
    }
}
