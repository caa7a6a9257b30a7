//! HTTP listener for operators and monitoring.
//!
//! | file | holds |
//! |---|---|
//! | `limited_listener` | connections, with their limits |
//! | `page_access` | TLS, and the token that a request must carry |
//! | `page_host` | the name under which a request asks for a page, against DNS rebinding |
//! | [`page`] | the page for people at `/` |
//!
//! *Architecture invariant:* no client of this port can block the program. The number and duration of connections and the size
//! of requests are limited.

mod limited_listener;
pub mod page;
mod page_access;
mod page_host;

use std::future::IntoFuture as _;

use axum::Router;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::sync::watch;

use self::limited_listener::LimitedListener;
pub use self::page_access::PageAccess;
use self::page_access::PageGuard;

/// Serves `pages` on `listener` until `shutdown` completes. Then returns without waiting for the open connections.
/// Only GET and HEAD are allowed. Each connection serves one request, so the limits on connections also limit requests.
pub async fn serve(
    listener: TcpListener,
    pages: Router,
    access: watch::Receiver<PageAccess>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let guard = PageGuard {
        access: access.clone(),
        on_loopback: is_on_loopback(&listener),
    };
    let pages = with_limits(pages, guard);
    let server = axum::serve(LimitedListener::new(listener, access), pages);
    tokio::select! {
        ended = server.into_future() => if let Err(error) = ended {
            tracing::error!(%error, "HTTP listener failed; its pages are unavailable until a restart");
        },
        () = shutdown => {}
    }
}

/// Returns whether only programs on this host reach the listener.
pub fn is_on_loopback(listener: &TcpListener) -> bool {
    let own = listener.local_addr();
    own.is_ok_and(|own| own.ip().to_canonical().is_loopback())
}

/// Adds the checks of `guard` and the answers to unknown paths and methods to `pages`, and the headers of [`with_headers`] to each
/// response.
fn with_limits(pages: Router, guard: PageGuard) -> Router {
    pages
        .fallback(not_found)
        .method_not_allowed_fallback(only_get)
        .layer(axum::middleware::from_fn_with_state(
            guard,
            page_access::authorize,
        ))
        .layer(axum::middleware::map_response(with_headers))
}

/// Adds the headers that each response has. They say that the connection is closed, and that browsers must not guess another media
/// type.
async fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
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
