//! Many clients at once, and slow clients: they do not delay the others, and nothing leaks.

use std::time::{Duration, Instant};

use e2e::raw::CONNECT_OLD;
use e2e::{Ending, Node, RawClient, ServerKind, TIMEOUT, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

const CROWD: usize = 9_900;

async fn varz(server: &Node, key: &str) -> u64 {
    let page = server.http().get_json("/varz").await;
    page.and_then(|page| page[key].as_u64()).unwrap_or(u64::MAX)
}

/// Connects, subscribes, and returns when the server has confirmed it.
async fn subscribed(server: std::net::SocketAddr, number: usize) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(server).await?;
    let line = format!("{CONNECT_OLD}\r\nSUB crowd.{number} 1\r\nSUB all.* 2\r\nPING\r\n");
    stream.write_all(line.as_bytes()).await?;
    let mut received = Vec::new();
    while !received.windows(6).any(|bytes| bytes == b"PONG\r\n") {
        if timeout(TIMEOUT, stream.read_buf(&mut received)).await?? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(stream)
}

/// Each client needs an open file in the test and one in the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_clients_that_subscribe_and_die_at_once_leave_nothing_behind() {
    let server = Node::start(ServerKind::Standin, &[]).await;
    let mut watcher = RawClient::open(server.address()).await;
    for round in 1..=2 {
        let mut arriving = JoinSet::new();
        for number in 0..CROWD {
            arriving.spawn(subscribed(server.address(), number));
        }
        let mut crowd = Vec::new();
        while let Some(arrived) = arriving.join_next().await {
            crowd.push(arrived.expect("no panic").expect("each is served"));
        }
        assert_eq!(varz(&server, "connections").await, CROWD as u64 + 1);
        assert_eq!(varz(&server, "subscriptions").await, 2 * CROWD as u64);
        watcher.publish("all.x", "hi").await;
        for stream in &mut crowd {
            let mut received = String::new();
            // The server's first PING comes soon after CONNECT, before or after the message.
            while received.replace("PING\r\n", "") != "MSG all.x 2 2\r\nhi\r\n" {
                let mut bytes = Vec::new();
                let count = timeout(TIMEOUT, stream.read_buf(&mut bytes)).await;
                let count = count.unwrap_or_else(|_| panic!("received {received:?} instead of the message"));
                assert!(count.expect("a socket") > 0, "the connection ended: {received:?}");
                received += &String::from_utf8_lossy(&bytes);
            }
        }
        // Each drop resets the connection, even if no received bytes are unread.
        for stream in crowd {
            stream.set_zero_linger().expect("a socket");
            drop(stream);
        }
        eventually("all clients and subscriptions are gone", TIMEOUT, async || {
            varz(&server, "connections").await == 1 && varz(&server, "subscriptions").await == 0
        })
        .await;
        assert_eq!(
            varz(&server, "total_connections").await,
            (round * CROWD) as u64 + 1
        );
        watcher.flush().await;
    }
}

#[tokio::test]
async fn a_client_that_sends_a_byte_at_a_time_is_served_and_delays_no_other() {
    let server = Node::start(ServerKind::Standin, &["--user", "a", "--pass", "b"]).await;
    let connect = "CONNECT {\"verbose\":false,\"user\":\"a\",\"pass\":\"b\"}";
    let mut quick = RawClient::open_with(server.address(), connect).await;
    let mut slow = RawClient::open_with(server.address(), connect).await;
    for byte in "SUB a 1\r\nPUB a 5\r\nhello\r\n".bytes() {
        slow.send([byte]).await;
        let start = Instant::now();
        quick.flush().await;
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }
    slow.expect_message("1", "a", "hello").await;

    // This client is slower than the timeout for CONNECT allows, and gets an error.
    let mut slower = RawClient::connect(server.address()).await;
    let mut ended = None;
    for byte in connect.bytes() {
        if ended.is_some() {
            break;
        }
        slower.send_cut_at([byte], 1).await;
        slower.listen_for(Duration::from_millis(60)).await;
        ended = slower.ending();
    }
    slower.expect("-ERR 'Authentication Timeout'\r\n").await;
    assert_eq!(slower.expect_end().await, Ending::Closed);
    quick.flush().await;
}
