//! Tests of the promises, byte by byte: a session between two scripted sockets.

pub(crate) mod bench;

use std::time::Duration;

pub(crate) use self::bench::node;
use self::bench::{Bench, QUIET, QUIET_SENT, policy};
use standin_wire::Info;

use super::{EndReason, LossOrigin, Session, SessionEvent};
use crate::cause::Cause;
use crate::policy::Policy;
use crate::settings::InDoubt;

#[test]
fn s2_a_frame_cut_by_the_nodes_death_is_sent_completely_to_the_next_node() {
    let frame = "PUB a 5\r\nhello\r\n";
    for cut in 0..frame.len() {
        let mut bench = Bench::connected(policy());
        bench.pipes.node_room = cut;
        bench.component(frame);
        bench.lose();
        bench.pipes.node_room = usize::MAX;
        bench.node_up();
        assert_eq!(bench.sent(), QUIET_SENT, "cut at {cut}");
        bench.node("PONG\r\n");
        assert_eq!(bench.sent(), frame, "cut at {cut}");
    }
}

#[test]
fn s4_an_unsub_that_was_held_is_part_of_the_replay() {
    for (held, replay) in [
        ("UNSUB 1 2\r\n", "SUB a 1\r\nUNSUB 1 2\r\nSUB b 2\r\nPING\r\n"),
        ("UNSUB 1\r\n", "SUB b 2\r\nPING\r\n"),
        ("UNSUB 1\r\nSUB c 1\r\nUNSUB 1 3\r\n", "SUB b 2\r\nPING\r\n"),
    ] {
        let mut bench = Bench::connected(policy());
        bench.component("SUB a 1\r\nSUB b 2\r\n");
        bench.lose();
        bench.component(held);
        bench.sent();
        bench.node_up();
        let sent = bench.sent();
        assert!(sent.ends_with(replay), "{held:?}: {sent:?}");
        bench.node("PONG\r\n");
        assert!(bench.sent().starts_with(held), "{held:?} is sent too");
    }
}

#[test]
fn s13_an_unsub_that_was_held_in_a_move_comes_before_go() {
    let info = Info {
        server_id: "N".to_owned(),
        moves: true,
        ..Info::default()
    };
    let mut bench = Bench::new(policy());
    bench.node_up_as(&info, false);
    bench.component("CONNECT {\"verbose\":false}\r\nSUB a q 1\r\n");
    bench.node("PONG\r\n");
    bench.session.leave();
    assert!(bench.session.can_move(&info));
    bench.session.begin_arrival();
    assert!(bench.session.arrival_lines(&bench::node("n:2"), &info).is_some());
    bench.component("UNSUB 1\r\n");
    bench.call(Session::arrived);
    bench.node("MOVE {\"step\":\"left\"}\r\n");
    assert!(bench.session.can_switch());
    bench.call(|session, now, _| session.switch(now));
    bench.sent();
    bench.seen();
    bench.node_up_as(&info, false);
    let sent = bench.sent();
    assert!(
        sent.starts_with("UNSUB 1\r\nMOVE {\"step\":\"go\"}\r\n"),
        "{sent}"
    );
    // Without a sidecar, a message that the node had sent before the UNSUB came would arrive too.
    bench.node("MSG a 1 1\r\nx\r\n");
    assert_eq!(bench.seen(), "MSG a 1 1\r\nx\r\n");
}

#[test]
fn s9_the_sidecar_sends_an_err_for_a_fault_for_which_every_node_would_close_the_connection() {
    for bytes in [
        "CONNECT {bad\r\n",
        "CONNECT []\r\n",
        "CONNECT {\"headers\":false}\r\nHPUB a 0 0\r\n\r\n",
    ] {
        let mut bench = Bench::unconnected(policy());
        bench.component(bytes);
        bench.node("PONG\r\nPONG\r\nPONG\r\n");
        bench.now += Duration::from_secs(2);
        bench.call(Session::tick_ending);
        let seen = bench.seen();
        assert!(seen.ends_with("-ERR 'Unknown Protocol Operation'\r\n"), "{bytes}");
        assert_eq!(
            bench.end(),
            Some(EndReason::ComponentProtocol("arguments")),
            "{bytes}"
        );
    }
}

#[test]
fn a_stop_in_an_outage_waits_for_a_node_that_takes_the_held_bytes() {
    let mut bench = Bench::connected(policy());
    bench.lose();
    bench.component("PUB a 1\r\nx\r\n");
    let timeout = Duration::from_secs(8);
    bench.call(|session, now, wires| session.shut_down(now, timeout, wires));
    assert!(bench.session.needs_dial() && bench.end().is_none());
    bench.node_up();
    bench.node("PONG\r\n");
    assert!(bench.sent().ends_with("PUB a 1\r\nx\r\n"));
    bench.call(Session::tick_ending);
    bench.node("PONG\r\n");
    bench.call(Session::tick_ending);
    assert_eq!(bench.end(), Some(EndReason::Shutdown));
}

#[test]
fn s10_a_long_outage_ends_the_session_without_an_err_and_publishes_that_no_node_has_are_counted() {
    for (in_doubt, in_log, held, abandoned) in [
        (
            InDoubt::Drop,
            "",
            "PUB a.b 1\r\nx\r\nSUB s 1\r\nPUB a.c 1\r\ny\r\nPUB c 1",
            "a=2",
        ),
        (InDoubt::Resend, "PUB a 1\r\nx\r\n", "PUB b 1\r\ny\r\n", "a=1 b=1"),
    ] {
        let mut bench = Bench::connected(Policy { in_doubt, ..policy() });
        bench.component(in_log);
        bench.lose();
        bench.component(held);
        bench.pass(policy().outage);
        assert_eq!(bench.seen(), "");
        let ended = bench.session.report().1.expect("over");
        assert_eq!(
            (ended.reason, ended.abandoned.to_string().as_str()),
            (EndReason::Outage, abandoned)
        );
        assert_eq!(ended.abandoned_bytes, in_log.len() + held.len());
    }
}

#[test]
fn s10_with_outage_secs_0_a_session_ends_when_every_known_node_was_dialled_without_success() {
    let impatient = Policy {
        outage: Duration::ZERO,
        ..policy()
    };
    let mut bench = Bench::connected(impatient.clone());
    bench.lose();
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.end(), None, "no node was dialled yet");
    bench.no_node(0, true);
    assert_eq!(bench.end(), None, "no node is known yet");
    bench.no_node(2, false);
    assert_eq!(
        bench.end(),
        None,
        "one of them failed before this session lost its node"
    );
    bench.no_node(2, true);
    assert_eq!(bench.end(), Some(EndReason::Outage));
    assert_eq!(bench.seen(), "");

    let mut bench = Bench::connected(impatient);
    bench.lose();
    bench.pass(policy().info_wait);
    bench.no_node(0, true);
    assert_eq!(bench.end(), Some(EndReason::Outage), "no node became known");
}

#[test]
fn s10_held_publishes_wait_for_their_release_and_for_the_answers_to_all_frames_before_them() {
    let mut bench = Bench::connected(policy());
    bench.component("SUB a 1\r\n");
    bench.sent();
    bench.lose();
    bench.component("SUB b 2\r\nPING\r\nPUB c 1\r\n1\r\nSUB d 3\r\nPUB c 1\r\n2\r\nPING\r\n");
    bench.events();
    bench.node_up_with(true);
    bench.sent();
    bench.node("PONG\r\n");
    assert_eq!(bench.sent(), "SUB b 2\r\nPING\r\n", "before the first publish");
    assert!(!bench.had_event(&SessionEvent::Back), "b is not answered yet");
    bench.component("PUB c 1\r\n3\r\n");
    bench.node("PONG\r\n");
    assert_eq!(bench.seen(), "PONG\r\n");
    assert!(bench.had_event(&SessionEvent::Back));
    assert_eq!((bench.sent().as_str(), bench.session.state()), ("", "settling"));
    bench.call(Session::release);
    assert_eq!(
        bench.sent(),
        "PUB c 1\r\n1\r\nSUB d 3\r\nPUB c 1\r\n2\r\nPING\r\nPUB c 1\r\n3\r\n"
    );
    bench.node("PONG\r\n");
    assert_eq!(bench.seen(), "PONG\r\n");
}

#[test]
fn s10_a_session_without_publishes_is_back_when_its_subscriptions_are_acked() {
    let mut bench = Bench::connected(policy());
    bench.lose();
    bench.component("SUB b 2\r\n");
    bench.events();
    bench.node_up_with(true);
    bench.node("PONG\r\n");
    assert!(
        bench.sent().ends_with("SUB b 2\r\nPING\r\n"),
        "with the sidecar's own PING"
    );
    assert!(!bench.had_event(&SessionEvent::Back));
    bench.node("PONG\r\n");
    assert!(bench.had_event(&SessionEvent::Back));
    assert_eq!(bench.seen(), "");
}

#[test]
fn s10_publishes_to_be_sent_again_are_held_as_well() {
    let mut bench = Bench::connected(Policy {
        in_doubt: InDoubt::Resend,
        ..policy()
    });
    bench.component("PUB a 1\r\n1\r\n");
    bench.lose();
    bench.component("PUB a 1\r\n2\r\n");
    bench.node_up_with(true);
    bench.sent();
    bench.events();
    bench.node("PONG\r\n");
    assert!(bench.had_event(&SessionEvent::Back));
    assert_eq!(bench.sent(), "");
    bench.call(Session::release);
    assert_eq!(bench.sent(), "PUB a 1\r\n1\r\nPUB a 1\r\n2\r\n");
}

#[test]
fn s11_a_second_connect_without_credentials_keeps_those_of_the_first() {
    for second in [
        b"CONNECT null\r\n".as_slice(),
        b"CONNECT {\"name\":\"caf\xe9\"}\r\n",
    ] {
        let mut bench = Bench::unconnected(policy());
        bench.component("CONNECT {\"verbose\":false,\"user\":\"u\",\"pass\":\"p\"}\r\n");
        bench.component_bytes(second);
        bench.node("PONG\r\nPONG\r\n");
        bench.lose();
        bench.node_up();
        let (replay, second) = (bench.sent(), second.escape_ascii());
        assert!(
            replay.contains("\"pass\":\"p\",") && replay.contains("\"user\":\"u\""),
            "{second}: {replay}"
        );
    }
}

#[test]
fn s9_the_last_refusal_of_accepted_credentials_reaches_the_component_and_is_counted_once() {
    let mut bench = Bench::connected(policy());
    bench.lose();
    bench.node_up();
    bench.node("-ERR 'Authorization Violation'\r\n");
    bench.events();
    bench.call(Session::refused_everywhere);
    assert_eq!(bench.seen(), "-ERR 'Authorization Violation'\r\n");
    assert_eq!(bench.end(), Some(EndReason::Unauthorized));
    assert!(EndReason::Unauthorized.error_kind().is_some());
    assert_eq!(bench.events(), [], "an event would be counted too");
}

/// The component has done nothing wrong, so it gets no `-ERR`, whether the node refuses at once or later, such as when a JWT expires.
#[test]
fn s9_a_refusal_of_credentials_that_the_sidecar_holds_makes_the_session_move() {
    for is_joined in [false, true] {
        let mut bench = Bench::connected_with_held_credentials(is_joined);
        bench.node("-ERR 'User Authentication Expired'\r\n");
        assert_eq!(bench.seen(), "");
        assert!(!bench.session.keeps_node() && bench.end().is_none());
        assert_eq!(bench.session.refused_by().len(), 1);
    }
}

#[test]
fn a_silent_node_is_sent_a_ping_and_then_left() {
    let mut bench = Bench::connected(policy());
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.sent(), "PING\r\n");
    bench.pass(Duration::from_millis(999));
    assert!(bench.session.keeps_node());
    bench.pass(Duration::from_millis(1));
    assert!(!bench.session.keeps_node());
    let (cause, ..) = bench.loss();
    assert_eq!(cause, Cause::ProbeTimeout);
}

#[test]
fn a_silent_node_is_left_in_time_although_publishes_add_pings() {
    let mut bench = Bench::connected(Policy {
        confirm_bytes: 1024,
        ..policy()
    });
    let publish = format!("PUB a 1024\r\n{}\r\n", "x".repeat(1024));
    for _ in 0..20 {
        assert!(bench.session.keeps_node());
        bench.component(&publish);
        bench.pass(Duration::from_millis(100));
    }
    assert!(!bench.session.keeps_node());
}

#[test]
fn a_sidecar_that_was_frozen_itself_sends_a_new_ping_before_it_leaves_a_node() {
    let mut bench = Bench::connected(policy());
    bench.pass(Duration::from_secs(1));
    bench.pass_late(Duration::from_secs(60), Duration::from_secs(59));
    assert!(bench.session.keeps_node());
    bench.pass(Duration::from_secs(2));
    assert!(!bench.session.keeps_node());
}

#[test]
fn a_draining_node_is_left_after_its_last_answer() {
    let mut bench = Bench::connected(policy());
    bench.component("SUB a 1\r\nPUB b 1\r\nx\r\n");
    bench.node("INFO {\"ldm\":true}\r\n");
    assert!(bench.session.needs_dial() && bench.session.keeps_node());
    bench.call(Session::next_ready);
    bench.component("PUB b 1\r\ny\r\n");
    assert_eq!(bench.sent(), "SUB a 1\r\nPUB b 1\r\nx\r\nPING\r\n");
    let state = |bench: &Bench| (bench.session.in_doubt(), bench.session.can_switch());
    assert_eq!(state(&bench), (1, false));
    bench.node("MSG a 1 0\r\n\r\nPONG\r\n");
    assert_eq!(state(&bench), (0, true));
    bench.session.switch(bench.now);
    let (_, _, in_doubt) = bench.loss();
    assert_eq!(in_doubt.dropped, 0);
    bench.node_up();
    bench.node("PONG\r\n");
    assert_eq!(
        bench.sent(),
        QUIET_SENT.replace("PING", "SUB a 1\r\nPING") + "PUB b 1\r\ny\r\n"
    );
    assert_eq!(bench.seen(), "MSG a 1 0\r\n\r\n");
}

#[test]
fn s6_the_err_for_a_refused_subscription_follows_the_answers_to_earlier_commands() {
    let mut bench = Bench::unconnected(Policy {
        subscriptions_max: 1,
        ..policy()
    });
    bench.component("CONNECT {\"verbose\":true}\r\nSUB a 1\r\nSUB b 2\r\nPUB x 0\r\n\r\n");
    assert!(!bench.sent().contains("SUB b"));
    assert_eq!(bench.seen(), "");
    bench.node("+OK\r\nPONG\r\n+OK\r\n");
    assert_eq!(
        bench.seen(),
        "+OK\r\n+OK\r\n-ERR 'maximum subscriptions exceeded'\r\n"
    );
    bench.lose();
    bench.node_up();
    bench.node("+OK\r\n+OK\r\nPONG\r\n");
    assert_eq!(bench.seen(), "+OK\r\n");
}

#[test]
fn s3_a_node_that_reads_a_large_publish_slowly_is_not_lost() {
    let policy = policy();
    let (interval, timeout) = (policy.probe_interval, policy.probe_timeout);
    let mut bench = Bench::connected(policy);
    let publish = format!("PUB a 100000\r\n{}\r\nPING\r\n", "x".repeat(100_000));
    bench.pipes.node_room = 0;
    bench.component(&publish);
    // Each step is shorter than the node's timeouts. All steps together are much longer.
    for _ in 0..20 {
        bench.pass((interval + timeout) * 3 / 4);
        bench.pipes.node_room = 5000;
        bench.call(Session::node_writable);
    }
    assert_eq!(bench.session.state(), "flowing");
    bench.pipes.node_room = usize::MAX;
    bench.call(Session::node_writable);
    let sent = bench.sent();
    assert_eq!(sent.matches("PUB a").count(), 1, "once");
    assert!(sent.contains(&publish[..publish.len() - 6]), "whole");

    // A node that takes no bytes is lost.
    bench.pipes.node_room = 0;
    bench.component(&publish);
    for _ in 0..4 {
        bench.pass(interval.max(timeout));
    }
    assert_eq!(bench.session.state(), "searching");
}

#[test]
fn a_dead_node_that_stopped_reading_within_a_frame_is_lost_although_a_publish_waits_for_its_ack() {
    let mut bench = Bench::connected(policy());
    bench.component("PUB a 1\r\nx\r\n");
    bench.pipes.node_room = 1000;
    bench.component(&format!("PUB a 100000\r\n{}\r\n", "x".repeat(100_000)));
    for _ in 0..200 {
        bench.pass(Duration::from_millis(20));
    }
    assert!(!bench.session.keeps_node());
}

#[test]
fn a_publish_waits_for_its_ack_while_the_component_does_not_read() {
    let mut bench = Bench::connected(policy());
    bench.component("SUB a 1\r\n");
    bench.pipes.component_room = 0;
    bench.node(&format!("MSG a 1 1000\r\n{}\r\n", "x".repeat(1000)).repeat(9000));
    bench.component("PUB a 1\r\nx\r\n");
    bench.pass(Duration::from_millis(20));
    // The silence of a node that was not read does not count.
    bench.pass(Duration::from_secs(5));
    bench.pipes.component_room = usize::MAX;
    bench.call(Session::component_writable);
    bench.pass(Duration::from_millis(20));
    assert_eq!(bench.sent(), "SUB a 1\r\nPUB a 1\r\nx\r\nPING\r\n");
    bench.pass(Duration::from_millis(900));
    assert!(bench.session.keeps_node());
}

#[test]
fn an_orderly_end_without_a_node_only_waits_for_its_deadline() {
    let mut bench = Bench::connected(policy());
    bench.lose();
    bench.component("PUB a 1\r\nx\r\n");
    let timeout = policy().outage + policy().ping_interval * 2;
    bench.call(|session, now, wires| session.shut_down(now, timeout, wires));
    assert_eq!(bench.session.deadline(), bench.now + timeout);
    bench.pass(timeout);
    assert_eq!(bench.end(), Some(EndReason::Shutdown));
}

/// Limit on the node's frames processed in one turn. The limits on the component's frames are multiples of it.
const FRAMES_PER_TURN_MAX: usize = 8192 + 1024;

#[test]
fn the_work_of_a_turn_is_bounded_for_any_input_of_the_component() {
    for frame in [
        "CONNECT {\"verbose\":false}\r\n",
        "UNSUB 7\r\n",
        "SUB a 1\r\n",
        "PING\r\n",
        "PONG\r\n",
        "PUB a 0\r\n\r\n",
    ] {
        let mut bench = Bench::connected(policy());
        let count = 256 * 1024 / frame.len();
        bench.component(&frame.repeat(count));
        let mut left = bench.session.buffered_bytes() / frame.len();
        let mut turns = 1;
        let done = count - left;
        assert!(done <= 8 * FRAMES_PER_TURN_MAX, "{frame}: {done} in one turn");
        while bench.session.is_interrupted() {
            bench.call(Session::begin_turn);
            bench.node("PONG\r\n");
            let before = left;
            left = bench.session.buffered_bytes() / frame.len();
            let done = before.saturating_sub(left);
            assert!(done <= 2 * FRAMES_PER_TURN_MAX, "{frame}: {done} in one turn");
            turns += 1;
        }
        let may_end = frame.starts_with("PUB");
        assert!(turns > 1 || may_end, "{frame} is done in one turn");
    }
}

#[test]
fn the_work_of_a_turn_is_bounded_for_any_input_of_the_node() {
    for frame in [
        "INFO {\"connect_urls\":[\"n:9\"]}\r\n",
        "PONG\r\n",
        "PING\r\n",
        "+OK\r\n",
        "-ERR 'Invalid Subject'\r\n",
    ] {
        let mut bench = Bench::connected(policy());
        let count = 256 * 1024 / frame.len();
        bench.node(&frame.repeat(count));
        let mut turns = 1;
        assert!(bench.session.is_interrupted(), "{frame} is done in one turn");
        while bench.session.is_interrupted() {
            let before = bench.session.buffered_bytes();
            bench.call(Session::begin_turn);
            let done = before.saturating_sub(bench.session.buffered_bytes()) / frame.len();
            assert!(done <= FRAMES_PER_TURN_MAX, "{frame}: {done} in one turn");
            turns += 1;
        }
        assert!(turns > 10, "{frame}: {turns} turns");
    }
}

#[test]
fn s10_a_component_that_closed_in_an_outage_is_kept_only_for_its_publishes() {
    for (held, is_kept) in [("SUB b 2\r\nPING\r\n", false), ("PUB a 1\r\nx\r\n", true)] {
        let mut bench = Bench::connected(policy());
        bench.lose();
        bench.component(held);
        bench.call(Session::component_eof);
        bench.pass(Duration::from_secs(1));
        assert_eq!(bench.end(), None, "a node may still be found: {held}");
        bench.pass(Duration::from_secs(1));
        assert_eq!(bench.end().is_none(), is_kept, "{held}");
    }
}

#[test]
fn s9_errors_of_the_component_are_not_failures_of_the_node() {
    for (text, origin) in [
        ("maximum control line exceeded", LossOrigin::Other),
        ("Authorization Violation", LossOrigin::Other),
        ("Server Shutdown", LossOrigin::Node),
    ] {
        let mut bench = Bench::new(policy());
        bench.node_up();
        bench.component(QUIET);
        bench.node(&format!("-ERR '{text}'\r\n"));
        bench.call(|session, now, wires| session.node_lost(Cause::EndOfStream, now, wires));
        let (_, found, _) = bench.loss();
        assert_eq!(found, origin, "{text}");
    }
}

#[test]
fn s10_only_a_component_that_has_sent_a_command_is_waited_for() {
    for (said, has_sent_command) in [
        ("", false),
        ("CONN", false),
        ("PONG\r\n", false),
        ("SUB a 1\r\n", true),
        (QUIET, true),
    ] {
        let mut bench = Bench::new(policy());
        bench.component(said);
        assert_eq!(bench.session.has_sent_command(), has_sent_command, "{said}");
    }
}

#[test]
fn only_a_control_line_is_held_for_a_component_that_has_sent_no_command() {
    for (said, reads_on) in [
        ("CONNECT {\"name\":\"", false),
        ("PUB a 5000\r\n", false),
        ("CONNECT {}\r\nPUB a 5000\r\n", true),
    ] {
        let mut bench = Bench::new(policy());
        bench.component(said);
        assert!(bench.session.requests().read_component, "{said}");
        bench.component(&"x".repeat(4200));
        assert_eq!(bench.session.requests().read_component, reads_on, "{said}");
        // A node decides about the frame.
        bench.node_up();
        let requests = bench.session.requests();
        assert!(
            requests.read_component || bench.end().is_some() || bench.session.is_ending(),
            "{said}"
        );
    }
}

#[test]
fn s9_the_time_of_a_tls_handshake_is_not_time_for_connect() {
    for is_handshaking in [true, false] {
        let mut bench = Bench::new(policy());
        bench.node_up();
        if is_handshaking {
            bench.session.set_handshaking(true);
        }
        bench.node("-ERR 'Authentication Timeout'\r\n");
        bench.call(|session, now, wires| session.node_lost(Cause::EndOfStream, now, wires));
        assert_eq!(bench.end().is_none(), is_handshaking);
    }
}

#[test]
fn a_probe_ends_with_the_event_that_the_node_is_alive() {
    let mut bench = Bench::connected(policy());
    bench.call(Session::probe);
    assert_eq!(bench.sent(), "PING\r\n");
    bench.node("PONG\r\n");
    assert!(bench.had_event(&SessionEvent::Alive));
    assert_eq!(bench.seen(), "");
}

/// A node that wants credentials would answer the PING with an `-ERR`, because the first command must be CONNECT.
#[test]
fn s9_a_probe_sends_nothing_before_connect() {
    let mut bench = Bench::new(policy());
    bench.node_up();
    bench.call(Session::probe);
    assert_eq!(bench.sent(), "");
}

/// Seen when a component took longer for its CONNECT than the node's `ping_interval`.
#[test]
fn s9_pings_of_a_node_that_wants_credentials_are_answered_from_connect_on() {
    for wants_credentials in [true, false] {
        let mut bench = Bench::new(policy());
        if wants_credentials {
            bench.node_with_login_up();
        } else {
            bench.node_up();
        }
        bench.node("PING\r\n");
        assert_eq!(bench.sent(), if wants_credentials { "" } else { "PONG\r\n" });
        bench.component("CONNECT {}\r\n");
        bench.sent();
        bench.node("PONG\r\nPING\r\n");
        assert_eq!(bench.sent(), "PONG\r\n");
    }
}

#[test]
fn a_node_gets_more_time_for_many_subscriptions() {
    let mut bench = Bench::connected(policy());
    for sid in 0..200_000 {
        bench.component(&format!("SUB s.{sid} {sid}\r\n"));
    }
    bench.lose();
    bench.node_up();
    bench.pass(policy().handshake_timeout + Duration::from_secs(3));
    assert_eq!(bench.session.state(), "joining");
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.session.state(), "searching");
}
