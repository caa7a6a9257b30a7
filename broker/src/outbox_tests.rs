//! Several workers that send to one client, and a client that does not read.

use std::future::poll_fn;

use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use super::*;

const SENDERS: usize = 4;
const MESSAGES: usize = 5_000;

async fn pair() -> (Arc<Stream>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (Arc::new(near.into()), listener.accept().await.unwrap().0)
}

fn drain_for_ever(outbox: &Arc<Outbox>) -> tokio::task::JoinHandle<()> {
    let outbox = Arc::clone(outbox);
    tokio::spawn(poll_fn(move |cx| {
        let _ = outbox.poll_drain(cx);
        Poll::<()>::Pending
    }))
}

/// Lines that workers send at the same time arrive whole, once, and in each worker's order, even through a small send buffer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_workers_send_at_once_and_each_keeps_its_order() {
    let (near, mut far) = pair().await;
    socket2::SockRef::from(near.socket())
        .set_send_buffer_size(16 * 1024)
        .unwrap();
    let outbox = Arc::new(Outbox::new(1, Some(near), SENDERS));
    let draining = drain_for_ever(&outbox);
    let threads: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let outbox = Arc::clone(&outbox);
            std::thread::spawn(move || {
                for number in 0..MESSAGES {
                    let mut staged = Staged::default();
                    let padding = "x".repeat(number % 300);
                    staged
                        .bytes
                        .extend(format!("{sender} {number} {padding}").bytes());
                    if number.is_multiple_of(5) {
                        staged.share(Bytes::from(vec![b'y'; number % 700]));
                    }
                    staged.bytes.push(b'\n');
                    outbox.send(&staged, usize::MAX);
                }
            })
        })
        .collect();
    let mut next = [0; SENDERS];
    let (mut received, mut buffer) = (Vec::new(), [0; 4096]);
    while next != [MESSAGES; SENDERS] {
        let count = far.read(&mut buffer).await.unwrap();
        assert!(count > 0, "the connection ended at {next:?}");
        received.extend_from_slice(&buffer[..count]);
        while let Some(end) = received.iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8(received.drain(..=end).collect()).unwrap();
            let mut words = line.trim_end().split(' ');
            let sender: usize = words.next().unwrap().parse().unwrap();
            let number: usize = words.next().unwrap().parse().unwrap();
            assert_eq!(number, next[sender], "from worker {sender}");
            let shared = if number.is_multiple_of(5) { number % 700 } else { 0 };
            assert_eq!(words.next().unwrap_or_default().len(), number % 300 + shared);
            next[sender] += 1;
        }
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(received.is_empty());
    assert_eq!(outbox.pending_bytes(), 0);
    draining.abort();
}

#[tokio::test]
async fn a_client_above_the_pending_limit_is_closed_and_its_pending_bytes_are_dropped() {
    let (near, _far) = pair().await;
    let outbox = Outbox::new(1, Some(near), 1);
    let mut is_behind = false;
    for _ in 0..10_000 {
        let mut staged = Staged::default();
        staged.bytes.resize(64 * 1024, b'x');
        let was_behind = std::mem::replace(&mut is_behind, outbox.send(&staged, 1024 * 1024));
        if outbox.reason().is_some() {
            break;
        }
        assert!(outbox.pending_bytes() <= 1024 * 1024);
        assert_eq!(is_behind, outbox.pending_bytes() > 512 * 1024);
        assert!(is_behind || !was_behind, "the client has read nothing");
    }
    assert_eq!(outbox.reason(), Some(CloseReason::SlowConsumerPending));
    assert_eq!((is_behind, outbox.pending_bytes()), (false, 0));
}

/// Otherwise, the client would be closed at once for a socket that has just become full.
#[tokio::test]
async fn the_write_deadline_of_bytes_added_during_another_workers_write_begins_when_they_are_added() {
    let outbox = Outbox::new(1, Some(pair().await.0), 1);
    outbox.queue().writing = true;
    let mut staged = Staged::default();
    staged.bytes.push(b'x');
    let before = Instant::now();
    outbox.send(&staged, usize::MAX);
    assert!(outbox.blocked_since() >= Some(before));
}

/// A check of a password takes long, and the client is not read meanwhile.
#[tokio::test]
async fn a_client_that_has_closed_its_connection_is_gone() {
    let (near, mut far) = pair().await;
    let outbox = Outbox::new(1, Some(near), 1);
    assert!(!outbox.is_gone());
    tokio::io::AsyncWriteExt::write_all(&mut far, b"PING\r\n")
        .await
        .unwrap();
    assert!(!outbox.is_gone());
    let (near, far) = pair().await;
    let outbox = Outbox::new(1, Some(near), 1);
    drop(far);
    while !outbox.is_gone() {
        tokio::task::yield_now().await;
    }
}
