//! The parameters of a request for a page, for the fuzz target `query`.

use crate::monitor::query::Query;

/// Parses what follows the `?` of a request, and each kind of parameter in it.
pub fn query(text: &[u8]) {
    let uri = [b"/connz?", text].concat();
    let query = axum::http::Uri::try_from(uri).ok().map(|uri| Query::of(&uri));
    let Some(Ok(query)) = query else { return };
    let _ = (query.rows(), query.cid(), query.boolean("auth"));
    let _ = query.word("sort", &[("cid", 1), ("start", 2)]);
}
