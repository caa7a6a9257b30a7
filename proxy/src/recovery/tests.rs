//! Tests of the recovery after a loss, on virtual time.

use super::*;

const SETTLE: Duration = Duration::from_secs(1);

/// The recovery, and the present time.
struct World {
    recovery: Recovery,
    now: Instant,
}

/// A session and the node that serves it.
struct Party {
    info: Arc<SessionInfo>,
    served: Option<Served>,
    /// Publishes in doubt at its next loss.
    in_doubt: InDoubtCount,
}

fn world() -> World {
    World {
        recovery: Recovery::default(),
        now: Instant::now(),
    }
}

/// Returns a session that never had a node.
fn session(id: u64) -> Party {
    Party {
        info: Arc::new(SessionInfo::new(
            id,
            0,
            std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into(),
        )),
        served: None,
        in_doubt: InDoubtCount::default(),
    }
}

impl World {
    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Returns a session on the node `name`.
    fn session_on(&self, name: &str, id: u64) -> Party {
        let mut party = session(id);
        self.join(&mut party, name);
        party
    }

    /// Connects the session to a node, which answers the replay. Returns whether the session must hold its publishes.
    fn join(&self, party: &mut Party, name: &str) -> bool {
        let must_hold = self.must_hold(party);
        self.recovery.reachable(self.now);
        party.served = Some(self.recovery.served(&Endpoint::new(name, 1)));
        self.recovery.back(&party.info, self.now);
        must_hold
    }

    /// Ends the session's connection to its node. Returns whether another session has reported the same loss.
    fn lose(&self, party: &mut Party) -> bool {
        self.leave(party, true)
    }

    fn leave(&self, party: &mut Party, awaited: bool) -> bool {
        let node = party.served.as_ref().expect("a node").node.clone();
        let (served, in_doubt) = (party.served.take(), party.in_doubt);
        let recovery = &self.recovery;
        recovery.lost(&party.info, &node, served, awaited, in_doubt, self.now)
    }

    fn round_failed(&self, party: &Party) {
        let (recovery, since) = (&self.recovery, Some(self.now));
        recovery.round_failed(&party.info, true, since, |_| false);
    }

    fn must_hold(&self, party: &Party) -> bool {
        self.recovery.must_hold(&party.info, SETTLE)
    }

    fn report(&self) -> Option<OutageReport> {
        self.recovery.report(SETTLE, self.now)
    }

    /// Returns the remaining wait of the session.
    fn waits(&self, party: &Party) -> Duration {
        let at = self.recovery.release_at(&party.info, SETTLE, self.now);
        at.saturating_duration_since(self.now)
    }

    fn release(&self, party: &Party) {
        self.recovery.released(&party.info, self.now);
    }

    fn end(&self, party: &Party, expired: bool, abandoned: u64) {
        let recovery = &self.recovery;
        recovery.ended(&party.info, None, expired, abandoned, self.now);
    }
}

#[test]
fn s10_after_an_outage_a_session_waits_for_all_sessions_of_its_sidecar_and_then_for_other_sidecars() {
    let mut world = world();
    let (mut publisher, mut subscriber) = (world.session_on("n", 1), world.session_on("n", 2));
    world.lose(&mut publisher);
    world.lose(&mut subscriber);
    world.round_failed(&publisher);
    world.pass(Duration::from_secs(7));
    assert!(world.join(&mut publisher, "n"));
    assert_eq!(world.waits(&publisher), BACK_WAIT_MAX + SETTLE);
    world.pass(Duration::from_millis(300));
    assert!(world.join(&mut subscriber, "n"));
    assert!(publisher.info.take_command(SessionCommand::Release));
    assert_eq!(world.waits(&publisher), SETTLE);
    assert_eq!(world.waits(&subscriber), SETTLE);
    world.pass(SETTLE);
    assert_eq!(world.waits(&publisher), Duration::ZERO);
}

#[test]
fn s10_the_wait_for_a_session_that_never_comes_back_is_bounded() {
    let mut world = world();
    let (mut publisher, lost_for_good) = (session(1), session(2));
    world.round_failed(&publisher);
    world.round_failed(&lost_for_good);
    world.join(&mut publisher, "n");
    world.pass(BACK_WAIT_MAX + SETTLE);
    assert_eq!(world.waits(&publisher), Duration::ZERO);
}

#[test]
fn s10_sessions_do_not_wait_for_one_that_has_ended() {
    let world = world();
    let (mut publisher, other) = (session(1), session(2));
    world.round_failed(&publisher);
    world.round_failed(&other);
    world.join(&mut publisher, "n");
    world.end(&other, false, 3);
    assert_eq!(world.waits(&publisher), SETTLE);
}

#[test]
fn s10_after_the_loss_of_one_of_several_nodes_only_its_sessions_wait_and_only_briefly() {
    let mut world = world();
    let (mut one, mut two) = (world.session_on("a", 1), world.session_on("a", 2));
    let elsewhere = world.session_on("b", 3);
    world.lose(&mut one);
    let holds = world.join(&mut one, "b");
    assert!(holds, "the other session may not have noticed the loss yet");
    assert_eq!(world.waits(&one), GROUP_WAIT_MAX);
    world.pass(Duration::from_millis(2));
    world.lose(&mut two);
    assert_eq!(world.waits(&one), GROUP_WAIT_MAX - Duration::from_millis(2));
    world.join(&mut two, "b");
    assert!(one.info.take_command(SessionCommand::Release));
    assert_eq!(world.waits(&one), Duration::ZERO);
    assert!(!world.must_hold(&elsewhere));
}

#[test]
fn a_session_alone_on_its_node_does_not_wait_when_it_returns_to_it() {
    let world = world();
    let mut one = world.session_on("a", 1);
    for _ in 0..3 {
        world.lose(&mut one);
        assert!(!world.join(&mut one, "a"));
        world.release(&one);
    }
}

#[test]
fn a_planned_move_causes_no_wait() {
    let world = world();
    let (mut mover, mut stays) = (world.session_on("a", 1), world.session_on("a", 2));
    world.leave(&mut mover, false);
    assert!(!world.must_hold(&mover));
    world.lose(&mut stays);
    assert!(!world.must_hold(&stays), "no other session was on the node");
}

#[test]
fn an_outage_is_reported_once_at_its_beginning_and_once_at_its_end() {
    let mut world = world();
    let mut parties: Vec<Party> = (0..200).map(|id| world.session_on("n", id)).collect();
    for party in &mut parties {
        (party.in_doubt.dropped, party.in_doubt.resent) = (2, 1);
        world.lose(party);
    }
    assert_eq!(world.report(), None, "other nodes may be reachable");
    parties.iter().for_each(|party| world.round_failed(party));
    let sessions_waiting = parties.len();
    assert_eq!(world.report(), Some(OutageReport::Began { sessions_waiting }));
    parties.iter().for_each(|party| world.round_failed(party));
    assert_eq!(world.report(), None);
    world.pass(Duration::from_secs(45));
    parties[7].info.buffered_bytes.store(100, Relaxed);
    world.end(&parties[0], true, 5);
    assert_eq!(world.report(), Some(OutageReport::Expired { sessions: 1 }));
    for party in &mut parties[1..] {
        world.join(party, "n");
        world.release(party);
    }
    let ended = OutageReport::Ended {
        lasted: Duration::from_secs(45),
        sessions: 200,
        held_bytes: 100,
        resent: 200,
        lost: 405,
    };
    assert_eq!(world.report(), Some(ended));
    assert_eq!(world.report(), None);
}

#[test]
fn the_loss_of_one_node_of_several_is_no_outage() {
    let world = world();
    let (mut one, _elsewhere) = (world.session_on("a", 1), world.session_on("b", 2));
    world.lose(&mut one);
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
    let ended = world.report();
    assert!(matches!(ended, Some(OutageReport::Ended { sessions: 0, .. })));
}

#[test]
fn a_session_that_cannot_notice_the_loss_of_its_node_does_not_delay_an_outage() {
    let world = world();
    let (mut one, _stuck) = (world.session_on("n", 1), world.session_on("n", 2));
    world.lose(&mut one);
    world.round_failed(&one);
    assert_eq!(world.report(), None, "the node seems to serve another session");
    let (recovery, since) = (&world.recovery, Some(world.now));
    recovery.round_failed(&one.info, true, since, |_| true);
    assert!(matches!(world.report(), Some(OutageReport::Began { .. })));
}

#[test]
fn a_session_that_is_never_back_delays_neither_the_report_nor_the_next_outage() {
    let mut world = world();
    let (mut good, stuck) = (session(1), session(2));
    world.round_failed(&good);
    world.round_failed(&stuck);
    assert!(world.report().is_some());
    world.join(&mut good, "n");
    world.release(&good);
    assert_eq!(world.report(), None);
    world.pass(BACK_WAIT_MAX + SETTLE);
    assert!(matches!(world.report(), Some(OutageReport::Ended { .. })));
    world.lose(&mut good);
    world.round_failed(&good);
    assert!(matches!(world.report(), Some(OutageReport::Began { .. })));
    world.join(&mut good, "n");
    assert_eq!(world.waits(&good), SETTLE);
}

#[test]
fn sessions_that_lose_the_same_node_report_one_failure() {
    let mut world = world();
    let mut parties = [1, 2, 3].map(|id| world.session_on("n", id));
    let [one, two, three] = &mut parties;
    assert!(!world.lose(one), "the first report of the loss");
    world.join(one, "n");
    world.pass(Duration::from_secs(1));
    assert!(world.lose(two), "the same loss, noticed late");
    world.pass(SAME_LOSS);
    assert!(!world.lose(three), "long after the first loss: another loss");
    assert!(!world.lose(one), "another loss");
}

/// The other nodes failed before and were not tried again, so they may be back.
#[test]
fn there_is_no_outage_while_a_known_node_was_not_tried() {
    let mut world = world();
    let mut publisher = world.session_on("n", 1);
    world.lose(&mut publisher);
    let recovery = &world.recovery;
    recovery.round_failed(&publisher.info, true, None, |_| true);
    assert_eq!(world.report(), None);
    world.join(&mut publisher, "m");
    assert_eq!(world.waits(&publisher), Duration::ZERO);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.report(), None);
}

/// A frozen node accepts a connection and sends nothing until the handshake times out.
#[test]
fn an_outage_begins_after_half_a_second_without_a_proved_node() {
    let mut world = world();
    let mut publisher = world.session_on("n", 1);
    world.lose(&mut publisher);
    let since = world.now;
    world.pass(Duration::from_millis(400));
    world.recovery.none_proved(since, |_| true, world.now);
    assert_eq!(world.report(), None);
    world.pass(Duration::from_millis(100));
    world.recovery.none_proved(since, |_| true, world.now);
    assert!(world.must_hold(&publisher));
    // The outage ends before its beginning was reported. Both are still reported.
    world.pass(Duration::from_secs(1));
    world.join(&mut publisher, "n");
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
    let recovery = &world.recovery;
    recovery.round_failed(&newcomer.info, true, None, |_| true);
    let since = world.now;
    world.pass(Duration::from_secs(1));
    world.recovery.none_proved(since, |_| true, world.now);
    assert_eq!(world.report(), None);
}

#[test]
fn expired_sessions_are_reported_without_an_outage_too() {
    let world = world();
    let mut one = world.session_on("n", 1);
    world.lose(&mut one);
    world.end(&one, true, 0);
    let expired = OutageReport::Expired { sessions: 1 };
    assert_eq!(world.report(), Some(expired));
    assert_eq!(world.report(), None);
}
