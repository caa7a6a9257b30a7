//! A publisher at full speed, with one subscriber, in the background of other measurements.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use serde_json::Value;

use crate::Outcome;
use crate::connection::{Connection, publish};
use crate::ends::Ends;
use crate::window::Window;

/// Bytes in each message.
const PAYLOAD_BYTES: usize = 128;
/// Bytes of one write of the publisher.
const BATCH_BYTES: usize = 64 * 1024;

/// A running publisher and its subscriber.
#[derive(Debug)]
struct Firehose {
    window: Arc<Window>,
    stop: Arc<AtomicBool>,
    started: Instant,
    threads: [JoinHandle<io::Result<()>>; 2],
}

/// Runs `measure`. If a `server` is given, runs a firehose there at the same time, and adds the firehose's rate to the result.
pub(crate) fn run_with_firehose(
    server: Option<SocketAddr>,
    measure: impl FnOnce() -> Outcome<Value>,
) -> Outcome<Value> {
    let firehose = server.map(Firehose::start).transpose()?;
    let mut result = measure()?;
    if let Some(firehose) = firehose {
        result["firehose_messages_per_second"] = firehose.stop()?.into();
    }
    Ok(result)
}

impl Firehose {
    fn start(server: SocketAddr) -> Outcome<Self> {
        let subject = format!("firehose.{}", std::process::id());
        let ends = Ends {
            publisher: server,
            subscriber: server,
        };
        let (mut publisher, mut subscriber) = ends.connect(&subject)?;
        let frame = publish(&subject, None, &[b'x'; PAYLOAD_BYTES]);
        let window = Arc::new(Window::new(frame.len()));
        let stop = Arc::new(AtomicBool::new(false));
        let (outgoing, incoming, end) = (Arc::clone(&window), Arc::clone(&window), Arc::clone(&stop));
        Ok(Self {
            window,
            stop,
            started: Instant::now(),
            threads: [
                thread::spawn(move || send(&mut publisher, &frame, &outgoing, &end)),
                thread::spawn(move || incoming.receive_all(&mut subscriber)),
            ],
        })
    }

    /// Stops, and returns the number of messages received per second.
    fn stop(self) -> Outcome<f64> {
        let rate = self.window.received() as f64 / self.started.elapsed().as_secs_f64();
        self.stop.store(true, Relaxed);
        for thread in self.threads {
            let ended = thread.join().map_err(|_| "the firehose failed")?;
            ended.map_err(|error| format!("the firehose: {error}"))?;
        }
        Ok(rate)
    }
}

fn send(publisher: &mut Connection, frame: &[u8], window: &Window, stop: &AtomicBool) -> io::Result<()> {
    let count = (BATCH_BYTES / frame.len()) as u64;
    let batch = frame.repeat(count as usize);
    while !stop.load(Relaxed) {
        window.take(count)?;
        publisher.send(&batch)?;
    }
    window.end();
    publisher.flush()
}
