//! A small HTTP listener for pages that people and monitors read.
//!
//! *Architecture invariant:* nothing a client of this port does, or leaves undone, can hold up the program: connections are
//! few, short and small.

mod connection;

use std::future::IntoFuture as _;

use axum::Router;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;

use self::connection::Connections;

/// Serves `pages` on `listener` until `shutdown` is done. Open connections are cut then: no page takes longer than a moment.
/// Only GET is served, and one request for each connection: so a connection's time and size are those of one request, and
/// can be limited.
pub async fn serve(listener: TcpListener, pages: Router, shutdown: impl Future<Output = ()> + Send) {
    let server = axum::serve(Connections::of(listener), with_limits(pages));
    tokio::select! {
        ended = server.into_future() => if let Err(error) = ended {
            tracing::error!(%error, "the HTTP listener ended; its pages are gone until a restart");
        },
        () = shutdown => {}
    }
}

/// `pages` as they are served, with an answer to what they do not have.
pub fn with_limits(pages: Router) -> Router {
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
