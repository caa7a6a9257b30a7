//! The client of one ZooKeeper connection. No other file except the tests imports `zookeeper-async`. What the library lacks is
//! implemented here and in `session_loop.rs`.
//!
//! A client exists for one connection and is never used for a second one. On a second connection, the library would set neither
//! watches nor credentials again, and would continue silently if the session had expired. Instead, after each reconnect a new
//! client sends the credentials, lists the znodes and sets the watches, even if the ZooKeeper session is still the same.
//!
//! A client must be created, used and dropped within its own runtime, because dropping that runtime is the only way to end the
//! tasks of the library.

use std::collections::BTreeSet;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch as channel;
use zookeeper_async::{Acl, CreateMode, Permission, Stat, WatchedEvent, ZkError, ZkResult, ZooKeeper};

use crate::config::ZnodeReaders;
use crate::relay::Relay;
use crate::znode_path;

/// Time after which the library would connect again. The client is dropped long before.
const LIBRARY_RETRY_MS: u64 = 60_000;

/// Changes that watches have reported and that are not read yet. There is at most one watch per child, so the number of children
/// is bounded.
#[derive(Default, PartialEq)]
pub(crate) struct Changes {
    /// The list of children changed, or the znode itself was created, changed or deleted.
    pub(crate) list: bool,
    /// Children that were deleted or whose data changed.
    pub(crate) children: BTreeSet<String>,
}

/// Metadata of a znode in ZooKeeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ZnodeStat {
    /// Id of the transaction that created the znode.
    pub(crate) czxid: i64,
    /// Id of the transaction that last changed its data.
    pub(crate) mzxid: i64,
    /// Number of changes of its data.
    pub(crate) version: i32,
    /// Id of the session that owns an ephemeral znode; 0 for a persistent one.
    pub(crate) owner: i64,
}

impl From<Stat> for ZnodeStat {
    fn from(stat: Stat) -> Self {
        Self {
            czxid: stat.czxid,
            mzxid: stat.mzxid,
            version: stat.version,
            owner: stat.ephemeral_owner,
        }
    }
}

/// Data and metadata of a znode; `None` if it does not exist.
pub(crate) type ZnodeData = Option<(Vec<u8>, ZnodeStat)>;

/// The data of a child, or why it was not read.
pub(crate) enum ChildData {
    Missing,
    Read(Vec<u8>, ZnodeStat),
    /// The data has more bytes than allowed.
    TooLarge(usize, ZnodeStat),
}

/// Kind of a znode to be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ZnodeKind {
    Persistent,
    /// Deleted at the end of the session.
    Ephemeral,
}

/// Answer to a request for a change. After `Missing` and `Conflict` the caller reads the znode again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// The znode, or the parent of the znode to be created, does not exist.
    Missing,
    /// The znode to be created exists, or the znode has another version.
    Conflict,
}

/// Error of a call. Each ends the connection, except `NoAuth` for a single child.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum CallError {
    #[error("{call} {path}: no answer within {limit_ms} ms")]
    Timeout {
        call: &'static str,
        path: String,
        limit_ms: u128,
    },
    #[error("{call} {path}: not allowed; give the digest credentials (USER:PASSWORD) that its ACL requires")]
    NoAuth { call: &'static str, path: String },
    #[error("{call} {path}: {error}")]
    Failed {
        call: &'static str,
        path: String,
        error: ZkError,
    },
}

/// The client. Its paths include the chroot.
pub(crate) struct Client {
    zookeeper: ZooKeeper,
    call_timeout: Duration,
    changes: channel::Sender<Changes>,
    /// Who may read created znodes; `None` if no credentials were sent.
    readers: Option<ZnodeReaders>,
}

impl Client {
    /// Makes the library connect through `relay`. The session is established only when [`Relay::opened`] returns it.
    pub(crate) async fn connect(
        relay: &Relay,
        session_timeout: Duration,
        call_timeout: Duration,
    ) -> Result<Self, CallError> {
        let address = relay.address.to_string();
        let retry = Duration::from_millis(LIBRARY_RETRY_MS);
        // The callback gets events that belong to no watch, such as duplicates. It ignores them.
        let connecting = ZooKeeper::connect_with_retry_time(&address, session_timeout, |_| (), retry);
        let zookeeper = within(call_timeout, "connect", &address, connecting).await?;
        Ok(Self {
            zookeeper,
            call_timeout,
            changes: channel::Sender::default(),
            readers: None,
        })
    }

    /// Waits until a watch has reported a change. Cancel-safe.
    pub(crate) async fn changed(&self) {
        let mut changes = self.changes.subscribe();
        let _ = changes.wait_for(|changes| *changes != Changes::default()).await;
    }

    /// Returns the changes since the last call.
    pub(crate) fn take_changes(&self) -> Changes {
        self.changes.send_replace(Changes::default())
    }

    /// Returns the callback of a watch. It must not panic or block, because the library calls it in the task that handles all
    /// watches.
    fn on(
        &self,
        note: impl FnOnce(&mut Changes) + Send + 'static,
    ) -> impl FnOnce(WatchedEvent) + Send + 'static {
        let changes = self.changes.clone();
        move |_event| changes.send_modify(note)
    }

    /// Sends digest credentials. ZooKeeper accepts any credentials here. If they are wrong, later calls fail. `readers` may
    /// read the znodes that are created from now on.
    pub(crate) async fn authenticate(
        &mut self,
        digest: &str,
        readers: ZnodeReaders,
    ) -> Result<(), CallError> {
        let call = self.zookeeper.add_auth("digest", digest.as_bytes().to_vec());
        within(self.call_timeout, "auth", "digest", call).await?;
        self.readers = Some(readers);
        Ok(())
    }

    /// Returns the metadata of a znode, or `None` if it does not exist. Also used as the heartbeat.
    pub(crate) async fn exists(&self, path: &str) -> Result<Option<ZnodeStat>, CallError> {
        let call = self.zookeeper.exists(path, false);
        let stat = within(self.call_timeout, "exists", path, call).await?;
        Ok(stat.map(ZnodeStat::from))
    }

    /// Like [`exists`](Self::exists). Also sets a watch, which reports a change of the list when the znode is created, changed
    /// or deleted.
    pub(crate) async fn exists_watched(&self, path: &str) -> Result<Option<ZnodeStat>, CallError> {
        let call = self
            .zookeeper
            .exists_w(path, self.on(|changes| changes.list = true));
        let stat = within(self.call_timeout, "exists", path, call).await?;
        Ok(stat.map(ZnodeStat::from))
    }

    /// Returns the names of the children of a znode, or `None` if it does not exist.
    pub(crate) async fn children(&self, path: &str) -> Result<Option<Vec<String>>, CallError> {
        let call = self.zookeeper.get_children(path, false);
        none_if_missing(within(self.call_timeout, "list", path, call).await)
    }

    /// Like [`children`](Self::children). Also sets a watch, which reports a change of the list when a child is created or deleted.
    /// Call [`exists`](Self::exists) first, because for a missing znode the library never frees the callback.
    pub(crate) async fn children_watched(&self, path: &str) -> Result<Option<Vec<String>>, CallError> {
        let call = self
            .zookeeper
            .get_children_w(path, self.on(|changes| changes.list = true));
        none_if_missing(within(self.call_timeout, "list", path, call).await)
    }

    /// Returns the data and metadata of the child `name` of `path`, or `None` if it does not exist.
    pub(crate) async fn data(&self, path: &str, name: &str) -> Result<ZnodeData, CallError> {
        let full = znode_path::child(path, name);
        let call = self.zookeeper.get_data(&full, false);
        let found = none_if_missing(within(self.call_timeout, "read", &full, call).await)?;
        Ok(found.map(|(data, stat)| (data, stat.into())))
    }

    /// Returns the data of the child `name` of `path`, if it has at most `bytes_max` bytes. Also sets a watch, which reports when the
    /// child is changed or deleted.
    pub(crate) async fn data_watched(
        &self,
        path: &str,
        name: &str,
        bytes_max: usize,
    ) -> Result<ChildData, CallError> {
        let full = znode_path::child(path, name);
        let report = || {
            let child = name.to_owned();
            self.on(|changes| changes.children.extend([child]))
        };
        let is_too_large = |stat: &Stat| size(stat) > bytes_max;
        // The size is read first, because the library allocates memory for whatever the server sends.
        let call = self.zookeeper.exists(&full, false);
        let mut stat = within(self.call_timeout, "exists", &full, call).await?;
        if stat.as_ref().is_some_and(is_too_large) {
            let call = self.zookeeper.exists_w(&full, report());
            stat = within(self.call_timeout, "exists", &full, call).await?;
        }
        match stat {
            None => return Ok(ChildData::Missing),
            Some(stat) if is_too_large(&stat) => return Ok(ChildData::TooLarge(size(&stat), stat.into())),
            Some(_) => {}
        }
        let call = self.zookeeper.get_data_w(&full, report());
        let found = none_if_missing(within(self.call_timeout, "read", &full, call).await)?;
        Ok(found.map_or(ChildData::Missing, |(data, stat)| {
            ChildData::Read(data, stat.into())
        }))
    }

    /// Creates a znode. Without credentials, everybody can read and change it and create znodes below it. With credentials,
    /// only clients with the same credentials can, and everybody can read it unless `readers` is
    /// [`Creator`](ZnodeReaders::Creator).
    pub(crate) async fn create(
        &self,
        path: &str,
        data: Vec<u8>,
        kind: ZnodeKind,
    ) -> Result<Outcome, CallError> {
        let acl = match self.readers {
            None => Acl::open_unsafe().clone(),
            Some(ZnodeReaders::All) => [Acl::creator_all().as_slice(), Acl::read_unsafe()].concat(),
            Some(ZnodeReaders::Creator) => Acl::creator_all().clone(),
        };
        let mode = match kind {
            ZnodeKind::Persistent => CreateMode::Persistent,
            ZnodeKind::Ephemeral => CreateMode::Ephemeral,
        };
        let call = self.zookeeper.create(path, data, acl, mode);
        outcome(within(self.call_timeout, "create", path, call).await)
    }

    /// Returns what everybody may do with a znode beyond what the ACL of a znode created here allows; `None` if that is nothing,
    /// if no credentials were sent, or if the ACL cannot be read.
    pub(crate) async fn open_permissions(&self, path: &str) -> Result<Option<String>, CallError> {
        let Some(readers) = self.readers else {
            return Ok(None);
        };
        let call = self.zookeeper.get_acl(path);
        let answer = none_if_missing(within(self.call_timeout, "read the ACL of", path, call).await);
        let acl = match answer {
            Ok(Some((acl, _))) => acl,
            Ok(None) | Err(CallError::NoAuth { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let intended = match readers {
            ZnodeReaders::All => Permission::READ,
            ZnodeReaders::Creator => Permission::NONE,
        };
        let open = acl
            .iter()
            .find(|entry| entry.scheme == "world" && !intended.can(entry.perms));
        Ok(open.map(|entry| entry.perms.to_string()))
    }

    /// Replaces the data of a znode, if it has this version.
    pub(crate) async fn replace(
        &self,
        path: &str,
        data: Vec<u8>,
        version: i32,
    ) -> Result<Outcome, CallError> {
        let call = self.zookeeper.set_data(path, data, Some(version));
        outcome(within(self.call_timeout, "write", path, call).await)
    }

    /// Deletes a znode, if it has this version.
    pub(crate) async fn delete(&self, path: &str, version: i32) -> Result<Outcome, CallError> {
        let call = self.zookeeper.delete(path, Some(version));
        outcome(within(self.call_timeout, "delete", path, call).await)
    }

    /// Closes the session. The server deletes its ephemeral znodes then, without waiting for the timeout.
    pub(crate) async fn close(&self, limit: Duration) {
        let _ = within(limit, "close", "session", self.zookeeper.close()).await;
    }
}

/// Returns the size of a znode's data, in bytes.
fn size(stat: &Stat) -> usize {
    usize::try_from(stat.data_length).unwrap_or(0)
}

/// Waits for the answer to a call at most for `limit`. After a timeout it is unknown whether the call was or will be executed.
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

fn none_if_missing<T>(answer: Result<T, CallError>) -> Result<Option<T>, CallError> {
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
        }) => Ok(Outcome::Conflict),
        Err(error) => Err(error),
    }
}
