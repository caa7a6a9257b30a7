//! The page for people at `/`: a program shows its state in a browser.
//!
//! The page is a document, a style sheet and scripts, all compiled in. It holds no data: its script reads the JSON pages of the program,
//! as any other client does. So it is served without the token of the pages, and asks its user for the token. The files in `page/` are
//! those that both programs share. Each program has a document and the script `program.js` of its own.
//!
//! *Architecture invariant:* the page loads nothing from elsewhere and runs no script but its own. [`CONTENT_SECURITY_POLICY`] makes
//! the browser enforce this, so that a name which a client has chosen cannot become a script, even if the page had a fault.

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// What the browser may load for the page: files of this program. Scripts and styles inside the document are forbidden.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Folder of the files that the document names.
const FILES: &str = "/page/";

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Files of the page that both programs share: path, media type, content.
const SHARED: [(&str, &str, &str); 9] = [
    (
        "/page/page.css",
        "text/css; charset=utf-8",
        include_str!("page/page.css"),
    ),
    ("/page/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("/page/format.js", SCRIPT, include_str!("page/format.js")),
    ("/page/history.js", SCRIPT, include_str!("page/history.js")),
    ("/page/picture.js", SCRIPT, include_str!("page/picture.js")),
    ("/page/plot.js", SCRIPT, include_str!("page/plot.js")),
    ("/page/poll.js", SCRIPT, include_str!("page/poll.js")),
    ("/page/table.js", SCRIPT, include_str!("page/table.js")),
    ("/page/width.js", SCRIPT, include_str!("page/width.js")),
];

/// What one program answers at `/`.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// The list of all pages in plain text, for clients that do not ask for HTML.
    pub index: &'static str,
    /// The document.
    pub document: &'static str,
    /// The script that fills the document.
    pub script: &'static str,
}

impl Page {
    /// Answers a request for `/`: browsers get the document, other clients the list of pages.
    #[must_use]
    pub fn answer(&self, request: &HeaderMap) -> Response {
        let (kind, body) = if wants_html(request) {
            ("text/html; charset=utf-8", self.document)
        } else {
            ("text/plain; charset=utf-8", self.index)
        };
        let headers = [
            (header::CONTENT_TYPE, kind),
            (header::VARY, "Accept"),
            (header::CACHE_CONTROL, "no-cache"),
            (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
            (header::REFERRER_POLICY, "no-referrer"),
        ];
        (headers, body).into_response()
    }

    /// Returns the routes to the files that the document names.
    pub fn files<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        let script = ("/page/program.js", SCRIPT, self.script);
        let files = SHARED.into_iter().chain([script]);
        files.fold(Router::new(), |router, (path, kind, content)| {
            let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")];
            router.route(path, get(async move || (headers, content)))
        })
    }
}

/// Returns whether a request is for the page itself, which holds no data.
pub(super) fn is_page(request: &Request) -> bool {
    let path = request.uri().path();
    path.starts_with(FILES) || path == "/" && wants_html(request.headers())
}

/// Returns whether the client is a browser: it names HTML among what it accepts. The `*/*` of curl and of probes does not count.
fn wants_html(request: &HeaderMap) -> bool {
    let accepted = request.get_all(header::ACCEPT).into_iter();
    accepted
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("text/html"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_client_that_names_html_gets_the_document() {
        let page = Page {
            index: "list",
            document: "<html>",
            script: "",
        };
        for (accept, kind) in [
            (
                "text/html,application/xhtml+xml,*/*;q=0.8",
                "text/html; charset=utf-8",
            ),
            ("*/*", "text/plain; charset=utf-8"),
            ("application/json", "text/plain; charset=utf-8"),
        ] {
            let request: HeaderMap = [(header::ACCEPT, accept.parse().unwrap())].into_iter().collect();
            let answer = page.answer(&request);
            assert_eq!(answer.headers()[header::CONTENT_TYPE], kind, "{accept}");
        }
        assert!(page.answer(&HeaderMap::new()).headers()[header::CONTENT_TYPE] != "text/html; charset=utf-8");
    }
}
