//! Tests of the rules for the path of our znode. They need no server.

use super::*;
use proptest::prelude::*;

const AGE: Duration = Duration::from_secs(8);

fn record(run: &str, port: u16) -> Node {
    Node {
        run: run.into(),
        mesh: Some(Endpoint::new("10.0.0.1", port)),
        ..Node::new("n1", Endpoint::new("10.0.0.1", 4222))
    }
}

fn ours() -> Node {
    record("us", 6222)
}

fn raw_znode(owner: i64, czxid: i64, data: &str) -> Znode {
    let (mzxid, version) = (czxid, 3);
    let stat = ZnodeStat {
        czxid,
        mzxid,
        version,
        owner,
    };
    let data = Some(data.into());
    Znode { stat, data }
}

fn znode_of(owner: i64, czxid: i64, record: &Node) -> Znode {
    raw_znode(owner, czxid, &record.to_record())
}

/// Returns the state in `session`, before anything was created at the path.
fn in_session(session: i64) -> Registration {
    let mut registration = Registration::new(AGE);
    registration.new_connection(session);
    registration
}

/// Returns the state after our znode was created with the zxid 10 in session 7.
fn settled() -> Registration {
    let mut registration = in_session(7);
    assert_eq!(registration.judge(None, &ours(), Instant::now()), Step::Create);
    assert_eq!(registration.step(&znode_of(7, 10, &ours())), Step::Keep);
    registration
}

impl Registration {
    /// Returns the next step for this znode.
    fn step(&mut self, found: &Znode) -> Step {
        self.judge(Some(found), &ours(), Instant::now())
    }

    /// Returns whether the id is taken; `None` if this process does not wait for another owner of the znode.
    fn is_taken(&mut self, found: &Znode, now: Instant) -> Option<bool> {
        match self.judge(Some(found), &ours(), now) {
            Step::Wait(waiting) => Some(waiting.is_taken),
            _ => None,
        }
    }
}

#[test]
fn our_znode_is_kept_and_repaired() {
    let (mut registration, now) = (settled(), Instant::now());
    assert_eq!(registration.own().map(|own| own.owner), Some(7));
    let write = Step::Write { version: 3 };
    let draining = Node {
        state: crate::NodeState::Draining,
        ..ours()
    };
    let znode = znode_of(7, 10, &ours());
    assert_eq!(registration.judge(Some(&znode), &draining, now), write);
    assert_eq!(registration.step(&raw_znode(7, 10, "garbage")), write);
    assert_eq!(registration.step(&znode_of(7, 10, &record("them", 1))), write);
    assert_eq!(registration.judge(None, &ours(), now), Step::Create);
    assert_eq!(registration.own(), None);
    assert_eq!(registration.step(&znode_of(7, 12, &ours())), Step::Keep);
}

#[test]
fn invalid_data_in_our_new_znode_is_repaired_without_a_wait() {
    let step = in_session(7).step(&raw_znode(7, 10, "garbage"));
    assert_eq!(step, Step::Write { version: 3 });
}

#[test]
fn a_znode_created_over_an_earlier_connection_of_the_session_is_kept() {
    let mut registration = settled();
    registration.new_connection(7);
    assert_eq!(registration.own(), None);
    assert_eq!(registration.step(&znode_of(7, 10, &ours())), Step::Keep);
    assert_eq!(registration.own().map(|own| own.czxid), Some(10));
}

#[test]
fn a_ghost_of_ours_is_deleted() {
    let mut registration = settled();
    registration.new_connection(8);
    assert_eq!(registration.own(), None);
    let removal = |ghost| Step::Remove { version: 3, ghost };
    // The second znode was created by a call whose answer was lost.
    for czxid in [10, 11] {
        let step = registration.step(&znode_of(7, czxid, &ours()));
        assert_eq!(step, removal(Ghost::EarlierSession));
    }

    let mut registration = in_session(8);
    let earlier_process = znode_of(7, 10, &record("them", 6222));
    assert_eq!(
        registration.step(&earlier_process),
        removal(Ghost::EarlierProcess)
    );
    registration.removal_refused();
    let is_taken = registration.is_taken(&earlier_process, Instant::now());
    assert_eq!(
        is_taken,
        Some(false),
        "waits for the end of a znode that it may not delete"
    );
}

#[test]
fn without_a_mesh_address_the_client_address_identifies_a_ghost() {
    let without = |run: &str| Node {
        mesh: None,
        ..record(run, 1)
    };
    let is_ghost = |theirs: &Node, wanted: &Node| {
        let mut registration = in_session(8);
        matches!(
            registration.judge(Some(&znode_of(7, 10, theirs)), wanted, Instant::now()),
            Step::Remove { .. }
        )
    };
    assert!(is_ghost(&without("them"), &without("us")));
    assert!(!is_ghost(&record("them", 6222), &without("us")));
    assert!(!is_ghost(&without("them"), &ours()));
    assert!(!is_ghost(&record("them", 6223), &ours()));
    let other_id = Node {
        id: "n2".into(),
        ..record("them", 6222)
    };
    assert!(!is_ghost(&other_id, &ours()));
}

#[test]
fn a_later_znode_of_a_node_at_our_address_is_not_a_ghost() {
    let (mut registration, now) = (settled(), Instant::now());
    let them = znode_of(8, 11, &record("them", 6222));
    assert_eq!(registration.is_taken(&them, now), Some(false));
    registration.new_connection(9);
    assert_eq!(registration.is_taken(&them, now), Some(false));
}

#[test]
fn the_id_is_taken_when_another_owner_exists_longer_than_a_ghost_could() {
    let (mut registration, begun) = (in_session(7), Instant::now());
    for foreign in [
        znode_of(8, 5, &record("them", 1)),
        raw_znode(9, 5, "10.0.0.1:4222"),
    ] {
        let mut judge =
            |after_secs: u64| registration.is_taken(&foreign, begun + Duration::from_secs(after_secs));
        assert_eq!((judge(0), judge(7)), (Some(false), Some(false)));
        assert_eq!((judge(8), judge(9)), (Some(true), Some(true)));
    }
    let hidden = Znode {
        data: None,
        ..raw_znode(9, 5, "")
    };
    let later = begun + Duration::from_secs(9);
    // The same owner, although its data cannot be read.
    assert_eq!(registration.is_taken(&hidden, later), Some(true));
    let other = znode_of(10, 6, &record("them", 1));
    assert_eq!(registration.is_taken(&other, later), Some(false));
    registration.new_connection(7);
    let much_later = later + AGE;
    let is_taken = registration.is_taken(&other, much_later);
    assert_eq!(is_taken, Some(false), "the wait starts again");
    assert_eq!(registration.judge(None, &ours(), much_later), Step::Create);
}

#[test]
fn a_persistent_znode_is_reported_at_once_and_never_changed() {
    for data in [ours().to_record(), "10.0.0.1:4222".into()] {
        let step = in_session(7).step(&raw_znode(0, 5, &data));
        let Step::Wait(waiting) = step else {
            panic!("{step:?}")
        };
        assert!(waiting.is_taken);
        assert!(waiting.to_string().contains("delete it"), "{waiting}");
    }
}

proptest! {
    /// Two processes have one id and one address, and take steps and lose sessions in any order. Each deletes the znode of the other
    /// at most once.
    #[test]
    fn two_nodes_with_one_address_delete_each_others_znode_at_most_once(moves in proptest::collection::vec((0usize..2, 0u8..8), 1..200)) {
        let records = [record("a", 6222), record("b", 6222)];
        let mut registrations = [in_session(1), in_session(2)];
        let (mut present, mut zxid, mut removed) = (None::<Znode>, 0, [0, 0]);
        let mut sessions = [1, 2];
        for (process, action) in moves {
            zxid += 1;
            if action == 0 {
                // A new session, while the server has not expired the one before.
                sessions[process] += 2;
                registrations[process].new_connection(sessions[process]);
                continue;
            }
            if action == 1 {
                // The server expires sessions that no process uses.
                present = present.filter(|found| sessions.contains(&found.stat.owner));
                continue;
            }
            match registrations[process].judge(present.as_ref(), &records[process], Instant::now()) {
                Step::Create => {
                    present = Some(znode_of(sessions[process], zxid, &records[process]));
                    let step = registrations[process].judge(present.as_ref(), &records[process], Instant::now());
                    prop_assert_eq!(step, Step::Keep);
                }
                Step::Remove { ghost, .. } => {
                    if ghost == Ghost::EarlierProcess {
                        removed[process] += 1;
                    }
                    present = None;
                }
                Step::Keep | Step::Wait(_) => {}
                Step::Write { .. } => prop_assert!(false, "a record of the other process was overwritten"),
            }
        }
        prop_assert!(removed.iter().all(|removed| *removed <= 1), "{:?}", removed);
    }
}
