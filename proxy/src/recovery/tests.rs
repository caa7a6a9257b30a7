//! Tests of the recovery after a loss, on virtual time.

use super::*;

const SETTLE: Duration = Duration::from_secs(1);

struct World {
    recovery: Recovery,
    now: Instant,
}

fn world() -> World {
    World {
        recovery: Recovery::default(),
        now: Instant::now(),
    }
}

fn node(name: &str) -> Endpoint {
    Endpoint::new(name, 1)
}

fn session(id: u64) -> Arc<SessionInfo> {
    Arc::new(SessionInfo::new(id, ([127, 0, 0, 1], 1).into()))
}

fn in_doubt(dropped: u64, resent: u64) -> InDoubtCount {
    InDoubtCount { dropped, resent }
}

impl World {
    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn serve(&self, name: &str) -> Option<Served> {
        self.recovery.reachable(self.now);
        Some(self.recovery.served(&node(name)))
    }

    fn lose(&self, session: &Arc<SessionInfo>, name: &str, served: Option<Served>) {
        let nothing = InDoubtCount::default();
        self.recovery
            .lost(session, &node(name), served, true, nothing, self.now);
    }

    fn round_failed(&self, session: &Arc<SessionInfo>) {
        self.recovery
            .round_failed(session, true, Some(self.now), |_| false);
    }

    fn report(&self) -> Option<OutageReport> {
        self.recovery.report(SETTLE, self.now)
    }

    /// Returns the remaining wait of the session.
    fn waits(&self, session: &SessionInfo) -> Duration {
        let at = self.recovery.release_at(session, SETTLE, self.now);
        at.saturating_duration_since(self.now)
    }

    fn release(&self, session: &SessionInfo) {
        self.recovery.released(session, self.now);
    }
}

#[test]
fn s10_after_an_outage_a_session_waits_for_all_sessions_of_its_sidecar_and_then_for_other_sidecars() {
    let mut world = world();
    let (publisher, subscriber) = (session(1), session(2));
    let (served_1, served_2) = (world.serve("n"), world.serve("n"));
    world.lose(&publisher, "n", served_1);
    world.lose(&subscriber, "n", served_2);
    world.round_failed(&publisher);
    world.pass(Duration::from_secs(7));
    assert!(world.recovery.must_hold(&publisher, SETTLE));
    let _served = world.serve("n");
    world.recovery.back(&publisher, world.now);
    assert_eq!(world.waits(&publisher), BACK_WAIT_MAX + SETTLE);
    world.pass(Duration::from_millis(300));
    assert!(world.recovery.must_hold(&subscriber, SETTLE));
    world.recovery.back(&subscriber, world.now);
    assert!(publisher.take_command(SessionCommand::Release), "it looks again");
    assert_eq!(world.waits(&publisher), SETTLE);
    assert_eq!(world.waits(&subscriber), SETTLE);
    world.pass(SETTLE);
    assert_eq!(world.waits(&publisher), Duration::ZERO);
}

#[test]
fn s10_the_wait_for_a_session_that_never_comes_back_is_bounded() {
    let mut world = world();
    let (publisher, lost_for_good) = (session(1), session(2));
    world.round_failed(&publisher);
    world.round_failed(&lost_for_good);
    let _served = world.serve("n");
    world.recovery.back(&publisher, world.now);
    world.pass(BACK_WAIT_MAX + SETTLE);
    assert_eq!(world.waits(&publisher), Duration::ZERO);
}

#[test]
fn s10_sessions_do_not_wait_for_one_that_has_ended() {
    let world = world();
    let (publisher, other) = (session(1), session(2));
    world.round_failed(&publisher);
    world.round_failed(&other);
    let _served = world.serve("n");
    world.recovery.back(&publisher, world.now);
    world.recovery.ended(&other, None, false, 3, world.now);
    assert_eq!(world.waits(&publisher), SETTLE);
}

#[test]
fn s10_after_the_loss_of_one_node_of_several_only_its_sessions_wait_for_each_other_and_briefly() {
    let mut world = world();
    let (one, two, elsewhere) = (session(1), session(2), session(3));
    let (served_1, served_2) = (world.serve("a"), world.serve("a"));
    let _elsewhere = world.serve("b");
    world.lose(&one, "a", served_1);
    assert!(
        world.recovery.must_hold(&one, SETTLE),
        "the other session may not have noticed the loss yet"
    );
    let _served = world.serve("b");
    world.recovery.back(&one, world.now);
    assert_eq!(world.waits(&one), GROUP_WAIT_MAX);
    world.pass(Duration::from_millis(2));
    world.lose(&two, "a", served_2);
    assert_eq!(world.waits(&one), GROUP_WAIT_MAX - Duration::from_millis(2));
    world.recovery.back(&two, world.now);
    assert!(one.take_command(SessionCommand::Release));
    assert_eq!(world.waits(&one), Duration::ZERO);
    assert!(!world.recovery.must_hold(&elsewhere, SETTLE));
}

#[test]
fn a_session_alone_on_its_node_does_not_wait_when_it_returns_to_it() {
    let world = world();
    let one = session(1);
    for _ in 0..3 {
        let served = world.serve("a");
        world.lose(&one, "a", served);
        assert!(!world.recovery.must_hold(&one, SETTLE));
        world.release(&one);
    }
}

#[test]
fn a_planned_move_causes_no_wait() {
    let world = world();
    let (mover, stays) = (session(1), session(2));
    let (served_1, served_2) = (world.serve("a"), world.serve("a"));
    let recovery = &world.recovery;
    recovery.lost(
        &mover,
        &node("a"),
        served_1,
        false,
        InDoubtCount::default(),
        world.now,
    );
    assert!(!recovery.must_hold(&mover, SETTLE));
    world.lose(&stays, "a", served_2);
    assert!(
        !recovery.must_hold(&stays, SETTLE),
        "no other session was on the node"
    );
}

#[test]
fn an_outage_is_reported_once_at_its_beginning_and_once_at_its_end() {
    let mut world = world();
    let sessions: Vec<Arc<SessionInfo>> = (0..200).map(session).collect();
    let mut served: Vec<Option<Served>> = sessions.iter().map(|_| world.serve("n")).collect();
    for session in &sessions {
        let served = served.pop().flatten();
        world
            .recovery
            .lost(session, &node("n"), served, true, in_doubt(2, 1), world.now);
    }
    assert_eq!(world.report(), None, "other nodes may be reachable");
    sessions.iter().for_each(|session| world.round_failed(session));
    assert_eq!(
        world.report(),
        Some(OutageReport::Began {
            sessions_waiting: 200
        })
    );
    sessions.iter().for_each(|session| world.round_failed(session));
    assert_eq!(world.report(), None);
    world.pass(Duration::from_secs(45));
    sessions[7].buffered_bytes.store(100, Relaxed);
    world.recovery.ended(&sessions[0], None, true, 5, world.now);
    assert_eq!(world.report(), Some(OutageReport::Expired { sessions: 1 }));
    for session in &sessions[1..] {
        let _served = world.serve("n");
        world.recovery.back(session, world.now);
        world.release(session);
    }
    let report = world.report();
    assert_eq!(
        report,
        Some(OutageReport::Ended {
            lasted: Duration::from_secs(45),
            sessions: 200,
            held_bytes: 100,
            resent: 200,
            lost: 405,
        })
    );
    assert_eq!(world.report(), None);
}

#[test]
fn the_loss_of_one_node_of_several_is_no_outage() {
    let world = world();
    let one = session(1);
    let _elsewhere = world.serve("b");
    let served = world.serve("a");
    world.lose(&one, "a", served);
    world.round_failed(&one);
    assert_eq!(world.report(), None);
}

#[test]
fn probes_alone_can_begin_and_end_an_outage() {
    let world = world();
    world.recovery.all_probes_failed(world.now, |_| false);
    world.recovery.all_probes_failed(world.now, |_| false);
    let began = OutageReport::Began { sessions_waiting: 0 };
    assert_eq!(world.report(), Some(began));
    world.recovery.reachable(world.now);
    assert!(matches!(
        world.report(),
        Some(OutageReport::Ended { sessions: 0, .. })
    ));
}

#[test]
fn a_session_that_cannot_notice_the_loss_of_its_node_does_not_delay_an_outage() {
    let world = world();
    let one = session(1);
    let (served, _stuck) = (world.serve("n"), world.serve("n"));
    world.lose(&one, "n", served);
    world.round_failed(&one);
    assert_eq!(world.report(), None, "the node seems to serve another session");
    world.recovery.round_failed(&one, true, Some(world.now), |_| true);
    assert!(matches!(world.report(), Some(OutageReport::Began { .. })));
}

#[test]
fn a_session_that_is_never_back_delays_neither_the_report_nor_the_next_outage() {
    let mut world = world();
    let (good, stuck) = (session(1), session(2));
    world.round_failed(&good);
    world.round_failed(&stuck);
    assert!(world.report().is_some());
    let served = world.serve("n");
    world.recovery.back(&good, world.now);
    world.release(&good);
    assert_eq!(world.report(), None);
    world.pass(BACK_WAIT_MAX + SETTLE);
    assert!(matches!(world.report(), Some(OutageReport::Ended { .. })));
    world.lose(&good, "n", served);
    world.round_failed(&good);
    assert!(matches!(world.report(), Some(OutageReport::Began { .. })));
    let _served = world.serve("n");
    world.recovery.back(&good, world.now);
    assert_eq!(world.waits(&good), SETTLE);
}

#[test]
fn sessions_that_lose_the_same_node_report_one_failure() {
    let mut world = world();
    let sessions = [session(1), session(2), session(3)];
    let nothing = InDoubtCount::default();
    let mut served: Vec<Option<Served>> = sessions.iter().map(|_| world.serve("n")).collect();
    let mut lost = |world: &World, session: &Arc<SessionInfo>| {
        let served = served.pop().flatten();
        world
            .recovery
            .lost(session, &node("n"), served, true, nothing, world.now)
    };
    assert!(!lost(&world, &sessions[0]), "the first");
    let again = world.serve("n");
    world.pass(Duration::from_secs(1));
    assert!(lost(&world, &sessions[1]), "the same loss, noticed late");
    world.pass(SAME_LOSS);
    assert!(!lost(&world, &sessions[2]), "long after: another loss");
    let lost_again = world
        .recovery
        .lost(&sessions[0], &node("n"), again, true, nothing, world.now);
    assert!(!lost_again, "another loss");
}

/// The other nodes failed before and were not tried again, so they may be back.
#[test]
fn there_is_no_outage_while_a_known_node_was_not_tried() {
    let mut world = world();
    let publisher = session(1);
    let served = world.serve("n");
    world.lose(&publisher, "n", served);
    world.recovery.round_failed(&publisher, true, None, |_| true);
    assert_eq!(world.report(), None);
    let _served = world.serve("m");
    world.recovery.back(&publisher, world.now);
    assert_eq!(world.waits(&publisher), Duration::ZERO);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.report(), None);
}

/// A frozen node accepts a connection and sends nothing until the handshake times out.
#[test]
fn an_outage_begins_after_half_a_second_without_a_proved_node() {
    let mut world = world();
    let publisher = session(1);
    let served = world.serve("n");
    world.lose(&publisher, "n", served);
    let since = world.now;
    world.pass(Duration::from_millis(400));
    world.recovery.none_proved(since, |_| true, world.now);
    assert_eq!(world.report(), None);
    world.pass(Duration::from_millis(100));
    world.recovery.none_proved(since, |_| true, world.now);
    assert!(world.recovery.must_hold(&publisher, SETTLE));
    // The outage ends before its beginning was reported, so both are reported.
    world.pass(Duration::from_secs(1));
    let _served = world.serve("n");
    world.recovery.back(&publisher, world.now);
    assert_eq!(world.waits(&publisher), SETTLE);
    let began = OutageReport::Began { sessions_waiting: 1 };
    assert_eq!(world.report(), Some(began));
    world.release(&publisher);
    match world.report() {
        Some(OutageReport::Ended { lasted, .. }) => assert_eq!(lasted, Duration::from_millis(1500)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_session_that_never_had_a_node_does_not_begin_an_outage() {
    let mut world = world();
    let newcomer = session(1);
    world.recovery.round_failed(&newcomer, true, None, |_| true);
    let since = world.now;
    world.pass(Duration::from_secs(1));
    world.recovery.none_proved(since, |_| true, world.now);
    assert_eq!(world.report(), None);
}

#[test]
fn expired_sessions_are_reported_without_an_outage_too() {
    let world = world();
    let one = session(1);
    let served = world.serve("n");
    world.lose(&one, "n", served);
    world.recovery.ended(&one, None, true, 0, world.now);
    let expired = OutageReport::Expired { sessions: 1 };
    assert_eq!(world.report(), Some(expired));
    assert_eq!(world.report(), None);
}
