//! The network between simulated nodes, the registry, and the faults of both.

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
const HANDSHAKE_TIMEOUT: Duration = Duration::from_millis(400);
const SUBJECTS: [&str; 7] = ["a", "b", "a.b", "a.c", "a.*", "a.>", ">"];

/// State of a connection on one side.
enum Side {
    Handshaking(Box<Handshake>),
    Linked(u64),
    Gone,
}

struct Connection {
    nodes: [usize; 2],
    /// The runs of the two nodes.
    runs: [String; 2],
    sides: [Side; 2],
    /// Bytes in flight to each side, with the time of their arrival. `None` is the end of the connection.
    in_flight: [VecDeque<(Instant, Option<Vec<u8>>)>; 2],
    unparsed: [Vec<u8>; 2],
    opened: Instant,
    /// All bytes are lost, and neither side is notified.
    silent: bool,
}

impl Connection {
    fn side_of(&self, node: usize) -> usize {
        usize::from(self.nodes[1] == node)
    }

    /// Sends bytes to a side, to arrive at `at`, but not before those that were sent earlier.
    fn send(&mut self, to: usize, at: Instant, bytes: Option<Vec<u8>>) {
        let after = self.in_flight[to].back().map_or(at, |(before, _)| *before);
        self.in_flight[to].push_back((at.max(after), bytes));
    }
}

pub(super) struct World {
    pub(super) nodes: Vec<Node>,
    connections: BTreeMap<usize, Connection>,
    /// The connections of each node.
    of_node: Vec<BTreeSet<usize>>,
    opened: usize,
    /// The partition of each node. No bytes pass between partitions.
    group: Vec<usize>,
    is_registered: bool,
    registry_reaches: Vec<bool>,
    /// The snapshots of the registry are incomplete.
    registry_lags: bool,
    runs: u64,
    seed: u64,
    ping_interval_ms: u64,
    pub(super) now: Instant,
    delay_ms_max: u64,
    /// Further delay of the route between two nodes, in milliseconds.
    pub(super) slow_routes: BTreeMap<[usize; 2], u64>,
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
            slow_routes: BTreeMap::new(),
            flushes: 0,
        };
        for number in 0..count {
            let node = world.node(number);
            world.nodes.push(node);
        }
        world
    }

    /// Returns a new run of a node. Without a registry, each node has a configured route to the next one, and its peers name the others.
    fn node(&mut self, number: usize) -> Node {
        self.runs += 1;
        let next = (number + 1) % self.of_node.len();
        let next = (!self.is_registered).then(|| mesh_address(next));
        let routes = next.into_iter().collect();
        let (seed, interval_ms) = (self.seed ^ self.runs, self.ping_interval_ms);
        let mut node = Node::new(number, self.runs, routes, seed, interval_ms, self.now);
        node.prefer_local(self.prefers_local());
        node
    }

    /// Returns whether members of a queue group on the node of the publisher come first.
    pub(super) const fn prefers_local(&self) -> bool {
        self.seed.is_multiple_of(2)
    }

    pub(super) fn disturb(&mut self, rng: &mut StdRng) {
        let count = self.nodes.len();
        let number = rng.random_range(0..count);
        match rng.random_range(0..20) {
            0 => self.group.fill_with(|| rng.random_range(0..2)),
            1 | 2 => self.group.fill(0),
            3 => {
                let frozen = Duration::from_millis(rng.random_range(1..2000));
                self.nodes[number].frozen_until = self.now + frozen;
            }
            4 if rng.random() => self.restart_gracefully(number),
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

    /// Cuts a connection. Both sides get a reset, or notice nothing if `silently`.
    fn cut(&mut self, which: usize, silently: bool) {
        let now = self.now;
        let connection = self.connection(which);
        if silently {
            connection.silent = true;
        } else {
            connection.in_flight.fill(VecDeque::from([(now, None)]));
        }
    }

    /// Cuts a random connection between two nodes.
    pub(super) fn cut_one(&mut self, rng: &mut StdRng) {
        let all: Vec<usize> = self.connections.keys().copied().collect();
        if !all.is_empty() {
            self.cut(all[rng.random_range(0..all.len())], false);
        }
    }

    /// Replaces a node by its next run without GOODBYE, and cuts the connections of the previous run.
    pub(super) fn restart(&mut self, number: usize, silently: bool) {
        self.nodes[number] = self.node(number);
        for which in self.connections_of(number) {
            self.cut(which, silently);
        }
    }

    /// Replaces a node by its next run, after the previous run has sent GOODBYE to its peers.
    pub(super) fn restart_gracefully(&mut self, number: usize) {
        self.nodes[number] = self.node(number);
        for which in self.connections_of(number) {
            let connection = self.connections.get_mut(&which).expect("a connection");
            let side = connection.side_of(number);
            connection.in_flight[side].clear();
            if matches!(connection.sides[side], Side::Linked(_)) {
                let goodbye = frame::bare(frame::GOODBYE);
                connection.in_flight[1 - side].push_back((self.now, Some(goodbye)));
            }
            connection.in_flight[1 - side].push_back((self.now, None));
        }
    }

    /// Returns whether a node has a route to each other node, and knows their interest. Only then it accepts clients.
    pub(super) fn has_joined(&self, number: usize) -> bool {
        let node = &self.nodes[number];
        node.ends.len() == self.nodes.len() - 1 && node.keeper.membership.awaited().is_empty()
    }

    fn connections_of(&self, number: usize) -> Vec<usize> {
        self.of_node[number].iter().copied().collect()
    }

    pub(super) fn heal(&mut self) {
        self.group.fill(0);
        self.registry_reaches.fill(true);
        self.registry_lags = false;
        for node in &mut self.nodes {
            node.frozen_until = self.now;
        }
    }

    pub(super) fn step(&mut self, rng: &mut StdRng) {
        self.now += STEP;
        let everyone: Vec<Peer> = self.nodes.iter().map(|node| Peer::of(&node.own)).collect();
        for number in 0..self.nodes.len() {
            if self.nodes[number].frozen_until > self.now {
                continue;
            }
            if self.is_registered && self.registry_reaches[number] && rng.random_range(0..10) == 0 {
                let mut listed = everyone.clone();
                if self.registry_lags {
                    listed.retain(|_| rng.random());
                }
                let membership = &mut self.nodes[number].keeper.membership;
                membership.registered(&listed, None, self.now);
            }
            self.dial(number);
            self.receive(number);
            self.nodes[number].serve_clients(self.now);
            for lost in self.nodes[number].work(self.now) {
                self.lose(number, lost);
            }
            self.check_flushes(number);
            // A node's previous runs never count as a namesake with more routes.
            assert!(!self.nodes[number].keeper.membership.is_outnumbered());
            self.send(number, rng);
        }
        self.forget_dead_connections();
    }

    fn dial(&mut self, number: usize) {
        for at in self.nodes[number].keeper.membership.dials(self.now) {
            let mut peers = 0..self.nodes.len();
            let peer = peers.find(|peer| mesh_address(*peer) == at).expect("an address");
            let nodes = [number, peer];
            let sides = nodes.map(|node| Handshake::new(self.nodes[node].own.clone()));
            let hellos = sides.each_ref().map(|handshake| Some(handshake.hello()));
            let [from_dialler, from_peer] = hellos.map(|hello| VecDeque::from([(self.now, hello)]));
            let connection = Connection {
                runs: nodes.map(|node| self.nodes[node].own.run.clone()),
                nodes,
                sides: sides.map(|handshake| Side::Handshaking(Box::new(handshake))),
                in_flight: [from_peer, from_dialler],
                unparsed: [Vec::new(), Vec::new()],
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

    /// Delivers to a node what has arrived for it.
    fn receive(&mut self, number: usize) {
        for which in self.connections_of(number) {
            for side in 0..2 {
                while let Some(connection) = self.connections.get_mut(&which)
                    && connection.nodes[side] == number
                    && connection.runs[side] == self.nodes[number].own.run
                    && !connection.silent
                    && self.group[connection.nodes[0]] == self.group[connection.nodes[1]]
                    && let Some((at, _)) = connection.in_flight[side].front()
                    && *at <= self.now
                {
                    match connection.in_flight[side].pop_front() {
                        Some((_, Some(bytes))) => self.received(which, side, &bytes),
                        _ => self.ended(which, side),
                    }
                }
                self.end_late_handshake(which, side, number);
            }
        }
    }

    fn end_late_handshake(&mut self, which: usize, side: usize, number: usize) {
        let Some(connection) = self.connections.get(&which) else {
            return;
        };
        let is_own = connection.nodes[side] == number && connection.runs[side] == self.nodes[number].own.run;
        let is_late = self.now > connection.opened + HANDSHAKE_TIMEOUT;
        if is_own && is_late && matches!(connection.sides[side], Side::Handshaking(_)) {
            self.ended(which, side);
        }
    }

    fn received(&mut self, which: usize, side: usize, bytes: &[u8]) {
        self.connection(which).unparsed[side].extend_from_slice(bytes);
        loop {
            let connection = self.connection(which);
            let node = connection.nodes[side];
            match &mut connection.sides[side] {
                Side::Gone => return,
                Side::Linked(route) => {
                    let (route, bytes) = (*route, std::mem::take(&mut connection.unparsed[side]));
                    assert_eq!(self.nodes[node].take(route, &bytes, self.now), Ok(()));
                    return;
                }
                Side::Handshaking(handshake) => match handshake.take(&connection.unparsed[side]) {
                    Ok(None) => return,
                    Ok(Some((asks, length))) => {
                        connection.unparsed[side].drain(..length);
                        if let Some(welcome) = asks {
                            self.judge(which, side, welcome);
                        }
                    }
                    Err(error) => return self.connection_failed(which, side, &error),
                },
            }
        }
    }

    /// Lets the node judge the other side, as `handshake::perform` does.
    fn judge(&mut self, which: usize, side: usize, welcome: bool) {
        let (now, dialled) = (self.now, side == 0);
        let connection = self.connections.get_mut(&which).expect("a connection");
        let Side::Handshaking(handshake) = &mut connection.sides[side] else {
            return;
        };
        let [node, peer] = [connection.nodes[side], connection.nodes[1 - side]];
        let hello = handshake.peer().expect("HELLO");
        let (verdict, number) = self.nodes[node].keeper.judge(hello, welcome, dialled, now);
        let mut answer = Vec::new();
        let applied = handshake.apply_verdict(verdict, &mut answer);
        if !answer.is_empty() {
            self.send_to_other(which, side, Some(answer));
        }
        match applied {
            Ok(None) => {}
            Ok(Some(hello)) => {
                self.connection(which).sides[side] = Side::Linked(number);
                self.nodes[node].install(number, which, peer, hello, dialled, now);
            }
            Err(error) => self.connection_failed(which, side, &error),
        }
    }

    /// Handles, for this side, a connection that does not become a route.
    fn connection_failed(&mut self, which: usize, side: usize, error: &HandshakeError) {
        let connection = self.connection(which);
        let [node, peer] = [connection.nodes[side], connection.nodes[1 - side]];
        let origin = if side == 0 {
            Origin::Dialled(mesh_address(peer))
        } else {
            Origin::Accepted(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)))
        };
        self.nodes[node].keeper.connection_failed(origin, error, self.now);
        self.close(which, side);
    }

    /// Handles the end of a connection for this side.
    fn ended(&mut self, which: usize, side: usize) {
        let connection = self.connection(which);
        let node = connection.nodes[side];
        match connection.sides[side] {
            Side::Linked(number) => drop(self.nodes[node].detach(number, self.now)),
            Side::Handshaking(_) => return self.connection_failed(which, side, &HandshakeError::Closed),
            Side::Gone => {}
        }
        self.close(which, side);
    }

    /// Ends a route that the node gives up.
    fn lose(&mut self, node: usize, number: u64) {
        if let Some(which) = self.nodes[node].detach(number, self.now) {
            let side = self.connection(which).side_of(node);
            self.close(which, side);
        }
    }

    fn connection(&mut self, which: usize) -> &mut Connection {
        self.connections.get_mut(&which).expect("a connection")
    }

    fn close(&mut self, which: usize, side: usize) {
        self.connection(which).sides[side] = Side::Gone;
        self.send_to_other(which, side, None);
    }

    /// Sends bytes, or the end of the connection, to the other side, without delay.
    fn send_to_other(&mut self, which: usize, side: usize, bytes: Option<Vec<u8>>) {
        let now = self.now;
        self.connection(which).send(1 - side, now, bytes);
    }

    /// Sends what a node has written to its routes, each write with a delay.
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
            if let Some(connection) = self.connections.get_mut(&end.connection) {
                let mut nodes = connection.nodes;
                nodes.sort_unstable();
                let slow_ms = self.slow_routes.get(&nodes).copied().unwrap_or_default();
                let delay = Duration::from_millis(slow_ms + rng.random_range(0..=self.delay_ms_max));
                let to = 1 - connection.side_of(number);
                connection.send(to, self.now + delay, Some(bytes));
            }
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
