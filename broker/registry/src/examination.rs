//! An examination of a ZooKeeper ensemble, for `doctor`: each server is examined once, separately from the others.
//!
//! In normal operation a program uses one server of the ensemble and moves to another when that fails, so nobody notices that another
//! server is down, or belongs to another ensemble. The examination connects to each server, opens a session, looks at the path and
//! closes the session. One of the sessions reads the records. Nothing is written, and every step has a time limit.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;

use crate::children::{Children, Listing};
use crate::client::{CallError, Client};
use crate::config::ZooKeeperConfig;
use crate::endpoint::Endpoint;
use crate::error::RegistryError;
use crate::hosts::HostList;
use crate::node::Node;
use crate::relay::Relay;
use crate::resolver::Resolver;
use crate::session_key::SessionAnswer;

/// Time limit for the lookup of one host name.
const LOOKUP_LIMIT: Duration = Duration::from_secs(3);
/// Time limit for a connection to one server.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Time limit for the session and for each call in it.
const CALL_LIMIT: Duration = Duration::from_secs(2);
/// Time limit for reading all records.
const RECORDS_LIMIT: Duration = Duration::from_secs(4);
/// Time limit for the close of the session.
const CLOSE_LIMIT: Duration = Duration::from_millis(300);
/// Maximum number of bytes that are read from the answer to the command `srvr`.
const STATUS_BYTES_MAX: u64 = 4096;

/// What was found out about an ensemble.
#[derive(Debug)]
pub struct Examination {
    /// Path of the records, with the chroot.
    pub path: String,
    /// The hosts, in the order of the settings.
    pub hosts: Vec<HostExamination>,
    /// The records. `None` if no server could be asked, or if the path does not exist.
    pub records: Option<RecordsExamination>,
}

/// What was found out about one host of the list.
#[derive(Debug)]
pub struct HostExamination {
    /// The host as in the settings.
    pub host: Endpoint,
    /// Duration of the lookup of its name.
    pub lookup: Duration,
    /// Its servers, one for each address, or the reason why the name has none.
    pub servers: Result<Vec<ServerExamination>, String>,
}

/// What was found out about one server.
#[derive(Debug)]
pub struct ServerExamination {
    /// Its address.
    pub address: SocketAddr,
    /// Duration of the connection and the session together, or the reason why there is no session.
    pub session: Result<Duration, String>,
    /// Role of the server (`leader`, `follower`, `observer`, `standalone`); `None` if the server does not say.
    pub mode: Option<String>,
    /// Whether the path exists, or the reason why that is unknown. `None` without a session.
    pub has_path: Option<Result<bool, String>>,
}

/// The records below the path.
#[derive(Debug)]
pub struct RecordsExamination {
    /// The nodes in the records that can be read.
    pub nodes: Vec<Arc<Node>>,
    /// Records that cannot be read or parsed: name of the znode, and reason.
    pub unreadable: Vec<(String, String)>,
    /// Number of records above the limit on nodes.
    pub over_limit: usize,
    /// Permissions that everybody has on the znode of the path, if they go beyond the ACL that the settings give to new znodes. `None` if
    /// they do not, if the settings have no credentials, or if the ACL cannot be read.
    pub open_permissions: Option<String>,
    /// Reason why the records could not be listed.
    pub error: Option<String>,
}

/// Examines the ensemble. Reads at most `nodes_max` records. Must be called within a tokio runtime.
///
/// # Errors
/// [`RegistryError`] if the configuration is invalid.
pub async fn examine(config: &ZooKeeperConfig, nodes_max: usize) -> Result<Examination, RegistryError> {
    config.check()?;
    let hosts: HostList = config.hosts.parse()?;
    let question = Arc::new(Question {
        path: config.full_path()?,
        config: config.clone(),
        nodes_max,
        is_read: AtomicBool::new(false),
    });
    let mut examined = JoinSet::new();
    for (number, host) in hosts.hosts().iter().cloned().enumerate() {
        let question = Arc::clone(&question);
        examined.spawn(async move { (number, question.host(host).await) });
    }
    let mut found = examined.join_all().await;
    found.sort_unstable_by_key(|(number, _)| *number);
    let mut records = None;
    let hosts = found.into_iter().map(|(_, (host, read))| {
        records = records.take().or(read);
        host
    });
    let hosts = hosts.collect();
    Ok(Examination {
        path: question.path.clone(),
        hosts,
        records,
    })
}

/// What every server is asked.
struct Question {
    config: ZooKeeperConfig,
    path: String,
    nodes_max: usize,
    /// Whether a session reads the records already.
    is_read: AtomicBool,
}

impl Question {
    async fn host(self: Arc<Self>, host: Endpoint) -> (HostExamination, Option<RecordsExamination>) {
        let started = Instant::now();
        let found = timeout(LOOKUP_LIMIT, Resolver::new(None).addresses(&host)).await;
        let lookup = started.elapsed();
        let addresses = match found {
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", LOOKUP_LIMIT.as_secs())),
        };
        let mut records = None;
        let servers = match addresses {
            Err(reason) => Err(reason),
            Ok(addresses) => {
                let mut asked = JoinSet::new();
                for address in addresses {
                    asked.spawn(Arc::clone(&self).server(address));
                }
                let mut servers = Vec::new();
                for (server, read) in asked.join_all().await {
                    servers.push(server);
                    records = records.or(read);
                }
                servers.sort_unstable_by_key(|server| server.address);
                Ok(servers)
            }
        };
        let host = HostExamination {
            host,
            lookup,
            servers,
        };
        (host, records)
    }

    async fn server(self: Arc<Self>, address: SocketAddr) -> (ServerExamination, Option<RecordsExamination>) {
        // The tasks of the client library end only with their runtime. A runtime may be dropped only outside of async code.
        let asked = spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| error.to_string())?;
            let (mode, answer) =
                runtime.block_on(async { tokio::join!(mode(address), self.session(address)) });
            runtime.shutdown_background();
            Ok::<_, String>((mode, answer))
        });
        let (mode, answer) = match asked.await {
            Ok(Ok(asked)) => asked,
            Ok(Err(error)) => (None, Err(error)),
            Err(error) => (None, Err(error.to_string())),
        };
        let (session, has_path, records) = match answer {
            Ok((took, has_path, records)) => (Ok(took), Some(has_path), records),
            Err(reason) => (Err(reason), None, None),
        };
        let server = ServerExamination {
            address,
            session,
            mode,
            has_path,
        };
        (server, records)
    }

    /// Opens a session, looks at the path, reads the records if no other session does, and closes the session.
    async fn session(
        &self,
        address: SocketAddr,
    ) -> Result<(Duration, Result<bool, String>, Option<RecordsExamination>), String> {
        let text = |error: CallError| error.to_string();
        let started = Instant::now();
        let mut relay = Relay::open(address, CONNECT_LIMIT, None).await?;
        let session_timeout = Duration::from_millis(self.config.session_timeout_ms);
        let mut client = Client::connect(&relay, session_timeout, CALL_LIMIT)
            .await
            .map_err(text)?;
        let SessionAnswer::Granted(_) = relay.opened(CALL_LIMIT).await? else {
            return Err("refuses a new session".to_owned());
        };
        let took = started.elapsed();
        if let Some(digest) = &self.config.digest_auth {
            client
                .authenticate(digest, self.config.readers)
                .await
                .map_err(text)?;
        }
        let has_path = client
            .exists(&self.path)
            .await
            .map(|stat| stat.is_some())
            .map_err(text);
        let client = Arc::new(client);
        let mut records = None;
        if has_path == Ok(true) && !self.is_read.swap(true, Relaxed) {
            records = Some(self.records(&client).await);
        }
        // The request to close must still pass the relay. The server ends the connection when it has received the request.
        let closing = async {
            client.close(CLOSE_LIMIT).await;
            relay.ended().await
        };
        let _ = timeout(CLOSE_LIMIT, closing).await;
        Ok((took, has_path, records))
    }

    async fn records(&self, client: &Arc<Client>) -> RecordsExamination {
        let mut children = Children::new(self.path.clone(), self.nodes_max);
        let read = timeout(RECORDS_LIMIT, children.refresh(client)).await;
        let (listing, error) = match read {
            Ok(Ok(listing)) => (listing, None),
            Ok(Err(error)) => (Listing::default(), Some(error.to_string())),
            Err(_) => {
                let reason = format!("the records were not read within {} s", RECORDS_LIMIT.as_secs());
                (Listing::default(), Some(reason))
            }
        };
        let unreadable = listing.unreadable.into_iter();
        RecordsExamination {
            nodes: listing.nodes,
            unreadable: unreadable.map(|record| (record.znode, record.reason)).collect(),
            over_limit: listing.over_limit,
            open_permissions: client.open_permissions(&self.path).await.ok().flatten(),
            error,
        }
    }
}

/// Asks a server for its role by the command `srvr`, which servers answer unless an operator has forbidden it.
async fn mode(address: SocketAddr) -> Option<String> {
    let asked = async {
        let mut server = TcpStream::connect(address).await.ok()?;
        server.write_all(b"srvr").await.ok()?;
        let mut answer = String::new();
        server
            .take(STATUS_BYTES_MAX)
            .read_to_string(&mut answer)
            .await
            .ok()?;
        let mode = answer.lines().find_map(|line| line.strip_prefix("Mode: "))?;
        Some(mode.trim().to_owned())
    };
    timeout(CONNECT_LIMIT, asked).await.ok().flatten()
}
