//! One node of a simulated mesh, and its ends of links: what [`keeper`](crate::mesh::keeper) and [`task`](crate::mesh::task) do, without
//! sockets and timers.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use standin_wire::client::Publish;

use crate::closing::Reason;
use crate::flush::{ClientFlush, Flush};
use crate::interest::{Interest, Scope};
use crate::mesh::inbound::{Heard, Inbound};
use crate::mesh::membership::{Membership, Rules};
use crate::outbox::{Outbox, Wire};
use crate::route::frame;
use crate::route::hello::{Hello, PROTOCOL, PROTOCOL_MIN, Peer, put_json};
use crate::route::link::Link;
use crate::router::Router;
use crate::subscription::Subscription;
use crate::subscriptions::Cursor;

/// A peer that is silent for so long is lost; everybody says something three times as often.
const SILENCE_MAX: Duration = Duration::from_millis(900);
const SIGN_OF_LIFE: Duration = Duration::from_millis(300);
const FLUSH_TIMEOUT: Duration = Duration::from_millis(200);

/// A client that waits for a change to be known everywhere.
pub(super) struct Waiting {
    flush: ClientFlush,
    client: Arc<Outbox>,
    subscription: Arc<Subscription>,
}

/// Subjects and queue groups that a node's clients listen to, and how many members those have: 1 where there is no group.
pub(super) type Wanted = BTreeMap<(Vec<u8>, Option<Vec<u8>>), u32>;

/// This node's end of a link.
pub(super) struct End {
    pub(super) connection: usize,
    pub(super) peer: usize,
    pub(super) link: Arc<Link>,
    inbound: Inbound,
    telling: Option<Cursor>,
    held: Vec<u8>,
    heard: Instant,
    said: Instant,
    is_claimed: bool,
    leaves: bool,
}

pub(super) struct Node {
    pub(super) own: Hello,
    pub(super) membership: Membership,
    pub(super) interest: Interest,
    pub(super) flush: Flush,
    pub(super) router: Router,
    pub(super) ends: BTreeMap<u64, End>,
    /// What was sent over links, and to clients.
    pub(super) wire: Wire,
    pub(super) clients_wire: Wire,
    pub(super) subscriptions: Vec<Arc<Subscription>>,
    pub(super) waiting: Vec<Waiting>,
    pub(super) numbers: u64,
    clients: u64,
    pub(super) frozen_until: Instant,
    pub(super) bytes_sent: usize,
    /// It says nothing for the sake of a sign of life, and asks nobody for one.
    pub(super) is_patient: bool,
}

pub(super) fn mesh_address(number: usize) -> String {
    format!("10.0.0.{}:6222", number + 1)
}

impl Node {
    pub(super) fn new(number: usize, run: u64, routes: Vec<String>, seed: u64, now: Instant) -> Self {
        let own = Hello {
            protocol: PROTOCOL,
            protocol_min: PROTOCOL_MIN,
            id: format!("node-{number:03}"),
            run: run.to_string(),
            began: run,
            mesh: mesh_address(number),
            // Whoever serves is waited for from the beginning.
            serving: (seed ^ run).is_multiple_of(2),
            ..Hello::default()
        };
        let rules = Rules {
            own: own.clone(),
            nodes_max: 200,
            redial_max: Duration::from_millis(500),
            has_registry: false,
        };
        let mut router = Router::new(0, 1000);
        router.seed(seed ^ run);
        Self {
            membership: Membership::new(rules, routes, seed ^ run ^ number as u64, now),
            own,
            interest: Interest::new(),
            flush: Flush::default(),
            router,
            ends: BTreeMap::new(),
            wire: Wire::default(),
            clients_wire: Wire::default(),
            subscriptions: Vec::new(),
            waiting: Vec::new(),
            numbers: 0,
            clients: 0,
            frozen_until: now,
            bytes_sent: 0,
            is_patient: false,
        }
    }

    /// The connection is the link, as `Keeper::install` and `Task::new` have it.
    pub(super) fn install(
        &mut self,
        number: u64,
        connection: usize,
        peer: usize,
        hello: Hello,
        dialled: bool,
        now: Instant,
    ) {
        let at = dialled.then(|| mesh_address(peer));
        self.membership.link_stands(&hello, at.as_deref(), now);
        let newcomer = [Peer {
            id: hello.id.clone(),
            mesh: hello.mesh.clone(),
        }];
        let mut word = Vec::new();
        put_json(&mut word, frame::PEERS, &newcomer);
        self.ends.values().for_each(|end| end.link.outbox.append(&word));
        let known = self.membership.known();
        let others: Vec<Peer> = known.into_iter().filter(|peer| peer.id != hello.id).collect();
        let mut greeting = Vec::new();
        put_json(&mut greeting, frame::PEERS, &others);
        let outbox = Arc::new(Outbox::on_wire(u64::MAX - number, 1, &self.wire));
        outbox.append(&greeting);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let link = Arc::new(Link::new(number, outbox, hello, address, dialled));
        self.interest.add_link(&link);
        let end = End {
            connection,
            peer,
            inbound: Inbound::new(Arc::clone(&link), &self.interest),
            link,
            telling: Some(Cursor::default()),
            held: Vec::new(),
            heard: now,
            said: now,
            is_claimed: false,
            leaves: false,
        };
        self.ends.insert(number, end);
    }

    /// Bytes came over a link.
    pub(super) fn take(&mut self, number: u64, bytes: &[u8], now: Instant) -> Result<(), Reason> {
        let Some(end) = self.ends.get_mut(&number) else {
            return Ok(());
        };
        end.heard = now;
        end.held.extend_from_slice(bytes);
        let mut heard = Vec::new();
        self.router.begin_turn();
        let taken = end.inbound.take(
            &end.held,
            &self.interest,
            &self.flush,
            &mut self.router,
            &mut heard,
        )?;
        end.held.drain(..taken);
        if end.inbound.took_pong() {
            end.is_claimed = false;
            self.membership.lives(number, now);
        }
        for heard in heard {
            match heard {
                Heard::Synced => self.membership.synced(number),
                Heard::Peers(peers) => self.membership.named(&peers, now),
                Heard::Goodbye => end.leaves = true,
                Heard::Serving | Heard::Draining => {}
            }
        }
        Ok(())
    }

    /// What is due: the next pieces of what is there to tell, a sign of life, members of groups. Returns the links that are lost.
    pub(super) fn work(&mut self, now: Instant) -> Vec<u64> {
        self.interest.announce_members();
        let mut lost = Vec::new();
        for (number, end) in &mut self.ends {
            if let Some(told) = &mut end.telling {
                let link = &end.link;
                let done = (0..16).any(|_| self.interest.tell_piece(told, link));
                if done {
                    end.telling = None;
                    self.membership.told(*number);
                }
            }
            let due = now >= end.said + SIGN_OF_LIFE && !self.is_patient;
            let claimed = !end.is_claimed && end.link.take_claim();
            if due || claimed || end.link.take_probe() {
                end.is_claimed |= claimed;
                let mut ping = Vec::new();
                frame::put_ping(&mut ping, if claimed { frame::PROBE } else { 0 });
                end.link.outbox.append(&ping);
                end.said = now;
            }
            let silent = now > end.heard + SILENCE_MAX && !self.is_patient;
            if silent || end.link.outbox.reason().is_some() {
                lost.push(*number);
            }
        }
        lost
    }

    /// A link is gone, as `Task::let_go` has it.
    pub(super) fn let_go(&mut self, number: u64, now: Instant) -> Option<usize> {
        let mut end = self.ends.remove(&number)?;
        end.inbound.end(&self.interest);
        self.interest.remove_link(&end.link);
        self.flush.wake(&self.interest.links);
        end.link.outbox.gone();
        self.membership.link_lost(number, end.leaves, now);
        Some(end.connection)
    }

    pub(super) fn publish(&mut self, subject: &[u8], payload: &[u8]) {
        let message = Publish {
            subject,
            reply: None,
            headers: None,
            payload,
        };
        let publisher = Arc::new(Outbox::unconnected(0));
        let found = self.router.cache.find(subject, &self.interest);
        let fresh = self.interest.recipients(subject, Scope::Whole);
        assert_eq!(found.recipients.len(), fresh.len(), "what is remembered holds");
        self.router
            .publish(&publisher, &message, &found.recipients, &self.interest);
    }

    /// A client comes, and subscribes as [`Client`](crate::client::Client) has it.
    pub(super) fn subscribe(&mut self, subject: &str, queue: Option<&str>) -> Arc<Subscription> {
        self.clients += 1;
        let client = Arc::new(Outbox::on_wire(self.clients, 1, &self.clients_wire));
        let subscription = Arc::new(Subscription::new(
            Arc::clone(&client),
            subject.as_bytes(),
            queue.map(str::as_bytes),
            b"1",
        ));
        let mut flush = ClientFlush::default();
        flush.suppress_in_flight(&client, &self.interest);
        flush.changed(self.interest.subscribe(&subscription).change);
        flush.ask_all(&self.interest.links, &mut self.router.stage);
        self.subscriptions.push(Arc::clone(&subscription));
        self.ping(flush, client, &subscription);
        subscription
    }

    /// The client sends PING.
    fn ping(&mut self, mut flush: ClientFlush, client: Arc<Outbox>, subscription: &Arc<Subscription>) {
        flush.ping(&client, &self.flush, &self.interest, &mut self.router.stage);
        if flush.is_begun() {
            self.waiting.push(Waiting {
                flush,
                client,
                subscription: Arc::clone(subscription),
            });
        }
    }

    /// A client that is there already subscribes to more.
    pub(super) fn subscribe_more(&mut self, client: &Arc<Outbox>, subject: &str) {
        let subscription = Arc::new(Subscription::new(
            Arc::clone(client),
            subject.as_bytes(),
            None,
            b"2",
        ));
        let mut flush = ClientFlush::default();
        flush.changed(self.interest.subscribe(&subscription).change);
        self.subscriptions.push(Arc::clone(&subscription));
        self.ping(flush, Arc::clone(client), &subscription);
    }

    pub(super) fn unsubscribe(&mut self, number: usize) {
        let gone = self.subscriptions.swap_remove(number);
        self.interest.unsubscribe(&gone);
    }

    pub(super) fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::new();
        for one in &self.subscriptions {
            let what = (one.subject().to_vec(), one.queue().map(<[u8]>::to_vec));
            let members = wanted.entry(what).or_insert(0);
            *members = if one.queue().is_some() { *members + 1 } else { 1 };
        }
        wanted
    }

    /// A client goes.
    pub(super) fn leave(&mut self, subscription: &Arc<Subscription>) {
        let number = self
            .subscriptions
            .iter()
            .position(|one| Arc::ptr_eq(one, subscription));
        self.unsubscribe(number.expect("it is here"));
    }

    /// Those who wait no longer, each with whether all links know.
    pub(super) fn flushed(&mut self, now: Instant) -> Vec<(bool, Arc<Subscription>)> {
        let (all, links) = (&self.flush, &self.interest.links);
        let stage = &mut self.router.stage;
        let mut done = Vec::new();
        self.waiting.retain_mut(|waiting| {
            let Waiting {
                flush,
                client,
                subscription,
            } = waiting;
            let given_up = all.given_up();
            if flush.is_waiting(client, FLUSH_TIMEOUT, all, links, now) {
                return true;
            }
            flush.go_on(client, stage);
            done.push((all.given_up() == given_up, Arc::clone(subscription)));
            false
        });
        done
    }
}
