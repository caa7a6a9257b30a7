//! A guided failover: three broker nodes in a mesh, the sidecar in front of them, and a client that knows one address and does
//! not survive the loss of its connection. The node under the client is killed three times. The client notices nothing.
//!
//! `cargo run --release -p examples --example failover`. With `-- nats-server` at the end, the nodes run `nats-server`
//! from `PATH`. A path can be given instead (in Debian's package nats-server: `/usr/sbin/nats-server`).

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "it tells a story to a person, slowly enough to be read"
)]

mod nodes;
mod traffic;

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use examples::OldClient;
use nodes::Nodes;
use standin_proxy::{Settings, Sidecar};
use traffic::Traffic;

const KILLS: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if nodes::is_node(&arguments) {
        return nodes::run_as_node(arguments);
    }
    let mut nodes = Nodes::start(arguments.first())?;
    println!("Three nodes form a cluster, on ports {:?}.", nodes.client_ports());

    let settings = Settings::from_toml(&format!(
        "listen = [\"127.0.0.1:0\"]\nnodes.upstream = {:?}\nhttp.listen = \"127.0.0.1:0\"\n",
        nodes.urls()
    ))?;
    // The sidecar runs on the threads of the runtime, so this thread may block.
    let runtime = tokio::runtime::Runtime::new()?;
    let sidecar = runtime.block_on(Sidecar::start(settings))?;
    let address = sidecar.addresses()[0];
    let pages = sidecar.http_address().ok_or("the sidecar serves no HTTP")?;
    println!("The sidecar listens on {address}. That is the one address the old client knows.\n");

    let mut client = OldClient::connect(address)?;
    client.subscribe("orders.>", 1)?;
    println!("The client got: {}", client.info);
    println!("It subscribes to orders.> and publishes orders there.\n");
    let traffic = Traffic::start(client)?;

    for kill in 1..=KILLS {
        sleep(Duration::from_secs(1));
        traffic.forget_silence();
        let port = node_in_use(pages)?;
        println!("[{kill}] The client is served by the node on port {port}. That node is killed (kill -9).");
        nodes.kill(port)?;
        sleep(Duration::from_secs(1));
        println!(
            "    Now the node on port {} serves the client.",
            node_in_use(pages)?
        );
        println!("    The client's connection is the same, and so is its subscription:");
        println!("    {traffic}.");
        nodes.restart(port)?;
        println!("    The dead node is started again.\n");
    }

    println!("{}, over {KILLS} killed nodes.", traffic.stop()?);
    println!(
        "In doubt, as the sidecar counted: {} (published just before a node died, so perhaps lost).",
        in_doubt(pages)?
    );
    println!("The client never noticed.");
    runtime.block_on(sidecar.stop());
    Ok(())
}

/// Returns the port of the node that serves the client, from `/sessionz`.
fn node_in_use(pages: SocketAddr) -> Result<u16, Box<dyn Error>> {
    let sessions: serde_json::Value = serde_json::from_str(&page(pages, "/sessionz")?)?;
    let node = sessions["items"][0]["node"].as_str();
    let port = node.and_then(|node| node.rsplit(':').next());
    Ok(port.ok_or("no session has a node")?.parse()?)
}

/// Returns the number of publishes in doubt, from `/metrics`.
fn in_doubt(pages: SocketAddr) -> Result<String, Box<dyn Error>> {
    let metrics = page(pages, "/metrics")?;
    let count = metrics
        .lines()
        .find_map(|line| line.strip_prefix("standin_in_doubt_total{policy=\"drop\"} "));
    Ok(count.unwrap_or("0").to_owned())
}

fn page(pages: SocketAddr, path: &str) -> Result<String, Box<dyn Error>> {
    let mut stream = TcpStream::connect(pages)?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: standin\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("not an HTTP answer")?;
    Ok(body.to_owned())
}
