//! The work done in a ZooKeeper session: the children of the path are listed and watched, and this node's own znode is
//! kept among them. From time to time everything is compared with the server, in case a watch event was lost.
//!
//! Registration and list share one session, in this order: own znode first, then the list. ZooKeeper orders all changes, and a
//! session sees at least all changes before its own. So the list reported after the creation of our znode has all nodes
//! that registered before it, and of two nodes that register at the same moment at least one sees the other.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::watch as channel;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::children::Children;
use crate::config::ZooKeeperConfig;
use crate::error::RegistryError;
use crate::registration_state::{RegistrationEvent, Wanted, ZnodeState};
use crate::registration_task::RegistrationTask;
use crate::session::{Session, SessionError, SessionReport};

/// Time for which changes are collected, so that a burst of changes is handled together.
const BURST_MS: u64 = 20;

/// The work of the ZooKeeper thread, over all its sessions. A thread that is started again begins with a clone of the
/// first state.
#[derive(Clone)]
pub(crate) struct SessionTask {
    /// Full path of the parent of all znodes, with the chroot.
    path: String,
    nodes_max: usize,
    heartbeat: Duration,
    audit: Duration,
    pub(crate) registration_task: RegistrationTask,
}

impl SessionTask {
    /// # Errors
    /// [`RegistryError::Setting`] if the path is invalid.
    pub(crate) fn new(
        config: &ZooKeeperConfig,
        nodes_max: usize,
        wanted: channel::Receiver<Option<Wanted>>,
    ) -> Result<Self, RegistryError> {
        let path = config.full_path()?;
        let session_timeout = Duration::from_millis(config.session_timeout_ms);
        Ok(Self {
            registration_task: RegistrationTask::new(path.clone(), session_timeout, wanted),
            path,
            nodes_max,
            heartbeat: session_timeout / 3,
            audit: Duration::from_millis(config.audit_ms),
        })
    }

    /// Works until a call fails. The future may be dropped at any point.
    pub(crate) async fn run(&mut self, session: &mut Session<'_>) -> Result<Infallible, SessionError> {
        self.registration_task.new_connection(session.id);
        let mut children = Children::new(self.path.clone(), self.nodes_max);
        let (mut reported_listing, mut reported_state) = (None, None);
        let mut heartbeat = every(self.heartbeat);
        let mut audit = every(self.audit);
        loop {
            let state = self.registration_task.settle(session).await?;
            let is_state_new = reported_state.as_ref() != Some(&state);
            if is_state_new {
                children.list_again();
            }
            let began = Instant::now();
            let listing = children.refresh(&session.client).await?;
            let took = began.elapsed();
            let is_listing_new = reported_listing.as_ref() != Some(&listing);
            if is_listing_new {
                session.report(SessionReport::Listing(listing.clone())).await?;
                reported_listing = Some(listing);
            }
            if is_state_new {
                if state != ZnodeState::None {
                    let event = RegistrationEvent::State(state.clone());
                    session.report(SessionReport::Registration(event)).await?;
                }
                reported_state = Some(state);
            }
            if is_listing_new {
                // The list may show a change of our znode that was made after `settle`. No watch reports that change again.
                continue;
            }
            tokio::select! {
                () = session.client.changed() => {
                    // Waits for at least as long as the last reading took. So reading takes at most about half of the time, even while
                    // somebody creates thousands of znodes.
                    let burst = Duration::from_millis(BURST_MS).max(took).min(self.heartbeat);
                    tokio::time::sleep(burst).await;
                    children.mark_stale(session.client.take_changes());
                }
                _ = heartbeat.tick() => { session.client.exists(&self.path).await?; }
                _ = audit.tick() => {
                    let differences = children.audit(&session.client).await?;
                    if differences > 0 {
                        session.report(SessionReport::Audited { differences }).await?;
                    }
                }
                () = self.registration_task.wanted_changed() => {}
            }
        }
    }
}

/// Creates an interval timer whose first tick comes after one interval.
fn every(interval: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
