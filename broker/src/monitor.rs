//! The monitoring pages (`-m`). They have the paths and field names of `nats-server`, so that `nats-top` and exporters work:
//! <https://docs.nats.io/running-a-nats-service/nats_admin/monitoring>.
//!
//! | file | holds |
//! |---|---|
//! | this one | the paths, and the formats of times |
//! | [`varz`] | `/varz`: the server |
//! | [`connz`] | `/connz`: the clients, open and closed |
//! | [`routez`] | `/routez`: the routes to other nodes |
//! | [`subsz`] | `/subsz`: the subscriptions |
//! | [`accounts`] | the pages `/accountz` and `/accstatz` |
//! | [`unsupported`] | the pages of unsupported features: gateways, leaf nodes, JetStream |
//! | [`query`] | the parameters of a request |
//! | [`scrape`] | `/metrics`, for Prometheus |
//! | [`usage`] | CPU usage of the process |
//! | `page.html`, `page.js` | the page for people, with the parts in [`standin_daemon::http::page`] |
//!
//! *Architecture invariant:* the pages read the shared state of clients ([`ClientInfo`](crate::client_info::ClientInfo)) and never wait for a
//! client's task.

mod accounts;
mod connz;
pub(crate) mod query;
mod routez;
mod scrape;
mod subsz;
mod unsupported;
mod usage;
mod varz;

use std::collections::BTreeMap;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use serde::Serialize;
use standin_daemon::http::PageAccess;
use standin_daemon::http::page::Page;
use standin_daemon::metrics::Names;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::shared::Shared;

/// Number of rows of a page without the parameter `limit`.
const ROWS_DEFAULT: usize = 1024;
/// Maximum number of rows of a page, because a page is built in memory.
const ROWS_MAX: usize = 65_536;

/// The state from which the pages are built.
#[derive(Clone)]
struct Pages {
    shared: Arc<Shared>,
    address: SocketAddr,
    usage: Arc<usage::Usage>,
    /// Recorder of the metrics of `/metrics`.
    names: Arc<Names>,
    /// Number of requests by path.
    requests: Arc<Mutex<BTreeMap<&'static str, u64>>>,
}

/// Serves the pages until the task is aborted.
pub(crate) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    address: SocketAddr,
    access: watch::Receiver<PageAccess>,
) {
    let pages = Pages {
        shared,
        address,
        usage: Arc::new(usage::Usage::new()),
        names: Arc::default(),
        requests: Arc::default(),
    };
    standin_daemon::http::serve(listener, router(pages), access, pending()).await;
}

fn router(pages: Pages) -> Router {
    let paths = [
        ("/", get(root)),
        ("/varz", get(varz::page)),
        ("/connz", get(connz::page)),
        ("/routez", get(routez::page)),
        ("/subsz", get(subsz::page)),
        ("/subscriptionsz", get(subsz::page)),
        ("/gatewayz", get(unsupported::gateways)),
        ("/leafz", get(unsupported::leaf_nodes)),
        ("/accountz", get(accounts::list)),
        ("/accstatz", get(accounts::stats)),
        ("/jsz", get(unsupported::jetstream)),
        ("/healthz", get(health)),
        ("/metrics", get(scrape::page)),
        ("/favicon.ico", any(StatusCode::NOT_FOUND)),
    ];
    let mut router = Router::new();
    for (path, page) in paths {
        let requests = Arc::clone(&pages.requests);
        let count = move |request: Request, next: Next| {
            let mut requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
            *requests.entry(path).or_default() += 1;
            next.run(request)
        };
        router = router.route(path, page.layer(from_fn(count)));
    }
    router.merge(PAGE.files()).with_state(pages)
}

/// The answer at `/`.
const PAGE: Page = Page {
    index: concat!(
        "standin-broker ",
        env!("CARGO_PKG_VERSION"),
        "\n\n",
        "/         this list; a browser gets a page for people\n",
        "/healthz  200 while the server accepts clients\n",
        "/varz     the server: settings, counters, memory, CPU\n",
        "/connz    clients, ?offset=0&limit=1024&sort=cid&state=open|closed|all&subs=1|detail&auth=1&cid=N&user=NAME&search=TEXT\n",
        "/subsz    subscriptions, ?subs=1&offset=0&limit=1024&test=SUBJECT\n",
        "/routez   routes to other nodes, ?subs=1|detail\n",
        "/accountz /accstatz  the accounts, ?acc=NAME for one of them\n",
        "/gatewayz /leafz /jsz  empty: gateways, leaf nodes and JetStream are not supported\n",
        "/metrics  counters for Prometheus\n",
    ),
    document: include_str!("monitor/page.html"),
    script: include_str!("monitor/page.js"),
};

async fn root(headers: HeaderMap) -> Response {
    PAGE.answer(&headers)
}

async fn health(State(pages): State<Pages>) -> impl IntoResponse {
    let shared = &pages.shared;
    let (status, text) = if !shared.serving.load(Relaxed) {
        let text = "{\"status\":\"unavailable\",\"error\":\"not synced with the other nodes yet\"}";
        (StatusCode::SERVICE_UNAVAILABLE, text)
    } else if shared.advertised().lame_duck {
        let text = "{\"status\":\"unavailable\",\"error\":\"lame duck\"}";
        (StatusCode::SERVICE_UNAVAILABLE, text)
    } else {
        (StatusCode::OK, "{\"status\":\"ok\"}")
    };
    (status, [(header::CONTENT_TYPE, "application/json")], text)
}

/// Returns a page of JSON, indented.
fn json(page: &impl Serialize) -> Response {
    match serde_json::to_string_pretty(page) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Formats a time as in RFC 3339, in UTC.
fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_nanos(at).to_string()
}

/// Formats a duration as in the pages of `nats-server`: `1y2d3h4m5s`, with years of 365 days.
fn duration(time: Duration) -> String {
    let secs = time.as_secs();
    let (days, hours, minutes) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60);
    let (years, days) = (days / 365, days % 365);
    let mut text = String::new();
    for (count, shown, unit) in [
        (years, years > 0, 'y'),
        (days, secs >= 86_400, 'd'),
        (hours, secs >= 3600, 'h'),
        (minutes, secs >= 60, 'm'),
        (secs % 60, true, 's'),
    ] {
        if shown {
            text += &format!("{count}{unit}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_formatted_as_in_nats_server() {
        for (secs, text) in [
            (0, "0s"),
            (61, "1m1s"),
            (3600, "1h0m0s"),
            (90_061, "1d1h1m1s"),
            (366 * 86_400, "1y1d0h0m0s"),
        ] {
            assert_eq!(duration(Duration::from_secs(secs)), text);
        }
        assert_eq!(time(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00.000000000Z");
    }
}
