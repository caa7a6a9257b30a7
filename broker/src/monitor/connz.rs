//! The page `/connz`: the clients, open and closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::query::{BadRequest, Query};
use super::{Pages, ROWS_MAX, duration, json, time};
use crate::account;
use crate::client_info::ClientInfo;
use crate::clients::Closed;
use crate::subscription::Subscription;

/// The parameter `state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnState {
    Open,
    Closed,
    All,
}

/// The parameter `subs`: how much of the subscriptions a page shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subs {
    No,
    Subjects,
    Detail,
}

impl Subs {
    pub(super) fn parse(query: &Query) -> Result<Self, BadRequest> {
        Ok(match query.text("subs") {
            text if text.eq_ignore_ascii_case("detail") => Self::Detail,
            _ if query.boolean("subs")? => Self::Subjects,
            _ => Self::No,
        })
    }

    /// Lists the subscriptions of the client or route `cid`.
    pub(super) fn list<'a>(self, cid: u64, all: impl Iterator<Item = &'a Arc<Subscription>>) -> SubsList {
        match self {
            Self::No => SubsList::No {},
            Self::Subjects => SubsList::Subjects {
                subscriptions_list: all.map(|one| text(account::split(one.subject()).1)).collect(),
            },
            Self::Detail => SubsList::Detail {
                subscriptions_list_detail: all
                    .map(|one| SubRow {
                        cid,
                        ..SubRow::of(one)
                    })
                    .collect(),
            },
        }
    }
}

/// The fields of a row that the parameter `subs` requests.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum SubsList {
    No {},
    Subjects { subscriptions_list: Vec<String> },
    Detail { subscriptions_list_detail: Vec<SubRow> },
}

/// Sort key of a client. The client with the smallest key comes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Number(i128),
    Text(Option<&'static str>),
}

type Sort = fn(&Connection) -> Key;

/// The values of the parameter `sort`, with their keys. The direction of each order is that of `nats-server`.
const SORTS: &[(&str, Sort)] = &[
    ("cid", |one| Key::Number(i128::from(one.info.outbox.id))),
    ("start", |one| Key::Number(since_epoch(one.info.stats.started_at))),
    ("subs", |one| Key::Number(-(one.subscriptions() as i128))),
    ("pending", |one| {
        Key::Number(-(one.info.outbox.pending_bytes() as i128))
    }),
    ("msgs_to", |one| {
        Key::Number(-count(&one.info.outbox.messages_out))
    }),
    ("msgs_from", |one| {
        Key::Number(-count(&one.info.stats.messages_in))
    }),
    ("bytes_to", |one| Key::Number(-count(&one.info.outbox.bytes_out))),
    ("bytes_from", |one| Key::Number(-count(&one.info.stats.bytes_in))),
    ("last", |one| Key::Number(-since_epoch(one.last_activity()))),
    ("idle", |one| Key::Number(-nanos(one.idle()))),
    ("uptime", |one| Key::Number(nanos(one.uptime()))),
    ("stop", |one| {
        Key::Number(-one.stopped_at().map_or(0, since_epoch))
    }),
    ("reason", |one| Key::Text(one.reason())),
    ("rtt", |one| Key::Number(-one.info.stats.rtt().map_or(0, nanos))),
];

fn count(counter: &AtomicU64) -> i128 {
    i128::from(counter.load(Relaxed))
}

fn nanos(time: Duration) -> i128 {
    time.as_nanos() as i128
}

fn since_epoch(at: SystemTime) -> i128 {
    nanos(at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// A client, with its final state if it is closed.
struct Connection {
    info: Arc<ClientInfo>,
    closed: Option<Arc<Closed>>,
}

impl Connection {
    fn uptime(&self) -> Duration {
        let closed = self.closed.as_ref().map(|closed| closed.uptime);
        closed.unwrap_or_else(|| self.info.stats.started.elapsed())
    }

    fn idle(&self) -> Duration {
        let closed = self.closed.as_ref().map(|closed| closed.idle);
        closed.unwrap_or_else(|| self.info.stats.idle())
    }

    fn subscriptions(&self) -> usize {
        let closed = self.closed.as_ref().map(|closed| closed.subscriptions);
        closed.unwrap_or_else(|| self.info.live_subscriptions())
    }

    fn last_activity(&self) -> SystemTime {
        self.info.stats.started_at + self.uptime().saturating_sub(self.idle())
    }

    fn stopped_at(&self) -> Option<SystemTime> {
        Some(self.closed.as_ref()?.stopped_at)
    }

    fn reason(&self) -> Option<&'static str> {
        Some(self.closed.as_ref()?.reason.as_str())
    }

    fn user(&self) -> Option<&str> {
        self.info.labels()?.user.as_deref()
    }

    /// Returns whether `search`, which is in lower case, is in the address, the name or the user of the client.
    fn has(&self, search: &str) -> bool {
        let labels = self.info.labels();
        let names = labels.into_iter().flat_map(|labels| [&labels.name, &labels.user]);
        names.flatten().any(|name| name.to_lowercase().contains(search))
            || self.info.peer.to_string().contains(search)
    }

    fn row(&self, subs: Subs, auth: bool) -> Row {
        let info = &self.info;
        let labels = info.labels().cloned().unwrap_or_default();
        let subscriptions = info.subscriptions();
        let live = subscriptions.iter().filter(|one| !one.is_over());
        let list = subs.list(info.outbox.id, live.take(ROWS_MAX));
        drop(subscriptions);
        Row {
            cid: info.outbox.id,
            kind: "Client",
            r#type: "nats",
            ip: info.peer.ip().to_string(),
            port: info.peer.port(),
            start: time(info.stats.started_at),
            last_activity: time(self.last_activity()),
            stop: self.stopped_at().map(time),
            reason: self.reason(),
            rtt: info.stats.rtt().map(microseconds),
            uptime: duration(self.uptime()),
            idle: duration(self.idle()),
            pending_bytes: info.outbox.pending_bytes(),
            in_msgs: info.stats.messages_in.load(Relaxed),
            out_msgs: info.outbox.messages_out.load(Relaxed),
            in_bytes: info.stats.bytes_in.load(Relaxed),
            out_bytes: info.outbox.bytes_out.load(Relaxed),
            subscriptions: self.subscriptions(),
            name: labels.name,
            lang: labels.lang,
            version: labels.version,
            authorized_user: labels.user.filter(|_| auth),
            account: auth.then(|| info.account_name()),
            list,
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Rounds a duration down to whole microseconds, and formats it in the largest unit that gives 1 or more: `409µs`, `1.5ms`.
fn microseconds(time: Duration) -> String {
    format!("{:?}", Duration::from_micros(time.as_micros() as u64))
}

#[derive(Serialize)]
struct Row {
    cid: u64,
    kind: &'static str,
    r#type: &'static str,
    ip: String,
    port: u16,
    start: String,
    last_activity: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt: Option<String>,
    uptime: String,
    idle: String,
    pending_bytes: usize,
    in_msgs: u64,
    out_msgs: u64,
    in_bytes: u64,
    out_bytes: u64,
    subscriptions: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lang: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorized_user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(flatten)]
    list: SubsList,
}

/// A subscription in a page.
#[derive(Serialize)]
pub(super) struct SubRow {
    /// Account of the subscription; not shown for the default one.
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    qgroup: Option<String>,
    sid: String,
    msgs: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<u64>,
    cid: u64,
}

impl SubRow {
    pub(super) fn of(subscription: &Arc<Subscription>) -> Self {
        let (scope, _) = account::split(subscription.subject());
        let (name, subject) = account::name_and_subject(subscription.subject());
        Self {
            account: (!scope.is_empty()).then(|| text(name)),
            subject: text(subject),
            qgroup: subscription.queue().map(text),
            sid: text(subscription.sid()),
            msgs: subscription.delivered(),
            max: subscription.max(),
            cid: subscription.client.id,
        }
    }
}

#[derive(Serialize)]
struct Connz<'a> {
    server_id: &'a str,
    now: String,
    num_connections: usize,
    total: usize,
    offset: usize,
    limit: usize,
    connections: Vec<Row>,
}

pub(super) async fn page(State(pages): State<Pages>, query: Query) -> Result<Response, BadRequest> {
    let state = match query.text("state").to_ascii_lowercase().as_str() {
        "" | "open" => ConnState::Open,
        "closed" => ConnState::Closed,
        "any" | "all" => ConnState::All,
        other => {
            let text = format!("state must be one of open closed all, not `{other}`");
            return Err(BadRequest(text));
        }
    };
    let sort = query.word("sort", SORTS)?;
    if matches!(query.text("sort"), "stop" | "reason") && state != ConnState::Closed {
        let text = format!("sort={} needs state=closed", query.text("sort"));
        return Err(BadRequest(text));
    }
    let (mut offset, mut limit) = query.rows()?;
    let (subs, auth) = (Subs::parse(&query)?, query.boolean("auth")?);
    let (cid, user, acc) = (query.cid()?, query.text("user"), query.text("acc"));

    let clients = &pages.shared.clients;
    let mut all: Vec<Connection> = Vec::new();
    if state != ConnState::Closed {
        let open = clients.open().into_iter();
        all.extend(open.map(|info| Connection { info, closed: None }));
    }
    if state != ConnState::Open {
        all.extend(clients.closed().into_iter().map(|closed| Connection {
            info: Arc::clone(&closed.client_info),
            closed: Some(closed),
        }));
    }
    all.retain(|one| user.is_empty() || one.user() == Some(user));
    // Not in nats-server.
    let search = query.text("search").to_lowercase();
    all.retain(|one| search.is_empty() || one.has(&search));
    all.retain(|one| acc.is_empty() || one.info.account_name() == acc);
    let total = all.len();
    if let Some(cid) = cid {
        all.retain(|one| one.info.outbox.id == cid);
        (offset, limit) = (0, 1);
    }
    all.sort_by_cached_key(sort);
    let page = all.iter().skip(offset).take(limit);
    let connections: Vec<Row> = page.map(|one| one.row(subs, auth)).collect();
    Ok(json(&Connz {
        server_id: &pages.shared.server_id,
        now: time(SystemTime::now()),
        num_connections: connections.len(),
        total,
        offset,
        limit,
        connections,
    }))
}
