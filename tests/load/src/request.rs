//! Request and reply: one responder, and requesters with one request in flight each. All requesters share one thread, so that the
//! threads of the load generator do not wait for each other.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::connection::{Connection, publish};
use crate::ends::reach;
use crate::firehose::run_with_firehose;
use crate::incoming::Incoming;
use crate::quantiles::{Quantiles, WARM_UP_PART};
use crate::swarm::{self, Component};
use crate::window::SILENCE_MAX;

/// Limit on the bytes of a reply's frame without its payload.
const AROUND_PAYLOAD_BYTES: usize = 4096;

/// Requesters with one request in flight each.
#[derive(Debug, Args)]
pub(crate) struct Request {
    /// Address to which the requesters connect.
    #[arg(long)]
    requester: SocketAddr,
    /// Address to which the responder connects.
    #[arg(long)]
    responder: SocketAddr,
    /// Number of requesters.
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// Bytes in each request and each reply.
    #[arg(long, default_value_t = 128)]
    payload: usize,
    /// Number of requests, of all requesters together.
    #[arg(long, default_value_t = 10_000)]
    requests: u64,
    /// A publisher sends to this server at full speed during the measurement.
    #[arg(long)]
    firehose: Option<SocketAddr>,
}

/// State that the requesters share.
#[derive(Debug)]
struct Work {
    total: u64,
    asked: Cell<u64>,
    latencies: RefCell<Quantiles>,
    /// Silence after which a requester counts its request or its reply as lost.
    silence_max: Duration,
}

impl Request {
    /// Measures, and prints requests per second and quantiles.
    pub(crate) fn run(self) -> Outcome<()> {
        crate::print(&run_with_firehose(self.firehose, || self.measure())?)
    }

    fn measure(&self) -> Outcome<Value> {
        let subject = format!("load.{}", std::process::id());
        let mut responder = Connection::open(self.responder)?;
        responder.subscribe(&subject)?;
        let work = Rc::new(Work {
            total: self.requests,
            asked: Cell::new(0),
            latencies: RefCell::new(Quantiles::new()?),
            silence_max: SILENCE_MAX,
        });
        let seconds = swarm::block_on(self.ask_all(responder, &subject, &work))?;
        let mut result = work.latencies.borrow().result("request");
        result["payload_bytes"] = self.payload.into();
        result["clients"] = self.clients.into();
        result["requests"] = self.requests.into();
        result["seconds"] = seconds.into();
        result["requests_per_second"] = (self.requests as f64 / seconds).into();
        Ok(result)
    }

    /// Makes all requests, and returns the seconds from the first request to the last reply.
    async fn ask_all(&self, mut responder: Connection, subject: &str, work: &Rc<Work>) -> Outcome<f64> {
        let inboxes = format!("{subject}.inbox");
        let requesters = swarm::open(self.requester, self.clients, &inboxes).await?;
        // Interest is sent in order, so every inbox can be reached when the last one can.
        let last = format!("{inboxes}.last");
        let mut probe = Connection::open(self.requester)?;
        probe.subscribe(&last)?;
        reach(&mut probe, &mut responder, subject)?;
        reach(&mut responder, &mut probe, &last)?;

        let (requests, payload) = (self.requests, vec![b'x'; self.payload]);
        let answering = thread::spawn(move || answer(&mut responder, requests, &payload));
        let started = Instant::now();
        let mut asking = JoinSet::new();
        for (number, (component, mut incoming)) in requesters.into_iter().enumerate() {
            incoming.make_room(self.payload + AROUND_PAYLOAD_BYTES);
            let inbox = format!("{inboxes}.{number}");
            let request = publish(subject, Some(&inbox), &vec![b'x'; self.payload]);
            asking.spawn_local(ask(component, incoming, request, Rc::clone(work)));
        }
        while let Some(asked) = asking.join_next().await {
            asked??;
        }
        let seconds = started.elapsed().as_secs_f64();
        answering.join().map_err(|_| "the responder failed")??;
        Ok(seconds)
    }
}

impl Work {
    /// Returns the number of the next request, if there is one.
    fn next(&self) -> Option<u64> {
        let number = self.asked.get();
        self.asked.set(number + 1);
        (number < self.total).then_some(number)
    }
}

/// Makes the requests of one requester.
async fn ask(
    component: Rc<Component>,
    mut incoming: Incoming,
    request: Vec<u8>,
    work: Rc<Work>,
) -> io::Result<()> {
    while let Some(number) = work.next() {
        let sent = Instant::now();
        component.send(&request)?;
        let mut answered = false;
        while !answered {
            let receiving = component.receive(&mut incoming, |_| answered = true);
            let received = tokio::time::timeout(work.silence_max, receiving).await;
            received.map_err(|_| io::Error::other(format!("no reply came to request {number}")))??;
        }
        if number >= work.total / WARM_UP_PART {
            work.latencies.borrow_mut().record(sent.elapsed());
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_without_a_reply_is_an_error() {
        let silent = swarm::tests::server(|mut stream| drop(io::copy(&mut stream, &mut io::sink())));
        let (component, incoming) = swarm::tests::open_one(silent).await;
        let work = Rc::new(Work {
            total: 1,
            asked: Cell::new(0),
            latencies: RefCell::new(Quantiles::new().unwrap()),
            silence_max: Duration::from_millis(10),
        });
        let asking = ask(Rc::new(component), incoming, b"PUB s 0\r\n\r\n".to_vec(), work);
        let asked = tokio::time::timeout(swarm::tests::TIMEOUT, asking).await.unwrap();
        assert_eq!(asked.unwrap_err().to_string(), "no reply came to request 0");
    }
}
