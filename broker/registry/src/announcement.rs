//! [`Announcement`], the handle of a node's own registration. The node is registered in ZooKeeper until the handle is dropped.
//!
//! The znode is created in the session that also watches the other nodes (`session_task.rs`).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch as channel;

use crate::error::RegistryError;
use crate::node::Node;
use crate::registration_state::{RegistrationState, Wanted};
use crate::watch::Watch;

/// Time limit for the deletion of the znode in [`Announcement::withdraw`], in milliseconds.
const WITHDRAW_MS_MAX: u64 = 500;

/// A node's registration. Dropping it deletes the znode in the background. [`withdraw`](Self::withdraw) waits for the deletion.
#[derive(Debug)]
#[must_use = "a dropped announcement is withdrawn"]
pub struct Announcement {
    id: Arc<str>,
    run: Arc<str>,
    state: channel::Receiver<RegistrationState>,
    watch: Watch,
}

impl Announcement {
    /// Prepares the registration of this node as the ephemeral znode `<path>/<id>`, in the session of `watch`. Returns at
    /// once and works in the background: it deletes a znode left by an earlier session of this node, and
    /// [`state`](Self::state) shows whether another node holds the id. The znode is not created before
    /// [`release`](Self::release), because clients may connect as soon as it exists. So a node calls `reserve`, waits until
    /// the id is free, opens its port, and then calls `release`.
    ///
    /// Missing parents of the znode are created, including those of the chroot. Without
    /// [`digest_auth`](crate::ZooKeeperConfig::digest_auth), everybody can read and change the created znodes. With it, only
    /// clients with the same credentials can change them, so every node of the cluster needs these credentials;
    /// [`readers`](crate::ZooKeeperConfig::readers) says who can read them. A parent that exists keeps its ACL. A warning
    /// is logged if everybody can change it.
    ///
    /// # Errors
    /// [`RegistryError::Setting`] or [`RegistryError::Address`] for an invalid value. [`RegistryError::Setting`] also if
    /// ZooKeeper is not a source of `watch`, or if `watch` already has an announcement.
    pub fn reserve(watch: &Watch, node: Node) -> Result<Self, RegistryError> {
        node.check_record()?;
        if watch.health().zookeeper.name.is_empty() {
            let reason = "there is no ZooKeeper to register in; give its hosts";
            return Err(RegistryError::setting("zookeeper", "", reason));
        }
        let (id, run) = (node.id.clone(), node.run.clone());
        let wanted = Wanted {
            node: Arc::new(node),
            awaits_release: true,
            dead_run: None,
        };
        let seeking = RegistrationState::Seeking {
            reason: "ZooKeeper has not answered yet".to_owned(),
        };
        let is_free = watch.published.wanted.send_if_modified(|present| {
            let is_free = present.is_none();
            if is_free {
                // Set before the session's thread can see what is wanted, so that this does not replace a later state.
                watch.published.registration.send_replace(seeking);
                *present = Some(wanted);
            }
            is_free
        });
        if !is_free {
            let reason = "this watch has an announcement; withdraw it first";
            return Err(RegistryError::setting("id", id, reason));
        }
        Ok(Self {
            id,
            run,
            state: watch.published.registration.subscribe(),
            watch: watch.clone(),
        })
    }

    /// Returns the present state. Never waits.
    pub fn state(&self) -> RegistrationState {
        self.state.borrow().clone()
    }

    /// Returns a receiver of the state.
    pub fn follow(&self) -> channel::Receiver<RegistrationState> {
        self.state.clone()
    }

    /// Returns the watch in whose session the node is registered.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Allows the creation of the znode, which follows as soon as possible. Never waits.
    pub fn release(&self) {
        self.watch.published.wanted.send_if_modified(|wanted| {
            let wanted = wanted.as_mut();
            wanted.is_some_and(|wanted| std::mem::replace(&mut wanted.awaits_release, false))
        });
    }

    /// Changes the record of the node. `id` and `run` must not change. If the znode exists, it is updated; otherwise it
    /// will be created with this record. Never waits.
    ///
    /// # Errors
    /// [`RegistryError::Setting`] or [`RegistryError::Address`] for an invalid value. Nothing has changed then.
    pub fn set(&self, node: Node) -> Result<(), RegistryError> {
        node.check_record()?;
        for (name, new, old) in [("id", &node.id, &self.id), ("run", &node.run, &self.run)] {
            if new != old {
                let reason = format!("it cannot change from {old:?} while the announcement exists");
                return Err(RegistryError::setting(name, new, reason));
            }
        }
        self.watch.published.wanted.send_if_modified(|wanted| {
            let wanted = wanted.as_mut();
            wanted.map(|wanted| wanted.node = Arc::new(node)).is_some()
        });
        Ok(())
    }

    /// Ends the registration. Does nothing if `watch` has the registration of another announcement by now.
    fn cancel(&self) {
        self.watch.published.wanted.send_if_modified(|wanted| {
            let is_ours = wanted.as_ref().is_some_and(|wanted| wanted.node.run == self.run);
            if is_ours {
                *wanted = None;
            }
            is_ours
        });
    }

    /// Deletes the znode and waits until it is deleted, but not longer than half a second. If ZooKeeper does not answer in this
    /// time, the znode is deleted when the session is resumed or ends.
    pub async fn withdraw(mut self) {
        self.cancel();
        let gone = self
            .state
            .wait_for(|state| *state == RegistrationState::Withdrawn);
        let _ = tokio::time::timeout(Duration::from_millis(WITHDRAW_MS_MAX), gone).await;
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        self.cancel();
    }
}
