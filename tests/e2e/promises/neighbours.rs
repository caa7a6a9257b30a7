//! A component or node that floods its session does not delay other sessions of the same worker.

use super::scene::{Scene, nothing_else};
use e2e::TIMEOUT;
use e2e::conversation::Conversation;
use std::time::{Duration, Instant};

/// Enough for many turns of a worker on a busy machine. Without a budget for each turn, 2 to 8 s were measured.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(1000);
const ROUND_TRIPS: usize = 40;

/// The side of a session that floods it, and the line that this side repeats.
enum Flood {
    Component(&'static str),
    Node(&'static str),
}

async fn delays_no_other_session(flood: Flood) {
    let mut scene = Scene::with(&[("limits.workers", "1")]).await;
    let (mut flooding_client, mut flooding_node) = scene.open().await;
    let (mut client, mut node) = scene.open().await;
    client.set_timeout(TIMEOUT * 3);
    node.set_timeout(TIMEOUT * 3);
    let flooding = tokio::spawn(async move {
        let (from, to, line): (&mut Conversation, &mut Conversation, _) = match flood {
            Flood::Component(line) => (&mut *flooding_client, &mut *flooding_node, line),
            Flood::Node(line) => (&mut *flooding_node, &mut *flooding_client, line),
        };
        let lines = line.repeat(256 * 1024 / line.len());
        let write = async {
            loop {
                from.send(&lines).await;
            }
        };
        let read = async {
            loop {
                to.listen_for(Duration::from_secs(1)).await;
            }
        };
        tokio::join!(write, read);
    });
    let mut longest = Duration::ZERO;
    for _ in 0..ROUND_TRIPS {
        let began = Instant::now();
        nothing_else(&mut client, &mut node).await;
        longest = longest.max(began.elapsed());
    }
    assert!(
        !flooding.is_finished(),
        "the flood ended before the last round trip"
    );
    flooding.abort();
    assert!(longest < ROUND_TRIP_MAX, "a round trip took {longest:?}");
}

macro_rules! a_flood_delays_no_other_session {
    ($($name:ident: $flood:expr;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                delays_no_other_session($flood).await;
            }
        )*
    };
}

a_flood_delays_no_other_session! {
    a_component_that_floods_with_connect_delays_no_other_session: Flood::Component("CONNECT {\"verbose\":false}\r\n");
    a_component_that_floods_with_unsub_delays_no_other_session: Flood::Component("UNSUB 7\r\n");
    a_component_that_floods_with_ping_delays_no_other_session: Flood::Component("PING\r\n");
    a_node_that_floods_with_info_delays_no_other_session: Flood::Node("INFO {\"connect_urls\":[\"n:9\"]}\r\n");
    a_node_that_floods_with_pong_delays_no_other_session: Flood::Node("PONG\r\n");
}
