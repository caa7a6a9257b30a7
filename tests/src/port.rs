//! Free loopback ports that no other test, no other test process and no outgoing connection can take.
//!
//! Ports come from blocks below the kernel's range for outgoing connections. A process claims a block with a file lock, which the
//! kernel releases at the end of the process. A process never hands out the same port twice.

use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, create_dir_all};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Mutex, PoisonError};

const FIRST_PORT: u16 = 10_000;
const BLOCK_PORTS: u16 = 64;
const BLOCKS: u16 = 320;

struct Block {
    _lock: Flock<File>,
    next: u16,
    end: u16,
}

static BLOCK: Mutex<Option<Block>> = Mutex::new(None);
static SPENT: Mutex<Vec<Block>> = Mutex::new(Vec::new());

/// Returns a port that is free on 127.0.0.1 and that no other test process uses.
pub fn free_port() -> u16 {
    let mut current = BLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(block) = current.as_mut().filter(|block| block.next < block.end) {
            let port = block.next;
            block.next += 1;
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return port;
            }
        } else {
            // The lock of the exhausted block is kept, because servers on its ports may still run.
            SPENT
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(current.take());
            *current = Some(claim());
        }
    }
}

/// Returns a [`free_port`] as an address on loopback.
pub fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

fn claim() -> Block {
    let folder = std::env::temp_dir().join("standin-e2e-ports");
    create_dir_all(&folder).unwrap_or_else(|error| panic!("cannot make {}: {error}", folder.display()));
    // Processes start at different blocks, so that a port is not reused soon.
    let start = std::process::id() % u32::from(BLOCKS);
    for step in 0..BLOCKS {
        let block = (u32::from(step) + start) as u16 % BLOCKS;
        let path = folder.join(block.to_string());
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        let file = file.unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()));
        if let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            let first = FIRST_PORT + block * BLOCK_PORTS;
            return Block {
                _lock: lock,
                next: first,
                end: first + BLOCK_PORTS,
            };
        }
    }
    panic!(
        "all {BLOCKS} blocks of ports are taken; other test processes hold {}",
        folder.display()
    );
}
