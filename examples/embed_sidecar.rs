//! A program that uses the sidecar as a library. It survives the loss of a node, and needs no second process.
//!
//! `cargo run -p examples --example embed_sidecar -- nats://HOST:4222` uses the nodes given. Without an argument it runs a
//! broker node in this process.

#![expect(clippy::print_stdout, reason = "it talks to a person")]

use std::error::Error;
use std::time::Duration;

use examples::OldClient;
use standin_proxy::embedded::Embedded;
use standin_proxy::{Settings, Sidecar};

fn main() -> Result<(), Box<dyn Error>> {
    let mut nodes: Vec<String> = std::env::args().skip(1).collect();
    // The sidecar runs on this runtime's threads, so the program itself may block.
    let runtime = tokio::runtime::Runtime::new()?;
    let mut _own_node = None;
    if nodes.is_empty() {
        let embedded = Embedded::listen(1)?;
        nodes = embedded.urls().to_vec();
        _own_node = Some(runtime.block_on(embedded.run())?);
    }

    // The keys are those of deploy/proxy.toml. Port 0 is any free port.
    let settings = format!("listen = [\"127.0.0.1:0\"]\nnodes.upstream = {nodes:?}\n");
    let sidecar = runtime.block_on(Sidecar::start(Settings::from_toml(&settings)?))?;
    let address = sidecar.addresses()[0];
    println!("the sidecar listens on {address}, in front of {nodes:?}");

    let mut client = OldClient::connect(address)?;
    client.subscribe("greetings", 1)?;
    client.publish("greetings", "hello")?;
    let message = client.next(Duration::from_secs(5))?.ok_or("no message came")?;
    println!(
        "{}: {}",
        message.subject,
        String::from_utf8_lossy(&message.payload)
    );

    drop(client);
    runtime.block_on(sidecar.stop());
    Ok(())
}
