//! Many idle components with one subscription each. The program prints a line when all are connected, and then reads commands:
//! `hear HOST:PORT` publishes to each component through that node, repeats this for those that have received nothing, and prints
//! how many were reached. The end of standard input ends the program.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use crate::Outcome;
use crate::swarm::{self, Component};

/// Pause before the components that have received nothing get another message.
const ROUND: Duration = Duration::from_millis(100);
/// Number of rounds after which a component that has received nothing counts as deaf.
const ROUNDS_MAX: u32 = 600;

/// Many idle components, with commands on standard input.
#[derive(Debug, Args)]
pub(crate) struct Idle {
    /// Address to which the components connect.
    #[arg(long)]
    server: SocketAddr,
    /// Number of components.
    #[arg(long, default_value_t = 1_000)]
    components: usize,
}

impl Idle {
    /// Connects the components and runs commands until the end of the input.
    pub(crate) fn run(self) -> Outcome<()> {
        swarm::block_on(self.serve())
    }

    async fn serve(self) -> Outcome<()> {
        let started = Instant::now();
        let prefix = format!("idle.{}", std::process::id());
        let components = swarm::open_listening(self.server, self.components, &prefix).await?;
        crate::print(&json!({
            "measurement": "idle",
            "event": "ready",
            "components": components.len(),
            "seconds": started.elapsed().as_secs_f64(),
        }))?;
        let mut commands = swarm::commands();
        while let Some(command) = commands.recv().await {
            match command.split_once(' ') {
                Some(("hear", node)) => hear(node.parse()?, &components, &prefix).await?,
                _ => return Err(format!("no command {command:?}").into()),
            }
        }
        Ok(())
    }
}

async fn hear(node: SocketAddr, components: &[Rc<Component>], prefix: &str) -> Outcome<()> {
    let started = Instant::now();
    components.iter().for_each(|component| component.mark());
    let is_deaf = |component: &Component| component.messages.get() == 0 && !component.is_lost.get();
    let deaf = || (0..components.len()).filter(|number| is_deaf(&components[*number]));
    let (publisher, _) = Component::open(node, None, &format!("{prefix}.publisher")).await?;
    let mut rounds = tokio::time::interval(ROUND);
    for _ in 0..ROUNDS_MAX {
        rounds.tick().await;
        let round: String = deaf()
            .map(|number| format!("PUB {prefix}.{number} 1\r\nx\r\n"))
            .collect();
        if round.is_empty() {
            break;
        }
        let busy = publisher.unsent_bytes() > 0;
        publisher.send(if busy { b"" } else { round.as_bytes() })?;
    }
    let lost = components
        .iter()
        .filter(|component| component.is_lost.get())
        .count();
    let deaf = deaf().count();
    crate::print(&json!({
        "measurement": "idle",
        "event": "heard",
        "components": components.len() - lost - deaf,
        "lost": lost,
        "deaf": deaf,
        "seconds": started.elapsed().as_secs_f64(),
    }))
}
