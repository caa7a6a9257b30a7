//! A slow link: a TCP relay that passes all bytes on, in order and late.

use crate::port::free_port;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

const READ_BYTES: usize = 64 * 1024;

/// A relay on loopback. It ends when it is dropped.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Relay {
    /// Starts a relay to `target` that delays each byte by `delay`, in both directions. `target` need not listen yet.
    pub async fn start(target: SocketAddr, delay: Duration) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let listener = TcpListener::bind(address).await.expect("the relay's port");
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                connections.spawn(connection(near, target, delay));
            }
        });
        Self { address, task }
    }

    /// Returns the address on which the relay listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connection(near: TcpStream, target: SocketAddr, delay: Duration) {
    let Ok(far) = TcpStream::connect(target).await else {
        return;
    };
    for stream in [&near, &far] {
        stream.set_nodelay(true).expect("a TCP socket");
    }
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::join!(
        pass_on(near_read, far_write, delay),
        pass_on(far_read, near_write, delay)
    );
}

/// Passes on one direction, until its end or an error.
async fn pass_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let mut waiting: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut has_ended = false;
    loop {
        let due = waiting.front().map(|(at, _)| *at);
        tokio::select! {
            read = from.read(&mut buffer), if !has_ended => match read {
                Ok(length @ 1..) => waiting.push_back((Instant::now() + delay, buffer[..length].to_vec())),
                Ok(0) | Err(_) => has_ended = true,
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                let (_, bytes) = waiting.pop_front().expect("bytes");
                if to.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            else => {
                // The other side has closed the connection, or it is reset.
                let _ = to.shutdown().await;
                return;
            }
        }
    }
}
