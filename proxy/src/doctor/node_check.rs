//! The check of nodes: each is dialled as the running sidecar does it, and gets a login with the credentials that the sidecar holds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Map, Value};
use standin_daemon::doctor::ensemble_check;
use standin_daemon::doctor::report::Row;
use standin_daemon::own_credentials::OwnCredentials;
use standin_registry::{AllowedNodes, Credentials, Node, Upstream};
use standin_tls::certificate;
use standin_tls::dialler::Dialler;
use standin_tls::files::TlsError;
use standin_tls::stream::Stream;
use standin_wire::{Info, client, encode};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::addresses;
use crate::dial::{DialContext, DialError, connect_node, ping};
use crate::nodes::SelfCheck;
use crate::settings::{CredentialsSection, Settings};

const CHECK: &str = "node";

/// Time limit for a node, with all its logins.
const NODE_LIMIT: Duration = Duration::from_secs(6);
/// Time limit for the lookup of a node's name.
const LOOKUP_LIMIT: Duration = Duration::from_secs(4);
/// Number of nodes that are dialled at the same time.
const DIALS_MAX: usize = 256;
/// A node's certificate that expires in fewer days gets a warning.
const CERTIFICATE_DAYS: i64 = 30;

/// Checks all nodes at the same time. Returns the rows, and each node that can be used with its INFO.
pub(super) async fn check(settings: &Settings, nodes: &[Arc<Node>]) -> (Vec<Row>, Vec<(String, Info)>) {
    let logins = match logins(settings) {
        Ok(logins) => logins,
        Err(error) => {
            return (
                vec![Row::fail(
                    "settings",
                    "credentials",
                    error,
                    "correct the settings",
                )],
                Vec::new(),
            );
        }
    };
    let context = NodeContext {
        settings,
        allowed: settings.allowed_nodes(),
        self_check: SelfCheck::new(&addresses::for_components(settings), None),
        logins,
    };
    let dials = Semaphore::new(DIALS_MAX);
    let checks = nodes.iter().map(async |node| {
        let checked = timeout(NODE_LIMIT, async {
            let _permit = dials.acquire().await;
            context.check(node).await
        });
        checked.await.unwrap_or_else(|_| {
            let found = format!("no answer within {} s", NODE_LIMIT.as_secs());
            let remedy = "start the node, or look at the network between this host and the node";
            (vec![Row::fail(CHECK, name(node), found, remedy)], None)
        })
    });
    let (rows, infos): (Vec<_>, Vec<_>) = join_all(checks).await.into_iter().unzip();
    let usable = nodes.iter().map(|node| node.client.to_string()).zip(infos);
    let usable = usable.filter_map(|(node, info)| Some((node, info?)));
    (rows.concat(), usable.collect())
}

/// Credentials with which a login is tried.
enum Login {
    /// Those of `[credentials]`, or of the `[[listener]]` with this address.
    Own(Option<String>, OwnCredentials),
    /// Those of an address in `nodes.upstream`, or none.
    Given(Option<Arc<Credentials>>),
}

/// Returns the different credentials that the settings give the listeners.
fn logins(settings: &Settings) -> Result<Vec<Login>, String> {
    let listeners = settings.listeners();
    let mut seen: Vec<&CredentialsSection> = Vec::new();
    let mut logins = Vec::new();
    for listener in &*listeners {
        if seen.contains(&&listener.credentials) {
            continue;
        }
        seen.push(&listener.credentials);
        let own = OwnCredentials::read(&listener.credentials).map_err(|error| error.to_string())?;
        let address = (listeners.len() > 1).then(|| listener.listen.first().cloned().unwrap_or_default());
        match own {
            Some(own) => logins.push(Login::Own(address, own)),
            None => {
                let upstreams = settings.nodes.upstream.iter();
                let mut upstreams = upstreams.flat_map(|url| url.reveal().parse::<Upstream>());
                let given = upstreams.find_map(|upstream| upstream.credentials);
                logins.push(Login::Given(given.map(Arc::new)));
            }
        }
    }
    Ok(logins)
}

impl Login {
    /// Returns the credential fields of CONNECT; `None` if there are no credentials.
    fn fields(&self, node: &Node, info: &Info) -> Option<Map<String, Value>> {
        let fields: Map<String, Value> = match self {
            Self::Own(_, own) => {
                let fields = own.fields(&info.nonce).into_iter();
                fields.map(|(name, value)| (name.to_owned(), value)).collect()
            }
            Self::Given(given) => {
                let given = node.credentials.as_ref().or(given.as_ref())?;
                let fields = [
                    ("user", &given.user),
                    ("pass", &given.password),
                    ("auth_token", &given.token),
                ];
                let fields = fields.into_iter();
                fields
                    .filter_map(|(name, value)| Some((name.to_owned(), value.clone()?.into())))
                    .collect()
            }
        };
        Some(fields)
    }

    /// Returns where the credentials are, for texts.
    fn origin(&self) -> String {
        match self {
            Self::Own(None, _) => "[credentials]".to_owned(),
            Self::Own(Some(listener), _) => format!("the credentials of the listener {listener}"),
            Self::Given(_) => "nodes.upstream (NATS_URL)".to_owned(),
        }
    }
}

struct NodeContext<'a> {
    settings: &'a Settings,
    allowed: AllowedNodes,
    self_check: SelfCheck,
    logins: Vec<Login>,
}

impl NodeContext<'_> {
    /// Checks one node: its name, then a connection for each login. Returns its INFO if a login succeeded or none could be tried.
    async fn check(&self, node: &Arc<Node>) -> (Vec<Row>, Option<Info>) {
        // For a node in ZooKeeper a row about its record says so. One in DNS or the cache file is only missing among the usable nodes.
        if self.allowed.refuses(&node.client) {
            return (Vec::new(), None);
        }
        let mut rows = Vec::new();
        if node.client.ip().is_none() {
            let row = lookup(node).await;
            rows.extend(row);
        }
        let mut usable = None;
        for login in &self.logins {
            match self.log_in(node, login).await {
                Ok(found) => {
                    rows.extend(found.rows(node, login));
                    usable = Some(found.info);
                }
                Err(error) => rows.push(failed(node, login, &error)),
            }
        }
        (rows, usable)
    }

    async fn log_in(&self, node: &Node, login: &Login) -> Result<LoggedIn, LoginError> {
        let tls =
            || -> Result<Arc<Dialler>, TlsError> { Ok(Arc::new(self.settings.tls.node.section.dialler()?)) };
        let context = DialContext {
            settings: self.settings,
            allowed: &self.allowed,
            self_check: &self.self_check,
            tls: &tls,
        };
        let started = Instant::now();
        let (mut stream, info, _) = connect_node(node, &context).await?;
        let mut found = LoggedIn {
            connected: started.elapsed(),
            round_trip: None,
            expires_at: stream
                .peer_certificate()
                .as_ref()
                .and_then(certificate::expires_at),
            info,
        };
        let fields = login.fields(node, &found.info);
        if fields.is_some() || !found.info.auth_required {
            let limit = self.settings.dial.handshake_timeout_ms.duration();
            let pinged = timeout(limit, connect_and_ping(&mut stream, fields.unwrap_or_default()));
            let pinged = pinged.await.unwrap_or(Err(DialError::PongTimeout(limit)));
            found.round_trip = Some(pinged.map_err(|error| LoginError {
                error,
                is_sidecar: found.is_sidecar(),
            })?);
        }
        standin_daemon::linger::close(stream).await;
        Ok(found)
    }
}

async fn lookup(node: &Node) -> Option<Row> {
    let started = Instant::now();
    let (host, port) = (&*node.client.host, node.client.port);
    let found = timeout(LOOKUP_LIMIT, tokio::net::lookup_host((host, port))).await;
    let found = match found {
        Ok(Ok(found)) => Ok(found.map(|at| at.ip().to_string()).collect::<Vec<_>>().join(", ")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    };
    Some(ensemble_check::name(host, found, started.elapsed()))
}

/// Sends CONNECT and a PING, and a second PING when the first is answered. Returns the round-trip time of the second.
async fn connect_and_ping(
    stream: &mut Stream,
    mut fields: Map<String, Value>,
) -> Result<Duration, DialError> {
    fields.retain(|_, value| !value.is_null());
    for (name, value) in [
        ("verbose", Value::from(false)),
        ("pedantic", Value::from(false)),
        ("protocol", Value::from(1)),
        ("lang", Value::from("rust")),
        ("name", Value::from("standin-proxy doctor")),
        ("version", Value::from(env!("CARGO_PKG_VERSION"))),
    ] {
        fields.insert(name.to_owned(), value);
    }
    let mut line = Vec::new();
    encode::client(
        &client::Frame::Connect(Value::Object(fields).to_string().as_bytes()),
        &mut line,
    );
    stream.write_all(&line).await.map_err(DialError::Broke)?;
    ping(stream).await?;
    let started = Instant::now();
    ping(stream).await?;
    Ok(started.elapsed())
}

/// What was found out about a node by a login.
struct LoggedIn {
    /// Time from the dial to INFO, with the TLS handshake.
    connected: Duration,
    /// Round-trip time after the login; `None` if no login was tried.
    round_trip: Option<Duration>,
    /// When the node's certificate expires, in seconds since 1970.
    expires_at: Option<i64>,
    info: Info,
}

/// Reason why a login failed.
struct LoginError {
    error: DialError,
    /// Whether the INFO was that of a sidecar.
    is_sidecar: bool,
}

impl From<DialError> for LoginError {
    fn from(error: DialError) -> Self {
        Self {
            error,
            is_sidecar: false,
        }
    }
}

impl LoggedIn {
    /// Returns whether a sidecar answers at the address of the node.
    fn is_sidecar(&self) -> bool {
        !self.info.sidecars.is_empty()
    }

    fn rows(&self, node: &Node, login: &Login) -> Vec<Row> {
        let Info {
            version,
            auth_required,
            ..
        } = &self.info;
        let tls = if self.expires_at.is_some() { ", TLS" } else { "" };
        let sidecar = if self.is_sidecar() {
            ", a sidecar answers"
        } else {
            ""
        };
        let connected = self.connected.as_millis();
        let login = match (self.round_trip, auth_required) {
            (Some(took), true) => format!("login with {}, round trip {:.1} ms", login.origin(), millis(took)),
            (Some(took), false) => format!("no login needed, round trip {:.1} ms", millis(took)),
            (None, _) => "login not tried: the components must send the credentials".to_owned(),
        };
        let found = format!("version {version}{tls}{sidecar}, INFO after {connected} ms, {login}");
        let mut rows = vec![Row::ok(CHECK, name(node), found)];
        if self.info.ldm {
            let remedy = "none if the node is about to be stopped or restarted";
            rows.push(Row::warn(
                CHECK,
                name(node),
                "is in lame duck mode and will stop",
                remedy,
            ));
        }
        let days = self.expires_at.map(|at| (at - now_secs()) / (24 * 3600));
        if let Some(days) = days.filter(|days| *days < CERTIFICATE_DAYS) {
            let found = format!("its certificate expires in {days} days");
            let remedy = "replace the certificate of the node, or set the clock of this host if it is wrong (timedatectl)";
            rows.push(Row::warn(CHECK, name(node), found, remedy));
        }
        rows
    }
}

/// Returns the name of a node for the report: its id, if it has one, and its address.
fn name(node: &Node) -> String {
    let address = node.client.to_string();
    if *node.id == *address {
        address
    } else {
        format!("{} ({address})", node.id)
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn now_secs() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.unwrap_or_default().as_secs()).unwrap_or(i64::MAX)
}

fn failed(node: &Node, login: &Login, failure: &LoginError) -> Row {
    let LoginError { error, is_sidecar } = failure;
    let remedy = if *is_sidecar {
        "a sidecar answers at this address, and has no node: look at that sidecar; if it is that of this host, to which the address is \
         redirected (take-over.md), run doctor as the user of the sidecar"
            .to_owned()
    } else {
        remedy(login, error)
    };
    Row::fail(CHECK, name(node), error.to_string(), remedy)
}

fn remedy(login: &Login, error: &DialError) -> String {
    let fixed = match error {
        DialError::NoAddress(_) => "correct the name in the record or the settings, or in DNS",
        DialError::NotAllowed(_) => "add the address to nodes.allowed_nodes, or correct the record",
        DialError::Connect(_) => "start the node, or correct its address",
        DialError::ConnectTimeout(_) => "is the host up, and does a firewall on the way drop the packets?",
        DialError::InfoTimeout(_) => {
            "if this is a node's port for clients, the node is frozen or overloaded: restart it; else correct the address"
        }
        DialError::PongTimeout(_) => {
            "the node accepts connections but does not answer: it is frozen or overloaded, restart it"
        }
        DialError::Closed | DialError::Broke(_) => "look at the node's log for the reason",
        DialError::NotNats(_) | DialError::BadInfo(_) => {
            "another program listens there, or the node wants TLS first (tls.node.handshake_first): correct the address or the setting"
        }
        DialError::Own => "take the sidecar's own address out of the registry or the settings",
        DialError::Chain(_) => "name nodes, not sidecars",
        DialError::TlsOff => "set tls.node.mode, and tls.node.ca_file to the authority of the nodes",
        DialError::TlsMissing => "switch TLS on at the node, or set tls.node.mode to \"optional\"",
        DialError::TlsBytesBefore | DialError::TlsFiles(_) => "correct [tls.node]",
        DialError::TlsHandshake(error, _) => return tls_remedy(&error.to_string()),
        DialError::Refused(_) => return format!("correct {}, or the user at the node", login.origin()),
    };
    fixed.to_owned()
}

/// Returns the remedy for a failed handshake. The TLS library names the reason only in its text.
fn tls_remedy(text: &str) -> String {
    let remedy = if text.contains("expired") {
        "replace the certificate of the node, or set the clock of this host if it is wrong (timedatectl)"
    } else if text.contains("not valid yet") || text.contains("NotValidYet") {
        "set the clock of this host (timedatectl), or of the host that made the certificate"
    } else if text.contains("CaUsedAsEndEntity") {
        "the certificate of the node is that of an authority (openssl req -x509 makes one, unless told basicConstraints=CA:FALSE): give the node one with CA:FALSE"
    } else if text.contains("UnknownIssuer") {
        "set tls.node.ca_file to the authority that certified the node"
    } else if text.contains("not valid for name") {
        "set tls.node.server_name to a name in the node's certificate, or give the node a certificate with this host"
    } else if text.contains("CertificateRequired") || text.contains("certificate required") {
        "set tls.node.cert_file and key_file: the node wants a certificate"
    } else {
        "compare [tls.node] with the TLS settings of the node"
    };
    remedy.to_owned()
}
