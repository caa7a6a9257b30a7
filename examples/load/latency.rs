//! How long a message takes. Publish → subscribe is open-loop: each message has its time, kept whether or not the one
//! before has arrived, and is measured from that time, so a server that stalls is charged for all that had to wait.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::Outcome;
use crate::connection::{Connection, publish};
use crate::flow::reach;

/// One message in so many at the start is not counted: caches and schedulers warm up.
const WARM_UP_PART: u64 = 10;
/// The publisher sleeps until so long before a message's time, and spins for the rest: sleeping alone is late by as much.
const SPIN: Duration = Duration::from_micros(80);
/// What takes longer is counted as this.
const LONGEST: Duration = Duration::from_secs(60);
/// Bytes at the head of each payload that say when it was due: nanoseconds since the start.
const STAMP_BYTES: usize = 8;

/// One publisher, one subscriber, at a fixed rate.
#[derive(Debug, Args)]
pub(crate) struct Latency {
    /// Where the publisher connects.
    #[arg(long)]
    publisher: SocketAddr,
    /// Where the subscriber connects.
    #[arg(long)]
    subscriber: SocketAddr,
    /// Bytes in each message, 8 at least.
    #[arg(long, default_value_t = 128)]
    payload: usize,
    /// Messages per second.
    #[arg(long, default_value_t = 5_000)]
    rate: u64,
    /// How long.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

impl Latency {
    /// Measures, and prints quantiles.
    pub(crate) fn run(self) -> Outcome<()> {
        let subject = format!("load.{}", std::process::id());
        let mut subscriber = Connection::open(self.subscriber)?;
        subscriber.subscribe(&subject)?;
        let mut publisher = Connection::open(self.publisher)?;
        reach(&mut publisher, &mut subscriber, &subject)?;

        let messages = (self.rate as f64 * self.seconds) as u64;
        let frame = publish(&subject, None, &vec![b'x'; self.payload.max(STAMP_BYTES)]);
        let stamp_at = frame.len() - 2 - self.payload.max(STAMP_BYTES);
        let period = Duration::from_secs(1) / u32::try_from(self.rate)?;
        let started = Instant::now();
        let sending = thread::spawn(move || send(&mut publisher, frame, stamp_at, messages, period, started));
        let taken = record(&mut subscriber, messages, started)?;
        sending.join().map_err(|_| "the publisher failed")??;
        let mut result = quantiles("latency", &taken);
        result["payload_bytes"] = self.payload.into();
        result["rate"] = self.rate.into();
        crate::print(&result)
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
    Ok(())
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

fn record(subscriber: &mut Connection, messages: u64, started: Instant) -> Outcome<Histogram<u64>> {
    let mut taken = Histogram::new_with_max(LONGEST.as_nanos() as u64, 3)?;
    let mut count = 0;
    while count < messages {
        let received = subscriber.receive(|message| {
            count += 1;
            let (_, payload) = message.reply_and_payload();
            if let Some(stamp) = payload.first_chunk::<STAMP_BYTES>()
                && count > messages / WARM_UP_PART
            {
                let now = started.elapsed().as_nanos() as u64;
                taken.saturating_record(now.saturating_sub(u64::from_le_bytes(*stamp)));
            }
        });
        received.map_err(|error| format!("{count} of {messages} messages came: {error}"))?;
    }
    Ok(taken)
}

/// One request at a time.
#[derive(Debug, Args)]
pub(crate) struct Request {
    /// Where the requester connects.
    #[arg(long)]
    requester: SocketAddr,
    /// Where the responder connects.
    #[arg(long)]
    responder: SocketAddr,
    /// Bytes in each request and each reply.
    #[arg(long, default_value_t = 128)]
    payload: usize,
    /// Requests to make.
    #[arg(long, default_value_t = 10_000)]
    requests: u64,
}

impl Request {
    /// Measures, and prints quantiles.
    pub(crate) fn run(self) -> Outcome<()> {
        let subject = format!("load.{}", std::process::id());
        let inbox = format!("{subject}.inbox");
        let payload = vec![b'x'; self.payload];
        let mut responder = Connection::open(self.responder)?;
        responder.subscribe(&subject)?;
        let mut requester = Connection::open(self.requester)?;
        requester.subscribe(&inbox)?;
        reach(&mut requester, &mut responder, &subject)?;
        reach(&mut responder, &mut requester, &inbox)?;

        let requests = self.requests;
        let reply = payload.clone();
        let answering = thread::spawn(move || answer(&mut responder, requests, &reply));
        let request = publish(&subject, Some(&inbox), &payload);
        let mut taken = Histogram::new_with_max(LONGEST.as_nanos() as u64, 3)?;
        for number in 0..requests {
            let sent = Instant::now();
            requester.send(&request)?;
            let mut answered = false;
            while !answered {
                requester.receive(|_| answered = true)?;
            }
            if number >= requests / WARM_UP_PART {
                taken.saturating_record(sent.elapsed().as_nanos() as u64);
            }
        }
        answering.join().map_err(|_| "the responder failed")??;
        let mut result = quantiles("request", &taken);
        result["payload_bytes"] = self.payload.into();
        crate::print(&result)
    }
}

fn answer(responder: &mut Connection, requests: u64, payload: &[u8]) -> io::Result<()> {
    let mut answered = 0;
    while answered < requests {
        let mut replies = Vec::new();
        responder.receive(|message| {
            if let (Some(inbox), _) = message.reply_and_payload() {
                replies.extend(publish(&String::from_utf8_lossy(inbox), None, payload));
                answered += 1;
            }
        })?;
        responder.send(&replies)?;
    }
    Ok(())
}

fn quantiles(measurement: &str, taken: &Histogram<u64>) -> Value {
    let micros = |quantile| taken.value_at_quantile(quantile) as f64 / 1000.0;
    json!({
        "measurement": measurement,
        "messages": taken.len(),
        "p50_us": micros(0.5),
        "p99_us": micros(0.99),
        "p999_us": micros(0.999),
        "max_us": taken.max() as f64 / 1000.0,
    })
}
