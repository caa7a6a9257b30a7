//! Latency of messages at a fixed rate, open loop: each message has a scheduled time, whether or not the previous one has arrived,
//! and its latency counts from that time. So the delays of a stalled server count for all messages that had to wait.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use crate::Outcome;
use crate::connection::{Connection, publish};
use crate::ends::Ends;
use crate::firehose::run_with_firehose;
use crate::quantiles::{Quantiles, WARM_UP_PART};

/// Last part of each wait, in which the publisher spins. A sleep may end late by this much.
const SPIN: Duration = Duration::from_micros(80);
/// Size of the scheduled time at the head of each payload, in bytes. The time is in nanoseconds since the start.
const STAMP_BYTES: usize = 8;

/// Latency between one publisher and one subscriber at a fixed rate.
#[derive(Debug, Args)]
pub(crate) struct Latency {
    #[command(flatten)]
    ends: Ends,
    /// Bytes in each message, at least 8.
    #[arg(long, default_value_t = 128)]
    payload: usize,
    /// Messages per second.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Duration of the measurement, in seconds.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// A publisher sends to this server at full speed during the measurement.
    #[arg(long)]
    firehose: Option<SocketAddr>,
}

impl Latency {
    /// Measures, and prints quantiles.
    pub(crate) fn run(self) -> Outcome<()> {
        crate::print(&run_with_firehose(self.firehose, || self.measure())?)
    }

    fn measure(&self) -> Outcome<Value> {
        let subject = format!("load.{}", std::process::id());
        let (mut publisher, mut subscriber) = self.ends.connect(&subject)?;

        let messages = (f64::from(self.rate) * self.seconds) as u64;
        let frame = publish(&subject, None, &vec![b'x'; self.payload.max(STAMP_BYTES)]);
        let stamp_at = frame.len() - 2 - self.payload.max(STAMP_BYTES);
        let period = Duration::from_secs(1) / self.rate;
        let started = Instant::now();
        let sending = thread::spawn(move || send(&mut publisher, frame, stamp_at, messages, period, started));
        let latencies = record(&mut subscriber, messages, started)?;
        sending.join().map_err(|_| "the publisher failed")??;
        let mut result = latencies.result("latency");
        result["payload_bytes"] = self.payload.into();
        result["rate"] = self.rate.into();
        Ok(result)
    }
}

fn send(
    publisher: &mut Connection,
    mut frame: Vec<u8>,
    stamp_at: usize,
    messages: u64,
    period: Duration,
    started: Instant,
) -> io::Result<()> {
    for number in 0..messages {
        let due = Duration::from_nanos(period.as_nanos() as u64 * number);
        wait_until(started + due);
        frame[stamp_at..stamp_at + STAMP_BYTES].copy_from_slice(&(due.as_nanos() as u64).to_le_bytes());
        publisher.send(&frame)?;
    }
    publisher.flush()
}

fn wait_until(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    if left > SPIN {
        thread::park_timeout(left - SPIN);
    }
    while Instant::now() < due {
        thread::yield_now();
    }
}

fn record(subscriber: &mut Connection, messages: u64, started: Instant) -> Outcome<Quantiles> {
    let mut latencies = Quantiles::new()?;
    let mut count = 0;
    while count < messages {
        let received = subscriber.receive(|message| {
            count += 1;
            let (_, payload) = message.reply_and_payload();
            if let Some(stamp) = payload.first_chunk::<STAMP_BYTES>()
                && count > messages / WARM_UP_PART
            {
                let due = Duration::from_nanos(u64::from_le_bytes(*stamp));
                latencies.record(started.elapsed().saturating_sub(due));
            }
        });
        received.map_err(|error| format!("{count} of {messages} messages came: {error}"))?;
    }
    Ok(latencies)
}
