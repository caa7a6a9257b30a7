//! One node of a simulated mesh, without sockets, timers or threads: its keeper, the sessions of its routes, and the routers of two
//! workers. A worker may be stopped for a few steps when its batch has been sent to only some of its recipients.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;
use standin_wire::client::Publish;
use tokio::sync::mpsc::{Receiver, channel};

use crate::client::Client;
use crate::client_info::ClientInfo;
use crate::close_reason::CloseReason;
use crate::flush::ClientFlush;
use crate::interest::Scope;
use crate::interest::announcing::{Picture, picture_of};
use crate::mesh::keeper::{Keeper, TICK};
use crate::mesh::membership::{Membership, Rules};
use crate::mesh::session::RouteSession;
use crate::moves::Moves;
use crate::outbox::{Outbox, Wire};
use crate::route::event::RouteEvent;
use crate::route::hello::{FEATURES, Hello, PROTOCOL, PROTOCOL_MIN};
use crate::router::Router;
use crate::settings::{Millis, Settings};
use crate::shared::Shared;
use crate::shell::Session;
use crate::subscription::Subscription;

const WORKERS: usize = 2;
const EVENTS_MAX: usize = 10_000;
/// Longer than a message and its ack take, even if a stopped worker delays each of them.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);
static SETTINGS: LazyLock<Settings> = LazyLock::new(|| {
    let text = format!("[process]\nworkers = {WORKERS}\n[cluster]\nsync_timeout_ms = 2000\n");
    Settings::from_toml(&text).expect("settings")
});

/// The side of a route that belongs to this node.
pub(super) struct End {
    pub(super) connection: usize,
    pub(super) peer: usize,
    pub(super) session: RouteSession,
    held: Vec<u8>,
}

pub(super) struct Node {
    pub(super) own: Hello,
    pub(super) shared: Arc<Shared>,
    pub(super) keeper: Keeper,
    events: Receiver<(u64, RouteEvent)>,
    next_tick: Instant,
    workers: Vec<Router>,
    /// Number of steps for which each worker is still stopped.
    stopped_steps: [u32; WORKERS],
    pub(super) ends: BTreeMap<u64, End>,
    /// Output for routes, and for clients.
    pub(super) wire: Wire,
    pub(super) clients_wire: Wire,
    pub(super) subscriptions: Vec<Arc<Subscription>>,
    /// Clients whose PONG waits for acks of a subscription.
    pub(super) waiting: Vec<(ClientFlush, Arc<Subscription>)>,
    clients: u64,
    /// Clients as the broker serves them, with their unprocessed bytes.
    connected: BTreeMap<u64, (Client, Vec<u8>)>,
    pub(super) frozen_until: Instant,
    pub(super) bytes_sent: usize,
}

pub(super) fn mesh_address(number: usize) -> String {
    format!("10.0.0.{}:6222", number + 1)
}

impl Node {
    pub(super) fn new(
        number: usize,
        run: u64,
        routes: Vec<String>,
        seed: u64,
        ping_interval_ms: u64,
        now: Instant,
    ) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let mut settings = SETTINGS.clone();
        settings.cluster.ping_interval_ms = Millis(ping_interval_ms);
        settings.cluster.ping_timeout_ms = Millis(2 * ping_interval_ms);
        let mut shared = Shared::new(settings, address).unwrap();
        // The same for each run of a seed.
        shared.server_id = run.to_string();
        shared.moves = Moves::new(&shared.server_id, WORKERS);
        let shared = Arc::new(shared);
        let own = Hello {
            run: shared.server_id.clone(),
            protocol: PROTOCOL,
            protocol_min: PROTOCOL_MIN,
            id: format!("node-{number:03}"),
            began: run,
            mesh: mesh_address(number),
            // Flushes also wait for the acks of a serving node to which the complete interest is still being sent.
            serving: seed.is_multiple_of(2),
            workers: WORKERS as u32,
            features: FEATURES.iter().map(|feature| (*feature).to_owned()).collect(),
            ..Hello::default()
        };
        let rules = Rules {
            own: own.clone(),
            nodes_max: 200,
            redial_max: Duration::from_millis(500),
            has_registry: false,
            accounts: Arc::default(),
        };
        let workers: Vec<Router> = (0..WORKERS)
            .map(|worker| {
                let mut router = Router::new(worker, 1000);
                router.seed(seed ^ worker as u64);
                shared.flush.add_stage(&router.stage);
                router
            })
            .collect();
        let membership = Membership::new(rules, routes, seed ^ number as u64, now);
        let (sender, events) = channel(EVENTS_MAX);
        Self {
            keeper: Keeper::new(Arc::clone(&shared), membership, sender),
            own,
            shared,
            events,
            next_tick: now,
            workers,
            stopped_steps: [0; WORKERS],
            ends: BTreeMap::new(),
            wire: Wire::default(),
            clients_wire: Wire::default(),
            subscriptions: Vec::new(),
            waiting: Vec::new(),
            clients: 0,
            connected: BTreeMap::new(),
            frozen_until: now,
            bytes_sent: 0,
        }
    }

    pub(super) fn prefer_local(&mut self, prefers_local: bool) {
        let workers = self.workers.iter_mut();
        workers.for_each(|router| router.prefers_local = prefers_local);
    }

    /// Starts the session of a connection that has become route `number`.
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
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let dialled = at.as_deref();
        let parameters = self.keeper.begin_session(number, hello, dialled, address, now);
        let outbox = Outbox::on_wire(u64::MAX - number, WORKERS, &self.wire);
        let end = End {
            connection,
            peer,
            session: RouteSession::new(parameters, outbox, now),
            held: Vec::new(),
        };
        self.ends.insert(number, end);
        self.settle(now);
    }

    /// Passes the events of the sessions to the keeper.
    fn settle(&mut self, now: Instant) {
        while let Ok((number, event)) = self.events.try_recv() {
            self.keeper.handle_event(number, event, now);
        }
    }

    /// Gives the session of a route its turn, with the received bytes, if any.
    pub(super) fn take(&mut self, number: u64, bytes: &[u8], now: Instant) -> Result<(), CloseReason> {
        let Some(end) = self.ends.get_mut(&number) else {
            return Ok(());
        };
        let router = &mut self.workers[self.shared.worker_of(number)];
        end.held.extend_from_slice(bytes);
        router.begin_turn();
        let taken = end.session.take(&end.held, router)?;
        end.held.drain(..taken);
        end.session.end_turn(bytes.len(), now);
        self.settle(now);
        Ok(())
    }

    /// Gives the sessions the turns that they want, and handles expired timers. Returns the routes that have ended.
    pub(super) fn work(&mut self, now: Instant) -> Vec<u64> {
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.keeper.tick();
        }
        let wanting = self.ends.iter().filter(|(_, end)| end.session.wants_turn());
        for number in wanting.map(|(number, _)| *number).collect::<Vec<_>>() {
            assert_eq!(self.take(number, b"", now), Ok(()));
        }
        let mut lost = Vec::new();
        for (number, end) in &mut self.ends {
            end.session.fill();
            let reason = end.session.tick(now);
            if reason.or(end.session.route.outbox.reason()).is_some() {
                lost.push(*number);
            }
        }
        self.settle(now);
        lost
    }

    /// Removes a route that has ended. Returns its connection.
    pub(super) fn detach(&mut self, number: u64, now: Instant) -> Option<usize> {
        let end = self.ends.remove(&number)?;
        drop(end.session);
        self.settle(now);
        Some(end.connection)
    }

    /// Lets each worker send its staged output. At random, a worker sends only the output for one route, and the rest some steps
    /// later.
    pub(super) fn flush(&mut self, rng: &mut StdRng) {
        for (router, stopped) in self.workers.iter_mut().zip(&mut self.stopped_steps) {
            let was_stopped = *stopped > 0;
            *stopped = stopped.saturating_sub(1);
            if *stopped > 0 {
                continue;
            }
            let worker = router.stage.worker();
            // In the broker, a task of its own makes the cuts, before or after the output of the turn is sent.
            if !was_stopped && rng.random() {
                self.shared
                    .moves
                    .make_cuts(worker, &self.shared.interest, &mut router.stage);
            }
            let is_partial = !was_stopped && rng.random_range(0..4) == 0 && !self.ends.is_empty();
            let chosen = is_partial.then(|| rng.random_range(0..self.ends.len()));
            match chosen.and_then(|at| self.ends.values().nth(at)) {
                Some(end) => {
                    router.stage.flush_to(&end.session.route.outbox);
                    *stopped = rng.random_range(1..12);
                }
                None => router.stage.flush(),
            }
        }
    }

    pub(super) fn publish(&mut self, subject: &[u8], payload: &[u8]) {
        let message = Publish {
            subject,
            reply: None,
            headers: None,
            payload,
        };
        let publisher = Arc::new(Outbox::unconnected(0));
        let interest = &self.shared.interest;
        let router = &mut self.workers[0];
        let found = router.cache.find(subject, interest);
        let fresh = interest.recipients(subject, Scope::Whole);
        assert_eq!(found.recipients.len(), fresh.len(), "the cache is out of date");
        router.publish(&publisher, b"", &message, &found.recipients, interest);
    }

    /// Adds a client with a subscription, as [`Client`](crate::client::Client) does.
    pub(super) fn subscribe(&mut self, subject: &str, queue: Option<&str>) -> Arc<Subscription> {
        self.clients += 1;
        let client = Arc::new(Outbox::on_wire(self.clients, WORKERS, &self.clients_wire));
        self.subscribe_client(client, true, subject, queue)
    }

    /// Adds a subscription of a client that has others.
    pub(super) fn subscribe_more(&mut self, client: &Arc<Outbox>, subject: &str) {
        self.subscribe_client(Arc::clone(client), false, subject, None);
    }

    /// Processes the SUB and the PING of a client.
    fn subscribe_client(
        &mut self,
        client: Arc<Outbox>,
        is_first: bool,
        subject: &str,
        queue: Option<&str>,
    ) -> Arc<Subscription> {
        let (mut flush, interest) = (ClientFlush::default(), &self.shared.interest);
        let stage = &mut self.workers[self.shared.worker_of(client.id)].stage;
        if is_first {
            flush.suppress_in_flight(&client, interest);
        }
        let queue = queue.map(str::as_bytes);
        let subscription = Arc::new(Subscription::new(client, subject.as_bytes(), queue, b"1"));
        flush.changed(interest.subscribe(&subscription).change);
        if is_first {
            flush.ask_all(interest, stage);
        }
        flush.ping(&subscription.client, &self.shared.flush, interest, stage);
        self.subscriptions.push(Arc::clone(&subscription));
        if flush.is_started() {
            self.waiting.push((flush, Arc::clone(&subscription)));
        }
        subscription
    }

    /// Adds a client as the broker serves it. Returns its number.
    pub(super) fn connect(&mut self) -> u64 {
        self.clients += 1;
        let outbox = Arc::new(Outbox::on_wire(self.clients, WORKERS, &self.clients_wire));
        let info = Arc::new(ClientInfo::new(outbox, ([127, 0, 0, 1], 1).into()));
        let (shared, policy) = (Arc::clone(&self.shared), self.shared.policy.load_full());
        let client = Client::new(shared, info, policy, "".into(), None);
        self.connected.insert(self.clients, (client, Vec::new()));
        self.clients
    }

    /// Adds bytes that a client has sent.
    pub(super) fn receive_from_client(&mut self, number: u64, bytes: &[u8]) {
        if let Some((_, received)) = self.connected.get_mut(&number) {
            received.extend_from_slice(bytes);
        }
    }

    /// Ends a client.
    pub(super) fn disconnect(&mut self, number: u64) {
        self.connected.remove(&number);
    }

    /// Gives each client its turn.
    pub(super) fn serve_clients(&mut self, now: Instant) {
        for (number, (client, received)) in &mut self.connected {
            if client.flush.is_started() && client.waits_until(now).is_some() {
                continue;
            }
            let worker = self.shared.worker_of(*number);
            // A stopped worker serves nobody.
            if self.stopped_steps[worker] > 0 {
                continue;
            }
            let router = &mut self.workers[worker];
            router.begin_turn();
            let taken = client.take(received, router).expect("valid frames");
            received.drain(..taken);
        }
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        for (client, _) in self.connected.values() {
            let _ = client.outbox().poll_drain(&mut context);
        }
    }

    pub(super) fn unsubscribe(&mut self, number: usize) {
        let removed = self.subscriptions.swap_remove(number);
        self.shared.interest.unsubscribe(&removed);
    }

    pub(super) fn wanted(&self) -> Picture {
        picture_of(&self.subscriptions)
    }

    /// Removes a client with one subscription.
    pub(super) fn leave(&mut self, subscription: &Arc<Subscription>) {
        let mut all = self.subscriptions.iter();
        let number = all.position(|one| Arc::ptr_eq(one, subscription));
        self.unsubscribe(number.expect("a subscription"));
    }

    /// Sends the PONGs of the ended flushes. Returns their subscriptions, each with whether its flush ended without a timeout.
    pub(super) fn flushed(&mut self, now: Instant) -> Vec<(bool, Arc<Subscription>)> {
        let (all, routes) = (&self.shared.flush, &self.shared.interest.routes);
        let mut done = Vec::new();
        self.waiting.retain_mut(|(flush, subscription)| {
            let (client, given_up) = (&subscription.client, all.given_up());
            let wait = flush.waits_until(client, FLUSH_TIMEOUT, all, routes, now);
            if wait.is_some() {
                return true;
            }
            let home = self.shared.worker_of(client.id);
            flush.send_pong(client, &mut self.workers[home].stage);
            done.push((all.given_up() == given_up, Arc::clone(subscription)));
            false
        });
        done
    }
}
