//! Many busy components. Each publishes at a fixed rate to a subject that only it subscribes to, and records its longest silence. The
//! command `mark` begins a window, and `report` prints each component's messages and longest silence in that window. The end of
//! standard input ends the program.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use crate::Outcome;
use crate::swarm::{self, Component};

/// Interval between two checks for components that are due to publish.
const TICK: Duration = Duration::from_millis(1);

/// Many busy components, with commands on standard input.
#[derive(Debug, Args)]
pub(crate) struct Silence {
    /// Address to which the components connect.
    #[arg(long)]
    server: SocketAddr,
    /// Number of components.
    #[arg(long, default_value_t = 100)]
    components: usize,
    /// Messages per second of each component.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
}

impl Silence {
    /// Connects the components and runs commands until the end of the input.
    pub(crate) fn run(self) -> Outcome<()> {
        swarm::block_on(self.serve())
    }

    async fn serve(self) -> Outcome<()> {
        let prefix = format!("busy.{}", std::process::id());
        let components = swarm::open_listening(self.server, self.components, &prefix).await?;
        tokio::task::spawn_local(publish(components.clone(), prefix, self.rate));
        crate::print(&json!({ "measurement": "silence", "event": "ready", "components": components.len() }))?;
        let mut commands = swarm::commands();
        while let Some(command) = commands.recv().await {
            match command.as_str() {
                "mark" => components.iter().for_each(|component| component.mark()),
                "report" => report(&components)?,
                other => return Err(format!("no command {other:?}").into()),
            }
        }
        Ok(())
    }
}

/// Publishes for all components, spread evenly over the period.
async fn publish(components: Vec<Rc<Component>>, prefix: String, rate: u32) {
    let period = Duration::from_secs(1) / rate;
    let started = Instant::now();
    let count = components.len() as u32;
    let mut due: Vec<Instant> = (0..count)
        .map(|number| started + period * number / count)
        .collect();
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        for (number, component) in components.iter().enumerate() {
            if due[number] > now || component.is_lost.get() {
                continue;
            }
            due[number] = (due[number] + period).max(now);
            let frame = format!("PUB {prefix}.{number} 16\r\n0123456789abcdef\r\n");
            if component.send(frame.as_bytes()).is_err() {
                component.is_lost.set(true);
            }
        }
    }
}

fn report(components: &[Rc<Component>]) -> Outcome<()> {
    let row = |component: &Rc<Component>| {
        json!({
            "address": component.address.to_string(),
            "silence_ms": component.longest_silence().as_secs_f64() * 1000.0,
            "messages": component.messages.get(),
            "lost": component.is_lost.get(),
        })
    };
    let components: Vec<_> = components.iter().map(row).collect();
    crate::print(&json!({ "measurement": "silence", "event": "report", "components": components }))
}
