//! Numbered messages under load while sessions move: whether each reaches each receiver once and in order, and the longest silence.
//!
//! Publishers publish at a fixed rate. Each subscriber has two overlapping subscriptions to all of it, the members of one queue group
//! share it, and requesters ask responders of another group. The command `mark` begins a window for silences. The command `stop`
//! ends the publishing; when everything has arrived, or nothing more does, the result is printed and the program ends.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use crate::Outcome;
use crate::incoming::{Incoming, MessageFrame};
use crate::swarm::{self, Component};

/// Interval between two checks for publishers that are due.
const TICK: Duration = Duration::from_millis(1);
/// Time without an arrival after which nothing more is expected.
const QUIET: Duration = Duration::from_secs(3);
/// Timeout for a reply.
const REPLY_TIMEOUT: Duration = Duration::from_secs(3);
/// Interval between two requests of one requester.
const REQUEST_EVERY: Duration = Duration::from_millis(20);

/// Numbered messages through several servers, with commands on standard input.
#[derive(Debug, Args)]
pub(crate) struct Moves {
    /// Addresses to which the components connect, in turn.
    #[arg(long, required = true, value_delimiter = ',')]
    servers: Vec<SocketAddr>,
    /// Messages per second of all publishers together.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    publishers: u32,
    #[arg(long, default_value_t = 6)]
    subscribers: usize,
    /// Members of the queue group.
    #[arg(long, default_value_t = 12)]
    members: usize,
    /// Requesters, and as many responders.
    #[arg(long, default_value_t = 6)]
    requesters: usize,
}

/// The numbers that one subscription has received from each publisher.
#[derive(Debug, Clone, Default)]
struct Received {
    /// The highest number of each publisher.
    highest: Vec<u64>,
    /// Lower numbers that have not come.
    missing: BTreeSet<(usize, u64)>,
    twice: u64,
    disordered: u64,
}

impl Received {
    fn new(publishers: usize) -> Self {
        Self {
            highest: vec![0; publishers],
            ..Self::default()
        }
    }

    fn take(&mut self, publisher: usize, number: u64) {
        let highest = &mut self.highest[publisher];
        if number > *highest {
            self.missing
                .extend((*highest + 1..number).map(|number| (publisher, number)));
            *highest = number;
        } else if self.missing.remove(&(publisher, number)) {
            self.disordered += 1;
        } else {
            self.twice += 1;
        }
    }

    fn lost(&self, published: &[u64]) -> u64 {
        let pairs = self.highest.iter().zip(published);
        let behind: u64 = pairs.map(|(highest, published)| published - highest).sum();
        behind + self.missing.len() as u64
    }
}

/// State of a whole measurement.
#[derive(Debug)]
struct Run {
    /// Number of messages of each publisher.
    published: RefCell<Vec<u64>>,
    /// What each plain subscription has received.
    plain: RefCell<Vec<Received>>,
    /// What the queue group has received. Order is checked for each member.
    group: RefCell<Received>,
    group_disordered: Cell<u64>,
    group_shares: RefCell<Vec<u64>>,
    requests: Cell<u64>,
    failed_requests: Cell<u64>,
    last_arrival: Cell<Instant>,
    is_stopped: Cell<bool>,
}

/// Returns the publisher and the number in a payload `publisher number`.
fn entry(message: &MessageFrame<'_>) -> Option<(usize, u64)> {
    let text = std::str::from_utf8(message.reply_and_payload().1).ok()?;
    let (publisher, number) = text.split_once(' ')?;
    Some((publisher.parse().ok()?, number.parse().ok()?))
}

impl Moves {
    /// Connects the components and runs until the command `stop`.
    pub(crate) fn run(self) -> Outcome<()> {
        swarm::block_on(self.serve())
    }

    async fn serve(self) -> Outcome<()> {
        let publishers = self.publishers as usize;
        let run = Rc::new(Run {
            published: RefCell::new(vec![0; publishers]),
            plain: RefCell::default(),
            group: RefCell::new(Received::new(publishers)),
            group_disordered: Cell::default(),
            group_shares: RefCell::new(vec![0; self.members]),
            requests: Cell::default(),
            failed_requests: Cell::default(),
            last_arrival: Cell::new(Instant::now()),
            is_stopped: Cell::default(),
        });
        let mut all = Vec::new();
        let mut receivers = Vec::new();
        let mut servers = self.servers.iter().cycle();
        let mut open = async |subject: &str| {
            let server = servers.next().copied().expect("a server");
            let (component, incoming) = Component::open(server, None, subject).await?;
            io::Result::Ok((Rc::new(component), incoming))
        };
        for _ in 0..self.subscribers {
            let (component, incoming) = open("m.>").await?;
            component.send(b"SUB m.*.x 2\r\nPING\r\n")?;
            let first = run.plain.borrow().len();
            run.plain
                .borrow_mut()
                .extend([Received::new(publishers), Received::new(publishers)]);
            let to = Rc::clone(&run);
            listen(&component, incoming, move |message| {
                let place = first + usize::from(message.sid() == b"2");
                if let Some((publisher, number)) = entry(message) {
                    to.plain.borrow_mut()[place].take(publisher, number);
                    to.last_arrival.set(Instant::now());
                }
            });
            receivers.push(Rc::clone(&component));
            all.push(component);
        }
        for member in 0..self.members {
            let (component, incoming) = open("m.> crew").await?;
            let to = Rc::clone(&run);
            let mut highest = vec![0; publishers];
            listen(&component, incoming, move |message| {
                if let Some((publisher, number)) = entry(message) {
                    to.group.borrow_mut().take(publisher, number);
                    to.group_shares.borrow_mut()[member] += 1;
                    if number < highest[publisher] {
                        to.group_disordered.set(to.group_disordered.get() + 1);
                    }
                    highest[publisher] = number.max(highest[publisher]);
                }
            });
            all.push(component);
        }
        let mut requesting = Vec::new();
        for number in 0..self.requesters {
            let (responder, incoming) = open("ask.> answerers").await?;
            let to = Rc::clone(&responder);
            listen(&responder, incoming, move |message| {
                if let (Some(reply), payload) = message.reply_and_payload() {
                    let head = format!("PUB {} {}\r\n", String::from_utf8_lossy(reply), payload.len());
                    // A lost connection is reported at the end.
                    let _ = to.send(&[head.as_bytes(), payload, b"\r\n"].concat());
                }
            });
            all.push(responder);
            let (requester, incoming) = open(&format!("in.{number}.*")).await?;
            let answered = Rc::new(Cell::new(0));
            let to = Rc::clone(&answered);
            listen(&requester, incoming, move |message| {
                let text = std::str::from_utf8(message.reply_and_payload().1);
                to.set(text.ok().and_then(|text| text.parse().ok()).unwrap_or_default());
            });
            requesting.push((number, Rc::clone(&requester), answered));
            all.push(requester);
        }
        let mut publishing = Vec::new();
        for _ in 0..self.publishers {
            let (component, incoming) = open("none").await?;
            listen(&component, incoming, |_| {});
            publishing.push(Rc::clone(&component));
            all.push(component);
        }
        // Nothing is published before, because a component that is opened drops what it receives before its first PONG.
        tokio::task::spawn_local(publish(publishing, self.rate, Rc::clone(&run)));
        for (number, requester, answered) in requesting {
            tokio::task::spawn_local(request(number, requester, answered, Rc::clone(&run)));
        }
        crate::print(&json!({ "measurement": "moves", "event": "ready", "components": all.len() }))?;
        let mut commands = swarm::commands();
        while let Some(command) = commands.recv().await {
            match command.as_str() {
                "mark" => receivers.iter().for_each(|component| component.mark()),
                "report" => {
                    let silences = receivers
                        .iter()
                        .map(|one| one.longest_silence().as_secs_f64() * 1000.0);
                    let silences: Vec<f64> = silences.collect();
                    crate::print(
                        &json!({ "measurement": "moves", "event": "report", "silences_ms": silences }),
                    )?;
                }
                "stop" => break,
                other => return Err(format!("no command {other:?}").into()),
            }
        }
        run.is_stopped.set(true);
        while run.last_arrival.get().elapsed() < QUIET && !run.is_complete() {
            tokio::time::sleep(TICK).await;
        }
        // A message that comes twice may be late.
        tokio::time::sleep(QUIET / 3).await;
        run.print(all.iter().filter(|component| component.is_lost.get()).count())
    }
}

impl Run {
    fn is_complete(&self) -> bool {
        let published = self.published.borrow();
        let plain = self.plain.borrow();
        plain.iter().all(|received| received.lost(&published) == 0)
            && self.group.borrow().lost(&published) == 0
    }

    fn print(&self, disconnects: usize) -> Outcome<()> {
        let (published, plain, group) = (self.published.borrow(), self.plain.borrow(), self.group.borrow());
        crate::print(&json!({
            "measurement": "moves",
            "event": "result",
            "published": published.iter().sum::<u64>(),
            "lost": plain.iter().map(|received| received.lost(&published)).sum::<u64>(),
            "twice": plain.iter().map(|received| received.twice).sum::<u64>(),
            "disordered": plain.iter().map(|received| received.disordered).sum::<u64>(),
            "group_lost": group.lost(&published),
            "group_twice": group.twice,
            "group_disordered": self.group_disordered.get(),
            "group_shares": *self.group_shares.borrow(),
            "requests": self.requests.get(),
            "failed_requests": self.failed_requests.get(),
            "disconnects": disconnects,
        }))
    }
}

/// Calls `take` for each message of the component, until its connection ends.
fn listen(
    component: &Rc<Component>,
    mut incoming: Incoming,
    mut take: impl FnMut(&MessageFrame<'_>) + 'static,
) {
    let component = Rc::clone(component);
    tokio::task::spawn_local(async move {
        let heard = Rc::clone(&component);
        let mut take = |message: &MessageFrame<'_>| {
            heard.hear();
            take(message);
        };
        while component.receive(&mut incoming, &mut take).await.is_ok() {}
        component.is_lost.set(true);
    });
}

/// Publishes for all publishers, spread evenly over the period.
async fn publish(publishers: Vec<Rc<Component>>, rate: u32, run: Rc<Run>) {
    let (started, mut sent) = (Instant::now(), 0_u64);
    let mut ticks = tokio::time::interval(TICK);
    while !run.is_stopped.get() {
        ticks.tick().await;
        let due = (started.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        while sent < due {
            let number = (sent % publishers.len() as u64) as usize;
            sent += 1;
            let component = &publishers[number];
            if component.is_lost.get() {
                continue;
            }
            let count = run.published.borrow()[number] + 1;
            let payload = format!("{number} {count}");
            let frame = format!("PUB m.{number}.x {}\r\n{payload}\r\n", payload.len());
            if component.send(frame.as_bytes()).is_ok() {
                run.published.borrow_mut()[number] = count;
            }
        }
    }
}

/// Sends requests, one after the other.
async fn request(number: usize, requester: Rc<Component>, answered: Rc<Cell<u64>>, run: Rc<Run>) {
    let mut asked = 0_u64;
    while !run.is_stopped.get() && !requester.is_lost.get() {
        asked += 1;
        let payload = asked.to_string();
        let frame = format!(
            "PUB ask.{number} in.{number}.{asked} {}\r\n{payload}\r\n",
            payload.len()
        );
        let sent = Instant::now();
        if requester.send(frame.as_bytes()).is_err() {
            return;
        }
        while answered.get() != asked && sent.elapsed() < REPLY_TIMEOUT {
            tokio::time::sleep(TICK).await;
        }
        run.requests.set(run.requests.get() + 1);
        if answered.get() != asked {
            run.failed_requests.set(run.failed_requests.get() + 1);
        }
        tokio::time::sleep(REQUEST_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_repeated_and_disordered_messages_are_counted() {
        let mut received = Received::new(2);
        for (publisher, number) in [(0, 1), (0, 2), (0, 5), (0, 3), (0, 5), (1, 2)] {
            received.take(publisher, number);
        }
        assert_eq!((received.twice, received.disordered), (1, 1));
        // 4 and 6 of the first, and 1 of the second.
        assert_eq!(received.lost(&[6, 2]), 3);
    }
}
