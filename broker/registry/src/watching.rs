//! The duty of watching: the list of nodes is read, every change of it is told, and from time to time
//! everything is compared with the server in case a watch was lost. The last good list is kept by those who
//! read the reports.

use std::convert::Infallible;
use std::time::Duration;

use crate::children::{Children, Listing};
use crate::client::Client;
use crate::config::ZooKeeperConfig;
use crate::duty::{BURST_MS, Broken, Duty, Session, every};
use crate::error::RegistryError;

/// What a watch tells.
#[derive(Debug)]
pub(crate) enum Found {
    /// All that is registered now.
    Listing(Listing),
    /// The audit found so many differences that no watch had told.
    Audited { differences: usize },
}

/// The duty.
#[derive(Clone)]
pub(crate) struct Watching {
    /// With the chroot.
    path: String,
    nodes_max: usize,
    heartbeat_ms: u64,
    audit_ms: u64,
}

impl Watching {
    pub(crate) fn new(config: &ZooKeeperConfig, nodes_max: usize) -> Result<Self, RegistryError> {
        Ok(Self {
            path: config.full_path()?,
            nodes_max,
            heartbeat_ms: config.session_timeout_ms / 3,
            audit_ms: config.audit_ms,
        })
    }
}

impl Duty for Watching {
    type Word = Found;
    const NAME: &'static str = "zk-watch";

    async fn serve(&mut self, session: &mut Session<'_, Found>) -> Result<Infallible, Broken> {
        let mut children = Children::new(self.path.clone(), self.nodes_max);
        let mut told = children.refresh(&session.client).await?;
        session.tell(Found::Listing(told.clone())).await?;

        let mut heartbeat = every(self.heartbeat_ms);
        let mut audit = every(self.audit_ms);
        loop {
            tokio::select! {
                change = session.changes.next() => {
                    tokio::time::sleep(Duration::from_millis(BURST_MS)).await;
                    children.note(change, &mut session.changes);
                }
                _ = heartbeat.tick() => { session.client.exists(&self.path).await?; }
                _ = audit.tick() => {
                    let differences = children.audit(&session.client).await?;
                    if differences > 0 {
                        session.tell(Found::Audited { differences }).await?;
                    }
                }
            }
            let listing = children.refresh(&session.client).await?;
            if listing != told {
                session.tell(Found::Listing(listing.clone())).await?;
                told = listing;
            }
        }
    }

    async fn leave(&mut self, _client: &Client) {}
}
