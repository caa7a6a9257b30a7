//! Subscriptions made and ended at a fixed rate, like the inboxes of clients with one inbox per request.

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use crate::connection::Connection;
use crate::random::Random;

/// Interval between two writes. A subscription lasts one interval, about as long as a request.
const TICK: Duration = Duration::from_millis(1);

/// Result of [`churn`].
#[derive(Debug)]
pub(crate) struct Churned {
    /// Number of subscriptions that were made and ended.
    pub(crate) subscriptions: u64,
    /// Time until the server had processed the last one.
    pub(crate) seconds: f64,
}

/// Subscribes and unsubscribes `per_second` times a second until `until`. A late interval is caught up in the next one.
pub(crate) fn churn(
    connection: &mut Connection,
    per_second: u64,
    until: Instant,
    random: &mut Random,
) -> io::Result<Churned> {
    let started = Instant::now();
    let mut made = 0;
    let mut old = 0;
    while Instant::now() < until {
        thread::park_timeout(TICK);
        let due = (started.elapsed().as_secs_f64() * per_second as f64) as u64;
        let mut frames = Vec::new();
        for sid in made..due {
            let (client, request) = (random.number(), random.number() as u32);
            write!(frames, "SUB _INBOX.{client:016x}.{request:08x} {sid}\r\n")?;
        }
        unsubscribe(&mut frames, old..made)?;
        connection.send(&frames)?;
        (old, made) = (made, due);
    }
    let mut frames = Vec::new();
    unsubscribe(&mut frames, old..made)?;
    connection.send(&frames)?;
    connection.flush()?;
    Ok(Churned {
        subscriptions: made,
        seconds: started.elapsed().as_secs_f64(),
    })
}

fn unsubscribe(frames: &mut Vec<u8>, sids: std::ops::Range<u64>) -> io::Result<()> {
    for sid in sids {
        write!(frames, "UNSUB {sid}\r\n")?;
    }
    Ok(())
}
