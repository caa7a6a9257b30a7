//! The page `/connz`: the clients, open and closed.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::query::{BadRequest, Given, Query};
use super::{Pages, ROWS_MAX, duration, json, time};
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
        if query.text("subs").eq_ignore_ascii_case("detail") {
            return Ok(Self::Detail);
        }
        Ok(if query.boolean("subs")? {
            Self::Subjects
        } else {
            Self::No
        })
    }
}

/// The parameter `sort`. The direction of each order is that of `nats-server`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Cid,
    Start,
    Reason,
    Rtt,
    Subs,
    Pending,
    MsgsTo,
    MsgsFrom,
    BytesTo,
    BytesFrom,
    Last,
    Idle,
    Uptime,
    Stop,
}

const SORTS: &[(&str, Sort)] = &[
    ("cid", Sort::Cid),
    ("start", Sort::Start),
    ("subs", Sort::Subs),
    ("pending", Sort::Pending),
    ("msgs_to", Sort::MsgsTo),
    ("msgs_from", Sort::MsgsFrom),
    ("bytes_to", Sort::BytesTo),
    ("bytes_from", Sort::BytesFrom),
    ("last", Sort::Last),
    ("idle", Sort::Idle),
    ("uptime", Sort::Uptime),
    ("stop", Sort::Stop),
    ("reason", Sort::Reason),
    ("rtt", Sort::Rtt),
];

struct Params {
    offset: usize,
    limit: usize,
    sort: Sort,
    state: ConnState,
    subs: Subs,
    auth: bool,
    cid: Option<u64>,
    user: Option<String>,
}

impl Params {
    fn parse(given: Given) -> Result<Self, BadRequest> {
        let query = Query::of(given)?;
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
        if matches!(sort, Sort::Stop | Sort::Reason) && state != ConnState::Closed {
            let text = format!("sort={} needs state=closed", query.text("sort"));
            return Err(BadRequest(text));
        }
        let (offset, limit) = query.rows()?;
        let cid = query.cid()?;
        let (offset, limit) = if cid.is_some() { (0, 1) } else { (offset, limit) };
        Ok(Self {
            offset,
            limit,
            sort,
            state,
            subs: Subs::parse(&query)?,
            auth: query.boolean("auth")?,
            cid,
            user: Some(query.text("user").to_owned()).filter(|user| !user.is_empty()),
        })
    }
}

/// A client of the page, with its final state if it is closed.
struct Connection {
    client_info: Arc<ClientInfo>,
    closed: Option<Arc<Closed>>,
}

impl Connection {
    fn uptime(&self) -> Duration {
        let closed = self.closed.as_ref().map(|closed| closed.uptime);
        closed.unwrap_or_else(|| self.client_info.stats.started.elapsed())
    }

    fn idle(&self) -> Duration {
        let closed = self.closed.as_ref().map(|closed| closed.idle);
        closed.unwrap_or_else(|| self.client_info.stats.idle())
    }

    fn subscriptions(&self) -> usize {
        let closed = self.closed.as_ref().map(|closed| closed.subscriptions);
        closed.unwrap_or_else(|| self.client_info.live_subscriptions())
    }

    fn last_activity(&self) -> SystemTime {
        self.client_info.stats.started_at + self.uptime().saturating_sub(self.idle())
    }

    fn user(&self) -> Option<&str> {
        self.client_info.labels()?.user.as_deref()
    }

    fn row(&self, params: &Params) -> Row {
        let client_info = &self.client_info;
        let labels = client_info.labels().cloned().unwrap_or_default();
        let (list, detail) = match params.subs {
            Subs::No => (None, None),
            Subs::Subjects => (Some(self.each_subscription(subject)), None),
            Subs::Detail => (None, Some(self.each_subscription(SubRow::of))),
        };
        Row {
            cid: client_info.outbox.id,
            kind: "Client",
            r#type: "nats",
            ip: client_info.peer.ip().to_string(),
            port: client_info.peer.port(),
            start: time(client_info.stats.started_at),
            last_activity: time(self.last_activity()),
            stop: self.closed.as_ref().map(|closed| time(closed.stopped_at)),
            reason: self.closed.as_ref().map(|closed| closed.reason.as_str()),
            rtt: client_info.stats.rtt().map(microseconds),
            uptime: duration(self.uptime()),
            idle: duration(self.idle()),
            pending_bytes: client_info.outbox.pending_bytes(),
            in_msgs: client_info.stats.messages_in.load(Relaxed),
            out_msgs: client_info.outbox.messages_out.load(Relaxed),
            in_bytes: client_info.stats.bytes_in.load(Relaxed),
            out_bytes: client_info.outbox.bytes_out.load(Relaxed),
            subscriptions: self.subscriptions(),
            name: labels.name,
            lang: labels.lang,
            version: labels.version,
            authorized_user: labels.user.filter(|_| params.auth),
            subscriptions_list: list,
            subscriptions_list_detail: detail,
        }
    }

    fn each_subscription<T>(&self, of: impl Fn(&Arc<Subscription>) -> T) -> Vec<T> {
        let subscriptions = self.client_info.subscriptions();
        let live = subscriptions
            .iter()
            .filter(|subscription| !subscription.is_over());
        live.take(ROWS_MAX).map(of).collect()
    }
}

pub(super) fn subject(subscription: &Arc<Subscription>) -> String {
    String::from_utf8_lossy(subscription.subject()).into_owned()
}

/// Formats a duration in whole microseconds, with the largest unit: `409µs`, `1.5ms`.
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
    subscriptions_list: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscriptions_list_detail: Option<Vec<SubRow>>,
}

/// A subscription in a page.
#[derive(Serialize)]
pub(super) struct SubRow {
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
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            subject: text(subscription.subject()),
            qgroup: subscription.queue().map(text),
            sid: text(subscription.sid()),
            msgs: subscription.delivered(),
            max: subscription.max(),
            cid: subscription.client.id,
        }
    }

    /// Replaces the number of the client, by that of a route.
    pub(super) fn with_cid(self, cid: u64) -> Self {
        Self { cid, ..self }
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

pub(super) async fn page(State(pages): State<Pages>, given: Given) -> Response {
    let params = match Params::parse(given) {
        Ok(params) => params,
        Err(error) => return error.into_response(),
    };
    let clients = &pages.shared.clients;
    let mut all: Vec<Connection> = Vec::new();
    if params.state != ConnState::Closed {
        all.extend(clients.open().into_iter().map(|client_info| Connection {
            client_info,
            closed: None,
        }));
    }
    if params.state != ConnState::Open {
        all.extend(clients.closed().into_iter().map(|closed| Connection {
            client_info: Arc::clone(&closed.client_info),
            closed: Some(closed),
        }));
    }
    all.retain(|connection| {
        params
            .user
            .as_deref()
            .is_none_or(|user| connection.user() == Some(user))
    });
    let total = all.len();
    all.retain(|connection| {
        params
            .cid
            .is_none_or(|cid| cid == connection.client_info.outbox.id)
    });
    sort(&mut all, params.sort);
    let limit = params.limit;
    let page = all.iter().skip(params.offset).take(limit);
    let connections: Vec<Row> = page.map(|connection| connection.row(&params)).collect();
    json(&Connz {
        server_id: &pages.shared.server_id,
        now: time(SystemTime::now()),
        num_connections: connections.len(),
        total,
        offset: params.offset,
        limit,
        connections,
    })
}

fn sort(all: &mut [Connection], by: Sort) {
    let most_first = |key: fn(&Connection) -> u64| move |connection: &Connection| Reverse(key(connection));
    match by {
        Sort::Cid => all.sort_by_key(|connection| connection.client_info.outbox.id),
        Sort::Start => all.sort_by_key(|connection| connection.client_info.stats.started_at),
        Sort::Reason => {
            all.sort_by_key(|connection| connection.closed.as_ref().map(|closed| closed.reason.as_str()))
        }
        Sort::Rtt => all.sort_by_key(|connection| Reverse(connection.client_info.stats.rtt())),
        Sort::Last => all.sort_by_key(|connection| Reverse(connection.last_activity())),
        Sort::Idle => all.sort_by_key(|connection| Reverse(connection.idle())),
        Sort::Uptime => all.sort_by_key(Connection::uptime),
        Sort::Stop => {
            all.sort_by_key(|connection| Reverse(connection.closed.as_ref().map(|closed| closed.stopped_at)))
        }
        Sort::Subs => all.sort_by_cached_key(most_first(|connection| connection.subscriptions() as u64)),
        Sort::Pending => {
            all.sort_by_cached_key(most_first(|connection| {
                connection.client_info.outbox.pending_bytes() as u64
            }));
        }
        Sort::MsgsTo => {
            all.sort_by_cached_key(most_first(|connection| {
                connection.client_info.outbox.messages_out.load(Relaxed)
            }));
        }
        Sort::MsgsFrom => {
            all.sort_by_cached_key(most_first(|connection| {
                connection.client_info.stats.messages_in.load(Relaxed)
            }));
        }
        Sort::BytesTo => {
            all.sort_by_cached_key(most_first(|connection| {
                connection.client_info.outbox.bytes_out.load(Relaxed)
            }));
        }
        Sort::BytesFrom => {
            all.sort_by_cached_key(most_first(|connection| {
                connection.client_info.stats.bytes_in.load(Relaxed)
            }));
        }
    }
}
