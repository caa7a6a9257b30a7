//! Tests of the lookup of recipients while subscriptions are added and removed.

use super::*;
use crate::outbox::Outbox;
use crate::subscription::Delivery;
use proptest::prelude::*;
use standin_wire::subject::matches;

fn subscription(subject: &str, queue: Option<&str>, sid: &str) -> Arc<Subscription> {
    let client = Arc::new(Outbox::unconnected(1));
    let (subject, queue, sid) = (subject.as_bytes(), queue.map(str::as_bytes), sid.as_bytes());
    Arc::new(Subscription::new(client, subject, queue, sid))
}

fn table() -> Subscriptions {
    Subscriptions::new(Arc::new(Generations::new()))
}

/// Returns the sids of the matching subscriptions: first those without a queue group, then those of each group. All are sorted.
fn found(all: &Subscriptions, subject: &str) -> (Vec<String>, Vec<Vec<String>>) {
    let mut matched = Matched::default();
    all.collect(subject.as_bytes(), &mut matched);
    let sids = |list: &[Arc<Subscription>]| {
        let text = |one: &Arc<Subscription>| String::from_utf8_lossy(one.sid()).into_owned();
        let mut sids: Vec<String> = list.iter().map(text).collect();
        sids.sort();
        sids
    };
    let mut groups: Vec<_> = matched.groups.iter().map(|group| sids(group)).collect();
    groups.sort();
    (sids(&matched.each), groups)
}

#[test]
fn members_of_a_queue_group_are_one_group_even_with_different_patterns() {
    let all = table();
    for (subject, queue, sid) in [
        ("a.b", Some("q"), "1"),
        ("a.*", Some("q"), "2"),
        (">", Some("q"), "3"),
        ("a.b", Some("r"), "4"),
        ("a.b", None, "5"),
    ] {
        all.add(&subscription(subject, queue, sid));
    }
    let (each, groups) = found(&all, "a.b");
    assert_eq!(each, ["5"]);
    assert_eq!(groups, [vec!["1", "2", "3"], vec!["4"]]);
}

#[test]
fn removing_one_of_many_subscriptions_to_a_subject_keeps_the_others() {
    let all = table();
    let many: Vec<_> = (0..50)
        .map(|number| subscription("a", None, &number.to_string()))
        .collect();
    for one in &many {
        all.add(one);
    }
    for (gone, one) in many.iter().enumerate() {
        all.remove(one);
        all.remove(one);
        assert_eq!(all.len(), 49 - gone);
        assert_eq!(found(&all, "a").0.len(), 49 - gone);
    }
    assert!(
        all.read().literal.iter().all(HashTable::is_empty),
        "an entry is left"
    );
}

#[test]
fn a_change_raises_the_generation_of_each_subject_that_it_can_affect() {
    let all = table();
    let generations = &all.generations;
    for (pattern, touched, untouched) in [
        ("a.b.c", "a.b.c", "a.b.d"),
        ("a.b.*", "a.b.c", "a.c.d"),
        ("a.b.c.*", "a.b.x", "a.c"),
        ("a.*", "a.x", "b.x"),
        ("a.>", "a.x.y", "b"),
        ("*.b", "x.b", ""),
        (">", "anything.at.all", ""),
    ] {
        let generation = |subject: &str| generations.sum(generations.counters_of(subject.as_bytes()));
        let (one, other) = (generation(touched), generation(untouched));
        let added = subscription(pattern, None, "1");
        all.add(&added);
        assert_ne!(
            generation(touched),
            one,
            "adding {pattern} raises the generation of {touched}"
        );
        if !untouched.is_empty() {
            assert_eq!(
                generation(untouched),
                other,
                "adding {pattern} does not change the generation of {untouched}"
            );
        }
        let one = generation(touched);
        all.remove(&added);
        assert_ne!(
            generation(touched),
            one,
            "removing {pattern} raises the generation of {touched}"
        );
    }
}

#[test]
fn the_delivery_that_reaches_the_maximum_is_the_last() {
    let three = subscription("a", None, "1");
    assert_eq!(three.take_delivery(), Delivery::Due);
    assert!(!three.set_max(3));
    for delivery in [Delivery::Due, Delivery::Last, Delivery::Over] {
        assert_eq!(three.take_delivery(), delivery);
    }
    assert!(three.is_over());
    assert_eq!(three.delivered(), 3, "a refused delivery is not counted");
}

fn token() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "*x", "c>"]).prop_map(str::to_owned)
}

fn subject() -> impl Strategy<Value = String> {
    prop::collection::vec(token(), 1..5).prop_map(|tokens| tokens.join("."))
}

fn pattern() -> impl Strategy<Value = String> {
    let token = prop_oneof![3 => token(), 2 => Just("*".to_owned())];
    (prop::collection::vec(token, 0..4), prop::bool::ANY).prop_map(|(mut tokens, open)| {
        if open || tokens.is_empty() {
            tokens.push(">".to_owned());
        }
        tokens.join(".")
    })
}

proptest! {
    /// A lookup finds exactly the subscriptions whose pattern matches. While the generation of a subject is unchanged, so is the result.
    #[test]
    fn a_lookup_finds_exactly_the_subscriptions_whose_pattern_matches(
        patterns in prop::collection::vec((pattern(), prop::option::of("[qr]"), any::<bool>()), 0..30),
        subjects in prop::collection::vec(subject(), 1..10),
    ) {
        let all = table();
        let generations = &all.generations;
        let mut live: Vec<(usize, &str, Option<&str>)> = Vec::new();
        let mut seen: Vec<_> = subjects.iter().map(|subject| {
            (generations.sum(generations.counters_of(subject.as_bytes())), found(&all, subject))
        }).collect();
        for (number, (pattern, queue, stays)) in patterns.iter().enumerate() {
            let one = subscription(pattern, queue.as_deref(), &number.to_string());
            all.add(&one);
            if *stays {
                live.push((number, pattern, queue.as_deref()));
            } else {
                all.remove(&one);
            }
            for (subject, seen) in subjects.iter().zip(&mut seen) {
                let now = generations.sum(generations.counters_of(subject.as_bytes()));
                let found = found(&all, subject);
                prop_assert!(now != seen.0 || found == seen.1, "{pattern} changed the matches of {subject}, but not its generation");
                *seen = (now, found);
            }
        }
        for (subject, (_, (each, groups))) in subjects.iter().zip(&seen) {
            let matching = |queue: Option<&str>| {
                let mut sids: Vec<String> = live.iter()
                    .filter(|(_, pattern, of)| *of == queue && matches(pattern.as_bytes(), subject.as_bytes()))
                    .map(|(number, ..)| number.to_string())
                    .collect();
                sids.sort();
                sids
            };
            prop_assert_eq!(each, &matching(None));
            let mut wanted = vec![matching(Some("q")), matching(Some("r"))];
            wanted.retain(|group| !group.is_empty());
            wanted.sort();
            prop_assert_eq!(groups, &wanted);
        }
        prop_assert_eq!(all.len(), live.len());
    }
}
