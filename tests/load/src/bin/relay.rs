//! A bare byte relay: it copies bytes in both directions and parses nothing.
//!
//! It shows the least that any proxy between a component and its node costs, so the benchmarks compare with it:
//! `cargo run --release -p load --bin relay -- 127.0.0.1:4223 127.0.0.1:4222`.

use std::io;

use tokio::net::{TcpListener, TcpStream};

/// Buffer for one direction of a connection.
const BUFFER_BYTES: usize = 64 * 1024;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), Some(to)) = (arguments.next(), arguments.next()) else {
        return Err("usage: relay LISTEN_ADDRESS TO_ADDRESS".into());
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(serve(&listen, to))?)
}

async fn serve(listen: &str, to: String) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (near, _) = listener.accept().await?;
        let to = to.clone();
        tokio::spawn(async move {
            if let Err(error) = relay(near, &to).await {
                eprintln!("relay to {to}: {error}");
            }
        });
    }
}

async fn relay(mut near: TcpStream, to: &str) -> io::Result<()> {
    let mut far = TcpStream::connect(to).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, BUFFER_BYTES, BUFFER_BYTES).await?;
    Ok(())
}
