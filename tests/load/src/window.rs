//! How far a publisher may be ahead of its subscribers: no server has a reason to drop anything, and the counts must
//! come out exact.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::connection::Connection;

/// Bytes of payload and protocol between publisher and subscribers at most.
const WINDOW_BYTES: usize = 2 * 1024 * 1024;
/// A publisher without room looks again after this.
const LOOK_AGAIN: Duration = Duration::from_micros(50);
/// A subscriber that hears nothing looks after this whether all is done.
const LOOK_FOR_END: Duration = Duration::from_millis(20);
/// A server that delivers nothing more for so long has lost messages.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Window {
    messages_max: u64,
    sent: AtomicU64,
    received: AtomicU64,
    ended: AtomicBool,
}

impl Window {
    /// For frames of so many bytes.
    pub(crate) fn new(frame_bytes: usize) -> Self {
        Self {
            messages_max: (WINDOW_BYTES / frame_bytes).max(1) as u64,
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }
    }

    /// Waits until the publisher may send `count` more, which then count as sent.
    ///
    /// # Errors
    /// When the subscribers hear nothing more.
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

    /// The publisher sends nothing more.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Messages that the subscribers have received, together.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Messages that the publisher has sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// One subscriber, until the publisher has ended and all have come.
    ///
    /// # Errors
    /// When the connection fails, or some do not come.
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
