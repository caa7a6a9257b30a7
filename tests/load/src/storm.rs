//! A storm of logins: clients that connect at a fixed rate, whether or not earlier ones have logged in, and close once they have, or when the
//! server refuses them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use clap::Args;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::access::{Access, User};
use crate::quantiles::Quantiles;
use crate::swarm::{self, Component};

/// Interval between two looks at how many logins are due.
const TICK: Duration = Duration::from_millis(1);
/// Time after which a client that got no answer leaves.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Number of source addresses. A closed connection keeps its port for a minute, and one address has about 28,000.
const SOURCES: u64 = 200;

/// Logins at a fixed rate.
#[derive(Debug, Args)]
pub(crate) struct Storm {
    /// Address to which the clients connect, on the loopback.
    #[arg(long)]
    server: SocketAddr,
    /// Logins that begin each second.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Duration of the storm, in seconds.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Number of users that log in in turn: those of `--user` with a number after the name, from 0. With 0, it is `--user` itself.
    #[arg(long, default_value_t = 0)]
    users: u64,
    /// Every password is wrong, and each is different.
    #[arg(long)]
    wrong: bool,
}

/// How the logins ended.
#[derive(Debug)]
struct Ends {
    succeeded: Quantiles,
    /// With an `-ERR`.
    refused: u64,
    /// Closed without a word, or left because no answer came.
    unanswered: u64,
}

impl Storm {
    /// Measures, and prints how the logins ended.
    pub(crate) fn run(self) -> Outcome<()> {
        swarm::block_on(self.rage())
    }

    async fn rage(self) -> Outcome<()> {
        let user = Access::current().user.as_ref().ok_or("a storm needs --user")?;
        let started = Instant::now();
        let (mut begun, mut logins) = (0, JoinSet::new());
        let mut ticks = tokio::time::interval(TICK);
        while started.elapsed().as_secs_f64() < self.seconds {
            ticks.tick().await;
            let due = (started.elapsed().as_secs_f64() * f64::from(self.rate)) as u64;
            for number in begun..due {
                logins.spawn_local(log_in(self.server, number, self.user(user, number)));
            }
            begun = due;
        }
        let mut ends = Ends {
            succeeded: Quantiles::new()?,
            refused: 0,
            unanswered: 0,
        };
        while let Some(login) = logins.join_next().await {
            ends.add(login?);
        }
        let mut result = ends.succeeded.result("storm");
        result["begun"] = begun.into();
        result["succeeded_per_second"] = (ends.succeeded.count() as f64 / self.seconds).into();
        result["refused"] = ends.refused.into();
        result["unanswered"] = ends.unanswered.into();
        crate::print(&result)
    }

    fn user(&self, user: &User, number: u64) -> User {
        let mut user = user.clone();
        if self.users > 0 {
            user.name += &(number % self.users).to_string();
        }
        if self.wrong {
            user.password += &number.to_string();
        }
        user
    }
}

impl Ends {
    fn add(&mut self, login: io::Result<Duration>) {
        match login {
            Ok(taken) => self.succeeded.record(taken),
            Err(error) if error.kind() == io::ErrorKind::Other => self.refused += 1,
            Err(_) => self.unanswered += 1,
        }
    }
}

/// Logs in and closes. Returns the time from the connect to the PONG.
async fn log_in(server: SocketAddr, number: u64, user: User) -> io::Result<Duration> {
    let started = Instant::now();
    let source = Ipv4Addr::new(127, 0, 1, (1 + number % SOURCES) as u8);
    let opening = Component::open_as(server, Some(source.into()), "storm", Some(&user));
    tokio::time::timeout(LOGIN_TIMEOUT, opening).await??;
    Ok(started.elapsed())
}
