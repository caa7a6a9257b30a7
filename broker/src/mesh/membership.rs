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

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use self::address::{Address, is_ip};
use self::namesake::Namesake;
use crate::account::Accounts;
use crate::auth::constant_time_eq;
use crate::route::handshake::{RefusedRoute, Verdict};
use crate::route::hello::{ACCOUNTS, Hello, PROTOCOL_MIN, Peer, RefusalReason};

/// Time after which an address that is neither configured, registered nor linked is forgotten.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// Minimum age of a route whose loss resets the backoff of its addresses.
const LASTING_ROUTE: Duration = Duration::from_secs(5);
/// Limit on known addresses, as a multiple of `nodes_max`.
const ADDRESSES_PER_NODE: usize = 4;
/// Maximum redial delay after a refusal because of a duplicate id. The id is free as soon as the other node ends.
const DUPLICATE_REDIAL_MAX: Duration = Duration::from_millis(250);
/// Number of refused connections (ECONNREFUSED) in a row after which a starting node no longer waits for a registered address.
const CONNECTS_REFUSED_MAX: u32 = 2;

/// The settings of the state machine.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) own: Hello,
    pub(crate) nodes_max: usize,
    pub(crate) redial_max: Duration,
    /// The cluster has a registry.
    pub(crate) has_registry: bool,
    /// The accounts of this node. If there are any, each peer must know accounts.
    pub(crate) accounts: Arc<Accounts>,
}

/// State of a route, from the decision that a connection becomes the route.
#[derive(Debug, Default)]
pub(super) struct RouteState {
    number: u64,
    pub(super) peer: Hello,
    /// Time of the peer's last PONG to a PING that was sent because another node claimed its id.
    pub(super) answered_at: Option<Instant>,
    /// The peer has sent its complete interest.
    pub(super) is_synced: bool,
    /// The peer was sent this node's complete interest.
    pub(super) is_snapshot_sent: bool,
    /// `None` until the route is established.
    since: Option<Instant>,
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
                address.is_configured = true;
            }
        }
        membership
    }

    /// Returns the entry of the address, which is added if it is new. If the table is full, the least recently seen
    /// of the entries that are neither configured, registered, linked nor being dialled is evicted. Returns `None` if there is no
    /// such entry, or if the address is this node's own.
    fn address(&mut self, at: &str, now: Instant) -> Option<&mut Address> {
        if at.is_empty() || at == self.rules.own.mesh {
            return None;
        }
        let is_full = self.addresses.len() >= self.rules.nodes_max * ADDRESSES_PER_NODE;
        if is_full && !self.addresses.contains_key(at) {
            let addresses = self.addresses.iter();
            let open = addresses.filter(|(_, address)| address.is_open(&self.routes));
            let spare = open.filter(|(_, address)| !address.is_permanent());
            let oldest = spare.min_by_key(|(_, address)| address.seen_at)?.0.clone();
            self.addresses.remove(&oldest);
        }
        let address = self.addresses.entry(at.to_owned());
        Some(address.or_insert_with(|| Address::new(now)))
    }

    /// Replaces the nodes of the registry with `nodes`. `namesake_run` is the run in the registry's record of this node's id, if
    /// another node wrote that record.
    pub(crate) fn registered(&mut self, nodes: &[Peer], namesake_run: Option<String>, now: Instant) {
        let is_changed = self.registered_namesake != namesake_run;
        self.registered_namesake = namesake_run;
        for (at, address) in &mut self.addresses {
            address.is_registered = nodes.iter().any(|node| node.mesh == *at);
        }
        for node in nodes {
            self.add_source(node, now, |address| address.is_registered = true);
        }
        if is_changed {
            // The results of earlier dials to a namesake do not apply to the new record, so the namesake is dialled again.
            let own = &self.rules.own.id;
            let of_namesake = |address: &&mut Address| address.id.as_ref() == Some(own);
            for address in self.addresses.values_mut().filter(of_namesake) {
                address.failures = 0;
                address.dial_at = now;
                address.clear_refusal();
            }
        }
    }

    pub(crate) fn named_by_peer(&mut self, nodes: &[Peer], now: Instant) {
        for node in nodes {
            // A peer may still name the previous run of this node.
            if node.id != self.rules.own.id {
                self.add_named_by_peer(node, now);
            }
        }
    }

    fn add_named_by_peer(&mut self, node: &Peer, now: Instant) {
        self.add_source(node, now, |address| {
            address.is_named_by_peer = true;
            address.seen_at = now;
        });
    }

    /// Records that `node` may be at its mesh address. A node with this node's own id is dialled as well: it is a duplicate, or the
    /// previous run of this node.
    fn add_source(&mut self, node: &Peer, now: Instant, name: impl FnOnce(&mut Address)) {
        let linked = self.routes.contains_key(&node.id);
        let Some(address) = self.address(&node.mesh, now) else {
            return;
        };
        let was_unnamed = !address.is_named();
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
            let is_recent = now.duration_since(address.seen_at) <= REMEMBERED;
            is_recent || address.is_permanent() || !address.is_open(routes)
        });
        if self.leaving {
            return Vec::new();
        }
        let addresses = self.addresses.iter_mut();
        let open = addresses.filter(|(_, address)| address.is_open(routes));
        let due = open.filter(|(_, address)| address.dial_at <= now);
        due.map(|(at, address)| {
            address.is_dialled = true;
            at.clone()
        })
        .collect()
    }

    pub(crate) fn next_dial(&self) -> Option<Instant> {
        let addresses = self.addresses.values().filter(|_| !self.leaving);
        let open = addresses.filter(|address| address.is_open(&self.routes));
        open.map(|address| address.dial_at).min()
    }

    /// Records a failed dial. `is_refused`: the error was ECONNREFUSED. Returns whether it is the first failure in a row.
    pub(crate) fn dial_failed(&mut self, at: &str, is_refused: bool, now: Instant) -> bool {
        let Some(address) = self.addresses.get_mut(at) else {
            return false;
        };
        address.clear_refusal();
        let refusals = address.connects_refused + 1;
        address.connects_refused = if is_refused { refusals } else { 0 };
        address.is_dialled = false;
        address.dial_later(now, &mut self.rng, self.rules.redial_max)
    }

    /// Records that the route with the node at a dialled address was refused. Returns whether it is the first failure in a row.
    pub(crate) fn dial_refused(&mut self, at: &str, refused: &RefusedRoute, now: Instant) -> bool {
        let (why, mut max) = (refused.why, self.rules.redial_max);
        let Some(address) = self.addresses.get_mut(at) else {
            return false;
        };
        let is_own = refused.id == self.rules.own.id;
        address.connects_refused = 0;
        address.namesake_run = is_own.then(|| refused.run.clone());
        address.refusal = why.is_fault().then(|| refused.text.clone());
        address.namesake = Namesake::from_refusal(why, refused.by_peer, is_own);
        if why == RefusalReason::Linked || address.namesake.is_some() {
            address.id = Some(refused.id.clone());
        }
        match why {
            RefusalReason::Linked => {}
            _ if why.is_duplicate() => max = max.min(DUPLICATE_REDIAL_MAX),
            // A configured host name may resolve to another node the next time, so it is kept.
            RefusalReason::Itself if !address.is_configured || is_ip(at) => {
                self.addresses.remove(at);
                return false;
            }
            _ => address.answered = true,
        }
        address.is_dialled = false;
        address.dial_later(now, &mut self.rng, max)
    }

    /// Records that the route with a node that dialled this one was refused. If the refusal shows another node with this node's id,
    /// the peer is dialled, because such nodes are recorded only from the answers to this node's own dials.
    pub(crate) fn accept_refused(&mut self, refused: &RefusedRoute, now: Instant) {
        let is_own = refused.id == self.rules.own.id;
        if Namesake::from_refusal(refused.why, refused.by_peer, is_own).is_some() {
            let (id, mesh) = (refused.id.clone(), refused.mesh.clone());
            self.add_named_by_peer(&Peer { id, mesh }, now);
        }
    }

    /// Returns the reason to refuse a route with the node of `hello`, if there is one. Only the side that dials shows the cluster's
    /// credentials. They are checked before a duplicate id.
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
            && !(constant_time_eq(&hello.user, &own.user)
                & constant_time_eq(hello.password.reveal(), own.password.reveal()))
        {
            return Some(RefusalReason::Credentials);
        }
        if hello.id == own.id {
            // A draining node ends soon, so this node should try again.
            let is_ending = hello.draining.then_some(RefusalReason::DuplicateId);
            return is_ending.or_else(|| Some(namesake::refusal(own, Some(now), hello, now)));
        }
        if !self.rules.accounts.is_empty() && !hello.features.iter().any(|feature| feature == ACCOUNTS) {
            return Some(RefusalReason::Accounts);
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
        if self.rules.own.cluster.is_empty() {
            self.rules.own.cluster.clone_from(&hello.cluster);
        }
        let route = RouteState {
            number,
            peer: hello.clone(),
            ..RouteState::default()
        };
        self.routes.insert(hello.id.clone(), route);
        Verdict::Accept { replaces }
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

    pub(super) fn update(&mut self, number: u64, change: impl FnOnce(&mut RouteState)) {
        if let Some(route) = self.routes.values_mut().find(|route| route.number == number) {
            change(route);
        }
    }

    /// Removes a route that has ended. Its node is dialled again, unless it had sent GOODBYE and is not configured. Returns
    /// whether the route was known; a route that was replaced is not.
    pub(crate) fn route_ended(&mut self, number: u64, sent_goodbye: bool, now: Instant) -> bool {
        let mut routes = self.routes.values();
        let route = routes.find(|route| route.number == number);
        let id = route.map(|route| route.peer.id.clone());
        let Some((id, route)) = id.and_then(|id| self.routes.remove_entry(&id)) else {
            return false;
        };
        if sent_goodbye {
            self.addresses
                .retain(|_, address| address.id.as_ref() != Some(&id) || address.is_configured);
        }
        // Only a route that lasted resets the backoff.
        let lasted = |since| now.duration_since(since) >= LASTING_ROUTE;
        let was_lasting = route.since.is_some_and(lasted);
        let addresses = self.addresses.values_mut();
        for address in addresses.filter(|address| address.id.as_ref() == Some(&id)) {
            address.seen_at = now;
            address.is_named_by_peer = false;
            address.answered = false;
            if was_lasting {
                address.failures = 0;
            }
            address.dial_later(now, &mut self.rng, self.rules.redial_max);
        }
        true
    }

    pub(crate) const fn own(&self) -> &Hello {
        &self.rules.own
    }

    pub(crate) const fn own_mut(&mut self) -> &mut Hello {
        &mut self.rules.own
    }

    /// Records that this node leaves: it dials and accepts no more nodes. Routes that are not established yet are dropped.
    pub(crate) fn leave(&mut self) {
        self.leaving = true;
        self.routes.retain(|_, route| route.since.is_some());
    }

    pub(crate) const fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Returns the address of a registered node whose route was refused, and the reason. `None` if there is any route.
    pub(crate) fn refusal(&self) -> Option<(String, String)> {
        let mut addresses = self.addresses.iter().filter(|_| self.routes.is_empty());
        addresses.find_map(|(at, address)| {
            let text = address.refusal.as_ref().filter(|_| address.is_registered)?;
            Some((at.clone(), text.clone()))
        })
    }

    /// Returns the linked nodes except the node `id`, which gets them in PEERS.
    pub(crate) fn others_than(&self, id: &str) -> Vec<Peer> {
        let others = self.routes.values().filter(|route| route.peer.id != id);
        others.map(|route| Peer::of(&route.peer)).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.routes.len()
    }

    /// Returns the number of known nodes without a route: those that a source names, and those whose route was lost in the last hour and
    /// that did not say that they leave. An address whose node is not known counts as a node.
    pub(crate) fn unlinked(&self) -> usize {
        let addresses = self.addresses.iter();
        let unlinked = addresses.filter(|(_, address)| {
            // The addresses of this node itself and of its namesakes are not those of other nodes.
            let is_own = address.namesake_run.is_some() || address.id.as_ref() == Some(&self.rules.own.id);
            !is_own && !address.is_linked(&self.routes)
        });
        let nodes: BTreeSet<&String> = unlinked
            .map(|(at, address)| address.id.as_ref().unwrap_or(at))
            .collect();
        nodes.len()
    }

    /// Returns the addresses for which a starting node waits: linked nodes with which the exchange of interest is not complete, and
    /// nodes that may still become linked.
    pub(crate) fn awaited(&self) -> Vec<String> {
        let is_settled = |route: &RouteState| route.is_synced && route.is_snapshot_sent;
        let is_awaited = |address: &Address| match address.id.as_ref().and_then(|id| self.routes.get(id)) {
            Some(route) => !is_settled(route),
            None if address.namesake.is_some_and(|namesake| namesake.yields) => false,
            None => {
                let refused_max = if address.is_registered {
                    CONNECTS_REFUSED_MAX
                } else {
                    1
                };
                !address.answered && address.connects_refused < refused_max && address.is_named()
            }
        };
        let awaited = self.addresses.iter().filter(|(_, address)| is_awaited(address));
        let unsettled = self.routes.values().filter(|route| !is_settled(route));
        let awaited = awaited.map(|(at, _)| at);
        let addresses = awaited.chain(unsettled.map(|route| &route.peer.mesh));
        let addresses: BTreeSet<&String> = addresses.collect();
        addresses.into_iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests;
