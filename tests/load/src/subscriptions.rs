//! Very many subscriptions, one in ten with a wildcard. The program prints a line when all are made, and then reads commands.
//! `publish` sends messages to random ones at full speed. `churn` does the same while another connection makes and ends
//! subscriptions at a fixed rate. `reach HOST:PORT` publishes to a few of them through that node, which may be just starting,
//! until each has received a message. The end of standard input ends the program.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::Outcome;
use crate::connection::Connection;
use crate::ends::reach_again;
use crate::swarm;
use crate::window::Window;

/// Limit on the messages in one write of the publisher.
const BATCH_MESSAGES: u64 = 512;
/// Subscriptions in one write. The next write waits until the server has answered a PING.
const BATCH_SUBSCRIPTIONS: u64 = 1_000;
/// Number of subscriptions that `reach` uses, spread evenly over all.
const REACHED: u64 = 10;
/// Approximate size of a message's frame without its payload, in bytes.
const AROUND_PAYLOAD_BYTES: usize = 24;
/// Interval between two writes of `churn`. A subscription lasts one interval, about as long as a request.
const CHURN_TICK: Duration = Duration::from_millis(1);
/// Pause of `reach` before another attempt to connect, and before another message to a subscriber.
const REACH_AGAIN: Duration = Duration::from_millis(2);
/// Timeout for the node of `reach` to accept a client.
const START_MAX: Duration = Duration::from_secs(60);

/// Very many subscriptions, with commands on standard input.
#[derive(Debug, Args)]
pub(crate) struct Subscriptions {
    /// Addresses to which the subscribers connect, in turn. The publisher connects to the first.
    #[arg(long, value_name = "ADDRESS,…", required = true, value_delimiter = ',')]
    server: Vec<SocketAddr>,
    /// Number of subscriptions.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    subscriptions: u64,
    /// Number of connections that share the subscriptions.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    connections: u64,
    /// Bytes in each message.
    #[arg(long, default_value_t = 128)]
    payload: usize,
    /// Duration of `publish` and of `churn`, in seconds.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Subscriptions that `churn` makes and ends each second.
    #[arg(long, default_value_t = 10_000)]
    churn: u64,
    /// Seed for the random choice of subjects.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The connections, once the subscriptions are made.
#[derive(Debug)]
struct Parties {
    subscribers: Vec<Connection>,
    publisher: Connection,
    publisher_random: SmallRng,
    churner: Connection,
    churner_random: SmallRng,
}

impl Subscriptions {
    /// Makes the subscriptions and runs commands until the end of the input.
    pub(crate) fn run(self) -> Outcome<()> {
        let started = Instant::now();
        let mut random = SmallRng::seed_from_u64(self.seed);
        let mut parties = Parties {
            subscribers: self.subscribe()?,
            publisher: Connection::open(self.server[0])?,
            publisher_random: random.fork(),
            churner: Connection::open(self.server[0])?,
            churner_random: random.fork(),
        };
        crate::print(&json!({
            "measurement": "subscriptions",
            "event": "ready",
            "subscriptions": self.subscriptions,
            "seconds": started.elapsed().as_secs_f64(),
        }))?;
        let mut commands = swarm::commands();
        while let Some(command) = commands.blocking_recv() {
            let result = match command.split_once(' ') {
                None if command == "publish" => self.measure(&mut parties, None)?,
                None if command == "churn" => self.measure(&mut parties, Some(self.churn))?,
                Some(("reach", node)) => self.reach(&mut parties, node.parse()?)?,
                _ => return Err(format!("no command {command:?}").into()),
            };
            crate::print(&result)?;
        }
        Ok(())
    }

    fn subscribe(&self) -> Outcome<Vec<Connection>> {
        let places = self.server.iter().cycle().take(self.connections as usize);
        let open = places.map(|&place| Connection::open(place));
        let mut subscribers = open.collect::<io::Result<Vec<_>>>()?;
        for first in (0..self.subscriptions).step_by(BATCH_SUBSCRIPTIONS as usize) {
            let mut frames = Vec::new();
            for number in first..(first + BATCH_SUBSCRIPTIONS).min(self.subscriptions) {
                let last = last_token(number);
                write!(frames, "SUB s.{number}.{last} {number}\r\n")?;
            }
            let subscriber = &mut subscribers[self.subscriber(first)];
            subscriber.send(&frames)?;
            subscriber.flush()?;
        }
        Ok(subscribers)
    }

    /// Returns the index of the connection with this subscription.
    fn subscriber(&self, number: u64) -> usize {
        (number / BATCH_SUBSCRIPTIONS % self.connections) as usize
    }

    fn reach(&self, parties: &mut Parties, node: SocketAddr) -> Outcome<Value> {
        let started = Instant::now();
        let mut publisher = open_when_started(node)?;
        for part in 1..=REACHED {
            let number = (self.subscriptions - 1) * part / REACHED;
            let subscriber = &mut parties.subscribers[self.subscriber(number)];
            reach_again(&mut publisher, subscriber, &format!("s.{number}.0"), REACH_AGAIN)?;
        }
        Ok(json!({
            "measurement": "subscriptions",
            "event": "reached",
            "subscriptions": REACHED,
            "seconds": started.elapsed().as_secs_f64(),
        }))
    }

    fn measure(&self, parties: &mut Parties, churn_per_second: Option<u64>) -> Outcome<Value> {
        let window = &Window::new(self.payload + AROUND_PAYLOAD_BYTES);
        let started = Instant::now();
        let until = started + Duration::from_secs_f64(self.seconds);
        let (churner, churner_random) = (&mut parties.churner, &mut parties.churner_random);
        let churned = thread::scope(|scope| {
            let receiving: Vec<_> = parties
                .subscribers
                .iter_mut()
                .map(|subscriber| scope.spawn(|| window.receive_all(subscriber)))
                .collect();
            let churning =
                churn_per_second.map(|rate| scope.spawn(move || churn(churner, rate, until, churner_random)));
            let sent = self.send(
                &mut parties.publisher,
                &mut parties.publisher_random,
                window,
                until,
            );
            window.end();
            sent?;
            for one in receiving {
                one.join().map_err(|_| "a subscriber failed")??;
            }
            let churned = churning.map(|one| one.join().map_err(|_| "the churn failed"));
            Outcome::Ok(churned.transpose()?.transpose()?)
        })?;
        let seconds = started.elapsed().as_secs_f64();
        let mut result = json!({
            "measurement": "subscriptions",
            "event": if churn_per_second.is_some() { "churn" } else { "publish" },
            "messages": window.sent(),
            "received": window.received(),
            "seconds": seconds,
            "messages_per_second": window.received() as f64 / seconds,
        });
        if let Some((churned, seconds)) = churned {
            result["churned"] = churned.into();
            result["churned_per_second"] = (churned as f64 / seconds).into();
        }
        Ok(result)
    }

    fn send(
        &self,
        publisher: &mut Connection,
        random: &mut SmallRng,
        window: &Window,
        until: Instant,
    ) -> io::Result<()> {
        let mut tail = format!(" {}\r\n", self.payload).into_bytes();
        tail.extend(vec![b'x'; self.payload]);
        tail.extend(b"\r\n");
        let batch = window.batch(BATCH_MESSAGES);
        let mut frames = Vec::new();
        while Instant::now() < until {
            frames.clear();
            for _ in 0..batch {
                let number = random.random_range(0..self.subscriptions);
                write!(frames, "PUB s.{number}.0")?;
                frames.extend_from_slice(&tail);
            }
            window.take(batch)?;
            publisher.send(&frames)?;
        }
        Ok(())
    }
}

/// Returns the last token of a subscription's subject. Whichever it is, the subscription matches `s.NUMBER.0`.
fn last_token(number: u64) -> &'static str {
    if number.is_multiple_of(100) {
        ">"
    } else if number.is_multiple_of(10) {
        "*"
    } else {
        "0"
    }
}

/// Opens a connection to a node that may be just starting.
fn open_when_started(node: SocketAddr) -> io::Result<Connection> {
    let started = Instant::now();
    loop {
        match Connection::open(node) {
            Err(error)
                if error.kind() == io::ErrorKind::ConnectionRefused && started.elapsed() < START_MAX =>
            {
                thread::park_timeout(REACH_AGAIN);
            }
            opened => return opened,
        }
    }
}

/// Subscribes and unsubscribes `per_second` times a second until `until`, like clients with one inbox per request. After a late
/// interval, the overdue subscriptions are made in the next one. Returns the number of subscriptions, and the seconds until the
/// server had processed the last one.
fn churn(
    connection: &mut Connection,
    per_second: u64,
    until: Instant,
    random: &mut SmallRng,
) -> io::Result<(u64, f64)> {
    let started = Instant::now();
    let (mut made, mut old) = (0, 0);
    loop {
        let mut due = made;
        let is_over = Instant::now() >= until;
        if !is_over {
            thread::park_timeout(CHURN_TICK);
            due = (started.elapsed().as_secs_f64() * per_second as f64) as u64;
        }
        let mut frames = Vec::new();
        for sid in made..due {
            let (client, request) = (random.next_u64(), random.next_u32());
            write!(frames, "SUB _INBOX.{client:016x}.{request:08x} {sid}\r\n")?;
        }
        for sid in old..made {
            write!(frames, "UNSUB {sid}\r\n")?;
        }
        connection.send(&frames)?;
        (old, made) = (made, due);
        if is_over {
            connection.flush()?;
            return Ok((made, started.elapsed().as_secs_f64()));
        }
    }
}
