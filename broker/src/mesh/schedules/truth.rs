//! The invariants of a mesh: of each flush while there are faults, and of all interest and messages when there are none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rand::RngExt;
use rand::rngs::StdRng;

use super::node::Node;
use super::world::World;
use crate::flush::is_waited_for;
use crate::interest::announcing::Picture;
use crate::subscription::Subscription;

impl World {
    /// Checks the flushes that have ended on a node: each peer for whose ack the flush waited knows the subscription.
    pub(super) fn check_flushes(&mut self, number: usize) {
        for (is_acked, subscription) in self.nodes[number].flushed(self.now) {
            let node = &self.nodes[number];
            let mut live = node.subscriptions.iter();
            if !is_acked || !live.any(|one| Arc::ptr_eq(one, &subscription)) {
                continue;
            }
            self.flushes += 1;
            for end in node.ends.values().filter(|end| is_waited_for(&end.session.route)) {
                let peer = &self.nodes[end.peer];
                let mut ends = peer.ends.values();
                let Some(back) = ends.find(|back| back.connection == end.connection) else {
                    continue;
                };
                let is_known = |one: &Arc<Subscription>| {
                    Arc::ptr_eq(&one.client, &back.session.route.outbox)
                        && one.subject() == subscription.subject()
                        && one.queue() == subscription.queue()
                };
                let remote = peer.shared.interest.remote.page(0, usize::MAX);
                let (peer, id) = (&peer.own.id, &node.own.id);
                assert!(
                    remote.iter().any(is_known),
                    "{peer} does not know a subscription that {id} flushed"
                );
            }
        }
    }

    /// Returns whether no client waits for a PONG, and no node for another node.
    pub(super) fn is_quiet(&self) -> bool {
        self.nodes
            .iter()
            .all(|node| node.waiting.is_empty() && node.keeper.membership.awaited().is_empty())
    }

    /// Returns whether each node is linked with each other node, by the same connection on both sides.
    pub(super) fn is_whole(&self) -> bool {
        self.nodes.iter().enumerate().all(|(number, node)| {
            node.ends.len() == self.nodes.len() - 1
                && node.ends.values().all(|end| {
                    let mut others = self.nodes[end.peer].ends.values();
                    end.peer != number && others.any(|back| back.connection == end.connection)
                })
        })
    }

    pub(super) fn picture(&self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            let linked: Vec<_> = node.ends.values().map(|end| (end.peer, end.connection)).collect();
            let (id, awaited) = (&node.own.id, node.keeper.membership.awaited());
            let _ = writeln!(text, "{id}: linked {linked:?}, awaits {awaited:?}");
        }
        text
    }

    /// Checks that each node knows the interest of each other node.
    pub(super) fn check_pictures(&self) {
        let truths: Vec<Picture> = self.nodes.iter().map(Node::wanted).collect();
        for node in &self.nodes {
            let (interest, id) = (&node.shared.interest, &node.own.id);
            let peers = self.nodes.len() - 1;
            assert_eq!(node.shared.flush.waiting_len(), 0);
            let mut pictures: BTreeMap<u64, Picture> = BTreeMap::new();
            for one in interest.remote.page(0, usize::MAX) {
                let key = (one.subject().to_vec(), one.queue().map(<[u8]>::to_vec));
                let of_peer = pictures.entry(one.client.id).or_default();
                of_peer.insert(key, one.members.load(Relaxed));
            }
            let mut of_routes = 0;
            for end in node.ends.values() {
                let (route, truth) = (&end.session.route, &truths[end.peer]);
                let picture = pictures.remove(&route.outbox.id).unwrap_or_default();
                assert_eq!(&picture, truth, "what {id} knows of node {}", end.peer);
                assert_eq!(route.interest.load(Relaxed), truth.len());
                of_routes += truth.len();
            }
            // No interest of an ended route is left.
            assert_eq!(interest.remote.len(), of_routes);
            let followers = interest.local.followers_len();
            let routes = interest.routes.load().len();
            assert_eq!((followers, routes, node.ends.len()), (peers, peers, peers));
        }
    }

    /// Moves a client from node to node while all nodes publish. The client gets messages of each node in order, and none twice.
    pub(super) fn check_moves(&mut self, rng: &mut StdRng) {
        let count = self.nodes.len();
        let mut at = 0;
        let mut mover = self.nodes[at].subscribe("moves", None);
        for node in &mut self.nodes {
            node.subscribe("moves", None);
        }
        let mut last = vec![0; count];
        for number in 1..=100 {
            for (from, node) in self.nodes.iter_mut().enumerate() {
                node.publish(b"moves", format!("from {from} {number}").as_bytes());
            }
            self.step(rng);
            for (from, number) in self.take_received(at, &mover) {
                let before = std::mem::replace(&mut last[from], number);
                assert!(before < number, "{number} of {from} after {before}, on {at}");
            }
            if number % 25 == 0 {
                self.nodes[at].leave(&mover);
                at = rng.random_range(0..count);
                mover = self.nodes[at].subscribe("moves", None);
            }
        }
        assert!(last.iter().all(|last| *last > 0), "{last:?}");
    }

    /// Takes the messages that a client was sent: the publishing node and the number of each.
    fn take_received(&self, at: usize, subscription: &Subscription) -> Vec<(usize, u64)> {
        let mut wire = self.nodes[at].clients_wire.lock().expect("the wire");
        let all = std::mem::take(&mut *wire);
        let own = all.iter().filter(|(id, _)| *id == subscription.client.id);
        own.flat_map(|(_, bytes)| {
            let text = std::str::from_utf8(bytes).expect("text");
            text.lines().filter_map(|line| {
                let (from, number) = line.strip_prefix("from ")?.split_once(' ')?;
                Some((from.parse().ok()?, number.parse().ok()?))
            })
        })
        .collect()
    }

    /// Checks that a message reaches each plain subscriber once, and one member of each group, on the publishing node if it has any and
    /// local members come first.
    pub(super) fn check_a_publish(&mut self, rng: &mut StdRng) {
        let from = rng.random_range(0..self.nodes.len());
        let subject = ["a", "b", "a.b", "a.c", "c"][rng.random_range(0..5)];
        for node in &self.nodes {
            node.clients_wire.lock().expect("the wire").clear();
        }
        self.nodes[from].publish(subject.as_bytes(), b"x");
        (0..60).for_each(|_| self.step(rng));
        let (mut groups_here, mut groups) = (BTreeSet::new(), BTreeMap::new());
        for (number, node) in self.nodes.iter().enumerate() {
            let wire = std::mem::take(&mut *node.clients_wire.lock().expect("the wire"));
            let messages_in = |bytes: &[u8]| bytes.windows(4).filter(|verb| verb == b"MSG ").count();
            for one in &node.subscriptions {
                let own = wire.iter().filter(|(id, _)| *id == one.client.id);
                let times: usize = own.map(|(_, bytes)| messages_in(bytes)).sum();
                let matches = standin_wire::subject::matches(one.subject(), subject.as_bytes());
                match one.queue() {
                    None => assert_eq!(times, usize::from(matches), "{subject} on {}", node.own.id),
                    Some(name) if matches => {
                        let (here, all) = groups.entry(name.to_vec()).or_insert((0, 0));
                        *here += if number == from { times } else { 0 };
                        *all += times;
                        if number == from {
                            groups_here.insert(name.to_vec());
                        }
                    }
                    Some(_) => assert_eq!(times, 0),
                }
            }
        }
        for (name, (here, all)) in groups {
            assert_eq!(all, 1, "{subject} reaches one member of {name:?}");
            let expected = usize::from(groups_here.contains(&name));
            if self.prefers_local() {
                assert_eq!(here, expected, "a member on the publishing node is preferred");
            }
        }
    }
}
