//! Whether a publish on one node reaches a client that has just subscribed on another. The client sends SUB and PING. After the
//! PONG, the publisher sends two messages: one to the new subject, and one to a subject with an old subscription. Messages of one
//! publisher stay in order, so the first message is lost if the second one arrives without it.

use std::time::Instant;

use clap::Args;

use crate::Outcome;
use crate::connection::{Connection, publish};
use crate::ends::Ends;
use crate::quantiles::{Quantiles, WARM_UP_PART};

const AWAITED: &[u8] = b"awaited";
const SECOND: &[u8] = b"second";

/// Publishes on one node after a PONG on another.
#[derive(Debug, Args)]
pub(crate) struct Flush {
    #[command(flatten)]
    ends: Ends,
    /// Subscriptions to make one after the other, each on a new subject.
    #[arg(long, default_value_t = 1_000)]
    rounds: u64,
}

impl Flush {
    /// Measures, and prints the number of lost messages and quantiles of the time from SUB to PONG.
    pub(crate) fn run(self) -> Outcome<()> {
        let known = format!("load.{}.known", std::process::id());
        let (mut publisher, mut subscriber) = self.ends.connect(&known)?;

        let second = publish(&known, None, SECOND);
        let mut taken = Quantiles::new()?;
        let mut missed = 0;
        for round in 0..self.rounds {
            let subject = format!("load.{}.{round}", std::process::id());
            let mut frames = publish(&subject, None, AWAITED);
            frames.extend_from_slice(&second);
            let started = Instant::now();
            // The subscription to `known` has the sid 1.
            subscriber.subscribe_as(round + 2, &subject)?;
            let elapsed = started.elapsed();
            publisher.send(&frames)?;
            if round >= self.rounds / WARM_UP_PART {
                taken.record(elapsed);
            }
            missed += u64::from(!arrives(&mut subscriber)?);
        }
        let mut result = taken.result("flush");
        result["rounds"] = self.rounds.into();
        result["missed"] = missed.into();
        crate::print(&result)
    }
}

/// Returns whether the expected message arrives before the second one.
fn arrives(subscriber: &mut Connection) -> Outcome<bool> {
    let (mut has_arrived, mut is_over) = (false, false);
    while !is_over {
        subscriber.receive(|message| match message.reply_and_payload().1 {
            AWAITED => has_arrived = true,
            _ => is_over = true,
        })?;
    }
    Ok(has_arrived)
}
