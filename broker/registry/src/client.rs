//! One ZooKeeper session, as long as one connection lasts, behind one gate. The only file that imports
//! `zookeeper-async`; what the library does not do for its user is done here and in `zookeeper.rs`.
//!
//! A client lives as long as its one connection. It is not carried over to a second one: the library would
//! set neither watches nor auth again, and would go on silently when the server had expired the session. So
//! there is nothing to restore and no state to guess: after every reconnect everything is told, listed and
//! watched again by a new client. Only the session itself may be that of the client before, which neither of
//! them knows.
//!
//! A client must be made, used and dropped inside a runtime of its own; dropping that runtime is the only way
//! to end its tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::mpsc;
use zookeeper_async::{Acl, CreateMode, Stat, WatchedEvent, ZkError, ZkResult, ZooKeeper};

use crate::gate::Gate;
use crate::znode_path;

/// The library would dial its one-shot loopback address again after this; the client is given up long before.
const LIBRARY_RETRY_MS: u64 = 60_000;
/// After more changes than this between two looks, everything is looked at.
const CHANGES_QUEUED_MAX: usize = 4_096;

/// What a watch saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// The list of children, or the node itself, came, changed or went.
    List,
    /// The data of one child changed or the child went.
    Child(String),
}

/// Where watches report. The library's watch task calls back into it and dies with a panic or a wait there,
/// so it does neither.
#[derive(Clone)]
struct Reporter {
    queue: mpsc::Sender<Change>,
    overflowed: Arc<AtomicBool>,
}

impl Reporter {
    fn on(&self, change: Change) -> impl FnOnce(WatchedEvent) + Send + 'static {
        let reporter = self.clone();
        move |_event| {
            if reporter.queue.try_send(change).is_err() {
                reporter.overflowed.store(true, Ordering::Release);
            }
        }
    }
}

/// The changes seen by watches, to be waited for.
pub(crate) struct Changes {
    queue: mpsc::Receiver<Change>,
    overflowed: Arc<AtomicBool>,
}

impl Changes {
    /// Waits for a change. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Change {
        match self.queue.recv().await {
            Some(change) => change,
            None => std::future::pending().await,
        }
    }

    /// A change that is already here.
    pub(crate) fn try_next(&mut self) -> Option<Change> {
        self.queue.try_recv().ok()
    }

    /// Whether changes were lost since this was last asked.
    pub(crate) fn take_overflowed(&self) -> bool {
        self.overflowed.swap(false, Ordering::AcqRel)
    }
}

/// What ZooKeeper keeps about a znode, as far as it is needed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Znode {
    /// The change that created it.
    pub(crate) czxid: i64,
    /// The last change of its data.
    pub(crate) mzxid: i64,
    /// How often its data were changed.
    pub(crate) version: i32,
    /// The session it ends with; 0 for a persistent one.
    pub(crate) owner: i64,
}

impl From<Stat> for Znode {
    fn from(stat: Stat) -> Self {
        Self {
            czxid: stat.czxid,
            mzxid: stat.mzxid,
            version: stat.version,
            owner: stat.ephemeral_owner,
        }
    }
}

/// A znode that is to be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Persistent,
    /// It ends with the session.
    Ephemeral,
}

/// What came of a change that was asked for. All of these are answers; what each asks for is seen by reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// The znode, or that above the one to be created, is not there.
    Missing,
    /// The znode is there already, or was changed meanwhile.
    Otherwise,
}

/// Why a call gave no answer that can be used. Each of them ends the session, except where `NoAuth` is about
/// a single child.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum CallError {
    #[error("{call} {path}: no answer within {limit_ms} ms")]
    Timeout {
        call: &'static str,
        path: String,
        limit_ms: u128,
    },
    #[error("{call} {path}: not allowed; give the digest credentials (USER:PASSWORD) that its ACL asks for")]
    NoAuth { call: &'static str, path: String },
    #[error("{call} {path}: {error}")]
    Failed {
        call: &'static str,
        path: String,
        error: ZkError,
    },
}

/// A session. Paths are full: the chroot is already in them.
pub(crate) struct Client {
    zookeeper: ZooKeeper,
    call_timeout: Duration,
    reporter: Reporter,
    /// Credentials were shown.
    is_authenticated: bool,
}

impl Client {
    /// Makes the library connect through `gate`. A session exists only when the gate says so.
    pub(crate) async fn connect(
        gate: &Gate,
        session_timeout: Duration,
        call_timeout: Duration,
    ) -> Result<(Self, Changes), CallError> {
        let address = gate.address.to_string();
        let retry = Duration::from_millis(LIBRARY_RETRY_MS);
        // Events that no watch of ours takes (duplicates) end in the empty callback.
        let connecting = ZooKeeper::connect_with_retry_time(&address, session_timeout, |_| (), retry);
        let zookeeper = within(call_timeout, "connect", &address, connecting).await?;
        let (queue, changes) = mpsc::channel(CHANGES_QUEUED_MAX);
        let overflowed = Arc::new(AtomicBool::new(false));
        let reporter = Reporter {
            queue,
            overflowed: Arc::clone(&overflowed),
        };
        Ok((
            Self {
                zookeeper,
                call_timeout,
                reporter,
                is_authenticated: false,
            },
            Changes {
                queue: changes,
                overflowed,
            },
        ))
    }

    /// Shows digest credentials. ZooKeeper takes any; what they allow is seen in later calls.
    pub(crate) async fn authenticate(&mut self, digest: &str) -> Result<(), CallError> {
        let call = self.zookeeper.add_auth("digest", digest.as_bytes().to_vec());
        within(self.call_timeout, "auth", "digest", call).await?;
        self.is_authenticated = true;
        Ok(())
    }

    /// The node's stat, `None` when there is no such node. Also the heartbeat.
    pub(crate) async fn exists(&self, path: &str) -> Result<Option<Znode>, CallError> {
        let call = self.zookeeper.exists(path, false);
        let stat = within(self.call_timeout, "exists", path, call).await?;
        Ok(stat.map(Znode::from))
    }

    /// Like [`exists`](Self::exists), and reports [`Change::List`] when the node comes, changes or goes.
    pub(crate) async fn exists_watched(&self, path: &str) -> Result<Option<Znode>, CallError> {
        let call = self.zookeeper.exists_w(path, self.reporter.on(Change::List));
        let stat = within(self.call_timeout, "exists", path, call).await?;
        Ok(stat.map(Znode::from))
    }

    /// The names of the children, `None` when there is no such node.
    pub(crate) async fn children(&self, path: &str) -> Result<Option<Vec<String>>, CallError> {
        let call = self.zookeeper.get_children(path, false);
        unless_missing(within(self.call_timeout, "list", path, call).await)
    }

    /// Like [`children`](Self::children), and reports [`Change::List`] when one comes or goes. Ask
    /// [`exists`](Self::exists) first: on a missing node the library keeps the callback for ever.
    pub(crate) async fn children_watched(&self, path: &str) -> Result<Option<Vec<String>>, CallError> {
        let call = self
            .zookeeper
            .get_children_w(path, self.reporter.on(Change::List));
        unless_missing(within(self.call_timeout, "list", path, call).await)
    }

    /// The data and stat of child `name` of `path`, `None` when it is not there.
    pub(crate) async fn data(&self, path: &str, name: &str) -> Result<Option<(Vec<u8>, Znode)>, CallError> {
        let full = znode_path::child(path, name);
        let call = self.zookeeper.get_data(&full, false);
        let found = unless_missing(within(self.call_timeout, "read", &full, call).await)?;
        Ok(found.map(|(data, stat)| (data, stat.into())))
    }

    /// Like [`data`](Self::data), and reports [`Change::Child`] when a child that is there changes or goes.
    pub(crate) async fn data_watched(
        &self,
        path: &str,
        name: &str,
    ) -> Result<Option<(Vec<u8>, Znode)>, CallError> {
        let full = znode_path::child(path, name);
        let call = self
            .zookeeper
            .get_data_w(&full, self.reporter.on(Change::Child(name.to_owned())));
        let found = unless_missing(within(self.call_timeout, "read", &full, call).await)?;
        Ok(found.map(|(data, stat)| (data, stat.into())))
    }

    /// Creates a znode that all may read. Without credentials all may change it too, and what is below it; with
    /// credentials only those who have them.
    pub(crate) async fn create(&self, path: &str, data: Vec<u8>, kind: Kind) -> Result<Outcome, CallError> {
        let acl = if self.is_authenticated {
            [Acl::creator_all().as_slice(), Acl::read_unsafe()].concat()
        } else {
            Acl::open_unsafe().clone()
        };
        let mode = match kind {
            Kind::Persistent => CreateMode::Persistent,
            Kind::Ephemeral => CreateMode::Ephemeral,
        };
        let call = self.zookeeper.create(path, data, acl, mode);
        outcome(within(self.call_timeout, "create", path, call).await)
    }

    /// Replaces the data of a znode that still has this version.
    pub(crate) async fn replace(
        &self,
        path: &str,
        data: Vec<u8>,
        version: i32,
    ) -> Result<Outcome, CallError> {
        let call = self.zookeeper.set_data(path, data, Some(version));
        outcome(within(self.call_timeout, "write", path, call).await)
    }

    /// Deletes a znode that still has this version.
    pub(crate) async fn delete(&self, path: &str, version: i32) -> Result<Outcome, CallError> {
        let call = self.zookeeper.delete(path, Some(version));
        outcome(within(self.call_timeout, "delete", path, call).await)
    }

    /// Ends the session, so that the server need not wait for its timeout.
    pub(crate) async fn close(&self, limit: Duration) {
        let _ = within(limit, "close", "session", self.zookeeper.close()).await;
    }
}

/// Every call has a limit; when it passes, nobody knows whether the call was or will be executed.
async fn within<T>(
    limit: Duration,
    call: &'static str,
    path: &str,
    answer: impl Future<Output = ZkResult<T>>,
) -> Result<T, CallError> {
    let path = || path.to_owned();
    match tokio::time::timeout(limit, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(ZkError::NoAuth)) => Err(CallError::NoAuth { call, path: path() }),
        Ok(Err(error)) => Err(CallError::Failed {
            call,
            path: path(),
            error,
        }),
        Err(_) => Err(CallError::Timeout {
            call,
            path: path(),
            limit_ms: limit.as_millis(),
        }),
    }
}

fn unless_missing<T>(answer: Result<T, CallError>) -> Result<Option<T>, CallError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(CallError::Failed {
            error: ZkError::NoNode,
            ..
        }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn outcome<T>(answer: Result<T, CallError>) -> Result<Outcome, CallError> {
    match answer {
        Ok(_) => Ok(Outcome::Done),
        Err(CallError::Failed {
            error: ZkError::NoNode,
            ..
        }) => Ok(Outcome::Missing),
        Err(CallError::Failed {
            error: ZkError::NodeExists | ZkError::BadVersion,
            ..
        }) => Ok(Outcome::Otherwise),
        Err(error) => Err(error),
    }
}
