//! Tests of the node book on virtual time.

use std::sync::atomic::Ordering;

use standin_registry::{NodeState, Source};

use super::node_entry::{PROBATION, RETRY_MAX};
use super::*;
use crate::session::tests::node;

const SETTINGS: &str = "choice.cooldown_max_ms = 1000\nhealth.idle_probe_interval_ms = 10000\n";

fn settings(dials_concurrent_max: usize) -> Arc<Settings> {
    let text = format!("{SETTINGS}dial.dials_concurrent_max = {dials_concurrent_max}\n");
    Arc::new(Settings::from_toml(&text).unwrap())
}

fn book() -> Arc<NodeBook> {
    Arc::new(NodeBook::new(settings(2), &[]))
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn nodes(names: &[&str]) -> Vec<Arc<Node>> {
    names.iter().map(|name| Arc::new(node(name))).collect()
}

fn snapshot(live: &[&str]) -> Snapshot {
    Snapshot {
        live: nodes(live),
        ..Snapshot::default()
    }
}

/// Records a failed trial of each of `nodes`.
fn fail(book: &NodeBook, nodes: &[Arc<Node>], now: Instant) {
    for node in nodes {
        book.failed(node, "refused", true, now);
    }
}

fn order(book: &NodeBook, snapshot: &Snapshot, now: Instant) -> Vec<String> {
    let candidates = book.candidates(snapshot, None, false, now);
    candidates.iter().map(|node| node.client.to_string()).collect()
}

#[test]
fn a_new_limit_on_dials_applies_to_known_nodes() {
    let book = book();
    let node = Arc::new(node("a:1"));
    let dials = || book.with_entry(&node, |entry, _| Arc::clone(&entry.dials));
    let permits_with = |max| {
        book.set_settings(settings(max));
        dials().available_permits()
    };
    let waiting_for = dials();
    assert_eq!(waiting_for.available_permits(), 2);
    assert_eq!(permits_with(16), 16);
    // Waiting sessions get the added permits.
    assert_eq!(waiting_for.available_permits(), 16);
    assert_eq!(permits_with(1), 1);
    assert_eq!(permits_with(3), 3);
}

#[test]
fn the_sidecar_recognises_its_own_addresses() {
    for (listens, local, peer, own) in [
        ("127.0.0.1:4222", "127.0.0.1", "127.0.0.1:4222", true),
        ("0.0.0.0:4222", "10.0.0.1", "10.0.0.1:4222", true),
        ("0.0.0.0:4222", "127.0.0.1", "127.0.0.2:4222", true),
        ("0.0.0.0:4222", "::1", "[::1]:4222", false),
        ("[::]:4222", "127.0.0.1", "127.0.0.1:4222", true),
        ("127.0.0.1:4222", "127.0.0.1", "127.0.0.1:4223", false),
        ("127.0.0.1:4222", "10.0.0.1", "10.0.0.1:4222", false),
        ("0.0.0.0:4222", "10.0.0.1", "10.0.0.2:4222", false),
    ] {
        let local = SocketAddr::new(local.parse().unwrap(), 50_000);
        let check = SelfCheck::new(&[listens.parse().unwrap()], None);
        let peer = peer.parse().unwrap();
        assert_eq!(check.is_own(local, peer), own, "{listens} {peer}");
    }
}

#[test]
fn a_node_that_is_not_allowed_is_shown_and_neither_dialled_nor_probed() {
    let text = format!(
        "{SETTINGS}nodes.allowed_nodes = ['10.0.0.0/8', 'a']\nnodes.upstream = ['nats://192.0.2.7:1']\n"
    );
    let book = NodeBook::new(Arc::new(Settings::from_toml(&text).unwrap()), &[]);
    let now = Instant::now();
    let nodes = snapshot(&["10.0.0.1:1", "127.0.0.1:1", "192.0.2.7:1", "a:1", "b:1"]);
    book.take_snapshot(&nodes, now);
    let mut tried = order(&book, &nodes, now);
    tried.sort();
    // The addresses of b are checked when it is dialled.
    assert_eq!(tried, ["10.0.0.1:1", "192.0.2.7:1", "a:1", "b:1"]);
    assert_eq!(book.due_probes(now + secs(60)).len(), 4);
    let refused = book
        .status(now)
        .into_iter()
        .filter(|node| node.state == "refused");
    let refused: Vec<_> = refused.map(|node| (node.client, node.last_error)).collect();
    assert_eq!(
        refused,
        [("127.0.0.1:1".to_owned(), Some(NOT_ALLOWED.to_owned()))]
    );
    assert_eq!(book.reachability(now).known, 4);
    let nothing = format!("{SETTINGS}nodes.allowed_nodes = ['192.0.2.0/24']\n");
    book.set_settings(Arc::new(Settings::from_toml(&nothing).unwrap()));
    assert_eq!(order(&book, &nodes, now).len(), 3, "192.0.2.7, a and b");
    let refused = snapshot(&["127.0.0.1:1"]);
    let book = NodeBook::new(Arc::new(Settings::from_toml(&nothing).unwrap()), &[]);
    book.take_snapshot(&refused, now);
    let reason = book.reachability(now).unreachable().unwrap();
    assert_eq!(reason, "none of the known nodes (1) is in nodes.allowed_nodes");
}

#[test]
fn live_nodes_come_before_all_others() {
    let (book, now) = (book(), Instant::now());
    let gossip = Arc::new(Node::at("f:1".parse().unwrap(), Source::Gossip));
    let nodes = Snapshot {
        cached: nodes(&["d:1"]),
        fixed: vec![gossip, Arc::new(node("e:1"))],
        ..snapshot(&["a:1", "b:1", "c:1"])
    };
    let mut chosen = std::collections::BTreeMap::new();
    for _ in 0..600 {
        *chosen.entry(order(&book, &nodes, now)[0].clone()).or_insert(0) += 1;
    }
    assert_eq!(chosen.keys().collect::<Vec<_>>(), ["a:1", "b:1", "c:1"]);
    let is_even = |times| (120..=280).contains(times);
    assert!(chosen.values().all(is_even), "{chosen:?}");
    assert_eq!(order(&book, &nodes, now)[3..], ["d:1", "e:1", "f:1"]);
}

#[test]
fn a_failed_node_comes_after_all_others_until_it_is_proved_again() {
    let (book, now) = (book(), Instant::now());
    let mut nodes = snapshot(&["a:1", "b:1"]);
    nodes.fixed = self::nodes(&["c:1"]);
    let (a, b) = (&nodes.live[0], &nodes.live[1]);
    assert!(book.failed(a, "refused", false, now));
    assert_eq!(order(&book, &nodes, now), ["b:1", "c:1", "a:1"]);
    let later = now + secs(5);
    // a has cooled down, but is not proved.
    assert_eq!(order(&book, &nodes, later), ["b:1", "c:1", "a:1"]);
    book.failed(b, "refused", false, later);
    assert_eq!(order(&book, &nodes, later), ["c:1", "a:1", "b:1"], "b is cooling");
    assert!(book.proved(a, later), "it had failed");
    assert!(!book.proved(a, later));
    assert_eq!(order(&book, &nodes, later), ["a:1", "c:1", "b:1"]);
}

#[test]
fn cool_downs_double_up_to_their_bound_and_a_failure_reported_twice_counts_once() {
    let book = book();
    let node = Arc::new(node("a:1"));
    let mut now = Instant::now();
    for failure in 0..20_u32 {
        book.failed(&node, "x", false, now);
        book.failed(&node, "x", false, now);
        let status = book.status(now).remove(0);
        let bounds_ms = 100..=(100 << failure.min(4)).min(1000);
        assert_eq!((status.failures, status.state), (failure + 1, "cooling"));
        assert!(bounds_ms.contains(&status.cooling_ms), "{failure} {status:?}");
        now += ms(status.cooling_ms + 1);
        assert_eq!(book.status(now).remove(0).state, "down");
    }
}

/// Without ZooKeeper no record says that a node leaves, so its own announcement does, until it is tried again.
#[test]
fn a_node_that_announces_its_shutdown_is_draining_until_it_is_proved_or_fails() {
    let (book, now) = (book(), Instant::now());
    let nodes = nodes(&["a:1"]);
    let state = |now| book.status(now).remove(0).state;
    book.proved(&nodes[0], now);
    assert_eq!(state(now), "up");
    book.leaves(&nodes[0], now);
    assert_eq!(state(now + secs(1)), "draining");
    book.proved(&nodes[0], now + secs(1));
    assert_eq!(state(now + secs(1)), "up");
    book.leaves(&nodes[0], now + secs(1));
    book.failed(&nodes[0], "refused", true, now + secs(2));
    assert_eq!(state(now + secs(2)), "cooling");
    assert_eq!(state(now + secs(4)), "down");
    book.proved(&nodes[0], now + secs(4));
    assert_eq!(state(now + secs(4)), "up");
}

#[test]
fn the_avoided_node_comes_last_and_a_draining_one_after_failed_ones() {
    let (book, now) = (book(), Instant::now());
    let mut nodes = snapshot(&["a:1", "b:1", "d:1"]);
    nodes.fixed = self::nodes(&["c:1"]);
    Arc::make_mut(&mut nodes.live[1]).state = NodeState::Draining;
    fail(&book, &nodes.live[2..], now);
    let later = now + secs(2);
    let a = nodes.live[0].client.clone();
    let order = book.candidates(&nodes, Some(&a), false, later);
    let order: Vec<_> = order.iter().map(|node| node.client.to_string()).collect();
    assert_eq!(order, ["c:1", "d:1", "b:1", "a:1"]);
}

#[test]
fn after_an_outage_nodes_with_fewer_sessions_come_first() {
    let (book, now) = (book(), Instant::now());
    let nodes = snapshot(&["a:1", "b:1"]);
    for _ in 0..3 {
        book.count_session(&nodes.live[0], true);
    }
    for _ in 0..50 {
        let first = book.candidates(&nodes, None, true, now).remove(0);
        assert_eq!(first.client, nodes.live[1].client);
    }
}

#[test]
fn withdrawn_nodes_that_were_proved_recently_are_still_tried() {
    let (book, now) = (book(), Instant::now());
    let before = snapshot(&["a:1", "b:1", "never:1"]);
    book.take_snapshot(&before, now);
    book.proved(&before.live[0], now);
    book.proved(&before.live[1], now);
    book.count_session(&before.live[1], true);
    let ghost = snapshot(&["ghost:1"]);
    book.take_snapshot(&ghost, now);
    let mut left = order(&book, &ghost, now);
    assert_eq!(left.remove(0), "ghost:1");
    left.sort();
    assert_eq!(left, ["a:1", "b:1"]);
    book.failed(&ghost.live[0], "refused", false, now);
    assert_eq!(order(&book, &ghost, now).last().unwrap(), "ghost:1");
    let withdrawn: Vec<bool> = book.status(now).iter().map(|node| node.withdrawn).collect();
    assert_eq!(withdrawn, [true, true, false], "a and b are still shown");
    let later = now + WITHDRAWN_KEPT;
    book.take_snapshot(&ghost, later);
    let known = book.status(later).into_iter().map(|node| node.client);
    let known: Vec<String> = known.collect();
    assert_eq!(known, ["b:1", "ghost:1"], "a session is on b");
}

#[tokio::test]
async fn a_failed_node_is_dialled_by_one_session_at_a_time_and_not_before_its_retry_time() {
    let book = book();
    let node = Arc::new(node("a:1"));
    assert!(book.permit(&node).await.is_some_and(|permit| !permit.is_trial()));
    let now = Instant::now();
    book.failed(&node, "x", false, now);
    assert!(book.begin_dial(&node.client, now).is_none(), "not at once");
    let later = now + RETRY_MAX;
    let trial = book.begin_dial(&node.client, later).flatten();
    assert!(trial.is_some());
    assert!(book.begin_dial(&node.client, later).is_none(), "one at a time");
    drop(trial);
    assert!(book.begin_dial(&node.client, later).flatten().is_some());
}

#[test]
fn the_rate_of_dials_to_failed_nodes_is_limited_for_the_whole_process() {
    let (book, now) = (book(), Instant::now());
    let mut trials = Vec::new();
    for number in 0..100 {
        let node = Arc::new(node(&format!("n{number}:1")));
        book.failed(&node, "x", false, now);
        trials.extend(book.begin_dial(&node.client, now + RETRY_MAX).flatten());
    }
    assert_eq!(trials.len(), 20, "the dials of one second");
}

/// The other nodes failed some time ago. They may be back before a session or probe notices it.
#[test]
fn when_the_last_proved_node_fails_the_others_are_dialled_at_once_before_an_outage_begins() {
    let book = book();
    let all = nodes(&["a:1", "b:1", "c:1"]);
    let [a, b, c] = [&all[0], &all[1], &all[2]];
    let mut now = Instant::now();
    for node in [a, b, c] {
        book.proved(node, now);
    }
    for _ in 0..10 {
        now += secs(1);
        book.failed(a, "refused", true, now);
        book.failed(b, "refused", true, now);
    }
    // c is proved, so a is not dialled before its retry time.
    assert!(book.begin_dial(&a.client, now).is_none());
    now += ms(1);
    book.failed(c, "reset", false, now);
    let none_since = |now| book.none_reachable_since(&all, now);
    let lost_at = now;
    assert_eq!(none_since(now), None, "a and b may be back");
    for node in [a, b] {
        let trial = book.begin_dial(&node.client, now);
        assert!(matches!(trial, Some(Some(_))), "at once");
        book.failed(node, "refused", true, now);
        assert!(book.begin_dial(&node.client, now).is_none(), "once");
    }
    now += secs(1);
    assert_eq!(none_since(now), Some(lost_at));
    book.proved(b, now);
    assert_eq!(none_since(now), None);
}

/// The node answers each session and then closes the connection, so hundreds of waiting sessions must not dial it.
#[test]
fn dials_to_a_node_that_fails_soon_after_each_recovery_stay_limited() {
    let book = book();
    let node = Arc::new(node("a:1"));
    let start = Instant::now();
    let mut now = start;
    let mut dials = 0;
    for _ in 0..4000 {
        now += ms(1);
        // Any number of sessions try to dial the node.
        while let Some(_trial) = book.begin_dial(&node.client, now) {
            dials += 1;
            book.proved(&node, now);
            if dials % 2 == 0 {
                book.failed(&node, "closed", false, now + Duration::from_micros(1));
            }
            if dials > 1000 {
                break;
            }
        }
    }
    assert!((20..130).contains(&dials), "{dials} dials in 4 s");
    // The node stays up from now on.
    book.proved(&node, now);
    let is_on_probation = book.with_entry(&node, |entry, _| entry.is_limited(now));
    assert!(is_on_probation);
    let later = now + PROBATION;
    for _ in 0..100 {
        assert!(matches!(book.begin_dial(&node.client, later), Some(None)));
    }
    // A failure long after the recovery counts as a first failure.
    let later = later + secs(60);
    book.failed(&node, "closed", false, later);
    book.proved(&node, later);
    assert!(matches!(book.begin_dial(&node.client, later), Some(None)));
}

#[test]
fn a_node_is_proved_by_a_session_on_it_or_by_a_recent_probe() {
    let (book, now) = (book(), Instant::now());
    let nodes = snapshot(&["a:1"]);
    let a = &nodes.live[0];
    book.take_snapshot(&nodes, now);
    let state = |at| {
        (
            book.status(at).remove(0).state,
            book.none_proved_since(at).is_none(),
        )
    };
    assert_eq!(state(now), ("unproved", false));
    book.proved(a, now);
    assert_eq!(state(now), ("up", true));
    let long_after = now + secs(3600);
    assert_eq!(state(long_after), ("unproved", false));
    book.count_session(a, true);
    assert_eq!(
        state(long_after).0,
        "unproved",
        "a connection alone proves nothing"
    );
    book.count_served(&a.client, true, now);
    assert_eq!(state(long_after), ("up", true));
    book.failed(a, "reset", false, long_after);
    assert_eq!(book.none_proved_since(long_after), Some(long_after));
    let last_error = || book.status(long_after).remove(0).last_error;
    assert_eq!(last_error().as_deref(), Some("reset"));
    let reason = book.reachability(long_after + secs(7)).unreachable();
    assert_eq!(reason.unwrap(), "no node reachable for 7 s: 1 known, reset");
    book.proved(a, long_after);
    assert_eq!(last_error(), None, "a healthy node has no error");
    assert_eq!(book.reachability(long_after).unreachable(), None);
}

#[test]
fn idle_nodes_are_probed_slowly_and_failed_ones_after_their_cool_down() {
    let (book, now) = (book(), Instant::now());
    let nodes = snapshot(&["a:1", "b:1"]);
    book.take_snapshot(&nodes, now);
    let due = |at| book.due_probes(at).len();
    assert_eq!(due(now), 0, "new nodes are not probed all at once");
    let soon = now + ms(500);
    assert_eq!((due(soon), due(soon)), (2, 0));
    book.proved(&nodes.live[0], now);
    book.count_served(&nodes.live[0].client, true, now);
    book.failed(&nodes.live[1], "x", false, now);
    assert_eq!(due(now + ms(99)), 0);
    let searcher = book.searcher();
    book.failed(&nodes.live[0], "x", false, now);
    assert_eq!(due(now + secs(2)), 0, "a session dials it");
    book.proved(&nodes.live[0], now);
    drop(searcher);
    // b has cooled down, and a has a session.
    assert_eq!(due(now + secs(1)), 1);
    book.proved(&nodes.live[1], now);
    assert_eq!(due(now + secs(4)), 0);
    assert_eq!(due(now + secs(16)), 1);
}

/// The node may be gone, and `/nodez` shows it as up until it is tried again.
#[test]
fn a_node_that_no_source_names_any_more_is_probed_soon() {
    let (book, now) = (book(), Instant::now());
    let nodes = snapshot(&["a:1"]);
    book.take_snapshot(&nodes, now);
    book.proved(&nodes.live[0], now);
    let due = |at| book.due_probes(at).len();
    assert_eq!(due(now + secs(4)), 0);
    book.take_snapshot(&snapshot(&[]), now + secs(4));
    book.take_snapshot(&snapshot(&[]), now + secs(5));
    assert_eq!(due(now + secs(4) + ms(500)), 1);
}

#[test]
fn failed_nodes_are_probed_each_second_while_none_is_proved_and_no_session_searches() {
    let (book, mut now) = (book(), Instant::now());
    let nodes = snapshot(&["a:1", "b:1"]);
    book.take_snapshot(&nodes, now);
    for _ in 0..20 {
        fail(&book, &nodes.live, now);
        now += secs(1);
        assert_eq!(book.due_probes(now).len(), 2, "despite the cool-down");
    }
    fail(&book, &nodes.live, now);
    book.proved(&nodes.live[0], now);
    assert!(book.due_probes(now + ms(50)).is_empty());
}

#[test]
fn the_spread_grows_with_the_number_of_searching_sessions_above_the_limit_on_dials() {
    let book = book();
    let searchers: Vec<_> = (0..100).map(|_| book.searcher()).collect();
    for searcher in &searchers[..=2] {
        assert_eq!(searcher.spread(), Duration::ZERO);
    }
    assert!(searchers[99].spread() <= ms(5));
    drop(searchers);
    assert_eq!(book.searching.load(Ordering::Relaxed), 0);
}

#[test]
fn withdrawn_nodes_that_were_never_proved_are_removed() {
    let (book, now) = (book(), Instant::now());
    book.failed(&Arc::new(node("b:1")), "x", false, now);
    book.take_snapshot(&snapshot(&["a:1"]), now);
    assert_eq!(lock(&book.entries).len(), 1);
}

#[test]
fn nodes_once_proved_are_retried_before_nodes_never_proved() {
    let (book, now) = (book(), Instant::now());
    let dead: Vec<String> = (0..40).map(|number| format!("dead{number}:1")).collect();
    let names: Vec<&str> = dead.iter().map(String::as_str).chain(["lost:1"]).collect();
    let nodes = snapshot(&names);
    book.proved(&nodes.live[40], now);
    fail(&book, &nodes.live, now);
    for later in [now, now + secs(2)] {
        assert_eq!(order(&book, &nodes, later)[0], "lost:1");
    }
}

/// Somebody registers many addresses that drop packets, so that each dial takes long.
#[test]
fn nodes_that_no_probe_has_proved_in_time_come_after_proved_ones() {
    let (book, now) = (book(), Instant::now());
    let good = snapshot(&["good:1"]);
    book.take_snapshot(&good, now);
    book.proved(&good.live[0], now);
    let names: Vec<String> = (0..40).map(|number| format!("void{number}:1")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).chain(["good:1"]).collect();
    let all = snapshot(&names);
    book.take_snapshot(&all, now);
    let is_first = |at| (0..20).all(|_| order(&book, &all, at)[0] == "good:1");
    assert!(!is_first(now), "new nodes have the same chance");
    assert!(is_first(now + secs(1)));
}

#[test]
fn withdrawn_failed_nodes_are_retried_after_named_ones() {
    let (book, now) = (book(), Instant::now());
    let before = snapshot(&["gone:1", "stays:1"]);
    book.take_snapshot(&before, now);
    for node in &before.live {
        book.proved(node, now);
    }
    let after = snapshot(&["stays:1"]);
    book.take_snapshot(&after, now);
    fail(&book, &before.live, now);
    assert_eq!(order(&book, &after, now), ["stays:1", "gone:1"]);
}

#[test]
fn after_an_outage_failed_nodes_are_probed_at_once_and_then_at_each_retry_time() {
    let (book, began) = (book(), Instant::now());
    let nodes = snapshot(&["a:1", "b:1"]);
    for _ in 0..10 {
        fail(&book, &nodes.live, began);
    }
    book.end_cooldowns(began);
    book.proved(&nodes.live[0], began);
    let mut probes = 0;
    let mut now = began;
    while now < began + SPREAD {
        for node in book.due_probes(now) {
            assert_eq!(node.client, nodes.live[1].client);
            assert!(book.may_be_dialled(&node.client, now));
            book.failed(&node, "x", true, now);
            probes += 1;
        }
        now += ms(5);
    }
    assert!((4..=6).contains(&probes), "{probes}");
    assert!(!book.probes_eagerly(now));
}
