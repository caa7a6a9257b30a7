//! The sessions at rest, while the next program is about to replace this one. Each session writes its state and stops; if the next program
//! is refused, all of them go on.

use std::collections::HashSet;
use std::io::{self, Write as _};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use standin_daemon::handover_file::HandoverWriter;
use tokio::sync::{Notify, watch};

use crate::handover::{self, Part, SessionRecord};
use crate::session::Session;
use crate::session_info::SessionInfo;

/// The sessions that are at rest, and the file for their states.
#[derive(Debug)]
pub(crate) struct Rest {
    state: Mutex<Option<AtRest>>,
    /// `reached` is notified when this many sessions rest.
    awaited: AtomicUsize,
    reached: Notify,
    phase: watch::Sender<Phase>,
    /// Connections whose PROXY protocol header is not complete. They have no session.
    pending_headers: AtomicUsize,
}

/// What happens at the listening sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Connections are accepted.
    Open,
    /// None is accepted. The last ones may complete their PROXY protocol headers.
    Closing,
    /// No connection is accepted and no header is read, while sessions come to rest.
    Closed,
}

/// The states that were written.
#[derive(Debug)]
pub(crate) struct AtRest {
    pub(crate) file: HandoverWriter,
    pub(crate) sessions: HashSet<u64>,
    /// File descriptors that the states name.
    pub(crate) sockets: Vec<RawFd>,
    /// Time at which the first session came to rest.
    pub(crate) began: Option<Instant>,
    /// The first error of a write.
    pub(crate) error: Option<io::Error>,
}

impl Default for Rest {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            awaited: AtomicUsize::new(0),
            reached: Notify::new(),
            phase: watch::Sender::new(Phase::Open),
            pending_headers: AtomicUsize::new(0),
        }
    }
}

impl Rest {
    /// Stops the acceptance of connections.
    pub(crate) fn prepare(&self) {
        self.phase.send_replace(Phase::Closing);
    }

    /// Takes the states of sessions from now on.
    pub(crate) fn begin(&self, file: HandoverWriter) {
        self.phase.send_replace(Phase::Closed);
        *self.lock() = Some(AtRest {
            file,
            sessions: HashSet::new(),
            sockets: Vec::new(),
            began: None,
            error: None,
        });
    }

    /// Returns the states that were written. No other session can come to rest; those at rest stay so.
    pub(crate) fn take(&self) -> Option<AtRest> {
        self.lock().take()
    }

    /// Drops the states that were written, and lets connections be accepted again.
    pub(crate) fn end(&self) {
        self.take();
        self.phase.send_replace(Phase::Open);
    }

    /// Writes the state of a session. Returns whether the session may rest.
    pub(crate) fn add(&self, record: SessionRecord<&Session>) -> bool {
        let (id, sockets) = (record.id, record.sockets());
        // Before the lock, so that all workers encode at the same time.
        let part = handover::encode_part(&Part::Session(Box::new(record)));
        let mut state = self.lock();
        let Some(at_rest) = state.as_mut() else {
            return false;
        };
        at_rest.began.get_or_insert_with(Instant::now);
        if let Err(error) = part.and_then(|part| at_rest.file.write_all(&part)) {
            at_rest.error.get_or_insert(error);
        }
        at_rest.sockets.extend(sockets);
        self.insert(at_rest, id);
        true
    }

    /// Lets a session rest whose connection cannot be passed on. It is closed when the next program is executed.
    pub(crate) fn add_without_state(&self, session: u64) -> bool {
        let mut state = self.lock();
        if let Some(at_rest) = state.as_mut() {
            self.insert(at_rest, session);
        }
        state.is_some()
    }

    fn insert(&self, at_rest: &mut AtRest, session: u64) {
        at_rest.sessions.insert(session);
        if at_rest.sessions.len() == self.awaited.load(Relaxed) {
            self.reached.notify_one();
        }
    }

    /// Removes from `sessions` those that are at rest.
    pub(crate) fn retain_missing(&self, sessions: &mut Vec<Arc<SessionInfo>>) {
        if let Some(at_rest) = self.lock().as_ref() {
            sessions.retain(|session| !at_rest.sessions.contains(&session.id));
        }
    }

    /// Sets the number of sessions for which [`reached`](Self::reached) waits.
    pub(crate) fn expect(&self, count: usize) {
        self.awaited.store(count, Relaxed);
    }

    /// Waits until the expected number of sessions is at rest. May return earlier.
    pub(crate) async fn reached(&self) {
        self.reached.notified().await;
    }

    /// Returns a receiver for the phase of the listening sockets.
    pub(crate) fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Records that a listener has `now` connections with an incomplete PROXY protocol header instead of `before`.
    pub(crate) fn count_pending_headers(&self, before: usize, now: usize) {
        self.pending_headers.fetch_add(now, Relaxed);
        self.pending_headers.fetch_sub(before, Relaxed);
    }

    /// Returns the number of connections with an incomplete PROXY protocol header, at all listeners.
    pub(crate) fn pending_headers(&self) -> usize {
        self.pending_headers.load(Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Option<AtRest>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
