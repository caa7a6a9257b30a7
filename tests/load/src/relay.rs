//! A TCP relay: it passes bytes on in both directions, in order, and parses nothing. With a delay it is a slow link.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Buffer for one direction of a connection.
const BUFFER_BYTES: usize = 64 * 1024;

/// Relays each connection to `listener` to the address `to`, which need not listen yet, and delays each byte by `delay`. All connections
/// end when the future is dropped.
///
/// # Errors
/// The listener fails. The error of a connection is printed and ends that connection only.
pub async fn serve(listener: TcpListener, to: String, delay: Duration) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (near, _) = listener.accept().await?;
        while connections.try_join_next().is_some() {}
        let to = to.clone();
        connections.spawn(async move {
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
    // An error in one direction does not end the other one, which may still have bytes to pass on.
    let (up, down) = tokio::join!(
        pass_on(near_read, far_write, delay),
        pass_on(far_read, near_write, delay)
    );
    up.and(down)
}

/// Passes on one direction, late, until its end.
async fn pass_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) -> io::Result<()> {
    let mut waiting: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut has_ended = false;
    while !has_ended || !waiting.is_empty() {
        let due = waiting.front().map(|(at, _)| *at);
        tokio::select! {
            read = from.read(&mut buffer), if !has_ended => match read {
                Ok(length @ 1..) => waiting.push_back((Instant::now() + delay, buffer[..length].to_vec())),
                // What was read before a reset is still passed on.
                Ok(0) | Err(_) => has_ended = true,
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
