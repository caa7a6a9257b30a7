//! Tests of single rules of the membership. The schedules test all rules together, on a whole mesh.

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

fn membership(routes: &[&str], now: Instant) -> Membership {
    let rules = Rules {
        own: hello("n1"),
        nodes_max: 3,
        redial_max: Duration::from_secs(2),
        has_registry: false,
    };
    Membership::new(rules, routes.iter().map(ToString::to_string), 1, now)
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

fn linked(membership: &mut Membership, id: &str, number: u64, now: Instant) {
    let hello = hello(id);
    assert_eq!(
        membership.judge_welcome(&hello, false, number, now),
        Verdict::Accept { replaces: None }
    );
    membership.route_established(&hello, None, now);
}

#[test]
fn who_dials_is_asked_for_the_cluster_and_the_password_before_anything_else_counts() {
    let membership = membership(&[], Instant::now());
    let why = |change: &dyn Fn(&mut Hello), dialled| {
        let mut hello = hello("n2");
        change(&mut hello);
        refused(membership.judge_hello(&hello, dialled, Instant::now()))
    };
    assert_eq!(why(&|_| {}, false), None);
    assert_eq!(
        why(&|hello| hello.password = "x".to_owned(), false),
        Some(RefusalReason::Credentials)
    );
    assert_eq!(
        why(&|hello| hello.user = String::new(), false),
        Some(RefusalReason::Credentials)
    );
    // A node that was dialled does not show its credentials.
    assert_eq!(why(&|hello| hello.password = String::new(), true), None);
    assert_eq!(
        why(&|hello| hello.cluster = "d".to_owned(), true),
        Some(RefusalReason::ClusterName)
    );
    assert_eq!(
        why(&|hello| hello.id = "n1".to_owned(), false),
        Some(RefusalReason::PrecedingDuplicate)
    );
    let stranger = |hello: &mut Hello| (hello.id, hello.password) = ("n1".to_owned(), String::new());
    assert_eq!(why(&stranger, false), Some(RefusalReason::Credentials));
    let elsewhere = |hello: &mut Hello| (hello.id, hello.cluster) = ("n1".to_owned(), "d".to_owned());
    assert_eq!(why(&elsewhere, true), Some(RefusalReason::ClusterName));
    assert_eq!(
        refused(membership.judge_hello(
            &Hello {
                user: String::new(),
                ..hello("n1")
            },
            false,
            Instant::now()
        )),
        Some(RefusalReason::Itself)
    );
    for id in [String::new(), "x".repeat(257), "a\nb".to_owned()] {
        assert_eq!(
            why(&|hello| hello.id.clone_from(&id), false),
            Some(RefusalReason::Protocol)
        );
    }
}

/// During an upgrade, nodes of two versions work together.
#[test]
fn versions_with_a_protocol_in_common_are_linked_whatever_else_they_can() {
    let membership = membership(&[], Instant::now());
    let with = |protocol, protocol_min| {
        let features = vec!["something new".to_owned()];
        let hello = Hello {
            protocol,
            protocol_min,
            features,
            ..hello("n2")
        };
        refused(membership.judge_hello(&hello, false, Instant::now()))
    };
    assert_eq!(with(PROTOCOL, PROTOCOL), None);
    assert_eq!(with(PROTOCOL + 7, PROTOCOL), None);
    assert_eq!(with(PROTOCOL + 7, PROTOCOL + 1), Some(RefusalReason::Protocol));
    assert_eq!(with(PROTOCOL_MIN - 1, 0), Some(RefusalReason::Protocol));
}

#[test]
fn a_full_or_leaving_node_takes_no_more_but_who_is_linked_may_come_again() {
    let now = Instant::now();
    let mut membership = membership(&[], now);
    linked(&mut membership, "n2", 1, now);
    linked(&mut membership, "n3", 2, now);
    assert_eq!(
        refused(membership.judge_hello(&hello("n4"), false, now)),
        Some(RefusalReason::Full)
    );
    assert_eq!(refused(membership.judge_hello(&hello("n3"), false, now)), None);
    membership.leave();
    assert_eq!(
        refused(membership.judge_hello(&hello("n3"), false, now)),
        Some(RefusalReason::Leaving)
    );
    assert_eq!(membership.dials(now), [""; 0]);
}

#[test]
fn what_was_decided_on_and_does_not_stand_when_the_node_leaves_is_not_waited_for() {
    let now = Instant::now();
    let mut membership = membership(&[], now);
    linked(&mut membership, "n2", 1, now);
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
    let now = Instant::now();
    let mut membership = membership(&["a:1", "b:1"], now);
    assert_eq!(membership.dials(now), ["a:1", "b:1"]);
    let other = Hello {
        run: "another".to_owned(),
        ..hello("n1")
    };
    assert!(refused(membership.judge_hello(&other, false, now)).is_some_and(RefusalReason::is_duplicate));
    assert_eq!(membership.namesake_precedes(), None, "the newcomer has to end");
    // n2 is linked with another n1. A duplicate of n3 does not concern this node.
    assert!(membership.dial_refused("a:1", "n2", RefusalReason::DuplicateId, true, now));
    assert_eq!(membership.namesake_precedes(), Some(false));
    assert!(!membership.has_living_namesake());
    membership.dial_refused("b:1", "n3", RefusalReason::PrecedingDuplicate, false, now);
    assert_eq!(membership.namesake_precedes(), Some(false));
    linked(&mut membership, "n3", 1, now);
    assert_eq!(
        membership.namesake_precedes(),
        Some(false),
        "a link with a third one says nothing"
    );
    membership.dial_refused("a:1", "n2", RefusalReason::PrecedingDuplicate, true, now);
    assert_eq!(membership.namesake_precedes(), Some(true));
    assert!(membership.has_living_namesake());
    assert_eq!(
        membership.judge_welcome(&hello("n2"), true, 2, now),
        Verdict::Accept { replaces: None }
    );
    membership.route_established(&hello("n2"), Some("a:1"), now);
    assert_eq!(
        membership.namesake_precedes(),
        None,
        "n2 is linked with this node"
    );
}

#[test]
fn of_two_that_meet_each_knows_which_of_them_stays() {
    let now = Instant::now();
    let other = |began, serving| Hello {
        run: "another".to_owned(),
        began,
        serving,
        ..hello("n1")
    };
    // This node began at 0 and does not serve yet.
    for (began, serving, other_stays) in [(1, false, false), (1, true, true), (0, false, true)] {
        let mut membership = membership(&["a:1"], now);
        membership.dials(now);
        let why = refused(membership.judge_hello(&other(began, serving), true, now)).expect("a refusal");
        membership.dial_refused("a:1", "n1", why, false, now);
        let expected = other_stays.then_some(true);
        assert_eq!(membership.namesake_precedes(), expected, "by its own verdict");
        // The other node's verdict is the opposite one, sent in its refusal.
        let theirs = if other_stays {
            RefusalReason::PrecedingDuplicate
        } else {
            RefusalReason::LivingDuplicate
        };
        assert_eq!(why == RefusalReason::PrecedingDuplicate, !other_stays);
        membership.dial_refused("a:1", "n1", theirs, true, now);
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
    let now = Instant::now();
    let mut third = membership(&[], now);
    linked(&mut third, "n2", 7, now);
    let told = |third: &Membership, began, run: &str, serving, now| {
        let claimant = Hello {
            run: run.to_owned(),
            began,
            serving,
            ..hello("n2")
        };
        match third.judge_hello(&claimant, false, now) {
            Verdict::Refuse { why, probe } => {
                assert_eq!(probe, Some(7), "a PING is sent over the present link");
                why
            }
            other => panic!("{other:?}"),
        }
    };
    // The linked node serves and began at 0. It may be dead.
    third.serves(7);
    assert_eq!(told(&third, 1, "a", false, now), RefusalReason::DuplicateId);
    third.claim_answered(7, now);
    assert_eq!(told(&third, 1, "a", true, now), RefusalReason::PrecedingDuplicate);
    assert_eq!(
        told(&third, 0, "a", false, now),
        RefusalReason::PrecedingDuplicate,
        "it serves"
    );
    assert_eq!(
        told(&third, 0, "a", true, now),
        RefusalReason::LivingDuplicate,
        "of equal age"
    );
    assert_eq!(told(&third, 0, "z", true, now), RefusalReason::PrecedingDuplicate);
    let later = now + Duration::from_secs(1);
    assert_eq!(
        told(&third, 1, "a", true, later),
        RefusalReason::DuplicateId,
        "not seen since"
    );
    third.claim_answered(7, later);
    third.drains(7);
    assert_eq!(
        told(&third, 1, "a", true, later),
        RefusalReason::DuplicateId,
        "it is about to go"
    );
}

#[test]
fn of_two_of_one_id_that_join_the_one_that_stays_is_given_the_link() {
    let now = Instant::now();
    // n1 decides between n1 and n2, and n0 between n0 and n1.
    for id in ["n0", "n2"] {
        let mut third = membership(&[], now);
        linked(&mut third, id, 7, now);
        third.routes.get_mut(id).expect("the link").peer.began = 5;
        let joins = |began, run: &str| Hello {
            run: run.to_owned(),
            began,
            ..hello(id)
        };
        assert!(
            refused(third.judge_welcome(&joins(6, "younger"), false, 8, now))
                .is_some_and(RefusalReason::is_duplicate)
        );
        assert_eq!(third.judge_hello(&joins(4, "elder"), false, now), Verdict::Wait);
        let elder = third.judge_welcome(&joins(4, "elder"), false, 8, now);
        assert_eq!(elder, Verdict::Accept { replaces: Some(7) });
        assert!(!third.route_ended(7, false, now), "the link was replaced");
        // A node that serves is never replaced.
        third.serves(8);
        assert!(
            refused(third.judge_welcome(&joins(3, "eldest"), false, 9, now))
                .is_some_and(RefusalReason::is_duplicate)
        );
    }
}

#[test]
fn without_a_registry_only_a_third_node_linked_with_a_live_namesake_displaces_a_node() {
    let now = Instant::now();
    let mut membership = membership(&["a:1", "b:1"], now);
    membership.dials(now);
    assert!(!membership.is_outnumbered(), "nobody is linked with anybody");
    // Another n1 is started by mistake at the address of the dead peer.
    membership.dial_refused("a:1", "n1", RefusalReason::PrecedingDuplicate, true, now);
    assert!(membership.namesake_precedes().is_some() && !membership.is_outnumbered());
    membership.dial_refused("b:1", "n2", RefusalReason::DuplicateId, true, now);
    assert!(!membership.is_outnumbered(), "the other n1 may be dead");
    membership.dial_refused("b:1", "n2", RefusalReason::LivingDuplicate, true, now);
    assert!(membership.is_outnumbered());
    linked(&mut membership, "n3", 1, now);
    assert!(!membership.is_outnumbered());
    membership.route_ended(1, false, now);
    assert!(membership.is_outnumbered());
    membership.dial_failed("b:1", true, now);
    assert!(!membership.is_outnumbered());
}

/// Both namesakes see the same nodes. Each node is linked with one of the two.
#[test]
fn of_two_that_serve_exactly_one_goes_however_many_are_linked_with_each() {
    let now = Instant::now();
    for with_elder in 0..4 {
        for with_younger in 0..4 {
            let goes = |routes: usize, others: usize, why| {
                let at: Vec<String> = (0..others).map(|n| format!("o{n}:1")).collect();
                let mut membership = membership(&at.iter().map(String::as_str).collect::<Vec<_>>(), now);
                membership.rules.nodes_max = 10;
                membership.dials(now);
                for n in 0..routes {
                    linked(&mut membership, &format!("l{n}"), n as u64, now);
                }
                for (n, at) in at.iter().enumerate() {
                    membership.dial_refused(at, &format!("o{n}"), why, true, now);
                }
                membership.is_outnumbered()
            };
            let elder = goes(with_elder, with_younger, RefusalReason::LivingDuplicate);
            let younger = goes(with_younger, with_elder, RefusalReason::PrecedingDuplicate);
            let is_contested = with_elder + with_younger > 0;
            assert_eq!(elder, with_younger > with_elder, "{with_elder} {with_younger}");
            assert_eq!(elder || younger, is_contested, "{with_elder} {with_younger}");
            assert!(!(elder && younger), "{with_elder} {with_younger}");
        }
    }
}

#[test]
fn a_third_node_that_is_known_at_two_addresses_counts_once_and_not_once_it_is_linked() {
    let now = Instant::now();
    let mut membership = membership(&["name:1", "10.0.0.2:1"], now);
    membership.dials(now);
    linked(&mut membership, "n3", 1, now);
    for at in ["name:1", "10.0.0.2:1"] {
        membership.dial_refused(at, "n2", RefusalReason::LivingDuplicate, true, now);
    }
    assert!(!membership.is_outnumbered(), "one is linked with each");
    membership.route_ended(1, false, now);
    assert!(membership.is_outnumbered());
    // The third node dials this one, from an address at which it was not dialled.
    linked(&mut membership, "n2", 2, now);
    assert_eq!(membership.namesake_precedes(), None);
    assert!(!membership.has_living_namesake() && !membership.is_outnumbered());
}

#[test]
fn with_a_registry_only_a_record_of_another_run_that_answers_displaces_a_node() {
    let now = Instant::now();
    let mut membership = membership(&["b:1"], now);
    membership.rules.has_registry = true;
    membership.registered(&[peer("n1", "a:1")], Some("other".to_owned()), now);
    membership.dials(now);
    // The refusal of a third node is not enough.
    membership.dial_refused("b:1", "n2", RefusalReason::PrecedingDuplicate, true, now);
    assert!(!membership.is_outnumbered() && !membership.is_superseded());
    // First another node answers at that address, then none.
    membership.answered("a:1", "n1", "a third");
    assert!(!membership.is_superseded());
    membership.answered("a:1", "n1", "other");
    assert!(membership.is_superseded());
    membership.dial_failed("a:1", true, now);
    assert!(!membership.is_superseded());
    // The namesake answers, but the record is this node's again.
    membership.answered("a:1", "n1", "other");
    membership.registered(&[], None, now);
    assert!(!membership.is_superseded());
}

#[test]
fn a_registered_namesake_is_silent_only_after_a_failed_dial_since_its_record_appeared() {
    let now = Instant::now();
    let mut membership = membership(&[], now);
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
    membership.answered("a:1", "n1", "other");
    membership.dial_refused("a:1", "n1", RefusalReason::PrecedingDuplicate, true, now);
    assert_eq!(membership.silent_namesake(), None, "it answers");
}

#[test]
fn one_that_was_met_and_goes_is_no_obstacle_but_one_that_is_about_to_leave_is() {
    let now = Instant::now();
    let other = |serving, draining| Hello {
        run: "another".to_owned(),
        began: 1,
        serving,
        draining,
        ..hello("n1")
    };
    let met = |other: &Hello| {
        let mut membership = membership(&["a:1"], now);
        membership.dials(now);
        let why = refused(membership.judge_hello(other, true, now)).expect("a refusal");
        membership.dial_refused("a:1", "n1", why, false, now);
        (
            membership.namesake_precedes(),
            membership.awaited().is_empty(),
            membership.has_living_namesake(),
        )
    };
    assert_eq!(met(&other(false, false)), (None, true, true));
    assert_eq!(met(&other(true, false)), (Some(true), false, true));
    assert_eq!(met(&other(true, true)), (Some(false), false, true));
}

#[test]
fn a_node_whose_link_is_lost_before_all_is_told_is_waited_for_again() {
    let now = Instant::now();
    let mut membership = membership(&[], now);
    membership.registered(&[peer("n2", "n2:6222")], None, now);
    linked(&mut membership, "n2", 1, now);
    membership.synced(1);
    membership.snapshot_sent(1);
    assert_eq!(membership.awaited(), [""; 0]);
    membership.route_ended(1, false, now);
    assert_eq!(membership.awaited(), ["n2:6222"]);
}

#[test]
fn where_the_node_s_name_is_taken_is_asked_again_soon() {
    let mut now = Instant::now();
    let mut membership = membership(&["a:1"], now);
    for _ in 0..20 {
        assert_eq!(membership.dials(now), ["a:1"]);
        membership.dial_refused("a:1", "n2", RefusalReason::PrecedingDuplicate, true, now);
        now += DUPLICATE_REDIAL_MAX;
    }
}

#[test]
fn a_registered_node_of_the_same_name_elsewhere_is_looked_for_and_waited_for() {
    let now = Instant::now();
    let mut membership = membership(&[], now);
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
    let now = Instant::now();
    let mut membership = membership(&["by-hand:1"], now);
    membership.named_by_peer(&[peer("n2", "n2:6222")], now);
    linked(&mut membership, "n2", 1, now);
    assert!(membership.route_ended(1, false, now));
    let at = |membership: &Membership, at: &str| membership.addresses.contains_key(at);
    membership.dials(now);
    membership.dial_failed("n2:6222", false, now);
    let later = now + REMEMBERED + Duration::from_secs(1);
    membership.dials(later);
    assert!(!at(&membership, "n2:6222"), "no node has named it for an hour");
    assert!(at(&membership, "by-hand:1"));
    let many: Vec<Peer> = (0..50)
        .map(|n| peer(&format!("x{n}"), &format!("x{n}:1")))
        .collect();
    for (number, one) in many.iter().enumerate() {
        membership.named_by_peer(
            std::slice::from_ref(one),
            later + Duration::from_secs(number as u64),
        );
    }
    let max = membership.rules.nodes_max * ADDRESSES_PER_NODE;
    assert_eq!(membership.addresses.len(), max);
    assert!(at(&membership, "by-hand:1") && at(&membership, "x49:1") && !at(&membership, "x0:1"));
    membership.registered(&[peer("n3", "n3:6222")], None, later);
    assert!(
        at(&membership, "n3:6222"),
        "a registered address evicts one that only a node has named"
    );
}

#[test]
fn a_name_that_leads_to_this_node_may_lead_to_others_the_next_time() {
    let now = Instant::now();
    let mut membership = membership(&["nodes:6222", "10.0.0.1:6222"], now);
    assert_eq!(membership.dials(now).len(), 2);
    for at in ["nodes:6222", "10.0.0.1:6222"] {
        membership.dial_refused(at, "n1", RefusalReason::Itself, false, now);
    }
    assert_eq!(membership.awaited(), [""; 0]);
    assert_eq!(membership.dials(now + Duration::from_secs(3)), ["nodes:6222"]);
}

#[test]
fn a_node_without_a_name_takes_that_of_the_first_cluster_it_links_with_and_no_other() {
    let now = Instant::now();
    let mut membership = membership(&[], now);
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
        Some(RefusalReason::ClusterName)
    );
    let text = RefusalReason::ClusterName.detailed_text(membership.own(), &west);
    assert!(text.contains("\"east\"") && text.contains("\"west\""), "{text}");
}
