//! Simulation of a session under thousands of seeded random schedules. A component sends random commands. Nodes speak NATS
//! and die at any byte, or close only their sending side at any byte. The session moves from node to node by plan, and nodes die during
//! its moves. Sockets take any number of bytes. Time passes. At the
//! end the promises are checked against the bytes that the nodes and the component really got. A failing seed is printed;
//! `STANDIN_SEED=n` repeats it.

mod parties;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use standin_wire::{Info, Move, encode};

use self::parties::{SimComponent, SimNode, SimSub};
use super::tests::bench::{Bench, node, policy};
use super::{Session, SessionEvent};
use crate::cause::Cause;
use crate::doubt::InDoubtCount;
use crate::policy::Policy;
use crate::settings::InDoubt;

const SCHEDULES: u64 = 4_000;
const STEPS: usize = 400;

struct Simulation {
    rng: SmallRng,
    /// Decides when the next program goes on with the session. Another generator, so that all else is the same without.
    swaps: Option<SmallRng>,
    /// All that the component got, and that was written to nodes except MOVE, which has random numbers.
    trace: Vec<u8>,
    bench: Bench,
    node: Option<SimNode>,
    next: Option<Next>,
    /// The nodes know MOVE.
    knows_move: bool,
    planned_moves: u64,
    messages: u64,
    /// Numbers of the messages to each subject that must reach the component.
    due: BTreeMap<String, Vec<u64>>,
    /// Numbers of those that may reach it, because the node has died since.
    in_danger: BTreeMap<String, Vec<u64>>,
    component: SimComponent,
    /// Numbers of the publishes that the nodes have processed, in that order.
    processed: Vec<u64>,
    in_doubt: InDoubtCount,
    resent: u64,
    settling: bool,
    /// The session holds its publishes for the present node.
    holds: bool,
    /// The node has answered everything before the first held publish.
    is_back: bool,
}

/// The node to which the session moves.
struct Next {
    node: SimNode,
    progress: Progress,
}

/// What the next node has learned.
enum Progress {
    /// Without MOVE, if the last move is over: sids, subjects and numbers of the messages that were noted.
    Noting(Vec<(String, String, u64)>),
    Nothing,
    /// Without MOVE: the subscriptions in no queue group. Other nodes do not know of them yet. These lines follow.
    Copies(Vec<u8>),
    Everything,
}

#[test]
fn s1_to_s6_and_s12_hold_under_random_schedules() {
    let (schedules, moves) = for_each_seed(SCHEDULES, |seed| Simulation::new(seed).run());
    println!("{moves} planned moves in {schedules} schedules");
    assert!(
        schedules <= 1 || 5 * moves > schedules,
        "too few planned moves: {moves}"
    );
}

#[test]
fn s13_a_session_goes_on_in_another_process_at_any_step_and_nothing_differs() {
    let play = |mut simulation: Simulation, swaps: bool| {
        simulation.swaps = swaps.then(|| SmallRng::seed_from_u64(simulation.messages));
        simulation.take_steps(STEPS);
        simulation.settle();
        simulation.check();
        let Simulation { trace, processed, .. } = simulation;
        (String::from_utf8_lossy(&trace).into_owned(), processed)
    };
    for_each_seed(SCHEDULES / 4, |seed| {
        let [without, with] = [false, true].map(|swaps| play(Simulation::new(seed), swaps));
        assert_eq!(without, with);
        0
    });
}

/// After a shutdown, the timer alone ends the session, although neither the component nor the node does anything.
/// [`Bench::pass`] checks that the timer does not fire again at once.
#[test]
fn a_session_that_is_shut_down_ends_at_its_deadlines() {
    for_each_seed(SCHEDULES / 8, |seed| Simulation::new(seed).stop());
}

/// Runs the schedules. Returns their number, and the number of planned moves in them.
fn for_each_seed(schedules: u64, simulate: impl Fn(u64) -> u64 + std::panic::RefUnwindSafe) -> (u64, u64) {
    let mut moves = 0;
    let seeds = match std::env::var("STANDIN_SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().expect("STANDIN_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..schedules,
    };
    let count = seeds.end - seeds.start;
    for seed in seeds {
        match std::panic::catch_unwind(|| simulate(seed)) {
            Ok(more) => moves += more,
            Err(_) => panic!("seed {seed} fails; replay it with STANDIN_SEED={seed}"),
        }
    }
    (count, moves)
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let in_doubt = if rng.random() {
            InDoubt::Drop
        } else {
            InDoubt::Resend
        };
        let policy = Policy {
            in_doubt,
            confirm_bytes: rng.random_range(1..400),
            in_doubt_bytes_max: rng.random_range(50..2000),
            buffer_bytes: rng.random_range(64..4096),
            component_pending_bytes_max: rng.random_range(100..4096),
            ..policy()
        };
        let mut bench = Bench::new(policy);
        (bench.pipes.node_room, bench.pipes.component_room) = (0, 0);
        let verbose = rng.random();
        let knows_move = rng.random();
        let mut simulation = Self {
            rng,
            swaps: None,
            trace: Vec::new(),
            knows_move,
            messages: 0,
            due: BTreeMap::new(),
            in_danger: BTreeMap::new(),
            bench,
            node: None,
            next: None,
            planned_moves: 0,
            component: SimComponent {
                verbose,
                ..SimComponent::default()
            },
            processed: Vec::new(),
            in_doubt: InDoubtCount::default(),
            resent: 0,
            settling: false,
            holds: false,
            is_back: false,
        };
        simulation.command(&format!("CONNECT {{\"verbose\":{verbose},\"headers\":true}}\r\n"));
        simulation
    }

    /// Returns the INFO of the nodes.
    fn info(&self) -> Info {
        Info {
            server_id: "N".to_owned(),
            moves: self.knows_move,
            ..Info::default()
        }
    }

    fn run(mut self) -> u64 {
        self.take_steps(STEPS);
        self.settle();
        self.check();
        self.planned_moves
    }

    /// Shuts the session down after some steps. Then only time passes.
    fn stop(mut self) -> u64 {
        let steps = self.rng.random_range(0..STEPS);
        self.take_steps(steps);
        let timeout = Duration::from_millis(self.rng.random_range(0..60_000));
        self.bench
            .call(|session, now, wires| session.shut_down(now, timeout, wires));
        let end = self.bench.now + timeout + self.bench.session.policy.component_stall;
        while self.bench.end().is_none() {
            let due = self.bench.session.deadline();
            self.bench.pass(due.saturating_duration_since(self.bench.now));
        }
        assert!(self.bench.now <= end, "the session ended late");
        self.planned_moves
    }

    fn take_steps(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.rng.random_range(0..18) {
                0 | 1 => self.component_speaks(),
                2 | 3 => self.component_writes(),
                4 => self.node_socket_drains(),
                5 | 6 => self.node_processes(),
                7 | 8 => self.node_writes(),
                9 => self.component_reads(),
                10 => self.pass_time(),
                11 => self.release(),
                12..17 => self.move_on(),
                _ => self.change_node(),
            }
            self.process_output();
        }
    }

    /// Lets everything flow until nothing changes any more.
    fn settle(&mut self) {
        self.settling = true;
        let awaited = self.component.awaits.len();
        self.command("PING\r\n");
        for _ in 0..2_000 {
            if self.node.as_ref().is_some_and(|node| node.is_half_closed) {
                self.end_of_stream();
                self.process_output();
            }
            if self.node.is_none() {
                self.node_connects();
            }
            self.bench.pipes.node_room = usize::MAX;
            self.bench.pipes.component_room = usize::MAX;
            self.bench.call(Session::node_writable);
            self.bench.call(Session::component_writable);
            self.component_writes();
            self.node_processes();
            self.node_writes();
            if self.next.is_some() {
                self.move_on();
            }
            self.process_output();
            self.release();
            let is_component_done = self.component.unsent.is_empty() && self.component.awaits.is_empty();
            let node = self.node.as_ref();
            let is_node_done =
                node.is_some_and(|node| node.says.is_empty() && node.got.is_empty() && node.late.is_empty());
            let is_still = self.next.is_none();
            if is_component_done && is_node_done && is_still && self.bench.session.buffered_bytes() == 0 {
                return;
            }
            self.bench.pass(Duration::from_millis(20));
        }
        let missing = self.component.awaits.len();
        panic!(
            "the session did not settle; {missing} answers missing, {awaited} awaited before the last PING"
        );
    }

    fn check(&self) {
        match self.bench.session.policy.in_doubt {
            InDoubt::Drop => {
                let increases = self.processed.windows(2).all(|pair| pair[0] < pair[1]);
                assert!(increases, "a publish was sent twice, or order was lost");
                let missing = self.component.publishes - self.processed.len() as u64;
                let in_doubt = self.in_doubt.dropped;
                assert!(missing <= in_doubt, "{missing} missing, {in_doubt} in doubt");
                assert_eq!(self.in_doubt.resent, 0);
            }
            InDoubt::Resend => {
                // The number of the first publish that was not processed yet.
                let mut next = 0;
                for number in &self.processed {
                    assert!(*number <= next, "order was lost");
                    next = next.max(number + 1);
                }
                assert_eq!(next, self.component.publishes, "a publish was lost");
                assert_eq!(self.in_doubt.dropped, 0);
                let sends_again = self.resent > 0 || self.in_doubt.resent == 0;
                assert!(sends_again, "in doubt, but not sent again");
            }
        }
        let node = self.node.as_ref().expect("settled with a node");
        let subs = &self.component.subs;
        let live = subs.iter().filter(|(_, sub)| sub.lives()).map(|(sid, _)| sid);
        assert!(node.subs.keys().eq(live), "subscriptions differ");
        for (sid, sub) in &node.subs {
            let left = |sub: &SimSub| sub.max.map(|max| max - sub.count);
            assert_eq!(sub.subject, subs[sid].subject, "{sid} is another subscription");
            if node.open_ended.contains(sid) {
                assert!(sub.max.is_none_or(|max| max > 1_000_000), "{sid} ends early");
            } else {
                assert_eq!(left(sub), left(&subs[sid]), "remaining max of {sid}");
            }
        }
        for (subject, received) in &self.component.received {
            let numbers: BTreeSet<u64> = received.iter().copied().collect();
            assert_eq!(numbers.len(), received.len(), "{subject}: a message came twice");
        }
        // A subscription with a max ends at a message that the test does not know.
        for (sid, sub) in subs
            .iter()
            .filter(|(_, sub)| sub.max.is_none() && !self.knows_move)
        {
            let of = |messages: &BTreeMap<String, Vec<u64>>| messages.get(&sub.subject).cloned();
            let (due, received) = (of(&self.due).unwrap_or_default(), of(&self.component.received));
            let in_danger = of(&self.in_danger).unwrap_or_default();
            let mut received = received.unwrap_or_default();
            // During a move, two nodes have messages for a group, and none has all.
            let is_ordered = received.is_sorted() || node.shared.contains(sid);
            assert!(is_ordered, "{}: order was lost: {received:?}", sub.subject);
            received.sort_unstable();
            received.retain(|number| !in_danger.contains(number));
            assert_eq!(received, due, "{}", sub.subject);
        }
        assert_eq!(
            self.component.infos, 1,
            "a component without protocol 1 gets exactly one INFO"
        );
    }

    /// Adds a random command of the component.
    fn component_speaks(&mut self) {
        let sid = self.rng.random_range(0..=self.component.sids).to_string();
        match self.rng.random_range(0..10) {
            0..5 => {
                let number = self.component.publishes;
                self.component.publishes += 1;
                let padding = "x".repeat(self.rng.random_range(0..60));
                let payload = format!("{number} {padding}");
                let line = if self.rng.random() {
                    format!("PUB p {}\r\n{payload}\r\n", payload.len())
                } else {
                    let total = 18 + payload.len();
                    format!("HPUB p r 18 {total}\r\nNATS/1.0\r\na: b\r\n\r\n{payload}\r\n")
                };
                self.command(&line);
            }
            5 | 6 => {
                let over = |sid: &String| self.component.subs.get(sid).is_none_or(|sub| !sub.lives());
                if sid != "0" && over(&sid) {
                    self.component_subscribes(sid);
                } else {
                    self.component.sids += 1;
                    self.component_subscribes(self.component.sids.to_string());
                }
            }
            7 => {
                self.component.subs.remove(&sid);
                self.command(&format!("unsub {sid}\r\n"));
                if self.rng.random() {
                    self.component_subscribes(sid);
                }
            }
            8 => self.component_sets_max(&sid),
            _ => self.command("PING\r\n"),
        }
    }

    fn component_subscribes(&mut self, sid: String) {
        let subject = format!("s.{}", self.component.subscribed);
        self.component.subscribed += 1;
        let queue = if self.rng.random() { " q" } else { "" };
        self.command(&format!("SUB {subject}{queue} {sid}\r\n"));
        self.component.subs.insert(sid, SimSub::new(subject));
    }

    fn component_sets_max(&mut self, sid: &str) {
        let asked = self.rng.random_range(1..20);
        if let Some(sub) = self.component.subs.get_mut(sid)
            && sub.max.is_none()
        {
            sub.max = Some(asked);
            self.command(&format!("UNSUB {sid}\t{asked}\r\n"));
        }
    }

    fn command(&mut self, line: &str) {
        self.component.unsent.extend(line.as_bytes());
        match line {
            "PING\r\n" => self.component.awaits.push_back("PONG"),
            _ if self.component.verbose => self.component.awaits.push_back("+OK"),
            _ => {}
        }
    }

    /// Passes some of the component's bytes to the session. In some cases, held bytes come first (see [`Session::lend_held`]).
    fn component_writes(&mut self) {
        let len = self.rng.random_range(0..=self.component.unsent.len().min(200));
        if len == 0 || !self.bench.session.requests().read_component {
            return;
        }
        let mut buffer = self.buffer(Session::lend_held);
        buffer.extend(self.component.unsent.drain(..len));
        self.bench.component_bytes(&buffer);
    }

    /// Returns a buffer for a read, as the shell prepares it. In some cases it begins with bytes that `lend` moves out of the session.
    fn buffer(&mut self, lend: fn(&mut Session, &mut [u8]) -> usize) -> Vec<u8> {
        let mut buffer = vec![0; 4096];
        let lends: bool = self.rng.random();
        let lent = if lends {
            lend(&mut self.bench.session, &mut buffer)
        } else {
            0
        };
        buffer.truncate(lent);
        buffer
    }

    fn node_socket_drains(&mut self) {
        self.bench.pipes.node_room += self.rng.random_range(0..150);
        if self.bench.session.requests().write_node {
            self.bench.call(Session::node_writable);
        }
    }

    fn component_reads(&mut self) {
        self.bench.pipes.component_room += self.rng.random_range(0..150);
        if self.bench.session.requests().write_component {
            self.bench.call(Session::component_writable);
        }
    }

    /// Lets the node process some of its received frames, and maybe send frames of its own.
    fn node_processes(&mut self) {
        let frames = self.rng.random_range(0..20);
        self.node_takes(frames);
        self.others_publish();
        let Some(node) = self.node.as_mut().filter(|node| !node.is_half_closed) else {
            return;
        };
        let mut step = |step: Move| {
            let mut line = Vec::new();
            step.encode(&mut line);
            node.says.extend(&line);
        };
        if self.settling || self.rng.random_range(0..4) == 0 {
            if std::mem::take(&mut node.leaves) {
                node.has_left = true;
                step(Move::Left);
            } else if std::mem::take(&mut node.settles) {
                step(Move::Settled);
            }
        }
        if node.has_left {
            return;
        }
        if self.rng.random_range(0..30) == 0 {
            node.says.extend(encode::PING);
        }
        if self.rng.random_range(0..60) == 0 {
            node.says.extend(b"INFO {\"connect_urls\":[\"n:9\"]}\r\n");
        }
    }

    /// Sends messages to subscriptions. Without MOVE, one to a subscription in no queue group reaches both nodes, if the cluster knows that
    /// the next one has the subscription.
    fn others_publish(&mut self) {
        let Some(node) = self
            .node
            .as_mut()
            .filter(|node| !node.is_half_closed && !node.has_left)
        else {
            return;
        };
        let mut next = self.next.as_mut().filter(|_| !self.knows_move);
        let sids: Vec<String> = node.subs.keys().cloned().collect();
        for sid in sids.iter().filter(|_| !self.settling) {
            if self.rng.random_range(0..6) != 0 {
                continue;
            }
            let (number, subject) = (self.messages, node.subs[sid].subject.clone());
            self.messages += 1;
            self.due.entry(subject.clone()).or_default().push(number);
            let is_shared = node.shared.contains(sid);
            let next = next.as_mut().map(|next| (&mut next.node, &mut next.progress));
            let next = next.filter(|(next, progress)| {
                matches!(progress, Progress::Noting(_)) || next.subs.contains_key(sid)
            });
            let later = self.rng.random_range(0..3) == 0;
            match next {
                Some((_, Progress::Noting(noted))) => {
                    noted.push((sid.clone(), subject, number));
                    node.deliver(sid, number, false);
                }
                Some((next, _)) if is_shared && self.rng.random() => next.deliver(sid, number, false),
                Some((next, progress)) if !is_shared => {
                    let is_known = matches!(progress, Progress::Everything) || self.rng.random();
                    if is_known {
                        next.deliver(sid, number, self.rng.random());
                    }
                    node.deliver(sid, number, later && matches!(progress, Progress::Everything));
                }
                _ => node.deliver(sid, number, false),
            }
        }
        if self.rng.random() {
            node.catch_up();
        }
    }

    /// Lets the node process at most this number of its received frames.
    fn node_takes(&mut self, frames: usize) {
        let Some(node) = &mut self.node else { return };
        node.got.extend(self.bench.pipes.node.drain(..));
        for _ in 0..frames {
            match node.process() {
                Some(Some(number)) => {
                    assert!(!self.holds, "a publish passed before its release");
                    self.processed.push(number);
                }
                Some(None) => {}
                None => break,
            }
        }
        if node.is_half_closed {
            node.says.clear();
        }
    }

    fn node_writes(&mut self) {
        let Some(node) = &mut self.node else { return };
        let len = self.rng.random_range(0..=node.says.len().min(120));
        if len == 0 || !self.bench.session.requests().read_node {
            return;
        }
        let bytes: Vec<u8> = node.says.drain(..len).collect();
        let mut buffer = self.buffer(Session::lend_partial);
        buffer.extend(bytes);
        self.bench.node_bytes(&buffer);
    }

    fn pass_time(&mut self) {
        // Nothing is on its way for long.
        let next = self.next.as_mut().map(|next| &mut next.node);
        self.node.iter_mut().chain(next).for_each(SimNode::catch_up);
        let time = Duration::from_millis(self.rng.random_range(0..300));
        self.bench.pass(time);
    }

    /// Releases the held publishes if the node has answered everything before them.
    fn release(&mut self) {
        if std::mem::take(&mut self.is_back) {
            self.holds = false;
            self.bench.call(Session::release);
        }
    }

    /// Takes a step of a planned move, or begins one.
    fn move_on(&mut self) {
        let info = self.info();
        let session = &mut self.bench.session;
        let Some(next) = &mut self.next else {
            session.leave();
            if session.can_move(&info) {
                session.begin_arrival();
                let node = SimNode {
                    verbose: true,
                    ..SimNode::default()
                };
                let progress = if self.knows_move {
                    Progress::Nothing
                } else {
                    Progress::Noting(Vec::new())
                };
                self.next = Some(Next { node, progress });
            }
            return;
        };
        if !session.expects_next() {
            self.next = None;
            return;
        }
        let learn = |node: &mut SimNode, lines: Vec<u8>| {
            let says = std::mem::take(&mut node.says);
            node.got.extend(lines);
            while node.process().is_some() {}
            node.says = says;
        };
        let fails = !next.node.is_ready && self.rng.random_range(0..8) == 0;
        match &mut next.progress {
            Progress::Noting(_) if fails && self.rng.random_range(0..5) == 0 => {
                self.next = None;
                self.bench.call(Session::arrival_failed);
            }
            Progress::Noting(noted) => {
                if session.begin_notes() {
                    // The present node's earlier messages are not noted.
                    noted.clear();
                } else if (self.settling || !noted.is_empty())
                    && let Some(lines) = session.arrival_lines(&node("n:2"), &info)
                {
                    learn(&mut next.node, lines.first);
                    // The last messages reach the next node late.
                    let late = noted.split_off(self.rng.random_range(0..=noted.len()));
                    for (sid, subject, number) in late {
                        // The sid may be that of another subscription by now.
                        let learned = next.node.subs.get(&sid);
                        if learned.is_some_and(|sub| sub.subject == subject) {
                            next.node.deliver(&sid, number, false);
                        }
                    }
                    next.progress = Progress::Copies(lines.then.expect("queue groups come later"));
                }
            }
            Progress::Nothing => {
                if let Some(lines) = session.arrival_lines(&node("n:2"), &info) {
                    learn(&mut next.node, lines.first);
                    next.progress = lines.then.map_or(Progress::Everything, Progress::Copies);
                }
            }
            _ if fails => {
                self.next = None;
                self.bench.call(Session::arrival_failed);
            }
            Progress::Copies(lines) => {
                learn(&mut next.node, std::mem::take(lines));
                next.node.open_ended = next.node.subs.keys().cloned().collect();
                next.progress = Progress::Everything;
            }
            Progress::Everything if !next.node.is_ready => {
                next.node.is_ready = true;
                self.bench.call(Session::arrived);
            }
            Progress::Everything if self.knows_move && !self.settling => {
                // The next node delivers what comes after the cut. The session does not read it yet.
                let sids: Vec<String> = next.node.subs.keys().cloned().collect();
                for sid in sids {
                    if self.rng.random_range(0..6) == 0 {
                        next.node.deliver(&sid, self.messages, false);
                        self.messages += 1;
                    }
                }
            }
            Progress::Everything => {}
        }
    }

    /// Kills the node, or closes its sending side, or connects another node.
    fn change_node(&mut self) {
        let chance = self.rng.random_range(0..6);
        match &mut self.node {
            Some(node) if node.is_half_closed => self.end_of_stream(),
            Some(_) if chance < 2 => self.bench.lose(),
            Some(node) if chance == 2 => {
                node.is_half_closed = true;
                node.says.clear();
            }
            Some(_) => {}
            None => self.node_connects(),
        }
    }

    /// Lets a half-closed node process everything sent to it, and then lets the session read the end of the node's stream.
    fn end_of_stream(&mut self) {
        self.node_takes(usize::MAX);
        let end = Cause::EndOfStream;
        self.bench
            .call(|session, now, wires| session.node_lost(end, now, wires));
    }

    fn node_connects(&mut self) {
        self.bench.pipes.node.clear();
        self.node = Some(SimNode {
            verbose: true,
            ..SimNode::default()
        });
        self.holds = self.rng.random();
        self.bench.node_up_as(&self.info(), self.holds);
    }

    /// Processes the session's events and the bytes that the component got.
    fn process_output(&mut self) {
        self.bench.call(Session::begin_turn);
        let (events, ended) = self.bench.session.report();
        assert_eq!(ended, None);
        for event in events {
            match event {
                SessionEvent::Back => self.is_back = true,
                SessionEvent::Lost {
                    in_doubt, subjects, ..
                } => {
                    assert_eq!(
                        subjects.total(),
                        in_doubt.dropped,
                        "each dropped publish is counted by its subject"
                    );
                    self.is_back = false;
                    self.holds = false;
                    self.in_doubt += in_doubt;
                    for (subject, numbers) in std::mem::take(&mut self.due) {
                        self.in_danger.entry(subject).or_default().extend(numbers);
                    }
                }
                SessionEvent::Resent(count) => self.resent += count,
                _ => {}
            }
        }
        if self.bench.session.can_switch() {
            self.bench.call(|session, now, _| session.switch(now));
            let (events, _) = self.bench.session.report();
            let in_doubt = events.iter().find_map(|event| match event {
                SessionEvent::Lost { in_doubt, .. } => Some(*in_doubt),
                _ => None,
            });
            assert_eq!(
                in_doubt,
                Some(InDoubtCount::default()),
                "the node had processed everything"
            );
            self.planned_moves += 1;
        }
        if !self.bench.session.keeps_node() {
            let next = self.next.take().filter(|_| self.bench.session.expects_next());
            self.bench.pipes.node.clear();
            self.node = next.map(|next| next.node);
            if self.node.is_some() {
                self.holds = false;
                self.bench.node_up_as(&self.info(), false);
            }
        }
        self.trace.extend_from_slice(&self.bench.pipes.component);
        self.component.got.append(&mut self.bench.pipes.component);
        self.component.read();
        if let Some(swaps) = &mut self.swaps
            && swaps.random_range(0..4) == 0
        {
            self.bench.swap();
        }
    }
}
