//! Which nodes there are, whom to dial and when, and which of two links between the same nodes survives. Synchronous: what happens
//! goes in, with the time, and what to do comes out.
//!
//! A node is looked for at addresses: those given by hand, those in the registry, those that other nodes name. Once linked, an
//! address is remembered, so the mesh heals without any of these. Of two nodes the one with the lesser id decides which link there
//! is: both may dial, and one that decides alone cannot be of two minds.
//!
//! *Architecture invariant:* the registry informs, only a connection proves: a link is never closed because a registration is gone.

mod address;
mod namesake;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use self::address::{Address, is_ip};
use self::namesake::Namesake;
use crate::auth::same;
use crate::route::handshake::Verdict;
use crate::route::hello::{Hello, PROTOCOL_MIN, Peer, Why};

/// An address that is neither given nor registered, and whose node cannot be reached, is forgotten after this.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// A link that stood so long is dialled again at once when it is lost.
const GOOD_LINK: Duration = Duration::from_secs(5);
/// Addresses for each node that there may be.
const ADDRESSES_PER_NODE: usize = 4;
/// Where the node's id is another's, it may soon be free: such an address is dialled again after this at the latest.
const DUPLICATE_REDIAL_MAX: Duration = Duration::from_millis(250);
/// A registered node whose host says so often that nobody listens is not waited for at start.
const REFUSALS_BELIEVED: u32 = 2;

/// What this node goes by.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) own: Hello,
    pub(crate) nodes_max: usize,
    pub(crate) redial_max: Duration,
    /// The cluster has a registry.
    pub(crate) has_registry: bool,
}

/// A link, from the moment that it is decided on.
#[derive(Debug)]
struct Linked {
    number: u64,
    peer: Hello,
    /// When it last answered because its id was claimed by another one.
    answered_at: Option<Instant>,
    /// The other side has told all its interest.
    is_synced: bool,
    /// The other side was told all of this node's.
    is_told: bool,
    since: Option<Instant>,
}

impl Linked {
    /// Both know all of each other.
    const fn is_settled(&self) -> bool {
        self.is_synced && self.is_told
    }
}

/// See the file's head.
#[derive(Debug)]
pub(crate) struct Membership {
    rules: Rules,
    addresses: BTreeMap<String, Address>,
    /// By the other node's id.
    links: BTreeMap<String, Linked>,
    /// Run in the registry's record of this node's id, if that record is of another node.
    registered_namesake: Option<String>,
    leaving: bool,
    dice: StdRng,
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
            links: BTreeMap::new(),
            registered_namesake: None,
            leaving: false,
            dice: StdRng::seed_from_u64(seed),
        };
        for route in routes {
            if let Some(address) = membership.address(&route, now) {
                address.named.by_hand = true;
            }
        }
        membership
    }

    /// The address, made when it is not known and there is room, or one that only nodes have named can make room.
    fn address(&mut self, at: &str, now: Instant) -> Option<&mut Address> {
        if at.is_empty() || at == self.rules.own.mesh {
            return None;
        }
        let is_full = self.addresses.len() >= self.rules.nodes_max * ADDRESSES_PER_NODE;
        if is_full && !self.addresses.contains_key(at) {
            let spare = self.addresses.iter().filter(|(_, address)| {
                !address.named.is_kept() && !address.is_dialled && !address.is_linked(&self.links)
            });
            let oldest = spare.min_by_key(|(_, address)| address.seen_at)?.0.clone();
            self.addresses.remove(&oldest);
        }
        let address = self.addresses.entry(at.to_owned());
        Some(address.or_insert_with(|| Address::new(now)))
    }

    /// Takes over all that the registry holds now. `namesake_run` is the run in the record of this node's own id, if that
    /// record is of another node.
    pub(crate) fn registered(&mut self, nodes: &[Peer], namesake_run: Option<String>, now: Instant) {
        self.registered_namesake = namesake_run;
        for (at, address) in &mut self.addresses {
            address.named.in_registry = nodes.iter().any(|node| node.mesh == *at);
        }
        for node in nodes {
            self.hear_of(node, now, |address| address.named.in_registry = true);
        }
    }

    /// What another node says of the others.
    pub(crate) fn named(&mut self, nodes: &[Peer], now: Instant) {
        for node in nodes {
            // Others may still name the last life of this node.
            if node.id != self.rules.own.id {
                self.hear_of(node, now, |address| {
                    address.named.by_node = true;
                    address.seen_at = now;
                });
            }
        }
    }

    /// A node may be at this address. One with this node's own id is looked for as well: it is a duplicate, or the last life of this one.
    fn hear_of(&mut self, node: &Peer, now: Instant, name: impl FnOnce(&mut Address)) {
        let linked = self.links.contains_key(&node.id);
        let Some(address) = self.address(&node.mesh, now) else {
            return;
        };
        let was_not = address.named.is_not();
        name(address);
        if address.id.as_deref() != Some(&*node.id) {
            address.id = Some(node.id.clone());
            address.answered = false;
        }
        if was_not && !linked {
            // Somebody has seen it: it is worth trying at once.
            address.dial_at = now;
            address.failures = 0;
            address.answered = false;
        }
    }

    /// The addresses to dial now.
    pub(crate) fn dials(&mut self, now: Instant) -> Vec<String> {
        let links = &self.links;
        self.addresses.retain(|_, address| {
            let forgotten = !address.named.is_kept() && now.duration_since(address.seen_at) > REMEMBERED;
            !forgotten || address.is_dialled || address.is_linked(links)
        });
        if self.leaving {
            return Vec::new();
        }
        let mut dials = Vec::new();
        for (at, address) in &mut self.addresses {
            if !address.is_dialled && !address.is_linked(links) && address.dial_at <= now {
                address.is_dialled = true;
                dials.push(at.clone());
            }
        }
        dials
    }

    /// When there is something to dial next.
    pub(crate) fn next_dial(&self) -> Option<Instant> {
        let open = self
            .addresses
            .values()
            .filter(|address| !address.is_dialled && !address.is_linked(&self.links));
        open.map(|address| address.dial_at)
            .min()
            .filter(|_| !self.leaving)
    }

    /// Nothing came of dialling; `unheard`: its host said that nobody listens there. Returns whether it is the first time in a row.
    pub(crate) fn dial_failed(&mut self, at: &str, unheard: bool, now: Instant) -> bool {
        let (dice, max) = (&mut self.dice, self.rules.redial_max);
        let Some(address) = self.addresses.get_mut(at) else {
            return false;
        };
        address.has_no_word();
        address.unheard = if unheard { address.unheard + 1 } else { 0 };
        address.is_dialled = false;
        address.dial_later(now, dice, max);
        address.failures == 1
    }

    /// Records that the node `id` in its life `run` answered at a dialled address.
    pub(crate) fn answered(&mut self, at: &str, id: &str, run: &str) {
        let is_namesake = id == self.rules.own.id;
        if let Some(address) = self.addresses.get_mut(at) {
            address.namesake_run = is_namesake.then(|| run.to_owned());
        }
    }

    /// There is no link with the node at a dialled address: this side does not want it, or, `theirs`, the other does not. Returns
    /// whether it is the first time in a row.
    pub(crate) fn dial_refused(&mut self, at: &str, id: &str, why: Why, theirs: bool, now: Instant) -> bool {
        let (dice, mut max) = (&mut self.dice, self.rules.redial_max);
        let Some(address) = self.addresses.get_mut(at) else {
            return false;
        };
        address.unheard = 0;
        address.refused = Some(why).filter(|why| why.is_fault());
        address.namesake = Namesake::told(why, theirs, id == self.rules.own.id);
        match why {
            Why::Linked => address.id = Some(id.to_owned()),
            _ if why.is_duplicate() => {
                max = max.min(DUPLICATE_REDIAL_MAX);
                if address.namesake.is_some() {
                    address.id = Some(id.to_owned());
                }
            }
            // A name may lead to others the next time.
            Why::Itself if !address.named.by_hand || is_ip(at) => {
                self.addresses.remove(at);
                return false;
            }
            _ => address.answered = true,
        }
        address.is_dialled = false;
        address.dial_later(now, dice, max);
        address.failures == 1
    }

    /// Whether a link with this node is out of the question. Who was dialled need not show the cluster's credentials; who dials does, before
    /// anything else that it says counts.
    fn objection(&self, hello: &Hello, dialled: bool, now: Instant) -> Option<Why> {
        let own = &self.rules.own;
        if hello.id == own.id && hello.run == own.run {
            return Some(Why::Itself);
        }
        if hello.protocol < PROTOCOL_MIN || hello.protocol_min > own.protocol || !hello.is_sound() {
            return Some(Why::Protocol);
        }
        // A node without a name takes that of the cluster it joins.
        let is_named = !hello.cluster.is_empty() && !own.cluster.is_empty();
        if is_named && hello.cluster != own.cluster {
            return Some(Why::ClusterName);
        }
        if !dialled && !(same(&hello.user, &own.user) & same(&hello.password, &own.password)) {
            return Some(Why::Credentials);
        }
        if hello.id == own.id {
            return Some(namesake::refusal_of(own, hello, now));
        }
        if self.leaving {
            return Some(Why::Leaving);
        }
        let full = self.links.len() + 1 >= self.rules.nodes_max && !self.links.contains_key(&hello.id);
        full.then_some(Why::Full)
    }

    /// The other side of a connection has introduced itself: is there anything against it?
    pub(crate) fn greet(&self, hello: &Hello, dialled: bool, now: Instant) -> Verdict {
        if let Some(why) = self.objection(hello, dialled, now) {
            return Verdict::Refuse { why, probe: None };
        }
        match self.links.get(&hello.id) {
            Some(link) if link.peer.run != hello.run && !namesake::gives_way(&link.peer, hello) => {
                Verdict::Refuse {
                    why: namesake::refusal(&link.peer, link.answered_at, hello, now),
                    probe: Some(link.number),
                }
            }
            _ => Verdict::Wait,
        }
    }

    /// The other side has nothing against it; or, when that one decides, has decided that this connection is the link. When it is
    /// accepted, it is link `number`.
    pub(crate) fn welcomed(&mut self, hello: &Hello, dialled: bool, number: u64, now: Instant) -> Verdict {
        // Much may have happened since it was greeted.
        let verdict = self.greet(hello, dialled, now);
        if verdict != Verdict::Wait {
            return verdict;
        }
        let present = self.links.get(&hello.id);
        let replaces = present.map(|link| link.number);
        let is_theirs = present.is_some_and(|link| link.peer.run == hello.run);
        if self.rules.own.decides_with(hello) && is_theirs {
            let why = Why::Linked;
            return Verdict::Refuse { why, probe: replaces };
        }
        self.link(hello, number);
        Verdict::Accept { replaces }
    }

    fn link(&mut self, hello: &Hello, number: u64) {
        if self.rules.own.cluster.is_empty() {
            self.rules.own.cluster.clone_from(&hello.cluster);
        }
        let linked = Linked {
            number,
            peer: hello.clone(),
            answered_at: None,
            is_synced: false,
            is_told: false,
            since: None,
        };
        self.links.insert(hello.id.clone(), linked);
    }

    /// The link stands; it was dialled at this address, or came from outside.
    pub(crate) fn link_stands(&mut self, hello: &Hello, dialled: Option<&str>, now: Instant) {
        if let Some(link) = self.links.get_mut(&hello.id) {
            link.since = Some(now);
        }
        for at in dialled.into_iter().chain([&*hello.mesh]) {
            if let Some(address) = self.address(at, now) {
                address.id = Some(hello.id.clone());
                address.unheard = 0;
                address.answered = true;
                address.has_no_word();
                if dialled == Some(at) {
                    address.is_dialled = false;
                }
            }
        }
    }

    /// The links with nodes that had introduced themselves under another name of the cluster, or none.
    pub(crate) fn with_other_names(&self) -> Vec<u64> {
        let own = &self.rules.own.cluster;
        let others = self.links.values().filter(|link| link.peer.cluster != *own);
        others.map(|link| link.number).collect()
    }

    fn numbered(&mut self, number: u64) -> Option<&mut Linked> {
        self.links.values_mut().find(|link| link.number == number)
    }

    /// The other side has told all its interest.
    pub(crate) fn synced(&mut self, number: u64) {
        if let Some(link) = self.numbered(number) {
            link.is_synced = true;
        }
    }

    /// The other side takes clients from now on.
    pub(crate) fn serves(&mut self, number: u64) {
        if let Some(link) = self.numbered(number) {
            link.peer.serving = true;
        }
    }

    /// The other side takes no clients any more.
    pub(crate) fn drains(&mut self, number: u64) {
        if let Some(link) = self.numbered(number) {
            link.peer.draining = true;
        }
    }

    /// The other side was asked for a sign of life, because its id was claimed, and has given it.
    pub(crate) fn lives(&mut self, number: u64, now: Instant) {
        if let Some(link) = self.numbered(number) {
            link.answered_at = Some(now);
        }
    }

    /// The other side was told all interest here: from now on clients' flushes wait for it.
    pub(crate) fn told(&mut self, number: u64) {
        if let Some(link) = self.numbered(number) {
            link.is_told = true;
        }
    }

    /// A link is gone. The other node is dialled again, unless it has said that it leaves. Returns whether it was the link with that node.
    pub(crate) fn link_lost(&mut self, number: u64, leaves: bool, now: Instant) -> bool {
        let is_it = |(_, link): &(&String, &Linked)| link.number == number;
        let Some(id) = self.links.iter().find(is_it).map(|(id, _)| id.clone()) else {
            return false;
        };
        let since = self.links.remove(&id).and_then(|link| link.since);
        if leaves {
            self.addresses
                .retain(|_, address| address.id.as_ref() != Some(&id) || address.named.by_hand);
        }
        // One that breaks again and again is dialled less and less often.
        let was_good = since.is_some_and(|since| now.duration_since(since) >= GOOD_LINK);
        let (dice, max) = (&mut self.dice, self.rules.redial_max);
        let addresses = self.addresses.values_mut();
        for address in addresses.filter(|address| address.id.as_ref() == Some(&id)) {
            address.seen_at = now;
            address.named.by_node = false;
            address.answered = false;
            if was_good {
                address.failures = 0;
            }
            address.dial_later(now, dice, max);
        }
        true
    }

    /// What this node says of itself now.
    pub(crate) const fn own(&self) -> &Hello {
        &self.rules.own
    }

    /// This node takes clients from now on.
    pub(crate) fn serve(&mut self) {
        self.rules.own.serving = true;
    }

    /// It takes none any more.
    pub(crate) fn drain(&mut self) {
        self.rules.own.draining = true;
    }

    /// This node leaves: nobody is dialled or taken any more. Links that were decided on and do not stand yet will not.
    pub(crate) fn leave(&mut self) {
        self.leaving = true;
        self.links.retain(|_, link| link.since.is_some());
    }

    /// Whether this node leaves.
    pub(crate) const fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Where a registered node is that does not want a link, and why, when there is no link at all.
    pub(crate) fn refusal(&self) -> Option<(String, Why)> {
        let registered = self
            .addresses
            .iter()
            .filter(|(_, address)| address.named.in_registry);
        let mut refused = registered.filter_map(|(at, address)| Some((at.clone(), address.refused?)));
        refused.next().filter(|_| self.links.is_empty())
    }

    /// The other nodes as this one would name them: those it is linked with.
    pub(crate) fn known(&self) -> Vec<Peer> {
        let peers = self.links.iter().map(|(id, link)| Peer {
            id: id.clone(),
            mesh: link.peer.mesh.clone(),
        });
        peers.collect()
    }

    /// How many links there are.
    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }

    /// The addresses whose nodes have not yet told all their interest, or were not yet told this node's, and may still.
    pub(crate) fn awaited(&self) -> Vec<String> {
        let awaited = self.addresses.iter().filter(|(_, address)| {
            match address.id.as_ref().and_then(|id| self.links.get(id)) {
                Some(link) => !link.is_settled(),
                None if address.namesake.is_some_and(|namesake| namesake.yields) => false,
                None => {
                    let believed = if address.named.in_registry {
                        REFUSALS_BELIEVED
                    } else {
                        1
                    };
                    !address.answered && address.unheard < believed && !address.named.is_not()
                }
            }
        });
        let unsynced = self.links.values().filter(|link| !link.is_settled());
        let mut all: Vec<String> = awaited.map(|(at, _)| at.clone()).collect();
        all.extend(unsynced.map(|link| link.peer.mesh.clone()));
        all.sort();
        all.dedup();
        all
    }
}

#[cfg(test)]
mod tests;
