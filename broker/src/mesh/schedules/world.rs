//! The network between simulated nodes, the registry, and what an unkind world does to both.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

use super::node::{Node, mesh_address};
use crate::route::frame;
use crate::route::handshake::{Handshake, HandshakeError, Origin};
use crate::route::hello::Peer;

const STEP: Duration = Duration::from_millis(10);
const SUBJECTS: [&str; 7] = ["a", "b", "a.b", "a.c", "a.*", "a.>", ">"];

/// How far one side of a connection is.
enum Side {
    Greets(Box<Handshake>),
    RouteState(u64),
    Gone,
}

struct Connection {
    nodes: [usize; 2],
    /// The runs of the two nodes between which it is.
    runs: [String; 2],
    sides: [Side; 2],
    /// What is on its way to each side, and when it arrives; `None`: the end.
    ways: [VecDeque<(Instant, Option<Vec<u8>>)>; 2],
    held: [Vec<u8>; 2],
    opened: Instant,
    /// Nothing passes any more, and neither side notices.
    silent: bool,
}

pub(super) struct World {
    pub(super) nodes: Vec<Node>,
    connections: BTreeMap<usize, Connection>,
    /// The connections of each node.
    of_node: Vec<BTreeSet<usize>>,
    opened: usize,
    /// Groups between which nothing passes.
    group: Vec<usize>,
    is_registered: bool,
    registry_reaches: Vec<bool>,
    /// What the registry tells is incomplete.
    registry_lags: bool,
    runs: u64,
    seed: u64,
    ping_interval_ms: u64,
    pub(super) now: Instant,
    delay_ms_max: u64,
    pub(super) flushes: u64,
}

impl World {
    pub(super) fn new(count: usize, seed: u64, ping_interval_ms: u64, rng: &mut StdRng) -> Self {
        let now = Instant::now();
        let mut world = Self {
            nodes: Vec::new(),
            connections: BTreeMap::new(),
            of_node: vec![BTreeSet::new(); count],
            opened: 0,
            group: vec![0; count],
            is_registered: rng.random(),
            registry_reaches: vec![true; count],
            registry_lags: false,
            runs: 0,
            seed,
            ping_interval_ms,
            now,
            delay_ms_max: rng.random_range(1..60),
            flushes: 0,
        };
        for number in 0..count {
            let node = world.node(number, count);
            world.nodes.push(node);
        }
        world
    }

    /// A new life of a node. Without a registry each knows the next one; the rest it hears of.
    fn node(&mut self, number: usize, count: usize) -> Node {
        self.runs += 1;
        let routes = if self.is_registered {
            Vec::new()
        } else {
            vec![mesh_address((number + 1) % count)]
        };
        Node::new(
            number,
            self.runs,
            routes,
            self.seed,
            self.ping_interval_ms,
            self.now,
        )
    }

    pub(super) fn disturb(&mut self, rng: &mut StdRng) {
        let count = self.nodes.len();
        let number = rng.random_range(0..count);
        match rng.random_range(0..20) {
            0 => self
                .group
                .iter_mut()
                .for_each(|group| *group = rng.random_range(0..2)),
            1 | 2 => self.group.fill(0),
            3 => {
                self.nodes[number].frozen_until = self.now + Duration::from_millis(rng.random_range(1..2000))
            }
            4 if rng.random() => self.restart_in_order(number),
            4 => self.restart(number, rng.random()),
            5 if rng.random() => self.registry_lags ^= true,
            5 => self.registry_reaches[number] ^= true,
            6 | 7 => {
                let all: Vec<usize> = self.connections.keys().copied().collect();
                if !all.is_empty() {
                    self.cut(all[rng.random_range(0..all.len())], rng.random());
                }
            }
            8..=14 => {
                let subject = SUBJECTS[rng.random_range(0..SUBJECTS.len())];
                let queue = [None, None, Some("q"), Some("r")][rng.random_range(0..4)];
                for _ in 0..rng.random_range(1..4) {
                    self.nodes[number].subscribe(subject, queue);
                }
            }
            _ => {
                let node = &mut self.nodes[number];
                let live = node.subscriptions.len();
                if live > 0 {
                    node.unsubscribe(rng.random_range(0..live));
                }
            }
        }
    }

    /// The connection is lost: with a reset that both see, or with nothing at all.
    fn cut(&mut self, which: usize, silently: bool) {
        let Some(connection) = self.connections.get_mut(&which) else {
            return;
        };
        if silently {
            connection.silent = true;
        } else {
            connection.ways.iter_mut().for_each(|way| {
                way.clear();
                way.push_back((self.now, None));
            });
        }
    }

    fn restart(&mut self, number: usize, silently: bool) {
        let count = self.nodes.len();
        self.nodes[number] = self.node(number, count);
        for which in self.of_node[number].iter().copied().collect::<Vec<_>>() {
            self.cut(which, silently);
        }
    }

    /// As [`restart`](Self::restart), but it says goodbye before.
    fn restart_in_order(&mut self, number: usize) {
        let count = self.nodes.len();
        self.nodes[number] = self.node(number, count);
        let goodbye = frame::bare(frame::GOODBYE);
        for which in &self.of_node[number] {
            let Some(connection) = self.connections.get_mut(which) else {
                continue;
            };
            let peer = usize::from(connection.nodes[0] == number);
            connection.ways[1 - peer].clear();
            if matches!(connection.sides[1 - peer], Side::RouteState(_)) {
                connection.ways[peer].push_back((self.now, Some(goodbye.clone())));
            }
            connection.ways[peer].push_back((self.now, None));
        }
    }

    pub(super) fn heal(&mut self) {
        self.group.fill(0);
        self.registry_reaches.fill(true);
        self.registry_lags = false;
        self.nodes
            .iter_mut()
            .for_each(|node| node.frozen_until = self.now);
    }

    pub(super) fn step(&mut self, rng: &mut StdRng) {
        self.now += STEP;
        let everyone: Vec<Peer> = self
            .nodes
            .iter()
            .map(|node| Peer {
                id: node.own.id.clone(),
                mesh: node.own.mesh.clone(),
            })
            .collect();
        for number in 0..self.nodes.len() {
            if self.nodes[number].frozen_until > self.now {
                continue;
            }
            if self.is_registered && self.registry_reaches[number] && rng.random_range(0..10) == 0 {
                let mut listed = everyone.clone();
                if self.registry_lags {
                    listed.retain(|_| rng.random());
                }
                self.nodes[number]
                    .keeper
                    .membership
                    .registered(&listed, None, self.now);
            }
            self.dial(number);
            self.receive(number);
            for lost in self.nodes[number].work(self.now) {
                self.lose(number, lost);
            }
            self.check_flushes(number);
            // Whatever a node's previous runs have left behind, there is never a namesake.
            assert!(
                !self.nodes[number].keeper.membership.is_outnumbered(),
                "an innocent node"
            );
            self.send(number, rng);
        }
        self.forget_dead_connections();
    }

    fn dial(&mut self, number: usize) {
        for at in self.nodes[number].keeper.membership.dials(self.now) {
            let peer = (0..self.nodes.len())
                .find(|peer| mesh_address(*peer) == at)
                .expect("an address");
            let nodes = [number, peer];
            let handshakes = nodes.map(|node| Box::new(Handshake::new(self.nodes[node].own.clone())));
            let [mine, theirs] = [0, 1].map(|side| {
                let mut greeting = Vec::new();
                handshakes[side].put_hello(&mut greeting);
                greeting
            });
            let connection = Connection {
                runs: nodes.map(|node| self.nodes[node].own.run.clone()),
                nodes,
                sides: handshakes.map(Side::Greets),
                ways: [
                    VecDeque::from([(self.now, Some(theirs))]),
                    VecDeque::from([(self.now, Some(mine))]),
                ],
                held: [Vec::new(), Vec::new()],
                opened: self.now,
                silent: false,
            };
            self.connections.insert(self.opened, connection);
            for node in nodes {
                self.of_node[node].insert(self.opened);
            }
            self.opened += 1;
        }
    }

    /// What has arrived for a node.
    fn receive(&mut self, number: usize) {
        for which in self.of_node[number].iter().copied().collect::<Vec<_>>() {
            for side in 0..2 {
                let passes = |connection: &Connection, group: &[usize], node: &Node| {
                    let [one, other] = connection.nodes;
                    !connection.silent && group[one] == group[other] && connection.runs[side] == node.own.run
                };
                while let Some(connection) = self.connections.get_mut(&which)
                    && connection.nodes[side] == number
                    && passes(connection, &self.group, &self.nodes[number])
                    && connection.ways[side]
                        .front()
                        .is_some_and(|(at, _)| *at <= self.now)
                {
                    match connection.ways[side].pop_front() {
                        Some((_, Some(bytes))) => self.received(which, side, &bytes),
                        _ => self.ended(which, side),
                    }
                }
                self.give_up_greeting(which, side, number);
            }
        }
    }

    /// A handshake has a limit, too.
    fn give_up_greeting(&mut self, which: usize, side: usize, number: usize) {
        let Some(connection) = self.connections.get_mut(&which) else {
            return;
        };
        let late = self.now > connection.opened + Duration::from_millis(400);
        let greets = matches!(connection.sides[side], Side::Greets(_));
        if late
            && greets
            && connection.nodes[side] == number
            && connection.runs[side] == self.nodes[number].own.run
        {
            self.ended(which, side);
        }
    }

    fn received(&mut self, which: usize, side: usize, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(&which) else {
            return;
        };
        if let Side::RouteState(route) = connection.sides[side] {
            let node = connection.nodes[side];
            assert_eq!(
                self.nodes[node].take(route, bytes, self.now),
                Ok(()),
                "frames are understood"
            );
            return;
        }
        connection.held[side].extend_from_slice(bytes);
        loop {
            let Some(connection) = self.connections.get_mut(&which) else {
                return;
            };
            if let Side::RouteState(route) = connection.sides[side] {
                let node = connection.nodes[side];
                let rest = std::mem::take(&mut connection.held[side]);
                assert_eq!(self.nodes[node].take(route, &rest, self.now), Ok(()));
                return;
            }
            let Side::Greets(handshake) = &mut connection.sides[side] else {
                return;
            };
            match handshake.take(&connection.held[side]) {
                Ok(None) => return,
                Ok(Some((asks, length))) => {
                    connection.held[side].drain(..length);
                    if let Some(welcome) = asks {
                        self.judge(which, side, welcome);
                    }
                }
                Err(error) => return self.connection_failed(which, side, &error),
            }
        }
    }

    /// The node judges the other side, as `handshake::perform` does.
    fn judge(&mut self, which: usize, side: usize, welcome: bool) {
        let Some(connection) = self.connections.get_mut(&which) else {
            return;
        };
        let Side::Greets(handshake) = &mut connection.sides[side] else {
            return;
        };
        let [node, peer] = [connection.nodes[side], connection.nodes[1 - side]];
        let (now, dialled) = (self.now, side == 0);
        let hello = handshake.peer().expect("HELLO");
        let (verdict, number) = self.nodes[node].keeper.judge(hello, welcome, dialled, now);
        let mut frame_out = Vec::new();
        let applied = handshake.apply_verdict(verdict, &mut frame_out);
        if !frame_out.is_empty() {
            self.send_bytes(which, side, &frame_out);
        }
        match applied {
            Ok(None) => {}
            Ok(Some(hello)) => {
                self.set(which, side, Side::RouteState(number));
                self.nodes[node].install(number, which, peer, hello, dialled, now);
            }
            Err(error) => self.connection_failed(which, side, &error),
        }
    }

    /// The connection does not become a route, as this side knows.
    fn connection_failed(&mut self, which: usize, side: usize, error: &HandshakeError) {
        let connection = &self.connections[&which];
        let [node, peer] = [connection.nodes[side], connection.nodes[1 - side]];
        let origin = if side == 0 {
            Origin::Dialled(mesh_address(peer))
        } else {
            Origin::Accepted(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)))
        };
        self.nodes[node].keeper.connection_failed(origin, error, self.now);
        self.set(which, side, Side::Gone);
        self.close(which, side);
    }

    /// The connection has ended for this side.
    fn ended(&mut self, which: usize, side: usize) {
        let Some(connection) = self.connections.get_mut(&which) else {
            return;
        };
        let node = connection.nodes[side];
        match std::mem::replace(&mut connection.sides[side], Side::Gone) {
            Side::RouteState(number) => drop(self.nodes[node].let_go(number, self.now)),
            Side::Greets(_) => {
                return self.connection_failed(which, side, &HandshakeError::Closed);
            }
            Side::Gone => {}
        }
        self.close(which, side);
    }

    /// The node gives a route up.
    fn lose(&mut self, node: usize, number: u64) {
        if let Some(which) = self.nodes[node].let_go(number, self.now) {
            let side = usize::from(self.connections[&which].nodes[1] == node);
            self.set(which, side, Side::Gone);
            self.close(which, side);
        }
    }

    fn set(&mut self, which: usize, side: usize, to: Side) {
        if let Some(connection) = self.connections.get_mut(&which) {
            connection.sides[side] = to;
        }
    }

    fn send_bytes(&mut self, which: usize, side: usize, bytes: &[u8]) {
        let now = self.now;
        if let Some(connection) = self.connections.get_mut(&which) {
            let after = connection.ways[1 - side].back().map_or(now, |(at, _)| *at);
            connection.ways[1 - side].push_back((after.max(now), Some(bytes.to_vec())));
        }
    }

    fn close(&mut self, which: usize, side: usize) {
        let now = self.now;
        if let Some(connection) = self.connections.get_mut(&which) {
            let after = connection.ways[1 - side].back().map_or(now, |(at, _)| *at);
            connection.ways[1 - side].push_back((after.max(now), None));
        }
    }

    /// What a node has sent goes on its way.
    fn send(&mut self, number: usize, rng: &mut StdRng) {
        let node = &mut self.nodes[number];
        node.flush(rng);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        for end in node.ends.values() {
            let _ = end.session.route.outbox.poll_drain(&mut context);
        }
        let sent = std::mem::take(&mut *node.wire.lock().expect("the wire"));
        for (id, bytes) in sent {
            let Some(end) = node.ends.get(&(u64::MAX - id)) else {
                continue;
            };
            node.bytes_sent += bytes.len();
            let Some(connection) = self.connections.get_mut(&end.connection) else {
                continue;
            };
            let way = &mut connection.ways[usize::from(connection.nodes[0] == number)];
            let delay = Duration::from_millis(rng.random_range(0..=self.delay_ms_max));
            let after = way.back().map_or(self.now, |(at, _)| *at);
            way.push_back(((self.now + delay).max(after), Some(bytes)));
        }
    }

    fn forget_dead_connections(&mut self) {
        let nodes = &self.nodes;
        let of_node = &mut self.of_node;
        self.connections.retain(|which, connection| {
            let is_used = (0..2).any(|side| {
                let is_alive = nodes[connection.nodes[side]].own.run == connection.runs[side];
                is_alive && !matches!(connection.sides[side], Side::Gone)
            });
            if !is_used {
                for node in connection.nodes {
                    of_node[node].remove(which);
                }
            }
            is_used
        });
    }
}
