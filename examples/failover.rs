//! A guided failover: three nodes of the broker, linked to a mesh, the sidecar in front of them, and a client that knows one
//! address and would not survive the loss of its connection. Then the node under the client is killed, again and again.
//!
//! `cargo run --release -p examples --example failover`; with `-- nats-server` the nodes are `nats-server`'s, which has to be there
//! then (Debian: `apt-get install nats-server`; or run `tests/run` once, which fetches the newest).

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "it tells its story to a person, at a pace to follow"
)]

use std::error::Error;
use std::ffi::OsString;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use examples::OldClient;
use standin_proxy::{Settings, Sidecar};

const NODES: usize = 3;
const KILLS: usize = 3;
const PER_SECOND: u32 = 500;
/// The argument with which this program is one node of the broker.
const NODE: &str = "standin-broker";

/// One node, a process of its own, ended with this value.
struct Node {
    process: Child,
    port: u16,
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may be dead already: that is what this program is about.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the subscriber saw.
#[derive(Debug, Default)]
struct Seen {
    received: AtomicU64,
    twice: AtomicU64,
    /// In microseconds, since the last look.
    longest_silence_us: AtomicU64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    let first = arguments.peek().and_then(|argument| argument.to_str());
    let (server, name) = match first {
        Some(NODE) => return be_a_node(arguments),
        Some("nats-server") => (find_server()?, "nats-server"),
        Some(other) => return Err(format!("{other} is not known; the one argument is nats-server").into()),
        None => (std::env::current_exe()?, NODE),
    };
    let ports = free_ports(2 * NODES)?;
    let (client_ports, route_ports) = ports.split_at(NODES);
    let mut nodes = Vec::new();
    for (port, route_port) in client_ports.iter().zip(route_ports) {
        nodes.push(start_node(&server, *port, *route_port, route_ports)?);
    }
    nodes.iter().try_for_each(|node| wait_until_open(node.port))?;
    println!("Three {name} nodes form a cluster, on ports {client_ports:?}.");

    let sidecar = SidecarThread::start(client_ports)?;
    println!(
        "The sidecar listens on {}. That is the one address the old client knows.\n",
        sidecar.address
    );

    let mut client = OldClient::connect(&*sidecar.address)?;
    client.subscribe("orders.>", 1)?;
    println!("The client got: {}", client.info);
    println!("It subscribes to orders.> and publishes {PER_SECOND} orders a second.\n");

    let (seen, stop) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
    let publishing = publish(client.second_hand()?, Arc::clone(&stop));
    let receiving = receive(client, Arc::clone(&seen), Arc::clone(&stop));

    for kill in 1..=KILLS {
        std::thread::sleep(Duration::from_secs(1));
        seen.longest_silence_us.store(0, Relaxed);
        let port = sidecar.node_in_use()?;
        let at = nodes
            .iter()
            .position(|node| node.port == port)
            .ok_or("the sidecar uses an unknown node")?;
        println!("[{kill}] The client is served by the node on port {port}. It is killed (kill -9).");
        drop(nodes.remove(at));
        std::thread::sleep(Duration::from_secs(1));
        println!(
            "    Now it is served by the node on port {}. Its connection is the same, and so is its subscription:",
            sidecar.node_in_use()?
        );
        println!(
            "    {} orders received so far, longest silence {:.1} ms.",
            seen.received.load(Relaxed),
            seen.longest_silence_us.load(Relaxed) as f64 / 1000.0
        );
        let (route_port, port) = (
            route_ports[client_ports.iter().position(|p| *p == port).unwrap_or(0)],
            port,
        );
        nodes.push(start_node(&server, port, route_port, route_ports)?);
        wait_until_open(port)?;
        println!("    The dead node is started again.\n");
    }

    stop.store(true, Relaxed);
    let published = publishing.join().map_err(|_| "the publisher panicked")??;
    receiving.join().map_err(|_| "the subscriber panicked")??;
    let (received, twice) = (seen.received.load(Relaxed), seen.twice.load(Relaxed));
    println!(
        "{published} orders published, {received} received, {twice} received twice, over {KILLS} dead nodes."
    );
    println!(
        "In doubt, as the sidecar counted it: {} (what a dying node may have swallowed).",
        sidecar.in_doubt()?
    );
    println!("The client never noticed.");
    sidecar.stop()
}

/// Publishes numbered orders until told to stop; returns how many.
fn publish(mut client: OldClient, stop: Arc<AtomicBool>) -> JoinHandle<std::io::Result<u64>> {
    std::thread::spawn(move || {
        let (start, mut number) = (Instant::now(), 0_u64);
        while !stop.load(Relaxed) {
            client.publish(&format!("orders.{}", number % 7), &number.to_string())?;
            number += 1;
            let due = start + Duration::from_secs(1) / PER_SECOND * number as u32;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(number)
    })
}

/// Receives until told to stop and nothing more comes.
fn receive(mut client: OldClient, seen: Arc<Seen>, stop: Arc<AtomicBool>) -> JoinHandle<std::io::Result<()>> {
    std::thread::spawn(move || {
        let (mut last, mut highest) = (Instant::now(), None);
        loop {
            let Some(message) = client.next(Duration::from_millis(300))? else {
                if stop.load(Relaxed) {
                    return Ok(());
                }
                continue;
            };
            let number: u64 = String::from_utf8_lossy(&message.payload)
                .parse()
                .map_err(std::io::Error::other)?;
            if highest.is_some_and(|highest| number <= highest) {
                seen.twice.fetch_add(1, Relaxed);
            }
            highest = highest.max(Some(number));
            seen.received.fetch_add(1, Relaxed);
            seen.longest_silence_us
                .fetch_max(last.elapsed().as_micros() as u64, Relaxed);
            last = Instant::now();
        }
    })
}

/// The sidecar, run in this process as `standin-proxy` runs it.
struct SidecarThread {
    address: String,
    http: String,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl SidecarThread {
    fn start(nodes: &[u16]) -> Result<Self, Box<dyn Error>> {
        let upstream: Vec<String> = nodes
            .iter()
            .map(|port| format!("\"nats://127.0.0.1:{port}\""))
            .collect();
        let settings = format!(
            "listen = [\"127.0.0.1:0\"]\n[nodes]\nupstream = [{}]\n[http]\nlisten = \"127.0.0.1:0\"\n",
            upstream.join(", ")
        );
        let settings = Settings::from_toml(&settings)?;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (started, addresses) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(error.to_string()))),
            };
            runtime.block_on(async {
                match Sidecar::start(settings).await {
                    Ok(sidecar) => {
                        let _ = started.send(Ok((sidecar.addresses().to_vec(), sidecar.http_address())));
                        let _ = stopped.await;
                        sidecar.stop().await;
                    }
                    Err(error) => drop(started.send(Err(error.to_string()))),
                }
            });
        });
        let (addresses, http) = addresses.recv()??;
        let address = addresses
            .first()
            .ok_or("the sidecar does not listen")?
            .to_string();
        let http = http.ok_or("the sidecar serves no HTTP")?.to_string();
        Ok(Self {
            address,
            http,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Port of the node that serves the client, from `/sessionz`.
    fn node_in_use(&self) -> Result<u16, Box<dyn Error>> {
        let sessions: serde_json::Value = serde_json::from_str(&self.get("/sessionz")?)?;
        let node = sessions["items"][0]["node"]
            .as_str()
            .ok_or("no session has a node")?;
        Ok(node.rsplit(':').next().unwrap_or_default().parse()?)
    }

    /// `standin_in_doubt_total` from `/metrics`.
    fn in_doubt(&self) -> Result<String, Box<dyn Error>> {
        let metrics = self.get("/metrics")?;
        let line = metrics
            .lines()
            .find(|line| line.starts_with("standin_in_doubt_total{policy=\"drop\"}"));
        Ok(line
            .and_then(|line| line.rsplit(' ').next())
            .unwrap_or("?")
            .to_owned())
    }

    fn get(&self, path: &str) -> Result<String, Box<dyn Error>> {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(&*self.http)?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: standin\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer
            .split_once("\r\n\r\n")
            .map(|(_, body)| body.to_owned())
            .unwrap_or_default())
    }

    fn stop(mut self) -> Result<(), Box<dyn Error>> {
        drop(self.stop.take());
        self.thread
            .take()
            .map_or(Ok(()), JoinHandle::join)
            .map_err(|_| "the sidecar panicked".into())
    }
}

/// What `standin-broker` with these flags is: so that the tour needs no other program, and can kill a node as nodes die.
fn be_a_node(flags: impl Iterator<Item = OsString>) -> Result<(), Box<dyn Error>> {
    let cli = standin_broker::cli::Cli::read(flags).map_err(|said| said.text())?;
    let settings = cli.settings()?.settings;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let _server = standin_broker::Server::start(settings).await?;
        std::future::pending().await
    })
}

/// `nats-server` on the PATH, or where `tests/run` puts the newest.
fn find_server() -> Result<PathBuf, Box<dyn Error>> {
    let fetched = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../target/peers/python/bin/nats-server"
    ));
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&paths).map(|folder| folder.join("nats-server"));
    let system = [PathBuf::from("/usr/sbin/nats-server")];
    let found = std::iter::once(fetched)
        .chain(on_path)
        .chain(system)
        .find(|path| path.is_file());
    found.ok_or_else(|| "nats-server is missing: apt-get install nats-server, or run tests/run once".into())
}

fn start_node(server: &PathBuf, port: u16, route_port: u16, all: &[u16]) -> Result<Node, Box<dyn Error>> {
    let routes: Vec<String> = all
        .iter()
        .map(|port| format!("nats-route://127.0.0.1:{port}"))
        .collect();
    let mut command = Command::new(server);
    if !server.ends_with("nats-server") {
        command.arg(NODE);
    }
    let process = command
        .args(["-a", "127.0.0.1", "-p", &port.to_string()])
        .args([
            "--cluster_name",
            "example",
            "--cluster",
            &format!("nats://127.0.0.1:{route_port}"),
        ])
        .args(["--routes", &routes.join(",")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(Node { process, port })
}

fn wait_until_open(port: u16) -> Result<(), Box<dyn Error>> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(format!("the node on port {port} did not start within 10 s").into())
}

fn free_ports(count: usize) -> std::io::Result<Vec<u16>> {
    let held: Result<Vec<TcpListener>, _> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    held?
        .iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect()
}
