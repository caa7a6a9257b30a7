//! Many busy components. Each publishes at a fixed rate to a subject that only it subscribes to, and records its longest silence. The
//! command `mark` begins a window, and `report` prints the messages and the longest silence of each component in it. The end of
//! standard input ends the program.

use std::cell::Cell;
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
    #[arg(long, default_value_t = 200)]
    rate: u32,
}

/// One component and the messages that it received.
#[derive(Debug)]
struct Ear {
    component: Rc<Component>,
    last: Cell<Instant>,
    longest: Cell<Duration>,
    messages: Cell<u64>,
    lost: Cell<bool>,
}

impl Ear {
    fn hears(&self) {
        let now = Instant::now();
        self.longest.set(self.longest.get().max(now - self.last.get()));
        self.last.set(now);
        self.messages.set(self.messages.get() + 1);
    }

    fn mark(&self) {
        self.longest.set(Duration::ZERO);
        self.messages.set(0);
    }

    /// Returns the longest silence, including the present one.
    fn longest(&self) -> Duration {
        self.longest.get().max(self.last.get().elapsed())
    }
}

impl Silence {
    /// Connects the components and runs commands until the end of the input.
    pub(crate) fn run(self) -> Outcome<()> {
        swarm::block_on(self.serve())
    }

    async fn serve(self) -> Outcome<()> {
        let prefix = format!("busy.{}", std::process::id());
        let mut ears = Vec::new();
        for (component, incoming) in swarm::open(self.server, self.components, &prefix).await? {
            let ear = Rc::new(Ear {
                component,
                last: Cell::new(Instant::now()),
                longest: Cell::default(),
                messages: Cell::default(),
                lost: Cell::default(),
            });
            ears.push(Rc::clone(&ear));
            tokio::task::spawn_local(async move {
                ear.component.listen(incoming, || ear.hears()).await;
                ear.lost.set(true);
            });
        }
        tokio::task::spawn_local(publish(ears.clone(), prefix, self.rate));
        crate::print(&json!({ "measurement": "silence", "event": "ready", "components": ears.len() }))?;
        let mut commands = swarm::commands();
        while let Some(command) = commands.recv().await {
            match command.as_str() {
                "mark" => ears.iter().for_each(|ear| ear.mark()),
                "report" => report(&ears)?,
                other => return Err(format!("no command {other:?}").into()),
            }
        }
        Ok(())
    }
}

/// Publishes for all components, spread evenly over the period.
async fn publish(ears: Vec<Rc<Ear>>, prefix: String, rate: u32) {
    let period = Duration::from_secs(1) / rate;
    let started = Instant::now();
    let mut due: Vec<Instant> = (0..ears.len() as u32)
        .map(|number| started + period * number / ears.len() as u32)
        .collect();
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        for (number, ear) in ears.iter().enumerate().filter(|(_, ear)| !ear.lost.get()) {
            if due[number] > now {
                continue;
            }
            due[number] = (due[number] + period).max(now);
            let frame = format!("PUB {prefix}.{number} 16\r\n0123456789abcdef\r\n");
            if ear.component.send(frame.as_bytes()).is_err() {
                ear.lost.set(true);
            }
        }
    }
}

fn report(ears: &[Rc<Ear>]) -> Outcome<()> {
    let components: Vec<_> = ears
        .iter()
        .map(|ear| {
            json!({
                "address": ear.component.address.to_string(),
                "silence_ms": ear.longest().as_secs_f64() * 1000.0,
                "messages": ear.messages.get(),
                "lost": ear.lost.get(),
            })
        })
        .collect();
    crate::print(&json!({ "measurement": "silence", "event": "report", "components": components }))
}
