//! Limit on the messages in flight between a publisher and its subscribers, so that no server has a reason to drop a message.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::connection::Connection;

/// Limit on the bytes of payload and protocol in flight.
const WINDOW_BYTES: usize = 2 * 1024 * 1024;
/// Pause of the publisher while the window is full.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_micros(50);
/// Timeout of one read, after which a subscriber checks whether the measurement is over.
pub(crate) const LOOK_FOR_END: Duration = Duration::from_millis(20);
/// Silence after which messages count as lost.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(20);

/// Counts of messages sent and received.
#[derive(Debug)]
pub(crate) struct Window {
    messages_max: u64,
    sent: AtomicU64,
    received: AtomicU64,
    ended: AtomicBool,
}

impl Window {
    /// Makes a window for frames of this many bytes.
    pub(crate) fn new(frame_bytes: usize) -> Self {
        Self {
            messages_max: (WINDOW_BYTES / frame_bytes).max(1) as u64,
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }
    }

    /// Returns the number of messages for one write: at most `count`, and at most a quarter of the window. With a larger part
    /// the publisher would wait for its previous write to be received.
    pub(crate) fn batch(&self, count: u64) -> u64 {
        count.min(self.messages_max.div_ceil(4))
    }

    /// Waits until the publisher may send `count` more messages, and counts them as sent. `count` must fit into the window.
    /// Fails if the window stays full for [`SILENCE_MAX`].
    pub(crate) fn take(&self, count: u64) -> io::Result<()> {
        let sent = self.sent.load(Ordering::Relaxed) + count;
        let started = Instant::now();
        while sent > self.received() + self.messages_max {
            if started.elapsed() > SILENCE_MAX {
                return Err(self.lost());
            }
            thread::park_timeout(LOOK_AGAIN);
        }
        self.sent.store(sent, Ordering::Relaxed);
        Ok(())
    }

    /// Records that the publisher sends nothing more.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Returns the number of messages that the subscribers together have received.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Returns the number of messages that the publisher has sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Receives on one subscriber until the publisher has ended and every message is received.
    pub(crate) fn receive_all(&self, subscriber: &mut Connection) -> io::Result<()> {
        let mut before = self.received();
        let mut moved = Instant::now();
        while !(self.ended.load(Ordering::Acquire) && self.received() >= self.sent()) {
            let mut count = 0;
            subscriber.receive_within(LOOK_FOR_END, |_| count += 1)?;
            let received = self.received.fetch_add(count, Ordering::Relaxed) + count;
            if received > before {
                (before, moved) = (received, Instant::now());
            } else if moved.elapsed() > SILENCE_MAX {
                return Err(self.lost());
            }
        }
        Ok(())
    }

    fn lost(&self) -> io::Error {
        io::Error::other(format!("{} of {} messages came", self.received(), self.sent()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_fits_into_the_window_whatever_the_size_of_its_messages() {
        for (frame_bytes, batch) in [(152, 512), (4_120, 128), (1_048_600, 1), (8 * 1024 * 1024, 1)] {
            let window = Window::new(frame_bytes);
            assert_eq!(window.batch(512), batch, "{frame_bytes} bytes");
            window.take(batch).unwrap();
        }
    }
}
