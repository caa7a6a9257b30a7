//! One `standin-broker` or `nats-server`, started with the flags that both share, so that the same test runs against both.

use crate::http::Endpoint;
use crate::peers;
use crate::port::free_port;
use crate::process::{Process, Program};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The program that is run as a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerKind {
    /// `standin-broker`.
    Standin,
    /// The newest `nats-server`.
    NatsServer,
}

impl ServerKind {
    /// Returns the name of the program.
    pub fn name(self) -> &'static str {
        match self {
            Self::Standin => "standin-broker",
            Self::NatsServer => "nats-server",
        }
    }

    /// Returns the program, without arguments.
    pub fn program(self) -> Program {
        Program::new(match self {
            Self::Standin => peers::broker_binary(),
            Self::NatsServer => peers::folder().join("python/bin/nats-server"),
        })
    }
}

/// A running server on its own port.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    http: SocketAddr,
    process: Process,
}

impl Server {
    /// Starts a server with these flags and those of its address, and waits until it is ready.
    pub async fn start(kind: ServerKind, flags: &[&str]) -> Self {
        Self::start_in(kind, flags, &[]).await
    }

    /// Starts a server as [`start`](Self::start) does, with these environment variables.
    pub async fn start_in(kind: ServerKind, flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let own = || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let (address, http) = (own(), own());
        let mut program = kind
            .program()
            .args(["-a", "127.0.0.1", "-p"])
            .arg(address.port().to_string())
            .arg("-m")
            .arg(http.port().to_string())
            .args(flags);
        for (name, value) in environment {
            program = program.env(name, value);
        }
        let mut process = program.start(kind.name());
        process.wait_for_line("Server is ready", START_TIMEOUT).await;
        Self {
            address,
            http,
            process,
        }
    }

    /// Returns the address to which clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns that address as `nats://HOST:PORT`.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Returns the address of the server's monitoring pages.
    pub fn http(&self) -> Endpoint {
        Endpoint {
            address: self.http,
            netns: None,
        }
    }

    /// Returns its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
