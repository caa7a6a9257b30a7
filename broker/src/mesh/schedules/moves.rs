//! Planned moves of sessions between simulated nodes (promise S13), while sessions publish, routes have delays of their own, and workers
//! stop in the middle of a flush. The sidecars are replaced by the simplest code that keeps to the steps of
//! [`standin_wire::moves`]. Each message must reach each subscription once, one member of each queue group once, and in the order in
//! which its publisher has sent it, also when a node without clients is restarted in an orderly way.
//!
//! With faults (routes cut, nodes restarted) messages may be lost or come out of order, but none comes twice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use standin_wire::limits::FrameLimits;
use standin_wire::server::{self, Frame};
use standin_wire::{Move, MoveId};

use super::PING_INTERVAL_MS;
use super::world::World;
use crate::seeds;

/// Number of schedules without and with faults.
const QUIET: u64 = 2000;
const FAULTY: u64 = 1000;
const SUBJECTS: [&str; 3] = ["s.a", "s.b", "s.b.c"];
const PATTERNS: [&str; 5] = ["s.a", "s.b", "s.*", "s.>", ">"];

/// A connection of a session to a node.
#[derive(Debug, Clone)]
struct At {
    node: usize,
    run: String,
    client: u64,
}

/// Progress of a move.
#[derive(Debug)]
enum Phase {
    Still,
    /// The next node does not know yet whether all nodes know the subscriptions.
    Arriving(At, MoveId),
    Leaving(At),
    /// As `Leaving`, but publishes are sent to the old node, which must be told again.
    Overdue(At),
    /// On the next node, which has not settled the session yet.
    Settling,
}

#[derive(Debug)]
struct Session {
    number: usize,
    at: At,
    phase: Phase,
    /// Pattern and queue group, by sid.
    subscriptions: Vec<(&'static str, Option<&'static str>)>,
    published: u64,
    /// Bytes held during a move.
    held: VecDeque<Vec<u8>>,
    /// Bytes of each connection that were not parsed.
    unread: BTreeMap<(usize, u64), Vec<u8>>,
    /// Publisher and number of each message, by sid.
    received: BTreeMap<usize, Vec<(usize, u64)>>,
    moves: u64,
    /// Moves in which the old node was told twice.
    overdue: u64,
}

struct Cluster {
    world: World,
    sessions: Vec<Session>,
    /// Publisher, number, and subject of each message.
    published: Vec<(usize, u64, &'static str)>,
    next_move: u128,
}

fn line(step: &Move) -> Vec<u8> {
    let mut line = Vec::new();
    step.encode(&mut line);
    line
}

impl Cluster {
    fn new(seed: u64, rng: &mut StdRng) -> Self {
        let count = rng.random_range(2..5);
        let mut world = World::new(count, seed, PING_INTERVAL_MS, rng);
        if rng.random() {
            let [one, other] = [rng.random_range(0..count), rng.random_range(0..count)];
            world
                .slow_routes
                .insert([one.min(other), one.max(other)], rng.random_range(20..200));
        }
        let is_whole = (0..2000).any(|_| {
            world.step(rng);
            world.is_quiet() && world.is_whole()
        });
        assert!(is_whole, "{}", world.picture());
        let mut cluster = Self {
            world,
            sessions: Vec::new(),
            published: Vec::new(),
            next_move: 1,
        };
        for number in 0..rng.random_range(2..7) {
            let subscriptions = (0..rng.random_range(0..4)).map(|_| {
                let queue = [None, None, Some("q"), Some("r")][rng.random_range(0..4)];
                (PATTERNS[rng.random_range(0..PATTERNS.len())], queue)
            });
            let subscriptions = subscriptions.collect();
            let session = Session {
                number,
                at: cluster.connect(rng.random_range(0..count)),
                phase: Phase::Still,
                subscriptions,
                published: 0,
                held: VecDeque::new(),
                unread: BTreeMap::new(),
                received: BTreeMap::new(),
                moves: 0,
                overdue: 0,
            };
            let lines = session.subscribe();
            cluster.send(&session.at, lines.as_bytes());
            cluster.sessions.push(session);
        }
        // Every node knows the subscriptions, and the sizes of the groups.
        (0..150).for_each(|_| cluster.step(rng));
        cluster
    }

    fn connect(&mut self, node: usize) -> At {
        let client = self.world.nodes[node].connect();
        let run = self.world.nodes[node].own.run.clone();
        let at = At { node, run, client };
        self.send(&at, b"CONNECT {\"verbose\":false}\r\n");
        at
    }

    fn is_alive(&self, at: &At) -> bool {
        self.world.nodes[at.node].own.run == at.run
    }

    fn send(&mut self, at: &At, bytes: &[u8]) {
        if self.is_alive(at) {
            self.world.nodes[at.node].receive_from_client(at.client, bytes);
        }
    }

    fn disconnect(&mut self, at: &At) {
        if self.is_alive(at) {
            self.world.nodes[at.node].disconnect(at.client);
        }
    }

    fn step(&mut self, rng: &mut StdRng) {
        self.world.step(rng);
        for node in 0..self.world.nodes.len() {
            let wire = std::mem::take(&mut *self.world.nodes[node].clients_wire.lock().expect("the wire"));
            for (client, bytes) in wire {
                for session in &mut self.sessions {
                    if let Some(unread) = session.unread.get_mut(&(node, client)) {
                        unread.extend_from_slice(&bytes);
                    } else if (session.at.node, session.at.client) == (node, client) {
                        session.unread.insert((node, client), bytes.clone());
                    } else if let Phase::Arriving(next, _) | Phase::Leaving(next) | Phase::Overdue(next) =
                        &session.phase
                        && (next.node, next.client) == (node, client)
                    {
                        session.unread.insert((node, client), bytes.clone());
                    }
                }
            }
        }
        for number in 0..self.sessions.len() {
            self.advance(number);
        }
    }

    /// Reads what the session's nodes have sent, and takes the next steps of its move.
    fn advance(&mut self, number: usize) {
        let mut sessions = std::mem::take(&mut self.sessions);
        let session = &mut sessions[number];
        if !self.is_alive(&session.at) {
            self.recover(session);
        }
        if let Phase::Arriving(next, id) = &session.phase {
            let (next, id) = (next.clone(), *id);
            let steps = session.read(&next, false);
            if steps.contains(&Move::Ready) {
                let to = next.run.clone();
                self.send(&session.at, &line(&Move::Leave { id, to }));
                session.phase = Phase::Leaving(next);
            } else if !self.is_alive(&next) || steps.iter().any(|step| matches!(step, Move::Refused { .. })) {
                self.stay(session, &next);
            }
        }
        let at = session.at.clone();
        let steps = session.read(&at, true);
        if steps.contains(&Move::Left) {
            if let Phase::Overdue(next) = &session.phase {
                let (id, to, next) = (self.new_id(), next.run.clone(), next.clone());
                self.send(&session.at, &line(&Move::Leave { id, to }));
                session.phase = Phase::Leaving(next);
                session.overdue += 1;
            } else {
                self.go(session);
            }
        }
        if steps.contains(&Move::Settled) {
            session.phase = Phase::Still;
        }
        if let Some(Move::Refused { .. }) = steps.iter().find(|step| matches!(step, Move::Refused { .. }))
            && let Phase::Leaving(next) | Phase::Overdue(next) = &session.phase
        {
            let next = next.clone();
            self.stay(session, &next);
        }
        self.sessions = sessions;
    }

    /// Continues on the next node.
    fn go(&mut self, session: &mut Session) {
        let Phase::Leaving(next) = std::mem::replace(&mut session.phase, Phase::Settling) else {
            panic!("no next node")
        };
        self.disconnect(&session.at);
        session.unread.remove(&(session.at.node, session.at.client));
        session.at = next;
        session.moves += 1;
        self.send(&session.at, &line(&Move::Go));
        self.send_held(session);
    }

    /// Stays on the present node.
    fn stay(&mut self, session: &mut Session, next: &At) {
        self.disconnect(next);
        session.unread.remove(&(next.node, next.client));
        session.phase = Phase::Still;
        self.send_held(session);
    }

    fn new_id(&mut self) -> MoveId {
        self.next_move += 1;
        MoveId(self.next_move)
    }

    /// Lets a session that waits for `left` publish on its old node again.
    fn wait_no_longer(&mut self, rng: &mut StdRng) {
        let number = rng.random_range(0..self.sessions.len());
        let mut sessions = std::mem::take(&mut self.sessions);
        let session = &mut sessions[number];
        if let Phase::Leaving(next) = &session.phase
            && session.overdue <= session.moves
        {
            session.phase = Phase::Overdue(next.clone());
            self.send_held(session);
        }
        self.sessions = sessions;
    }

    fn send_held(&mut self, session: &mut Session) {
        while let Some(bytes) = session.held.pop_front() {
            self.send(&session.at, &bytes);
        }
    }

    /// Continues after the death of the session's node: on the node to which it was about to move, or on any other.
    fn recover(&mut self, session: &mut Session) {
        match std::mem::replace(&mut session.phase, Phase::Still) {
            Phase::Leaving(next) | Phase::Overdue(next) if self.is_alive(&next) => {
                session.phase = Phase::Leaving(next);
                self.go(session);
            }
            Phase::Arriving(next, _) | Phase::Leaving(next) | Phase::Overdue(next) => {
                self.reconnect(session, Some(&next))
            }
            Phase::Still | Phase::Settling => self.reconnect(session, None),
        }
    }

    fn reconnect(&mut self, session: &mut Session, next: Option<&At>) {
        if let Some(next) = next {
            self.disconnect(next);
        }
        session.unread.clear();
        session.at = self.connect((session.at.node + 1) % self.world.nodes.len());
        let lines = session.subscribe();
        self.send(&session.at, lines.as_bytes());
        self.send_held(session);
    }

    fn publish(&mut self, rng: &mut StdRng) {
        let number = rng.random_range(0..self.sessions.len());
        let subject = SUBJECTS[rng.random_range(0..SUBJECTS.len())];
        let session = &mut self.sessions[number];
        session.published += 1;
        let payload = format!("{number} {}", session.published);
        let frame = format!("PUB {subject} {}\r\n{payload}\r\n", payload.len());
        self.published.push((number, session.published, subject));
        match session.phase {
            Phase::Arriving(..) | Phase::Leaving(_) => session.held.push_back(frame.into_bytes()),
            Phase::Still | Phase::Settling | Phase::Overdue(_) => {
                let at = session.at.clone();
                self.send(&at, frame.as_bytes());
            }
        }
    }

    /// Restarts a node that has no clients, in an orderly way.
    fn restart_a_node_without_clients(&mut self, rng: &mut StdRng) {
        let node = rng.random_range(0..self.world.nodes.len());
        let uses = |session: &Session| {
            let next = match &session.phase {
                Phase::Arriving(next, _) | Phase::Leaving(next) | Phase::Overdue(next) => Some(next.node),
                Phase::Still | Phase::Settling => None,
            };
            session.at.node == node || next == Some(node)
        };
        if !self.sessions.iter().any(uses) && self.world.has_joined(node) {
            self.world.restart_gracefully(node);
        }
    }

    /// Moves all or some sessions of a node to other nodes, as the restart of a node or the balance of load does.
    fn begin_moves(&mut self, rng: &mut StdRng) {
        let node = rng.random_range(0..self.world.nodes.len());
        let are_all = rng.random();
        for number in 0..self.sessions.len() {
            let to = rng.random_range(0..self.world.nodes.len());
            if self.sessions[number].at.node == node && (are_all || rng.random()) {
                self.begin_move(number, to);
            }
        }
    }

    fn begin_move(&mut self, number: usize, to: usize) {
        let session = &self.sessions[number];
        if !self.world.has_joined(to) {
            return;
        }
        if !matches!(session.phase, Phase::Still) || session.at.node == to || !self.is_alive(&session.at) {
            return;
        }
        let (from, lines) = (session.at.run.clone(), session.subscribe());
        let id = self.new_id();
        let next = self.connect(to);
        self.send(&next, &line(&Move::Arrive { id, from }));
        self.send(&next, lines.as_bytes());
        self.sessions[number].phase = Phase::Arriving(next, id);
    }

    /// Checks that each message came to each subscription once. With `may_lose`, that none came twice.
    fn check(&self, may_lose: bool) -> Outcome {
        let mut outcome = Outcome {
            moves: self.sessions.iter().map(|session| session.moves).sum(),
            overdue: self.sessions.iter().map(|session| session.overdue).sum(),
            ..Outcome::default()
        };
        let mut groups: BTreeMap<(&str, (usize, u64)), usize> = BTreeMap::new();
        let matches = |pattern: &str, subject: &str| {
            standin_wire::subject::matches(pattern.as_bytes(), subject.as_bytes())
        };
        for session in &self.sessions {
            for (sid, (pattern, queue)) in session.subscriptions.iter().enumerate() {
                let received = session.received.get(&sid).cloned().unwrap_or_default();
                let whose = format!(
                    "session {}, subscription {sid} to {pattern} {queue:?}",
                    session.number
                );
                for publisher in 0..self.sessions.len() {
                    let of_publisher = received.iter().filter(|(from, _)| *from == publisher);
                    let numbers: Vec<u64> = of_publisher.map(|(_, number)| *number).collect();
                    let is_once = numbers.iter().collect::<BTreeSet<_>>().len() == numbers.len();
                    let disordered = numbers.windows(2).filter(|pair| pair[0] > pair[1]).count();
                    let is_ordered = disordered == 0 || may_lose || queue.is_some();
                    assert!(is_once && is_ordered, "{whose}: from {publisher}: {numbers:?}");
                    if queue.is_some() && !may_lose {
                        outcome.of_groups += numbers.len();
                        outcome.disordered += disordered;
                    }
                }
                match queue {
                    Some(queue) => {
                        for key in received {
                            *groups.entry((queue, key)).or_default() += 1;
                        }
                    }
                    None if !may_lose => {
                        let due = self
                            .published
                            .iter()
                            .filter(|(.., subject)| matches(pattern, subject));
                        let mut due: Vec<_> = due.map(|(from, number, _)| (*from, *number)).collect();
                        let mut received = received;
                        due.sort_unstable();
                        received.sort_unstable();
                        assert_eq!(received, due, "{whose}");
                    }
                    None => {}
                }
            }
        }
        let members = |queue: &str, subject: &str| {
            let all = self.sessions.iter().flat_map(|session| &session.subscriptions);
            all.filter(|(pattern, group)| *group == Some(queue) && matches(pattern, subject))
                .count()
        };
        for (from, number, subject) in &self.published {
            for queue in ["q", "r"] {
                let times = groups
                    .get(&(queue, (*from, *number)))
                    .copied()
                    .unwrap_or_default();
                let due = usize::from(members(queue, subject) > 0);
                let text =
                    format!("message {number} of {from} to {subject} for group {queue}: {times} times");
                assert!(times == due || may_lose && times < due, "{text}");
            }
        }
        outcome
    }
}

impl Session {
    /// Returns the lines that subscribe, with a PING.
    fn subscribe(&self) -> String {
        let subs = self.subscriptions.iter().enumerate();
        let subs = subs
            .map(|(sid, (pattern, queue))| format!("SUB {pattern} {} {sid}\r\n", queue.unwrap_or_default()));
        subs.collect::<String>() + "PING\r\n"
    }

    /// Reads what a connection has sent. Without `takes_messages`, stops at the first message, and keeps it. Returns the steps of moves.
    fn read(&mut self, at: &At, takes_messages: bool) -> Vec<Move> {
        let Some(unread) = self.unread.get_mut(&(at.node, at.client)) else {
            return Vec::new();
        };
        let mut steps = Vec::new();
        let mut kept = Vec::new();
        while let Some((frame, length)) = server::decode(unread, FrameLimits::SERVER).expect("frames") {
            match frame {
                Frame::Message(message) if takes_messages => {
                    let number = |text: &[u8]| {
                        std::str::from_utf8(text)
                            .expect("text")
                            .parse::<u64>()
                            .expect("a number")
                    };
                    let blank = message
                        .payload
                        .iter()
                        .position(|byte| *byte == b' ')
                        .expect("a blank");
                    let (from, rest) = message.payload.split_at(blank);
                    let received = self.received.entry(number(message.sid) as usize).or_default();
                    received.push((number(from) as usize, number(&rest[1..])));
                }
                Frame::Message(_) => kept.extend_from_slice(&unread[..length]),
                Frame::Move(json) => steps.push(Move::parse(json).expect("a step")),
                Frame::Pong | Frame::Ping | Frame::Info(_) | Frame::Ok => {}
                Frame::Err(text) => panic!("-ERR {}", text.escape_ascii()),
            }
            unread.drain(..length);
        }
        kept.append(unread);
        *unread = kept;
        steps
    }
}

/// What happened in one schedule, or in all.
#[derive(Debug, Default)]
struct Outcome {
    moves: u64,
    /// Moves in which the old node was told twice.
    overdue: u64,
    /// Messages to members of queue groups, and those that came before an earlier one of the same publisher. That happens if all members
    /// of a group move at the same time, and routes differ much in their delay.
    of_groups: usize,
    disordered: usize,
}

/// Plays one schedule.
fn play(seed: u64, has_faults: bool) -> Outcome {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::new(seed, &mut rng);
    for _ in 0..rng.random_range(20..150) {
        match rng.random_range(0..10) {
            0..=4 => (0..rng.random_range(1..4)).for_each(|_| cluster.publish(&mut rng)),
            5 => cluster.begin_moves(&mut rng),
            6 => cluster.wait_no_longer(&mut rng),
            7 if !has_faults && rng.random_range(0..3) == 0 => {
                cluster.restart_a_node_without_clients(&mut rng)
            }
            7 => cluster.begin_moves(&mut rng),
            8 if has_faults && rng.random_range(0..3) == 0 => cluster.world.cut_one(&mut rng),
            9 if has_faults && rng.random_range(0..8) == 0 => {
                let node = rng.random_range(0..cluster.world.nodes.len());
                cluster.world.restart(node, false);
            }
            _ => (0..rng.random_range(1..6)).for_each(|_| cluster.step(&mut rng)),
        }
    }
    let is_still = |session: &Session| matches!(session.phase, Phase::Still);
    let ends = (0..1000).any(|_| {
        cluster.step(&mut rng);
        cluster.sessions.iter().all(is_still)
    });
    let phases: Vec<_> = cluster
        .sessions
        .iter()
        .map(|session| (session.number, &session.at, &session.phase))
        .collect();
    assert!(ends, "a move does not end: {phases:?}");
    (0..150).for_each(|_| cluster.step(&mut rng));
    cluster.check(has_faults)
}

fn play_all(seeds: std::ops::Range<u64>, has_faults: bool) {
    let mut all = Outcome::default();
    let played = seeds::play(seeds, |seed| {
        let one = play(seed, has_faults);
        all.moves += one.moves;
        all.overdue += one.overdue;
        all.of_groups += one.of_groups;
        all.disordered += one.disordered;
    });
    println!("{played} schedules: {all:?}");
    assert!(
        played <= 1 || all.moves > played && all.overdue > played / 8,
        "too few moves for a test: {all:?}"
    );
    assert!(
        all.disordered * 10_000 <= all.of_groups,
        "the groups' order: {all:?}"
    );
}

#[test]
fn s13_a_planned_move_loses_nothing_repeats_nothing_and_keeps_the_order() {
    play_all(0..QUIET, false);
}

#[test]
fn s13_with_faults_a_planned_move_repeats_nothing() {
    play_all(0..FAULTY, true);
}
