//! A byte relay: it copies bytes in both directions and parses nothing.
//!
//! Without a delay it shows the least that any proxy between a component and its node costs, so the benchmarks compare with it:
//! `cargo run --release -p load --bin relay -- 127.0.0.1:4223 127.0.0.1:4222`. With a delay in milliseconds as third argument it is a
//! slow link.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};

/// Buffer for one direction of a connection.
const BUFFER_BYTES: usize = 64 * 1024;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), Some(to)) = (arguments.next(), arguments.next()) else {
        return Err("usage: relay LISTEN_ADDRESS TO_ADDRESS [DELAY_MS]".into());
    };
    let delay_ms = arguments.next().map_or(Ok(0), |text| text.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(serve(&listen, to, Duration::from_millis(delay_ms)))?)
}

async fn serve(listen: &str, to: String, delay: Duration) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (near, _) = listener.accept().await?;
        let to = to.clone();
        tokio::spawn(async move {
            if let Err(error) = relay(near, &to, delay).await {
                eprintln!("relay to {to}: {error}");
            }
        });
    }
}

async fn relay(mut near: TcpStream, to: &str, delay: Duration) -> io::Result<()> {
    let mut far = TcpStream::connect(to).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    if delay.is_zero() {
        tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, BUFFER_BYTES, BUFFER_BYTES).await?;
        return Ok(());
    }
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    tokio::try_join!(
        pass_on(near_read, far_write, delay),
        pass_on(far_read, near_write, delay)
    )?;
    Ok(())
}

/// Passes on one direction, late, until its end.
async fn pass_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) -> io::Result<()> {
    let mut waiting: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut has_ended = false;
    while !has_ended || !waiting.is_empty() {
        let due = waiting.front().map(|(at, _)| *at);
        tokio::select! {
            read = from.read(&mut buffer), if !has_ended => match read? {
                0 => has_ended = true,
                length => waiting.push_back((Instant::now() + delay, buffer[..length].to_vec())),
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                if let Some((_, bytes)) = waiting.pop_front() {
                    to.write_all(&bytes).await?;
                }
            }
        }
    }
    to.shutdown().await
}
