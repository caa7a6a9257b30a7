//! Subscriptions that come and go at a fixed rate, as the inboxes of clients that make one for each request do.

use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use crate::connection::Connection;
use crate::random::Random;

/// What is due is sent so often. A subscription lives from one time to the next, about as long as a request takes.
const TICK: Duration = Duration::from_millis(1);

/// What has been done.
#[derive(Debug)]
pub(crate) struct Churned {
    /// Subscriptions that were made and taken back.
    pub(crate) subscriptions: u64,
    /// Until the server had taken the last one.
    pub(crate) seconds: f64,
}

/// Subscribes and unsubscribes `per_second` times a second until then; what is late is made up for.
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
