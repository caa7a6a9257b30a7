//! Every rule of the place, without a server.

use super::*;
use proptest::prelude::*;

const AGE: Duration = Duration::from_secs(8);

fn record(run: &str, port: u16) -> Record {
    Record {
        run: run.into(),
        mesh: Some(Endpoint::new("10.0.0.1", port)),
        ..Record::new("n1", Endpoint::new("10.0.0.1", 4222))
    }
}

fn ours() -> Record {
    record("us", 6222)
}

fn found(owner: i64, czxid: i64, data: &str) -> Found {
    let (mzxid, version) = (czxid, 3);
    Found {
        znode: Znode {
            czxid,
            mzxid,
            version,
            owner,
        },
        data: Some(data.into()),
    }
}

fn of(owner: i64, czxid: i64, record: &Record) -> Found {
    found(owner, czxid, &record.to_json())
}

/// A place in a session of its own, where nothing was made yet.
fn in_session(session: i64) -> Place {
    let mut place = Place::new(AGE);
    place.new_connection(session);
    place
}

/// A place whose znode was created at 10 in session 7.
fn settled() -> Place {
    let mut place = in_session(7);
    assert_eq!(place.judge(None, &ours(), Instant::now()), Step::Create);
    let step = place.judge(Some(&of(7, 10, &ours())), &ours(), Instant::now());
    assert_eq!(step, Step::Keep);
    place
}

fn taken(step: &Step) -> Option<bool> {
    match step {
        Step::Wait(waiting) => Some(waiting.is_taken),
        _ => None,
    }
}

#[test]
fn what_we_made_is_kept_and_mended() {
    let (mut place, now) = (settled(), Instant::now());
    assert_eq!(place.own().map(|own| own.owner), Some(7));
    let write = Step::Write { version: 3 };
    let draining = Record {
        state: crate::NodeState::Draining,
        ..ours()
    };
    assert_eq!(place.judge(Some(&of(7, 10, &ours())), &draining, now), write);
    assert_eq!(place.judge(Some(&found(7, 10, "garbage")), &ours(), now), write);
    assert_eq!(
        place.judge(Some(&of(7, 10, &record("them", 1))), &ours(), now),
        write
    );
    assert_eq!(place.judge(None, &ours(), now), Step::Create);
    assert_eq!(place.own(), None);
    assert_eq!(place.judge(Some(&of(7, 12, &ours())), &ours(), now), Step::Keep);
}

#[test]
fn garbage_written_over_what_we_just_made_is_mended_and_not_waited_for() {
    let mut place = in_session(7);
    let step = place.judge(Some(&found(7, 10, "garbage")), &ours(), Instant::now());
    assert_eq!(step, Step::Write { version: 3 });
}

#[test]
fn what_we_made_over_an_earlier_connection_of_the_session_is_kept() {
    let (mut place, now) = (settled(), Instant::now());
    place.new_connection(7);
    assert_eq!(place.own(), None);
    assert_eq!(place.judge(Some(&of(7, 10, &ours())), &ours(), now), Step::Keep);
    assert_eq!(place.own().map(|own| own.czxid), Some(10));
}

#[test]
fn a_ghost_of_ours_is_removed() {
    let (mut place, now) = (settled(), Instant::now());
    place.new_connection(8);
    assert_eq!(place.own(), None);
    let removal = |ghost| Step::Remove { version: 3, ghost };
    let step = place.judge(Some(&of(7, 10, &ours())), &ours(), now);
    assert_eq!(step, removal(Ghost::EarlierSession));
    // Also one that a call created of which nobody knew whether it would.
    let step = place.judge(Some(&of(7, 11, &ours())), &ours(), now);
    assert_eq!(step, removal(Ghost::EarlierSession));

    let mut place = in_session(8);
    let last_life = of(7, 10, &record("them", 6222));
    let step = place.judge(Some(&last_life), &ours(), now);
    assert_eq!(step, removal(Ghost::EarlierLife));
    place.removal_refused();
    assert_eq!(
        taken(&place.judge(Some(&last_life), &ours(), now)),
        Some(false),
        "what may not be deleted is waited for"
    );
}

#[test]
fn without_a_mesh_the_client_address_tells_a_ghost() {
    let without = |run: &str| Record {
        mesh: None,
        ..record(run, 1)
    };
    let is_ghost = |theirs: &Record, wanted: &Record| {
        let mut place = in_session(8);
        matches!(
            place.judge(Some(&of(7, 10, theirs)), wanted, Instant::now()),
            Step::Remove { .. }
        )
    };
    assert!(is_ghost(&without("them"), &without("us")));
    assert!(!is_ghost(&record("them", 6222), &without("us")));
    assert!(!is_ghost(&without("them"), &ours()));
    assert!(!is_ghost(&record("them", 6223), &ours()));
    let other_id = Record {
        id: "n2".into(),
        ..record("them", 6222)
    };
    assert!(!is_ghost(&other_id, &ours()));
}

#[test]
fn who_came_after_us_at_our_address_is_no_ghost() {
    let (mut place, now) = (settled(), Instant::now());
    let them = of(8, 11, &record("them", 6222));
    assert_eq!(taken(&place.judge(Some(&them), &ours(), now)), Some(false));
    place.new_connection(9);
    assert_eq!(taken(&place.judge(Some(&them), &ours(), now)), Some(false));
}

#[test]
fn another_owner_is_waited_for_and_taken_when_it_outlives_a_ghost() {
    let (mut place, begun) = (in_session(7), Instant::now());
    for strange in [of(8, 5, &record("them", 1)), found(9, 5, "10.0.0.1:4222")] {
        let mut judge = |after_secs: u64| {
            let now = begun + Duration::from_secs(after_secs);
            taken(&place.judge(Some(&strange), &ours(), now))
        };
        assert_eq!((judge(0), judge(7)), (Some(false), Some(false)));
        assert_eq!((judge(8), judge(9)), (Some(true), Some(true)));
    }
    let hidden = Found {
        data: None,
        ..found(9, 5, "")
    };
    let later = begun + Duration::from_secs(9);
    let step = place.judge(Some(&hidden), &ours(), later);
    assert_eq!(
        taken(&step),
        Some(true),
        "the same owner, whatever it let us read"
    );
    let other = of(10, 6, &record("them", 1));
    assert_eq!(taken(&place.judge(Some(&other), &ours(), later)), Some(false));
    place.new_connection(7);
    let much_later = later + AGE;
    assert_eq!(
        taken(&place.judge(Some(&other), &ours(), much_later)),
        Some(false),
        "it is given its time again"
    );
    assert_eq!(place.judge(None, &ours(), much_later), Step::Create);
}

#[test]
fn a_persistent_znode_is_never_touched_and_told_at_once() {
    for data in [ours().to_json(), "10.0.0.1:4222".into()] {
        let mut place = in_session(7);
        let step = place.judge(Some(&found(0, 5, &data)), &ours(), Instant::now());
        let Step::Wait(waiting) = step else {
            panic!("{step:?}")
        };
        assert!(waiting.is_taken);
        assert!(waiting.to_string().contains("delete it"), "{waiting}");
    }
}

proptest! {
    /// Two processes of one id and one address, in any order of steps and lost sessions: each removes
    /// the other's znode once at most, so they do not fight for ever.
    #[test]
    fn two_nodes_of_one_address_do_not_fight_for_ever(moves in proptest::collection::vec((0usize..2, 0u8..8), 1..200)) {
        let records = [record("a", 6222), record("b", 6222)];
        let mut places = [in_session(1), in_session(2)];
        let (mut stands, mut zxid, mut removed) = (None::<Found>, 0, [0, 0]);
        let mut sessions = [1, 2];
        for (who, what) in moves {
            zxid += 1;
            if what == 0 {
                // A session that cannot be continued, and that the server has not ended yet.
                sessions[who] += 2;
                places[who].new_connection(sessions[who]);
                continue;
            }
            if what == 1 {
                // The server ends what nobody keeps alive.
                stands = stands.filter(|found| sessions.contains(&found.znode.owner));
                continue;
            }
            match places[who].judge(stands.as_ref(), &records[who], Instant::now()) {
                Step::Create => {
                    stands = Some(of(sessions[who], zxid, &records[who]));
                    let step = places[who].judge(stands.as_ref(), &records[who], Instant::now());
                    prop_assert_eq!(step, Step::Keep);
                }
                Step::Remove { ghost, .. } => {
                    if ghost == Ghost::EarlierLife {
                        removed[who] += 1;
                    }
                    stands = None;
                }
                Step::Keep | Step::Wait(_) => {}
                Step::Write { .. } => prop_assert!(false, "a record of the other was written over"),
            }
        }
        prop_assert!(removed.iter().all(|removed| *removed <= 1), "{:?}", removed);
    }
}
