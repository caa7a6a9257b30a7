//! The sessions at rest, while another program is about to replace this one. Each session writes its state and stops; if the other program is
//! refused, all of them go on.

use std::collections::HashSet;
use std::io;
use std::os::fd::RawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use standin_daemon::handover_file::HandoverWriter;
use tokio::sync::{Notify, watch};

use crate::handover::{self, Part, SessionRecord};
use crate::session::Session;

/// The sessions that are at rest, and the file for their states.
#[derive(Debug)]
pub(crate) struct Rest {
    state: Mutex<Option<AtRest>>,
    changed: Notify,
    /// Whether no connection is accepted.
    is_paused: watch::Sender<bool>,
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
            changed: Notify::new(),
            is_paused: watch::Sender::new(false),
        }
    }
}

impl Rest {
    /// Stops the acceptance of connections, and takes the states of sessions from now on.
    pub(crate) fn begin(&self, file: HandoverWriter) {
        self.is_paused.send_replace(true);
        *self.lock() = Some(AtRest {
            file,
            sessions: HashSet::new(),
            sockets: Vec::new(),
            began: None,
            error: None,
        });
    }

    /// Ends the rest. Returns the states.
    pub(crate) fn take(&self) -> Option<AtRest> {
        self.lock().take()
    }

    /// Lets connections be accepted again.
    pub(crate) fn end(&self) {
        self.take();
        self.is_paused.send_replace(false);
    }

    /// Writes the state of a session. Returns whether the session may rest.
    pub(crate) fn add(&self, record: SessionRecord<&Session>, sockets: impl Iterator<Item = RawFd>) -> bool {
        let (id, part) = (record.id, Part::Session(Box::new(record)));
        let mut state = self.lock();
        let Some(at_rest) = state.as_mut() else {
            return false;
        };
        at_rest.began.get_or_insert_with(Instant::now);
        if let Err(error) = handover::write_part(&mut at_rest.file, &part) {
            at_rest.error.get_or_insert(error);
        }
        at_rest.sessions.insert(id);
        at_rest.sockets.extend(sockets);
        self.changed.notify_one();
        true
    }

    /// Lets a session rest whose connection cannot be passed on. It is closed when the other program is executed.
    pub(crate) fn add_without_state(&self, session: u64) -> bool {
        let mut state = self.lock();
        if let Some(at_rest) = state.as_mut() {
            at_rest.sessions.insert(session);
            self.changed.notify_one();
        }
        state.is_some()
    }

    /// Returns how many of these sessions are not at rest.
    pub(crate) fn missing(&self, sessions: impl Iterator<Item = u64>) -> usize {
        let state = self.lock();
        let is_at_rest = |id: &u64| {
            state
                .as_ref()
                .is_some_and(|at_rest| at_rest.sessions.contains(id))
        };
        sessions.filter(|id| !is_at_rest(id)).count()
    }

    /// Waits until another session is at rest.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Waits while connections are not accepted.
    pub(crate) async fn over(&self) {
        // The sender is never dropped meanwhile.
        let _ = self.is_paused.subscribe().wait_for(|is_paused| !is_paused).await;
    }

    /// Waits until connections are not accepted.
    pub(crate) async fn begun(&self) {
        let _ = self.is_paused.subscribe().wait_for(|is_paused| *is_paused).await;
    }

    fn lock(&self) -> MutexGuard<'_, Option<AtRest>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
