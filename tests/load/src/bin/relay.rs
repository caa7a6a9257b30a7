//! A byte relay: it copies bytes in both directions and parses nothing.
//!
//! Without a delay it shows the least that any proxy between a component and its node costs, so the benchmarks compare with it:
//! `cargo run --release -p load --bin relay -- 127.0.0.1:4223 127.0.0.1:4222`. With a delay in milliseconds as third argument it is a
//! slow link.

use std::time::Duration;

use load::relay;
use tokio::net::TcpListener;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), Some(to)) = (arguments.next(), arguments.next()) else {
        return Err("usage: relay LISTEN_ADDRESS TO_ADDRESS [DELAY_MS]".into());
    };
    let delay_ms = arguments.next().map_or(Ok(0), |text| text.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        Ok(relay::serve(listener, to, Duration::from_millis(delay_ms)).await?)
    })
}
