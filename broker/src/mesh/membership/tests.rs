//! Tests of single rules of the membership. The schedules test all rules together, on a whole mesh.

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
        password: "p".to_owned(),
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

/// Returns the membership of node n1, which has dialled all `routes`.
fn membership(routes: &[&str]) -> (Membership, Instant) {
    let now = Instant::now();
    let rules = Rules {
        own: hello("n1"),
        nodes_max: 3,
        redial_max: Duration::from_secs(2),
        has_registry: false,
    };
    let mut membership = Membership::new(rules, routes.iter().map(ToString::to_string), 1, now);
    assert_eq!(membership.dials(now), routes);
    (membership, now)
}

fn peer(id: &str, mesh: &str) -> Peer {
    Peer {
        id: id.to_owned(),
        mesh: mesh.to_owned(),
    }
}

fn refused(verdict: Verdict) -> Option<RefusalReason> {
    match verdict {
        Verdict::Refuse { why, .. } => Some(why),
        _ => None,
    }
}

/// Returns a refusal by the node `id`.
fn refusal(id: &str, why: RefusalReason) -> RefusedRoute {
    RefusedRoute {
        by_peer: true,
        id: id.to_owned(),
        run: "another".to_owned(),
        why,
        text: why.text().to_owned(),
    }
}

/// Returns a refusal of the node `id` by this node.
fn own_refusal(id: &str, why: RefusalReason) -> RefusedRoute {
    RefusedRoute {
        by_peer: false,
        ..refusal(id, why)
    }
}

fn link(membership: &mut Membership, id: &str, number: u64, now: Instant) {
    let verdict = membership.judge_welcome(&hello(id), false, number, now);
    assert_eq!(verdict, Verdict::Accept { replaces: None });
    membership.route_established(&hello(id), None, now);
}

#[test]
fn who_dials_is_asked_for_the_cluster_and_the_password_before_anything_else_counts() {
    let (membership, now) = membership(&[]);
    let with = |change: &dyn Fn(&mut Hello)| {
        let mut hello = hello("n2");
        change(&mut hello);
        hello
    };
    let with_id = |id: &str| with(&|hello| hello.id = id.to_owned());
    let with_password = |password: &str| with(&|hello| hello.password = password.to_owned());
    let with_cluster = |cluster: &str| with(&|hello| hello.cluster = cluster.to_owned());
    let no_user = |id: &str| Hello {
        user: String::new(),
        ..hello(id)
    };
    let stranger = with(&|hello| (hello.id, hello.password) = ("n1".to_owned(), String::new()));
    let elsewhere = with(&|hello| (hello.id, hello.cluster) = ("n1".to_owned(), "d".to_owned()));
    for (case, hello, dialled, expected) in [
        ("right", with(&|_| {}), false, None),
        ("wrong password", with_password("x"), false, Some(Credentials)),
        ("no user", no_user("n2"), false, Some(Credentials)),
        (
            "a dialled node does not show its credentials",
            with_password(""),
            true,
            None,
        ),
        ("other cluster", with_cluster("d"), true, Some(ClusterName)),
        ("same id", with_id("n1"), false, Some(PrecedingDuplicate)),
        ("same id, no password", stranger, false, Some(Credentials)),
        ("same id, other cluster", elsewhere, true, Some(ClusterName)),
        ("same run, no user", no_user("n1"), false, Some(Itself)),
        ("no id", with_id(""), false, Some(Protocol)),
        ("long id", with_id(&"x".repeat(257)), false, Some(Protocol)),
        ("id of two lines", with_id("a\nb"), false, Some(Protocol)),
    ] {
        assert_eq!(
            refused(membership.judge_hello(&hello, dialled, now)),
            expected,
            "{case}"
        );
    }
}

/// During an upgrade, nodes of two versions work together.
#[test]
fn versions_with_a_protocol_in_common_are_linked_whatever_else_they_can() {
    let (membership, now) = membership(&[]);
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
        let why = refused(membership.judge_hello(&hello, false, now));
        assert_eq!(why, expected, "{protocol} {protocol_min}");
    }
}

#[test]
fn a_full_or_leaving_node_takes_no_more_but_who_is_linked_may_come_again() {
    let (mut membership, now) = membership(&[]);
    link(&mut membership, "n2", 1, now);
    link(&mut membership, "n3", 2, now);
    let why = |membership: &Membership, id| refused(membership.judge_hello(&hello(id), false, now));
    assert_eq!(why(&membership, "n4"), Some(Full));
    assert_eq!(why(&membership, "n3"), None);
    membership.leave();
    assert_eq!(why(&membership, "n3"), Some(Leaving));
    assert_eq!(membership.dials(now), [""; 0]);
}

#[test]
fn what_was_decided_on_and_does_not_stand_when_the_node_leaves_is_not_waited_for() {
    let (mut membership, now) = membership(&[]);
    link(&mut membership, "n2", 1, now);
    assert_ne!(
        membership.judge_welcome(&hello("n3"), false, 2, now),
        Verdict::Wait
    );
    assert_eq!(membership.len(), 2);
    membership.leave();
    assert_eq!(membership.len(), 1);
}

#[test]
fn a_namesake_is_one_that_was_dialled_or_that_a_dialled_node_knows_not_one_that_comes() {
    let (mut membership, now) = membership(&["a:1", "b:1"]);
    let other = namesake("n1", "another", 0, false);
    assert!(refused(membership.judge_hello(&other, false, now)).is_some_and(RefusalReason::is_duplicate));
    assert_eq!(membership.namesake_precedes(), None, "the newcomer has to end");
    // n2 is linked with another n1. A duplicate of n3 does not concern this node.
    assert!(membership.dial_refused("a:1", &refusal("n2", DuplicateId), now));
    assert_eq!(membership.namesake_precedes(), Some(false));
    assert!(!membership.has_living_namesake());
    membership.dial_refused("b:1", &own_refusal("n3", PrecedingDuplicate), now);
    assert_eq!(membership.namesake_precedes(), Some(false));
    link(&mut membership, "n3", 1, now);
    let precedes = membership.namesake_precedes();
    assert_eq!(precedes, Some(false), "a link with a third one says nothing");
    membership.dial_refused("a:1", &refusal("n2", PrecedingDuplicate), now);
    assert_eq!(membership.namesake_precedes(), Some(true));
    assert!(membership.has_living_namesake());
    let verdict = membership.judge_welcome(&hello("n2"), true, 2, now);
    assert_eq!(verdict, Verdict::Accept { replaces: None });
    membership.route_established(&hello("n2"), Some("a:1"), now);
    assert_eq!(
        membership.namesake_precedes(),
        None,
        "n2 is linked with this node"
    );
}

#[test]
fn of_two_that_meet_each_knows_which_of_them_stays() {
    // This node began at 0 and does not serve yet.
    for (began, serving, other_stays) in [(1, false, false), (1, true, true), (0, false, true)] {
        let (mut membership, now) = membership(&["a:1"]);
        let other = namesake("n1", "another", began, serving);
        let why = refused(membership.judge_hello(&other, true, now)).expect("a refusal");
        membership.dial_refused("a:1", &own_refusal("n1", why), now);
        let expected = other_stays.then_some(true);
        assert_eq!(membership.namesake_precedes(), expected, "by its own verdict");
        // The other node's verdict is the opposite one, sent in its refusal.
        let theirs = if other_stays {
            PrecedingDuplicate
        } else {
            LivingDuplicate
        };
        assert_eq!(why == PrecedingDuplicate, !other_stays);
        membership.dial_refused("a:1", &refusal("n1", theirs), now);
        assert_eq!(
            membership.namesake_precedes(),
            expected,
            "by the other node's verdict"
        );
        assert!(membership.has_living_namesake() && !membership.is_outnumbered());
    }
}

#[test]
fn a_third_node_says_that_another_has_the_id_and_what_it_knows_of_that_one() {
    let (mut third, now) = membership(&[]);
    let later = now + Duration::from_secs(1);
    link(&mut third, "n2", 7, now);
    let answers = |third: &mut Membership, at| third.update(7, |route| route.answered_at = Some(at));
    let check = |case, third: &Membership, (began, run, serving), now, expected| match third.judge_hello(
        &namesake("n2", run, began, serving),
        false,
        now,
    ) {
        Verdict::Refuse { why, probe } => {
            assert_eq!(probe, Some(7), "a PING is sent over the present link");
            assert_eq!(why, expected, "{case}");
        }
        other => panic!("{case}: {other:?}"),
    };
    // The linked node serves and began at 0.
    third.update(7, |route| route.peer.serving = true);
    check("it may be dead", &third, (1, "a", false), now, DuplicateId);
    answers(&mut third, now);
    check("it began first", &third, (1, "a", true), now, PrecedingDuplicate);
    check("it serves", &third, (0, "a", false), now, PrecedingDuplicate);
    check(
        "of equal age, greater run",
        &third,
        (0, "a", true),
        now,
        LivingDuplicate,
    );
    check(
        "of equal age, lower run",
        &third,
        (0, "z", true),
        now,
        PrecedingDuplicate,
    );
    check("not seen since", &third, (1, "a", true), later, DuplicateId);
    answers(&mut third, later);
    third.update(7, |route| route.peer.draining = true);
    check("it is about to go", &third, (1, "a", true), later, DuplicateId);
}

#[test]
fn of_two_of_one_id_that_join_the_one_that_stays_is_given_the_link() {
    // n1 decides between n1 and n2, and n0 between n0 and n1.
    for id in ["n0", "n2"] {
        let (mut third, now) = membership(&[]);
        link(&mut third, id, 7, now);
        third.update(7, |route| route.peer.began = 5);
        let joins = |began, run| namesake(id, run, began, false);
        let is_duplicate = |verdict: Verdict| refused(verdict).is_some_and(RefusalReason::is_duplicate);
        assert!(is_duplicate(third.judge_welcome(
            &joins(6, "younger"),
            false,
            8,
            now
        )));
        assert_eq!(third.judge_hello(&joins(4, "elder"), false, now), Verdict::Wait);
        let elder = third.judge_welcome(&joins(4, "elder"), false, 8, now);
        assert_eq!(elder, Verdict::Accept { replaces: Some(7) });
        assert!(!third.route_ended(7, false, now), "the link was replaced");
        // A node that serves is never replaced.
        third.update(8, |route| route.peer.serving = true);
        assert!(is_duplicate(third.judge_welcome(
            &joins(3, "eldest"),
            false,
            9,
            now
        )));
    }
}

#[test]
fn without_a_registry_only_a_third_node_linked_with_a_live_namesake_displaces_a_node() {
    let (mut membership, now) = membership(&["a:1", "b:1"]);
    assert!(!membership.is_outnumbered(), "nobody is linked with anybody");
    // Another n1 is started by mistake at the address of the dead peer.
    membership.dial_refused("a:1", &refusal("n1", PrecedingDuplicate), now);
    assert!(membership.namesake_precedes().is_some() && !membership.is_outnumbered());
    membership.dial_refused("b:1", &refusal("n2", DuplicateId), now);
    assert!(!membership.is_outnumbered(), "the other n1 may be dead");
    membership.dial_refused("b:1", &refusal("n2", LivingDuplicate), now);
    assert!(membership.is_outnumbered());
    link(&mut membership, "n3", 1, now);
    assert!(!membership.is_outnumbered());
    membership.route_ended(1, false, now);
    assert!(membership.is_outnumbered());
    membership.dial_failed("b:1", true, now);
    assert!(!membership.is_outnumbered());
}

/// Both namesakes see the same nodes. Each node is linked with one of the two.
#[test]
fn of_two_that_serve_exactly_one_goes_however_many_are_linked_with_each() {
    let goes = |routes: u64, others: usize, why| {
        let at = &["o0:1", "o1:1", "o2:1"][..others];
        let (mut membership, now) = membership(at);
        membership.rules.nodes_max = 10;
        for n in 0..routes {
            link(&mut membership, &format!("l{n}"), n, now);
        }
        for at in at {
            membership.dial_refused(at, &refusal(&at[..2], why), now);
        }
        membership.is_outnumbered()
    };
    for with_elder in 0..4 {
        for with_younger in 0..4 {
            let elder = goes(with_elder as u64, with_younger, LivingDuplicate);
            let younger = goes(with_younger as u64, with_elder, PrecedingDuplicate);
            let is_contested = with_elder + with_younger > 0;
            assert_eq!(elder, with_younger > with_elder, "{with_elder} {with_younger}");
            assert_eq!(elder || younger, is_contested, "{with_elder} {with_younger}");
            assert!(!(elder && younger), "{with_elder} {with_younger}");
        }
    }
}

#[test]
fn a_third_node_that_is_known_at_two_addresses_counts_once_and_not_once_it_is_linked() {
    let routes = ["10.0.0.2:1", "name:1"];
    let (mut membership, now) = membership(&routes);
    link(&mut membership, "n3", 1, now);
    for at in routes {
        membership.dial_refused(at, &refusal("n2", LivingDuplicate), now);
    }
    assert!(!membership.is_outnumbered(), "one is linked with each");
    membership.route_ended(1, false, now);
    assert!(membership.is_outnumbered());
    // The third node dials this one, from an address at which it was not dialled.
    link(&mut membership, "n2", 2, now);
    assert_eq!(membership.namesake_precedes(), None);
    assert!(!membership.has_living_namesake() && !membership.is_outnumbered());
}

#[test]
fn with_a_registry_only_a_record_of_another_run_that_answers_displaces_a_node() {
    let (mut membership, now) = membership(&["b:1"]);
    membership.rules.has_registry = true;
    membership.registered(&[peer("n1", "a:1")], Some("other".to_owned()), now);
    membership.dials(now);
    // The refusal of a third node is not enough.
    membership.dial_refused("b:1", &refusal("n2", PrecedingDuplicate), now);
    assert!(!membership.is_outnumbered() && !membership.is_superseded());
    let answer = |membership: &mut Membership, run: &str| {
        let refusal = RefusedRoute {
            run: run.to_owned(),
            ..refusal("n1", PrecedingDuplicate)
        };
        membership.dial_refused("a:1", &refusal, now);
        membership.is_superseded()
    };
    // First another node answers at that address, then none.
    assert!(!answer(&mut membership, "a third"));
    assert!(answer(&mut membership, "other"));
    membership.dial_failed("a:1", true, now);
    assert!(!membership.is_superseded());
    // The namesake answers, but the record is this node's again.
    answer(&mut membership, "other");
    membership.registered(&[], None, now);
    assert!(!membership.is_superseded());
}

#[test]
fn a_registered_namesake_is_silent_only_after_a_failed_dial_since_its_record_appeared() {
    let (mut membership, now) = membership(&[]);
    membership.rules.has_registry = true;
    let appears = |membership: &mut Membership| {
        membership.registered(&[peer("n1", "a:1")], Some("other".to_owned()), now);
    };
    for _ in 0..2 {
        appears(&mut membership);
        assert_eq!(membership.silent_namesake(), None, "not dialled yet");
        assert_eq!(membership.dials(now), ["a:1"]);
        membership.dial_failed("a:1", true, now);
        assert_eq!(membership.silent_namesake(), Some("other"));
        // This node has registered. The record may come back with the same run, of a node that was frozen.
        membership.registered(&[], None, now);
        assert_eq!(membership.silent_namesake(), None);
    }
    appears(&mut membership);
    membership.dials(now);
    membership.dial_refused("a:1", &refusal("n1", PrecedingDuplicate), now);
    assert_eq!(membership.silent_namesake(), None, "it answers");
}

#[test]
fn one_that_was_met_and_goes_is_no_obstacle_but_one_that_is_about_to_leave_is() {
    for (serving, draining, expected) in [
        (false, false, (None, true)),
        (true, false, (Some(true), false)),
        (true, true, (Some(false), false)),
    ] {
        let (mut membership, now) = membership(&["a:1"]);
        let other = Hello {
            draining,
            ..namesake("n1", "another", 1, serving)
        };
        let why = refused(membership.judge_hello(&other, true, now)).expect("a refusal");
        membership.dial_refused("a:1", &own_refusal("n1", why), now);
        let met = (membership.namesake_precedes(), membership.awaited().is_empty());
        assert_eq!(met, expected, "serving {serving}, draining {draining}");
        assert!(membership.has_living_namesake());
    }
}

#[test]
fn a_node_whose_link_is_lost_before_all_is_told_is_waited_for_again() {
    let (mut membership, now) = membership(&[]);
    membership.registered(&[peer("n2", "n2:6222")], None, now);
    link(&mut membership, "n2", 1, now);
    membership.update(1, |route| {
        (route.is_synced, route.is_snapshot_sent) = (true, true)
    });
    assert_eq!(membership.awaited(), [""; 0]);
    membership.route_ended(1, false, now);
    assert_eq!(membership.awaited(), ["n2:6222"]);
}

#[test]
fn where_the_node_s_name_is_taken_is_asked_again_soon() {
    let (mut membership, mut now) = membership(&["a:1"]);
    for _ in 0..20 {
        membership.dial_refused("a:1", &refusal("n2", PrecedingDuplicate), now);
        now += DUPLICATE_REDIAL_MAX;
        assert_eq!(membership.dials(now), ["a:1"]);
    }
}

#[test]
fn a_registered_node_of_the_same_name_elsewhere_is_looked_for_and_waited_for() {
    let (mut membership, now) = membership(&[]);
    membership.registered(&[peer("n1", "n1:6222"), peer("n1", "elsewhere:1")], None, now);
    assert_eq!(membership.dials(now), ["elsewhere:1"]);
    assert_eq!(membership.awaited(), ["elsewhere:1"]);
    // No node answers: the record was written by the previous run of this node.
    assert!(membership.dial_failed("elsewhere:1", true, now));
    membership.dial_failed("elsewhere:1", true, now);
    assert_eq!(membership.awaited(), [""; 0]);
}

#[test]
fn addresses_that_only_nodes_name_are_forgotten_and_make_room() {
    let (mut membership, now) = membership(&["configured:1"]);
    membership.named_by_peer(&[peer("n2", "n2:6222")], now);
    link(&mut membership, "n2", 1, now);
    assert!(membership.route_ended(1, false, now));
    let at = |membership: &Membership, at: &str| membership.addresses.contains_key(at);
    membership.dials(now);
    membership.dial_failed("n2:6222", false, now);
    let later = now + REMEMBERED + Duration::from_secs(1);
    membership.dials(later);
    assert!(!at(&membership, "n2:6222"), "no node has named it for an hour");
    assert!(at(&membership, "configured:1"));
    for number in 0..50 {
        let named = peer(&format!("x{number}"), &format!("x{number}:1"));
        membership.named_by_peer(&[named], later + Duration::from_secs(number));
    }
    let max = membership.rules.nodes_max * ADDRESSES_PER_NODE;
    assert_eq!(membership.addresses.len(), max);
    assert!(at(&membership, "configured:1") && at(&membership, "x49:1") && !at(&membership, "x0:1"));
    membership.registered(&[peer("n3", "n3:6222")], None, later);
    assert!(
        at(&membership, "n3:6222"),
        "a registered address evicts one that only a node has named"
    );
}

#[test]
fn a_name_that_leads_to_this_node_may_lead_to_others_the_next_time() {
    let routes = ["10.0.0.1:6222", "nodes:6222"];
    let (mut membership, now) = membership(&routes);
    for at in routes {
        membership.dial_refused(at, &own_refusal("n1", Itself), now);
    }
    assert_eq!(membership.awaited(), [""; 0]);
    assert_eq!(membership.dials(now + Duration::from_secs(3)), ["nodes:6222"]);
}

#[test]
fn a_node_without_a_name_takes_that_of_the_first_cluster_it_links_with_and_no_other() {
    let (mut membership, now) = membership(&[]);
    membership.rules.own.cluster = String::new();
    let of = |id: &str, cluster: &str| Hello {
        cluster: cluster.to_owned(),
        ..hello(id)
    };
    for (id, cluster) in [("n2", ""), ("n3", "east"), ("n4", "west")] {
        assert_eq!(
            membership.judge_hello(&of(id, cluster), false, now),
            Verdict::Wait
        );
    }
    // A peer without a cluster name changes nothing.
    membership.judge_welcome(&of("n2", ""), false, 1, now);
    assert_eq!(
        (&*membership.own().cluster, membership.with_other_names()),
        ("", vec![])
    );
    membership.judge_welcome(&of("n3", "east"), false, 2, now);
    assert_eq!(membership.own().cluster, "east");
    assert_eq!(membership.with_other_names(), [1]);
    let west = of("n4", "west");
    assert_eq!(
        refused(membership.judge_welcome(&west, false, 3, now)),
        Some(ClusterName)
    );
    let text = ClusterName.detailed_text(membership.own(), &west);
    assert!(text.contains("\"east\"") && text.contains("\"west\""), "{text}");
}
