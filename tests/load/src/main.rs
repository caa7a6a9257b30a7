//! A load generator that speaks the bare protocol, so that what it measures is the server and never a client library.
//!
//! It prints one JSON object per result on standard output. `tests/bench` runs it; by hand it is
//! `cargo run --release -p load -- flow --publisher 127.0.0.1:4222 --subscriber 127.0.0.1:4222`.
//!
//! | file | holds |
//! |---|---|
//! | `incoming` | what a server sends, taken apart |
//! | `connection` | a blocking connection, for the measurements with a few busy ones |
//! | `swarm` | many connections on one thread, for the measurements with many quiet ones |
//! | `flow` | publish → subscribe as fast as it goes, without ever overrunning the subscriber |
//! | `throughput` | publishers and subscribers in any number and place: publish only, fan-out, queue groups |
//! | `places` | where publishers and subscribers connect |
//! | `latency` | publish → subscribe at a fixed rate |
//! | `request` | request and reply, any number of requesters |
//! | `firehose` | a busy publisher beside which `latency` and `request` can be measured |
//! | `flush` | does a publish at one node reach who has just subscribed at another? |
//! | `subscriptions` | very many subscriptions, and publishing while others come and go |
//! | `newcomer` | a node that is just starting |
//! | `idle` | many components with one subscription each; when does the last one hear again? |
//! | `silence` | many busy components; how long does each hear nothing? |
//! | `window` | how far a publisher may be ahead |
//! | `churn` | subscriptions that come and go at a fixed rate |
//! | `quantiles` | the times of many messages |
//! | `random` | numbers from a seed |

mod churn;
mod connection;
mod firehose;
mod flow;
mod flush;
mod idle;
mod incoming;
mod latency;
mod newcomer;
mod places;
mod quantiles;
mod random;
mod request;
mod silence;
mod subscriptions;
mod swarm;
mod throughput;
mod window;

use std::error::Error;
use std::io::Write;

use clap::{Parser, Subcommand};
use serde_json::Value;

/// What goes wrong ends the program: a measurement is whole or it is none.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Measures NATS servers and what stands before them.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    measurement: Measurement,
}

#[derive(Debug, Subcommand)]
enum Measurement {
    /// One publisher, one subscriber, as fast as it goes.
    Flow(flow::Flow),
    /// Publishers and subscribers of one server or cluster, as fast as it goes.
    Throughput(throughput::Throughput),
    /// One publisher, one subscriber, at a fixed rate: how long does a message take?
    Latency(latency::Latency),
    /// Requesters with one request at a time each: how many, and how long does the reply take?
    Request(request::Request),
    /// SUB, PING, PONG at one node, and at once a publish at another: does it come?
    Flush(flush::Flush),
    /// Many idle components; commands on standard input.
    Idle(idle::Idle),
    /// Many busy components; commands on standard input.
    Silence(silence::Silence),
    /// Very many subscriptions, and publishing while others come and go; commands on standard input.
    Subscriptions(subscriptions::Subscriptions),
}

fn main() -> Outcome<()> {
    match Cli::parse().measurement {
        Measurement::Flow(flow) => flow.run(),
        Measurement::Throughput(throughput) => throughput.run(),
        Measurement::Latency(latency) => latency.run(),
        Measurement::Request(request) => request.run(),
        Measurement::Flush(flush) => flush.run(),
        Measurement::Idle(idle) => idle.run(),
        Measurement::Silence(silence) => silence.run(),
        Measurement::Subscriptions(subscriptions) => subscriptions.run(),
    }
}

/// One result, one line.
pub(crate) fn print(result: &Value) -> Outcome<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{result}")?;
    Ok(out.flush()?)
}
