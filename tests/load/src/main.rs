//! A load generator that writes and reads the protocol itself, so that it measures the server and not a client library.
//!
//! It prints each result as one JSON object on standard output. `tests/bench` runs it. By hand:
//! `cargo run --release -p load -- flow --publisher 127.0.0.1:4222 --subscriber 127.0.0.1:4222`.
//!
//! | file | holds |
//! |---|---|
//! | `flow` | publish → subscribe at full speed, one publisher and one subscriber |
//! | `throughput` | publish → subscribe at full speed, any number of publishers, subscribers and nodes |
//! | `latency` | publish → subscribe at a fixed rate |
//! | `request` | request and reply, any number of requesters |
//! | `flush` | whether a publish on one node reaches a client that has just subscribed on another |
//! | `subscriptions` | very many subscriptions, and messages while other subscriptions are made and ended |
//! | `idle` | many idle components, and the time until the last one receives again |
//! | `silence` | many busy components, and the longest silence of each |
//! | `moves` | numbered messages while sessions move, and whether each arrives once and in order |
//! | `storm` | logins at a fixed rate |
//! | `incoming` | parser of what a server sends |
//! | `access` | how connections are made: with TLS or without, and as which user |
//! | `stream` | a blocking TCP connection, with TLS or without |
//! | `connection` | a blocking connection, for measurements with few busy ones |
//! | `swarm` | many connections on one thread, for measurements with many quiet ones |
//! | `ends` | one publisher and one subscriber, and whether messages get from the one to the other |
//! | `places` | the nodes to which publishers and subscribers connect |
//! | `window` | limit on the messages in flight |
//! | `firehose` | a busy publisher in the background of `latency` and `request` |
//! | `quantiles` | quantiles of many durations |

mod access;
mod connection;
mod ends;
mod firehose;
mod flow;
mod flush;
mod idle;
mod incoming;
mod latency;
mod moves;
mod places;
mod quantiles;
mod request;
mod silence;
mod storm;
mod stream;
mod subscriptions;
mod swarm;
mod throughput;
mod window;

use std::error::Error;
use std::io::Write;

use clap::{Parser, Subcommand};
use serde_json::Value;

/// Result of a measurement. An error ends the program: there are no partial results.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Measures NATS servers and proxies in front of them.
#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    access: access::AccessOptions,
    #[command(subcommand)]
    measurement: Measurement,
}

#[derive(Debug, Subcommand)]
enum Measurement {
    /// One publisher and one subscriber at full speed.
    Flow(flow::Flow),
    /// Publishers and subscribers of one server or cluster at full speed.
    Throughput(throughput::Throughput),
    /// Latency between one publisher and one subscriber at a fixed rate.
    Latency(latency::Latency),
    /// Rate and latency of requests, with one in flight for each requester.
    Request(request::Request),
    /// Messages missed after SUB, PING, PONG on one node and a publish on another.
    Flush(flush::Flush),
    /// Many idle components, with commands on standard input.
    Idle(idle::Idle),
    /// Many busy components, with commands on standard input.
    Silence(silence::Silence),
    /// Numbered messages while sessions move, with commands on standard input.
    Moves(moves::Moves),
    /// Logins at a fixed rate.
    Storm(storm::Storm),
    /// Very many subscriptions, with commands on standard input.
    Subscriptions(subscriptions::Subscriptions),
}

fn main() -> Outcome<()> {
    let cli = Cli::parse();
    cli.access.apply()?;
    match cli.measurement {
        Measurement::Flow(flow) => flow.run(),
        Measurement::Throughput(throughput) => throughput.run(),
        Measurement::Latency(latency) => latency.run(),
        Measurement::Request(request) => request.run(),
        Measurement::Flush(flush) => flush.run(),
        Measurement::Idle(idle) => idle.run(),
        Measurement::Silence(silence) => silence.run(),
        Measurement::Moves(moves) => moves.run(),
        Measurement::Storm(storm) => storm.run(),
        Measurement::Subscriptions(subscriptions) => subscriptions.run(),
    }
}

/// Prints one result as one line.
pub(crate) fn print(result: &Value) -> Outcome<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{result}")?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_or_number_of_zero_is_refused() {
        for words in [
            "latency --publisher 127.0.0.1:1 --subscriber 127.0.0.1:1 --rate",
            "silence --server 127.0.0.1:1 --rate",
            "storm --server 127.0.0.1:1 --rate",
            "subscriptions --server 127.0.0.1:1 --subscriptions",
            "subscriptions --server 127.0.0.1:1 --connections",
        ] {
            let parse = |number| Cli::try_parse_from(format!("load {words} {number}").split(' '));
            assert!(parse(1).is_ok(), "{words} 1");
            assert!(parse(0).is_err(), "{words} 0");
        }
    }
}
