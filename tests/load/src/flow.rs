//! Publish → subscribe at full speed. A window limits the bytes in flight, so no server has a reason to drop a message, and the
//! subscriber must receive every one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use crate::Outcome;
use crate::connection::{Connection, publish};
use crate::ends::Ends;

/// Bytes that the publisher sends in one write.
const BATCH_BYTES: usize = 64 * 1024;
/// Pause of the publisher while the window is full, unless the subscriber wakes it earlier.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// One publisher and one subscriber at full speed.
#[derive(Debug, Args)]
pub(crate) struct Flow {
    #[command(flatten)]
    ends: Ends,
    /// Bytes in each message.
    #[arg(long, default_value_t = 128)]
    payload: usize,
    /// Number of messages.
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// Limit on the bytes in flight between publisher and subscriber.
    #[arg(long, default_value_t = 2 * 1024 * 1024)]
    window_bytes: usize,
}

impl Flow {
    /// Measures, and prints messages per second.
    pub(crate) fn run(self) -> Outcome<()> {
        let subject = format!("load.{}", std::process::id());
        let (mut publisher, mut subscriber) = self.ends.connect(&subject)?;

        let received = Arc::new(AtomicU64::new(0));
        let frame = publish(&subject, None, &vec![b'x'; self.payload]);
        let started = Instant::now();
        let sending = {
            let received = Arc::clone(&received);
            let window_messages = (self.window_bytes / frame.len()).max(1) as u64;
            let messages = self.messages;
            thread::spawn(move || send(&mut publisher, &frame, messages, window_messages, &received))
        };
        count(&mut subscriber, self.messages, &received, sending.thread())?;
        let seconds = started.elapsed().as_secs_f64();
        sending.join().map_err(|_| "the publisher failed")??;
        crate::print(&json!({
            "measurement": "flow",
            "payload_bytes": self.payload,
            "messages": self.messages,
            "seconds": seconds,
            "messages_per_second": self.messages as f64 / seconds,
        }))
    }
}

fn send(
    publisher: &mut Connection,
    frame: &[u8],
    messages: u64,
    window_messages: u64,
    received: &AtomicU64,
) -> std::io::Result<()> {
    let batch_max = ((BATCH_BYTES / frame.len()) as u64).clamp(1, window_messages);
    let batch = frame.repeat(batch_max as usize);
    let mut sent = 0;
    while sent < messages {
        let room = (received.load(Ordering::Acquire) + window_messages).saturating_sub(sent);
        let count = (messages - sent).min(batch_max);
        if room < count {
            thread::park_timeout(LOOK_AGAIN);
            continue;
        }
        publisher.send(&batch[..frame.len() * count as usize])?;
        sent += count;
    }
    publisher.flush()
}

fn count(
    subscriber: &mut Connection,
    messages: u64,
    received: &AtomicU64,
    publisher: &Thread,
) -> Outcome<()> {
    let mut count = 0;
    while count < messages {
        subscriber
            .receive(|_| count += 1)
            .map_err(|error| format!("{count} of {messages} messages came: {error}"))?;
        received.store(count, Ordering::Release);
        publisher.unpark();
    }
    Ok(())
}
