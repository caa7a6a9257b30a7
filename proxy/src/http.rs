//! The sidecar's HTTP listener: liveness, readiness, metrics, sessions and nodes.
//!
//! | file | holds |
//! |---|---|
//! | this one | the pages, and the data they need from the rest of the sidecar ([`Status`]) |
//! | `rows` | the JSON of `/sessionz`, `/nodez`, `/readyz` |
//!
//! *Architecture invariant:* no client of this port can delay a session, by any request or by silence. Connections
//! are limited ([`standin_daemon::http`]), and pages read copies.

mod rows;

use std::{pin::Pin, sync::Arc};

use axum::{
    Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use tokio::net::TcpListener;

pub use self::rows::{NodeRow, Page, Reachability, Readiness, SessionRow};
use crate::metrics::Metrics;

/// Result of [`Status::sessions`]: the number of all sessions, and the requested rows.
pub type Sessions<'a> = Pin<Box<dyn Future<Output = (usize, Vec<SessionRow>)> + Send + 'a>>;

/// The data that the pages need from the rest of the sidecar. No method may wait for the network.
pub trait Status: Send + Sync + 'static {
    /// Returns whether components can connect now.
    fn listening(&self) -> bool;
    /// Returns whether the process is stopping.
    fn shutting_down(&self) -> bool;
    /// Returns all known nodes, in a stable order.
    fn nodes(&self) -> Vec<NodeRow>;
    /// Returns whether nodes are reachable.
    fn reachability(&self) -> Reachability;
    /// Returns `http.ready_needs_node`, which a SIGHUP may change.
    fn ready_needs_node(&self) -> bool;
    /// Returns at most `limit` sessions from `offset` on, by ascending id.
    fn sessions(&self, offset: usize, limit: usize) -> Sessions<'_>;
    /// Sets the gauges that are not updated continuously. Called before `/metrics` is written.
    fn before_scrape(&self);
    /// Returns `http.page_items_max`, which a SIGHUP may change.
    fn page_items_max(&self) -> usize;
}

/// State that the page handlers share.
#[derive(Clone)]
struct Pages {
    status: Arc<dyn Status>,
    metrics: Arc<Metrics>,
}

/// Serves the pages on `listener` until `shutdown` is done.
pub async fn serve(
    listener: TcpListener,
    status: Arc<dyn Status>,
    metrics: Arc<Metrics>,
    shutdown: impl Future<Output = ()> + Send,
) {
    standin_daemon::http::serve(listener, router(Pages { status, metrics }), shutdown).await;
}

fn router(pages: Pages) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .route("/metrics", get(metrics))
        .route("/sessionz", get(sessions))
        .route("/nodez", get(nodes))
        .with_state(pages)
}

async fn index() -> impl IntoResponse {
    let page = concat!(
        "standin-proxy ",
        env!("CARGO_PKG_VERSION"),
        "\n\n",
        "/healthz   200 while the process lives and is not stopping; with ?nodes=1 also 503 while no node is reachable\n",
        "/readyz    200 when components can connect, else 503 with the reasons; says how many nodes are reachable\n",
        "/metrics   counters for Prometheus\n",
        "/sessionz  sessions, ?offset=0&limit=100\n",
        "/nodez     nodes, ?offset=0&limit=100\n",
    );
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], page)
}

/// Query of `/healthz`. With `?nodes=1` the answer covers the nodes as well.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HealthQuery {
    #[serde(default)]
    nodes: u8,
}

async fn health(State(pages): State<Pages>, query: Result<Query<HealthQuery>, QueryRejection>) -> Response {
    let refused = |code, reason: String| (code, format!("{reason}\n")).into_response();
    let asked = match query {
        Ok(Query(asked)) if asked.nodes <= 1 => asked,
        _ => return refused(StatusCode::BAD_REQUEST, "give ?nodes=1, or nothing".to_owned()),
    };
    let reach = pages.status.reachability();
    if pages.status.shutting_down() {
        refused(StatusCode::SERVICE_UNAVAILABLE, "shutting down".to_owned())
    } else if let Some(reason) = reach.unreachable().filter(|_| asked.nodes == 1) {
        refused(StatusCode::SERVICE_UNAVAILABLE, reason)
    } else {
        refused(StatusCode::OK, "ok".to_owned())
    }
}

async fn readiness(State(pages): State<Pages>) -> impl IntoResponse {
    let status = &pages.status;
    let readiness = Readiness::of(
        status.listening(),
        status.shutting_down(),
        &status.reachability(),
        status.ready_needs_node(),
    );
    let code = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, Json(readiness))
}

async fn metrics(State(pages): State<Pages>) -> impl IntoResponse {
    pages.status.before_scrape();
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], pages.metrics.render())
}

/// Requested rows of a list: `?offset=…&limit=…`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PageQuery {
    #[serde(default)]
    offset: usize,
    limit: Option<usize>,
}

/// Rows of a page if the request has no `limit`.
const PAGE_ITEMS_DEFAULT: usize = 100;

impl PageQuery {
    fn of(
        query: Result<Query<Self>, QueryRejection>,
        page_items_max: usize,
    ) -> Result<(usize, usize), String> {
        match query {
            Ok(Query(Self { offset, limit })) => {
                Ok((offset, limit.unwrap_or(PAGE_ITEMS_DEFAULT).min(page_items_max)))
            }
            Err(error) => Err(format!("{}; give ?offset=N&limit=N\n", error.body_text())),
        }
    }
}

async fn sessions(State(pages): State<Pages>, query: Result<Query<PageQuery>, QueryRejection>) -> Response {
    match PageQuery::of(query, pages.status.page_items_max()) {
        Ok((offset, limit)) => {
            let (total, items) = pages.status.sessions(offset, limit).await;
            Json(Page {
                total,
                offset,
                limit,
                items,
            })
            .into_response()
        }
        Err(refusal) => (StatusCode::BAD_REQUEST, refusal).into_response(),
    }
}

async fn nodes(State(pages): State<Pages>, query: Result<Query<PageQuery>, QueryRejection>) -> Response {
    match PageQuery::of(query, pages.status.page_items_max()) {
        Ok((offset, limit)) => {
            let all = pages.status.nodes();
            let total = all.len();
            let items = all.into_iter().skip(offset).take(limit).collect();
            Json(Page {
                total,
                offset,
                limit,
                items,
            })
            .into_response()
        }
        Err(refusal) => (StatusCode::BAD_REQUEST, refusal).into_response(),
    }
}

#[cfg(test)]
mod tests;
