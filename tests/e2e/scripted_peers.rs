//! Tests of the scripted peers: a raw client connected directly to a scripted node.

use e2e::{Ending, RawClient, ScriptedNode};
use std::time::Duration;

#[tokio::test]
async fn a_scripted_node_and_a_raw_client_hold_a_conversation() {
    let mut node = ScriptedNode::start().await;
    let address = node.address();
    let (mut client, (mut upstream, connect)) = tokio::join!(RawClient::open(address), node.accept_session());
    assert_eq!(connect["verbose"], false);
    assert_eq!(client.info()["port"], address.port());

    client.subscribe("a.>", "7").await;
    client.send_cut_at("PUB a.b 5\r\nhello\r\n", 13).await;
    upstream.expect_frame("SUB a.> 7\r\n").await;
    let publish = upstream.read_frame().await;
    assert_eq!(
        (publish.words()[1].as_str(), publish.payload()),
        ("a.b", b"hello".as_slice())
    );

    upstream.send("PING\r\n").await;
    upstream.deliver("7", "a.b", "hello").await;
    client.expect_message("7", "a.b", "hello").await;
    upstream.expect_line("PONG").await;

    let (before, ()) = tokio::join!(client.flush(), async {
        upstream.expect_line("PING").await;
        upstream.err("Slow Consumer").await;
        upstream.pong().await;
    });
    assert_eq!(before[0].line(), "-ERR 'Slow Consumer'");
}

#[tokio::test]
async fn a_scripted_node_ends_a_connection_as_the_test_chose() {
    let mut node = ScriptedNode::start().await;
    let address = node.address();
    for (ending, reset) in [(Ending::Closed, false), (Ending::Reset, true)] {
        let (mut client, connection) = tokio::join!(RawClient::connect(address), node.accept());
        if reset {
            connection.reset()
        } else {
            connection.close().await
        }
        assert_eq!(client.expect_end().await, ending);
    }
    node.stop_listening();
    assert!(
        tokio::net::TcpStream::connect(address).await.is_err(),
        "a node that does not listen accepted a connection"
    );
    node.listen_again().await;
    tokio::join!(RawClient::connect(address), node.accept());
    node.expect_no_connection(Duration::from_millis(20)).await;
}

#[tokio::test]
async fn a_scripted_node_skips_a_probe_that_only_connects() {
    let mut node = ScriptedNode::start().await;
    let address = node.address();
    let probe = tokio::net::TcpStream::connect(address)
        .await
        .expect("the node listens");
    drop(probe);
    let (_client, (connection, _)) = tokio::join!(RawClient::open(address), node.accept_session());
    assert!(connection.name().ends_with("connection 2"));
}

#[tokio::test]
async fn a_scripted_node_that_does_not_read_blocks_its_peer() {
    let mut node = ScriptedNode::with_receive_buffer_bytes(4096).await;
    let address = node.address();
    let (mut client, mut connection) = tokio::join!(RawClient::connect(address), node.accept());
    let megabytes = vec![b'x'; 64 * 1024 * 1024];
    let written = client
        .send_until_blocked(&megabytes, Duration::from_millis(100))
        .await;
    assert!(written < megabytes.len(), "the kernel took all bytes");
    client.reset();
    let (rest, _) = connection.read_to_end().await;
    assert!(rest.len() <= written);
}

#[tokio::test]
#[should_panic(expected = "expected \"PONG\\r\\n\"")]
async fn a_failed_expectation_shows_what_was_expected() {
    let mut node = ScriptedNode::start().await;
    let address = node.address();
    let (mut client, mut connection) = tokio::join!(RawClient::connect(address), node.accept());
    connection.send("-ERR 'no'\r\n").await;
    client.expect_line("PONG").await;
}
