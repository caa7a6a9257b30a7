//! The sidecar's HTTP listener: liveness, readiness, metrics, sessions, nodes, moves, and the page for people.
//!
//! | file | holds |
//! |---|---|
//! | this one | the pages |
//! | `rows` | the JSON of `/sessionz`, `/movez` and `/readyz`; that of `/nodez` is in `nodes/node_status.rs` |
//! | `overview` | the JSON of `/varz` |
//! | `session_filter` | the choice of sessions on `/sessionz` |
//! | `page.html`, `page.js` | the page for people, with the parts in [`standin_daemon::http::page`] |
//!
//! *Architecture invariant:* no client of this port can delay a session, by any request or by silence. Connections
//! are limited ([`standin_daemon::http`]), and pages read copies.

mod overview;
mod rows;
mod session_filter;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use axum::{
    Extension, Json, Router,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use standin_daemon::http::PageAccess;
use standin_daemon::http::page::Page;
use standin_registry::Endpoint;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::info;

use self::overview::Overview;
use self::rows::{MoveRow, Readiness, Rows, SessionRow};
use self::session_filter::SessionFilter;
use crate::session_command::SessionCommand;
use crate::session_info::SessionInfo;
use crate::sidecar_state::SidecarState;

/// Serves the pages on `listener` until the task is ended.
pub(crate) async fn serve(
    listener: TcpListener,
    shared: Arc<SidecarState>,
    access: watch::Receiver<PageAccess>,
) {
    let may_act = Arc::new(MayAct {
        on_loopback: standin_daemon::http::is_on_loopback(&listener),
        access: access.clone(),
    });
    let pages = Router::new()
        .route("/", get(root))
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .route("/metrics", get(metrics))
        .route("/sessionz", get(sessions))
        .route("/nodez", get(nodes))
        .route("/nodez/{node}/{action}", post(act_on_node))
        .route("/movez", get(moves))
        .route("/varz", get(overview))
        .merge(PAGE.files())
        .layer(Extension(may_act))
        .with_state(shared);
    standin_daemon::http::serve(listener, pages, access, std::future::pending()).await;
}

/// The answer at `/`.
const PAGE: Page = Page {
    index: concat!(
        "standin-proxy ",
        env!("CARGO_PKG_VERSION"),
        "\n\n",
        "/          this list; a browser gets a page for people\n",
        "/healthz   200 while the process lives and is not stopping; with ?nodes=1 also 503 while no node is reachable\n",
        "/readyz    200 when components can connect, else 503 with the reasons; says how many nodes are reachable\n",
        "/metrics   counters for Prometheus\n",
        "/varz      the sidecar as a whole\n",
        "/sessionz  sessions, ?offset=0&limit=100&node=NODE&search=TEXT\n",
        "/nodez     nodes, ?offset=0&limit=100\n",
        "           POST /nodez/HOST:PORT/drain moves this sidecar's sessions away and keeps them away; /undrain ends that\n",
        "/movez     the latest moves of sessions, newest first, ?offset=0&limit=100\n",
    ),
    document: include_str!("http/page.html"),
    script: include_str!("http/page.js"),
};

async fn root(headers: HeaderMap) -> Response {
    PAGE.answer(&headers)
}

/// Query of `/healthz`. With `?nodes=1` the answer covers the nodes as well.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HealthQuery {
    #[serde(default)]
    nodes: u8,
}

async fn health(
    State(shared): State<Arc<SidecarState>>,
    query: Result<Query<HealthQuery>, QueryRejection>,
) -> impl IntoResponse {
    let reach = shared.book.reachability(Instant::now());
    let (code, text) = match query {
        Ok(Query(asked)) if asked.nodes <= 1 => {
            let unreachable = reach.unreachable().filter(|_| asked.nodes == 1);
            let stopping = shared.stopping.load(Relaxed).then(|| "shutting down".to_owned());
            match stopping.or(unreachable) {
                Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
                None => (StatusCode::OK, "ok".to_owned()),
            }
        }
        _ => (StatusCode::BAD_REQUEST, "give ?nodes=1, or nothing".to_owned()),
    };
    (code, format!("{text}\n"))
}

async fn readiness(State(shared): State<Arc<SidecarState>>) -> impl IntoResponse {
    let readiness = Readiness::of(&shared);
    let code = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, Json(readiness))
}

async fn metrics(State(shared): State<Arc<SidecarState>>) -> impl IntoResponse {
    update_metrics(&shared);
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], shared.metrics.render())
}

/// Sets the metrics that are not updated continuously.
fn update_metrics(shared: &SidecarState) {
    let (now, metrics) = (Instant::now(), &shared.metrics);
    metrics.set_traffic(shared.sessions.traffic());
    metrics.buffered_bytes.set(shared.buffered() as f64);
    let connections_max = shared.settings.load().admission().connections_max;
    metrics.connections_max.set(connections_max as f64);
    metrics.half_open.set(shared.admission.half_open() as f64);
    metrics.set_nodes(&shared.book.status(now));
    let reach = shared.book.reachability(now);
    metrics.nodes_proved.set(reach.proved as f64);
    let no_node = reach.none_for.unwrap_or_default();
    metrics.no_node_seconds.set(no_node.as_secs_f64());
    let sessions = shared.sessions.all();
    metrics.fullest_buffer.set(fullest_buffer(shared, &sessions));
    let searching = |session: &Arc<SessionInfo>| Some(session.status().searching_since?.elapsed());
    let searching: Vec<Duration> = sessions.iter().filter_map(searching).collect();
    metrics.sessions_without_node.set(searching.len() as f64);
    let longest = searching.into_iter().max().unwrap_or_default();
    metrics.sessions_without_node_seconds.set(longest.as_secs_f64());
    metrics.set_certificates(&shared.policy.load().certificates);
    metrics.set_registry(&shared.registry.health());
}

/// Returns how full the fullest buffer of a session is, or all buffers together if they are nearer to their limit. 1: full.
fn fullest_buffer(shared: &SidecarState, sessions: &[Arc<SessionInfo>]) -> f64 {
    let policy = shared.policy.load();
    let fullest = sessions
        .iter()
        .map(|session| session.buffered_bytes.load(Relaxed));
    let ratio = |bytes: f64, bytes_max: usize| bytes / bytes_max.max(1) as f64;
    let one = ratio(fullest.max().unwrap_or(0) as f64, policy.buffer_bytes);
    one.max(ratio(shared.buffered() as f64, policy.buffers_total_bytes_max))
}

/// Requested rows of a list: `?offset=…&limit=…`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PageQuery {
    #[serde(default)]
    offset: usize,
    limit: Option<usize>,
}

/// Requested sessions: rows as in [`PageQuery`], of the sessions that the filter wants.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionQuery {
    #[serde(default)]
    offset: usize,
    limit: Option<usize>,
    #[serde(default)]
    node: String,
    #[serde(default)]
    search: String,
}

/// Parameters of the lists without a filter.
const ROWS: &str = "?offset=N&limit=N";
/// Rows of a page if the request has no `limit`.
const PAGE_ITEMS_DEFAULT: usize = 100;

/// Answers with the requested rows of a list. `rows` gets the offset and the limit, and returns the number of all rows and the
/// requested ones.
fn page<T: Serialize>(
    shared: &SidecarState,
    query: PageQuery,
    rows: impl FnOnce(usize, usize) -> (usize, Vec<T>),
) -> Response {
    let limit_max = shared.settings.load().http.page_items_max;
    let limit = query.limit.unwrap_or(PAGE_ITEMS_DEFAULT).min(limit_max);
    let offset = query.offset;
    let (total, items) = rows(offset, limit);
    Json(Rows {
        total,
        offset,
        limit,
        items,
    })
    .into_response()
}

/// The answer 400 to a query that cannot be parsed, with its text.
struct BadQuery(String);

impl IntoResponse for BadQuery {
    fn into_response(self) -> Response {
        (StatusCode::BAD_REQUEST, self.0).into_response()
    }
}

type QueryResult<T> = Result<Query<T>, QueryRejection>;

/// Returns the parsed query. `known` lists the parameters for the error.
fn parsed<T>(query: QueryResult<T>, known: &str) -> Result<T, BadQuery> {
    let refusal = |error: QueryRejection| BadQuery(format!("{}; give {known}\n", error.body_text()));
    query.map(|Query(query)| query).map_err(refusal)
}

async fn sessions(
    State(shared): State<Arc<SidecarState>>,
    query: QueryResult<SessionQuery>,
) -> Result<Response, BadQuery> {
    let query = parsed(query, "?offset=N&limit=N&node=NODE&search=TEXT")?;
    let filter = SessionFilter::new(query.node, &query.search);
    let rows = PageQuery {
        offset: query.offset,
        limit: query.limit,
    };
    Ok(page(&shared, rows, |offset, limit| {
        let (total, page) = if filter.is_open() {
            (shared.sessions.len(), shared.sessions.page(offset, limit))
        } else {
            let mut wanted = shared.sessions.all();
            wanted.retain(|session| filter.wants(session));
            let total = wanted.len();
            (total, wanted.into_iter().skip(offset).take(limit).collect())
        };
        (
            total,
            page.iter().map(|session| SessionRow::of(session)).collect(),
        )
    }))
}

async fn nodes(
    State(shared): State<Arc<SidecarState>>,
    query: QueryResult<PageQuery>,
) -> Result<Response, BadQuery> {
    let query = parsed(query, ROWS)?;
    Ok(page(&shared, query, |offset, limit| {
        let all = shared.book.status(Instant::now());
        (all.len(), all.into_iter().skip(offset).take(limit).collect())
    }))
}

/// Who may change something through this port: programs on this host, or whoever has the token.
struct MayAct {
    on_loopback: bool,
    access: watch::Receiver<PageAccess>,
}

impl MayAct {
    /// Returns why a request may not change anything.
    fn refusal(&self, headers: &HeaderMap) -> Option<&'static str> {
        // Requests without the needed token do not come this far.
        if !self.on_loopback && !self.access.borrow().has_token() {
            return Some(
                "set http.token_file, or http.listen to a loopback address, to allow changes over HTTP\n",
            );
        }
        // A site that a browser of this host shows could send the request in its user's name.
        let is_of_a_site = headers.contains_key(header::ORIGIN);
        is_of_a_site.then_some("a page in a browser cannot change anything here\n")
    }
}

/// Drains a node for this sidecar, or ends that.
async fn act_on_node(
    State(shared): State<Arc<SidecarState>>,
    Extension(may_act): Extension<Arc<MayAct>>,
    Path((node, action)): Path<(String, String)>,
    headers: HeaderMap,
) -> (StatusCode, String) {
    if let Some(refusal) = may_act.refusal(&headers) {
        return (StatusCode::FORBIDDEN, refusal.to_owned());
    }
    let is_drained = match action.as_str() {
        "drain" => true,
        "undrain" => false,
        _ => {
            let text = format!("no action {action:?}; give drain or undrain\n");
            return (StatusCode::NOT_FOUND, text);
        }
    };
    let endpoint: Option<Endpoint> = node.parse().ok();
    let Some(endpoint) = endpoint.filter(|endpoint| shared.book.set_drained(endpoint, is_drained)) else {
        let text = format!("no node {node:?}; give an address as /nodez shows it\n");
        return (StatusCode::NOT_FOUND, text);
    };
    let mut sessions = shared.sessions.all();
    sessions.retain(|session| {
        let status = session.status();
        status.node.as_ref().is_some_and(|node| node.client == endpoint)
    });
    if is_drained {
        sessions
            .iter()
            .for_each(|session| session.send(SessionCommand::Leave));
        info!(node = %endpoint, sessions = sessions.len(), "node drained by an operator");
    } else {
        info!(node = %endpoint, "node no longer drained by an operator");
    }
    (StatusCode::OK, format!("{}\n", sessions.len()))
}

async fn moves(
    State(shared): State<Arc<SidecarState>>,
    query: QueryResult<PageQuery>,
) -> Result<Response, BadQuery> {
    let query = parsed(query, ROWS)?;
    Ok(page(&shared, query, |offset, limit| {
        let (total, page) = shared.moves.page(offset, limit);
        let rows = page
            .iter()
            .map(|(number, one)| MoveRow::of(*number, one, &shared));
        (total, rows.collect())
    }))
}

async fn overview(State(shared): State<Arc<SidecarState>>) -> Json<Overview> {
    Json(Overview::of(&shared))
}

#[cfg(test)]
mod tests;
