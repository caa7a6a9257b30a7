//! The connected clients, and a limited number of closed ones: for the monitoring pages, and for waking or closing all clients.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::client_info::ClientInfo;
use crate::close_reason::{self, CloseReason};

/// Maximum number of closed clients that are kept for the monitoring pages: the default of `nats-server`.
const CLOSED_MAX: usize = 10_000;

/// A closed client, with its state at the time it was closed.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) client_info: Arc<ClientInfo>,
    pub(crate) stopped_at: SystemTime,
    pub(crate) uptime: Duration,
    pub(crate) idle: Duration,
    pub(crate) subscriptions: usize,
    pub(crate) reason: CloseReason,
}

/// Sums over all clients since the start, closed ones included.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Number of clients.
    pub(crate) clients: u64,
    pub(crate) messages_in: u64,
    pub(crate) bytes_in: u64,
    pub(crate) messages_out: u64,
    pub(crate) bytes_out: u64,
    /// Closed clients by reason, in the order of [`close_reason::KINDS`].
    pub(crate) ended: [u64; close_reason::KINDS.len()],
}

impl Totals {
    fn add(&mut self, client_info: &ClientInfo) {
        self.messages_in += client_info.stats.messages_in.load(Relaxed);
        self.bytes_in += client_info.stats.bytes_in.load(Relaxed);
        self.messages_out += client_info.outbox.messages_out.load(Relaxed);
        self.bytes_out += client_info.outbox.bytes_out.load(Relaxed);
    }
}

/// The connected clients, and the last closed ones.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    open: BTreeMap<u64, Arc<ClientInfo>>,
    /// In the order of closing.
    closed: VecDeque<Arc<Closed>>,
    /// Sums over closed clients. Only `clients` counts the open ones as well.
    totals: Totals,
}

impl Clients {
    pub(crate) fn insert(&self, client_info: Arc<ClientInfo>) {
        let mut tables = self.lock();
        tables.totals.clients += 1;
        tables.open.insert(client_info.outbox.id, client_info);
    }

    /// Moves a client to the closed ones. `subscriptions` is the number that it had at the end.
    pub(crate) fn remove(&self, id: u64, reason: CloseReason, subscriptions: usize) {
        let mut tables = self.lock();
        let Some(client_info) = tables.open.remove(&id) else {
            return;
        };
        tables.totals.add(&client_info);
        tables.totals.ended[reason.kind()] += 1;
        if tables.closed.len() >= CLOSED_MAX {
            tables.closed.pop_front();
        }
        let closed = Closed {
            stopped_at: SystemTime::now(),
            uptime: client_info.stats.started.elapsed(),
            idle: client_info.stats.idle(),
            subscriptions,
            reason,
            client_info,
        };
        tables.closed.push_back(Arc::new(closed));
    }

    /// Returns the number of connected clients.
    pub(crate) fn len(&self) -> usize {
        self.lock().open.len()
    }

    /// Returns the connected clients, sorted by id.
    pub(crate) fn open(&self) -> Vec<Arc<ClientInfo>> {
        self.lock().open.values().map(Arc::clone).collect()
    }

    /// Returns the last closed clients, in the order of closing.
    pub(crate) fn closed(&self) -> Vec<Arc<Closed>> {
        self.lock().closed.iter().map(Arc::clone).collect()
    }

    /// Returns the sums over all clients, closed and open.
    pub(crate) fn totals(&self) -> Totals {
        let tables = self.lock();
        let mut totals = tables.totals;
        tables
            .open
            .values()
            .for_each(|client_info| totals.add(client_info));
        totals
    }

    /// Wakes the task of every connected client.
    pub(crate) fn wake_all(&self) {
        self.lock()
            .open
            .values()
            .for_each(|client_info| client_info.outbox.wake());
    }

    pub(crate) fn close_all(&self, reason: CloseReason) {
        self.lock()
            .open
            .values()
            .for_each(|client_info| client_info.outbox.close(reason));
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
