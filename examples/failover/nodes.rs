//! The nodes of the tour: three processes on loopback that can be killed and started again.
//!
//! If no program is given, each node is this program itself, run again with the first argument `--as-node`.

use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const NODES: usize = 3;
/// The first argument that makes this program run as a node.
const AS_NODE: &str = "--as-node";
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A cluster. Its processes are killed when it is dropped.
pub(crate) struct Nodes {
    program: OsString,
    /// The argument before the flags, if the program needs one.
    prefix: Option<&'static str>,
    client_ports: Vec<u16>,
    routes: Vec<String>,
    processes: Vec<Child>,
}

impl Nodes {
    /// Starts the nodes, which run `program` or this program, and waits until every node accepts clients.
    pub(crate) fn start(program: Option<&OsString>) -> Result<Self, Box<dyn Error>> {
        let own = || std::env::current_exe().map(OsString::from);
        // All ports are held at once, so that they differ.
        let held = (0..2 * NODES).map(|_| TcpListener::bind("127.0.0.1:0"));
        let held: Vec<TcpListener> = held.collect::<io::Result<_>>()?;
        let ports = held.iter().map(|held| Ok(held.local_addr()?.port()));
        let mut client_ports: Vec<u16> = ports.collect::<io::Result<_>>()?;
        let route_ports = client_ports.split_off(NODES);
        let mut nodes = Self {
            program: program.cloned().map_or_else(own, Ok)?,
            prefix: program.is_none().then_some(AS_NODE),
            client_ports,
            routes: route_ports.iter().map(url).collect(),
            processes: Vec::new(),
        };
        drop(held);
        for at in 0..NODES {
            let process = nodes.spawn(at)?;
            nodes.processes.push(process);
        }
        nodes
            .client_ports
            .iter()
            .try_for_each(|port| wait_until_open(*port))?;
        Ok(nodes)
    }

    pub(crate) fn client_ports(&self) -> &[u16] {
        &self.client_ports
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.client_ports.iter().map(url).collect()
    }

    /// Kills the node with this client port (SIGKILL).
    pub(crate) fn kill(&mut self, port: u16) -> Result<(), Box<dyn Error>> {
        let at = self.at(port)?;
        self.processes[at].kill()?;
        self.processes[at].wait()?;
        Ok(())
    }

    /// Starts the node with this client port again, and waits until it accepts clients.
    pub(crate) fn restart(&mut self, port: u16) -> Result<(), Box<dyn Error>> {
        let at = self.at(port)?;
        self.processes[at] = self.spawn(at)?;
        wait_until_open(port)
    }

    fn at(&self, port: u16) -> Result<usize, Box<dyn Error>> {
        let at = self.client_ports.iter().position(|known| *known == port);
        Ok(at.ok_or_else(|| format!("no node has port {port}"))?)
    }

    fn spawn(&self, at: usize) -> Result<Child, Box<dyn Error>> {
        let process = Command::new(&self.program)
            .args(self.prefix)
            .args(["-a", "127.0.0.1", "-p", &self.client_ports[at].to_string()])
            .args(["--cluster_name", "example", "--cluster", &self.routes[at]])
            .args(["--routes", &self.routes.join(",")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        process.map_err(|error| format!("cannot run {}: {error}", self.program.display()).into())
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // It may have been killed before.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn url(port: &u16) -> String {
    format!("nats://127.0.0.1:{port}")
}

/// Returns whether this process is to be a node.
pub(crate) fn is_node(arguments: &[OsString]) -> bool {
    arguments.first().is_some_and(|first| first == AS_NODE)
}

/// Runs what the program `standin-broker` runs with these arguments. Ends only when it is killed.
pub(crate) fn run_as_node(arguments: Vec<OsString>) -> Result<(), Box<dyn Error>> {
    let cli = standin_broker::cli::Cli::read(arguments).map_err(|message| message.text())?;
    let settings = cli.settings()?.settings;
    tokio::runtime::Runtime::new()?.block_on(async {
        let _server = standin_broker::Server::start(settings).await?;
        std::future::pending().await
    })
}

#[expect(clippy::disallowed_methods, reason = "a blocking program, no worker thread")]
fn wait_until_open(port: u16) -> Result<(), Box<dyn Error>> {
    let deadline = Instant::now() + START_TIMEOUT;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if Instant::now() > deadline {
            return Err(format!("the node on port {port} did not start within {START_TIMEOUT:?}").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
