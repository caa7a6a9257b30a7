//! Very many subscriptions, one in ten with a wildcard. It prints a line when all are made, and then reads commands: `publish` sends
//! messages to random ones at full speed. `churn` does the same while another connection makes and ends subscriptions at a fixed
//! rate. `reach HOST:PORT` publishes to a few of them through that node, which may be just starting, until each has received a
//! message. The end of standard input ends the program.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use crate::Outcome;
use crate::churn::churn;
use crate::connection::Connection;
use crate::newcomer::reach_through;
use crate::random::Random;
use crate::swarm;
use crate::window::Window;

/// Messages in one write of the publisher.
const BATCH_MESSAGES: u64 = 512;
/// Subscriptions in one write, after which the server must answer a PING.
const BATCH_SUBSCRIPTIONS: u64 = 1_000;
/// Number of subscriptions that `reach` uses, spread evenly over all.
const REACHED: u64 = 10;
/// Approximate bytes of a message's frame without its payload.
const AROUND_PAYLOAD_BYTES: usize = 24;

/// Very many subscriptions, with commands on standard input.
#[derive(Debug, Args)]
pub(crate) struct Subscriptions {
    /// Addresses to which the subscribers connect, in turn. The publisher connects to the first.
    #[arg(long, value_name = "ADDRESS,…", required = true, value_delimiter = ',')]
    server: Vec<SocketAddr>,
    /// Number of subscriptions.
    #[arg(long, default_value_t = 1_000_000)]
    subscriptions: u64,
    /// Number of connections that share them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    connections: u64,
    /// Bytes in each message.
    #[arg(long, default_value_t = 128)]
    payload: usize,
    /// Duration of each command.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Subscriptions that `churn` makes and ends each second.
    #[arg(long, default_value_t = 10_000)]
    churn: u64,
    /// Seed of the choice of subjects.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The connections, once the subscriptions are made.
#[derive(Debug)]
struct Parties {
    subscribers: Vec<Connection>,
    publisher: Connection,
    publisher_random: Random,
    churner: Connection,
    churner_random: Random,
}

impl Subscriptions {
    /// Makes the subscriptions and runs commands until the end of the input.
    pub(crate) fn run(self) -> Outcome<()> {
        let started = Instant::now();
        let mut random = Random::new(self.seed);
        let mut parties = Parties {
            subscribers: self.subscribe()?,
            publisher: Connection::open(self.server[0])?,
            publisher_random: Random::new(random.number()),
            churner: Connection::open(self.server[0])?,
            churner_random: Random::new(random.number()),
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
        let spread = (1..=REACHED).map(|part| (self.subscriptions - 1) * part / REACHED);
        let subjects = spread.map(|number| (self.subscriber(number), format!("s.{number}.0")));
        reach_through(node, &mut parties.subscribers, subjects)?;
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
        if let Some(churned) = churned {
            result["churned"] = churned.subscriptions.into();
            result["churned_per_second"] = (churned.subscriptions as f64 / churned.seconds).into();
        }
        Ok(result)
    }

    fn send(
        &self,
        publisher: &mut Connection,
        random: &mut Random,
        window: &Window,
        until: Instant,
    ) -> io::Result<()> {
        let mut tail = format!(" {}\r\n", self.payload).into_bytes();
        tail.extend(vec![b'x'; self.payload]);
        tail.extend(b"\r\n");
        let mut frames = Vec::new();
        while Instant::now() < until {
            frames.clear();
            for _ in 0..BATCH_MESSAGES {
                let number = random.below(self.subscriptions);
                write!(frames, "PUB s.{number}.0")?;
                frames.extend_from_slice(&tail);
            }
            window.take(BATCH_MESSAGES)?;
            publisher.send(&frames)?;
        }
        Ok(())
    }
}

/// Returns the last token of a subscription's subject. With each of them the subscription matches `s.NUMBER.0`.
fn last_token(number: u64) -> &'static str {
    if number.is_multiple_of(100) {
        ">"
    } else if number.is_multiple_of(10) {
        "*"
    } else {
        "0"
    }
}
