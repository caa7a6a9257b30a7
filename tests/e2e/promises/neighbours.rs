//! What one session's component or node does holds up no other session of the same thread.

use super::scene::{Scene, nothing_else};
use e2e::PATIENCE;
use e2e::conversation::Conversation;
use std::time::{Duration, Instant};

/// Far above what a turn takes on a busy machine, far below what was seen without a bound on its work (2 to 8 s).
const ROUND_TRIP_MAX: Duration = Duration::from_millis(1000);
const ROUND_TRIPS: usize = 40;

/// Who floods its session.
enum Flood {
    Component(&'static str),
    Node(&'static str),
}

async fn holds_up_nobody(flood: Flood) {
    let mut scene = Scene::with(&[("limits.workers", "1")]).await;
    let (mut flooding_client, mut flooding_node) = scene.open().await;
    let (mut client, mut node) = scene.open().await;
    client.set_patience(PATIENCE * 3);
    node.set_patience(PATIENCE * 3);
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

macro_rules! a_flood_holds_up_nobody {
    ($($name:ident: $flood:expr;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                holds_up_nobody($flood).await;
            }
        )*
    };
}

a_flood_holds_up_nobody! {
    a_component_that_only_says_connect_holds_up_nobody: Flood::Component("CONNECT {\"verbose\":false}\r\n");
    a_component_that_only_unsubscribes_holds_up_nobody: Flood::Component("UNSUB 7\r\n");
    a_component_that_only_pings_holds_up_nobody: Flood::Component("PING\r\n");
    a_node_that_only_sends_info_holds_up_nobody: Flood::Node("INFO {\"connect_urls\":[\"n:9\"]}\r\n");
    a_node_that_only_sends_pong_holds_up_nobody: Flood::Node("PONG\r\n");
}
