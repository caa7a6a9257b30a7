//! Tests of single rules of the membership. The tests in `mesh/schedules` test all rules together, on a whole mesh.

use super::RefusalReason::{
    ClusterName, Credentials, DuplicateId, Full, Itself, Leaving, LivingDuplicate, PrecedingDuplicate,
    Protocol,
};
use super::*;
use crate::route::hello::PROTOCOL;

fn hello(id: &str) -> Hello {
    Hello {
        protocol: PROTOCOL,
        protocol_min: PROTOCOL_MIN,
        cluster: "c".to_owned(),
        id: id.to_owned(),
        run: format!("run of {id}"),
        mesh: format!("{id}:6222"),
        user: "u".to_owned(),
        password: "p".into(),
        ..Hello::default()
    }
}

/// Returns the HELLO of another node with this id.
fn namesake(id: &str, run: &str, began: u64, serving: bool) -> Hello {
    Hello {
        run: run.to_owned(),
        began,
        serving,
        ..hello(id)
    }
}

/// The membership of a node, at a fixed time.
struct Node {
    membership: Membership,
    now: Instant,
}

impl std::ops::Deref for Node {
    type Target = Membership;

    fn deref(&self) -> &Membership {
        &self.membership
    }
}

impl std::ops::DerefMut for Node {
    fn deref_mut(&mut self) -> &mut Membership {
        &mut self.membership
    }
}

/// Returns node n1, which has dialled all `routes`.
fn node(routes: &[&str]) -> Node {
    let now = Instant::now();
    let rules = Rules {
        own: hello("n1"),
        nodes_max: 3,
        redial_max: Duration::from_secs(2),
        has_registry: false,
        accounts: std::sync::Arc::default(),
    };
    let routes_owned = routes.iter().map(ToString::to_string);
    let membership = Membership::new(rules, routes_owned, 1, now);
    let mut node = Node { membership, now };
    assert_eq!(node.dials(), routes);
    node
}

impl Node {
    fn dials(&mut self) -> Vec<String> {
        self.membership.dials(self.now)
    }

    fn dial_failed(&mut self, at: &str) -> bool {
        self.membership.dial_failed(at, true, self.now)
    }

    /// The node `id` at a dialled address refuses a route.
    fn refused_by(&mut self, at: &str, id: &str, why: RefusalReason) -> bool {
        self.dial_refused(at, id, "another", why, true)
    }

    /// This node refuses a route with the node `id` at a dialled address.
    fn refuses(&mut self, at: &str, id: &str, why: RefusalReason) -> bool {
        self.dial_refused(at, id, "another", why, false)
    }

    fn dial_refused(&mut self, at: &str, id: &str, run: &str, why: RefusalReason, by_peer: bool) -> bool {
        let refusal = RefusedRoute {
            by_peer,
            id: id.to_owned(),
            run: run.to_owned(),
            mesh: at.to_owned(),
            why,
            text: format!("{why:?}"),
        };
        self.membership.dial_refused(at, &refusal, self.now)
    }

    fn judge_hello(&self, hello: &Hello, dialled: bool) -> Verdict {
        self.membership.judge_hello(hello, dialled, self.now)
    }

    fn judge_welcome(&mut self, hello: &Hello, number: u64) -> Verdict {
        self.membership.judge_welcome(hello, false, number, self.now)
    }

    fn link(&mut self, id: &str, number: u64) {
        self.link_dialled(id, number, None);
    }

    fn link_dialled(&mut self, id: &str, number: u64, dialled: Option<&str>) {
        let verdict = self.judge_welcome(&hello(id), number);
        assert_eq!(verdict, Verdict::Accept { replaces: None });
        self.membership.route_established(&hello(id), dialled, self.now);
    }

    fn route_ended(&mut self, number: u64) -> bool {
        self.membership.route_ended(number, false, self.now)
    }

    fn registered(&mut self, nodes: &[Peer]) {
        self.membership.registered(nodes, None, self.now);
    }

    /// The registry has a record of n1 that another run wrote, at the address `a:1`.
    fn registers_namesake(&mut self) {
        let (nodes, run) = ([peer("n1", "a:1")], Some("other".to_owned()));
        self.membership.registered(&nodes, run, self.now);
    }
}

fn peer(id: &str, mesh: &str) -> Peer {
    Peer {
        id: id.to_owned(),
        mesh: mesh.to_owned(),
    }
}

fn refusal_of(verdict: Verdict) -> Option<RefusalReason> {
    match verdict {
        Verdict::Refuse { why, .. } => Some(why),
        _ => None,
    }
}

#[test]
fn the_cluster_name_and_the_password_are_checked_before_a_duplicate_id() {
    let n1 = node(&[]);
    let with = |change: &dyn Fn(&mut Hello)| {
        let mut hello = hello("n2");
        change(&mut hello);
        hello
    };
    let with_id = |id: &str| with(&|hello| hello.id = id.to_owned());
    let with_password = |password: &str| with(&|hello| hello.password = password.into());
    let with_cluster = |cluster: &str| with(&|hello| hello.cluster = cluster.to_owned());
    let no_user = |id: &str| Hello {
        user: String::new(),
        ..hello(id)
    };
    let stranger = with(&|hello| (hello.id, hello.password) = ("n1".to_owned(), "".into()));
    let elsewhere = with(&|hello| (hello.id, hello.cluster) = ("n1".to_owned(), "d".to_owned()));
    for (case, hello, dialled, expected) in [
        ("right", with(&|_| {}), false, None),
        ("wrong password", with_password("x"), false, Some(Credentials)),
        ("no user", no_user("n2"), false, Some(Credentials)),
        // A node that was dialled does not show its credentials.
        ("dialled, no password", with_password(""), true, None),
        ("other cluster", with_cluster("d"), true, Some(ClusterName)),
        ("same id", with_id("n1"), false, Some(PrecedingDuplicate)),
        ("same id, no password", stranger, false, Some(Credentials)),
        ("same id, other cluster", elsewhere, true, Some(ClusterName)),
        ("same run, no user", no_user("n1"), false, Some(Itself)),
        ("no id", with_id(""), false, Some(Protocol)),
        ("long id", with_id(&"x".repeat(257)), false, Some(Protocol)),
        ("id of two lines", with_id("a\nb"), false, Some(Protocol)),
    ] {
        assert_eq!(refusal_of(n1.judge_hello(&hello, dialled)), expected, "{case}");
    }
}

/// During an upgrade, nodes of two versions work together.
#[test]
fn versions_with_a_common_protocol_are_linked_whatever_their_features() {
    let n1 = node(&[]);
    for (protocol, protocol_min, expected) in [
        (PROTOCOL, PROTOCOL, None),
        (PROTOCOL + 7, PROTOCOL, None),
        (PROTOCOL + 7, PROTOCOL + 1, Some(Protocol)),
        (PROTOCOL_MIN - 1, 0, Some(Protocol)),
    ] {
        let hello = Hello {
            protocol,
            protocol_min,
            features: vec!["something new".to_owned()],
            ..hello("n2")
        };
        let why = refusal_of(n1.judge_hello(&hello, false));
        assert_eq!(why, expected, "{protocol} {protocol_min}");
    }
}

#[test]
fn a_full_node_accepts_only_linked_peers_and_a_leaving_node_accepts_none() {
    let mut n1 = node(&[]);
    n1.link("n2", 1);
    n1.link("n3", 2);
    let why = |n1: &Node, id| refusal_of(n1.judge_hello(&hello(id), false));
    assert_eq!(why(&n1, "n4"), Some(Full));
    assert_eq!(why(&n1, "n3"), None);
    n1.leave();
    assert_eq!(why(&n1, "n3"), Some(Leaving));
    assert_eq!(n1.dials(), [""; 0]);
}

#[test]
fn a_leaving_node_does_not_wait_for_an_accepted_route_that_is_not_established() {
    let mut n1 = node(&[]);
    n1.link("n2", 1);
    assert_ne!(n1.judge_welcome(&hello("n3"), 2), Verdict::Wait);
    assert_eq!(n1.len(), 2);
    n1.leave();
    assert_eq!(n1.len(), 1);
}

#[test]
fn a_namesake_counts_only_if_this_node_dialled_it_or_a_node_linked_with_it() {
    let mut n1 = node(&["a:1", "b:1"]);
    let other = namesake("n1", "another", 0, false);
    assert!(refusal_of(n1.judge_hello(&other, false)).is_some_and(RefusalReason::is_duplicate));
    assert_eq!(n1.namesake_precedes(), None, "the newcomer has to end");
    // n2 is linked with another n1. A duplicate of n3 does not concern this node.
    assert!(n1.refused_by("a:1", "n2", DuplicateId));
    assert_eq!(n1.namesake_precedes(), Some(false));
    assert!(!n1.has_living_namesake());
    n1.refuses("b:1", "n3", PrecedingDuplicate);
    assert_eq!(n1.namesake_precedes(), Some(false));
    n1.link("n3", 1);
    let precedes = n1.namesake_precedes();
    assert_eq!(precedes, Some(false), "a link with n3 changes nothing");
    n1.refused_by("a:1", "n2", PrecedingDuplicate);
    assert_eq!(n1.namesake_precedes(), Some(true));
    assert!(n1.has_living_namesake());
    n1.link_dialled("n2", 2, Some("a:1"));
    assert_eq!(n1.namesake_precedes(), None, "n2 is linked with this node");
}

#[test]
fn when_two_namesakes_meet_both_know_which_one_stays() {
    // This node began at 0 and does not serve yet.
    for (began, serving, other_stays) in [(1, false, false), (1, true, true), (0, false, true)] {
        let mut n1 = node(&["a:1"]);
        let other = namesake("n1", "another", began, serving);
        let why = refusal_of(n1.judge_hello(&other, true)).expect("a refusal");
        n1.refuses("a:1", "n1", why);
        let expected = other_stays.then_some(true);
        assert_eq!(n1.namesake_precedes(), expected, "by its own verdict");
        // The other node's verdict is the opposite one, sent in its refusal.
        let opposite = [LivingDuplicate, PrecedingDuplicate][usize::from(other_stays)];
        assert_eq!(why == PrecedingDuplicate, !other_stays);
        n1.refused_by("a:1", "n1", opposite);
        assert_eq!(n1.namesake_precedes(), expected, "by the other node's verdict");
        assert!(n1.has_living_namesake());
        assert_eq!(
            n1.is_outnumbered(),
            other_stays,
            "neither is linked with any node"
        );
    }
}

#[test]
fn a_third_nodes_refusal_of_a_namesake_depends_on_the_state_of_the_linked_node() {
    let mut third = node(&[]);
    third.link("n2", 7);
    // The linked node ("it" in the cases) serves and began at 0.
    third.update(7, |route| route.peer.serving = true);
    let check = |third: &Node, case, run, began, serving, expected| {
        let claimant = namesake("n2", run, began, serving);
        let (why, probe) = (expected, Some(7));
        assert_eq!(
            third.judge_hello(&claimant, false),
            Verdict::Refuse { why, probe },
            "{case}"
        );
    };
    check(&third, "it may be dead", "a", 1, false, DuplicateId);
    let now = third.now;
    third.update(7, |route| route.answered_at = Some(now));
    check(&third, "it began first", "a", 1, true, PrecedingDuplicate);
    check(&third, "it serves", "a", 0, false, PrecedingDuplicate);
    check(&third, "lower run", "a", 0, true, LivingDuplicate);
    check(&third, "greater run", "z", 0, true, PrecedingDuplicate);
    third.now += Duration::from_secs(1);
    check(&third, "no PONG for a second", "a", 1, true, DuplicateId);
    let now = third.now;
    third.update(7, |route| {
        (route.answered_at, route.peer.draining) = (Some(now), true)
    });
    check(&third, "it is draining", "a", 1, true, DuplicateId);
}

#[test]
fn of_two_joining_namesakes_the_elder_gets_the_link() {
    // Of n1 and n2, n1 decides which connection becomes the route; of n0 and n1, n0 does.
    for id in ["n0", "n2"] {
        let mut third = node(&[]);
        third.link(id, 7);
        third.update(7, |route| route.peer.began = 5);
        let joins = |began, run| namesake(id, run, began, false);
        let is_duplicate = |verdict: Verdict| refusal_of(verdict).is_some_and(RefusalReason::is_duplicate);
        assert!(is_duplicate(third.judge_welcome(&joins(6, "younger"), 8)));
        assert_eq!(third.judge_hello(&joins(4, "elder"), false), Verdict::Wait);
        let elder = third.judge_welcome(&joins(4, "elder"), 8);
        assert_eq!(elder, Verdict::Accept { replaces: Some(7) });
        assert!(!third.route_ended(7), "the link was replaced");
        // A node that serves is never replaced.
        third.update(8, |route| route.peer.serving = true);
        assert!(is_duplicate(third.judge_welcome(&joins(3, "eldest"), 9)));
    }
}

#[test]
fn without_a_registry_a_live_namesake_displaces_a_node_that_is_linked_with_fewer_nodes() {
    let mut n1 = node(&["a:1", "b:1"]);
    assert!(!n1.is_outnumbered(), "no linked namesake is known");
    // The two know only each other, so the one that precedes stays.
    n1.refused_by("a:1", "n1", LivingDuplicate);
    assert!(!n1.is_outnumbered());
    n1.refused_by("a:1", "n1", PrecedingDuplicate);
    assert!(n1.namesake_precedes().is_some() && n1.is_outnumbered());
    n1.dial_failed("a:1");
    n1.refused_by("b:1", "n2", DuplicateId);
    assert!(!n1.is_outnumbered(), "the other n1 may be dead");
    n1.refused_by("b:1", "n2", LivingDuplicate);
    assert!(n1.is_outnumbered());
    n1.link("n3", 1);
    assert!(!n1.is_outnumbered());
    n1.route_ended(1);
    assert!(n1.is_outnumbered());
    n1.dial_failed("b:1");
    assert!(!n1.is_outnumbered());
}

/// Both namesakes see the same nodes. Each node is linked with one of the two.
#[test]
fn exactly_one_of_two_serving_namesakes_is_outnumbered() {
    let is_outnumbered = |routes: u64, others: usize, why| {
        let at = &["o0:1", "o1:1", "o2:1"][..others];
        let mut n1 = node(at);
        n1.rules.nodes_max = 10;
        for n in 0..routes {
            n1.link(&format!("l{n}"), n);
        }
        for at in at {
            n1.refused_by(at, &at[..2], why);
        }
        n1.is_outnumbered()
    };
    for with_elder in 0..4 {
        for with_younger in 0..4 {
            let elder = is_outnumbered(with_elder as u64, with_younger, LivingDuplicate);
            let younger = is_outnumbered(with_younger as u64, with_elder, PrecedingDuplicate);
            let is_contested = with_elder + with_younger > 0;
            assert_eq!(elder, with_younger > with_elder, "{with_elder} {with_younger}");
            assert_eq!(elder || younger, is_contested, "{with_elder} {with_younger}");
            assert!(!(elder && younger), "{with_elder} {with_younger}");
        }
    }
}

#[test]
fn a_third_node_at_two_addresses_counts_once_and_not_at_all_when_linked() {
    let routes = ["10.0.0.2:1", "name:1"];
    let mut n1 = node(&routes);
    n1.link("n3", 1);
    for at in routes {
        n1.refused_by(at, "n2", LivingDuplicate);
    }
    assert!(!n1.is_outnumbered(), "each of the two is linked with one node");
    n1.route_ended(1);
    assert!(n1.is_outnumbered());
    // The third node dials n1, from an address at which n1 has not dialled it.
    n1.link("n2", 2);
    assert_eq!(n1.namesake_precedes(), None);
    assert!(!n1.has_living_namesake() && !n1.is_outnumbered());
}

#[test]
fn with_a_registry_only_a_record_of_another_run_that_answers_displaces_a_node() {
    let mut n1 = node(&["b:1"]);
    n1.rules.has_registry = true;
    n1.registers_namesake();
    n1.dials();
    // The refusal of a third node is not enough.
    n1.refused_by("b:1", "n2", PrecedingDuplicate);
    assert!(!n1.is_outnumbered() && !n1.is_superseded());
    let answer = |n1: &mut Node, run: &str| {
        n1.dial_refused("a:1", "n1", run, PrecedingDuplicate, true);
        n1.is_superseded()
    };
    // At that address, a third run answers, then the registered one, then none.
    assert!(!answer(&mut n1, "a third"));
    assert!(answer(&mut n1, "other"));
    n1.dial_failed("a:1");
    assert!(!n1.is_superseded());
    // The namesake answers, but the record is this node's again.
    answer(&mut n1, "other");
    n1.registered(&[]);
    assert!(!n1.is_superseded());
}

#[test]
fn a_registered_namesake_is_silent_only_after_a_failed_dial_since_its_record_appeared() {
    let mut n1 = node(&[]);
    n1.rules.has_registry = true;
    for _ in 0..2 {
        n1.registers_namesake();
        assert_eq!(n1.silent_namesake(), None, "not dialled yet");
        assert_eq!(n1.dials(), ["a:1"]);
        n1.dial_failed("a:1");
        assert_eq!(n1.silent_namesake(), Some("other"));
        // This node has registered. A namesake that was frozen may write its record again.
        n1.registered(&[]);
        assert_eq!(n1.silent_namesake(), None);
    }
    n1.registers_namesake();
    n1.dials();
    n1.refused_by("a:1", "n1", PrecedingDuplicate);
    assert_eq!(n1.silent_namesake(), None, "it answers");
}

#[test]
fn only_a_namesake_that_must_end_is_not_awaited() {
    for (serving, draining, expected) in [
        (false, false, (None, true)),
        (true, false, (Some(true), false)),
        (true, true, (Some(false), false)),
    ] {
        let mut n1 = node(&["a:1"]);
        let other = Hello {
            draining,
            ..namesake("n1", "another", 1, serving)
        };
        let why = refusal_of(n1.judge_hello(&other, true)).expect("a refusal");
        n1.refuses("a:1", "n1", why);
        let met = (n1.namesake_precedes(), n1.awaited().is_empty());
        assert_eq!(met, expected, "serving {serving}, draining {draining}");
        assert!(n1.has_living_namesake());
    }
}

#[test]
fn a_node_whose_link_is_lost_during_the_start_is_awaited_again() {
    let mut n1 = node(&[]);
    n1.registered(&[peer("n2", "n2:6222")]);
    n1.link("n2", 1);
    n1.update(1, |route| route.is_synced = true);
    n1.update(1, |route| route.is_snapshot_sent = true);
    assert_eq!(n1.awaited(), [""; 0]);
    n1.route_ended(1);
    assert_eq!(n1.awaited(), ["n2:6222"]);
}

#[test]
fn an_address_that_refused_a_duplicate_id_is_redialled_soon() {
    let mut n1 = node(&["a:1"]);
    for _ in 0..20 {
        n1.refused_by("a:1", "n2", PrecedingDuplicate);
        n1.now += DUPLICATE_REDIAL_MAX;
        assert_eq!(n1.dials(), ["a:1"]);
    }
}

#[test]
fn a_registered_namesake_at_another_address_is_dialled_and_awaited() {
    let mut n1 = node(&[]);
    n1.registered(&[peer("n1", "n1:6222"), peer("n1", "elsewhere:1")]);
    assert_eq!(n1.dials(), ["elsewhere:1"]);
    assert_eq!(n1.awaited(), ["elsewhere:1"]);
    // No node answers: the record was written by the previous run of this node.
    assert!(n1.dial_failed("elsewhere:1"));
    n1.dial_failed("elsewhere:1");
    assert_eq!(n1.awaited(), [""; 0]);
}

#[test]
fn addresses_named_only_by_peers_expire_and_are_evicted_first() {
    let mut n1 = node(&["configured:1"]);
    let now = n1.now;
    n1.named_by_peer(&[peer("n2", "n2:6222")], now);
    n1.link("n2", 1);
    assert!(n1.route_ended(1));
    let knows = |n1: &Node, at: &str| n1.addresses.contains_key(at);
    n1.dials();
    n1.dial_failed("n2:6222");
    n1.now += REMEMBERED + Duration::from_secs(1);
    n1.dials();
    assert!(!knows(&n1, "n2:6222"), "no node has named it for an hour");
    assert!(knows(&n1, "configured:1"));
    for number in 0..50 {
        let named = peer(&format!("x{number}"), &format!("x{number}:1"));
        let named_at = n1.now + Duration::from_secs(number);
        n1.named_by_peer(&[named], named_at);
    }
    let max = n1.rules.nodes_max * ADDRESSES_PER_NODE;
    assert_eq!(n1.addresses.len(), max);
    assert!(knows(&n1, "configured:1") && knows(&n1, "x49:1") && !knows(&n1, "x0:1"));
    n1.registered(&[peer("n3", "n3:6222")]);
    // A registered address evicts one that only peers have named.
    assert!(knows(&n1, "n3:6222"));
}

#[test]
fn a_host_name_that_led_to_this_node_is_dialled_again() {
    let routes = ["10.0.0.1:6222", "nodes:6222"];
    let mut n1 = node(&routes);
    for at in routes {
        n1.refuses(at, "n1", Itself);
    }
    assert_eq!(n1.awaited(), [""; 0]);
    assert_eq!(n1.unlinked(), 0, "the address is that of this node");
    n1.now += Duration::from_secs(3);
    assert_eq!(n1.dials(), ["nodes:6222"]);
}

#[test]
fn a_node_at_two_addresses_is_one_unlinked_node_until_it_is_linked_or_leaves() {
    let mut n1 = node(&[]);
    n1.link_dialled("n2", 1, Some("b:1"));
    assert_eq!(n1.unlinked(), 0);
    n1.route_ended(1);
    assert_eq!(n1.unlinked(), 1, "lost");
    n1.link("n2", 2);
    assert_eq!(n1.unlinked(), 0);
    let now = n1.now;
    n1.membership.route_ended(2, true, now);
    assert_eq!(n1.unlinked(), 0, "it sent GOODBYE");
    n1.registered(&[peer("n2", "n2:6222"), peer("n3", "n3:6222")]);
    assert_eq!(n1.unlinked(), 2);
}

#[test]
fn a_node_without_a_cluster_name_adopts_that_of_the_first_cluster_it_joins() {
    let mut n1 = node(&[]);
    n1.rules.own.cluster = String::new();
    let of = |id: &str, cluster: &str| Hello {
        cluster: cluster.to_owned(),
        ..hello(id)
    };
    for (id, cluster) in [("n2", ""), ("n3", "east"), ("n4", "west")] {
        assert_eq!(n1.judge_hello(&of(id, cluster), false), Verdict::Wait);
    }
    // A peer without a cluster name changes nothing.
    n1.judge_welcome(&of("n2", ""), 1);
    assert_eq!((&*n1.own().cluster, n1.with_other_names()), ("", vec![]));
    n1.judge_welcome(&of("n3", "east"), 2);
    assert_eq!(n1.own().cluster, "east");
    assert_eq!(n1.with_other_names(), [1]);
    let west = of("n4", "west");
    assert_eq!(refusal_of(n1.judge_welcome(&west, 3)), Some(ClusterName));
    let text = ClusterName.text(n1.own(), &west);
    assert!(text.contains("\"east\"") && text.contains("\"west\""), "{text}");
}
