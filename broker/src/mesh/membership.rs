//! The members of the cluster: which nodes exist, which addresses to dial and when, and which of two routes between the same nodes
//! survives. A synchronous state machine: each call takes an event and the time, and returns what to do.
//!
//! Nodes are dialled at addresses from three sources: the configured routes, the registry, and the lists that other nodes send. The
//! address of a node that was linked is remembered, so that a lost route is restored even if no source names the address any more.
//! If two nodes dial each other at the same time, the one with the lower id decides which connection becomes the route.
//!
//! *Architecture invariant:* a route is never closed because a registration is gone. The registry only says where a node may be; only
//! a connection proves that it is alive.

mod address;
mod namesake;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use self::address::{Address, is_ip};
use self::namesake::Namesake;
use crate::auth::constant_time_eq;
use crate::route::handshake::Verdict;
use crate::route::hello::{Hello, PROTOCOL_MIN, Peer, RefusalReason};

/// Time after which an address that is neither configured nor registered, and not linked, is forgotten.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// Age from which the loss of a route resets the backoff of its addresses.
const LASTING_ROUTE: Duration = Duration::from_secs(5);
/// Limit on known addresses, as a multiple of `nodes_max`.
const ADDRESSES_PER_NODE: usize = 4;
/// Maximum redial delay after a refusal because of a duplicate id. The other node may end soon, and the id is free then.
const DUPLICATE_REDIAL_MAX: Duration = Duration::from_millis(250);
/// Number of refused connections (ECONNREFUSED) in a row after which a starting node no longer waits for a registered address.
const REFUSALS_BELIEVED: u32 = 2;

/// The settings of the state machine.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) own: Hello,
    pub(crate) nodes_max: usize,
    pub(crate) redial_max: Duration,
    /// The cluster has a registry.
    pub(crate) has_registry: bool,
}

/// A route, from the decision that a connection becomes the route.
#[derive(Debug)]
struct RouteState {
    number: u64,
    peer: Hello,
    /// Time of the peer's last PONG to a PING that was sent because another node claimed its id.
    answered_at: Option<Instant>,
    /// The peer has sent its complete interest.
    is_synced: bool,
    /// The peer was sent this node's complete interest.
    is_snapshot_sent: bool,
    since: Option<Instant>,
}

impl RouteState {
    /// Returns whether both sides have sent their complete interest.
    const fn is_settled(&self) -> bool {
        self.is_synced && self.is_snapshot_sent
    }
}

/// The members of the cluster, as this node knows them.
#[derive(Debug)]
pub(crate) struct Membership {
    rules: Rules,
    addresses: BTreeMap<String, Address>,
    /// Keyed by the peer's id.
    routes: BTreeMap<String, RouteState>,
    /// The run in the registry's record of this node's id, if another node wrote that record.
    registered_namesake: Option<String>,
    leaving: bool,
    rng: StdRng,
}

impl Membership {
    pub(crate) fn new(
        rules: Rules,
        routes: impl IntoIterator<Item = String>,
        seed: u64,
        now: Instant,
    ) -> Self {
        let mut membership = Self {
            rules,
            addresses: BTreeMap::new(),
            routes: BTreeMap::new(),
            registered_namesake: None,
            leaving: false,
            rng: StdRng::seed_from_u64(seed),
        };
        for route in routes {
            if let Some(address) = membership.address(&route, now) {
                address.sources.is_configured = true;
            }
        }
        membership
    }

    /// Returns the entry of the address, which is added if it is new. If the table is full, the entry that was seen longest ago is
    /// evicted, among those that are neither configured, registered, linked nor being dialled. Returns `None` if there is none, or
    /// if the address is this node's own.
    fn address(&mut self, at: &str, now: Instant) -> Option<&mut Address> {
        if at.is_empty() || at == self.rules.own.mesh {
            return None;
        }
        let is_full = self.addresses.len() >= self.rules.nodes_max * ADDRESSES_PER_NODE;
        if is_full && !self.addresses.contains_key(at) {
            let spare = self.addresses.iter().filter(|(_, address)| {
                !address.sources.is_permanent() && !address.is_dialled && !address.is_linked(&self.routes)
            });
            let oldest = spare.min_by_key(|(_, address)| address.seen_at)?.0.clone();
            self.addresses.remove(&oldest);
        }
        let address = self.addresses.entry(at.to_owned());
        Some(address.or_insert_with(|| Address::new(now)))
    }

    /// Replaces the nodes of the registry with `nodes`. `namesake_run` is the run in the registry's record of this node's id, if
    /// another node wrote that record.
    pub(crate) fn registered(&mut self, nodes: &[Peer], namesake_run: Option<String>, now: Instant) {
        let is_other = self.registered_namesake != namesake_run;
        self.registered_namesake = namesake_run;
        for (at, address) in &mut self.addresses {
            address.sources.is_registered = nodes.iter().any(|node| node.mesh == *at);
        }
        for node in nodes {
            self.add_source(node, now, |address| address.sources.is_registered = true);
        }
        if is_other {
            // What is known about the namesake before is no evidence about this record: it is dialled again first.
            let own = &self.rules.own.id;
            let of_namesake = |address: &&mut Address| address.id.as_ref() == Some(own);
            for address in self.addresses.values_mut().filter(of_namesake) {
                address.failures = 0;
                address.dial_at = now;
                address.clear_refusal();
            }
        }
    }

    /// Adds the nodes that a peer has named.
    pub(crate) fn named_by_peer(&mut self, nodes: &[Peer], now: Instant) {
        for node in nodes {
            // A peer may still name the previous run of this node.
            if node.id != self.rules.own.id {
                self.add_source(node, now, |address| {
                    address.sources.is_named_by_peer = true;
                    address.seen_at = now;
                });
            }
        }
    }

    /// Records that `node` may be at its mesh address. A node with this node's own id is dialled as well: it is a duplicate, or the
    /// previous run of this node.
    fn add_source(&mut self, node: &Peer, now: Instant, name: impl FnOnce(&mut Address)) {
        let linked = self.routes.contains_key(&node.id);
        let Some(address) = self.address(&node.mesh, now) else {
            return;
        };
        let was_unnamed = address.sources.is_empty();
        name(address);
        if address.id.as_deref() != Some(&*node.id) {
            address.id = Some(node.id.clone());
            address.answered = false;
        }
        if was_unnamed && !linked {
            // The address is newly named, so it is dialled at once.
            address.dial_at = now;
            address.failures = 0;
            address.answered = false;
        }
    }

    /// Returns the addresses to dial now, and marks them as being dialled. Forgets old addresses.
    pub(crate) fn dials(&mut self, now: Instant) -> Vec<String> {
        let routes = &self.routes;
        self.addresses.retain(|_, address| {
            let forgotten =
                !address.sources.is_permanent() && now.duration_since(address.seen_at) > REMEMBERED;
            !forgotten || address.is_dialled || address.is_linked(routes)
        });
        if self.leaving {
            return Vec::new();
        }
        let mut dials = Vec::new();
        for (at, address) in &mut self.addresses {
            if !address.is_dialled && !address.is_linked(routes) && address.dial_at <= now {
                address.is_dialled = true;
                dials.push(at.clone());
            }
        }
        dials
    }

    /// Returns the time of the next dial.
    pub(crate) fn next_dial(&self) -> Option<Instant> {
        let open = self
            .addresses
            .values()
            .filter(|address| !address.is_dialled && !address.is_linked(&self.routes));
        open.map(|address| address.dial_at)
            .min()
            .filter(|_| !self.leaving)
    }

    /// Records a failed dial. `connects_refused`: with ECONNREFUSED. Returns whether it is the first failure in a row.
    pub(crate) fn dial_failed(&mut self, at: &str, connects_refused: bool, now: Instant) -> bool {
        let (rng, max) = (&mut self.rng, self.rules.redial_max);
        let Some(address) = self.addresses.get_mut(at) else {
            return false;
        };
        address.clear_refusal();
        address.connects_refused = if connects_refused {
            address.connects_refused + 1
        } else {
            0
        };
        address.is_dialled = false;
        address.dial_later(now, rng, max);
        address.failures == 1
    }

    /// Records that the run `run` of the node `id` answered at a dialled address.
    pub(crate) fn answered(&mut self, at: &str, id: &str, run: &str) {
        let is_namesake = id == self.rules.own.id;
        if let Some(address) = self.addresses.get_mut(at) {
            address.namesake_run = is_namesake.then(|| run.to_owned());
        }
    }

    /// Records that the route with the node at a dialled address was refused, by the peer (`theirs`) or by this node. Returns whether
    /// it is the first failure in a row.
    pub(crate) fn dial_refused(
        &mut self,
        at: &str,
        id: &str,
        why: RefusalReason,
        theirs: bool,
        now: Instant,
    ) -> bool {
        let (rng, mut max) = (&mut self.rng, self.rules.redial_max);
        let Some(address) = self.addresses.get_mut(at) else {
            return false;
        };
        address.connects_refused = 0;
        address.refused = Some(why).filter(|why| why.is_fault());
        address.namesake = Namesake::from_refusal(why, theirs, id == self.rules.own.id);
        match why {
            RefusalReason::Linked => address.id = Some(id.to_owned()),
            _ if why.is_duplicate() => {
                max = max.min(DUPLICATE_REDIAL_MAX);
                if address.namesake.is_some() {
                    address.id = Some(id.to_owned());
                }
            }
            // A configured host name may resolve to another node the next time, so it is kept.
            RefusalReason::Itself if !address.sources.is_configured || is_ip(at) => {
                self.addresses.remove(at);
                return false;
            }
            _ => address.answered = true,
        }
        address.is_dialled = false;
        address.dial_later(now, rng, max);
        address.failures == 1
    }

    /// Returns the reason to refuse a route with the node of `hello`, if there is one. Only the side that dials shows the cluster's
    /// credentials. They are checked before a duplicate id counts.
    fn objection(&self, hello: &Hello, dialled: bool, now: Instant) -> Option<RefusalReason> {
        let own = &self.rules.own;
        if hello.id == own.id && hello.run == own.run {
            return Some(RefusalReason::Itself);
        }
        if hello.protocol < PROTOCOL_MIN || hello.protocol_min > own.protocol || !hello.is_sound() {
            return Some(RefusalReason::Protocol);
        }
        // A node without a cluster name takes the name of the cluster that it joins.
        let is_named = !hello.cluster.is_empty() && !own.cluster.is_empty();
        if is_named && hello.cluster != own.cluster {
            return Some(RefusalReason::ClusterName);
        }
        if !dialled
            && !(constant_time_eq(&hello.user, &own.user) & constant_time_eq(&hello.password, &own.password))
        {
            return Some(RefusalReason::Credentials);
        }
        if hello.id == own.id {
            return Some(namesake::refusal_of(own, hello, now));
        }
        if self.leaving {
            return Some(RefusalReason::Leaving);
        }
        let full = self.routes.len() + 1 >= self.rules.nodes_max && !self.routes.contains_key(&hello.id);
        full.then_some(RefusalReason::Full)
    }

    /// Judges a peer that has sent HELLO.
    pub(crate) fn judge_hello(&self, hello: &Hello, dialled: bool, now: Instant) -> Verdict {
        if let Some(why) = self.objection(hello, dialled, now) {
            return Verdict::Refuse { why, probe: None };
        }
        match self.routes.get(&hello.id) {
            Some(route) if route.peer.run != hello.run && !namesake::is_replaced_by(&route.peer, hello) => {
                Verdict::Refuse {
                    why: namesake::refusal(&route.peer, route.answered_at, hello, now),
                    probe: Some(route.number),
                }
            }
            _ => Verdict::Wait,
        }
    }

    /// Judges a peer that has sent WELCOME: it agrees to the route or, if it has the lower id, has decided that this connection is the
    /// route. If the verdict is `Accept`, the connection is route `number`.
    pub(crate) fn judge_welcome(
        &mut self,
        hello: &Hello,
        dialled: bool,
        number: u64,
        now: Instant,
    ) -> Verdict {
        // The state may have changed since HELLO.
        let verdict = self.judge_hello(hello, dialled, now);
        if verdict != Verdict::Wait {
            return verdict;
        }
        let present = self.routes.get(&hello.id);
        let replaces = present.map(|route| route.number);
        let is_theirs = present.is_some_and(|route| route.peer.run == hello.run);
        if self.rules.own.decides_with(hello) && is_theirs {
            let why = RefusalReason::Linked;
            return Verdict::Refuse { why, probe: replaces };
        }
        self.route(hello, number);
        Verdict::Accept { replaces }
    }

    fn route(&mut self, hello: &Hello, number: u64) {
        if self.rules.own.cluster.is_empty() {
            self.rules.own.cluster.clone_from(&hello.cluster);
        }
        let linked = RouteState {
            number,
            peer: hello.clone(),
            answered_at: None,
            is_synced: false,
            is_snapshot_sent: false,
            since: None,
        };
        self.routes.insert(hello.id.clone(), linked);
    }

    /// Records that a route is established. `dialled` is the address that was dialled, or `None` if the peer dialled.
    pub(crate) fn route_established(&mut self, hello: &Hello, dialled: Option<&str>, now: Instant) {
        if let Some(route) = self.routes.get_mut(&hello.id) {
            route.since = Some(now);
        }
        for at in dialled.into_iter().chain([&*hello.mesh]) {
            if let Some(address) = self.address(at, now) {
                address.id = Some(hello.id.clone());
                address.connects_refused = 0;
                address.answered = true;
                address.clear_refusal();
                if dialled == Some(at) {
                    address.is_dialled = false;
                }
            }
        }
    }

    /// Returns the numbers of the routes whose peers sent another cluster name, or none, in HELLO.
    pub(crate) fn with_other_names(&self) -> Vec<u64> {
        let own = &self.rules.own.cluster;
        let others = self.routes.values().filter(|route| route.peer.cluster != *own);
        others.map(|route| route.number).collect()
    }

    fn numbered(&mut self, number: u64) -> Option<&mut RouteState> {
        self.routes.values_mut().find(|route| route.number == number)
    }

    /// Records that the peer has sent its complete interest.
    pub(crate) fn synced(&mut self, number: u64) {
        if let Some(route) = self.numbered(number) {
            route.is_synced = true;
        }
    }

    /// Records that the peer accepts clients.
    pub(crate) fn serves(&mut self, number: u64) {
        if let Some(route) = self.numbered(number) {
            route.peer.serving = true;
        }
    }

    /// Records that the peer accepts no more clients.
    pub(crate) fn drains(&mut self, number: u64) {
        if let Some(route) = self.numbered(number) {
            route.peer.draining = true;
        }
    }

    /// Records that the peer has answered the PING that was sent because another node claimed its id.
    pub(crate) fn claim_answered(&mut self, number: u64, now: Instant) {
        if let Some(route) = self.numbered(number) {
            route.answered_at = Some(now);
        }
    }

    /// Records that the peer was sent this node's complete interest.
    pub(crate) fn snapshot_sent(&mut self, number: u64) {
        if let Some(route) = self.numbered(number) {
            route.is_snapshot_sent = true;
        }
    }

    /// Removes a route that has ended. Its node is dialled again, unless it had sent GOODBYE (`leaves`) and is not configured. Returns
    /// whether the route was known; a route that was replaced is not.
    pub(crate) fn route_ended(&mut self, number: u64, leaves: bool, now: Instant) -> bool {
        let is_it = |(_, route): &(&String, &RouteState)| route.number == number;
        let Some(id) = self.routes.iter().find(is_it).map(|(id, _)| id.clone()) else {
            return false;
        };
        let since = self.routes.remove(&id).and_then(|route| route.since);
        if leaves {
            self.addresses
                .retain(|_, address| address.id.as_ref() != Some(&id) || address.sources.is_configured);
        }
        // Only a route that lasted resets the backoff.
        let was_lasting = since.is_some_and(|since| now.duration_since(since) >= LASTING_ROUTE);
        let (rng, max) = (&mut self.rng, self.rules.redial_max);
        let addresses = self.addresses.values_mut();
        for address in addresses.filter(|address| address.id.as_ref() == Some(&id)) {
            address.seen_at = now;
            address.sources.is_named_by_peer = false;
            address.answered = false;
            if was_lasting {
                address.failures = 0;
            }
            address.dial_later(now, rng, max);
        }
        true
    }

    /// Returns this node's HELLO.
    pub(crate) const fn own(&self) -> &Hello {
        &self.rules.own
    }

    /// Records that this node accepts clients.
    pub(crate) fn serve(&mut self) {
        self.rules.own.serving = true;
    }

    /// Records that this node accepts no more clients.
    pub(crate) fn drain(&mut self) {
        self.rules.own.draining = true;
    }

    /// Records that this node leaves: it dials and accepts no more nodes. Links that are not established yet are dropped.
    pub(crate) fn leave(&mut self) {
        self.leaving = true;
        self.routes.retain(|_, route| route.since.is_some());
    }

    /// Returns whether this node leaves.
    pub(crate) const fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Returns the address of a registered node whose route was refused, and the reason. `None` if there is any route.
    pub(crate) fn refusal(&self) -> Option<(String, RefusalReason)> {
        let registered = self
            .addresses
            .iter()
            .filter(|(_, address)| address.sources.is_registered);
        let mut refused = registered.filter_map(|(at, address)| Some((at.clone(), address.refused?)));
        refused.next().filter(|_| self.routes.is_empty())
    }

    /// Returns the linked nodes, which this node names to its peers.
    pub(crate) fn known(&self) -> Vec<Peer> {
        let peers = self.routes.iter().map(|(id, route)| Peer {
            id: id.clone(),
            mesh: route.peer.mesh.clone(),
        });
        peers.collect()
    }

    /// Returns the number of routes.
    pub(crate) fn len(&self) -> usize {
        self.routes.len()
    }

    /// Returns the addresses for which a starting node waits: linked nodes with which the exchange of interest is not complete, and
    /// nodes that may still become linked.
    pub(crate) fn awaited(&self) -> Vec<String> {
        let awaited = self.addresses.iter().filter(|(_, address)| {
            match address.id.as_ref().and_then(|id| self.routes.get(id)) {
                Some(route) => !route.is_settled(),
                None if address.namesake.is_some_and(|namesake| namesake.yields) => false,
                None => {
                    let believed = if address.sources.is_registered {
                        REFUSALS_BELIEVED
                    } else {
                        1
                    };
                    !address.answered && address.connects_refused < believed && !address.sources.is_empty()
                }
            }
        });
        let unsynced = self.routes.values().filter(|route| !route.is_settled());
        let mut all: Vec<String> = awaited.map(|(at, _)| at.clone()).collect();
        all.extend(unsynced.map(|route| route.peer.mesh.clone()));
        all.sort();
        all.dedup();
        all
    }
}

#[cfg(test)]
mod tests;
