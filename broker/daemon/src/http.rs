//! HTTP listener for operators and monitoring.
//!
//! *Architecture invariant:* no client of this port can block the program. The number and duration of connections and the size
//! of requests are limited.

mod limited_listener;

use std::future::IntoFuture as _;

use axum::Router;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;

use self::limited_listener::LimitedListener;

/// Serves `pages` on `listener` until `shutdown` completes. Then returns without waiting for the open connections.
/// Only GET and HEAD are allowed. Each connection serves one request, so the limits on connections also limit requests.
pub async fn serve(listener: TcpListener, pages: Router, shutdown: impl Future<Output = ()> + Send) {
    let server = axum::serve(LimitedListener::new(listener), with_limits(pages));
    tokio::select! {
        ended = server.into_future() => if let Err(error) = ended {
            tracing::error!(%error, "HTTP listener failed; its pages are unavailable until a restart");
        },
        () = shutdown => {}
    }
}

/// Adds the answers to unknown paths and methods to `pages`, and `Connection: close` to each response.
fn with_limits(pages: Router) -> Router {
    pages
        .fallback(not_found)
        .method_not_allowed_fallback(only_get)
        .layer(axum::middleware::map_response(closing))
}

async fn closing(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn not_found() -> impl IntoResponse {
    (StatusCode::NOT_FOUND, "no such page; / lists them\n")
}

async fn only_get(method: Method) -> impl IntoResponse {
    (
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{method} is not served; use GET\n"),
    )
}
